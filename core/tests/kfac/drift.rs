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
use kronfleet_core::trainer::{Trainer, TrainerOptions};
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

/// A fleet in which in every round some are missing does what the papers say.
fn as_published(case: &Case, strength: f64) -> Result<(), TestCaseError> {
    let options = options(case.rate, case.proximal, case.variates);
    let make = |node: usize| trainer(node as u64, &options, case.momentum, None);
    let mut fleet: Vec<Trainer<Device>> = (0..case.nodes).map(make).collect();
    let mut nodes: Vec<Node> = (0..case.nodes as u64).map(Node::new).collect();
    let mut random = Seed(case.seed).random();
    for round in 0..4 {
        for (trainer, node) in fleet.iter_mut().zip(&mut nodes) {
            for _ in 0..=random.below(3) {
                trainer.step().expect("finite losses");
                node.step(case, strength);
            }
        }
        // All at first, so that everybody has a mean of its own.
        let there: Vec<usize> =
            (0..case.nodes).filter(|node| round == 0 || *node == 0 || random.below(3) > 0).collect();
        let offers: Vec<Vec<f64>> = there.iter().map(|&node| nodes[node].offer(case)).collect();
        let mean_of = |all: &[&Vec<f64>]| -> Vec<f64> {
            (0..all[0].len()).map(|at| all.iter().map(|of| of[at]).sum::<f64>() / all.len() as f64).collect()
        };
        let common = mean_of(&offers.iter().collect::<Vec<_>>());
        let model = mean_of(&there.iter().map(|&node| &nodes[node].model).collect::<Vec<_>>());
        for (&node, offer) in there.iter().zip(offers) {
            let node = &mut nodes[node];
            (node.model, node.anchor, node.steps) = (model.clone(), model.clone(), 0);
            node.variates = [offer, common.clone()];
            node.gradients.fill(0.0);
        }
        let contributions: Vec<_> = there.iter().map(|&node| contributed(&mut fleet[node])).collect();
        let average = mean(&contributions);
        there.iter().for_each(|&node| fleet[node].adopt(&average, false));
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
        as_published(&case, 1.0)?;
    }
}

#[test]
fn corrections_of_another_strength_are_noticed() {
    let case = Case { nodes: 3, rate: 0.1, momentum: 0.0, proximal: 0.1, variates: false, interrupted: false, seed: 1 };
    for case in [case, Case { proximal: 0.0, variates: true, ..case }] {
        assert!(as_published(&case, 1.0).is_ok());
        assert!(as_published(&case, -1.0).is_err() && as_published(&case, 0.0).is_err());
    }
}

/// The corrections that a trainer makes, and its own mean gradient.
fn variates(trainer: &mut Trainer<Device>) -> [Vec<f64>; 2] {
    let saved = trainer.save().expect("memory");
    let [correction, own, ..] = &saved.drift.0[..] else { panic!("no variates in {:?}", saved.drift) };
    [correction.clone(), own.clone()]
}

#[test]
fn corrections_of_who_was_in_a_round_add_up_to_nothing_whoever_is_lost() {
    let mut fleet: Vec<_> = (0..4).map(|node| trainer(node, &options(0.1, 0.0, true), 0.9, None)).collect();
    for there in [0..4, 0..3, 1..3] {
        let mut contributions = Vec::new();
        for trainer in &mut fleet[there.clone()] {
            trainer.step().expect("finite losses");
            contributions.push(contributed(trainer));
        }
        let average = mean(&contributions);
        let mut sums = vec![[0.0; 2]; average.segments()[0].values.len()];
        for trainer in &mut fleet[there.clone()] {
            trainer.adopt(&average, false);
            let [corrections, own] = variates(trainer);
            assert!(corrections.iter().any(|correction| *correction != 0.0));
            for (sum, (correction, own)) in sums.iter_mut().zip(corrections.iter().zip(&own)) {
                (sum[0], sum[1]) = (sum[0] + correction, sum[1] + own);
            }
        }
        for ([sum, own], common) in sums.into_iter().zip(&average.find("variate").expect("it travels").values) {
            // Rounding of some values of order one.
            assert!(sum.abs() < 1e-13 && (own / there.len() as f64 - common).abs() < 1e-13, "{sum}, {own}, {common}");
        }
    }
}

#[test]
fn a_node_that_is_healed_keeps_its_own_mean_gradient() {
    let mut fleet: Vec<_> = (0..3).map(|node| trainer(node, &options(0.1, 0.0, true), 0.0, None)).collect();
    fleet.iter_mut().for_each(|trainer| assert!(trainer.step().is_ok()));
    let first: Vec<_> = fleet.iter_mut().map(contributed).collect();
    let average = mean(&first);
    fleet.iter_mut().for_each(|trainer| trainer.adopt(&average, false));
    let own = variates(&mut fleet[2])[1].clone();
    // The others go on; it makes steps that come to nothing, and is healed.
    fleet.iter_mut().for_each(|trainer| assert!(trainer.step().is_ok()));
    let second: Vec<_> = fleet[..2].iter_mut().map(contributed).collect();
    let state = mean(&second);
    fleet[2].adopt(&state, true);
    let [correction, kept] = variates(&mut fleet[2]);
    assert_eq!(kept, own);
    let common = &state.find("variate").expect("it travels").values;
    for ((correction, common), own) in correction.iter().zip(common).zip(&own) {
        assert_eq!(*correction, common - own);
    }
    // What it says next is of the steps since then alone.
    fleet[2].step().expect("finite losses");
    assert_eq!(fleet[2].save().expect("memory").drift.0[2], contributed(&mut fleet[2]).find("variate").unwrap().values);

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
