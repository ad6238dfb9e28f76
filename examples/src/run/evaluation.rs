//! The averaged model and the nodes' own models, judged at the same iterations.

use anyhow::Result;
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
#[derive(Clone, Copy, Debug, PartialEq)]
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
    every: u64,
    last: u64,
    pending: BTreeMap<u64, BTreeMap<u32, Model>>,
    /// The averaged model's accuracy so far.
    pub averaged: Vec<Point>,
    /// Each node's own accuracy at the last iteration.
    pub own: BTreeMap<u32, f64>,
    /// The averaged parameters and running statistics last judged.
    pub model: Option<Model>,
}

/// A model as numbers, laid out as its network's flat buffers.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// All parameters.
    pub parameters: Vec<f32>,
    /// All running statistics.
    pub running: Vec<f32>,
}

impl<J: Judge> Evaluator<J> {
    /// Judges every so many iterations and after the last.
    pub fn new(judge: J, nodes: u32, every: u64, last: u64) -> Self {
        Self {
            judge,
            nodes: nodes as usize,
            every,
            last,
            pending: BTreeMap::new(),
            averaged: Vec::new(),
            own: BTreeMap::new(),
            model: None,
        }
    }

    /// Whether a node's model is wanted at this iteration.
    pub fn wants(&self, iteration: u64) -> bool {
        iteration == self.last || iteration.is_multiple_of(self.every)
    }

    /// Takes a node's model at an iteration; answers the evaluation that this completes.
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
        if iteration == self.last {
            self.own.insert(node, self.judge.accuracy(&parameters, &running)?);
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
        let parameters = mean(models.values().map(|model| model.parameters.as_slice()));
        let running = mean(models.values().map(|model| model.running.as_slice()));
        let point = Point { iteration, accuracy: self.judge.accuracy(&parameters, &running)? };
        self.averaged.push(point);
        self.model = Some(Model { parameters, running });
        Ok(Some(point))
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
        let mut evaluator = Evaluator::new(First, 2, 10, 25);
        assert!(evaluator.wants(10) && evaluator.wants(25) && !evaluator.wants(24));
        assert_eq!(evaluator.take(0, 10, vec![0.5], vec![])?, None);
        assert_eq!(evaluator.take(1, 10, vec![1.0], vec![])?, Some(Point { iteration: 10, accuracy: 0.75 }));
        assert_eq!(evaluator.reached(0.7), Some(10));
        assert_eq!(evaluator.reached(0.8), None);
        Ok(())
    }
}
