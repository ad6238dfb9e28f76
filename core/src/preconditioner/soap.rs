//! SOAP: Adam in Shampoo's eigenbases.

use super::bases::{self, Bases};
use super::state;
use super::{Captures, Preconditioner, Report, State, Taps, gaps};
use crate::backend::{Backend, Map, MapJob};
use crate::factor::KroneckerFactors;
use crate::layer::Block;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::string::String;
use alloc::vec::Vec;

/// The knobs of [`Soap`].
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

/// Adam in the eigenbases of `L = E[∇∇ᵀ]` and `R = E[∇ᵀ∇]` (Vyas et al. 2024, arXiv 2409.11321).
///
/// `direction = Q_L [m' / (√v + ε)] Q_Rᵀ` with `m' = Q_Lᵀ m Q_R`, `m` a running average of gradients and `v` one of the
/// squares of `Q_Lᵀ ∇ Q_R`. Bases are whole eigendecompositions, not single power steps; eigenvalues ascend, so that `v`
/// keeps to ranks from one basis to the next, as the authors' sorting does. A step uses bases of the gradients before it;
/// the first one is Adam's. Meant for plain gradient descent behind it, as momentum is within.
pub struct Soap<B: Backend> {
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
    steps: u64,
    /// Steps that `m` and `v` are of.
    counted: u64,
}

impl<B: Backend> Soap<B> {
    /// For a network of these blocks, whose flat statistics and parameters have these lengths.
    ///
    /// # Errors
    /// If memory runs out.
    ///
    /// # Panics
    /// If an option is out of its range.
    #[track_caller]
    pub fn new(
        backend: &mut B,
        blocks: &[Block],
        statistics: usize,
        parameters: usize,
        options: SoapOptions,
    ) -> Result<Self, B::Error> {
        for (name, beta) in [("β₁", options.betas[0]), ("β₂", options.betas[1]), ("ema_old", options.ema_old)] {
            assert!((0.0..1.0).contains(&beta), "{name} is {beta}; it must be at least 0 and below 1");
        }
        assert!(options.epsilon > 0.0, "epsilon is {}; it must be positive", options.epsilon);
        assert!(options.period > 0, "period is 0; it must be at least 1");
        let blocks = bases::kept(blocks, &options.exclude);
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
            options,
            steps: 0,
            counted: 0,
        })
    }
}

impl<B> Preconditioner<B> for Soap<B>
where
    B: Backend + Send,
    B::Buffer: Send,
    B::Download: Send,
    B::Verdict: Send,
{
    fn begin(&mut self, _: &mut B) -> Result<(), B::Error> {
        Ok(())
    }

    fn taps(&mut self) -> Option<Taps<'_, B>> {
        None
    }

    fn update(&mut self, backend: &mut B, _: usize) -> Result<(), B::Error> {
        self.bases.refresh(backend, self.steps).map(|_| ())
    }

    fn precondition(
        &mut self,
        backend: &mut B,
        _: f64,
        gradient: &B::Buffer,
        _: Option<&dyn Captures<B>>,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
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
        backend.map(adam, &self.plain_jobs, Some(m), Some(v), direction)?;

        self.bases.observe(backend, gradient)?;
        self.steps += 1;
        Ok(())
    }

    fn factors(&mut self) -> Option<&mut KroneckerFactors<B>> {
        Some(&mut self.bases.factors)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn resume(&mut self, steps: u64) {
        self.steps = steps;
        self.bases.due = true;
    }

    fn report(&self) -> Report {
        self.bases.report
    }

    fn save(&mut self, backend: &mut B) -> Result<State<B::Scalar>, B::Error> {
        Ok(State {
            refresh_due: self.bases.due,
            updates: self.bases.factors.running().updates(),
            blocks: self.bases.save(backend)?,
            buffers: state::whole(backend, &self.moments)?,
            counted: self.counted,
            ..State::plain(self.steps, self.bases.report)
        })
    }

    #[track_caller]
    fn restore(&mut self, backend: &mut B, state: &State<B::Scalar>) -> Result<(), B::Error> {
        self.bases.restore(backend, state.updates, &state.blocks)?;
        state::put_whole(backend, &mut self.moments, &state.buffers)?;
        (self.steps, self.bases.due, self.bases.report) = (state.steps, state.refresh_due, state.report);
        self.counted = state.counted;
        Ok(())
    }
}
