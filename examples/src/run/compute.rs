//! A node's trainer, whatever computes.

use super::evaluation::Model;
use crate::checkpoint::Layers;
use kronfleet_core::backend::Backend;
use kronfleet_core::error::Error;
use kronfleet_core::layer::Block;
use kronfleet_core::participant::{Training, TrainingError};
use kronfleet_core::preconditioner::Report;
use kronfleet_core::trainer::{Checkpoint, Course, Progress, Trainer};

/// A node's trainer: the seam above which no backend has a type, so that the nodes of a fleet may differ in it and one
/// may change it on the way.
pub trait Compute: Training<f32> {
    /// Waits for a copy of the model.
    ///
    /// # Errors
    /// If the device fails.
    fn model(&mut self) -> Result<Model, TrainingError>;

    /// Waits until all that was asked for is done, and reads the last step's loss.
    ///
    /// # Errors
    /// As a step's.
    fn settle(&mut self) -> Result<Progress, TrainingError>;

    /// What its preconditioner has done.
    fn report(&self) -> Report;

    /// Waits for a copy of its state; says where numbers lie in it, too.
    ///
    /// # Errors
    /// As [`Trainer::save`].
    fn save(&mut self) -> Result<(Layers, Checkpoint<f32>), TrainingError>;

    /// Goes on from a state taken from a trainer of the same network and options.
    ///
    /// # Errors
    /// If the device fails.
    fn restore(&mut self, state: &Checkpoint<f32>) -> Result<(), TrainingError>;

    /// How far it has come. Never waits.
    fn course(&self) -> Course;

    /// Goes on where another one has come to, with its own weights.
    fn follow(&mut self, course: &Course);

    /// What went wrong where nothing could be returned; the next step fails with it.
    fn failure(&self) -> Option<&TrainingError>;
}

impl<B> Compute for Trainer<B>
where
    B: Backend<Scalar = f32, Buffer: Send, Download: Send> + Send,
{
    fn model(&mut self) -> Result<Model, TrainingError> {
        let iteration = self.course().iteration;
        let (backend, network) = self.parts();
        let mut fetch = |buffer: &B::Buffer, len: usize| backend.fetch(buffer, 0..len).map_err(failed(iteration));
        let parameters = fetch(&network.parameters, network.parameters_len())?;
        let running = fetch(&network.running, network.running_len())?;
        Ok(Model { parameters, running })
    }

    fn settle(&mut self) -> Result<Progress, TrainingError> {
        Trainer::settle(self)
    }

    fn report(&self) -> Report {
        Trainer::report(self)
    }

    fn save(&mut self) -> Result<(Layers, Checkpoint<f32>), TrainingError> {
        let state = Trainer::save(self)?;
        let (_, preconditioner) = self.preconditioner();
        let factored = preconditioner.factors().is_some();
        let names: Vec<String> = preconditioner.blocks().iter().map(|block| block.name.clone()).collect();
        let (_, network) = self.parts();
        // In their places among all statistics, of which a member that shares its steps need not have all.
        let blocks = network.blocks().iter().filter(|block| names.contains(&block.name));
        let blocks: Vec<Block> = blocks.cloned().collect();
        Ok((Layers::new(network, &blocks, factored), state))
    }

    fn restore(&mut self, state: &Checkpoint<f32>) -> Result<(), TrainingError> {
        Trainer::restore(self, state).map_err(failed(state.iteration))
    }

    fn course(&self) -> Course {
        Trainer::course(self)
    }

    fn follow(&mut self, course: &Course) {
        Trainer::follow(self, course);
    }

    fn failure(&self) -> Option<&TrainingError> {
        Trainer::failure(self)
    }
}

fn failed<E: Error>(iteration: u64) -> impl FnOnce(E) -> TrainingError {
    move |error| TrainingError { kind: error.kind(), reason: format!("after {iteration} iterations: {error}") }
}
