//! A model so small that a whole fleet of them costs next to nothing, and what it contributes.

use crate::schedule::Sickness;
use kronfleet_core::cluster::wire::reduced_piece;
use kronfleet_core::cluster::{Attempt, Contribution};
use kronfleet_core::participant::{Summary, Training, TrainingError};
use kronfleet_core::policy::Request;
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;
use std::sync::{Arc, Mutex, PoisonError};

/// Iterations after which training is over; no run makes as many, but every run is told to be over.
pub(crate) const ITERATIONS: u64 = 1 << 40;

/// What nodes did since it was last asked.
#[derive(Clone, Default)]
pub(crate) struct Witness(Arc<Mutex<Seen>>);

#[derive(Default)]
pub(crate) struct Seen {
    /// What was contributed, and by whom.
    pub(crate) contributions: Vec<(NodeId, Contribution<f32>)>,
    /// Which piece of which attempt somebody sent to others as its owner.
    pub(crate) owners: Vec<(Attempt, u32, NodeId)>,
}

impl Witness {
    fn saw(&self, node: NodeId, contribution: &Contribution<f32>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.contributions.push((node, contribution.clone()));
    }

    /// Takes note that `node` sends this frame.
    pub(crate) fn sends(&self, node: NodeId, frame: &[u8]) {
        if let Some((attempt, piece)) = reduced_piece(frame) {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            seen.owners.push((attempt, piece, node));
        }
    }

    /// Takes everything seen so far.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a machine tells its training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mood {
    /// What is wrong with the next contribution.
    pub(crate) sickness: Option<Sickness>,
    /// Whether the run has gone on for long enough.
    pub(crate) enough: bool,
}

/// Minimises ½‖x − target‖² with a target of the node's own.
#[derive(Clone)]
pub(crate) struct Quadratic {
    node: NodeId,
    x: Vec<f32>,
    target: Vec<f32>,
    iteration: u64,
    mood: Arc<Mutex<Mood>>,
    witness: Witness,
}

impl Quadratic {
    pub(crate) fn new(seed: u64, node: NodeId, values: u32, mood: Arc<Mutex<Mood>>, witness: Witness) -> Self {
        let mut random = Seed(seed).derive("target", node.0.into()).random();
        let target: Vec<f32> = (0..values).map(|_| random.normal() as f32).collect();
        Self { node, x: vec![0.0; target.len()], target, iteration: 0, mood, witness }
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Training<f32> for Quadratic {
    fn iteration(&self) -> u64 {
        self.iteration
    }

    fn step(&mut self) -> Result<Summary, TrainingError> {
        self.iteration = if self.mood().enough { ITERATIONS } else { self.iteration + 1 };
        for (x, target) in self.x.iter_mut().zip(&self.target) {
            *x += 0.1 * (target - *x);
        }
        let squares = self.x.iter().zip(&self.target).map(|(x, target)| f64::from(x - target).powi(2));
        Ok(Summary { samples: 3, loss: squares.sum::<f64>() / 2.0, missing: 0 })
    }

    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<f32>) {
        let sickness = self.mood().sickness;
        let len = self.x.len() + usize::from(sickness == Some(Sickness::Shape));
        let weight = 1.0 + f64::from(self.node.0 % 3);
        let values = contribution.segment("parameters", len, request.weight * weight);
        values.fill(0.0);
        values[..self.x.len()].copy_from_slice(&self.x);
        match sickness {
            Some(Sickness::Nan) => values[0] = f32::NAN,
            Some(Sickness::Infinite) => values[0] = f32::INFINITY,
            Some(Sickness::Shape) | None => {}
        }
        // A segment that only nodes of even names know anything about.
        let knows = self.node.0.is_multiple_of(2);
        contribution.segment("extra", 2, f64::from(u8::from(knows))).fill(self.node.0 as f32);
        self.witness.saw(self.node, contribution);
    }

    fn adopt(&mut self, average: &Contribution<f32>, healed: bool) {
        if let Some(segment) = average.find("parameters") {
            let len = self.x.len();
            self.x.copy_from_slice(&segment.values[..len]);
        }
        if healed {
            self.iteration = average.iteration;
        }
    }
}
