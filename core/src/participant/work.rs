//! Steps that a participant hands out to whoever computes.

use super::layers::{self, Limit};
use super::{Participant, State, Summary, Training, TrainingError};
use crate::policy::PolicyInput;
use crate::process::{Task, Work};
use crate::scalar::Scalar;
use crate::time::{Duration, Instant};

impl<T: Training<S> + 'static, S: Scalar> Work for Participant<T, S> {
    type Task = Step<T>;

    fn begin(&mut self) -> Option<(Duration, Step<T>)> {
        if self.state != State::Training || !self.may_step() {
            return None;
        }
        let takes = if self.is_midway() { Duration::ZERO } else { self.schedule.step };
        let (takes, limit) = self.limit(takes);
        let training = self.training.take()?;
        Some((takes, Step { training, make: layers::make, limit, result: None }))
    }

    fn complete(&mut self, now: Instant, step: Step<T>) {
        let Step { training, result, .. } = step;
        let iteration = training.iteration();
        self.training = Some(training);
        match result {
            Some(Ok(_)) if self.state == State::Training && self.exchange() => self.settle(now),
            Some(Ok(summary)) => {
                self.iteration = iteration;
                self.last = Some(summary);
                self.node.count_samples(summary.samples);
                self.notice_replacement(now);
                if self.state == State::Training {
                    let input = PolicyInput::Stepped { iteration, summary: &summary };
                    self.policy.handle(now, input);
                    self.settle(now);
                }
            }
            Some(Err(error)) => {
                self.failure = Some(error);
                self.leave(now);
            }
            None => {}
        }
    }
}

/// One training step, on its way through whoever computes it; it owns the training meanwhile.
#[derive(Debug)]
pub struct Step<T> {
    pub(super) training: T,
    make: fn(&mut T, Option<&Limit>) -> Result<Summary, TrainingError>,
    limit: Option<Limit>,
    result: Option<Result<Summary, TrainingError>>,
}

impl<T> Step<T> {
    /// A step that goes on from a checkpoint: made already if there is a `result`, which then came with `training`.
    pub fn resume<S: Scalar>(training: T, result: Option<Result<Summary, TrainingError>>) -> Self
    where
        T: Training<S>,
    {
        Self { training, make: layers::make, limit: None, result }
    }

    /// The training, to be saved.
    pub fn training_mut(&mut self) -> &mut T {
        &mut self.training
    }

    /// What the step gave, once it is made.
    pub fn result(&self) -> Option<&Result<Summary, TrainingError>> {
        self.result.as_ref()
    }
}

impl<T: Send + 'static> Task for Step<T> {
    fn perform(&mut self) {
        if self.result.is_none() {
            self.result = Some((self.make)(&mut self.training, self.limit.as_ref()));
        }
    }
}
