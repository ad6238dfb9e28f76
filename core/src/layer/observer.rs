//! Looking at what passes through a block.

use crate::backend::{Backend, Convolution};

/// What the passes over one batch have at one block.
pub struct Capture<'a, B: Backend> {
    /// The block's inputs of the last forward pass, without a row of ones for the bias.
    pub x: &'a B::Buffer,
    /// The gradients with respect to its outputs, of the *mean* loss, from the last backward pass.
    pub dy: &'a B::Buffer,
    /// How both are to be read.
    pub kind: CaptureKind,
}

/// What kind of layer a [`Capture`] is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureKind {
    /// `x: inputs × N`, `dy: outputs × N`.
    Dense {
        /// Rows of `x`.
        inputs: usize,
        /// Rows of `dy`.
        outputs: usize,
        /// Whether the block's last column is a bias.
        bias: bool,
    },
    /// Activations as [`Backend::convolution_forward`] has them.
    Convolution(Convolution),
}

/// Sees inputs and output gradients of every block during a backward pass, for statistics of single examples.
pub trait Observer<B: Backend> {
    /// Looks at block `block` for a batch of `batch` samples. Neither allocates in the long run nor waits.
    ///
    /// # Errors
    /// If the device fails.
    fn observe(
        &mut self,
        backend: &mut B,
        block: usize,
        batch: usize,
        capture: &Capture<'_, B>,
    ) -> Result<(), B::Error>;

    /// Looks at the statistics of its inputs that block `block` has added, observed or not; blocks come in the order of the
    /// forward pass. Not called by a pass without statistics.
    ///
    /// # Errors
    /// If the device fails.
    fn entered(&mut self, backend: &mut B, block: usize, statistics: &B::Buffer) -> Result<(), B::Error> {
        let _ = (backend, block, statistics);
        Ok(())
    }

    /// Looks at what block `block` has written, observed or not, once its gradient is there and, where they were wanted, its
    /// statistics; blocks come in the order of the backward pass. Not called by a pass without gradient.
    ///
    /// # Errors
    /// If the device fails.
    fn passed(
        &mut self,
        backend: &mut B,
        block: usize,
        gradient: &B::Buffer,
        statistics: Option<&B::Buffer>,
    ) -> Result<(), B::Error> {
        let _ = (backend, block, gradient, statistics);
        Ok(())
    }

    /// Whether the pass is to end with the block that was [`passed`](Self::passed) last: no gradient is made then of the blocks
    /// before it.
    fn has_enough(&self) -> bool {
        false
    }
}
