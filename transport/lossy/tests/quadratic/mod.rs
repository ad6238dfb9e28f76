//! A toy to train, and what it contributes.

use kronfleet_core::cluster::Contribution;
use kronfleet_core::participant::{Summary, Training, TrainingError};
use kronfleet_core::policy::Request;
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;
use std::sync::{Arc, Mutex};

/// Minimises ½‖x − target‖² with a target of the node's own; the fleet's mean is the common optimum.
pub(crate) struct Quadratic {
    pub node: NodeId,
    pub x: Vec<f32>,
    pub target: Vec<f32>,
    pub iteration: u64,
    pub weight: f64,
    /// The iteration in which its values are not finite.
    pub poisoned: Option<u64>,
    pub witness: Witness,
}

/// What was contributed since the checker last asked.
pub(crate) type Witness = Arc<Mutex<Vec<(NodeId, Contribution<f32>)>>>;

impl Quadratic {
    /// Of `values` values, with a target that the seed decides.
    pub(crate) fn new(seed: u64, node: NodeId, values: usize, poisoned: Option<u64>, witness: Witness) -> Self {
        let mut random = Seed(seed).derive("target", node.0.into()).random();
        Self {
            node,
            x: vec![0.0; values],
            target: (0..values).map(|_| random.normal() as f32).collect(),
            iteration: 0,
            weight: 1.0 + f64::from(node.0 % 3),
            poisoned,
            witness,
        }
    }
}

impl Training<f32> for Quadratic {
    fn iteration(&self) -> u64 {
        self.iteration
    }

    fn step(&mut self) -> Result<Summary, TrainingError> {
        self.iteration += 1;
        for (x, target) in self.x.iter_mut().zip(&self.target) {
            *x += 0.1 * (target - *x);
        }
        let squares = self.x.iter().zip(&self.target).map(|(x, target)| f64::from(x - target).powi(2));
        Ok(Summary { samples: 3, loss: squares.sum::<f64>() / 2.0, missing: 0 })
    }

    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<f32>) {
        let values = contribution.segment("x", self.x.len(), request.weight * self.weight);
        values.copy_from_slice(&self.x);
        if self.poisoned.is_some_and(|at| at.abs_diff(self.iteration) < 6) {
            values[0] = f32::NAN;
        }
        // A segment that only nodes of even names know anything about.
        let knows = self.node.0.is_multiple_of(2);
        contribution.segment("extra", 2, f64::from(u8::from(knows))).fill(self.node.0 as f32);
        self.witness.lock().unwrap().push((self.node, contribution.clone()));
    }

    fn adopt(&mut self, average: &Contribution<f32>, healed: bool) {
        self.x.copy_from_slice(&average.find("x").unwrap().values);
        if healed {
            self.iteration = average.iteration;
        }
    }
}
