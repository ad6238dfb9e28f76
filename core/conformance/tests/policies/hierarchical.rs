//! Hierarchical averaging: its formulas, its schedule, and fleets of sites against what they do by definition.

mod definition;
mod fleet;

use definition::{Event, Turn, by_definition, next_that_is_there};
use fleet::Fleet;
use kronfleet_conformance::check::{Broken, Check};
use kronfleet_core::participant::Summary;
use kronfleet_core::policy::{
    AveragingPolicy, Cycle, CycleOptions, Hierarchical, HierarchicalOptions, Merge, PolicyAction, PolicyInput,
};
use kronfleet_core::seed::Seed;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use proptest::prelude::*;
use std::collections::BTreeMap;

const PATIENCE: Duration = Duration::from_millis(10);

/// A merge is what its formula says, if a step under way counts `steps` times.
fn merges_by_the_formula(steps: f64) -> Result<(), Broken> {
    let cases = (1_usize..9, 1_u64..70, 0_u64..5, any::<u64>());
    Check::default().hold(cases, |(len, snapshots, since, seed)| {
        let mut random = Seed(seed).random();
        let mut draw = || (0..len).map(|_| random.normal()).collect::<Vec<f64>>();
        let (model, snapshot) = (draw(), draw());
        let mean: Vec<f32> = draw().iter().map(|&value| value as f32).collect();
        let (s, p) = (since as f64, snapshots as f64);
        for merge in [Merge::Stale, Merge::Progress] {
            let mut merged = model.clone();
            merge.apply(&mut merged, &snapshot, &mean, snapshots, since);
            for place in 0..len {
                let (x, mean) = (model[place], f64::from(mean[place]));
                let expected = match merge {
                    Merge::Stale if since == 0 => (x + p * mean) / (1.0 + p),
                    Merge::Stale => (steps * s * x + p * mean) / (steps * s + p),
                    Merge::Progress => mean + (x - snapshot[place]),
                };
                // A handful of operations on values of a few units.
                if (merged[place] - expected).abs() > 1e-14 {
                    return Err(format!("{merge:?} gives {} instead of {expected}", merged[place]));
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_merge_weighs_what_was_under_way_as_published() {
    assert_eq!(merges_by_the_formula(2.0), Ok(()));
    assert!(merges_by_the_formula(1.0).is_err(), "steps that count once are noticed");
    for (snapshots, published) in [(2, 0.50), (4, 0.33), (8, 0.20), (64, 0.03)] {
        assert!((Merge::Stale.local_weight(snapshots, 1) - published).abs() < 0.005, "of {snapshots}");
    }
}

#[test]
fn models_that_agree_and_have_not_gone_on_stay_as_they_are() {
    let model: Vec<f64> = (0..20).map(|value| f64::from(value as f32 * 0.3)).collect();
    let mean: Vec<f32> = model.iter().map(|&value| value as f32).collect();
    for merge in [Merge::Stale, Merge::Progress] {
        let mut merged = model.clone();
        merge.apply(&mut merged, &model, &mean, 4, 1);
        assert!(merged.iter().zip(&model).all(|(a, b)| (a - b).abs() <= f64::EPSILON * b.abs()), "{merge:?}");
    }
}

#[test]
fn without_progress_exchanges_become_frequent_and_then_rare_again() {
    let options = CycleOptions::new(10);
    let mut cycle = Cycle::new(&options);
    let mut seen = Vec::new();
    // The first loss is the best one; each third one after it changes something.
    for epoch in 0..=12 {
        cycle.conclude(2.0, &options);
        if epoch % 3 == 0 {
            seen.push((cycle.skip, cycle.wait));
        }
    }
    assert_eq!(seen, [(4, 1), (2, 1), (1, 1), (8, 2), (4, 1)]);
    // Progress of 5 % begins the count again, less does not.
    cycle = Cycle::new(&options);
    for loss in [2.0, 1.95, 1.91, 1.85, 1.8, 1.77] {
        cycle.conclude(loss, &options);
    }
    assert_eq!((cycle.skip, cycle.best, cycle.bad), (4, 1.85, 2));
    cycle.conclude(1.76, &options);
    assert_eq!((cycle.skip, cycle.best, cycle.bad), (2, 1.85, 0));
}

#[test]
fn no_exchange_waits_for_longer_than_it_is_to_the_next() {
    for most in 1..=64 {
        let options = CycleOptions { most, bad: 1, ..CycleOptions::new(10) };
        let mut cycle = Cycle::new(&options);
        for _ in 0..20 {
            cycle.conclude(2.0, &options);
            assert!((1..=cycle.skip).contains(&cycle.wait), "{cycle:?}, from {most} on");
        }
    }
}

#[test]
fn all_average_at_first_at_last_and_after_every_epoch() {
    let options = CycleOptions { warm_up: 2, cool_down: 1, ..CycleOptions::new(5) };
    let blocking = |iterations| (1..=30).filter(|&at| options.blocks(at, iterations)).collect::<Vec<u64>>();
    assert_eq!(blocking(28), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 24, 25, 26, 27, 28, 30]);
    assert_eq!(blocking(u64::MAX), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30], "nobody knows the end");
}

fn fleets() -> impl Strategy<Value = (HierarchicalOptions, u64, usize, u64)> {
    let sizes = prop::collection::vec(1_usize..4, 2..5);
    let cycle = (3_u64..20, 0_u64..2, 0_u64..2, prop::sample::select(vec![2_u64, 4]));
    let merge = prop::sample::select(vec![Merge::Stale, Merge::Progress]);
    (sizes, cycle, merge, 1_u64..60, 1_usize..5, any::<u64>()).prop_map(
        |(sizes, cycle, merge, iterations, len, seed)| {
            let mut nodes = (0..).map(NodeId);
            let sites = sizes.iter().map(|&size| nodes.by_ref().take(size).collect()).collect();
            let (epoch, warm_up, cool_down, skip) = cycle;
            let mut options = HierarchicalOptions::new(sites, epoch);
            // Where exchanges follow each other at once, who is a step ahead is met with the next snapshot.
            options.cycle = CycleOptions { warm_up, cool_down, skip, bad: u64::MAX, ..options.cycle };
            (options.merge, options.patience) = (merge, PATIENCE);
            (options, iterations, len, seed)
        },
    )
}

/// Fleets do what the definition says of a merge that is `mistaken(merge)`.
fn as_defined(mistaken: impl Fn(Merge) -> Merge) -> Result<(), Broken> {
    let law = |(options, iterations, len, seed): (HierarchicalOptions, u64, usize, u64)| {
        let of = HierarchicalOptions { merge: mistaken(options.merge), ..options.clone() };
        let expected = by_definition(&of, (iterations, len, seed), &[], next_that_is_there).models;
        let mut fleet = Fleet::new(&options, iterations, len, seed);
        let models = fleet.train(seed)?;
        for (node, model) in models.iter().enumerate() {
            let expected = &expected[fleet.site(node)];
            // Snapshots and means travel in single precision, and values are of a few units.
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5;
            if !model.iter().zip(expected).all(close) {
                return Err(format!("n{node} has {model:?} instead of {expected:?}"));
            }
        }
        Ok(())
    };
    Check::default().hold(fleets(), law)
}

#[test]
fn fleets_do_what_the_definition_says_in_whatever_order_things_happen() {
    assert_eq!(as_defined(|merge| merge), Ok(()));
    // The other merge is noticed.
    let other = |merge| if merge == Merge::Stale { Merge::Progress } else { Merge::Stale };
    assert!(as_defined(other).is_err());
}

/// Fleets of whose nodes some, or all of a site, are lost and perhaps come back, and whose losses say how often sites exchange.
fn eventful() -> impl Strategy<Value = ((HierarchicalOptions, u64, usize, u64), Vec<Event>)> {
    let loss = (0.0..1.0_f64, 0.0..1.0_f64, any::<prop::sample::Index>(), any::<bool>(), 0..3_u8);
    let losses = prop::collection::vec(loss, 1..4);
    (fleets(), 1_u64..4, 40_u64..90, losses).prop_map(|((mut options, _, len, seed), bad, iterations, losses)| {
        (options.cycle.bad, options.cycle.epoch) = (bad, 3 + options.cycle.epoch % 6);
        let nodes: Vec<NodeId> = options.sites.iter().flatten().copied().collect();
        let (mut events, mut lost) = (Vec::new(), Vec::new());
        for (when, back, node, returns, whole) in losses {
            let node = nodes[node.index(nodes.len())];
            let site = options.sites.iter().find(|site| site.contains(&node)).expect("every node has a site");
            let after = 1 + (when * (iterations - 2) as f64) as u64;
            let later = after + 1 + (back * (iterations - after - 1) as f64) as u64;
            let with = site.iter().copied().filter(|&mate| mate == node || whole == 0);
            for node in with {
                // Somebody stays.
                if lost.contains(&node) || lost.len() + 1 == nodes.len() {
                    continue;
                }
                lost.push(node);
                let node = node.0 as usize;
                events.push(Event { after, node, is_lost: true });
                if returns && later < iterations {
                    events.push(Event { after: later, node, is_lost: false });
                }
            }
        }
        events.sort_by_key(|event| event.after);
        ((options, iterations, len, seed), events)
    })
}

/// With nodes that are lost and come back, fleets exchange when, between whom and with what outcome the definition says, if
/// its turns are these and the schedule is `mistaken`.
fn as_defined_with_losses(turn: Turn, mistaken: impl Fn(CycleOptions) -> CycleOptions) -> Result<(), Broken> {
    let law = |((options, iterations, len, seed), events): ((HierarchicalOptions, u64, usize, u64), Vec<Event>)| {
        let of = HierarchicalOptions { cycle: mistaken(options.cycle), ..options.clone() };
        let expected = by_definition(&of, (iterations, len, seed), &events, turn);
        let mut fleet = Fleet::new(&options, iterations, len, seed);
        (fleet.in_step, fleet.events) = (true, events.into());
        let models = fleet.train(seed)?;
        fleet.exchanges.sort_unstable();
        let differ = fleet.exchanges.iter().zip(&expected.exchanges).find(|(seen, expected)| seen != expected);
        if differ.is_some() || fleet.exchanges.len() != expected.exchanges.len() {
            let counts = [fleet.exchanges.len(), expected.exchanges.len()];
            return Err(format!("exchanges: {differ:?}, {counts:?} in all"));
        }
        for (node, model) in models.iter().enumerate().filter(|(node, _)| fleet.members[*node].is_live) {
            let (cycle, site) = (fleet.members[node].policy.cycle(), fleet.site(node));
            // A mean of equal numbers is off by their rounding.
            let same = (cycle.best - expected.cycle.best).abs() < 1e-12;
            if !same || (Cycle { best: expected.cycle.best, ..cycle }) != expected.cycle {
                return Err(format!("n{node} is at {cycle:?} instead of {:?}", expected.cycle));
            }
            if !model.iter().zip(&expected.models[site]).all(|(a, b)| (a - b).abs() <= 1e-5) {
                return Err(format!("n{node} has {model:?} instead of {:?}", expected.models[site]));
            }
        }
        Ok(())
    };
    Check::default().hold(eventful(), law)
}

#[test]
fn turns_and_schedule_are_as_defined_when_nodes_are_lost_and_come_back() {
    assert_eq!(as_defined_with_losses(next_that_is_there, |cycle| cycle), Ok(()));
}

#[test]
fn other_turns_and_schedules_are_noticed() {
    // Turns go round those that are there.
    let of_live: Turn = |exchange, _, live| live[exchange as usize % live.len()];
    assert!(as_defined_with_losses(of_live, |cycle| cycle).is_err());
    let always_first: Turn = |_, _, live| live[0];
    assert!(as_defined_with_losses(always_first, |cycle| cycle).is_err());
    // One bad epoch more or less.
    assert!(as_defined_with_losses(next_that_is_there, |cycle| CycleOptions { bad: cycle.bad + 1, ..cycle }).is_err());
    assert!(as_defined_with_losses(next_that_is_there, |cycle| CycleOptions { progress: 0.9, ..cycle }).is_err());
}

#[test]
fn whoever_is_left_goes_on_whatever_was_under_way() {
    let law = |((options, iterations, len, seed), events): ((HierarchicalOptions, u64, usize, u64), Vec<Event>)| {
        let mut fleet = Fleet::new(&options, iterations, len, seed);
        fleet.events = events.into();
        fleet.train(seed).map(|_| ())
    };
    assert_eq!(Check::default().hold(eventful(), law), Ok(()));
}

#[test]
fn words_of_something_else_are_refused_whole_and_end_a_pause() {
    let law = |((options, iterations, len, seed), cut, (at, bit)): (
        (HierarchicalOptions, u64, usize, u64),
        u64,
        (prop::sample::Index, u32),
    )| {
        // Somewhere in a run, waiting perhaps.
        let mut fleet = Fleet::new(&options, iterations, len, seed);
        fleet.cut_off = Some(0);
        fleet.stop_after = Some(cut);
        fleet.train(seed).ok();
        let fresh = || Hierarchical::new(options.clone(), NodeId(0));
        let words = fleet.members[0].policy.save();
        let restored = |words: &[u64]| {
            let mut policy = fresh();
            policy.restore(words);
            let is_going_on = policy.poll() == Some(PolicyAction::Proceed) && policy.timeout() == Instant::FAR;
            (policy.save(), is_going_on)
        };
        let refused = (fresh().save(), true);
        let mut longer = words.clone();
        longer.push(0);
        let (mut other, at) = (words.clone(), at.index(words.len()));
        other[at] ^= 1 << bit;
        if restored(&words) != (words.clone(), false) {
            return Err("its own words are refused".into());
        }
        if (0..words.len()).any(|end| restored(&words[..end]) != refused) || restored(&longer) != refused {
            return Err("words that end early or late are taken".into());
        }
        // What differs in a bit is refused, or taken as it is but for the rounding of a value to single precision.
        let outcome = restored(&other);
        let (saved, _) = &outcome;
        let rounded = f64::from(f64::from_bits(other[at]) as f32);
        other[at] = if saved.get(at) == Some(&rounded.to_bits()) { rounded.to_bits() } else { other[at] };
        if outcome == refused || outcome == (other.clone(), false) {
            Ok(())
        } else {
            Err(format!("{other:?} has become {saved:?}"))
        }
    };
    assert_eq!(Check::default().hold((fleets(), 0_u64..200, (any::<prop::sample::Index>(), 0_u32..64)), law), Ok(()));
}

#[test]
fn whoever_is_put_into_words_at_any_time_goes_on_as_if_nothing_had_been() {
    let law = |((options, iterations, len, seed), events): ((HierarchicalOptions, u64, usize, u64), Vec<Event>)| {
        let train = |interrupted| {
            let mut fleet = Fleet::new(&options, iterations, len, seed);
            (fleet.interrupted, fleet.events) = (interrupted, events.clone().into());
            fleet.train(seed)
        };
        if train(true)? != train(false)? { Err("models differ".into()) } else { Ok(()) }
    };
    assert_eq!(Check::default().hold(eventful(), law), Ok(()));
}

#[test]
fn all_meet_after_the_same_steps_whoever_had_made_some_before_the_others_came() {
    let law =
        |((options, iterations, len, seed), first, lead): ((HierarchicalOptions, u64, usize, u64), usize, u64)| {
            let mut fleet = Fleet::new(&options, iterations, len, seed);
            for node in &options.sites[first % options.sites.len()] {
                let member = &mut fleet.members[node.0 as usize];
                (member.iteration, member.lead) = (lead, lead);
            }
            // The round in which the others come.
            fleet.average();
            fleet.train(seed)?;
            if fleet.apart == 0 { Ok(()) } else { Err(format!("members were {} steps apart", fleet.apart)) }
        };
    assert_eq!(Check::default().hold((fleets(), 0..12_usize, 1_u64..6), law), Ok(()));
}

#[test]
fn sites_that_hold_a_round_by_themselves_take_what_others_tell() {
    type Rounds = Vec<(u64, usize)>;
    let law = |((mut options, _, len, seed), rounds): ((HierarchicalOptions, u64, usize, u64), Rounds)| {
        options.cycle.epoch = 12;
        let mut fleet = Fleet::new(&options, 40, len, seed);
        fleet.in_step = true;
        let rounds: BTreeMap<u64, usize> = rounds.into_iter().collect();
        fleet.alone = rounds.into_iter().map(|(after, site)| (after, site % options.sites.len())).collect();
        fleet.train(seed)?;
        if !fleet.alone.is_empty() {
            return Err(format!("{:?} are still to come", fleet.alone));
        }
        // All comes in time, and only who drops it waits.
        if fleet.now == Instant::ORIGIN { Ok(()) } else { Err(format!("it has become {:?}", fleet.now)) }
    };
    let rounds = prop::collection::vec((1_u64..39, 0..12_usize), 0..4);
    assert_eq!(Check::default().hold((fleets(), rounds), law), Ok(()));
}

#[test]
fn nobody_waits_for_ever_for_a_site_from_which_nothing_comes() {
    let law = |((options, iterations, len, seed), cut_off): ((HierarchicalOptions, u64, usize, u64), usize)| {
        let mut fleet = Fleet::new(&options, iterations, len, seed);
        fleet.cut_off = Some(cut_off % options.sites.len());
        fleet.train(seed).map(|_| ())
    };
    assert_eq!(Check::default().hold((fleets(), 0_usize..4), law), Ok(()));
}

#[test]
fn a_site_that_diverges_takes_no_other_with_it() {
    let law = |((mut options, _, len, seed), site, from): (
        (HierarchicalOptions, u64, usize, u64),
        prop::sample::Index,
        u64,
    )| {
        // No round, which would leave out whoever is no number.
        options.cycle = CycleOptions { warm_up: 0, epoch: 99, ..options.cycle };
        let site = site.index(options.sites.len());
        let mut fleet = Fleet::new(&options, u64::MAX, len, seed);
        (fleet.iterations, fleet.diverges) = (30, Some((site, from)));
        let models = fleet.train(seed)?;
        let told = |(begun, by, _): &&(u64, NodeId, NodeId)| *begun >= from && fleet.site(by.0 as usize) == site;
        if let Some(exchange) = fleet.exchanges.iter().find(told) {
            return Err(format!("{exchange:?} is what nobody can use"));
        }
        for (node, model) in models.iter().enumerate().filter(|(node, _)| fleet.site(*node) != site) {
            // Steps of order one.
            if !model.iter().all(|value| value.abs() < 1e3) {
                return Err(format!("n{node} has {model:?}"));
            }
        }
        Ok(())
    };
    let cases = (fleets(), any::<prop::sample::Index>(), 1_u64..30);
    assert_eq!(Check::default().hold(cases, law), Ok(()));
}

#[test]
fn a_snapshot_that_is_no_numbers_is_dropped() {
    let sites = vec![vec![NodeId(0)], vec![NodeId(1)]];
    let cycle = CycleOptions { warm_up: 0, ..CycleOptions::new(99) };
    let mut fleet = Fleet::new(&HierarchicalOptions { cycle, ..HierarchicalOptions::new(sites, 99) }, 1000, 3, 1);
    for iteration in 1..=4 {
        let summary = Summary { samples: 1, loss: 1.0, missing: 0 };
        fleet.tell(1, PolicyInput::Stepped { iteration, summary: &summary });
    }
    let sent = fleet.mail.values().flatten().next().expect("a snapshot").clone();
    let before = fleet.members[0].policy.save();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0] {
        let mut bytes = sent[..sent.len() - 4].to_vec();
        bytes.extend(value.to_le_bytes());
        fleet.tell(0, PolicyInput::Told { from: NodeId(1), bytes: &bytes });
        assert_eq!(fleet.members[0].policy.save() == before, !value.is_finite(), "{value}");
    }
}

#[test]
fn whoever_is_interrupted_goes_on_and_torn_notes_are_survived() {
    let sites = vec![vec![NodeId(0), NodeId(1)], vec![NodeId(2)]];
    let options = HierarchicalOptions {
        cycle: CycleOptions { warm_up: 0, ..CycleOptions::new(99) },
        ..HierarchicalOptions::new(sites, 99)
    };
    let mut fleet = Fleet::new(&options, 1000, 3, 1);
    for iteration in 1..=4 {
        let summary = Summary { samples: 1, loss: 1.0, missing: 0 };
        fleet.tell(2, PolicyInput::Stepped { iteration, summary: &summary });
    }
    let sent: Vec<Vec<u8>> = fleet.mail.values().flatten().cloned().collect();
    assert_eq!(sent.len(), 1, "a snapshot for the member whose turn it is");
    for end in 0..sent[0].len() {
        fleet.tell(0, PolicyInput::Told { from: NodeId(2), bytes: &sent[0][..end] });
    }
    let summary = Summary { samples: 1, loss: 1.0, missing: 0 };
    fleet.tell(2, PolicyInput::Stepped { iteration: 5, summary: &summary });
    assert!(fleet.members[2].paused);
    fleet.tell(2, PolicyInput::Interrupted);
    assert!(!fleet.members[2].paused);
}
