//! Nodes that come back, under each rule.

use super::fleet::*;
use crate::cluster::*;
use crate::time::Duration;
use alloc::vec::Vec;

const SECOND: Duration = Duration::from_secs(1);

/// Three nodes of which the last missed `rounds` rounds; then all contribute 1, the last 9.
fn comes_back_after(rounds: u64, rejoin: Rejoin) -> (Fleet, Certificate) {
    let mut fleet = Fleet::with(3, Faults::NONE, 1, rejoin, 2);
    fleet.settle_in();
    fleet.contribute_all(4);
    fleet.outcomes(SECOND);
    fleet.partition(&[2], &[0, 1]);
    fleet.run(SECOND);
    for _ in 0..rounds {
        fleet.contribute(0, 4, 1.0, 1.0);
        fleet.contribute(1, 4, 1.0, 1.0);
        fleet.run(SECOND / 50);
    }
    fleet.outcomes.values_mut().for_each(Vec::clear);
    fleet.cut.clear();
    fleet.run(SECOND);
    for (node, value) in [(0, 1.0), (1, 1.0), (2, 9.0)] {
        fleet.contribute(node, 4, value, 1.0);
    }
    let outcomes = fleet.outcomes(SECOND);
    let (certificate, _) = committed(&outcomes[&0]);
    let certificate = certificate.clone();
    assert_eq!(certificate.round, Round(rounds + 2));
    (fleet, certificate)
}

#[test]
fn what_a_stale_node_counts_is_the_rule() {
    for missed in [1, 2, 7] {
        let weights = |rejoin| {
            let (fleet, certificate) = comes_back_after(missed, rejoin);
            let mut average = fleet.nodes[&0].last_state().unwrap().segments()[0].clone();
            let last = average.values.pop().unwrap();
            assert!(average.values.iter().all(|&value| value == last));
            (certificate.members.iter().map(|member| member.weights[0]).collect::<Vec<_>>(), last)
        };
        assert_eq!(weights(Rejoin::FullWeight), (alloc::vec![1.0; 3], 11.0 / 3.0));
        let discount = 1.0 / (missed as f64 + 1.0);
        let average = ((2.0 + 9.0 * discount) / (2.0 + discount)) as f32;
        assert_eq!(weights(Rejoin::ByProgress), (alloc::vec![1.0, 1.0, discount], average));
        assert_eq!(weights(Rejoin::HealFirst), (alloc::vec![1.0, 1.0, 0.0], 1.0));
    }
}

/// Nodes named only their newest 32 ancestors: whoever had been away for longer was taken for a fork, and counted in full.
#[test]
fn a_node_away_for_very_long_is_stale_all_the_same() {
    for rejoin in [Rejoin::FullWeight, Rejoin::ByProgress, Rejoin::HealFirst] {
        let (fleet, certificate) = comes_back_after(50, rejoin);
        assert!(!certificate.merges(), "{certificate}");
        assert_eq!(certificate.missed(certificate.members[2].parent), 50);
        assert!(fleet.lines(|record| matches!(record.what, Occurrence::Forked { .. })).is_empty());
    }
}

#[test]
fn whoever_is_healed_counts_its_samples_as_lost_and_whoever_counts_less_does_not() {
    let lost = |rejoin| {
        let (fleet, _) = comes_back_after(3, rejoin);
        fleet.lines(|record| matches!(record.what, Occurrence::Healed { .. })).len()
    };
    assert_eq!((lost(Rejoin::ByProgress), lost(Rejoin::HealFirst)), (0, 1));
}

#[test]
fn waiting_nodes_wait_as_long_as_it_takes_and_not_silently() {
    let mut fleet = Fleet::adapted(3, Faults::NONE, 1, Rejoin::FullWeight, 3, |settings| {
        settings.shortage = Shortage::Wait;
    });
    fleet.settle_in();
    fleet.kill(2);
    fleet.run(SECOND);
    fleet.contribute(0, 4, 0.0, 1.0);
    fleet.contribute(1, 4, 1.0, 1.0);
    fleet.run(60 * SECOND);
    assert!(fleet.outcomes.values().all(Vec::is_empty), "{}", fleet.trace());
    let lacking = fleet.lines(|record| matches!(record.what, Occurrence::Lacking { .. }));
    let of =
        |node: &str| lacking.iter().filter(|line| *line == &alloc::format!("{node} lacking 2 of 3 missing n2")).count();
    // After 1, 2, 4, … budgets of silence.
    assert!(of("n0") == 6 && of("n1") == 6 && lacking.len() == 12, "{lacking:?}");
    fleet.start(2, 2);
    fleet.settle_in();
    fleet.contribute(2, 4, 2.0, 1.0);
    let outcomes = fleet.outcomes(SECOND);
    assert_eq!(members(committed(&outcomes[&0]).0), [0, 1, 2]);
}

/// The last of `size` nodes is cut off again and again; then all contribute. Answers who averages.
fn averages_with_one_that_flaps(size: u32, minimum: usize, adapt: fn(&mut Settings)) -> Vec<u32> {
    let mut fleet = Fleet::adapted(size, Faults::NONE, 1, Rejoin::FullWeight, minimum, adapt);
    fleet.settle_in();
    let others: Vec<u32> = (0..size - 1).collect();
    for _ in 0..6 {
        fleet.partition(&[size - 1], &others);
        fleet.run(3 * SECOND / 5);
        fleet.cut.clear();
        fleet.run(SECOND / 2);
    }
    fleet.contribute_all(4);
    let outcomes = fleet.outcomes(SECOND);
    members(committed(&outcomes[&0]).0)
}

#[test]
fn nobody_sits_out_where_the_others_would_wait_for_it() {
    let sits_out: fn(&mut Settings) = |settings| settings.quarantine = Some(Quarantine::after(3));
    let waits: fn(&mut Settings) = |settings| {
        settings.quarantine = Some(Quarantine::after(3));
        settings.shortage = Shortage::Wait;
    };
    for size in [2, 3, 5] {
        let all: Vec<u32> = (0..size).collect();
        assert_eq!(averages_with_one_that_flaps(size, size as usize, waits), all);
        if size > 2 {
            assert_eq!(averages_with_one_that_flaps(size, size as usize - 1, waits), all[..all.len() - 1]);
            assert_eq!(averages_with_one_that_flaps(size, 2, sits_out).len(), all.len() - 1);
        }
    }
}
