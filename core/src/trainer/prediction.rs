//! What the quadratic model predicts of a step, beside what the step has changed.

use super::TrainerOptions;
use crate::backend::{Backend, Map, MapJob};
use crate::layer::Mode;
use crate::matrix::Region;
use crate::network::Network;
use crate::preconditioner::{LevenbergMarquardt, Model, Preconditioner};
use crate::scalar::Scalar;

/// Memory for reading the quadratic model.
pub(super) struct Prediction<B: Backend> {
    rule: LevenbergMarquardt,
    before: B::Buffer,
    change: B::Buffer,
    running: B::Buffer,
    /// [`Model`], then the loss after and before.
    reading: B::Buffer,
    ticket: Option<B::Download>,
}

/// Places in [`Prediction::reading`].
const AFTER: usize = Model::LEN;
const BEFORE: usize = Model::LEN + 1;
const READING: usize = Model::LEN + 2;

impl<B: Backend> Prediction<B> {
    pub(super) fn new(backend: &mut B, rule: LevenbergMarquardt, network: &Network<B>) -> Result<Self, B::Error> {
        let len = network.parameters_len();
        Ok(Self {
            rule,
            before: backend.allocate(len)?,
            change: backend.allocate(len)?,
            running: backend.allocate(network.running_len())?,
            reading: backend.allocate(READING)?,
            ticket: None,
        })
    }

    /// Whether the model is read at a step.
    pub(super) fn reads(&self, step: u64) -> bool {
        self.rule.reads(step)
    }

    /// Keeps what the quadratic model is compared with, before the step.
    pub(super) fn keep(&mut self, backend: &mut B, network: &Network<B>) -> Result<(), B::Error> {
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        let copy = Map::Axpby(one, zero);
        let all = Region::vector(0, network.parameters_len());
        let running = Region::vector(0, network.running_len());
        let loss = [MapJob::unary(Region::vector(0, 1), Region::vector(BEFORE, 1))];
        backend.axpby(one, &network.parameters, zero, &mut self.before, all)?;
        backend.axpby(one, &network.running, zero, &mut self.running, running)?;
        backend.map(copy, &loss, Some(network.loss_value()), None, &mut self.reading)
    }

    /// Takes the model's prediction and the loss after the step, on the last batch; `accumulated` is the mean gradient of
    /// several micro-batches.
    pub(super) fn take(
        &mut self,
        backend: &mut B,
        network: &mut Network<B>,
        preconditioner: &mut dyn Preconditioner<B>,
        accumulated: Option<&B::Buffer>,
        options: &TrainerOptions,
    ) -> Result<(), B::Error> {
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        let all = Region::vector(0, network.parameters_len());
        let difference = Map::Sum(one, B::Scalar::of(-1.0));
        let jobs = [MapJob::unary(all, all)];
        backend.map(difference, &jobs, Some(&network.parameters), Some(&self.before), &mut self.change)?;
        let gradient = accumulated.unwrap_or(&network.gradient);
        if !preconditioner.model(backend, gradient, &self.change, &mut self.reading)? {
            return Ok(());
        }
        network.forward(backend, options.batch, Mode::Train, None)?;
        network.loss(backend, options.batch, options.smoothing)?;
        // The extra pass must not count for normalisation.
        let running = Region::vector(0, network.running_len());
        backend.axpby(one, &self.running, zero, &mut network.running, running)?;
        let loss = [MapJob::unary(Region::vector(0, 1), Region::vector(AFTER, 1))];
        backend.map(Map::Axpby(one, zero), &loss, Some(network.loss_value()), None, &mut self.reading)?;
        self.ticket = Some(backend.download(&self.reading, 0..READING)?);
        Ok(())
    }

    /// What was taken is of no interest any more.
    pub(super) fn forget(&mut self) {
        self.ticket = None;
    }

    /// The damping after what was last taken, if anything was. Waits for the device.
    pub(super) fn damping(&mut self, backend: &mut B, damping: f64) -> Result<Option<f64>, B::Error> {
        let Some(ticket) = self.ticket.take() else { return Ok(None) };
        let mut values = [B::Scalar::of(0.0); READING];
        backend.finish(ticket, &mut values)?;
        let predicted = Model::read(&values).change(damping);
        let change = values[AFTER].wide() - values[BEFORE].wide();
        Ok(Some(self.rule.damping(damping, change, predicted)))
    }
}
