//! Nodes that fell behind take over the newest committed state.

use super::fleet::*;
use crate::cluster::*;
use crate::time::Duration;
use crate::transport::NodeId;
use alloc::vec::Vec;

const SECOND: Duration = Duration::from_secs(1);

/// A fleet whose last node has missed a round; rounds need `minimum` nodes.
fn behind(size: u32, minimum: usize, len: usize, faults: Faults, seed: u64) -> Fleet {
    let mut fleet = Fleet::with(size, faults, seed, Rejoin::HealFirst, minimum);
    fleet.run(SECOND / 2);
    fleet.contribute_all(len);
    fleet.outcomes(3 * SECOND);
    let others: Vec<u32> = (0..size - 1).collect();
    fleet.partition(&[size - 1], &others);
    fleet.contribute_all(len);
    fleet.outcomes(3 * SECOND);
    fleet.cut.clear();
    fleet.run(SECOND / 2);
    fleet
}

fn healed(outcome: &Outcome<f32>) -> (&Certificate, &Contribution<f32>) {
    match outcome {
        Outcome::Healed { certificate, state } => (certificate, state),
        other => panic!("not healed: {other:?}"),
    }
}

#[test]
fn it_takes_the_result_of_a_round_in_which_it_counts_nothing() {
    for seed in 0..10 {
        let faults = if seed == 0 { Faults::NONE } else { Faults::SOME };
        let mut fleet = behind(3, 2, 20_000, faults, seed);
        fleet.nodes.get_mut(&2).unwrap().count_samples(640);
        fleet.contribute_all(20_000);
        let outcomes = fleet.outcomes(3 * SECOND);
        let (certificate, state) = healed(&outcomes[&2]);
        let (others, average) = committed(&outcomes[&0]);
        assert_eq!((certificate, state), (others, average));
        let member = certificate.member(NodeId(2)).unwrap();
        assert_eq!((&member.weights[..], member.samples), (&[0.0][..], (640, 640)));
        assert_eq!(state.segments()[0].values[0], 2.0 / 3.0);
        let lines = fleet.lines(|record| matches!(record.what, Occurrence::Healed { .. }));
        assert!(lines.len() == 1 && lines[0].ends_with("lost 0..640"), "{lines:?}");
        fleet.run(SECOND / 20);
        fleet.contribute_all(20_000);
        let outcomes = fleet.outcomes(3 * SECOND);
        let (certificate, _) = committed(&outcomes[&2]);
        assert_eq!(members(certificate), [0, 1, 2]);
        assert_eq!(certificate.parents.len(), 1, "caught up");
    }
}

#[test]
fn with_too_few_for_a_round_it_takes_over_what_the_others_committed() {
    for seed in 0..10 {
        let faults = if seed == 0 { Faults::NONE } else { Faults::SOME };
        let mut fleet = behind(3, 2, 20_000, faults, seed);
        fleet.kill(1);
        fleet.run(SECOND);
        let newest = fleet.nodes[&0].last();
        let state = fleet.nodes[&0].last_state().unwrap().clone();
        fleet.nodes.get_mut(&2).unwrap().count_samples(640);
        fleet.contribute_all(20_000);
        let outcomes = fleet.outcomes(3 * SECOND);
        let (certificate, taken) = healed(&outcomes[&2]);
        assert_eq!(certificate.id(), newest, "seed {seed}");
        assert_eq!(taken, &*state);
        assert_eq!(fleet.nodes[&2].samples(), (640, (640, 640)));
        assert!(matches!(outcomes[&0], Outcome::Abandoned(AbandonReason::TooFew)));
        fleet.contribute_all(20_000);
        let outcomes = fleet.outcomes(3 * SECOND);
        assert_eq!(members(committed(&outcomes[&2]).0), [0, 2]);
    }
}

#[test]
fn a_lost_donor_is_replaced() {
    let mut fleet = behind(4, 3, 200_000, Faults::NONE, 1);
    fleet.kill(2);
    fleet.run(SECOND);
    fleet.contribute_all(200_000);
    let end = fleet.now + SECOND;
    let is_healing = |record: &Record| matches!(record.what, Occurrence::Healing { .. });
    assert!(fleet.run_until(end, |fleet| fleet.records.iter().any(is_healing)));
    fleet.run(SECOND / 200);
    let line = fleet.lines(is_healing)[0].clone();
    let donor = if line.ends_with("n0") { 0 } else { 1 };
    fleet.kill(donor);
    fleet.outcomes.get_mut(&donor).unwrap().clear();
    let outcomes = fleet.outcomes(3 * SECOND);
    healed(&outcomes[&3]);
    assert_eq!(fleet.lines(is_healing).len(), 2);
}
