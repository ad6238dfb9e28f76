//! States that are not what was saved, and notes that come when nobody awaits them.

use super::*;
use crate::cluster::{AbandonReason, Algorithm, Attempt, Digest, Incarnation, Member, Round};
use crate::participant::Summary;
use alloc::string::String;
use alloc::{format, vec};
use proptest::prelude::*;

const GAUGES: [Gauge; 3] = [
    Gauge::Naive,
    Gauge::Linear,
    Gauge::Sketch { rows: 3, columns: 4, confidence: Confidence::Usual, drifts: Drifts::Any },
];

/// What is under way from one node to another, and when it arrives.
type Line = VecDeque<(Instant, Vec<u8>)>;

fn policy(gauge: Gauge) -> Dynamic {
    Dynamic::new(DynamicOptions::new(gauge, Threshold::Fixed(5.0)))
}

/// What a policy asks for, but to look at the model: that it is shown at once.
fn act(policy: &mut Dynamic, now: Instant) -> Vec<PolicyAction> {
    act_with(policy, now, &[0.5, -1.0, 2.0])
}

/// The same, with this model.
fn act_with(policy: &mut Dynamic, now: Instant, parameters: &[f64]) -> Vec<PolicyAction> {
    let mut seen = Vec::new();
    while let Some(action) = policy.poll() {
        match action {
            PolicyAction::Observe => {
                let (parameters, peers) = (Values::Double(parameters), &[NodeId(1), NodeId(2)][..]);
                policy.handle(now, PolicyInput::Observed { parameters, peers });
            }
            action => seen.push(action),
        }
    }
    seen
}

/// A policy in the middle of a check, of which one of two others is heard.
fn checking(gauge: Gauge) -> Dynamic {
    let mut policy = policy(gauge);
    policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 9, incarnation: Incarnation(1) });
    act(&mut policy, Instant::ORIGIN);
    policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: 1, summary: &Summary::default() });
    let told = act(&mut policy, Instant::ORIGIN);
    let Some(PolicyAction::Tell { bytes, .. }) = told.first() else { panic!("{told:?} without a state") };
    policy.handle(Instant::ORIGIN, PolicyInput::Told { from: NodeId(1), bytes });
    assert!(policy.check.is_some() && policy.heard.len() == 1);
    policy
}

proptest! {
    #[test]
    fn what_is_no_saved_state_holds_up_nothing(
        gauge in prop::sample::select(GAUGES.to_vec()), other in prop::sample::select(GAUGES.to_vec()),
        place in any::<prop::sample::Index>(),
        word in prop::sample::select(vec![0, 1, 2, 3, 11, u64::MAX, f64::NAN.to_bits(), 1.0_f64.to_bits()]),
        cut in any::<bool>(),
    ) {
        let mut words = checking(gauge).save();
        let place = place.index(words.len());
        if cut {
            words.truncate(place);
        } else {
            words[place] = word;
        }
        let mut policy = policy(other);
        policy.restore(&words);
        let refused = policy.actions.front() == Some(&PolicyAction::Proceed);
        prop_assert!(refused || (!cut && gauge == other));
        // Whatever was taken, it can be gone on with.
        let later = Instant::ORIGIN + Duration::from_secs(1 << 20);
        policy.wake(later);
        act(&mut policy, later);
        for iteration in [2, 3] {
            policy.handle(later, PolicyInput::Stepped { iteration, summary: &Summary::default() });
            act(&mut policy, later);
        }
        prop_assert!(!refused || policy.check.is_some(), "it checks no more");
    }
}

#[test]
fn whoever_is_called_tunes_like_the_caller() {
    for midway in [false, true] {
        let mut policy = Dynamic::new(DynamicOptions::new(Gauge::Naive, Threshold::Tuned { most: 10 }));
        policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 9, incarnation: Incarnation(1) });
        act(&mut policy, Instant::ORIGIN);
        if midway {
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: 1, summary: &Summary::default() });
            act(&mut policy, Instant::ORIGIN);
        }
        // Whoever comes to another bound of the same check takes the greater one, in whatever order calls come.
        for found in [1.0, 2.0, 1.5] {
            let bytes = Note::Call { base: CertificateId::default(), check: 3, found: Some(found) }.encode();
            policy.handle(Instant::ORIGIN, PolicyInput::Told { from: NodeId(1), bytes: &bytes });
        }
        assert_eq!(policy.found, Some((3, 2.0)), "midway: {midway}");
        policy.handle(Instant::ORIGIN, PolicyInput::Committed(&certificate(1, &[0, 1])));
        assert_eq!(policy.threshold(), Some(5.0 / 3.0 * 2.0), "midway: {midway}");
    }
}

#[test]
fn whoever_is_lost_in_the_middle_of_a_check_does_not_count() {
    let mut policy = checking(Gauge::Naive);
    // What node 1 has said, which is lost then, would have been of another average.
    policy.heard.get_mut(&NodeId(1)).expect("it was heard").base =
        CertificateId { round: Round(3), ..CertificateId::default() };
    policy.handle(Instant::ORIGIN, PolicyInput::Peers(&[NodeId(2)]));
    assert!(policy.check.is_some(), "node 2 is awaited");
    policy.wake(Instant::ORIGIN + Duration::from_secs(1 << 20));
    let asked = act(&mut policy, Instant::ORIGIN);
    assert!(!asked.iter().any(|action| matches!(action, PolicyAction::Contribute(_))), "{asked:?}");
}

/// An average of these nodes, all of which come from the first model.
fn certificate(round: u64, members: &[u32]) -> Certificate {
    Certificate {
        attempt: Attempt { sequence: 1, proposer: NodeId(0), incarnation: Incarnation(1) },
        round: Round(round),
        members: members.iter().map(|&node| Member { node: NodeId(node), ..Member::default() }).collect(),
        algorithm: Algorithm::Direct,
        wire: "f64".into(),
        result: Digest(round),
        parents: vec![],
    }
}

fn state(base: CertificateId, check: u64, norm: f64) -> Vec<u8> {
    Note::State { base, before: None, ways: vec![], check, state: State { norm, more: vec![] } }.encode()
}

/// The same of a node that has no average in common with others, which is averaged with at once.
fn strange_state(base: CertificateId, check: u64) -> Vec<u8> {
    let ways = vec![(CertificateId { round: Round(9), digest: Digest(9) }, 0.0)];
    Note::State { base, before: None, ways, check, state: State::default() }.encode()
}

fn tell(policy: &mut Dynamic, from: u32, bytes: &[u8]) {
    policy.handle(Instant::ORIGIN, PolicyInput::Told { from: NodeId(from), bytes });
}

/// A naive policy that has begun.
fn begun() -> Dynamic {
    let mut policy = policy(Gauge::Naive);
    policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 9, incarnation: Incarnation(1) });
    act(&mut policy, Instant::ORIGIN);
    policy
}

/// Makes a step that a check follows; answers the number that it is told with.
fn step(policy: &mut Dynamic, iteration: u64) -> u64 {
    policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &Summary::default() });
    let told = act(policy, Instant::ORIGIN);
    let Some(PolicyAction::Tell { bytes, .. }) = told.first() else { panic!("{told:?} without a state") };
    let Some(Note::State { check, .. }) = Note::decode(bytes, 0) else { panic!("{bytes:?} is no state") };
    check
}

fn contributes(policy: &mut Dynamic) -> bool {
    let asked = act(policy, Instant::ORIGIN);
    asked.iter().any(|action| matches!(action, PolicyAction::Contribute(_)))
}

#[test]
fn a_state_that_comes_after_its_check_satisfies_no_other() {
    let (mut policy, first) = (begun(), CertificateId::default());
    assert_eq!(step(&mut policy, 1), 1);
    tell(&mut policy, 1, &state(first, 1, 0.0));
    policy.wake(Instant::ORIGIN + Duration::from_secs(1));
    assert!(policy.check.is_none() && !contributes(&mut policy));
    // Too late, from however far away.
    tell(&mut policy, 2, &state(first, 1, 1e9));
    assert_eq!(step(&mut policy, 2), 2);
    tell(&mut policy, 1, &state(first, 2, 0.0));
    tell(&mut policy, 2, &state(first, 1, 1e9));
    assert!(policy.check.is_some(), "node 2 is awaited");
    tell(&mut policy, 2, &state(first, 2, 0.0));
    assert!(policy.check.is_none() && !contributes(&mut policy));
}

#[test]
fn nothing_is_left_of_a_check_that_a_call_has_ended() {
    let (mut policy, first) = (begun(), CertificateId::default());
    step(&mut policy, 1);
    tell(&mut policy, 1, &state(first, 1, 1e9));
    tell(&mut policy, 2, &Note::Call { base: first, check: 1, found: None }.encode());
    assert!(contributes(&mut policy));
    policy.handle(Instant::ORIGIN, PolicyInput::Abandoned(AbandonReason::Alone));
    step(&mut policy, 2);
    tell(&mut policy, 2, &state(first, 2, 0.0));
    assert!(policy.check.is_some(), "node 1 is awaited");
}

#[test]
fn a_state_of_a_later_check_waits_for_its_turn() {
    let (mut policy, first) = (begun(), CertificateId::default());
    step(&mut policy, 1);
    tell(&mut policy, 1, &state(first, 2, 1e9));
    tell(&mut policy, 2, &state(first, 1, 0.0));
    assert!(policy.check.is_none(), "node 1 has gone on, and says no more of this check");
    assert!(!contributes(&mut policy));
    step(&mut policy, 2);
    tell(&mut policy, 2, &state(first, 2, 0.0));
    assert!(policy.check.is_none() && contributes(&mut policy));
}

#[test]
fn whoever_is_behind_goes_on_with_the_number_of_the_furthest() {
    let (mut policy, first) = (begun(), CertificateId::default());
    tell(&mut policy, 1, &state(first, 4, 0.0));
    tell(&mut policy, 2, &state(first, 3, 1e9));
    assert_eq!(step(&mut policy, 1), 4);
    assert!(policy.check.is_some(), "what node 2 has said is late");
    tell(&mut policy, 2, &state(first, 4, 0.0));
    assert!(policy.check.is_none() && !contributes(&mut policy));
    assert_eq!(step(&mut policy, 2), 5);
}

#[test]
fn what_members_of_the_last_average_said_before_it_comes_late_and_others_are_behind() {
    let first = CertificateId::default();
    for (from, check, is_late) in [(1, 1, true), (1, 2, false), (2, 1, false), (2, 2, false)] {
        for is_call in [false, true] {
            let mut policy = begun();
            assert_eq!(step(&mut policy, 1), 1);
            tell(&mut policy, 1, &Note::Call { base: first, check: 1, found: Some(9.0) }.encode());
            assert!(contributes(&mut policy));
            policy.handle(Instant::ORIGIN, PolicyInput::Committed(&certificate(1, &[0, 1])));
            act(&mut policy, Instant::ORIGIN);
            policy.restore(&policy.save());
            let call = Note::Call { base: first, check, found: None }.encode();
            tell(&mut policy, from, &if is_call { call } else { strange_state(first, check) });
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: 2, summary: &Summary::default() });
            let called = contributes(&mut policy);
            // Whoever is behind has said all.
            for node in [1, 2].into_iter().filter(|node| is_late || *node != from) {
                let bytes = state(policy.base, 1, 0.0);
                tell(&mut policy, node, &bytes);
            }
            assert_eq!(called || contributes(&mut policy), !is_late, "{check} of {from}, a call: {is_call}");
        }
    }
}

#[test]
fn whoever_was_started_again_after_an_average_is_heard() {
    for spoke in [false, true] {
        let (mut policy, first) = (begun(), CertificateId::default());
        step(&mut policy, 1);
        tell(&mut policy, 1, &Note::Call { base: first, check: 1, found: Some(9.0) }.encode());
        assert!(contributes(&mut policy));
        policy.handle(Instant::ORIGIN, PolicyInput::Committed(&certificate(1, &[0, 1])));
        act(&mut policy, Instant::ORIGIN);
        let base = policy.base;
        if spoke {
            tell(&mut policy, 1, &state(base, 1, 0.0));
        }
        step(&mut policy, 2);
        if !spoke {
            policy.handle(Instant::ORIGIN, PolicyInput::Peers(&[NodeId(2)]));
            policy.handle(Instant::ORIGIN, PolicyInput::Peers(&[NodeId(1), NodeId(2)]));
        }
        // Of its next start.
        tell(&mut policy, 1, &strange_state(first, 1));
        tell(&mut policy, 2, &state(base, 1, 0.0));
        assert!(contributes(&mut policy), "spoke: {spoke}");
    }
}

/// A naive policy, `Θ` being 5, that has gone from -7 to averages at 0, at 3 and at 2, of nodes 0 and 1.
fn after_three_averages() -> (Dynamic, [CertificateId; 3]) {
    let mut policy = policy(Gauge::Naive);
    policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 9, incarnation: Incarnation(1) });
    act_with(&mut policy, Instant::ORIGIN, &[-7.0]);
    let bases = [(1, 0.0), (2, 3.0), (3, 2.0)].map(|(round, average)| {
        policy.handle(Instant::ORIGIN, PolicyInput::Committed(&certificate(round, &[0, 1])));
        act_with(&mut policy, Instant::ORIGIN, &[average]);
        policy.base
    });
    (policy, bases)
}

#[test]
fn whoever_has_missed_averages_counts_with_its_drift_and_the_way_that_they_have_gone() {
    let (policy, [oldest, middle, newest]) = after_three_averages();
    let (first, strange) = (policy.ways.told()[0].0, CertificateId { round: Round(2), digest: Digest(9) });
    let none = CertificateId::default();
    // Of which average node 2 is, what it tells of its ways and its drift, and the `H` of the three, of which others are at `w₀`.
    for (base, ways, norm, bound) in [
        (newest, vec![], 0.0, Some(0.0)),
        (middle, vec![], 4.0, Some(3.0)),
        (middle, vec![], 16.0, Some(25.0 / 3.0)),
        (oldest, vec![], 0.0, Some(16.0 / 3.0)),
        (oldest, vec![(first, 7.0), (oldest, 0.0)], 0.0, Some(16.0 / 3.0)),
        (strange, vec![(middle, 2.0), (oldest, 1.0)], 0.0, Some(9.0 / 3.0)),
        (strange, vec![(middle, 2.0), (oldest, 1.0)], 1.0, Some(16.0 / 3.0)),
        // Of a fork after as many averages, of which neither is behind.
        (CertificateId { round: Round(3), digest: Digest(9) }, vec![(middle, 2.0)], 4.0, Some(25.0 / 3.0)),
        // It has not told yet how far it is, or has nothing in common.
        (strange, vec![], 1e9, Some(0.0)),
        (strange, vec![(strange, 0.0)], 0.0, None),
        (none, vec![], 1e9, Some(0.0)),
        (none, vec![(first, 0.0)], 0.0, Some(121.0 / 3.0)),
    ] {
        for restored in [false, true] {
            let (mut policy, _) = after_three_averages();
            if restored {
                policy.restore(&policy.save());
            }
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: 1, summary: &Summary::default() });
            act_with(&mut policy, Instant::ORIGIN, &[2.0]);
            tell(&mut policy, 1, &state(newest, 1, 0.0));
            let state = State { norm, more: vec![] };
            tell(&mut policy, 2, &Note::State { base, before: None, ways: ways.clone(), check: 1, state }.encode());
            let asked = act_with(&mut policy, Instant::ORIGIN, &[2.0]);
            let call = Note::Call { base: newest, check: 1, found: bound }.encode();
            let calls = asked.contains(&PolicyAction::Tell { to: NodeId(2), bytes: call });
            assert_eq!(calls, bound.is_none_or(|bound| bound > 5.0), "{base:?}, {ways:?}, {norm}: {asked:?}");
            assert_eq!(asked.iter().any(|it| matches!(it, PolicyAction::Contribute(_))), calls);
        }
    }
}

#[test]
fn nodes_tell_their_ways_once_they_have_heard_of_another_average() {
    let (mut policy, [_, middle, newest]) = after_three_averages();
    let ways = |policy: &mut Dynamic, iteration: u64| {
        policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &Summary::default() });
        let told = act_with(policy, Instant::ORIGIN, &[2.0]);
        let Some(PolicyAction::Tell { bytes, .. }) = told.first() else { panic!("{told:?} without a state") };
        let Some(Note::State { ways, .. }) = Note::decode(bytes, 0) else { panic!("{bytes:?} is no state") };
        ways
    };
    for (iteration, other, told) in [(1, Some(middle), 0), (2, None, 4), (3, Some(newest), 4), (4, Some(newest), 0)] {
        policy.restore(&policy.save());
        assert_eq!(ways(&mut policy, iteration).len(), told, "at {iteration}");
        tell(&mut policy, 1, &state(newest, iteration, 0.0));
        if let Some(other) = other {
            tell(&mut policy, 2, &state(other, iteration, 0.0));
        }
        // Whoever is not heard may be of another average still.
        policy.wake(Instant::ORIGIN + Duration::from_secs(1));
        assert!(!contributes(&mut policy));
    }
}

#[test]
fn whoever_has_missed_averages_leaves_the_decision_to_those_who_have_not_but_not_for_ever() {
    let (mut policy, later) = (begun(), certificate(2, &[1, 2]).id());
    for iteration in 1..=MOST_YIELDED + 1 {
        step(&mut policy, iteration);
        // They have nothing in common with it, and are content.
        tell(&mut policy, 1, &strange_state(later, 3));
        tell(&mut policy, 2, &strange_state(later, 3));
        assert!(policy.check.is_none(), "all are heard");
        let actions = policy.actions.clone();
        policy.restore(&policy.save());
        policy.actions = actions;
        assert_eq!(contributes(&mut policy), iteration > MOST_YIELDED, "at {iteration}");
    }
}

#[test]
fn whoever_hears_nobody_decides_nothing_at_first() {
    let mut policy = policy(Gauge::Naive);
    policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 9, incarnation: Incarnation(1) });
    act_with(&mut policy, Instant::ORIGIN, &[0.0]);
    let mut contributes_with = |iteration, model: f64, heard: bool| {
        policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &Summary::default() });
        act_with(&mut policy, Instant::ORIGIN, &[model]);
        if heard {
            tell(&mut policy, 1, &state(CertificateId::default(), iteration, 0.0));
        }
        policy.wake(Instant::ORIGIN + Duration::from_secs(1));
        contributes(&mut policy)
    };
    assert!(!contributes_with(1, 100.0, false) && contributes_with(2, 100.0, true), "it has gone far");
    for iteration in 3..3 + MOST_YIELDED {
        assert!(!contributes_with(iteration, 100.0, false));
    }
    // Messages may take longer than anybody waits.
    assert!(contributes_with(3 + MOST_YIELDED, 100.0, false));
}

#[test]
fn a_call_is_followed_soon_and_who_is_behind_and_called_too_early_calls_by_itself() {
    let (called, ready) = (Instant::ORIGIN, Duration::from_millis(40));
    let base = CertificateId::default();
    // Of what average the others are, and how far one of them has gone.
    for (other, norm, calls) in [(base, 0.0, false), (certificate(1, &[1, 2]).id(), 1e9, true)] {
        let mut options = DynamicOptions::new(Gauge::Naive, Threshold::Fixed(5.0));
        options.ready = ready;
        let mut policy = Dynamic::new(options);
        policy.handle(called, PolicyInput::Began { iterations: 9, incarnation: Incarnation(1) });
        act(&mut policy, called);
        let root = policy.ways.told();
        let follows = |policy: &mut Dynamic, iteration: u64, after: Duration| {
            let call = Note::Call { base: other, check: 1, found: Some(9.0) }.encode();
            policy.handle(called, PolicyInput::Told { from: NodeId(1), bytes: &call });
            policy.restore(&policy.save());
            policy.handle(called + after, PolicyInput::Stepped { iteration, summary: &Summary::default() });
            let contributes = contributes(policy);
            assert_eq!(policy.check.is_some(), !contributes, "it goes on checking");
            contributes
        };
        assert!(follows(&mut policy, 1, ready));
        policy.handle(called, PolicyInput::Abandoned(AbandonReason::Late));
        let late = ready + Duration::from_millis(1);
        for pass in 1..=2 * MOST_PASSED {
            assert!(!follows(&mut policy, 1 + pass, late), "the round is over");
            for node in [1, 2] {
                let (ways, check, state) = (root.clone(), policy.number, State { norm, more: vec![] });
                let heard = Note::State { base: other, before: None, ways, check, state }.encode();
                tell(&mut policy, node, &heard);
            }
            assert!(policy.check.is_none());
            let asked = act(&mut policy, called);
            let contributes = asked.iter().any(|it| matches!(it, PolicyAction::Contribute(_)));
            // Where models are near each other, no call breeds another, however often it comes too early.
            assert_eq!(contributes, calls && pass == MOST_PASSED, "{pass}: {asked:?}");
            if contributes {
                break;
            }
        }
    }
}

#[test]
fn whoever_hears_nobody_judges_by_how_far_it_has_gone_in_whatever_direction() {
    for gauge in GAUGES {
        let mut policy = policy(gauge);
        policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 99, incarnation: Incarnation(1) });
        act_with(&mut policy, Instant::ORIGIN, &[0.0; 3]);
        // Along the axis, if there is one: at 2Θ.
        let axis = policy.axis.as_ref().map_or(vec![1.0, 0.0, 0.0], |axis| axis.values().to_vec());
        let model: Vec<f64> = axis.iter().map(|value| value * 10.0_f64.sqrt()).collect();
        for iteration in 1..=MOST_YIELDED + 1 {
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &Summary::default() });
            act_with(&mut policy, Instant::ORIGIN, &model);
            policy.wake(Instant::ORIGIN + Duration::from_secs(1));
            assert_eq!(contributes(&mut policy), iteration > MOST_YIELDED, "{gauge:?} at {iteration}");
        }
    }
}

#[test]
fn no_state_takes_off_more_along_the_axis_than_it_has_gone() {
    let mut policy = policy(Gauge::Linear);
    policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 9, incarnation: Incarnation(1) });
    act_with(&mut policy, Instant::ORIGIN, &[0.0; 3]);
    policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: 1, summary: &Summary::default() });
    act_with(&mut policy, Instant::ORIGIN, &[1e3, -1e3, 0.5e3]);
    let base = CertificateId::default();
    let say = |norm, along| {
        let state = State { norm, more: vec![along] };
        Note::State { base, before: Some(base), ways: vec![], check: 1, state }.encode()
    };
    // Were it counted, H would be below 0.
    tell(&mut policy, 1, &say(1.0, 1e5));
    tell(&mut policy, 2, &say(0.0, 0.0));
    policy.wake(Instant::ORIGIN + Duration::from_secs(1));
    assert!(contributes(&mut policy));
}

#[test]
fn ways_once_told_are_kept_while_the_average_stays() {
    let (mut policy, [_, middle, newest]) = after_three_averages();
    let strange = CertificateId { round: Round(2), digest: Digest(9) };
    let say = |ways| Note::State { base: strange, before: None, ways, check: 1, state: State::default() }.encode();
    tell(&mut policy, 1, &say(vec![(middle, 9.0)]));
    tell(&mut policy, 1, &say(vec![]));
    policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: 1, summary: &Summary::default() });
    act_with(&mut policy, Instant::ORIGIN, &[2.0]);
    tell(&mut policy, 2, &state(newest, 1, 0.0));
    assert!(contributes(&mut policy), "H is 100/3");
}

#[test]
fn nobody_is_ignored_for_longer_than_a_patience_for_what_it_said_before_an_average() {
    let strange = CertificateId { round: Round(2), digest: Digest(9) };
    let mut policy = begun();
    // Node 1 was a member that came from another average, and has not heard of the outcome.
    let mut certificate = certificate(3, &[0, 1]);
    certificate.members[1].parent = strange;
    policy.handle(Instant::ORIGIN, PolicyInput::Committed(&certificate));
    act(&mut policy, Instant::ORIGIN);
    for (iteration, is_heard) in [(1, false), (2, true)] {
        step(&mut policy, iteration);
        let bytes = state(policy.base, iteration, 0.0);
        tell(&mut policy, 2, &bytes);
        tell(&mut policy, 1, &strange_state(strange, 9));
        policy.wake(Instant::ORIGIN + Duration::from_secs(1));
        assert_eq!(contributes(&mut policy), is_heard, "at {iteration}");
    }
}

#[test]
fn ways_are_learnt_from_those_with_the_same_average_and_from_nobody_else() {
    for learns in [true, false] {
        let (mut policy, [_, middle, newest]) = after_three_averages();
        let strange = CertificateId { round: Round(2), digest: Digest(9) };
        policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: 1, summary: &Summary::default() });
        act_with(&mut policy, Instant::ORIGIN, &[2.0]);
        let say = |base, ways| Note::State { base, before: None, ways, check: 1, state: State::default() }.encode();
        tell(&mut policy, 1, &say(if learns { newest } else { middle }, vec![(strange, 3.0)]));
        tell(&mut policy, 2, &say(strange, vec![(strange, 0.0)]));
        // H = 9/3 is below 5; who has nothing in common averages.
        assert_eq!(contributes(&mut policy), !learns);
    }
}

#[test]
fn what_nobody_can_mean_is_neither_counted_nor_told_on() {
    for gauge in [Gauge::Naive, Gauge::Linear] {
        let more = |along| if gauge == Gauge::Linear { vec![along] } else { vec![] };
        let base = CertificateId::default();
        let say = |ways, norm, along| {
            Note::State { base, before: Some(base), ways, check: 1, state: State { norm, more: more(along) } }.encode()
        };
        for odd in [
            say(vec![], 1e308, 0.0),
            say(vec![], 1.0, 1e200),
            say(vec![], 1.0, 2.0),
            Note::Call { base, check: u64::MAX, found: Some(1.0) }.encode(),
            Note::Call { base, check: 1, found: Some(-1.0) }.encode(),
        ] {
            let mut policy = policy(gauge);
            policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 9, incarnation: Incarnation(1) });
            act_with(&mut policy, Instant::ORIGIN, &[0.0; 3]);
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: 1, summary: &Summary::default() });
            act_with(&mut policy, Instant::ORIGIN, &[1e3, 0.0, 0.0]);
            tell(&mut policy, 1, &odd);
            tell(&mut policy, 2, &say(vec![], 1e308, 0.0));
            policy.wake(Instant::ORIGIN + Duration::from_secs(1));
            let asked = act(&mut policy, Instant::ORIGIN);
            assert!(asked.iter().any(|it| matches!(it, PolicyAction::Contribute(_))), "{gauge:?}: {asked:?}");
            assert!(policy.found.is_none_or(|(check, found)| check == 1 && found >= 0.0), "{:?}", policy.found);
            for action in &asked {
                let PolicyAction::Tell { bytes, .. } = action else { continue };
                assert!(Note::decode(bytes, gauge.more()).is_some(), "nobody can read {bytes:?}");
            }
        }
    }
}

/// Four nodes with models in a plane, which any of them average now and then, or take from others; how often `H` of one that
/// decides was looked at, the ways that others tell being multiplied with `factor`.
fn bounds_of_fleets(seed: u64, factor: f64) -> Result<usize, String> {
    let mut random = Seed(seed).derive("fleet", 0).random();
    let mut nodes: Vec<Dynamic> =
        (0..4).map(|_| Dynamic::new(DynamicOptions::new(Gauge::Naive, Threshold::Fixed(0.0)))).collect();
    let (mut models, mut last) = (vec![[0.0, 0.0]; 4], None);
    let show = |policy: &mut Dynamic, model: [f64; 2]| act_with(policy, Instant::ORIGIN, &model);
    for node in &mut nodes {
        node.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 999, incarnation: Incarnation(1) });
        show(node, [0.0, 0.0]);
    }
    let mut looked = 0;
    for iteration in 1..60 {
        for model in &mut models {
            *model = model.map(|value| value + random.normal());
        }
        let mut said = Vec::new();
        for (node, model) in nodes.iter_mut().zip(&models) {
            // Nobody is left out.
            node.parted = true;
            node.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &Summary::default() });
            let told = show(node, *model);
            let Some(PolicyAction::Tell { bytes, .. }) = told.first() else { return Err(format!("{told:?}")) };
            let Some(Note::State { base, before, ways, check, state }) = Note::decode(bytes, 0) else {
                return Err("no state".into());
            };
            let ways = ways.into_iter().map(|(id, way)| (id, factor * way)).collect();
            said.push(Note::State { base, before, ways, check, state }.encode());
        }
        let checks: Vec<(CertificateId, u64)> = nodes.iter().map(|node| (node.base, node.number)).collect();
        for node in 0..4 {
            // What is of another check of the same average is late, or waits for its turn.
            let counts = |other: &usize| checks[*other].0 != checks[node].0 || checks[*other] == checks[node];
            let counted: Vec<[f64; 2]> = (0..4).filter(counts).map(|other| models[other]).collect();
            let count = counted.len() as f64;
            let centre = [0, 1].map(|at| counted.iter().map(|model| model[at]).sum::<f64>() / count);
            let distance = |model: &[f64; 2]| (model[0] - centre[0]).powi(2) + (model[1] - centre[1]).powi(2);
            let variance = counted.iter().map(distance).sum::<f64>() / count;
            for (from, bytes) in said.iter().enumerate().filter(|(from, _)| *from != node) {
                // `act` has told it of nodes 1 and 2 alone.
                let peers: Vec<NodeId> = (0..4).filter(|it| *it != node as u32).map(NodeId).collect();
                nodes[node].handle(Instant::ORIGIN, PolicyInput::Peers(&peers));
                tell(&mut nodes[node], from as u32, bytes);
            }
            nodes[node].wake(Instant::ORIGIN + Duration::from_secs(1));
            for action in show(&mut nodes[node], models[node]) {
                let PolicyAction::Tell { bytes, .. } = action else { continue };
                if let Some(Note::Call { found: Some(found), .. }) = Note::decode(&bytes, 0) {
                    looked += 1;
                    if found < variance * (1.0 - 1e-12) {
                        return Err(format!("H = {found}, Var = {variance} at {iteration}"));
                    }
                }
            }
            nodes[node].handle(Instant::ORIGIN, PolicyInput::Abandoned(AbandonReason::Late));
        }
        let members: Vec<u32> = (0..4).filter(|_| random.below(3) == 0).collect();
        if !members.is_empty() {
            let of =
                |at: usize| members.iter().map(|&node| models[node as usize][at]).sum::<f64>() / members.len() as f64;
            let (average, certificate) = ([of(0), of(1)], certificate(iteration, &members));
            for &node in &members {
                models[node as usize] = average;
                nodes[node as usize].handle(Instant::ORIGIN, PolicyInput::Committed(&certificate));
                show(&mut nodes[node as usize], average);
            }
            last = Some((average, certificate));
        }
        if let Some((average, certificate)) = last.as_ref().filter(|_| random.below(4) == 0) {
            let node = random.below(4) as usize;
            if nodes[node].base != certificate.id() {
                models[node] = *average;
                nodes[node].handle(Instant::ORIGIN, PolicyInput::Healed(certificate));
                show(&mut nodes[node], *average);
            }
        }
        let saved = random.below(4) as usize;
        let words = nodes[saved].save();
        nodes[saved].restore(&words);
    }
    Ok(looked)
}

#[test]
fn no_bound_of_a_fleet_is_below_its_variance_whoever_has_missed_what() {
    let mut looked = 0;
    for seed in 0..100 {
        looked += bounds_of_fleets(seed, 1.0).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(looked > 1000, "{looked} bounds were looked at");
    // Ways that are told too short are noticed.
    assert!((0..100).any(|seed| bounds_of_fleets(seed, 0.0).is_err()));
}

/// Makes a step that a look at the model follows while nobody else trains; answers whether it contributes.
fn contributes_alone(policy: &mut Dynamic, iteration: u64) -> bool {
    policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &Summary::default() });
    assert_eq!(policy.poll(), Some(PolicyAction::Observe));
    let parameters = Values::Double(&[0.5, -1.0, 2.0]);
    policy.handle(Instant::ORIGIN, PolicyInput::Observed { parameters, peers: &[] });
    let asked = act(policy, Instant::ORIGIN);
    assert!(policy.check.is_none() && !asked.contains(&PolicyAction::Pause), "{asked:?}");
    asked.iter().any(|action| matches!(action, PolicyAction::Contribute(_)))
}

#[test]
fn whoever_has_no_average_and_nobody_to_check_with_contributes() {
    let mut policy = begun();
    for iteration in [1, 2] {
        assert!(contributes_alone(&mut policy, iteration));
        policy.handle(Instant::ORIGIN, PolicyInput::Abandoned(AbandonReason::Alone));
    }
    policy.handle(Instant::ORIGIN, PolicyInput::Healed(&certificate(1, &[1, 2])));
    act(&mut policy, Instant::ORIGIN);
    assert!(!contributes_alone(&mut policy, 3), "it has what others have, and trains on");
}

#[test]
fn whoever_has_no_average_contributes_if_all_others_finish_during_its_check() {
    for healed in [false, true] {
        let mut policy = begun();
        if healed {
            policy.handle(Instant::ORIGIN, PolicyInput::Healed(&certificate(1, &[1, 2])));
            act(&mut policy, Instant::ORIGIN);
        }
        step(&mut policy, 1);
        policy.handle(Instant::ORIGIN, PolicyInput::Peers(&[NodeId(2)]));
        assert!(policy.check.is_some() && !contributes(&mut policy), "node 2 is awaited");
        policy.handle(Instant::ORIGIN, PolicyInput::Peers(&[]));
        assert!(policy.check.is_none());
        assert_eq!(contributes(&mut policy), !healed, "healed: {healed}");
        assert_eq!(policy.found, None, "what it finds alone tunes nothing");
    }
}

/// A mistake that the law of checks has to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// A state counts in whatever check it comes to, as without numbers.
    Unnumbered,
    /// Nobody looks at how far others have come.
    Alone,
}

/// Three nodes that check after each step and never average, the nth step of each being of a norm of its own. In the
/// first 20 ms steps take up to 4 ms and notes up to 8 ms, twice as long as anybody waits; later all is quick.
///
/// Answers with how many of the later checks ended without everybody, or who counted what was not told for his check.
fn checks(seed: u64, mistake: Mistake) -> Result<usize, String> {
    let mut random = Seed(seed).random();
    let mut options = DynamicOptions::new(Gauge::Naive, Threshold::Fixed(f64::MAX));
    options.patience = Duration::from_millis(4);
    let mut nodes: Vec<Dynamic> = (0..3).map(|_| Dynamic::new(options.clone())).collect();
    let millis = |millis: f64| Duration::from_nanos((millis * 1e6) as u64);
    // When each node's step ends, and what is on its way, in order from each to each.
    let mut steps: Vec<(Instant, u64)> = vec![(Instant::ORIGIN, 0); 3];
    let mut mail: BTreeMap<(usize, usize), Line> = BTreeMap::new();
    let mut told: BTreeMap<(usize, u64), f64> = BTreeMap::new();
    let (mut now, mut alone) = (Instant::ORIGIN, 0);
    let quiet = |now: Instant| now - Instant::ORIGIN > Duration::from_millis(20);
    let settled = |now: Instant| now - Instant::ORIGIN > Duration::from_millis(50);
    for node in &mut nodes {
        node.handle(now, PolicyInput::Began { iterations: u64::MAX, incarnation: Incarnation(1) });
    }
    for event in 0..900 {
        // Whatever a node is told, wakes up for, or has done; then what it asks for.
        for node in [0, 1, 2] {
            let others: Vec<NodeId> = (0..3).filter(|other| *other != node).map(|node| NodeId(node as u32)).collect();
            while let Some(action) = nodes[node].poll() {
                match action {
                    PolicyAction::Observe => {
                        let value = steps[node].1 as f64 * (1.0 + node as f64 / 8.0);
                        let input = PolicyInput::Observed { parameters: Values::Double(&[value]), peers: &others };
                        nodes[node].handle(now, input);
                        if steps[node].1 > 0 {
                            told.insert((node, nodes[node].number), value * value);
                        }
                    }
                    PolicyAction::Tell { to, bytes } => {
                        let queue = mail.entry((node, to.0 as usize)).or_default();
                        let most = if quiet(now) { 0.1 } else { 8.0 };
                        let last = queue.back().map_or(now, |(at, _)| *at);
                        queue.push_back((last.max(now + millis(random.uniform() * most)), bytes));
                    }
                    PolicyAction::Pause => steps[node].0 = Instant::FAR,
                    PolicyAction::Proceed => {
                        let most = if quiet(now) { 0.5 } else { 4.0 };
                        steps[node].0 = now + millis(0.5 + random.uniform() * most);
                    }
                    other => return Err(format!("{node} does {other:?}")),
                }
            }
            if let Some(check) = nodes[node].check.clone() {
                for (from, heard) in &nodes[node].heard {
                    let right = told.get(&(from.0 as usize, nodes[node].number)) == Some(&heard.state.norm);
                    if !right || check.missing.contains(from) {
                        return Err(format!("{node} counts {heard:?} of {from} in {}", nodes[node].number));
                    }
                }
            }
            if event % 7 == node {
                let (words, actions) = (nodes[node].save(), nodes[node].actions.clone());
                nodes[node].restore(&words);
                nodes[node].actions = actions;
            }
        }
        let next = mail.iter().filter_map(|(way, queue)| Some((queue.front()?.0, 0, *way)));
        let wakes = nodes.iter().enumerate().map(|(node, policy)| (policy.timeout(), 2, (node, node)));
        let ends = steps.iter().enumerate().map(|(node, (end, _))| (*end, 1, (node, node)));
        let Some((at, what, (from, node))) = next.chain(wakes).chain(ends).min() else { break };
        now = now.max(at);
        match what {
            0 => {
                let (_, mut bytes) = mail.get_mut(&(from, node)).and_then(VecDeque::pop_front).expect("it is first");
                if let (Mistake::Unnumbered, Some(Note::State { base, before, ways, state, .. })) =
                    (mistake, Note::decode(&bytes, 0))
                {
                    let check = nodes[node].number + u64::from(nodes[node].check.is_none());
                    bytes = Note::State { base, before, ways, check, state }.encode();
                }
                nodes[node].handle(now, PolicyInput::Told { from: NodeId(from as u32), bytes: &bytes });
            }
            1 => {
                steps[node] = (Instant::FAR, steps[node].1 + 1);
                if mistake == Mistake::Alone {
                    let next = nodes[node].number + 1;
                    nodes[node].early.retain(|_, heard| heard.check == next);
                }
                let (iteration, summary) = (steps[node].1, &Summary::default());
                nodes[node].handle(now, PolicyInput::Stepped { iteration, summary });
            }
            _ => {
                alone += usize::from(settled(now));
                nodes[node].wake(now);
            }
        }
    }
    if settled(now) { Ok(alone) } else { Err(format!("all is over at {now:?}")) }
}

#[test]
fn checks_count_what_was_told_for_them_and_nodes_are_at_one_check_again() {
    let of = |mistake| (0..40).map(|seed| checks(seed, mistake)).collect::<Vec<_>>();
    for (seed, found) in of(Mistake::None).into_iter().enumerate() {
        assert_eq!(found, Ok(0), "seed {seed}");
    }
    assert!(of(Mistake::Unnumbered).iter().any(Result::is_err));
    assert!(of(Mistake::Alone).iter().any(|found| matches!(found, Ok(alone) if *alone > 0)));
}
