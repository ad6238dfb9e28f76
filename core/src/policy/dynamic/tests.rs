//! States that are not what was saved.

use super::*;
use crate::cluster::Round;
use crate::participant::Summary;
use alloc::vec;
use proptest::prelude::*;

const GAUGES: [Gauge; 3] =
    [Gauge::Naive, Gauge::Linear, Gauge::Sketch { rows: 3, columns: 4, confidence: Confidence::Usual }];

fn policy(gauge: Gauge) -> Dynamic {
    Dynamic::new(DynamicOptions::new(gauge, Threshold::Fixed(5.0)))
}

/// What a policy asks for, but to look at the model: that it is shown at once.
fn act(policy: &mut Dynamic, now: Instant) -> Vec<PolicyAction> {
    let mut seen = Vec::new();
    while let Some(action) = policy.poll() {
        match action {
            PolicyAction::Observe => {
                let (parameters, peers) = (Values::Double(&[0.5, -1.0, 2.0]), &[NodeId(1), NodeId(2)][..]);
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
    policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 9 });
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
        policy.handle(Instant::ORIGIN, PolicyInput::Began { iterations: 9 });
        act(&mut policy, Instant::ORIGIN);
        if midway {
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration: 1, summary: &Summary::default() });
            act(&mut policy, Instant::ORIGIN);
        }
        let bytes = Note::Call { base: CertificateId::default(), found: Some((2.0, 3)) }.encode();
        policy.handle(Instant::ORIGIN, PolicyInput::Told { from: NodeId(1), bytes: &bytes });
        assert_eq!((policy.found, policy.limit.map(|limit| limit.checks)), (Some(2.0), Some(3)), "midway: {midway}");
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
