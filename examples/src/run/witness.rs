//! A trainer whose contributions can be looked at, so that averages are recomputed from them.

use super::survivor::Survivor;
use kronfleet_core::cluster::Contribution;
use kronfleet_core::participant::{Summary, Training, TrainingError};
use kronfleet_core::placement::Letters;
use kronfleet_core::policy::Request;
use std::ops::Range;

/// A trainer that keeps a copy of what it last contributed until somebody takes it.
pub struct Witness {
    /// The trainer.
    pub trainer: Survivor,
    contributed: Option<Contribution<f32>>,
}

impl Witness {
    /// Watches this trainer.
    pub fn new(trainer: Survivor) -> Self {
        Self { trainer, contributed: None }
    }

    /// What was contributed since the last call.
    pub fn take(&mut self) -> Option<Contribution<f32>> {
        self.contributed.take()
    }
}

impl Training<f32> for Witness {
    fn iteration(&self) -> u64 {
        self.trainer.iteration()
    }

    fn step(&mut self) -> Result<Summary, TrainingError> {
        self.trainer.step()
    }

    fn step_while(&mut self, goes_on: &mut dyn FnMut(f64) -> bool, whole: bool) -> Result<Summary, TrainingError> {
        self.trainer.step_while(goes_on, whole)
    }

    fn layers(&self) -> Vec<Range<usize>> {
        self.trainer.layers()
    }

    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<f32>) {
        self.trainer.contribute(request, contribution);
    }

    fn contributed(&mut self, contribution: &Contribution<f32>) {
        self.contributed = Some(contribution.clone());
    }

    fn show(&mut self, contribution: &mut Contribution<f32>) {
        // What is only looked at is part of no average.
        self.trainer.show(contribution);
    }

    fn adopt(&mut self, average: &Contribution<f32>, healed: bool) {
        self.trainer.adopt(average, healed);
    }

    fn take_replaced(&mut self) -> bool {
        self.trainer.take_replaced()
    }

    fn is_shared(&self) -> bool {
        self.trainer.is_shared()
    }

    fn letters(&mut self) -> Option<Letters<f32>> {
        Training::letters(&mut self.trainer)
    }

    fn answer(&mut self, letters: Letters<f32>) {
        Training::answer(&mut self.trainer, letters);
    }

    fn give_up(&mut self) {
        Training::give_up(&mut self.trainer);
    }

    fn retract(&mut self) {
        Training::retract(&mut self.trainer);
    }

    fn divide(&mut self, members: usize, me: usize, iteration: u64) {
        Training::divide(&mut self.trainer, members, me, iteration);
    }
}
