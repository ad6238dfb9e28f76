//! No preconditioning: plain gradient descent.

use super::{Captures, Preconditioner, Report, State, Taps};
use crate::backend::{Backend, Buffer as _};
use crate::matrix::Region;
use crate::scalar::Scalar;

/// The direction is the gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    steps: u64,
}

impl<B: Backend> Preconditioner<B> for Identity {
    fn begin(&mut self, _: &mut B) -> Result<(), B::Error> {
        Ok(())
    }

    fn taps(&mut self) -> Option<Taps<'_, B>> {
        None
    }

    fn update(&mut self, _: &mut B, _: usize) -> Result<(), B::Error> {
        Ok(())
    }

    fn precondition(
        &mut self,
        backend: &mut B,
        _: f64,
        gradient: &B::Buffer,
        _: Option<&dyn Captures<B>>,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let all = Region::vector(0, gradient.len());
        backend.axpby(B::Scalar::of(1.0), gradient, B::Scalar::of(0.0), direction, all)?;
        self.steps += 1;
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn resume(&mut self, steps: u64) {
        self.steps = steps;
    }

    fn report(&self) -> Report {
        Report { clip: 1.0, ..Report::default() }
    }

    fn save(&mut self, _: &mut B) -> Result<State<B::Scalar>, B::Error> {
        Ok(State::plain(self.steps, Preconditioner::<B>::report(self)))
    }

    fn restore(&mut self, _: &mut B, state: &State<B::Scalar>) -> Result<(), B::Error> {
        self.steps = state.steps;
        Ok(())
    }
}
