//! Stochastic gradient descent.

use super::{Optimiser, WeightDecay, jobs};
use crate::backend::{Backend, Buffer as _, Map, MapJob};
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// The knobs of [`Sgd`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SgdOptions {
    /// μ.
    pub momentum: f64,
    /// Nesterov's form: the step looks one momentum ahead.
    pub nesterov: bool,
    /// Weight decay.
    pub weight_decay: WeightDecay,
}

/// `m ← μ·m + d`; `w ← w − η·m`, or with Nesterov's form `w ← w − η·(d + μ·m)`; as PyTorch's `SGD` without dampening.
pub struct Sgd<B: Backend> {
    options: SgdOptions,
    momentum: [B::Buffer; 1],
    decay_jobs: Vec<MapJob>,
    steps: u64,
}

impl<B: Backend> Sgd<B> {
    /// For `parameters` scalars, of which the regions `decayed` feel weight decay.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(backend: &mut B, parameters: usize, decayed: &[Region], options: SgdOptions) -> Result<Self, B::Error> {
        Ok(Self { options, momentum: [backend.allocate(parameters)?], decay_jobs: jobs(decayed), steps: 0 })
    }
}

impl<B: Backend> Optimiser<B> for Sgd<B>
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
        let SgdOptions { momentum, nesterov, weight_decay } = self.options;
        let [m] = &mut self.momentum;
        let all = Region::vector(0, parameters.len());
        backend.axpby(s(1.0), direction, s(momentum), m, all)?;
        if let WeightDecay::Coupled(decay) = weight_decay {
            backend.map(Map::Axpby(s(decay), s(1.0)), &self.decay_jobs, Some(parameters), None, m)?;
        }
        // The decay of the step itself: decoupled, and what Nesterov's `d` has of the coupled one.
        let shrink = match weight_decay {
            WeightDecay::Decoupled(decay) => decay,
            WeightDecay::Coupled(decay) if nesterov => decay,
            WeightDecay::Coupled(_) | WeightDecay::None => 0.0,
        };
        if shrink != 0.0 {
            let shrink = Map::Axpby(s(0.0), s(1.0 - learning_rate * shrink));
            backend.map(shrink, &self.decay_jobs, None, None, parameters)?;
        }
        if nesterov {
            backend.axpby(s(-learning_rate), direction, s(1.0), parameters, all)?;
            backend.axpby(s(-learning_rate * momentum), m, s(1.0), parameters, all)?;
        } else {
            backend.axpby(s(-learning_rate), m, s(1.0), parameters, all)?;
        }
        self.steps += 1;
        Ok(())
    }

    fn state(&self) -> &[B::Buffer] {
        &self.momentum
    }

    fn state_mut(&mut self) -> &mut [B::Buffer] {
        &mut self.momentum
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn resume(&mut self, steps: u64) {
        self.steps = steps;
    }
}
