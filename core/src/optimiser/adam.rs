//! Adam and AdamW.

use super::{Optimiser, WeightDecay, jobs};
use crate::backend::{Backend, Buffer as _, Map, MapJob};
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// The knobs of [`Adam`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamOptions {
    /// β₁, β₂.
    pub betas: [f64; 2],
    /// ε, added to the root.
    pub epsilon: f64,
    /// Weight decay; decoupled, it is AdamW.
    pub weight_decay: WeightDecay,
}

impl Default for AdamOptions {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: WeightDecay::None }
    }
}

/// Adam (Kingma & Ba 2015), with decoupled weight decay AdamW (Loshchilov & Hutter 2019).
///
/// ```text
/// m ← β₁m + (1−β₁)d     v ← β₂v + (1−β₂)d²     w ← w − η · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε)
/// ```
pub struct Adam<B: Backend> {
    options: AdamOptions,
    /// m, v.
    moments: [B::Buffer; 2],
    scratch: B::Buffer,
    decay_jobs: Vec<MapJob>,
    steps: u64,
}

impl<B: Backend> Adam<B> {
    /// For `parameters` scalars, of which the regions `decayed` feel weight decay.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(backend: &mut B, parameters: usize, decayed: &[Region], options: AdamOptions) -> Result<Self, B::Error> {
        Ok(Self {
            options,
            moments: [backend.allocate(parameters)?, backend.allocate(parameters)?],
            scratch: backend.allocate(parameters)?,
            decay_jobs: jobs(decayed),
            steps: 0,
        })
    }
}

impl<B: Backend> Optimiser<B> for Adam<B>
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
        let AdamOptions { betas: [first, second], epsilon, weight_decay } = self.options;
        let [m, v] = &mut self.moments;
        let all = Region::vector(0, parameters.len());
        let jobs = [MapJob::unary(all, all)];
        self.steps += 1;
        let direction = if let WeightDecay::Coupled(decay) = weight_decay {
            backend.axpby(s(1.0), direction, s(0.0), &mut self.scratch, all)?;
            backend.map(Map::Axpby(s(decay), s(1.0)), &self.decay_jobs, Some(parameters), None, &mut self.scratch)?;
            &self.scratch
        } else {
            direction
        };
        backend.axpby(s(1.0 - first), direction, s(first), m, all)?;
        backend.map(Map::Moment(s(second)), &jobs, Some(direction), None, v)?;
        if let WeightDecay::Decoupled(decay) = weight_decay {
            let shrink = Map::Axpby(s(0.0), s(1.0 - learning_rate * decay));
            backend.map(shrink, &self.decay_jobs, None, None, parameters)?;
        }
        let correction = |beta: f64| s(1.0 / (1.0 - libm::pow(beta, self.steps as f64)));
        let ahead = Map::AdamDirection(correction(first), correction(second), s(epsilon));
        backend.map(ahead, &jobs, Some(m), Some(v), &mut self.scratch)?;
        backend.axpby(s(-learning_rate), &self.scratch, s(1.0), parameters, all)
    }

    fn state(&self) -> &[B::Buffer] {
        &self.moments
    }

    fn state_mut(&mut self) -> &mut [B::Buffer] {
        &mut self.moments
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn resume(&mut self, steps: u64) {
        self.steps = steps;
    }
}
