//! Two-dimensional convolution, with Kronecker statistics in their exact form (Grosse & Martens 2016).

use super::{Backward, Block, Capture, CaptureKind, Forward, Layer};
use crate::backend::{Backend, Convolution, Extent, Gemm, Outer, Statistic};
use crate::matrix::Region;
use crate::scalar::Scalar;

/// A convolution as a layer: `y = [W | b] · patches(x)`; [`Convolution`] states the geometry.
///
/// Statistics per batch of `N` samples with `S` output positions: `Ω = (1/N) Σ_{n,t} a aᵀ` over the patches `a` (a 1
/// appended for the bias), `Γ = (1/NS) Σ_{n,t} D Dᵀ` over `D = N·dy`.
#[derive(Clone, Debug)]
pub struct ConvolutionLayer {
    shape: Convolution,
    block: Block,
    number: usize,
    observed: bool,
}

impl ConvolutionLayer {
    /// A layer of this shape whose parameters and statistics lie where `block`, number `number` of the network, says.
    ///
    /// # Panics
    /// If the block's regions do not fit the shape.
    #[track_caller]
    pub fn new(shape: Convolution, block: Block, number: usize) -> Self {
        let (rows, columns) = (block.parameters.rows, block.parameters.columns);
        assert_eq!((rows, columns), (shape.output.channels, shape.patch_rows()), "weights of {}", block.name);
        assert_eq!((block.a.rows, block.g.rows), (columns, rows), "statistics of {}", block.name);
        Self { shape, block, number, observed: true }
    }

    /// `Γ` and `dx` alone: what the true Fisher's second pass asks for, without the product for the gradient.
    fn backward_without_gradient<B: Backend>(
        &self,
        pass: &mut Backward<'_, B>,
        dy: &B::Buffer,
        dx: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
        let shape = &self.shape;
        let one = B::Scalar::of(1.0);
        if let (Some(target), true) = (&mut pass.statistics, self.observed) {
            let all = Region::matrix(0, shape.output.channels, pass.batch * shape.output.positions());
            let alpha = output_scale(pass.batch, self.block.positions);
            let job = Outer { alpha, x: all, beta: one, c: self.block.g };
            pass.backend.symmetric_product(&[job], dy, target)?;
        }
        let Some(dx) = dx else { return Ok(()) };
        let kernel = self.block.parameters.block(0, 0, shape.output.channels, shape.patch_len());
        let tile = pass.backend.tile(shape, pass.batch).max(1);
        for first in (0..pass.batch).step_by(tile) {
            let samples = first..(first + tile).min(pass.batch);
            let columns = samples.len() * shape.output.positions();
            let cotangent = Region::matrix(first * shape.output.len(), shape.output.channels, columns);
            let patches = Region::matrix(0, shape.patch_len(), columns);
            let product = Gemm::product(kernel.transposed(), cotangent, patches);
            pass.backend.gemm(&[product], pass.parameters, dy, pass.scratch)?;
            pass.backend.fold(shape, samples, pass.scratch, dx)?;
        }
        Ok(())
    }
}

/// With `dy` the gradient of the mean loss and `D = N·dy`: `D Dᵀ/(N·S) = (N/S)·dy dyᵀ`.
pub(super) fn output_scale<S: Scalar>(batch: usize, positions: usize) -> S {
    S::of(batch as f64 / positions.max(1) as f64)
}

impl<B: Backend> Layer<B> for ConvolutionLayer {
    fn output(&self) -> Extent {
        self.shape.output
    }

    fn scratch(&self, backend: &B, batch: usize) -> usize {
        // The pass without gradient makes patches here, even on a backend that has room of its own for them.
        let tile = backend.tile(&self.shape, batch).max(1);
        let patches = self.shape.patch_len() * self.shape.output.positions() * tile;
        backend.convolution_scratch(&self.shape, batch).max(patches)
    }

    fn reads_output(&self) -> bool {
        false
    }

    fn observe(&mut self, block: usize, wanted: bool) {
        if block == self.number {
            self.observed = wanted;
        }
    }

    fn lay(&mut self, block: usize, places: [Region; 2]) {
        if block == self.number {
            [self.block.a, self.block.g] = places;
        }
    }

    fn forward(&mut self, pass: &mut Forward<'_, B>, x: &B::Buffer, y: &mut B::Buffer) -> Result<(), B::Error> {
        let statistic = pass.statistics.as_deref_mut().filter(|_| self.observed).map(|target| Statistic {
            target,
            region: self.block.a,
            scale: B::Scalar::of(1.0 / pass.batch.max(1) as f64),
        });
        let weights = (pass.parameters, self.block.parameters);
        pass.backend.convolution_forward(&self.shape, pass.batch, weights, x, y, statistic, pass.scratch)?;
        pass.entered(self.number)
    }

    fn backward(
        &mut self,
        pass: &mut Backward<'_, B>,
        x: &B::Buffer,
        _y: &B::Buffer,
        dy: &B::Buffer,
        dx: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
        if let (Some(observer), true) = (&mut pass.observer, self.observed) {
            let capture = Capture { x, dy, kind: CaptureKind::Convolution(self.shape) };
            observer.observe(pass.backend, self.number, pass.batch, &capture)?;
        }
        let Some(gradient) = pass.gradient.as_deref_mut() else {
            return self.backward_without_gradient(pass, dy, dx);
        };
        let statistic = pass.statistics.as_deref_mut().filter(|_| self.observed).map(|target| Statistic {
            target,
            region: self.block.g,
            scale: output_scale(pass.batch, self.block.positions),
        });
        let weights = (pass.parameters, self.block.parameters);
        pass.backend.convolution_backward(
            &self.shape,
            pass.batch,
            weights,
            x,
            dy,
            gradient,
            dx,
            statistic,
            pass.scratch,
        )?;
        pass.passed(self.number)
    }
}
