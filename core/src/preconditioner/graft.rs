//! Directions as long as gradients.

use crate::backend::{Backend, Map, MapJob, ReduceJob};
use crate::layer::Block;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// `direction ← v·‖∇‖/‖v‖` in every block (grafting, Agarwal et al. 2020, arXiv 2002.11803), computed on the device.
pub(super) struct Graft<B: Backend> {
    of_gradient: B::Buffer,
    of_direction: B::Buffer,
    ratios: B::Buffer,
    dot_jobs: Vec<ReduceJob<B::Scalar>>,
    ratio_jobs: [MapJob; 1],
    scale_jobs: Vec<MapJob>,
}

impl<B: Backend> Graft<B> {
    /// For some blocks; others stay as they are.
    pub(super) fn new<'a>(backend: &mut B, blocks: impl Iterator<Item = &'a Block>) -> Result<Self, B::Error> {
        let blocks: Vec<&Block> = blocks.collect();
        let all = Region::vector(0, blocks.len());
        let dot = |(at, block): (usize, &&Block)| ReduceJob::sum(block.parameters, Region::vector(at, 1));
        let scale = |(at, Block { parameters, .. }): (usize, &&Block)| MapJob {
            x: *parameters,
            y: Region::scalar(at, parameters.rows, parameters.columns),
            out: *parameters,
        };
        let mut scale_jobs: Vec<MapJob> = blocks.iter().enumerate().map(scale).collect();
        scale_jobs.sort_by_key(|job| job.out.end());
        Ok(Self {
            of_gradient: backend.allocate(blocks.len())?,
            of_direction: backend.allocate(blocks.len())?,
            ratios: backend.allocate(blocks.len())?,
            dot_jobs: blocks.iter().enumerate().map(dot).collect(),
            ratio_jobs: [MapJob::unary(all, all)],
            scale_jobs,
        })
    }

    /// Writes `v` at the length of `gradient` into `direction`; a `v` of no or no finite length keeps its own.
    pub(super) fn apply(
        &mut self,
        backend: &mut B,
        gradient: &B::Buffer,
        v: &B::Buffer,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        backend.reduce(&self.dot_jobs, gradient, Some(gradient), &mut self.of_gradient)?;
        backend.reduce(&self.dot_jobs, v, Some(v), &mut self.of_direction)?;
        let lengths = (Some(&self.of_gradient), Some(&self.of_direction));
        backend.map(Map::Balance, &self.ratio_jobs, lengths.0, lengths.1, &mut self.ratios)?;
        let scaled = Map::MultiplyAdd(B::Scalar::of(1.0), B::Scalar::of(0.0));
        backend.map(scaled, &self.scale_jobs, Some(v), Some(&self.ratios), direction)
    }
}
