//! The quadratic model of a step.

use super::super::Model;
use super::super::cache::{Order, Sandwich};
use crate::backend::{Backend, Map, MapJob, ReduceJob};
use crate::factor::KroneckerFactors;
use crate::layer::Block;
use crate::matrix::Region;
use alloc::vec::Vec;

/// The quadratic model with the running averages as curvature.
pub(super) struct Curvature<B: Backend> {
    products: Sandwich<B::Scalar>,
    dot_jobs: Vec<ReduceJob<B::Scalar>>,
    dots: B::Buffer,
    shares: [B::Buffer; 2],
    blocks: usize,
    parameters: usize,
}

impl<B: Backend> Curvature<B> {
    pub(super) fn new(backend: &mut B, factors: &KroneckerFactors<B>, parameters: usize) -> Result<Self, B::Error> {
        let blocks = factors.blocks();
        let (count, layout) = (blocks.len(), factors.layout());
        let dot = |(at, block): (usize, &Block)| ReduceJob::sum(block.parameters, Region::vector(at, 1));
        Ok(Self {
            products: Sandwich::new(blocks.iter().zip(layout), [false; 2], [Order::Parameters; 2]),
            dot_jobs: blocks.iter().enumerate().map(dot).collect(),
            dots: backend.allocate(count)?,
            shares: [backend.allocate(count)?, backend.allocate(count)?],
            blocks: count,
            parameters,
        })
    }

    /// Writes [`Model`]: `out ← [⟨∇, δ⟩; Σ ⟨δ, G δ A⟩; Σ ⟨δ, δ⟩]`. A and G are running values, each divided by its
    /// block's weight only after the products.
    pub(super) fn model(
        &mut self,
        backend: &mut B,
        (values, weights): (&B::Buffer, &B::Buffer),
        gradient: &B::Buffer,
        change: &B::Buffer,
        (scratch, product): (&mut B::Buffer, &mut B::Buffer),
        out: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        debug_assert_eq!(Model::LEN, 3);
        let all = Region::vector(0, self.parameters);
        let blocks = Region::vector(0, self.blocks);
        let jobs = [MapJob { x: blocks, y: blocks, out: blocks }];
        backend.reduce(&[ReduceJob::sum(all, Region::vector(0, 1))], gradient, Some(change), out)?;
        self.products.apply(backend, values, change, scratch, product)?;
        backend.reduce(&self.dot_jobs, product, Some(change), &mut self.dots)?;
        let [once, twice] = &mut self.shares;
        backend.map(Map::Divide, &jobs, Some(&self.dots), Some(weights), once)?;
        backend.map(Map::Divide, &jobs, Some(once), Some(weights), twice)?;
        backend.reduce(&[ReduceJob::sum(blocks, Region::vector(1, 1))], twice, None, out)?;
        backend.reduce(&self.dot_jobs, change, Some(change), &mut self.dots)?;
        backend.reduce(&[ReduceJob::sum(blocks, Region::vector(2, 1))], &self.dots, None, out)
    }
}
