//! Maximum, mean and global mean pooling.

use super::{Backward, Forward, Layer};
use crate::backend::{Backend, Extent, Pool, Pooling};

/// Pooling as a layer; [`Pooling`] states the geometry.
#[derive(Clone, Copy, Debug)]
pub struct PoolingLayer {
    shape: Pooling,
}

impl PoolingLayer {
    /// A layer that pools these windows.
    pub const fn new(shape: Pooling) -> Self {
        Self { shape }
    }
}

impl<B: Backend> Layer<B> for PoolingLayer {
    fn output(&self) -> Extent {
        self.shape.windows.output
    }

    /// A maximum is searched for again; a mean needs nothing but the geometry.
    fn reads_input(&self) -> bool {
        self.shape.pool == Pool::Maximum
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn forward(&mut self, pass: &mut Forward<'_, B>, x: &B::Buffer, y: &mut B::Buffer) -> Result<(), B::Error> {
        pass.backend.pool_forward(&self.shape, pass.batch, x, y)
    }

    fn backward(
        &mut self,
        pass: &mut Backward<'_, B>,
        x: &B::Buffer,
        _y: &B::Buffer,
        dy: &B::Buffer,
        dx: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
        let Some(dx) = dx else { return Ok(()) };
        pass.backend.pool_backward(&self.shape, pass.batch, x, dy, dx)
    }
}
