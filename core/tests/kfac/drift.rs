//! Corrections of gradients, against what their papers do with plain gradients.

use crate::dense::Device;
use crate::trainer::{CLASSES, Cloud, INPUTS};
use kronfleet_core::backend::Extent;
use kronfleet_core::cluster::Contribution;
use kronfleet_core::network::{Initialisation, Network, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::participant::Training;
use kronfleet_core::policy::Request;
use kronfleet_core::preconditioner::{Form, Identity, Kronecker, Options, Preconditioner};
use kronfleet_core::schedule::Schedule;
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use proptest::prelude::*;

const BATCH: usize = 8;

/// Node `node`, with data of its own.
fn trainer(node: u64, options: &TrainerOptions, momentum: f64, kfac: Option<Options>) -> Trainer<Device> {
    let mut backend = Device::new();
    let specs = [Spec::dense("first", 5), Spec::Tanh, Spec::dense("last", CLASSES as usize)];
    let mut network = Network::build(&mut backend, Extent::flat(INPUTS), &specs, BATCH).expect("it fits");
    network.initialise(&mut backend, Seed(2), Initialisation::Uniform).expect("memory");
    let len = network.parameters_len();
    let sgd = SgdOptions { momentum, ..SgdOptions::default() };
    let sgd = Sgd::new(&mut backend, len, &[], sgd).expect("memory");
    let preconditioner: Box<dyn Preconditioner<Device>> = match kfac {
        None => Box::new(Identity::default()),
        Some(kfac) => {
            let (blocks, statistics) = (network.blocks(), network.statistics_len());
            Box::new(Kronecker::new(&mut backend, blocks, statistics, len, kfac).expect("memory"))
        }
    };
    let batches = Box::new(Cloud { seed: Seed(100 + node), next: 0 });
    Trainer::new(backend, network, preconditioner, Box::new(sgd), batches, options.clone()).expect("memory")
}

fn options(rate: f64, proximal: f64, variates: bool) -> TrainerOptions {
    TrainerOptions { rate: Schedule::constant(rate), proximal, variates, ..TrainerOptions::new(BATCH, rate) }
}

fn parameters(trainer: &mut Trainer<Device>) -> Vec<f64> {
    trainer.parts().1.parameters.clone()
}

fn contributed(trainer: &mut Trainer<Device>) -> Contribution<f64> {
    let mut contribution = Contribution::default();
    trainer.contribute(&Request::default(), &mut contribution);
    contribution
}

/// The mean of what counts, segment by segment.
fn mean(contributions: &[Contribution<f64>]) -> Contribution<f64> {
    let mut mean = contributions[0].clone();
    for (index, segment) in mean.segments_mut().iter_mut().enumerate() {
        let all = || contributions.iter().map(|contribution| &contribution.segments()[index]);
        segment.weight = all().map(|of| of.weight).sum();
        for (place, value) in segment.values.iter_mut().enumerate() {
            *value = all().map(|of| of.weight * of.values[place]).sum::<f64>() / segment.weight;
        }
    }
    mean
}

/// What a paper would have a node do, and what tells the gradients of its data.
struct Node {
    probe: Trainer<Device>,
    /// `x`: the model of its last average, and since how many steps.
    anchor: Vec<f64>,
    steps: usize,
    /// `y`.
    model: Vec<f64>,
    momentum: Vec<f64>,
    /// `c_i` and `c`.
    variates: [Vec<f64>; 2],
    gradients: Vec<f64>,
}

/// Settings of a fleet.
#[derive(Clone, Copy, Debug)]
struct Case {
    nodes: usize,
    rate: f64,
    momentum: f64,
    proximal: f64,
    variates: bool,
    interrupted: bool,
    seed: u64,
}

impl Node {
    fn new(node: u64) -> Self {
        let mut probe = trainer(node, &options(1.0, 0.0, false), 0.0, None);
        let model = parameters(&mut probe);
        let zeros = vec![0.0; model.len()];
        let variates = [zeros.clone(), zeros.clone()];
        Self { probe, anchor: model.clone(), steps: 0, model, momentum: zeros.clone(), variates, gradients: zeros }
    }

    /// `strength` is what corrections count.
    fn step(&mut self, case: &Case, strength: f64) {
        let mut contribution = Contribution::default();
        contribution.segment("parameters", self.model.len(), 1.0).copy_from_slice(&self.model);
        self.probe.adopt(&contribution, false);
        self.probe.step().expect("finite losses");
        let after = parameters(&mut self.probe);
        for (at, after) in after.into_iter().enumerate() {
            let gradient = self.model[at] - after;
            self.gradients[at] += gradient;
            let mut corrected = gradient + strength * case.proximal * (self.model[at] - self.anchor[at]);
            if case.variates {
                corrected += strength * (self.variates[1][at] - self.variates[0][at]);
            }
            self.momentum[at] = case.momentum * self.momentum[at] + corrected;
            self.model[at] -= case.rate * self.momentum[at];
        }
        self.steps += 1;
    }

    /// `c_i⁺`: as published where that applies.
    fn offer(&self, case: &Case) -> Vec<f64> {
        let steps = self.steps as f64;
        let at = |at: usize| {
            if case.momentum == 0.0 && case.proximal == 0.0 {
                let way = (self.anchor[at] - self.model[at]) / (steps * case.rate);
                self.variates[0][at] - self.variates[1][at] + way
            } else {
                self.gradients[at] / steps
            }
        };
        (0..self.model.len()).map(at).collect()
    }
}

/// What `c` becomes in a round.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// The mean of `c + c_i⁺ − c_i`.
    Tracked,
    /// The mean of `c_i⁺`: what is known of whoever is away is forgotten.
    Forgotten,
    /// `c + |S|/N · mean(c_i⁺ − c_i)`, `c` being the mean of what members have, some of them since long ago.
    Stale,
}

impl Rule {
    /// What a node with these `c_i`, `c` and `c_i⁺` brings into a round of this share of the nodes.
    fn brings(self, [own, common]: [f64; 2], offer: f64, share: f64) -> f64 {
        match self {
            Self::Tracked => common + offer - own,
            Self::Forgotten => offer,
            Self::Stale => common + share * (offer - own),
        }
    }
}

/// A fleet in which in every round some are missing, or are healed by it, does what the papers say.
fn as_published(case: &Case, strength: f64, rule: Rule) -> Result<(), TestCaseError> {
    let options = options(case.rate, case.proximal, case.variates);
    let make = |node: usize| trainer(node as u64, &options, case.momentum, None);
    let mut fleet: Vec<Trainer<Device>> = (0..case.nodes).map(make).collect();
    let mut nodes: Vec<Node> = (0..case.nodes as u64).map(Node::new).collect();
    // The paper's server knows of every round.
    let mut server = nodes[0].variates[1].clone();
    let mut random = Seed(case.seed).random();
    for round in 0..5 {
        for (trainer, node) in fleet.iter_mut().zip(&mut nodes) {
            for _ in 0..=random.below(3) {
                trainer.step().expect("finite losses");
                node.step(case, strength);
            }
        }
        let mut there = vec![0];
        let mut healed = Vec::new();
        for node in 1..case.nodes {
            match random.below(4) {
                0 => {}
                1 => healed.push(node),
                _ => there.push(node),
            }
        }
        let share = there.len() as f64 / case.nodes as f64;
        let offers: Vec<Vec<f64>> = there.iter().map(|&node| nodes[node].offer(case)).collect();
        let mean_of = |value: &dyn Fn(usize) -> f64| (0..there.len()).map(value).sum::<f64>() / there.len() as f64;
        let own = |member: usize, at: usize| nodes[there[member]].variates.each_ref().map(|of| of[at]);
        let brings = |member: usize, at: usize| rule.brings(own(member, at), offers[member][at], share);
        let places = 0..server.len();
        let common: Vec<f64> = places.clone().map(|at| mean_of(&|member| brings(member, at))).collect();
        let model: Vec<f64> = places.map(|at| mean_of(&|member| nodes[there[member]].model[at])).collect();
        for (at, server) in server.iter_mut().enumerate() {
            *server += share * mean_of(&|member| offers[member][at] - own(member, at)[0]);
        }
        for (&node, offer) in there.iter().zip(offers) {
            nodes[node].variates = [offer, common.clone()];
        }
        for &node in there.iter().chain(&healed) {
            let node = &mut nodes[node];
            (node.model, node.anchor, node.steps) = (model.clone(), model.clone(), 0);
            node.gradients.fill(0.0);
        }
        for &node in &healed {
            nodes[node].momentum.fill(0.0);
        }
        for (at, server) in server.iter().enumerate() {
            let mean = nodes.iter().map(|node| node.variates[1][at]).sum::<f64>() / case.nodes as f64;
            // Some values of a few units, added up in another order.
            prop_assert!(
                !case.variates || (mean - server).abs() < 1e-12,
                "{mean} instead of {server} in round {round}"
            );
        }
        let contributions: Vec<_> = there.iter().map(|&node| contributed(&mut fleet[node])).collect();
        let average = mean(&contributions);
        there.iter().for_each(|&node| fleet[node].adopt(&average, false));
        for &node in &healed {
            contributed(&mut fleet[node]);
            fleet[node].adopt(&average, true);
        }
        for (at, (trainer, node)) in fleet.iter_mut().zip(&nodes).enumerate() {
            if case.interrupted {
                let saved = trainer.save().expect("memory");
                *trainer = make(at);
                trainer.restore(&saved).expect("memory");
            }
            for (own, expected) in parameters(trainer).iter().zip(&node.model) {
                // Some hundreds of operations on values of a few units, gradients divided by rates of at least .05.
                prop_assert!((own - expected).abs() < 1e-10, "{own} instead of {expected} in round {round}");
            }
        }
    }
    Ok(())
}

fn cases() -> impl Strategy<Value = Case> {
    let momentum = prop::sample::select(vec![0.0, 0.9]);
    let proximal = prop::sample::select(vec![0.0, 0.1, 1.0]);
    (1_usize..5, 0.05..0.3, momentum, proximal, any::<bool>(), any::<bool>(), any::<u64>()).prop_map(
        |(nodes, rate, momentum, proximal, variates, interrupted, seed)| {
            // One of them at least.
            let variates = variates || proximal == 0.0;
            Case { nodes, rate, momentum, proximal, variates, interrupted, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nodes_do_what_is_published(case in cases()) {
        as_published(&case, 1.0, Rule::Tracked)?;
    }
}

#[test]
fn corrections_of_another_strength_or_by_another_rule_are_noticed() {
    let case = Case { nodes: 4, rate: 0.1, momentum: 0.0, proximal: 0.1, variates: false, interrupted: false, seed: 1 };
    let corrected = Case { proximal: 0.0, variates: true, ..case };
    for case in [case, corrected] {
        assert!(as_published(&case, 1.0, Rule::Tracked).is_ok());
        assert!(as_published(&case, -1.0, Rule::Tracked).is_err() && as_published(&case, 0.0, Rule::Tracked).is_err());
    }
    assert!(as_published(&corrected, 1.0, Rule::Forgotten).is_err());
    assert!(as_published(&corrected, 1.0, Rule::Stale).is_err());
}

/// The corrections that a trainer makes, its own mean gradient, and what that would be if it were in a round.
fn variates(trainer: &mut Trainer<Device>) -> [Vec<f64>; 3] {
    let saved = trainer.save().expect("memory");
    let [correction, own, _, offered] = &saved.drift.0[..] else { panic!("no variates in {:?}", saved.drift) };
    [correction.clone(), own.clone(), offered.clone()]
}

#[test]
fn corrections_of_all_nodes_add_up_to_nothing_whoever_is_there() {
    let mut fleet: Vec<_> = (0..4).map(|node| trainer(node, &options(0.1, 0.0, true), 0.9, None)).collect();
    for there in [0..3, 0..4, 1..3, 2..4, 1..2, 0..4] {
        let mut contributions = Vec::new();
        for trainer in &mut fleet[there.clone()] {
            trainer.step().expect("finite losses");
            contributions.push(contributed(trainer));
        }
        let average = mean(&contributions);
        fleet[there].iter_mut().for_each(|trainer| trainer.adopt(&average, false));
        let corrections: Vec<_> = fleet.iter_mut().map(|trainer| variates(trainer)[0].clone()).collect();
        assert!(corrections[0].iter().any(|correction| *correction != 0.0));
        for at in 0..corrections[0].len() {
            let sum: f64 = corrections.iter().map(|of| of[at]).sum();
            // Rounding of some values of order one.
            assert!(sum.abs() < 1e-13, "{sum}");
        }
    }
}

/// The same batch every time, with labels that nothing tells apart: the optimum is not at infinity.
struct Whole(Seed);

impl Batches<f64> for Whole {
    fn fill(&mut self, x: &mut [f64], labels: &mut [u32]) {
        let mut random = self.0.random();
        x.fill_with(|| random.normal());
        labels.fill_with(|| random.below(CLASSES) as u32);
    }

    fn position(&self) -> u64 {
        0
    }

    fn restore(&mut self, _: u64) {}
}

/// The longest element of the mean gradient of all nodes where a fleet comes to rest of which some are in each round.
fn left_over(rule: Rule) -> f64 {
    const NODES: usize = 5;
    const SAMPLES: usize = 48;
    let make = |node: usize, options: &TrainerOptions| {
        let mut backend = Device::new();
        let specs = [Spec::dense("only", CLASSES as usize)];
        let mut network = Network::build(&mut backend, Extent::flat(INPUTS), &specs, SAMPLES).expect("it fits");
        network.initialise(&mut backend, Seed(2), Initialisation::Uniform).expect("memory");
        let len = network.parameters_len();
        let sgd = Box::new(Sgd::new(&mut backend, len, &[], SgdOptions::default()).expect("memory"));
        let batches = Box::new(Whole(Seed(100 + node as u64)));
        let options = TrainerOptions { batch: SAMPLES, ..options.clone() };
        Trainer::new(backend, network, Box::new(Identity::default()), sgd, batches, options).expect("memory")
    };
    let mut fleet: Vec<_> = (0..NODES).map(|node| make(node, &options(0.3, 0.0, true))).collect();
    let mut random = Seed(5).random();
    let mut average = Contribution::default();
    for _ in 0..ROUNDS {
        let mut there: Vec<usize> = (0..NODES).collect();
        random.shuffle(&mut there);
        there.truncate(1 + random.below(NODES as u64) as usize);
        let share = there.len() as f64 / NODES as f64;
        // Whoever is away trains as well.
        fleet.iter_mut().for_each(|trainer| (0..3).for_each(|_| assert!(trainer.step().is_ok())));
        let bring = |trainer: &mut Trainer<Device>| {
            let mut contribution = contributed(trainer);
            let [correction, own, offered] = variates(trainer);
            let segment = contribution.segments_mut().iter_mut().find(|of| of.name == "variate").expect("it travels");
            for (at, value) in segment.values.iter_mut().enumerate() {
                let brought = rule.brings([own[at], correction[at] + own[at]], offered[at], share);
                assert!(rule != Rule::Tracked || (*value - brought).abs() < 1e-12);
                *value = brought;
            }
            contribution
        };
        let contributions: Vec<_> = there.iter().map(|&node| bring(&mut fleet[node])).collect();
        average = mean(&contributions);
        there.iter().for_each(|&node| fleet[node].adopt(&average, false));
    }
    let mut sums = vec![0.0; average.segments()[0].values.len()];
    for node in 0..NODES {
        let mut probe = make(node, &options(1.0, 0.0, false));
        let mut model = Contribution::default();
        model.segment("parameters", sums.len(), 1.0).copy_from_slice(&average.segments()[0].values);
        probe.adopt(&model, false);
        let before = parameters(&mut probe);
        probe.step().expect("finite losses");
        for (sum, (before, after)) in sums.iter_mut().zip(before.iter().zip(parameters(&mut probe))) {
            *sum += (before - after) / NODES as f64;
        }
    }
    sums.into_iter().map(f64::abs).fold(0.0, f64::max)
}

/// Rounds until what is left is rounding.
const ROUNDS: usize = 600;

#[test]
fn a_fleet_of_which_some_are_there_comes_to_the_optimum_of_all() {
    let [tracked, forgotten, stale] = [Rule::Tracked, Rule::Forgotten, Rule::Stale].map(left_over);
    assert!(tracked < 1e-9, "{tracked}");
    assert!(forgotten > 1e-3 && stale > 1e-3, "{forgotten}, {stale}");
}

#[test]
fn a_node_that_is_healed_keeps_its_corrections() {
    let mut fleet: Vec<_> = (0..3).map(|node| trainer(node, &options(0.1, 0.0, true), 0.0, None)).collect();
    fleet.iter_mut().for_each(|trainer| assert!(trainer.step().is_ok()));
    let first: Vec<_> = fleet.iter_mut().map(contributed).collect();
    let average = mean(&first);
    fleet.iter_mut().for_each(|trainer| trainer.adopt(&average, false));
    let [correction, own, _] = variates(&mut fleet[2]);
    // The others go on; it makes steps that come to nothing, and is healed.
    fleet.iter_mut().for_each(|trainer| assert!(trainer.step().is_ok()));
    let second: Vec<_> = fleet[..2].iter_mut().map(contributed).collect();
    let state = mean(&second);
    contributed(&mut fleet[2]);
    fleet[2].adopt(&state, true);
    let [kept, kept_own, _] = variates(&mut fleet[2]);
    assert_eq!([&kept, &kept_own], [&correction, &own]);
    // What it says next is of the steps since then alone.
    fleet[2].step().expect("finite losses");
    let contribution = contributed(&mut fleet[2]);
    let sum = fleet[2].save().expect("memory").drift.0[2].clone();
    for (at, value) in contribution.find("variate").expect("it travels").values.iter().enumerate() {
        assert_eq!(*value, sum[at] + correction[at]);
    }

    // Who has never been in a round corrects nothing, as it does not know what it differs in.
    let mut fresh = trainer(7, &options(0.1, 0.0, true), 0.0, None);
    assert_eq!(contributed(&mut fresh).find("variate").expect("it has its place").weight, 0.0);
    fresh.adopt(&state, true);
    assert!(variates(&mut fresh)[0].iter().all(|correction| *correction == 0.0));
}

#[test]
fn what_is_contributed_is_twice_as_long_and_not_a_value_longer() {
    let mut plain = trainer(0, &options(0.1, 0.3, false), 0.0, None);
    let mut corrected = trainer(0, &options(0.1, 0.3, true), 0.0, None);
    corrected.step().expect("finite losses");
    let len = plain.parts().1.parameters.len();
    assert_eq!([contributed(&mut plain).values(), contributed(&mut corrected).values()], [len, 2 * len]);
}

#[test]
fn what_comes_to_nothing_changes_nothing() {
    let make = || {
        let mut trainer = trainer(0, &options(0.1, 0.2, true), 0.5, None);
        trainer.step().expect("finite losses");
        let average = mean(&[contributed(&mut trainer)]);
        trainer.adopt(&average, false);
        trainer
    };
    let (mut once, mut twice) = (make(), make());
    for trainer in [&mut once, &mut twice] {
        trainer.step().expect("finite losses");
    }
    contributed(&mut twice);
    for trainer in [&mut once, &mut twice] {
        trainer.step().expect("finite losses");
    }
    assert_eq!(contributed(&mut once), contributed(&mut twice));
    assert_eq!(parameters(&mut once), parameters(&mut twice));
}

/// With so much damping that curvature is nothing, K-FAC's steps are those of gradients: corrections must not be lost on the
/// way that it goes where batches are small.
#[test]
fn corrections_reach_every_form_of_curvature() {
    const DAMPING: f64 = 1e8;
    let rate = 0.1;
    for form in [Form::Inverse, Form::Eigen, Form::Ekfac] {
        for (proximal, variates) in [(1.0, false), (0.0, true)] {
            let kfac = Options { form, damping: DAMPING, clip: None, ..Options::default() };
            let make = |node: u64, kfac: Option<Options>| {
                let rate = if kfac.is_some() { rate * DAMPING } else { rate };
                trainer(node, &options(rate, proximal, variates), 0.0, kfac)
            };
            let [mut plain, mut curved] = [None, Some(kfac)].map(|kfac| [0, 1].map(|node| make(node, kfac.clone())));
            for fleet in [&mut plain, &mut curved] {
                for round in 0..2 {
                    fleet.iter_mut().for_each(|trainer| (0..3).for_each(|_| assert!(trainer.step().is_ok())));
                    if round == 0 {
                        let contributions = fleet.each_mut().map(contributed);
                        let average = mean(&contributions);
                        fleet.iter_mut().for_each(|trainer| trainer.adopt(&average, false));
                    }
                }
            }
            for (own, expected) in parameters(&mut curved[1]).iter().zip(parameters(&mut plain[1])) {
                // The factors are of order one, and so is what they change in a step, over the damping's root.
                assert!((own - expected).abs() < 1e-3, "{form:?}: {own} instead of {expected}");
            }
        }
    }
}
