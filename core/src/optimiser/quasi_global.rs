//! Momentum of where the model has gone.

use super::{Optimiser, WeightDecay, jobs};
use crate::backend::{Backend, Buffer as _, Map, MapJob};
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// The knobs of [`QuasiGlobal`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QuasiGlobalOptions {
    /// `β`, what momentum counts in a step, and `μ`, what is left of it after one; the same, as its authors advise.
    pub momentum: f64,
    /// Nesterov's form: the step looks one momentum ahead.
    pub nesterov: bool,
    /// Weight decay.
    pub weight_decay: WeightDecay,
}

/// Stochastic gradient descent with quasi-global momentum (QG-DSGDm, Lin et al. 2021, arXiv 2102.04761, algorithm 1).
///
/// `m̂ ← μ·m̂ + (1 − μ)·(w_last − w)/η_last`; `w_last ← w`; `w ← w − η·(d + β·m̂)`, or with Nesterov's form
/// `w ← w − η·((1 + β)·d + β²·m̂)`.
///
/// `w_last` is what the model was before the last step and `w` what has become of it: by that step, and by what neighbours
/// have made of it since. Where nodes have different data, momentum of their own gradients pulls them apart; this one
/// follows where all of them go. Between two exchanges, it is what an exchange with nobody would make it.
///
/// State is three times the parameters: `m̂`, `w_last` and `1/η_last`, the latter everywhere the same, so that it travels and
/// is saved as the others are. A model that is replaced by another one is taken for one that has gone there.
pub struct QuasiGlobal<B: Backend> {
    options: QuasiGlobalOptions,
    state: [B::Buffer; 3],
    scratch: B::Buffer,
    decay_jobs: Vec<MapJob>,
    steps: u64,
}

impl<B: Backend> QuasiGlobal<B> {
    /// For `parameters` scalars, of which the regions `decayed` feel weight decay.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(
        backend: &mut B,
        parameters: usize,
        decayed: &[Region],
        options: QuasiGlobalOptions,
    ) -> Result<Self, B::Error> {
        let mut buffer = || backend.allocate(parameters);
        let (state, scratch) = ([buffer()?, buffer()?, buffer()?], buffer()?);
        Ok(Self { options, state, scratch, decay_jobs: jobs(decayed), steps: 0 })
    }
}

impl<B: Backend> Optimiser<B> for QuasiGlobal<B>
where
    B::Buffer: Send,
{
    fn step(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        direction: &B::Buffer,
        parameters: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        let QuasiGlobalOptions { momentum, nesterov, weight_decay } = self.options;
        let [m, last, inverse] = &mut self.state;
        let all = Region::vector(0, parameters.len());
        let jobs = [MapJob::unary(all, all)];
        if self.steps > 0 {
            backend.axpby(s(-1.0), parameters, s(1.0), last, all)?;
            backend.map(Map::MultiplyAdd(s(1.0 - momentum), s(momentum)), &jobs, Some(last), Some(inverse), m)?;
        }
        backend.axpby(s(1.0), parameters, s(0.0), last, all)?;
        // Who does not move by itself does not say how far it goes by what it moves.
        let rate = if learning_rate > 0.0 { 1.0 / learning_rate } else { 0.0 };
        backend.map(Map::Fill(s(rate)), &jobs, None, None, inverse)?;
        let direction = if let WeightDecay::Coupled(decay) = weight_decay {
            backend.axpby(s(1.0), direction, s(0.0), &mut self.scratch, all)?;
            backend.map(Map::Axpby(s(decay), s(1.0)), &self.decay_jobs, Some(parameters), None, &mut self.scratch)?;
            &self.scratch
        } else {
            direction
        };
        if let WeightDecay::Decoupled(decay) = weight_decay {
            let shrink = Map::Axpby(s(0.0), s(1.0 - learning_rate * decay));
            backend.map(shrink, &self.decay_jobs, None, None, parameters)?;
        }
        let (new, old) = if nesterov { (1.0 + momentum, momentum * momentum) } else { (1.0, momentum) };
        backend.axpby(s(-learning_rate * new), direction, s(1.0), parameters, all)?;
        backend.axpby(s(-learning_rate * old), m, s(1.0), parameters, all)?;
        self.steps += 1;
        Ok(())
    }

    fn state(&self) -> &[B::Buffer] {
        &self.state
    }

    fn state_mut(&mut self) -> &mut [B::Buffer] {
        &mut self.state
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn resume(&mut self, steps: u64) {
        self.steps = steps;
    }
}
