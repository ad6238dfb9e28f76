//! The averaged model and the nodes' own models, judged at the same iterations.

use crate::settings::OutputSettings;
use anyhow::Result;
use kronfleet_core::cluster::{Digest, Digester};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Something that says how good a model is.
pub trait Judge {
    /// The share of test images that the model with these parameters and running statistics names correctly.
    ///
    /// # Errors
    /// If the device fails.
    fn accuracy(&mut self, parameters: &[f32], running: &[f32]) -> Result<f64>;
}

/// One evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The iteration at which every node's model was taken.
    pub iteration: u64,
    /// Test accuracy.
    pub accuracy: f64,
}

/// Averages the models of all nodes, online or not, at equal iterations, and judges the average.
///
/// A node that reaches an iteration late is waited for. What is judged is not judged again, when a node that was set back
/// passes an iteration twice.
pub struct Evaluator<J> {
    judge: J,
    nodes: usize,
    agenda: Agenda,
    pending: BTreeMap<u64, BTreeMap<u32, Model>>,
    pending_own: BTreeMap<u64, BTreeMap<u32, f64>>,
    /// The averaged model's accuracy so far.
    pub averaged: Vec<Point>,
    /// The mean accuracy of the nodes' own models so far.
    pub own_mean: Vec<Point>,
    /// Each node's own accuracy at the last iteration.
    pub own: BTreeMap<u32, f64>,
    /// The averaged parameters and running statistics last judged.
    pub model: Option<Model>,
}

/// At which iterations models are judged; after the last they always are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agenda {
    /// The averaged model: every so many iterations.
    pub every: u64,
    /// The nodes' own models: every so many iterations.
    pub own_every: Option<u64>,
    /// Once a curve has reached this accuracy, it goes on with every [`SPARSE`](Self::SPARSE)th of its points.
    pub sparse_from: Option<f64>,
    /// The last iteration.
    pub last: u64,
}

impl Agenda {
    /// One in so many points is left once the target is reached.
    pub const SPARSE: u64 = 5;

    /// What these settings say of a run with so many iterations.
    pub fn of(output: &OutputSettings, last: u64) -> Self {
        Self {
            every: output.evaluate_every,
            own_every: output.evaluate_own_every,
            sparse_from: output.evaluate_sparsely.then_some(output.target_accuracy),
            last,
        }
    }

    /// Whether a node's model may be wanted at this iteration, as far as is known without the curves.
    pub fn may_want(&self, iteration: u64) -> bool {
        let has = |every| self.has(iteration, every, &[]);
        has(self.every) || self.own_every.is_some_and(has)
    }

    fn has(&self, iteration: u64, every: u64, curve: &[Point]) -> bool {
        let reached = |target: f64| curve.iter().any(|point| point.accuracy >= target);
        let step = if self.sparse_from.is_some_and(reached) { every.saturating_mul(Self::SPARSE) } else { every };
        iteration == self.last || iteration.is_multiple_of(step)
    }
}

/// What an [`Evaluator`] goes on with, its judge apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvaluatorState {
    pending: BTreeMap<u64, BTreeMap<u32, Model>>,
    pending_own: BTreeMap<u64, BTreeMap<u32, f64>>,
    averaged: Vec<Point>,
    own_mean: Vec<Point>,
    own: BTreeMap<u32, f64>,
    model: Option<Model>,
}

/// A model as numbers, laid out as its network's flat buffers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// All parameters.
    pub parameters: Vec<f32>,
    /// All running statistics.
    pub running: Vec<f32>,
}

impl Model {
    /// A digest of the bits of all parameters, by which the members of a commit are compared.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::new();
        digester.update_values(&self.parameters);
        digester.finish()
    }
}

impl<J: Judge> Evaluator<J> {
    /// Judges the models of `nodes` nodes.
    pub fn new(judge: J, nodes: u32, agenda: Agenda) -> Self {
        Self {
            judge,
            nodes: nodes as usize,
            agenda,
            pending: BTreeMap::new(),
            pending_own: BTreeMap::new(),
            averaged: Vec::new(),
            own_mean: Vec::new(),
            own: BTreeMap::new(),
            model: None,
        }
    }

    /// What it goes on with.
    pub fn state(&self) -> EvaluatorState {
        EvaluatorState {
            pending: self.pending.clone(),
            pending_own: self.pending_own.clone(),
            averaged: self.averaged.clone(),
            own_mean: self.own_mean.clone(),
            own: self.own.clone(),
            model: self.model.clone(),
        }
    }

    /// Goes on with what another one with as many nodes has left.
    pub fn resume(&mut self, state: EvaluatorState) {
        let EvaluatorState { pending, pending_own, averaged, own_mean, own, model } = state;
        (self.pending, self.pending_own) = (pending, pending_own);
        (self.averaged, self.own_mean, self.own, self.model) = (averaged, own_mean, own, model);
    }

    /// Whether a node's model is wanted at this iteration.
    pub fn wants(&self, iteration: u64) -> bool {
        self.agenda.has(iteration, self.agenda.every, &self.averaged) || self.wants_own(iteration)
    }

    fn wants_own(&self, iteration: u64) -> bool {
        iteration == self.agenda.last
            || self.agenda.own_every.is_some_and(|every| self.agenda.has(iteration, every, &self.own_mean))
    }

    /// Takes a node's model at an iteration; answers the evaluation of the average that this completes.
    ///
    /// # Errors
    /// If the device fails.
    pub fn take(
        &mut self,
        node: u32,
        iteration: u64,
        parameters: Vec<f32>,
        running: Vec<f32>,
    ) -> Result<Option<Point>> {
        if self.wants_own(iteration) {
            let accuracy = self.judge.accuracy(&parameters, &running)?;
            self.take_own(node, iteration, accuracy);
        }
        if self.averaged.iter().any(|point| point.iteration == iteration) {
            return Ok(None);
        }
        let models = self.pending.entry(iteration).or_default();
        models.insert(node, Model { parameters, running });
        if models.len() < self.nodes {
            return Ok(None);
        }
        let models = self.pending.remove(&iteration).expect("just filled");
        if !self.agenda.has(iteration, self.agenda.every, &self.averaged) {
            return Ok(None);
        }
        let parameters = mean(models.values().map(|model| model.parameters.as_slice()));
        let running = mean(models.values().map(|model| model.running.as_slice()));
        let point = Point { iteration, accuracy: self.judge.accuracy(&parameters, &running)? };
        self.averaged.push(point);
        self.model = Some(Model { parameters, running });
        Ok(Some(point))
    }

    fn take_own(&mut self, node: u32, iteration: u64, accuracy: f64) {
        if iteration == self.agenda.last {
            self.own.insert(node, accuracy);
        }
        if self.own_mean.iter().any(|point| point.iteration == iteration) {
            return;
        }
        let own = self.pending_own.entry(iteration).or_default();
        own.insert(node, accuracy);
        if own.len() == self.nodes {
            let accuracy = own.values().sum::<f64>() / own.len() as f64;
            self.pending_own.remove(&iteration);
            self.own_mean.push(Point { iteration, accuracy });
        }
    }

    /// The first evaluated iteration at which the averaged model reached `target`.
    pub fn reached(&self, target: f64) -> Option<u64> {
        self.averaged.iter().find(|point| point.accuracy >= target).map(|point| point.iteration)
    }
}

fn mean<'a>(models: impl ExactSizeIterator<Item = &'a [f32]>) -> Vec<f32> {
    let count = models.len() as f64;
    let mut sum: Vec<f64> = Vec::new();
    for model in models {
        sum.resize(model.len(), 0.0);
        for (sum, &value) in sum.iter_mut().zip(model) {
            *sum += f64::from(value);
        }
    }
    sum.into_iter().map(|sum| (sum / count) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct First;

    impl Judge for First {
        fn accuracy(&mut self, parameters: &[f32], _: &[f32]) -> Result<f64> {
            Ok(f64::from(parameters[0]))
        }
    }

    #[test]
    fn the_average_is_judged_when_everyone_is_there() -> Result<()> {
        let agenda = Agenda { every: 10, own_every: None, sparse_from: None, last: 25 };
        let mut evaluator = Evaluator::new(First, 2, agenda);
        assert!(evaluator.wants(10) && evaluator.wants(25) && !evaluator.wants(24));
        assert_eq!(evaluator.take(0, 10, vec![0.5], vec![])?, None);
        assert_eq!(evaluator.take(1, 10, vec![1.0], vec![])?, Some(Point { iteration: 10, accuracy: 0.75 }));
        assert_eq!(evaluator.reached(0.7), Some(10));
        assert_eq!(evaluator.reached(0.8), None);
        assert!(evaluator.own_mean.is_empty() && evaluator.own.is_empty());
        Ok(())
    }

    #[test]
    fn own_models_are_judged_beside_it_and_fewer_points_follow_the_target() -> Result<()> {
        let agenda = Agenda { every: 5, own_every: Some(10), sparse_from: Some(0.79), last: 57 };
        let mut evaluator = Evaluator::new(First, 2, agenda);
        for iteration in 1..=57 {
            if evaluator.wants(iteration) {
                let low = iteration as f32 / 50.0;
                evaluator.take(0, iteration, vec![low], vec![])?;
                evaluator.take(1, iteration, vec![low + 0.2], vec![])?;
            }
        }
        let iterations = |points: &[Point]| points.iter().map(|point| point.iteration).collect::<Vec<_>>();
        assert_eq!(iterations(&evaluator.averaged), [5, 10, 15, 20, 25, 30, 35, 50, 57]);
        assert_eq!(iterations(&evaluator.own_mean), [10, 20, 30, 40, 50, 57]);
        assert!((evaluator.own_mean[0].accuracy - 0.3).abs() < 1e-6);
        assert_eq!(evaluator.own.len(), 2);
        Ok(())
    }
}
