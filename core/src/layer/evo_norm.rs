//! EvoNorm-S0 (Liu et al. 2020, arXiv 2004.02967): normalisation and activation in one, without batch statistics.

use super::{Backward, Forward, Layer};
use crate::backend::{Backend, EvoNorm, Extent};

/// EvoNorm-S0 as a layer; [`EvoNorm`] states equation and layouts.
#[derive(Debug)]
pub struct EvoNormLayer<B: Backend> {
    extent: Extent,
    shape: EvoNorm<B::Scalar>,
    /// Where `[γ; β; v]` starts in the parameters.
    parameters: usize,
}

impl<B: Backend> EvoNormLayer<B> {
    /// A layer whose `[γ; β; v]` start at `parameters` of the flat parameters.
    ///
    /// # Panics
    /// If `extent` and `shape` differ, or the groups do not divide the channels.
    #[track_caller]
    pub fn new(extent: Extent, shape: EvoNorm<B::Scalar>, parameters: usize) -> Self {
        assert_eq!(
            (extent.channels, extent.positions()),
            (shape.channels, shape.positions),
            "channels and pixels of the activation and of the normalisation"
        );
        assert!(
            shape.groups > 0 && shape.channels.is_multiple_of(shape.groups),
            "{} groups of {} channels",
            shape.groups,
            shape.channels
        );
        Self { extent, shape, parameters }
    }
}

impl<B: Backend> Layer<B> for EvoNormLayer<B> {
    fn output(&self) -> Extent {
        self.extent
    }

    /// The gradient needs a place even where nobody asked for it, at the offset of the parameters.
    fn scratch(&self, _backend: &B, _batch: usize) -> usize {
        self.parameters + 3 * self.shape.channels
    }

    fn spares(&self) -> usize {
        1
    }

    fn widest(&self) -> usize {
        self.extent.len()
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn forward(&mut self, pass: &mut Forward<'_, B>, x: &B::Buffer, y: &mut B::Buffer) -> Result<(), B::Error> {
        pass.backend.evo_norm_forward(&self.shape, pass.batch, (pass.parameters, self.parameters), x, y)
    }

    fn backward(
        &mut self,
        pass: &mut Backward<'_, B>,
        x: &B::Buffer,
        _y: &B::Buffer,
        dy: &B::Buffer,
        dx: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
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
        let done = pass.backend.evo_norm_backward(&self.shape, pass.batch, parameters, x, dy, gradient, dx);
        pass.spare.extend(spare);
        done
    }
}
