//! Shampoo: a whitened gradient, as long as the gradient.

use super::bases::Bases;
use super::division::Share;
use super::gaps;
use super::graft::Graft;
use super::rule::Rule;
use crate::backend::{Backend, Map, MapJob, ReduceJob};
use crate::layer::Block;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::string::String;
use alloc::vec::Vec;

/// What a quotient of eigenvalues' roots is kept above, where a gradient has always been 0.
const TINY: f64 = 1e-12;

/// The knobs of Shampoo: `L^{-1/4} ∇ R^{-1/4}` in every block, with `L` and `R` running averages of `∇∇ᵀ` and `∇ᵀ∇` (Gupta
/// et al. 2018, arXiv 1802.09568), as long as `∇` itself (Anil et al. 2020, arXiv 2002.09018: grafting).
///
/// A step uses averages of the gradients before it; the first one follows its gradient. Meant for an optimiser with
/// momentum behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct ShampooOptions {
    /// Weight of the old running averages, at least 0 and below 1.
    pub ema_old: f64,
    /// What is added to every eigenvalue, in units of the mean eigenvalue; positive.
    pub epsilon: f64,
    /// Steps from one eigendecomposition to the next, at least 1.
    pub period: u64,
    /// Names of blocks that follow their plain gradient, as do all parameters that belong to no block.
    pub exclude: Vec<String>,
}

impl Default for ShampooOptions {
    fn default() -> Self {
        Self { ema_old: 0.95, epsilon: 1e-4, period: 10, exclude: Vec::new() }
    }
}

/// What it does in the blocks of its share.
pub(super) struct Shampoo<B: Backend> {
    bases: Bases<B>,
    graft: Graft<B>,
    epsilon: f64,
    /// `(d + ε·mean d)^{1/4}` of every eigenvalue.
    roots: B::Buffer,
    spare: B::Buffer,
    /// ε times the mean eigenvalue of every factor.
    ridges: B::Buffer,
    mean_jobs: Vec<ReduceJob<B::Scalar>>,
    ridge_jobs: Vec<MapJob>,
    spectra_len: usize,
    scratch: B::Buffer,
    v: B::Buffer,
    plain_jobs: Vec<MapJob>,
}

impl<B: Backend> Shampoo<B> {
    /// # Panics
    /// If an option is out of its range.
    #[track_caller]
    pub(super) fn new(
        backend: &mut B,
        blocks: Vec<Block>,
        [statistics, parameters]: [usize; 2],
        options: &ShampooOptions,
    ) -> Result<Self, B::Error> {
        let ShampooOptions { ema_old, epsilon, period, .. } = *options;
        assert!((0.0..1.0).contains(&ema_old), "ema_old is {ema_old}; it must be at least 0 and below 1");
        assert!(epsilon > 0.0 && epsilon.is_finite(), "epsilon is {epsilon}; it must be positive and finite");
        assert!(period > 0, "period is 0; it must be at least 1");
        let taken: Vec<Region> = blocks.iter().map(|block| block.parameters).collect();
        let graft = Graft::new(backend, blocks.iter())?;
        let bases = Bases::new(backend, blocks, [statistics, parameters], ema_old, period)?;
        let (spectra, spectra_len) = bases.spectra();
        let mean = |(slot, &region): (usize, &Region)| ReduceJob {
            alpha: B::Scalar::of(epsilon / region.rows.max(1) as f64),
            ..ReduceJob::sum(region, Region::vector(slot, 1))
        };
        let ridge = |(slot, &region): (usize, &Region)| MapJob::unary(Region::scalar(slot, region.rows, 1), region);
        let mut shampoo = Self {
            mean_jobs: spectra.iter().enumerate().map(mean).collect(),
            ridge_jobs: {
                let mut jobs: Vec<_> = spectra.iter().enumerate().map(ridge).collect();
                jobs.sort_by_key(|job| job.out.end());
                jobs
            },
            ridges: backend.allocate(spectra.len())?,
            roots: backend.allocate(spectra_len)?,
            spare: backend.allocate(spectra_len)?,
            spectra_len,
            scratch: backend.allocate(parameters)?,
            v: backend.allocate(parameters)?,
            plain_jobs: gaps(parameters, &taken).into_iter().map(|region| MapJob::unary(region, region)).collect(),
            bases,
            graft,
            epsilon,
        };
        shampoo.take_roots(backend)?;
        Ok(shampoo)
    }

    /// Takes the roots of the eigenvalues in use.
    fn take_roots(&mut self, backend: &mut B) -> Result<(), B::Error> {
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        let all = Region::vector(0, self.spectra_len);
        let jobs = [MapJob::unary(all, all)];
        let values = self.bases.eigen.values();
        backend.reduce(&self.mean_jobs, values, None, &mut self.ridges)?;
        backend.axpby(one, values, zero, &mut self.roots, all)?;
        backend.map(Map::Axpby(one, one), &self.ridge_jobs, Some(&self.ridges), None, &mut self.roots)?;
        backend.map(Map::Sqrt, &jobs, Some(&self.roots), None, &mut self.spare)?;
        backend.map(Map::Sqrt, &jobs, Some(&self.spare), None, &mut self.roots)
    }
}

impl<B> Rule<B> for Shampoo<B>
where
    B: Backend + Send,
    B::Buffer: Send,
    B::Download: Send,
    B::Verdict: Send,
{
    fn blocks(&self) -> &[Block] {
        self.bases.factors.blocks()
    }

    fn follow(&mut self, backend: &mut B, gradient: &B::Buffer, direction: &mut B::Buffer) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        let (scratch, v) = (&mut self.scratch, &mut self.v);
        self.bases.inward(backend, gradient, scratch, v)?;
        let roots = Some(&self.roots);
        backend.map(Map::DivideByProduct(s(TINY)), self.bases.eigen.spectrum_jobs(), roots, roots, v)?;
        self.bases.outward(backend, v, scratch)?;
        self.graft.apply(backend, gradient, v, direction)?;
        backend.map(Map::Axpby(s(1.0), s(0.0)), &self.plain_jobs, Some(gradient), None, direction)
    }

    fn divide(&mut self, backend: &mut B, share: &Share) -> Result<(), B::Error> {
        self.bases.divide(backend, share)?;
        self.graft = Graft::new(backend, share.held(self.bases.factors.blocks()))?;
        self.take_roots(backend)
    }

    fn bases(&mut self) -> Option<&mut Bases<B>> {
        Some(&mut self.bases)
    }

    fn known_bases(&self) -> Option<&Bases<B>> {
        Some(&self.bases)
    }

    fn turn(&mut self, backend: &mut B) -> Result<(), B::Error> {
        self.take_roots(backend)
    }

    fn damping(&self) -> f64 {
        self.epsilon
    }
}
