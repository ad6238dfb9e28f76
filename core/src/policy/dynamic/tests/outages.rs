//! Nodes that have missed averages, or are called and heard too late.

use super::*;

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
