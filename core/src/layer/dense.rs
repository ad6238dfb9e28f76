//! Fully connected layers.

use super::convolution::output_scale;
use super::{Backward, Block, Capture, CaptureKind, Forward, Layer};
use crate::backend::{Backend, Extent, Gemm, Map, MapJob, Outer, ReduceJob};
use crate::matrix::Region;
use crate::scalar::Scalar;

/// `y = W x + b`, with `[W | b]` stored as one `out × (in + 1)` matrix.
///
/// Statistics per batch of `N` samples: `Ω = (1/N) Σ a aᵀ` with `a = [x; 1]`, `Γ = (1/N) Σ D Dᵀ` with `D = N·dy`.
#[derive(Debug)]
pub struct Dense<B: Backend> {
    block: Block,
    number: usize,
    inputs: usize,
    bias: bool,
    observed: bool,
    /// A 1 in device memory: what the bias's own entry of `Ω` grows by.
    one: Option<B::Buffer>,
}

impl<B: Backend> Dense<B> {
    /// A layer whose parameters and statistics lie where `block`, number `number` of the network, says; with `bias`
    /// the last column of the parameters is one.
    ///
    /// # Panics
    /// If the block's regions do not fit each other.
    #[track_caller]
    pub fn new(block: Block, number: usize, bias: bool) -> Self {
        let (rows, columns) = (block.parameters.rows, block.parameters.columns);
        assert_eq!((block.a.rows, block.g.rows), (columns, rows), "statistics of {}", block.name);
        assert!(columns >= usize::from(bias), "a bias needs a column in {}", block.name);
        Self { block, number, inputs: columns - usize::from(bias), bias, observed: true, one: None }
    }

    fn outputs(&self) -> usize {
        self.block.parameters.rows
    }

    fn weights(&self) -> Region {
        self.block.parameters.block(0, 0, self.outputs(), self.inputs)
    }

    fn observe_input(&self, pass: &mut Forward<'_, B>, x: &B::Buffer) -> Result<(), B::Error> {
        let (Some(target), true) = (&mut pass.statistics, self.observed) else { return Ok(()) };
        let one = B::Scalar::of(1.0);
        let alpha = B::Scalar::of(1.0 / pass.batch.max(1) as f64);
        let input = Region::matrix(0, self.inputs, pass.batch);
        let a = self.block.a;
        let inner = Outer { alpha, x: input, beta: one, c: a.block(0, 0, self.inputs, self.inputs) };
        pass.backend.symmetric_product(&[inner], x, target)?;
        if !self.bias {
            return Ok(());
        }
        let row = a.block(self.inputs, 0, 1, self.inputs).transposed();
        let column = a.block(0, self.inputs, self.inputs, 1);
        let sums = [row, column].map(|out| ReduceJob { alpha, x: input, y: input, beta: one, out });
        pass.backend.reduce(&sums, x, None, target)?;
        let corner = a.block(self.inputs, self.inputs, 1, 1);
        let source = self.one.as_ref().expect("reserve comes before forward");
        let job = MapJob { x: Region::vector(0, 1), y: Region::vector(0, 1), out: corner };
        pass.backend.map(Map::Axpby(one, one), &[job], Some(source), None, target)
    }
}

impl<B: Backend> Layer<B> for Dense<B> {
    fn output(&self) -> Extent {
        Extent::flat(self.outputs())
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

    fn reserve(&mut self, backend: &mut B, _batch: usize) -> Result<(), B::Error> {
        if self.bias {
            let mut one = backend.allocate(1)?;
            backend.fill(B::Scalar::of(1.0), Region::vector(0, 1), &mut one)?;
            self.one = Some(one);
        }
        Ok(())
    }

    fn forward(&mut self, pass: &mut Forward<'_, B>, x: &B::Buffer, y: &mut B::Buffer) -> Result<(), B::Error> {
        let input = Region::matrix(0, self.inputs, pass.batch);
        let output = Region::matrix(0, self.outputs(), pass.batch);
        let product = Gemm::product(self.weights(), input, output);
        pass.backend.gemm(&[product], pass.parameters, x, y)?;
        if self.bias {
            let one = B::Scalar::of(1.0);
            let offset = self.block.parameters.index(0, self.inputs);
            let bias = Region::repeated_column(offset, self.outputs(), pass.batch);
            let job = MapJob { x: bias, y: bias, out: output };
            pass.backend.map(Map::Axpby(one, one), &[job], Some(pass.parameters), None, y)?;
        }
        self.observe_input(pass, x)?;
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
        let input = Region::matrix(0, self.inputs, pass.batch);
        let output = Region::matrix(0, self.outputs(), pass.batch);
        if let Some(gradient) = &mut pass.gradient {
            let product = Gemm::product(output, input.transposed(), self.weights());
            pass.backend.gemm(&[product], dy, x, gradient)?;
            if self.bias {
                let sum = ReduceJob::sum(output, self.block.parameters.column(self.inputs));
                pass.backend.reduce(&[sum], dy, None, gradient)?;
            }
        }
        if let (Some(target), true) = (&mut pass.statistics, self.observed) {
            let (alpha, beta) = (output_scale(pass.batch, 1), B::Scalar::of(1.0));
            pass.backend.symmetric_product(&[Outer { alpha, x: output, beta, c: self.block.g }], dy, target)?;
        }
        if let (Some(observer), true) = (&mut pass.observer, self.observed) {
            let kind = CaptureKind::Dense { inputs: self.inputs, outputs: self.outputs(), bias: self.bias };
            observer.observe(pass.backend, self.number, pass.batch, &Capture { x, dy, kind })?;
        }
        pass.passed(self.number)?;
        let Some(dx) = dx.filter(|_| !pass.ended) else { return Ok(()) };
        let product = Gemm::product(self.weights().transposed(), output, input);
        pass.backend.gemm(&[product], pass.parameters, dy, dx)
    }
}
