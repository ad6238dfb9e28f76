//! Eigenbases of the second moments of gradients: what Shampoo and SOAP share.

use super::division::Share;
use super::eigen::Eigen;
use super::{BlockState, Report};
use crate::backend::{Backend, Outer};
use crate::factor::KroneckerFactors;
use crate::layer::Block;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// Running averages `L = E[∇∇ᵀ]` and `R = E[∇ᵀ∇]` of every block, in the places of K-FAC's G and A, and their
/// eigendecompositions as of the last refresh; identities and ones until there was one.
pub(super) struct Bases<B: Backend> {
    pub(super) factors: KroneckerFactors<B>,
    pub(super) eigen: Eigen<B>,
    outer_jobs: Vec<Outer<B::Scalar>>,
    ema_old: f64,
    period: u64,
    pub(super) due: bool,
    pub(super) report: Report,
}

impl<B: Backend> Bases<B> {
    /// For `blocks` of a network whose flat statistics and parameters have these lengths.
    pub(super) fn new(
        backend: &mut B,
        blocks: Vec<Block>,
        lengths: [usize; 2],
        ema_old: f64,
        period: u64,
    ) -> Result<Self, B::Error> {
        let (alpha, beta) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        let products = |Block { parameters, a, g, .. }: &Block| {
            [Outer { alpha, x: *parameters, beta, c: *g }, Outer { alpha, x: parameters.transposed(), beta, c: *a }]
        };
        let mut outer_jobs: Vec<_> = blocks.iter().flat_map(products).collect();
        outer_jobs.sort_by_key(|job| job.c.end());
        let members: Vec<usize> = (0..blocks.len()).collect();
        let share = Share::all(blocks.len());
        let factors = KroneckerFactors::new(backend, blocks, lengths[0])?;
        Ok(Self {
            eigen: Eigen::new(backend, &factors, &members, lengths, false, &share)?,
            factors,
            outer_jobs,
            ema_old,
            period,
            due: true,
            report: Report { clip: 1.0, ..Report::default() },
        })
    }

    /// Decomposes, if it is time and there was a gradient; tells whether it did.
    pub(super) fn refresh(&mut self, backend: &mut B, steps: u64) -> Result<bool, B::Error> {
        let wanted = self.due || steps.is_multiple_of(self.period);
        if !wanted || self.factors.running().updates() == 0 {
            return Ok(false);
        }
        self.eigen.refresh(backend, &mut self.factors)?;
        if self.eigen.settle(backend, &self.factors, &mut self.report)? {
            self.eigen.promote(backend)?;
        }
        self.due = false;
        self.report.refreshes += 1;
        Ok(true)
    }

    /// Takes a gradient into the averages; one that is not finite changes nothing in its block.
    pub(super) fn observe(&mut self, backend: &mut B, gradient: &B::Buffer) -> Result<(), B::Error> {
        let means = self.factors.means();
        means.open(backend)?;
        backend.symmetric_product(&self.outer_jobs, gradient, means.statistics())?;
        means.close(backend, self.ema_old, 1)?;
        self.report.updates += 1;
        Ok(())
    }

    /// `out ← Q_Lᵀ x Q_R` in every block.
    pub(super) fn inward(
        &self,
        backend: &mut B,
        x: &B::Buffer,
        scratch: &mut B::Buffer,
        out: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        self.eigen.inward.apply(backend, &self.eigen.cache.current, x, scratch, out)
    }

    /// `x ← Q_L x Q_Rᵀ` in every block.
    pub(super) fn outward(&self, backend: &mut B, x: &mut B::Buffer, scratch: &mut B::Buffer) -> Result<(), B::Error> {
        let (outward, bases) = (&self.eigen.outward, &self.eigen.cache.current);
        backend.gemm(&outward.left, bases, x, scratch)?;
        backend.gemm(&outward.right, scratch, bases, x)
    }

    /// What is kept of every block.
    pub(super) fn save(&self, backend: &mut B) -> Result<Vec<BlockState<B::Scalar>>, B::Error> {
        let accepted = backend.fetch(self.factors.running().accepted(), 0..self.factors.blocks().len())?;
        let block = |accepted| BlockState { accepted, raised: B::Scalar::of(1.0), ..BlockState::default() };
        let mut blocks: Vec<_> = accepted.into_iter().map(block).collect();
        self.eigen.save(backend, &mut blocks)?;
        Ok(blocks)
    }

    /// Goes on with what `blocks` kept.
    #[track_caller]
    pub(super) fn restore(
        &mut self,
        backend: &mut B,
        updates: u64,
        blocks: &[BlockState<B::Scalar>],
    ) -> Result<(), B::Error> {
        let (found, own) = (blocks.len(), self.factors.blocks().len());
        assert_eq!(found, own, "blocks in the state of the preconditioner");
        self.eigen.restore(backend, blocks)?;
        let accepted: Vec<_> = blocks.iter().map(|block| block.accepted).collect();
        self.factors.means().restore_counts(backend, updates, &accepted)
    }

    /// Where the eigenvalues of block `i`'s R lie, and after those of all R the ones of L; and how many they are.
    pub(super) fn spectra(&self) -> (&[Region], usize) {
        let spectra = self.eigen.spectra();
        (spectra, spectra.iter().map(|region| region.rows).sum())
    }
}

/// The blocks that are not excluded.
pub(super) fn kept(blocks: &[Block], exclude: &[alloc::string::String]) -> Vec<Block> {
    blocks.iter().filter(|block| !exclude.contains(&block.name)).cloned().collect()
}
