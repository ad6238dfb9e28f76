//! SOAP: Adam in Shampoo's eigenbases.

use super::bases::Bases;
use super::division::Share;
use super::gaps;
use super::rule::Rule;
use crate::backend::{Backend, Map, MapJob};
use crate::layer::Block;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::string::String;
use alloc::vec::Vec;

/// The knobs of SOAP: Adam in the eigenbases of `L = E[∇∇ᵀ]` and `R = E[∇ᵀ∇]` (Vyas et al. 2024, arXiv 2409.11321).
///
/// `direction = Q_L [m' / (√v + ε)] Q_Rᵀ` with `m' = Q_Lᵀ m Q_R`, `m` a running average of gradients and `v` one of the
/// squares of `Q_Lᵀ ∇ Q_R`. Bases are whole eigendecompositions, not single power steps; eigenvalues ascend, so that `v`
/// keeps to ranks from one basis to the next, as the authors' sorting does. A step uses bases of the gradients before it;
/// the first one is Adam's. Meant for plain gradient descent behind it, as momentum is within.
#[derive(Clone, Debug, PartialEq)]
pub struct SoapOptions {
    /// β₁ and β₂ of Adam, each at least 0 and below 1.
    pub betas: [f64; 2],
    /// ε of Adam, positive.
    pub epsilon: f64,
    /// Weight of the old running averages of `∇∇ᵀ` and `∇ᵀ∇`, at least 0 and below 1.
    pub ema_old: f64,
    /// Steps from one eigendecomposition to the next, at least 1.
    pub period: u64,
    /// Names of blocks that plain Adam is for, as it is for all parameters that belong to no block.
    pub exclude: Vec<String>,
}

impl Default for SoapOptions {
    fn default() -> Self {
        Self { betas: [0.95, 0.95], epsilon: 1e-8, ema_old: 0.95, period: 10, exclude: Vec::new() }
    }
}

/// What it does in the blocks of its share.
pub(super) struct Soap<B: Backend> {
    bases: Bases<B>,
    options: SoapOptions,
    /// `m` as the parameters lie, and `v`: in the bases where there are any.
    moments: [B::Buffer; 2],
    block_jobs: Vec<MapJob>,
    plain_jobs: Vec<MapJob>,
    all: Region,
    scratch: B::Buffer,
    rotated: B::Buffer,
    ahead: B::Buffer,
    /// Steps that `m` and `v` are of.
    counted: u64,
}

impl<B: Backend> Soap<B> {
    /// # Panics
    /// If an option is out of its range.
    #[track_caller]
    pub(super) fn new(
        backend: &mut B,
        blocks: Vec<Block>,
        [statistics, parameters]: [usize; 2],
        options: &SoapOptions,
    ) -> Result<Self, B::Error> {
        for (name, beta) in [("β₁", options.betas[0]), ("β₂", options.betas[1]), ("ema_old", options.ema_old)] {
            assert!((0.0..1.0).contains(&beta), "{name} is {beta}; it must be at least 0 and below 1");
        }
        assert!(options.epsilon > 0.0, "epsilon is {}; it must be positive", options.epsilon);
        assert!(options.period > 0, "period is 0; it must be at least 1");
        let mut taken: Vec<Region> = blocks.iter().map(|block| block.parameters).collect();
        let bases = Bases::new(backend, blocks, [statistics, parameters], options.ema_old, options.period)?;
        let jobs = |regions: &[Region]| regions.iter().map(|&region| MapJob::unary(region, region)).collect();
        let plain_jobs = jobs(&gaps(parameters, &taken));
        taken.sort_by_key(|region| region.end());
        Ok(Self {
            block_jobs: jobs(&taken),
            plain_jobs,
            all: Region::vector(0, parameters),
            moments: [backend.allocate(parameters)?, backend.allocate(parameters)?],
            scratch: backend.allocate(parameters)?,
            rotated: backend.allocate(parameters)?,
            ahead: backend.allocate(parameters)?,
            bases,
            options: options.clone(),
            counted: 0,
        })
    }
}

impl<B> Rule<B> for Soap<B>
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
        let [first, second] = self.options.betas;
        let [m, v] = &mut self.moments;
        let (scratch, rotated, ahead) = (&mut self.scratch, &mut self.rotated, &mut self.ahead);
        self.counted += 1;
        let correction = |beta: f64| s(1.0 / (1.0 - libm::pow(beta, self.counted as f64)));
        let adam = Map::AdamDirection(correction(first), correction(second), s(self.options.epsilon));

        backend.axpby(s(1.0 - first), gradient, s(first), m, self.all)?;
        self.bases.inward(backend, gradient, scratch, rotated)?;
        backend.map(Map::Moment(s(second)), &self.block_jobs, Some(rotated), None, v)?;
        backend.map(Map::Moment(s(second)), &self.plain_jobs, Some(gradient), None, v)?;

        self.bases.inward(backend, m, scratch, rotated)?;
        backend.map(adam, &self.block_jobs, Some(rotated), Some(v), ahead)?;
        self.bases.outward(backend, ahead, scratch)?;
        backend.map(Map::Axpby(s(1.0), s(0.0)), &self.block_jobs, Some(ahead), None, direction)?;
        backend.map(adam, &self.plain_jobs, Some(m), Some(v), direction)
    }

    fn divide(&mut self, backend: &mut B, share: &Share) -> Result<(), B::Error> {
        self.bases.divide(backend, share)?;
        let held = share.held(self.bases.factors.blocks());
        let mut jobs: Vec<MapJob> = held.map(|block| MapJob::unary(block.parameters, block.parameters)).collect();
        jobs.sort_by_key(|job| job.out.end());
        self.block_jobs = jobs;
        self.counted = 0;
        self.moments.iter_mut().try_for_each(|moment| backend.fill(B::Scalar::of(0.0), self.all, moment))
    }

    fn bases(&mut self) -> Option<&mut Bases<B>> {
        Some(&mut self.bases)
    }

    fn known_bases(&self) -> Option<&Bases<B>> {
        Some(&self.bases)
    }

    fn moments(&mut self) -> (&mut [B::Buffer], u64) {
        (&mut self.moments, self.counted)
    }

    fn resume(&mut self, counted: u64) {
        self.counted = counted;
    }
}
