//! Steps that end by a deadline and averages layer by layer, against plain loops.

use super::*;
use crate::policy::{Late, Layerwise};
use crate::seed::Seed;
use alloc::format;
use proptest::prelude::*;

/// Goes a way of its own, as far as there is time, the last layers first.
#[derive(Debug)]
pub(super) struct Tower {
    node: u32,
    /// How many values each layer has.
    lengths: Vec<usize>,
    pub(super) model: Vec<f64>,
    iteration: u64,
    /// Whether it leaves rubbish in the layers that a step has not reached.
    dirty: bool,
    /// How many layers a step of a node reaches, by its number, whatever the time.
    mood: Option<Mood>,
    interrupted: u32,
    /// How often it was read, and at which of those times one value is shown as no number.
    readings: u64,
    glitch: Option<u64>,
}

/// Of a node, an iteration, and so many layers.
pub(super) type Mood = fn(u32, u64, usize) -> usize;

impl Tower {
    fn new(node: u32, lengths: &[usize]) -> Self {
        let (lengths, model) = (lengths.to_vec(), vec![0.0; lengths.iter().sum()]);
        Self { node, lengths, model, iteration: 0, dirty: false, mood: None, interrupted: 0, readings: 0, glitch: None }
    }

    /// Whose steps reach so many layers.
    pub(super) fn moody(node: u32, lengths: &[usize], mood: Mood) -> Self {
        Self { mood: Some(mood), ..Self::new(node, lengths) }
    }
}

/// Steps have so many times as long as a usual one takes.
pub(super) fn layerwise(time: f64, change: impl Fn(&mut Layerwise)) -> Box<dyn AveragingPolicy> {
    let mut policy = Layerwise::new(STEP.mul_f64(time));
    change(&mut policy);
    Box::new(policy)
}

/// What step `iteration` of a node adds to a value.
pub(super) fn pace(node: u32, iteration: u64, place: usize) -> f64 {
    Seed(7).derive("pace", u64::from(node) << 32 | iteration << 8 | place as u64).random().normal()
}

pub(super) fn ranges(lengths: &[usize]) -> Vec<Range<usize>> {
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
        if let Some(mood) = self.mood {
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
        self.readings += 1;
        let shown = contribution.segment("parameters", self.model.len(), request.weight);
        shown.copy_from_slice(&self.model);
        if self.glitch == Some(self.readings) {
            shown[0] = f64::NAN;
        }
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
        let make = |node| Tower { dirty, ..Tower::new(node, &self.lengths) };
        let mut world = World::with(self.slow.len() as u32, self.iterations, policy, make);
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
pub(super) fn close(world: &World<Tower>, expected: &[f64]) -> Result<(), String> {
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

/// A node whose own clock says when time is up.
#[test]
fn in_real_time_the_clock_is_asked() {
    let slow = Story { slow: vec![1.0; 3], lengths: vec![2; 4], iterations: 5, time: 1.0, late: Late::Layers };
    let mut world = World::with(3, slow.iterations, || slow.policy(), |node| Tower::new(node, &slow.lengths));
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
    let mut world = World::with(3, story.iterations, policy, |node| Tower::new(node, &story.lengths));
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

#[test]
fn what_is_shown_wrongly_once_is_not_written_back() {
    for unbiased in [false, true] {
        for at in 1..30 {
            // The third does not reach the first of two layers, and shows that wrongly.
            let make = |node| Tower { glitch: (node == 2).then_some(at), ..Tower::new(node, &[2, 3]) };
            let policy = || layerwise(1.0, |policy| policy.unbiased = unbiased);
            let mut world = World::with(3, 20, policy, make);
            world.members[2].schedule.step = STEP.mul_f64(1.4);
            world.run(Duration::from_secs(5));
            let models = world.members.iter().map(|member| &member.training().expect("no step is under way").model);
            let models: Vec<_> = models.collect();
            assert!(world.members[2].training().expect("no step is under way").readings > 38);
            assert!(models[2].iter().all(|value| value.is_finite()), "{:?} after reading {at}", models[2]);
            assert!(world.members.iter().all(Participant::is_over) && models[2] == models[0], "{models:?}");
            assert!(world.commits(0) - world.commits(2) <= 1);
        }
    }
}
