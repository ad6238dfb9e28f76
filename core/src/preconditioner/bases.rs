//! Eigenbases of the second moments of gradients: what Shampoo and SOAP share.

use super::division::{Bundle, Division, Share};
use super::eigen::{Eigen, Refreshed};
use super::{BlockState, Report};
use crate::backend::{Backend, Outer};
use crate::factor::KroneckerFactors;
use crate::layer::Block;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// Running averages `L = E[∇∇ᵀ]` and `R = E[∇ᵀ∇]` of every block, in the places of K-FAC's G and A, and their
/// eigendecompositions as of the last refresh; identities and ones until there was one.
///
/// Of blocks whose work is another member's nothing is averaged, decomposed or turned.
pub(super) struct Bases<B: Backend> {
    pub(super) factors: KroneckerFactors<B>,
    pub(super) eigen: Eigen<B>,
    outer_jobs: Vec<Outer<B::Scalar>>,
    parameters: usize,
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
        let members: Vec<usize> = (0..blocks.len()).collect();
        let factors = KroneckerFactors::new(backend, blocks, lengths[0])?;
        let share = Share::all(&factors);
        let outer_jobs = products(factors.blocks(), &share);
        Ok(Self {
            eigen: Eigen::new(backend, &factors, &members, lengths[1], false, &share)?,
            factors,
            outer_jobs,
            parameters: lengths[1],
            ema_old,
            period,
            due: true,
            report: Report { clip: 1.0, ..Report::default() },
        })
    }

    /// Takes over this share of the work, from identities on, until the next refresh.
    pub(super) fn divide(&mut self, backend: &mut B, share: &Share) -> Result<(), B::Error> {
        let members: Vec<usize> = (0..self.factors.blocks().len()).collect();
        self.outer_jobs = products(self.factors.blocks(), share);
        let takes: Vec<bool> = share.decomposes.iter().map(|sides| sides.iter().flatten().any(|own| *own)).collect();
        self.factors.means().restrict(backend, &takes)?;
        self.eigen = Eigen::new(backend, &self.factors, &members, self.parameters, false, share)?;
        self.due = true;
        Ok(())
    }

    /// Whether it is time to decompose.
    pub(super) fn is_due(&self, steps: u64) -> bool {
        self.due || steps.is_multiple_of(self.period)
    }

    /// Whether any gradient was taken in.
    pub(super) fn has_seen(&self) -> bool {
        self.factors.running().updates() > 0
    }

    /// Decomposes what is this member's, to be [`promote`](Self::promote)d.
    pub(super) fn refresh(&mut self, backend: &mut B) -> Result<(), B::Error> {
        self.eigen.refresh(backend, &mut self.factors)?;
        self.eigen.settle(backend, &self.factors, &mut self.report)?;
        self.due = false;
        self.report.refreshes += 1;
        Ok(())
    }

    /// Makes what was decomposed current.
    pub(super) fn promote(&mut self, backend: &mut B) -> Result<(), B::Error> {
        self.eigen.promote(backend)
    }

    /// Puts identities and ones in place of what was decomposed without any gradient; answers for every block whether there
    /// was one.
    pub(super) fn leave_unknown_alone(&mut self, backend: &mut B) -> Result<Vec<bool>, B::Error> {
        let (zero, one) = (B::Scalar::of(0.0), B::Scalar::of(1.0));
        let count = self.factors.blocks().len();
        let weights = backend.fetch(self.factors.running().weights(), 0..count)?;
        for block in (0..count).filter(|block| weights[*block] == zero) {
            self.eigen.leave_alone(backend, block, one)?;
        }
        Ok(weights.into_iter().map(|weight| weight > zero).collect())
    }

    /// What was decomposed here, on its way to others.
    pub(super) fn hand_out(&mut self, backend: &mut B, division: &Division<B>) -> Result<Bundle<B::Scalar>, B::Error> {
        let Refreshed { vectors: (bases, layout), values: (values, spectra) } = self.eigen.refreshed();
        division.decompositions(backend, (layout, bases), Some((values, spectra)))
    }

    /// Takes what others have decomposed.
    pub(super) fn take(
        &mut self,
        backend: &mut B,
        division: &Division<B>,
        bundle: &Bundle<B::Scalar>,
    ) -> Result<(), B::Error> {
        let Refreshed { vectors, values } = self.eigen.refreshed();
        division.take_decompositions(backend, bundle, vectors.0, Some(values.0))
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

/// `∇∇ᵀ` and `∇ᵀ∇` of the blocks whose statistics are made here, in the places of G and A.
fn products<S: Scalar>(blocks: &[Block], share: &Share) -> Vec<Outer<S>> {
    let (alpha, beta) = (S::of(1.0), S::of(0.0));
    // Their factors are whole.
    let products = |(block, made): (&Block, &[Vec<bool>; 2])| {
        let Block { parameters, a, g, .. } = *block;
        let of_a = Outer { alpha, x: parameters.transposed(), beta, c: a };
        let of_g = Outer { alpha, x: parameters, beta, c: g };
        [made[0][0].then_some(of_a), made[1][0].then_some(of_g)]
    };
    let mut jobs: Vec<_> = blocks.iter().zip(&share.decomposes).flat_map(products).flatten().collect();
    jobs.sort_by_key(|job| job.c.end());
    jobs
}

/// The blocks that are not excluded.
pub(super) fn kept(blocks: &[Block], exclude: &[alloc::string::String]) -> Vec<Block> {
    blocks.iter().filter(|block| !exclude.contains(&block.name)).cloned().collect()
}
