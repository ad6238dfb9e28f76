//! States that are not what was saved, and notes that come when nobody awaits them.

mod outages;

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
