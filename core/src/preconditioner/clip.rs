//! The KL clip.

use crate::backend::{Backend, Map, MapJob, ReduceJob};
use crate::layer::Block;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// `ν = min(1, √(κ / |Σ η²⟨v, ∇⟩|))` over the blocks, computed and applied on the device.
pub(super) struct Clip<B: Backend> {
    kappa: Option<f64>,
    dots: B::Buffer,
    total: B::Buffer,
    scale: B::Buffer,
    blocks: usize,
    dot_jobs: Vec<ReduceJob<B::Scalar>>,
    scale_jobs: Vec<MapJob>,
}

impl<B: Backend> Clip<B> {
    pub(super) fn new(backend: &mut B, blocks: &[Block], kappa: Option<f64>) -> Result<Self, B::Error> {
        let dot_jobs = blocks.iter().enumerate();
        let dot_jobs = dot_jobs.map(|(at, block)| ReduceJob::sum(block.parameters, Region::vector(at, 1))).collect();
        let mut scale_jobs: Vec<MapJob> = blocks
            .iter()
            .map(|Block { parameters, .. }| MapJob {
                x: *parameters,
                y: Region::scalar(0, parameters.rows, parameters.columns),
                out: *parameters,
            })
            .collect();
        scale_jobs.sort_by_key(|job| job.out.end());
        let mut scale = backend.allocate(1)?;
        backend.fill(B::Scalar::of(1.0), Region::vector(0, 1), &mut scale)?;
        Ok(Self {
            kappa,
            dots: backend.allocate(blocks.len())?,
            total: backend.allocate(1)?,
            scale,
            blocks: blocks.len(),
            dot_jobs,
            scale_jobs,
        })
    }

    /// `direction ← ν·v` in the blocks.
    pub(super) fn apply(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        gradient: &B::Buffer,
        v: &B::Buffer,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        if let Some(kappa) = self.kappa {
            let one = Region::vector(0, 1);
            let alpha = s(learning_rate * learning_rate);
            let sum = ReduceJob { alpha, ..ReduceJob::sum(Region::vector(0, self.blocks), one) };
            let scale = [MapJob::unary(one, one)];
            backend.reduce(&self.dot_jobs, v, Some(gradient), &mut self.dots)?;
            backend.reduce(&[sum], &self.dots, None, &mut self.total)?;
            backend.map(Map::KlScale(s(kappa)), &scale, Some(&self.total), None, &mut self.scale)?;
        }
        let scaled = Map::MultiplyAdd(s(1.0), s(0.0));
        backend.map(scaled, &self.scale_jobs, Some(v), Some(&self.scale), direction)
    }

    /// Sets what [`scale`](Self::scale) gives until the next step.
    pub(super) fn restore(&mut self, backend: &mut B, scale: B::Scalar) -> Result<(), B::Error> {
        backend.upload(&[scale], &mut self.scale, 0)
    }

    /// ν of the last step, on the device.
    pub(super) fn scale(&self) -> &B::Buffer {
        &self.scale
    }
}
