//! EKFAC's second moments `s = E[(Q_Gᵀ ∇ₙ Q_A)²]` (George et al. 2018, arXiv 1806.03884).

use super::low_rank::{grown, project};
use super::state::{self, BlockState};
use crate::backend::{Backend, Convolution, Gemm, Map, MapJob, ReduceJob};
use crate::factor::RunningMeans;
use crate::layer::{Block, Capture, CaptureKind};
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// Scalars that the per-example products of one tile may take.
const TILE: usize = 1 << 20;

/// Running averages of squared per-example gradients in the eigenbases, in the layout of the parameters.
///
/// With `∇ₙ = Σ_t D_nt a_ntᵀ` the gradient of one example (D is N times the gradient of the mean loss): for a dense
/// block `s = (1/N) (Q_Gᵀ D)² ((Q_Aᵀ a)²)ᵀ`, squares element by element; for a convolution the sum over positions is
/// squared example by example.
pub(super) struct Moments<B: Backend> {
    means: RunningMeans<B>,
    /// Whether a block's moments were started from eigenvalues already.
    started: Vec<bool>,
    restart_jobs: Vec<MapJob>,
    /// Where each block's moments lie.
    regions: Vec<Region>,
    patches: Option<B::Buffer>,
    left: Option<B::Buffer>,
    right: Option<B::Buffer>,
    left_squares: Option<B::Buffer>,
    right_squares: Option<B::Buffer>,
    products: Option<B::Buffer>,
    jobs: Vec<Gemm<B::Scalar>>,
}

impl<B: Backend> Moments<B> {
    pub(super) fn new(backend: &mut B, blocks: &[Block], parameters: usize) -> Result<Self, B::Error> {
        let groups: Vec<Vec<Region>> = blocks.iter().map(|block| alloc::vec![block.parameters]).collect();
        Ok(Self {
            means: RunningMeans::new(backend, parameters, &groups)?,
            started: alloc::vec![false; blocks.len()],
            restart_jobs: Vec::with_capacity(blocks.len()),
            regions: blocks.iter().map(|block| block.parameters).collect(),
            patches: None,
            left: None,
            right: None,
            left_squares: None,
            right_squares: None,
            products: None,
            jobs: Vec::new(),
        })
    }

    /// Begins the statistics of a batch.
    pub(super) fn open(&mut self, backend: &mut B) -> Result<(), B::Error> {
        self.means.open(backend)
    }

    /// Has only some blocks take statistics in from now on.
    pub(super) fn restrict(&mut self, backend: &mut B, takes: &[bool]) -> Result<(), B::Error> {
        self.means.restrict(backend, takes)
    }

    /// Takes them in.
    pub(super) fn close(&mut self, backend: &mut B, ema_old: f64, count: usize) -> Result<(), B::Error> {
        self.means.close(backend, ema_old, count)
    }

    /// `s`; its weight is 1 from the first restart on, so that it needs no correction.
    pub(super) fn values(&self) -> &B::Buffer {
        self.means.values()
    }

    /// Starts again from `d_G d_Aᵀ` in new bases: every block with its job, and whether it has kept its bases; if so, it
    /// keeps what was measured in them.
    pub(super) fn restart<'a>(
        &mut self,
        backend: &mut B,
        jobs: impl Iterator<Item = (usize, &'a MapJob, bool)>,
        values: &B::Buffer,
    ) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        let (target, weights) = self.means.estimate_mut();
        self.restart_jobs.clear();
        for (block, job, unchanged) in jobs {
            if unchanged && self.started[block] {
                continue;
            }
            self.started[block] = true;
            self.restart_jobs.push(*job);
            backend.fill(s(1.0), Region::vector(block, 1), weights)?;
        }
        backend.map(Map::MultiplyAdd(s(1.0), s(0.0)), &self.restart_jobs, Some(values), Some(values), target)
    }

    /// Puts the moments of every block into `blocks`.
    pub(super) fn save(&self, backend: &mut B, blocks: &mut [BlockState<B::Scalar>]) -> Result<(), B::Error> {
        let values = state::fetch(backend, self.means.values(), self.regions.iter().copied())?;
        let weights = backend.fetch(self.means.weights(), 0..blocks.len())?;
        let measured = values.into_iter().zip(weights).zip(&self.started);
        for (block, ((values, weight), &started)) in blocks.iter_mut().zip(measured) {
            (block.moments, block.moment_weight, block.moments_started) = (values, weight, started);
        }
        Ok(())
    }

    /// Goes on with the moments in `blocks`.
    #[track_caller]
    pub(super) fn restore(&mut self, backend: &mut B, blocks: &[BlockState<B::Scalar>]) -> Result<(), B::Error> {
        let weights: Vec<B::Scalar> = blocks.iter().map(|block| block.moment_weight).collect();
        self.started = blocks.iter().map(|block| block.moments_started).collect();
        let parts = blocks.iter().map(|block| block.moments.as_slice());
        let (values, of_weights) = self.means.estimate_mut();
        state::upload(backend, values, self.regions.iter().copied().zip(parts))?;
        backend.upload(&weights, of_weights, 0)
    }

    /// Adds what passed through block `block` for one micro-batch, in the bases `q`.
    pub(super) fn observe(
        &mut self,
        backend: &mut B,
        q: &B::Buffer,
        block: &Block,
        batch: usize,
        capture: &Capture<'_, B>,
    ) -> Result<(), B::Error> {
        match capture.kind {
            CaptureKind::Dense { .. } => self.observe_dense(backend, q, block, capture, batch),
            CaptureKind::Convolution(shape) => {
                self.observe_convolution(backend, q, block, &shape, (capture.x, capture.dy), batch)
            }
        }
    }

    fn observe_dense(
        &mut self,
        backend: &mut B,
        q: &B::Buffer,
        block: &Block,
        capture: &Capture<'_, B>,
        batch: usize,
    ) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        let (outputs, columns) = (block.parameters.rows, block.parameters.columns);
        let (of_outputs, of_inputs) = (Region::matrix(0, outputs, batch), Region::matrix(0, columns, batch));
        let left = grown(backend, &mut self.left, outputs * batch)?;
        let right = grown(backend, &mut self.right, columns * batch)?;
        backend.gemm(&[Gemm::product(block.g.transposed(), of_outputs, of_outputs)], q, capture.dy, left)?;
        project(backend, q, block.a.transposed(), capture, batch, right)?;
        let left_squares = grown(backend, &mut self.left_squares, outputs * batch)?;
        let right_squares = grown(backend, &mut self.right_squares, columns * batch)?;
        let square = Map::MultiplyAdd(s(1.0), s(0.0));
        backend.map(square, &[MapJob::unary(of_outputs, of_outputs)], Some(left), Some(left), left_squares)?;
        backend.map(square, &[MapJob::unary(of_inputs, of_inputs)], Some(right), Some(right), right_squares)?;
        // D = N·dy: N² from the square, 1/N from the mean.
        let product = Gemm {
            alpha: s(batch as f64),
            a: of_outputs,
            b: of_inputs.transposed(),
            beta: s(1.0),
            c: block.parameters,
        };
        backend.gemm(&[product], left_squares, right_squares, self.means.statistics())
    }

    fn observe_convolution(
        &mut self,
        backend: &mut B,
        q: &B::Buffer,
        block: &Block,
        shape: &Convolution,
        (x, dy): (&B::Buffer, &B::Buffer),
        batch: usize,
    ) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        let (outputs, rows, positions) = (block.parameters.rows, block.parameters.columns, shape.output.positions());
        let tile = (TILE / (outputs * rows).max(rows * positions).max(1)).clamp(1, batch.max(1));
        let patches = grown(backend, &mut self.patches, rows * positions * tile)?;
        let left = grown(backend, &mut self.left, outputs * positions * tile)?;
        let right = grown(backend, &mut self.right, rows * positions * tile)?;
        let products = grown(backend, &mut self.products, outputs * rows * tile)?;
        for first in (0..batch).step_by(tile) {
            let samples = first..(first + tile).min(batch);
            let count = samples.len();
            let of_inputs = Region::matrix(0, rows, count * positions);
            let of_outputs = Region::matrix(0, outputs, count * positions);
            let cotangent = of_outputs.shifted(first * positions * outputs);
            backend.unfold(shape, samples, x, patches)?;
            backend.gemm(&[Gemm::product(block.a.transposed(), of_inputs, of_inputs)], q, patches, right)?;
            backend.gemm(&[Gemm::product(block.g.transposed(), cotangent, of_outputs)], q, dy, left)?;
            self.jobs.clear();
            self.jobs.extend((0..count).map(|sample| {
                let a = of_outputs.block(0, sample * positions, outputs, positions);
                let b = of_inputs.block(0, sample * positions, rows, positions).transposed();
                Gemm::product(a, b, Region::matrix(sample * outputs * rows, outputs, rows))
            }));
            backend.gemm(&self.jobs, left, right, products)?;
            let all = Region::matrix(0, outputs * rows, count);
            let target = Region::vector(block.parameters.offset, outputs * rows);
            let squares = ReduceJob { alpha: s(batch as f64), x: all, y: all, beta: s(1.0), out: target };
            backend.reduce(&[squares], products, Some(products), self.means.statistics())?;
        }
        Ok(())
    }
}
