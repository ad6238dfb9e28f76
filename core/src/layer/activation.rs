//! Element-wise layers: ReLU and tanh.
//!
//! Both take their gradient from the *output*, so that what they were applied to need not be kept.

use super::{Backward, Forward, Layer};
use crate::backend::{Backend, Extent, Map, MapJob};
use crate::matrix::Region;

/// One element-wise operation over a whole activation.
fn job(extent: Extent, batch: usize) -> MapJob {
    let all = Region::vector(0, extent.len() * batch);
    MapJob { x: all, y: all, out: all }
}

/// `y = max(x, 0)`.
#[derive(Clone, Copy, Debug)]
pub struct Relu {
    extent: Extent,
}

impl Relu {
    /// For samples of this extent.
    pub const fn new(extent: Extent) -> Self {
        Self { extent }
    }
}

impl<B: Backend> Layer<B> for Relu {
    fn output(&self) -> Extent {
        self.extent
    }

    fn reads_input(&self) -> bool {
        false
    }

    fn forward(&mut self, pass: &mut Forward<'_, B>, x: &B::Buffer, y: &mut B::Buffer) -> Result<(), B::Error> {
        pass.backend.map(Map::Relu, &[job(self.extent, pass.batch)], Some(x), None, y)
    }

    fn backward(
        &mut self,
        pass: &mut Backward<'_, B>,
        _x: &B::Buffer,
        y: &B::Buffer,
        dy: &B::Buffer,
        dx: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
        let Some(dx) = dx else { return Ok(()) };
        pass.backend.map(Map::ReluGradient, &[job(self.extent, pass.batch)], Some(dy), Some(y), dx)
    }
}

/// `y = tanh x`.
#[derive(Clone, Copy, Debug)]
pub struct Tanh {
    extent: Extent,
}

impl Tanh {
    /// For samples of this extent.
    pub const fn new(extent: Extent) -> Self {
        Self { extent }
    }
}

impl<B: Backend> Layer<B> for Tanh {
    fn output(&self) -> Extent {
        self.extent
    }

    fn reads_input(&self) -> bool {
        false
    }

    fn forward(&mut self, pass: &mut Forward<'_, B>, x: &B::Buffer, y: &mut B::Buffer) -> Result<(), B::Error> {
        pass.backend.map(Map::Tanh, &[job(self.extent, pass.batch)], Some(x), None, y)
    }

    fn backward(
        &mut self,
        pass: &mut Backward<'_, B>,
        _x: &B::Buffer,
        y: &B::Buffer,
        dy: &B::Buffer,
        dx: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
        let Some(dx) = dx else { return Ok(()) };
        pass.backend.map(Map::TanhGradient, &[job(self.extent, pass.batch)], Some(dy), Some(y), dx)
    }
}
