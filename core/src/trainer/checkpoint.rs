//! A trainer's state in host memory.

use super::{Counts, SharedStep, Trainer, Window, failed, observe};
use crate::backend::{Backend, Buffer as _};
use crate::participant::TrainingError;
use crate::preconditioner::State;
use crate::schedule::Schedule;
use crate::seed::Random;
use alloc::vec::Vec;

/// Everything that decides how training goes on, in host memory, to the bit.
///
/// A trainer that is restored from it makes the steps that the saved one would have made, and a saved one those that
/// it would have made without being saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint<S> {
    /// Steps made.
    pub iteration: u64,
    /// Training samples used.
    pub samples: u64,
    /// The mean loss of the last step and the fraction of right answers in it.
    pub last: (f64, f64),
    /// The flat parameters.
    pub parameters: Vec<S>,
    /// Running statistics of normalisation layers.
    pub running: Vec<S>,
    /// Running values of the Kronecker factors in the layout of the statistics, zeros outside of diagonal blocks, then their
    /// weights; both empty without them.
    pub factors: [Vec<S>; 2],
    /// The optimiser's flat buffers.
    pub optimiser: Vec<Vec<S>>,
    /// Steps of the optimiser.
    pub optimiser_steps: u64,
    /// What the preconditioner goes on with.
    pub preconditioner: State<S>,
    /// The schedules of learning rate and damping, with what they have seen.
    pub schedules: (Schedule, Option<Schedule>),
    /// Losses that the schedules have not seen yet.
    pub window: Window,
    /// The state of the random numbers for the true Fisher.
    pub random: [u64; 4],
    /// Where the stream of batches is.
    pub position: u64,
    /// What corrections of gradients go on with: flat buffers in the layout of the parameters, and what was counted.
    pub drift: (Vec<Vec<S>>, Counts),
    /// Where steps stand that are shared with others, if they are.
    pub shared: Option<SharedStep<S>>,
}

/// How far a trainer has come, of which its device knows nothing.
///
/// A trainer of the same network and options on another device goes on from it, with weights from elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// Steps made.
    pub iteration: u64,
    /// Training samples used.
    pub samples: u64,
    /// The mean loss of the last step that is known and the fraction of right answers in it.
    pub last: (f64, f64),
    /// The schedules of learning rate and damping, with what they have seen.
    pub schedules: (Schedule, Option<Schedule>),
    /// Losses that the schedules have not seen yet.
    pub window: Window,
    /// The state of the random numbers for the true Fisher.
    pub random: [u64; 4],
    /// Where the stream of batches is.
    pub position: u64,
}

impl<B: Backend> Trainer<B> {
    /// How far training has come. Never waits, and works with a device that is lost.
    pub fn course(&self) -> Course {
        let Self { batches, progress, random, options, window, .. } = self;
        Course {
            iteration: progress.iteration,
            samples: progress.samples,
            last: (progress.loss, progress.accuracy),
            schedules: (options.rate.clone(), options.damping.clone()),
            window: *window,
            random: random.state(),
            position: batches.position(),
        }
    }

    /// Goes on where another trainer has come to. Weights, statistics and the optimiser's state stay as they are.
    pub fn follow(&mut self, course: &Course) {
        let Self { batches, progress, random, options, window, .. } = self;
        batches.restore(course.position);
        (options.rate, options.damping) = course.schedules.clone();
        *window = course.window;
        *random = Random::from_state(course.random);
        progress.iteration = course.iteration;
        progress.samples = course.samples;
        (progress.loss, progress.accuracy) = course.last;
    }

    /// Waits for the last step and a copy of the state.
    ///
    /// # Errors
    /// If the device fails, or the last loss is not a number: then the state is not worth keeping, and the next step
    /// fails with the same error. Of steps that are shared the last loss is looked at by the next step alone, since it comes to
    /// nothing if the step does.
    pub fn save(&mut self) -> Result<Checkpoint<B::Scalar>, TrainingError> {
        let step = self.progress.iteration;
        let state = match self.failure.take() {
            Some(failure) => Err(failure),
            None if self.sharing.is_some() => self.copy_state().map_err(|error| failed(step, error)),
            None => self.finish_tickets().and_then(|()| self.copy_state().map_err(|error| failed(step, error))),
        };
        if let Err(error) = &state {
            self.failure = Some(error.clone());
        }
        state
    }

    fn copy_state(&mut self) -> Result<Checkpoint<B::Scalar>, B::Error> {
        let course = self.course();
        let shared = self.save_shared()?;
        let Self { backend, network, preconditioner, optimiser, drift, .. } = self;
        let mut state = Vec::new();
        for buffer in optimiser.state() {
            state.push(backend.fetch(buffer, 0..buffer.len())?);
        }
        let memory = preconditioner.save(backend)?;
        let factors = match preconditioner.factors() {
            Some(factors) => factors.save(backend)?,
            None => [Vec::new(), Vec::new()],
        };
        let drift = match drift {
            Some(drift) => (drift.save(backend)?, drift.counts()),
            None => Default::default(),
        };
        Ok(Checkpoint {
            iteration: course.iteration,
            samples: course.samples,
            last: course.last,
            parameters: backend.fetch(&network.parameters, 0..network.parameters_len())?,
            running: backend.fetch(&network.running, 0..network.running_len())?,
            factors,
            optimiser: state,
            optimiser_steps: optimiser.steps(),
            preconditioner: memory,
            schedules: course.schedules,
            window: course.window,
            random: course.random,
            position: course.position,
            drift,
            shared,
        })
    }

    /// Goes on from a state taken from a trainer of the same network and options.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the lengths do not fit.
    #[track_caller]
    pub fn restore(&mut self, checkpoint: &Checkpoint<B::Scalar>) -> Result<(), B::Error> {
        let Self { backend, network, preconditioner, optimiser, drift, .. } = self;
        let fits = |what: &str, len: usize, own: usize| assert_eq!(len, own, "scalars of {what} in the checkpoint");
        fits("parameters", checkpoint.parameters.len(), network.parameters_len());
        fits("running statistics", checkpoint.running.len(), network.running_len());
        fits("optimiser buffers", checkpoint.optimiser.len(), optimiser.state().len());
        backend.upload(&checkpoint.parameters, &mut network.parameters, 0)?;
        backend.upload(&checkpoint.running, &mut network.running, 0)?;
        for (values, buffer) in checkpoint.optimiser.iter().zip(optimiser.state_mut()) {
            fits("optimiser state", values.len(), buffer.len());
            backend.upload(values, buffer, 0)?;
        }
        if let Some(factors) = preconditioner.factors() {
            factors.restore(backend, &checkpoint.factors)?;
        }
        let (buffers, counts) = &checkpoint.drift;
        fits("corrections", buffers.len(), drift.as_ref().map_or(0, |drift| drift.state().count()));
        if let Some(drift) = drift {
            for (values, buffer) in buffers.iter().zip(drift.state_mut()) {
                fits("a correction", values.len(), buffer.len());
                backend.upload(values, buffer, 0)?;
            }
            drift.resume(*counts);
        }
        (self.loss, self.failure) = (None, None);
        if let Some(prediction) = &mut self.prediction {
            prediction.forget();
        }
        optimiser.resume(checkpoint.optimiser_steps);
        preconditioner.restore(backend, &checkpoint.preconditioner)?;
        // The work may be divided otherwise now.
        observe(network, &mut **preconditioner);
        if let Some(shared) = &checkpoint.shared {
            self.restore_shared(shared)?;
        }
        self.follow(&Course {
            iteration: checkpoint.iteration,
            samples: checkpoint.samples,
            last: checkpoint.last,
            schedules: checkpoint.schedules.clone(),
            window: checkpoint.window,
            random: checkpoint.random,
            position: checkpoint.position,
        });
        Ok(())
    }
}
