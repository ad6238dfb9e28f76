//! A trainer whose contributions can be looked at, so that averages are recomputed from them.

use kronfleet_core::backend::Backend;
use kronfleet_core::cluster::Contribution;
use kronfleet_core::participant::{Summary, Training, TrainingError};
use kronfleet_core::policy::Request;
use kronfleet_core::trainer::Trainer;

/// A trainer that keeps a copy of what it last contributed until somebody takes it.
pub struct Witness<B: Backend> {
    /// The trainer.
    pub trainer: Trainer<B>,
    contributed: Option<Contribution<B::Scalar>>,
}

impl<B: Backend> Witness<B> {
    /// Watches this trainer.
    pub fn new(trainer: Trainer<B>) -> Self {
        Self { trainer, contributed: None }
    }

    /// What was contributed since the last call.
    pub fn take(&mut self) -> Option<Contribution<B::Scalar>> {
        self.contributed.take()
    }
}

impl<B> Training<B::Scalar> for Witness<B>
where
    B: Backend<Buffer: Send, Download: Send> + Send,
{
    fn iteration(&self) -> u64 {
        self.trainer.iteration()
    }

    fn step(&mut self) -> Result<Summary, TrainingError> {
        self.trainer.step()
    }

    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<B::Scalar>) {
        self.trainer.contribute(request, contribution);
        self.contributed = Some(contribution.clone());
    }

    fn show(&mut self, contribution: &mut Contribution<B::Scalar>) {
        // What is only looked at is part of no average.
        self.trainer.show(contribution);
    }

    fn adopt(&mut self, average: &Contribution<B::Scalar>, healed: bool) {
        self.trainer.adopt(average, healed);
    }
}
