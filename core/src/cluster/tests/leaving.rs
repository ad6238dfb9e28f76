//! Whoever says goodbye is neither suspected nor waited for, whatever it was doing.

use super::fleet::*;
use crate::cluster::*;
use crate::time::Duration;
use crate::transport::NodeId;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Over perfect links the others have their outcome before silence could have told them anything.
    #[test]
    fn the_others_go_on_at_once(
        size in 2u32..6,
        leaver in 0u32..6,
        strict: bool,
        contributes: bool,
        len in 1usize..40_000,
        after in 0u64..30_000,
    ) {
        let leaver = leaver % size;
        let adapt = if strict { |settings: &mut Settings| settings.mode = Mode::Strict } else { |_: &mut Settings| {} };
        let mut fleet = Fleet::adapted(size, Faults::NONE, 1, Rejoin::FullWeight, 2, adapt);
        fleet.settle_in();
        for node in (0..size).filter(|node| *node != leaver || contributes) {
            fleet.contribute(node, len, node as f32, 1.0);
        }
        fleet.run(Duration::from_micros(after));
        let now = fleet.now;
        fleet.nodes.get_mut(&leaver).unwrap().leave(now);
        fleet.run(Duration::from_millis(2));
        prop_assert!(fleet.nodes[&leaver].has_left(), "a goodbye takes no time");
        fleet.kill(leaver);
        let budget = Budget::default();
        let left = size as usize - 1;
        let enough = left >= if strict { size as usize / 2 + 1 } else { 2 };
        // Without a majority strict nodes wait, however long it takes.
        let outcomes = if enough || !strict { fleet.outcomes(budget.suspect()) } else { BTreeMap::new() };
        // A late start of the last suspicion.
        fleet.run(budget.down() * 2);
        let minds = |record: &Record| match &record.what {
            Occurrence::Suspect { peer, .. } => *peer == NodeId(leaver),
            Occurrence::Down { peer, why } => *peer == NodeId(leaver) && *why != Loss::Left,
            Occurrence::Slow { .. } => true,
            _ => false,
        };
        prop_assert_eq!(fleet.lines(minds), Vec::<String>::new());
        for (node, outcome) in outcomes.into_iter().filter(|(node, _)| *node != leaver && enough) {
            prop_assert!(matches!(outcome, Outcome::Committed { .. }), "{}: {:?}", node, outcome);
        }
    }
}
