//! How a network does on examples.

use super::{Examples, Trainer, failed};
use crate::backend::Backend;
use crate::layer::Mode;
use crate::matrix::Region;
use crate::participant::TrainingError;
use crate::scalar::Scalar;

/// How a network does on examples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Examples seen.
    pub examples: usize,
    /// Mean loss over them, without smoothing.
    pub loss: f64,
    /// Fraction answered right.
    pub accuracy: f64,
}

impl<B: Backend> Trainer<B> {
    /// Waits for the answers of the network, in evaluation mode, to all `examples`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn evaluate(&mut self, examples: &dyn Examples<B::Scalar>) -> Result<Evaluation, TrainingError> {
        let step = self.progress.iteration;
        self.try_evaluate(examples).map_err(|error| failed(step, error))
    }

    fn try_evaluate(&mut self, examples: &dyn Examples<B::Scalar>) -> Result<Evaluation, B::Error> {
        let s = B::Scalar::of;
        let count = examples.len();
        let (loss, right) = (Region::vector(0, 1), Region::vector(1, 1));
        let both = Region::vector(0, 2);
        let Self { backend, network, totals, x, labels, .. } = self;
        let sample = network.input_extent().len();
        // Batches as in training: memory and caches are made for them.
        let batch = labels.len();
        backend.fill(s(0.0), both, totals)?;
        for first in (0..count).step_by(batch) {
            let size = batch.min(count - first);
            let (x, labels) = (&mut x[..size * sample], &mut labels[..size]);
            examples.read(first, x, labels);
            network.load(backend, x, labels)?;
            network.forward(backend, size, Mode::Evaluate, None)?;
            network.loss(backend, size, 0.0)?;
            let share = s(size as f64 / count as f64);
            backend.axpby(share, network.loss_value(), s(1.0), totals, loss)?;
            backend.axpby(s(1.0), network.loss_value(), s(1.0), totals, right)?;
        }
        let values = backend.fetch(totals, 0..2)?;
        let accuracy = values[1].wide() / count.max(1) as f64;
        Ok(Evaluation { examples: count, loss: values[0].wide(), accuracy })
    }
}
