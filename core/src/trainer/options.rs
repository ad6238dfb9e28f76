//! What a trainer is told.

use crate::preconditioner::LevenbergMarquardt;
use crate::schedule::Schedule;
use crate::seed::Seed;

/// The knobs of a [`Trainer`](super::Trainer).
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerOptions {
    /// Samples of one pass.
    pub batch: usize,
    /// Passes of one step: their gradients and statistics are averaged.
    pub micro_batches: usize,
    /// Label smoothing.
    pub smoothing: f64,
    /// The learning rate.
    pub rate: Schedule,
    /// The damping, where it is to change by plan; `None` leaves it to the preconditioner.
    pub damping: Option<Schedule>,
    /// The damping, where it is to change by how well the quadratic model predicts.
    pub adaptive: Option<LevenbergMarquardt>,
    /// Steps whose mean loss is one observation for the schedules (a plateau looks at it); 0 leaves observing to
    /// [`Trainer::observe`](super::Trainer::observe).
    pub observe_every: u64,
    /// Whence labels are drawn for the true Fisher.
    pub seed: Seed,
    /// μ of `FedProx` (arXiv 1812.06127): gradients are those of the loss and `μ/2 ‖w − w_t‖²`, `w_t` being the model that was
    /// last taken over from others. 0 leaves it out; not for steps that are shared.
    pub proximal: f64,
    /// SCAFFOLD (arXiv 1910.06378): gradients are corrected by what those of all differ from the node's own. Twice the
    /// values travel; not for steps that are shared.
    pub variates: bool,
}

impl TrainerOptions {
    /// Batches of `batch` samples at a constant learning rate.
    pub const fn new(batch: usize, rate: f64) -> Self {
        Self {
            batch,
            micro_batches: 1,
            smoothing: 0.0,
            rate: Schedule::constant(rate),
            damping: None,
            adaptive: None,
            observe_every: 10,
            seed: Seed(0),
            proximal: 0.0,
            variates: false,
        }
    }
}
