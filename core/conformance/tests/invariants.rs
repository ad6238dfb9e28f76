//! The checker accepts a lawful run and rejects every way of breaking it by the invariant that is broken.

use kronfleet_conformance::invariants::{Checker, Summary};
use kronfleet_conformance::violation::Violation;
use kronfleet_core::cluster::{
    AbortReason, Algorithm, Attempt, Certificate, CertificateId, Contribution, Incarnation, Loss, Member, Occurrence,
    Parent, Record, Round,
};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use std::sync::Arc;

/// What happens in a run, as a checker sees it.
#[derive(Clone)]
enum Event {
    Contribution(NodeId, Contribution<f32>),
    State(NodeId, Contribution<f32>),
    Record(Record),
}

/// A run being told.
#[derive(Clone, Default)]
struct Run {
    events: Vec<Event>,
    /// For each node its turn, samples settled, and last certificate.
    nodes: [(u64, u64, CertificateId); 3],
    sequence: u64,
}

const WEIGHTS: [f64; 3] = [1.0, 2.0, 0.5];

fn values(of: &[f32], weight: f64) -> Contribution<f32> {
    let mut contribution = Contribution::default();
    contribution.segment("x", of.len(), weight).copy_from_slice(of);
    contribution
}

impl Run {
    fn record(&mut self, node: u32, what: Occurrence) {
        let at = Instant::from_nanos(self.events.len() as u64);
        self.events.push(Event::Record(Record { at, node: NodeId(node), incarnation: Incarnation(1), what }));
    }

    fn begin() -> Self {
        let mut run = Self::default();
        for node in 0..3 {
            run.record(node, Occurrence::Started);
        }
        for (node, peer) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            run.record(node, Occurrence::Up { peer: NodeId(peer), incarnation: Incarnation(1) });
        }
        run
    }

    /// One round of these members with these values, committed by those of them in `by`.
    fn round(&mut self, members: &[u32], x: [[f32; 2]; 3], by: &[u32]) -> Arc<Certificate> {
        self.sequence += 1;
        let attempt = Attempt { sequence: self.sequence, proposer: NodeId(members[0]), incarnation: Incarnation(1) };
        let mut entries = Vec::new();
        for &node in members {
            let (turn, settled, parent) = &mut self.nodes[node as usize];
            *turn += 1;
            let member = Member {
                node: NodeId(node),
                incarnation: Incarnation(1),
                turn: *turn,
                iteration: *turn * 5,
                samples: (*settled, *turn * 10),
                contribution: values(&x[node as usize], 1.0).digest(),
                parent: *parent,
                weights: vec![WEIGHTS[node as usize]],
            };
            self.events.push(Event::Contribution(NodeId(node), values(&x[node as usize], WEIGHTS[node as usize])));
            let Member { turn, iteration, samples, contribution, .. } = member;
            self.record(node, Occurrence::Ready { turn, iteration, samples, contribution });
            entries.push(member);
        }
        self.record(
            members[0],
            Occurrence::Proposed { attempt, members: members.iter().copied().map(NodeId).collect() },
        );
        let mean = |index: usize| {
            let sum: f64 =
                members.iter().map(|&node| WEIGHTS[node as usize] * f64::from(x[node as usize][index])).sum();
            (sum / members.iter().map(|&node| WEIGHTS[node as usize]).sum::<f64>()) as f32
        };
        let average = values(&[mean(0), mean(1)], 1.0);
        let mut parents: Vec<_> = entries.iter().map(|member| member.parent).collect();
        parents.sort();
        parents.dedup();
        let certificate = Arc::new(Certificate {
            attempt,
            round: Round(1 + parents.iter().map(|parent| parent.round.0).max().unwrap()),
            members: entries,
            algorithm: Algorithm::Direct,
            wire: "f32".into(),
            result: average.digest(),
            parents: parents.into_iter().map(|certificate| Parent { certificate, stale: false }).collect(),
        });
        for &node in members {
            self.record(node, Occurrence::Done { attempt, result: certificate.result });
        }
        for &node in by {
            let (turn, settled, last) = &mut self.nodes[node as usize];
            (*settled, *last) = (*turn * 10, certificate.id());
            self.events.push(Event::State(NodeId(node), average.clone()));
            self.record(node, Occurrence::Committed { certificate: certificate.clone() });
            if certificate.merges() {
                let parents = certificate.parents.iter().map(|parent| parent.certificate).collect();
                self.record(node, Occurrence::Merged { parents });
            }
        }
        certificate
    }

    /// Three rounds, the second by two nodes, then everybody finishes.
    fn lawful() -> Vec<Event> {
        let mut run = Self::begin();
        run.round(&[0, 1, 2], [[1.0, -4.0], [2.0, 0.25], [8.0, 0.5]], &[0, 1, 2]);
        run.round(&[0, 1], [[1.5, -3.0], [2.5, 0.75], [0.0; 2]], &[0]);
        run.round(&[0, 1, 2], [[1.25, -1.0], [2.0, 0.5], [3.0, 0.125]], &[0, 1, 2]);
        for node in 0..3 {
            let settled = run.nodes[node as usize].1;
            run.record(
                node,
                Occurrence::Finished { iteration: 17, samples: settled + 2, uncommitted: (settled, settled + 2) },
            );
        }
        run.events
    }
}

fn check(events: &[Event]) -> Result<Summary, Violation> {
    let mut checker = Checker::new("the same test");
    for event in events {
        let verdict = match event {
            Event::Contribution(node, contribution) => {
                checker.contribution(*node, contribution);
                Ok(())
            }
            Event::State(node, state) => {
                checker.state(*node, state);
                Ok(())
            }
            Event::Record(record) => checker.observe(record),
        };
        verdict?;
    }
    checker.finish()
}

/// The lawful run with its records changed by `change`, which also sees their number.
fn changed(change: impl Fn(usize, &mut Record)) -> Vec<Event> {
    let mut events = Run::lawful();
    let mut number = 0;
    for event in &mut events {
        if let Event::Record(record) = event {
            change(number, record);
            number += 1;
        }
    }
    events
}

/// The lawful run with all copies of its last certificate changed.
fn certified(change: impl Fn(&mut Certificate)) -> Vec<Event> {
    changed(|_, record| {
        if let Occurrence::Committed { certificate } = &mut record.what
            && certificate.attempt.sequence == 3
        {
            change(Arc::make_mut(certificate));
        }
    })
}

fn rejected(events: &[Event], law: &str) {
    let violation = check(events).expect_err(law);
    assert!(violation.law.starts_with(law), "{law} is broken, but rejected was by {violation}");
    assert!(violation.what.contains("the same test"), "a violation says how to repeat it");
}

#[test]
fn a_lawful_run_is_accepted_and_summed_up() {
    let summary = check(&Run::lawful()).unwrap();
    let expected = Summary {
        records: 9 + 10 + 6 + 13 + 3,
        commits: 3,
        recomputed: 3,
        partial: 1,
        forks: 1,
        merges: 1,
        retried: 0,
        healed: 0,
        samples: 80,
        samples_lost: 0,
        samples_uncommitted: 6,
    };
    assert_eq!(summary, expected);
}

#[test]
fn two_certificates_of_one_attempt_are_rejected() {
    let events = changed(|_, record| {
        if let Occurrence::Committed { certificate } = &mut record.what
            && record.node == NodeId(2)
            && certificate.attempt.sequence == 1
        {
            Arc::make_mut(certificate).members[0].iteration += 1;
        }
    });
    rejected(&events, "agreement");
}

#[test]
fn a_commit_applied_twice_is_rejected() {
    let mut events = Run::lawful();
    let committed = events
        .iter()
        .position(|event| matches!(event, Event::Record(Record { what: Occurrence::Committed { .. }, .. })))
        .unwrap();
    events.insert(committed, events[committed].clone());
    rejected(&events, "agreement");
}

#[test]
fn a_commit_before_everybody_is_done_is_rejected() {
    let mut events = Run::lawful();
    let done = events
        .iter()
        .position(|event| {
            let Event::Record(record) = event else { return false };
            record.node == NodeId(2) && matches!(record.what, Occurrence::Done { .. })
        })
        .unwrap();
    events.remove(done);
    rejected(&events, "agreement");
}

#[test]
fn a_commit_of_unequal_results_is_rejected() {
    let events = changed(|_, record| {
        if let Occurrence::Done { result, .. } = &mut record.what
            && record.node == NodeId(1)
        {
            result.0 ^= 1;
        }
    });
    rejected(&events, "agreement");
}

#[test]
fn an_abort_after_the_commit_is_rejected() {
    let mut run = Run::begin();
    let certificate = run.round(&[0, 1], [[1.0, 2.0]; 3], &[0, 1]);
    let attempt = certificate.attempt;
    run.record(1, Occurrence::Aborted { attempt, why: AbortReason::Lost, who: vec![NodeId(0)] });
    rejected(&run.events, "agreement");
}

#[test]
fn an_attempt_proposed_twice_is_rejected() {
    let mut run = Run::begin();
    let attempt = Attempt { sequence: 1, proposer: NodeId(0), incarnation: Incarnation(1) };
    for _ in 0..2 {
        run.record(0, Occurrence::Proposed { attempt, members: vec![NodeId(0), NodeId(1)] });
    }
    rejected(&run.events, "agreement");
}

#[test]
fn a_history_with_a_gap_is_rejected() {
    rejected(&certified(|certificate| certificate.round.0 += 1), "agreement");
    rejected(&certified(|certificate| certificate.parents.truncate(1)), "agreement");
    rejected(&certified(|certificate| certificate.parents[1].stale = true), "agreement");
}

#[test]
fn a_healing_to_what_nobody_committed_is_rejected() {
    let mut run = Run::begin();
    let mut certificate = run.round(&[0, 1], [[1.0, 2.0]; 3], &[0, 1]);
    Arc::make_mut(&mut certificate).round.0 += 1;
    run.record(2, Occurrence::Healed { certificate, donor: NodeId(0), lost: (0, 0) });
    rejected(&run.events, "agreement");
}

#[test]
fn an_absent_node_left_in_the_denominator_is_rejected() {
    // The second round's average divided by the weight of all three.
    let wrong = values(&[(1.5 + 5.0) / 3.5, (-3.0 + 1.5) / 3.5], 1.0);
    let mut events = changed(|_, record| match &mut record.what {
        Occurrence::Done { attempt, result } if attempt.sequence == 2 => *result = wrong.digest(),
        Occurrence::Committed { certificate } if certificate.attempt.sequence == 2 => {
            Arc::make_mut(certificate).result = wrong.digest();
        }
        _ => {}
    });
    events.retain(|event| !matches!(event, Event::State(..)));
    rejected(&events, "exactness");
}

#[test]
fn a_contributor_that_is_not_named_is_rejected() {
    rejected(&certified(|certificate| drop(certificate.members.remove(2))), "exactness");
}

#[test]
fn weights_other_than_contributed_are_rejected() {
    rejected(&certified(|certificate| certificate.members[1].weights = vec![3.0]), "exactness");
}

#[test]
fn a_state_other_than_certified_is_rejected() {
    let mut events = Run::lawful();
    for event in &mut events {
        if let Event::State(NodeId(2), state) = event {
            state.segments_mut()[0].values[0] += 1.0;
        }
    }
    rejected(&events, "exactness");
}

#[test]
fn negative_weights_are_rejected() {
    let mut events = certified(|certificate| certificate.members[2].weights = vec![-0.5]);
    // Too large to be kept: only the certificate itself can be looked at.
    events.retain(|event| matches!(event, Event::Record(_)));
    rejected(&events, "convexity");
}

#[test]
fn an_average_outside_the_hull_is_rejected() {
    let mut run = Run::begin();
    run.round(&[0, 1], [[1.0, 2.0], [2.0, 1.0], [0.0; 2]], &[0]);
    // The digests agree with a wrong sum, so that only the values tell.
    let wrong = values(&[9.0, 1.5], 1.0);
    for event in &mut run.events {
        match event {
            Event::State(_, state) => *state = wrong.clone(),
            Event::Record(Record { what: Occurrence::Done { result, .. }, .. }) => *result = wrong.digest(),
            Event::Record(Record { what: Occurrence::Committed { certificate }, .. }) => {
                Arc::make_mut(certificate).result = wrong.digest();
            }
            _ => {}
        }
    }
    // Exactness is asked first and sees it too.
    let violation = check(&run.events).unwrap_err();
    assert!(violation.law.starts_with("exactness"), "{violation}");
}

#[test]
fn a_later_start_with_an_earlier_incarnation_is_rejected() {
    let mut events = Run::lawful();
    events.extend(changed(|number, record| {
        record.incarnation = Incarnation(if number == 0 { 0 } else { 1 });
    }));
    rejected(&events, "monotony");
}

#[test]
fn a_zombie_among_the_members_is_rejected() {
    let mut run = Run::begin();
    run.record(0, Occurrence::Up { peer: NodeId(2), incarnation: Incarnation(2) });
    run.round(&[0, 1, 2], [[1.0, 2.0]; 3], &[0, 1, 2]);
    rejected(&run.events, "monotony");
}

#[test]
fn a_zombie_that_knows_and_commits_is_rejected() {
    let mut run = Run::begin();
    run.record(2, Occurrence::Refused { by: NodeId(0), known: Incarnation(2) });
    run.round(&[1, 2], [[1.0, 2.0]; 3], &[1, 2]);
    rejected(&run.events, "monotony");
}

#[test]
fn a_refused_node_that_is_no_zombie_is_rejected() {
    let mut run = Run::begin();
    let (peer, incarnation, known) = (NodeId(1), Incarnation(2), Incarnation(1));
    run.record(0, Occurrence::ZombieRefused { peer, incarnation, known });
    rejected(&run.events, "monotony");
}

#[test]
fn whoever_has_said_goodbye_is_neither_suspected_nor_waited_for() {
    let (peer, silent) = (NodeId(2), Duration::from_secs(1));
    let up = |incarnation| Occurrence::Up { peer, incarnation: Incarnation(incarnation) };
    let attempt = Attempt { sequence: 1, proposer: NodeId(0), incarnation: Incarnation(1) };
    for what in [
        up(1),
        Occurrence::Suspect { peer, silent },
        Occurrence::Down { peer, why: Loss::Silent },
        Occurrence::Slow { nodes: vec![peer], waited: silent },
        Occurrence::Proposed { attempt, members: vec![NodeId(0), peer] },
    ] {
        let mut run = Run::begin();
        run.record(1, Occurrence::Down { peer, why: Loss::Left });
        let mut lawful = run.clone();
        // A goodbye to somebody else is none, and a later start is another matter.
        if what != up(1) {
            lawful.record(0, Occurrence::Down { peer, why: Loss::Left });
            lawful.record(0, up(2));
            lawful.record(0, what.clone());
            check(&lawful.events).expect("lawful");
        }
        run.record(0, Occurrence::Down { peer, why: Loss::Left });
        run.record(0, what);
        rejected(&run.events, "departure");
    }
}

#[test]
fn whoever_has_to_sit_out_takes_no_part() {
    let (peer, cool_down) = (NodeId(2), Duration::from_secs(1));
    let attempt = Attempt { sequence: 1, proposer: NodeId(0), incarnation: Incarnation(1) };
    let proposed = Occurrence::Proposed { attempt, members: vec![NodeId(0), peer] };
    let mut sitting = Run::begin();
    sitting.record(0, Occurrence::Quarantined { peer, losses: 3, cool_down });
    for ends in [Occurrence::Readmitted { peer }, Occurrence::Down { peer, why: Loss::Silent }] {
        let mut lawful = sitting.clone();
        lawful.record(0, ends);
        lawful.record(0, proposed.clone());
        check(&lawful.events).expect("lawful");
    }
    // Another node judges for itself.
    let mut elsewhere = sitting.clone();
    elsewhere.record(1, proposed.clone());
    check(&elsewhere.events).expect("lawful");
    sitting.record(0, proposed);
    rejected(&sitting.events, "quarantine");
}

#[test]
fn a_committed_value_that_is_not_finite_is_rejected() {
    let mut run = Run::begin();
    run.round(&[0, 1], [[1.0, 2.0], [f32::INFINITY, 1.0], [0.0; 2]], &[0]);
    let violation = check(&run.events).unwrap_err();
    assert!(violation.law.starts_with("finiteness") || violation.law.starts_with("convexity"), "{violation}");
}

#[test]
fn an_abort_for_a_value_that_is_not_finite_names_its_sender() {
    let mut run = Run::begin();
    let attempt = Attempt { sequence: 1, proposer: NodeId(0), incarnation: Incarnation(1) };
    run.record(0, Occurrence::Aborted { attempt, why: AbortReason::NotFinite, who: Vec::new() });
    rejected(&run.events, "finiteness");
}

#[test]
fn samples_counted_again_are_rejected() {
    let events = changed(|_, record| {
        if let Occurrence::Ready { turn: 3, samples, .. } = &mut record.what
            && record.node == NodeId(0)
        {
            samples.0 -= 1;
        }
    });
    rejected(&events, "accounting");
}

#[test]
fn samples_certified_other_than_contributed_are_rejected() {
    rejected(&certified(|certificate| certificate.members[0].samples.1 += 1), "accounting");
}

#[test]
fn samples_forgotten_at_the_end_are_rejected() {
    let events = changed(|_, record| {
        if let Occurrence::Finished { uncommitted, .. } = &mut record.what {
            uncommitted.0 += 1;
        }
    });
    rejected(&events, "accounting");
}
