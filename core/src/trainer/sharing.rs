//! Steps that are shared: begun, interrupted wherever others are needed, gone on with, taken back.
//!
//! Nothing but the batch and its statistics is spent by a step that is given up: parameters and the optimiser's state change
//! only once all letters of the step are answered. What they were before is kept for one step more, as the last letters may
//! have reached one member and not another.

use super::{Loss, Trainer, failed, observe};
use crate::backend::{Backend, Buffer as _};
use crate::matrix::Region;
use crate::mutant::mutant;
use crate::optimiser::Optimiser;
use crate::participant::{Summary, TrainingError};
use crate::placement::Letters;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// Where a trainer stands that shares its steps, in host memory; where the preconditioner stands is
/// [its own](crate::preconditioner::SharedPart) to say.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SharedStep<S> {
    /// What was before the last step, if it can be taken back.
    pub before: Option<BeforeStep<S>>,
    /// Letters that are to be exchanged.
    pub letters: Option<Letters<S>>,
    /// Letters that have been.
    pub answers: Option<Letters<S>>,
    /// Of which step loss and right answers are known that were not taken in yet.
    pub loss: Option<(u64, [S; 2])>,
}

/// What a step changes, as it was before, in host memory.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BeforeStep<S> {
    /// Steps made.
    pub iteration: u64,
    /// The flat parameters.
    pub parameters: Vec<S>,
    /// The optimiser's flat buffers.
    pub optimiser: Vec<Vec<S>>,
}

/// How far a shared step has come.
pub(super) struct Sharing<B: Backend> {
    /// To be exchanged.
    letters: Option<Letters<B::Scalar>>,
    /// That have been.
    answers: Option<Letters<B::Scalar>>,
    before: Before<B>,
}

/// What the last step changed, as it was before.
struct Before<B: Backend> {
    parameters: B::Buffer,
    optimiser: Vec<B::Buffer>,
    /// The iteration, if there is one to go back to.
    iteration: Option<u64>,
}

impl<B: Backend> Sharing<B> {
    pub(super) fn new(backend: &mut B, parameters: usize, optimiser: &dyn Optimiser<B>) -> Result<Self, B::Error> {
        let state = optimiser.state().iter().map(|buffer| backend.allocate(buffer.len()));
        let optimiser = state.collect::<Result<Vec<_>, _>>()?;
        let before = Before { parameters: backend.allocate(parameters)?, optimiser, iteration: None };
        Ok(Self { letters: None, answers: None, before })
    }
}

impl<B: Backend> Before<B> {
    /// Copies parameters and state into this, or back.
    fn copy(
        &mut self,
        backend: &mut B,
        parameters: &mut B::Buffer,
        optimiser: &mut dyn Optimiser<B>,
        back: bool,
    ) -> Result<(), B::Error> {
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        let mut copy = |here: &mut B::Buffer, there: &mut B::Buffer| {
            let all = Region::vector(0, here.len());
            let (from, to) = if back { (here, there) } else { (there, here) };
            backend.axpby(one, from, zero, to, all)
        };
        copy(&mut self.parameters, parameters)?;
        self.optimiser.iter_mut().zip(optimiser.state_mut()).try_for_each(|(here, there)| copy(here, there))
    }
}

impl<B: Backend> Trainer<B> {
    /// Makes the next part of a step: up to the next letters, or to its end.
    pub(super) fn share(&mut self) -> Result<Summary, TrainingError> {
        let step = self.progress.iteration;
        let answers = self.sharing.as_mut().and_then(|sharing| sharing.answers.take());
        if answers.is_none() {
            self.finish_tickets()?;
            self.passes(step, None).map_err(|error| failed(step, error))?;
        }
        if self.advance(step, answers).map_err(|error| failed(step, error))? {
            return Ok(Summary { samples: 0, loss: self.progress.loss, missing: 0 });
        }
        let samples = (self.options.batch * self.options.micro_batches) as u64;
        self.progress.iteration += 1;
        self.progress.samples += samples;
        if step == 0 {
            self.finish_tickets()?;
        }
        Ok(Summary { samples, loss: self.progress.loss, missing: 0 })
    }

    /// Answers whether there are letters to be exchanged.
    fn advance(&mut self, step: u64, answers: Option<Letters<B::Scalar>>) -> Result<bool, B::Error> {
        let Self { backend, network, preconditioner, optimiser, options, accumulated, direction, sharing, .. } = self;
        let Some(sharing) = sharing else { return Ok(false) };
        let rate = options.rate.value(step);
        let gradient = (accumulated.as_ref().unwrap_or(&network.gradient), options.micro_batches);
        sharing.letters = preconditioner.share(backend, rate, gradient, answers, direction)?;
        if sharing.letters.is_some() {
            return Ok(true);
        }
        sharing.before.copy(backend, &mut network.parameters, &mut **optimiser, false)?;
        sharing.before.iteration = Some(step);
        optimiser.step(backend, rate, direction, &mut network.parameters)?;
        Ok(false)
    }

    /// Waits for a copy of where steps stand, if they are shared.
    pub(super) fn save_shared(&mut self) -> Result<Option<SharedStep<B::Scalar>>, B::Error> {
        let Self { backend, sharing, loss, .. } = self;
        let Some(Sharing { letters, answers, before }) = sharing else { return Ok(None) };
        let mut known = None;
        if let Some((of, pending)) = loss.take() {
            let values = pending.read(backend)?;
            known = Some((of, values));
            *loss = Some((of, Loss::Known(values)));
        }
        let mut fetch = |buffer: &B::Buffer| backend.fetch(buffer, 0..buffer.len());
        let before = match before.iteration {
            None => None,
            Some(iteration) => Some(BeforeStep {
                iteration,
                parameters: fetch(&before.parameters)?,
                optimiser: before.optimiser.iter().map(fetch).collect::<Result<_, _>>()?,
            }),
        };
        Ok(Some(SharedStep { before, letters: letters.clone(), answers: answers.clone(), loss: known }))
    }

    /// Goes on where steps stood; nothing if they are not shared.
    ///
    /// # Panics
    /// If a length does not fit.
    #[track_caller]
    pub(super) fn restore_shared(&mut self, state: &SharedStep<B::Scalar>) -> Result<(), B::Error> {
        let Self { backend, sharing, loss, .. } = self;
        let Some(Sharing { letters, answers, before }) = sharing else { return Ok(()) };
        (*letters, *answers) = (state.letters.clone(), state.answers.clone());
        *loss = state.loss.map(|(of, values)| (of, Loss::Known(values)));
        before.iteration = None;
        if let Some(BeforeStep { iteration, parameters, optimiser }) = &state.before
            && !mutant!(RetractionForgotten)
        {
            before.iteration = Some(*iteration);
            assert_eq!(optimiser.len(), before.optimiser.len(), "optimiser buffers before the last step");
            let buffers = core::iter::once(&mut before.parameters).chain(&mut before.optimiser);
            for (values, buffer) in core::iter::once(parameters).chain(optimiser).zip(buffers) {
                assert_eq!(values.len(), buffer.len(), "scalars from before the last step");
                backend.upload(values, buffer, 0)?;
            }
        }
        Ok(())
    }

    pub(super) fn letters(&mut self) -> Option<Letters<B::Scalar>> {
        self.sharing.as_mut()?.letters.take()
    }

    pub(super) fn answer(&mut self, letters: Letters<B::Scalar>) {
        if let Some(sharing) = &mut self.sharing {
            sharing.answers = Some(letters);
        }
    }

    /// Gives up the step under way.
    pub(super) fn give_up(&mut self) {
        if let Some(sharing) = &mut self.sharing {
            (sharing.letters, sharing.answers) = (None, None);
            self.preconditioner.give_up();
            self.loss = None;
        }
    }

    /// Goes back to before the last step, if that is known.
    pub(super) fn retract(&mut self) -> Result<(), B::Error> {
        self.give_up();
        let Self { backend, network, preconditioner, optimiser, sharing, progress, options, .. } = self;
        let Some(Sharing { before, .. }) = sharing else { return Ok(()) };
        let Some(iteration) = before.iteration.take() else { return Ok(()) };
        before.copy(backend, &mut network.parameters, &mut **optimiser, true)?;
        optimiser.resume(optimiser.steps().saturating_sub(1));
        progress.samples -= (progress.iteration - iteration) * (options.batch * options.micro_batches) as u64;
        progress.iteration = iteration;
        preconditioner.resume(iteration);
        Ok(())
    }

    /// Divides the work anew; steps go on from `iteration`.
    pub(super) fn divide(&mut self, members: usize, me: usize, iteration: u64) -> Result<(), B::Error> {
        self.give_up();
        let Self { backend, network, preconditioner, optimiser, sharing, progress, .. } = self;
        if let Some(sharing) = sharing {
            sharing.before.iteration = None;
        }
        progress.iteration = iteration;
        optimiser.resume(iteration);
        preconditioner.resume(iteration);
        preconditioner.join(backend, members, me)?;
        observe(network, &mut **preconditioner);
        Ok(())
    }
}
