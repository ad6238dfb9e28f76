//! Whoever says goodbye is neither suspected nor waited for, whatever it was doing.

use super::fleet::*;
use super::puppet::Stage;
use crate::cluster::message::Message;
use crate::cluster::wire::{Body, Kind};
use crate::cluster::*;
use crate::process::Process;
use crate::time::Duration;
use crate::transport::{Event, NodeId};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
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

/// Who came back as `incarnation` of `node` to anybody.
fn ups(fleet: &Fleet, node: u32, incarnation: u64) -> Vec<String> {
    let start = Incarnation(incarnation);
    fleet.lines(
        |record| matches!(record.what, Occurrence::Up { peer, incarnation } if (peer, incarnation) == (NodeId(node), start)),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A former self comes back after a later start has left, and after all who have heard it leave are gone.
    #[test]
    fn a_goodbye_outlasts_former_selves_and_those_who_heard_it(
        size in 3u32..6,
        leaver in 0u32..6,
        stays in 0u64..10_000,
        backwards: bool,
    ) {
        let leaver = leaver % size;
        let mut fleet = Fleet::with(size, Faults::NONE, 1, Rejoin::FullWeight, 2);
        fleet.settle_in();
        fleet.kill(leaver);
        fleet.start(leaver, 2);
        // So shortly that nobody may have met it.
        fleet.run(Duration::from_micros(stays));
        let now = fleet.now;
        fleet.nodes.get_mut(&leaver).unwrap().leave(now);
        fleet.run(Duration::from_millis(2));
        fleet.kill(leaver);
        // One after another, so that each meets somebody who knows.
        let mut others: Vec<u32> = (0..size).filter(|node| *node != leaver).collect();
        if backwards {
            others.reverse();
        }
        for &node in &others {
            fleet.kill(node);
            fleet.start(node, 2);
            fleet.settle_in();
        }
        let before = ups(&fleet, leaver, 1);
        fleet.start(leaver, 1);
        fleet.run(Duration::from_secs(1));
        prop_assert_eq!(ups(&fleet, leaver, 1), before, "{}", fleet.trace());
        prop_assert!(fleet.nodes[&leaver].is_zombie(), "it is told what it is");
    }
}

#[test]
fn who_is_said_to_have_left_is_gone_and_what_is_old_or_about_oneself_changes_nothing() {
    let mut stage = Stage::new(1, 4);
    let gone = |stage: &mut Stage, starts: &[(u32, u64)]| {
        let starts = starts.iter().map(|&(node, start)| (NodeId(node), Incarnation(start))).collect();
        let (records, said) = (stage.records.len(), stage.said.len());
        stage.say(0, &Message::Departed { starts });
        let records = stage.records[records..].iter().map(|record| record.what.to_string()).collect::<Vec<_>>();
        let told = stage.said[said..].iter().filter_map(|(to, bytes)| match Message::decode(bytes).unwrap() {
            Message::Departed { starts } => Some((*to, starts.len())),
            _ => None,
        });
        (records.join(", "), told.collect::<Vec<_>>())
    };
    assert_eq!(gone(&mut stage, &[(2, 0), (1, 9), (7, 1)]), (String::new(), vec![]));
    assert!(!stage.node.is_zombie());
    // Its goodbye was lost.
    assert_eq!(gone(&mut stage, &[(2, 1)]), ("down n2 left".into(), vec![(3, 1)]));
    assert_eq!(gone(&mut stage, &[(2, 1)]), (String::new(), vec![]));
    // A later start of it was never met.
    assert_eq!(gone(&mut stage, &[(2, 1), (3, 5)]), ("down n3 replaced".into(), vec![]));
    let known: Vec<_> = stage.node.peers().map(|peer| (peer.incarnation.0, peer.liveness)).collect();
    assert_eq!(known, [(1, Liveness::Up), (1, Liveness::Left), (5, Liveness::Left)]);
    // Who comes up again is told.
    stage.node.handle(stage.now, Event::Down(NodeId(0)));
    let said = stage.said.len();
    stage.frame(0, Kind::Heartbeat, Body::Heartbeat { last: CertificateId::default() });
    let told = stage.said[said..].iter().find_map(|(to, bytes)| match Message::decode(bytes).unwrap() {
        Message::Departed { starts } => Some((*to, starts)),
        _ => None,
    });
    assert_eq!(told, Some((0, vec![(NodeId(2), Incarnation(1)), (NodeId(3), Incarnation(5))])));
}
