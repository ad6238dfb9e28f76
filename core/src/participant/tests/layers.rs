//! Steps that end by a deadline and averages layer by layer, against plain loops.

use super::*;
use crate::participant::layers::Absence;
use crate::policy::{Late, Layerwise};
use crate::seed::Seed;
use alloc::format;
use proptest::prelude::*;

/// Goes a way of its own, as far as there is time, the last layers first.
#[derive(Debug)]
struct Tower {
    node: u32,
    /// How many values each layer has.
    lengths: Vec<usize>,
    model: Vec<f64>,
    iteration: u64,
    /// Whether it leaves rubbish in the layers that a step has not reached.
    dirty: bool,
    /// Whether its steps reach now more layers and now less, whatever the time.
    moody: bool,
    interrupted: u32,
}

/// Steps have so many times as long as a usual one takes.
fn layerwise(time: f64, change: impl Fn(&mut Layerwise)) -> Box<dyn AveragingPolicy> {
    let mut policy = Layerwise::new(STEP.mul_f64(time));
    change(&mut policy);
    Box::new(policy)
}

/// What step `iteration` of a node adds to a value.
fn pace(node: u32, iteration: u64, place: usize) -> f64 {
    Seed(7).derive("pace", u64::from(node) << 32 | iteration << 8 | place as u64).random().normal()
}

/// How many layers a step reaches of a node that has moods.
fn mood(node: u32, iteration: u64, layers: usize) -> usize {
    Seed(8).derive("mood", u64::from(node) << 32 | iteration).random().below(layers as u64 + 1) as usize
}

fn ranges(lengths: &[usize]) -> Vec<Range<usize>> {
    let end = |layer: usize| lengths[..layer].iter().sum::<usize>();
    (0..lengths.len()).map(|layer| end(layer)..end(layer + 1)).collect()
}

/// The share of a step that is done when so many of `layers` are, of which none comes before a third of it.
fn share(done: usize, layers: usize) -> f64 {
    (1.0 + 2.0 * done as f64 / layers as f64) / 3.0
}

impl Training<f64> for Tower {
    fn iteration(&self) -> u64 {
        self.iteration
    }

    fn step(&mut self) -> Result<Summary, TrainingError> {
        self.iteration += 1;
        for (place, value) in self.model.iter_mut().enumerate() {
            *value += pace(self.node, self.iteration, place);
        }
        Ok(Summary { samples: 1, loss: 1.0, missing: 0 })
    }

    fn step_while(&mut self, goes_on: &mut dyn FnMut(f64) -> bool, whole: bool) -> Result<Summary, TrainingError> {
        let layers = self.lengths.len();
        let mut reached = (1..=layers).take_while(|&done| goes_on(share(done, layers))).count();
        if self.moody {
            reached = mood(self.node, self.iteration + 1, layers);
        }
        let missing = if whole && reached < layers { layers } else { layers - reached };
        let before = self.model.clone();
        self.step()?;
        let kept = self.lengths[..missing].iter().sum();
        self.model[..kept].copy_from_slice(&before[..kept]);
        if self.dirty {
            self.model[..kept].fill(1e30);
        }
        self.interrupted += u32::from(missing > 0);
        Ok(Summary { samples: 1, loss: 1.0, missing: missing as u32 })
    }

    fn layers(&self) -> Vec<Range<usize>> {
        ranges(&self.lengths)
    }

    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<f64>) {
        contribution.segment("parameters", self.model.len(), request.weight).copy_from_slice(&self.model);
        contribution.segment("running", 1, request.weight).fill(f64::from(self.node));
    }

    fn adopt(&mut self, average: &Contribution<f64>, healed: bool) {
        let parameters = average.find("parameters").expect("all have some");
        if parameters.weight > 0.0 {
            self.model.copy_from_slice(&parameters.values);
        }
        if healed {
            self.iteration = average.iteration;
        }
    }
}

/// A fleet whose node i needs `slow[i]` times as long as a step takes.
#[derive(Clone, Debug)]
struct Story {
    slow: Vec<f64>,
    lengths: Vec<usize>,
    iterations: u64,
    /// How much of a usual step's time there is.
    time: f64,
    late: Late,
}

impl Story {
    fn policy(&self) -> Box<dyn AveragingPolicy> {
        layerwise(self.time, |policy| policy.late = self.late)
    }

    fn run(&self, policy: impl Fn() -> Box<dyn AveragingPolicy>, dirty: bool) -> World<Tower> {
        let mut world = World::with(self.slow.len() as u32, self.iterations, policy, |node| Tower {
            node,
            lengths: self.lengths.clone(),
            model: vec![0.0; self.lengths.iter().sum()],
            iteration: 0,
            dirty,
            moody: false,
            interrupted: 0,
        });
        for (member, slow) in world.members.iter_mut().zip(&self.slow) {
            member.schedule.step = STEP.mul_f64(*slow);
        }
        world.run(Duration::from_secs(20));
        assert!(world.members.iter().all(Participant::is_over));
        world
    }

    /// How many layers a node reaches.
    fn reached(&self, node: usize) -> usize {
        let (layers, slow) = (self.lengths.len(), self.slow[node]);
        if slow <= self.time {
            return layers;
        }
        let (within, takes) = (STEP.mul_f64(self.time), STEP.mul_f64(slow));
        let share_of = within.as_secs_f64() / takes.as_secs_f64();
        let reached = (1..=layers).take_while(|&done| share(done, layers) <= share_of).count();
        if self.late == Late::Nothing { 0 } else { reached }
    }

    /// What the fleet makes of its model.
    fn model(&self, mistake: Option<Mistake>) -> Vec<f64> {
        let (ranges, layers) = (ranges(&self.lengths), self.lengths.len());
        let nodes = self.slow.len();
        let mut model = vec![0.0; self.lengths.iter().sum()];
        for iteration in 1..=self.iterations {
            for (layer, range) in ranges.iter().enumerate() {
                let brings = |node: &usize| match mistake {
                    Some(Mistake::AllOrNothing) => self.reached(*node) == layers,
                    Some(Mistake::FirstFirst) => layer < self.reached(*node),
                    _ => layer >= layers - self.reached(*node),
                };
                let contributors: Vec<usize> = (0..nodes).filter(brings).collect();
                let count = if mistake == Some(Mistake::OverAll) { nodes } else { contributors.len() };
                for place in range.clone().filter(|_| count > 0) {
                    let sum: f64 = contributors.iter().map(|&node| pace(node as u32, iteration, place)).sum();
                    model[place] += sum / count as f64;
                }
            }
        }
        model
    }
}

/// What could be done wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    /// Who has not reached a layer counts in its mean.
    OverAll,
    /// Who is late brings nothing.
    AllOrNothing,
    /// The first layers are those that are there first.
    FirstFirst,
}

/// Some tens of operations on values of some units.
fn close(world: &World<Tower>, expected: &[f64]) -> Result<(), String> {
    for member in &world.members {
        let model = &member.training().expect("no step is under way").model;
        if model.iter().zip(expected).any(|(a, b)| (a - b).abs() > 1e-11) {
            return Err(format!("{model:?} instead of {expected:?}"));
        }
    }
    Ok(())
}

fn stories() -> impl Strategy<Value = Story> {
    let pace = prop_oneof![Just(1.0), 1.0..5.0_f64];
    let late = prop::sample::select(vec![Late::Layers, Late::Layers, Late::Nothing]);
    (prop::collection::vec(pace, 2..5), prop::collection::vec(1_usize..4, 1..6), 1_u64..8, 1.0..2.5_f64, late)
        .prop_map(|(slow, lengths, iterations, time, late)| Story { slow, lengths, iterations, time, late })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_layer_is_averaged_over_those_who_have_reached_it(story in stories()) {
        let world = story.run(|| story.policy(), false);
        prop_assert_eq!(world.commits(0) as u64, story.iterations);
        prop_assert_eq!(close(&world, &story.model(None)), Ok(()));
        let (layers, nodes) = (story.lengths.len(), story.slow.len());
        let reached: Vec<usize> = (0..nodes).map(|node| story.reached(node)).collect();
        let (most, least) = (*reached.iter().max().unwrap(), *reached.iter().min().unwrap());
        if least < most {
            prop_assert!(close(&world, &story.model(Some(Mistake::OverAll))).is_err());
        }
        if reached.iter().any(|reached| (1..layers).contains(reached)) {
            prop_assert!(close(&world, &story.model(Some(Mistake::AllOrNothing))).is_err());
            prop_assert!(close(&world, &story.model(Some(Mistake::FirstFirst))).is_err());
        }
        // Nobody waits longer than there is time, and messages take some of their own.
        let round = STEP.mul_f64(story.time) + 30 * LATENCY;
        prop_assert!(world.stepped < Instant::ORIGIN + round * story.iterations as u32, "{}", world.stepped);
    }

    #[test]
    fn what_a_late_node_has_not_reached_changes_nobody(story in stories()) {
        let [clean, dirty] = [false, true].map(|dirty| story.run(|| story.policy(), dirty));
        for (node, (clean, dirty)) in clean.members.iter().zip(&dirty.members).enumerate() {
            let [clean, dirty] = [clean, dirty].map(|member| member.training().expect("no step is under way"));
            if story.reached(node) == story.lengths.len() {
                prop_assert_eq!(&clean.model, &dirty.model);
            } else {
                prop_assert_eq!(dirty.interrupted as u64, story.iterations);
            }
        }
    }

    #[test]
    fn if_nobody_is_late_it_is_plain_averaging_to_the_bit(story in stories()) {
        let story = Story { time: 5.0, ..story };
        let [layers, plain] = [story.run(|| story.policy(), false), story.run(|| Box::new(Periodic::new(1)), false)];
        for (one, other) in layers.members.iter().zip(&plain.members) {
            let [one, other] = [one, other].map(|member| member.training().expect("no step is under way"));
            prop_assert_eq!((&one.model, one.interrupted), (&other.model, 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Where layers are missing at random, each contribution is as much longer as the layer was missing before; and what was
    /// counted for that is in what is saved.
    #[test]
    fn absent_layers_are_made_up_for(nodes in 1_u32..4, lengths in prop::collection::vec(1_usize..3, 1..4), iterations in 4_u64..25) {
        let (nodes, layers) = (nodes + 1, lengths.len());
        let policy = || layerwise(1.0, |policy| policy.unbiased = true);
        let len = lengths.iter().sum();
        let mut world = World::with(nodes, iterations, policy, |node| Tower {
            node, lengths: lengths.clone(), model: vec![0.0; len], iteration: 0, dirty: false, moody: true, interrupted: 0,
        });
        for member in &mut world.members {
            member.schedule.step = 2 * STEP;
        }
        world.run(Duration::from_secs(20));
        let model = |unbiased: bool| {
            let (mut model, mut absent, mut late) = (vec![0.0; len], vec![0_u64; layers], false);
            for iteration in 1..=iterations {
                for (layer, range) in ranges(&lengths).into_iter().enumerate() {
                    let brings = |node: &u32| layer >= layers - mood(*node, iteration, layers);
                    let contributors: Vec<u32> = (0..nodes).filter(brings).collect();
                    let (before, missed) = (iteration - 1, absent[layer]);
                    let longer = if unbiased && missed < before { before as f64 / (before - missed) as f64 } else { 1.0 };
                    absent[layer] += u64::from(contributors.is_empty());
                    late |= longer > 1.0 && !contributors.is_empty();
                    for place in range.filter(|_| !contributors.is_empty()) {
                        let sum: f64 = contributors.iter().map(|&node| pace(node, iteration, place)).sum();
                        model[place] += longer.min(10.0) * sum / contributors.len() as f64;
                    }
                }
            }
            (model, late)
        };
        let (expected, made_up) = model(true);
        prop_assert_eq!(close(&world, &expected), Ok(()));
        prop_assert_eq!(close(&world, &model(false).0).is_err(), made_up, "the bias is noticed");
        let absence = &world.members[0].absence;
        prop_assert_eq!(&Absence::restore(&absence.save()), absence);
    }
}

/// What is made up for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Longer {
    /// The step since the last round, by what members have counted together.
    Shared,
    /// Everything since the last round of the node, by what members have counted together.
    Everything,
    /// The step since the last round, by what each has counted.
    Own,
}

/// What a node has at some time.
#[derive(Clone, Debug, Default)]
struct State {
    iteration: u64,
    model: Vec<f64>,
    /// The iteration and the model of its last round.
    base: Option<(u64, Vec<f64>)>,
    rounds: u64,
    absent: Vec<u64>,
}

/// One node, as a plain loop has it.
#[derive(Clone, Debug, Default)]
struct Plain {
    now: State,
    /// What it had after each iteration, before the round that may have followed: a contribution may have been to a round that
    /// others know of, and the node does not.
    brought: Vec<State>,
}

impl Plain {
    fn advance(&mut self, node: u32, lengths: &[usize], iteration: u64) {
        for iteration in self.now.iteration + 1..=iteration {
            let missing = lengths.len() - mood(node, iteration, lengths.len());
            for place in lengths[..missing].iter().sum()..self.now.model.len() {
                self.now.model[place] += pace(node, iteration, place);
            }
            self.now.iteration = iteration;
            self.brought.push(self.now.clone());
        }
    }
}

/// A fleet of moody nodes, of which one is away for some time.
#[derive(Clone, Debug)]
struct Absentee {
    nodes: u32,
    lengths: Vec<usize>,
    iterations: u64,
    who: usize,
    /// From when to when, in milliseconds.
    away: (u64, u64),
}

impl Absentee {
    fn run(&self) -> World<Tower> {
        let policy = || layerwise(1.0, |policy| policy.unbiased = true);
        let len = self.lengths.iter().sum();
        let mut world = World::with(self.nodes, self.iterations, policy, |node| Tower {
            node,
            lengths: self.lengths.clone(),
            model: vec![0.0; len],
            iteration: 0,
            dirty: false,
            moody: true,
            interrupted: 0,
        });
        for member in &mut world.members {
            member.schedule.step = 2 * STEP;
        }
        world.run(Duration::from_millis(self.away.0));
        world.offline = Some(self.who);
        world.run(Duration::from_millis(self.away.1));
        world.offline = None;
        world.run(Duration::from_secs(60));
        assert!(world.members.iter().all(Participant::is_over));
        world
    }

    /// What each node has in the end, by who was in which round.
    fn models(&self, world: &World<Tower>, longer: Longer) -> Vec<Vec<f64>> {
        let mut rounds = BTreeMap::new();
        for record in &world.records {
            if let Occurrence::Committed { certificate } = &record.what {
                let round = rounds.entry(certificate.id()).or_insert_with(|| (certificate.clone(), Vec::new()));
                round.1.push(record.node.0 as usize);
            }
        }
        let layers = self.lengths.len();
        let ranges = ranges(&self.lengths);
        let model = vec![0.0; self.lengths.iter().sum()];
        let now = State { model, absent: vec![0; layers], ..State::default() };
        let mut nodes = vec![Plain { now, brought: Vec::new() }; self.nodes as usize];
        for (certificate, committed) in rounds.into_values() {
            let members = certificate.members.iter().map(|member| {
                let node = member.node.0;
                let plain = &mut nodes[node as usize];
                plain.advance(node, &self.lengths, member.iteration);
                let brought = plain.brought[member.iteration as usize - 1].clone();
                (brought, layers - mood(node, member.iteration, layers))
            });
            let members: Vec<(State, usize)> = members.collect();
            let average: Vec<Option<Vec<f64>>> = (0..layers)
                .map(|layer| {
                    let brought = members.iter().filter(|(_, missing)| layer >= *missing).map(|(state, _)| {
                        let State { iteration, model, base, rounds, absent } = state;
                        let factor = match rounds - absent[layer] {
                            0 => 1.0,
                            present => (*rounds as f64 / present as f64).min(10.0),
                        };
                        let made_up = |(at, _): &&(u64, Vec<f64>)| longer == Longer::Everything || at + 1 == *iteration;
                        let from = base.as_ref().filter(made_up).map_or(model, |(_, base)| base);
                        let place = |place: usize| from[place] + factor * (model[place] - from[place]);
                        ranges[layer].clone().map(place).collect()
                    });
                    let brought: Vec<Vec<f64>> = brought.collect();
                    let mean = |at: usize| brought.iter().map(|of| of[at]).sum::<f64>() / brought.len() as f64;
                    (!brought.is_empty()).then(|| (0..self.lengths[layer]).map(mean).collect())
                })
                .collect();
            let counted: u64 = members.iter().map(|(state, _)| state.rounds).sum();
            let shared = |of: &dyn Fn(&State) -> u64| {
                let sum: u64 = members.iter().map(|(state, _)| state.rounds * of(state)).sum();
                (sum as f64 / counted as f64).round() as u64
            };
            let together = (
                shared(&|state| state.rounds),
                (0..layers).map(|layer| shared(&|state| state.absent[layer])).collect(),
            );
            for node in committed {
                let node = &mut nodes[node].now;
                if counted > 0 && longer != Longer::Own {
                    (node.rounds, node.absent) = together.clone();
                }
                node.rounds += 1;
                for (layer, mean) in average.iter().enumerate() {
                    node.absent[layer] += u64::from(mean.is_none());
                    if let Some(mean) = mean {
                        node.model[ranges[layer].clone()].copy_from_slice(mean);
                    }
                }
                node.base = Some((node.iteration, node.model.clone()));
            }
        }
        for (node, plain) in (0..).zip(&mut nodes) {
            plain.advance(node, &self.lengths, self.iterations);
        }
        nodes.into_iter().map(|plain| plain.now.model).collect()
    }

    /// How far models are from what they should be.
    fn error(&self, world: &World<Tower>, longer: Longer) -> f64 {
        let models = self.models(world, longer).into_iter().flatten();
        let found = world.members.iter().flat_map(|member| &member.training().expect("no step is under way").model);
        found.zip(models).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max)
    }
}

fn absentees() -> impl Strategy<Value = Absentee> {
    let lengths = prop::collection::vec(1_usize..3, 1..4);
    (3_u32..5, lengths, 60_u64..120, 0_usize..3, 0_u64..600, 200_u64..900).prop_map(
        |(nodes, lengths, iterations, who, from, span)| {
            let away = (from, from + span);
            Absentee { nodes, lengths, iterations, who, away }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_a_node_has_trained_alone_is_not_made_longer(absentee in absentees()) {
        // Some hundreds of operations on values of some tens.
        let error = absentee.error(&absentee.run(), Longer::Shared);
        prop_assert!(error < 1e-9, "{error}");
    }
}

/// It commits a round alone, as the others hear nothing of that any more; without it they hold one of the same number.
#[test]
fn a_proposer_that_leaves_after_its_commit_is_told_apart_from_the_others() {
    let absentee = Absentee { nodes: 4, lengths: vec![1], iterations: 60, who: 0, away: (46, 591) };
    let error = absentee.error(&absentee.run(), Longer::Shared);
    assert!(error < 1e-9, "{error}");
}

#[test]
fn making_all_of_a_way_longer_or_by_a_count_of_ones_own_is_noticed() {
    let mut most = [0.0_f64; 3];
    // Whoever comes back with a step that has not reached a layer that is often absent shows nothing.
    for (who, from) in [(0, 300), (1, 300), (2, 300), (0, 400), (1, 400), (2, 400)] {
        let away = (from, from + 600);
        let absentee = Absentee { nodes: 3, lengths: vec![2, 1, 1], iterations: 120, who, away };
        let world = absentee.run();
        for (most, longer) in most.iter_mut().zip([Longer::Shared, Longer::Everything, Longer::Own]) {
            *most = most.max(absentee.error(&world, longer));
        }
    }
    let [shared, everything, own] = most;
    assert!(shared < 1e-9, "{shared}");
    assert!(everything > 0.1 && own > 1e-3, "{everything}, {own}");
}

/// A node whose own clock says when time is up.
#[test]
fn in_real_time_the_clock_is_asked() {
    let slow = Story { slow: vec![1.0; 3], lengths: vec![2; 4], iterations: 5, time: 1.0, late: Late::Layers };
    let mut world = World::with(
        3,
        slow.iterations,
        || slow.policy(),
        |node| Tower {
            node,
            lengths: slow.lengths.clone(),
            model: vec![0.0; 8],
            iteration: 0,
            dirty: false,
            moody: false,
            interrupted: 0,
        },
    );
    // Every look at this clock takes longer; the first is at the beginning of a step.
    let looks = alloc::sync::Arc::new(core::sync::atomic::AtomicU64::new(0));
    let clock: Clock = alloc::sync::Arc::new(move || {
        let look = looks.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        Instant::ORIGIN + STEP.mul_f64(0.4) * look as u32
    });
    let last = world.members.pop().expect("three members").by(clock);
    world.members.push(last);
    world.run(Duration::from_secs(3));
    let third = world.members[2].training().expect("no step is under way");
    // It sees 0.4 and 0.8 of the time pass, for two layers, and then too much.
    assert_eq!((third.interrupted, world.members[2].last().map(|last| last.missing)), (5, Some(2)));
    for layer in 0..4 {
        let contributors = if layer < 2 { 2 } else { 3 };
        for place in 2 * layer..2 * layer + 2 {
            let mean = |iteration| (0..contributors).map(|node| pace(node, iteration, place)).sum::<f64>();
            let expected: f64 = (1..=5).map(|iteration| mean(iteration) / f64::from(contributors)).sum();
            assert!((third.model[place] - expected).abs() < 1e-11);
        }
    }
}

#[test]
fn a_round_in_which_nobody_has_anything_is_a_round() {
    for late in [Late::Layers, Late::Nothing] {
        let story = Story { slow: vec![4.0; 3], lengths: vec![2, 1], iterations: 6, time: 1.0, late };
        let world = story.run(|| story.policy(), false);
        for (node, member) in world.members.iter().enumerate() {
            assert_eq!(member.training().expect("no step is under way").model, [0.0; 3]);
            assert_eq!((member.iteration(), world.commits(node as u32)), (6, 6));
        }
        let mut weights = world.records.iter().filter_map(|record| match &record.what {
            Occurrence::Committed { certificate } => Some(certificate.members[0].weights.clone()),
            _ => None,
        });
        // Two layers, a running statistic, and how many layers are missing.
        assert!(weights.all(|weights| weights == [0.0, 0.0, 0.0, 1.0]));
    }
}

#[test]
fn whoever_is_healed_has_no_opinion_on_layers_that_it_lacks() {
    let story =
        Story { slow: vec![2.0, 2.0, 2.0], lengths: vec![2, 3], iterations: 300, time: 1.4, late: Late::Layers };
    let policy = || layerwise(1.4, |policy| policy.rejoin = Rejoin::HealFirst);
    let mut world = World::with(3, story.iterations, policy, |node| Tower {
        node,
        lengths: story.lengths.clone(),
        model: vec![0.0; 5],
        iteration: 0,
        dirty: false,
        moody: false,
        interrupted: 0,
    });
    for member in &mut world.members {
        member.schedule.step = 2 * STEP;
    }
    world.run(Duration::from_millis(400));
    world.offline = Some(2);
    world.run(Duration::from_millis(1600));
    world.offline = None;
    // What a former self has left in the first layer, which nobody reaches and which is not in what heals it.
    match world.steps.get_mut(&2) {
        Some((_, step)) => step.training.model[..2].fill(1e6),
        None => world.members[2].training_mut().expect("it has it").model[..2].fill(1e6),
    }
    // It alone reaches that layer from now on.
    world.members[2].schedule.step = STEP;
    world.run(Duration::from_secs(30));
    for member in &world.members {
        assert!(member.is_over() && member.overlapping.doubted.is_empty());
        assert!(member.training().expect("no step is under way").model.iter().all(|value| value.abs() < 1e4));
    }
}
