//! Batch normalisation (Ioffe & Szegedy 2015).

use super::{Backward, Forward, Layer, Mode};
use crate::backend::{Backend, BatchNorm, Extent};

/// Batch normalisation as a layer; [`BatchNorm`] states equation and layouts.
#[derive(Debug)]
pub struct BatchNormLayer<B: Backend> {
    extent: Extent,
    shape: BatchNorm<B::Scalar>,
    /// Where `[γ; β]` starts in the parameters.
    parameters: usize,
    /// Where `[mean; var]` starts in the running statistics.
    running: usize,
    /// `[mean; 1/√(var + ε)]` of the last training pass.
    saved: Option<B::Buffer>,
}

impl<B: Backend> BatchNormLayer<B> {
    /// A layer whose `[γ; β]` start at `parameters` of the flat parameters and whose `[mean; var]` start at `running`
    /// of the running statistics.
    ///
    /// # Panics
    /// If `extent` and `shape` differ in channels.
    #[track_caller]
    pub fn new(extent: Extent, shape: BatchNorm<B::Scalar>, parameters: usize, running: usize) -> Self {
        assert_eq!(extent.channels, shape.channels, "channels of the activation and of the normalisation");
        Self { extent, shape, parameters, running, saved: None }
    }
}

impl<B: Backend> Layer<B> for BatchNormLayer<B> {
    fn output(&self) -> Extent {
        self.extent
    }

    /// The gradient needs a place even where nobody asked for it, at the offset of the parameters.
    fn scratch(&self, _backend: &B, _batch: usize) -> usize {
        self.parameters + 2 * self.shape.channels
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn reserve(&mut self, backend: &mut B, _batch: usize) -> Result<(), B::Error> {
        self.saved = Some(backend.allocate(2 * self.shape.channels)?);
        Ok(())
    }

    fn forward(&mut self, pass: &mut Forward<'_, B>, x: &B::Buffer, y: &mut B::Buffer) -> Result<(), B::Error> {
        let columns = pass.batch * self.extent.positions();
        let parameters = (pass.parameters, self.parameters);
        match pass.mode {
            Mode::Train => {
                let saved = self.saved.as_mut().expect("reserve comes before forward");
                let running = (&mut *pass.running, self.running);
                pass.backend.batch_norm_forward(&self.shape, columns, parameters, x, y, saved, running)
            }
            Mode::Evaluate => {
                let running = (&*pass.running, self.running);
                pass.backend.batch_norm_evaluate(&self.shape, columns, parameters, running, x, y)
            }
        }
    }

    fn backward(
        &mut self,
        pass: &mut Backward<'_, B>,
        x: &B::Buffer,
        _y: &B::Buffer,
        dy: &B::Buffer,
        dx: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
        let columns = pass.batch * self.extent.positions();
        let saved = self.saved.as_ref().expect("reserve comes before backward");
        let parameters = (pass.parameters, self.parameters);
        let mut spare = None;
        let dx = match dx {
            Some(dx) => dx,
            // Only where the network starts with a normalisation.
            None => spare.insert(pass.spare.pop().expect("a spare buffer for an input's gradient")),
        };
        let gradient = match &mut pass.gradient {
            Some(gradient) => &mut **gradient,
            None => &mut *pass.scratch,
        };
        let done = pass.backend.batch_norm_backward(&self.shape, columns, parameters, x, saved, dy, gradient, dx);
        pass.spare.extend(spare);
        done
    }

    fn spares(&self) -> usize {
        1
    }

    fn widest(&self) -> usize {
        self.extent.len()
    }
}
