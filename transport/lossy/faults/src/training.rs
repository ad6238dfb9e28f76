//! A model so small that a whole fleet of them costs next to nothing, and what it contributes.

use crate::schedule::{Policy, Run, Sickness};
use kronfleet_core::cluster::wire::reduced_piece;
use kronfleet_core::cluster::{Attempt, Contribution};
use kronfleet_core::compress::Code;
use kronfleet_core::participant::{Summary, Training, TrainingError};
use kronfleet_core::policy::Request;
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Iterations after which training is over; no run makes as many, but every run is told to be over.
pub(crate) const ITERATIONS: u64 = 1 << 40;

/// Iterations from one part's turn to the next one's.
const TURN: u64 = 8;

/// Of how many parts of the model nodes contribute one at a time: one or, in every second run that tells differences at
/// intervals, two.
fn parts(run: &Run) -> usize {
    let tells = run.told != Code::All && run.policy == Policy::Periodic && run.values > 1;
    1 + usize::from(tells && Seed(run.seed).derive("turns", 0).random().below(2) == 0)
}

/// What the segment of a part is called.
fn name(number: usize, parts: usize) -> String {
    if parts == 1 { String::from("parameters") } else { format!("parameters/{number}") }
}

/// The parts of so many values.
fn ranges(len: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |number| number * len / parts..(number + 1) * len / parts)
}

/// Whether what is contributed has the shape of what a model of such a run contributes.
pub(crate) fn fits(run: &Run, contribution: &Contribution<f32>) -> bool {
    ranges(run.values as usize, parts(run)).enumerate().all(|(number, range)| {
        contribution.find(&name(number, parts(run))).is_none_or(|segment| segment.values.len() == range.len())
    })
}

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
    /// Parts that take turns.
    parts: usize,
    iteration: u64,
    mood: Arc<Mutex<Mood>>,
    witness: Witness,
}

impl Quadratic {
    pub(crate) fn new(run: &Run, node: NodeId, mood: Arc<Mutex<Mood>>, witness: Witness) -> Self {
        let mut random = Seed(run.seed).derive("target", node.0.into()).random();
        let target: Vec<f32> = (0..run.values).map(|_| random.normal() as f32).collect();
        Self { node, x: vec![0.0; target.len()], target, parts: parts(run), iteration: 0, mood, witness }
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
        let turn = (self.iteration / TURN) as usize % self.parts;
        for (number, range) in ranges(len, self.parts).enumerate() {
            let weight = if number == turn { request.weight * weight } else { 0.0 };
            let values = contribution.segment(&name(number, self.parts), range.len(), weight);
            values.fill(0.0);
            let there = range.start..range.end.min(self.x.len());
            values[..there.len()].copy_from_slice(&self.x[there]);
            match sickness {
                Some(Sickness::Nan) => values[0] = f32::NAN,
                Some(Sickness::Infinite) => values[0] = f32::INFINITY,
                Some(Sickness::Shape) | None => {}
            }
        }
        // A segment that only nodes of even names know anything about.
        let knows = self.node.0.is_multiple_of(2);
        contribution.segment("extra", 2, f64::from(u8::from(knows))).fill(self.node.0 as f32);
    }

    /// What is wrong with contributions is not wrong with the model.
    fn show(&mut self, contribution: &mut Contribution<f32>) {
        contribution.segment(&name(0, 1), self.x.len(), 1.0).copy_from_slice(&self.x);
    }

    fn contributed(&mut self, contribution: &Contribution<f32>) {
        self.witness.saw(self.node, contribution);
    }

    fn adopt(&mut self, average: &Contribution<f32>, healed: bool) {
        for (number, range) in ranges(self.x.len(), self.parts).enumerate() {
            let segment = average.find(&name(number, self.parts));
            if let Some(segment) = segment.filter(|segment| segment.weight > 0.0) {
                let len = range.len();
                self.x[range].copy_from_slice(&segment.values[..len]);
            }
        }
        if healed {
            self.iteration = average.iteration;
        }
    }
}
