//! How much of its weight a node of push-sum gives away.

use crate::policy::words::{Saved, Words};
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;

/// How much of its weight a node gives away in an exchange: `f = Γw`, of which each receiver and the node itself get the
/// same part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// `Γ = γ`: 1 where nothing is compressed, .05 to .2 where much is.
    Fixed(f64),
    /// Less of the tensors whose copies are far from what they are copies of.
    Adaptive(AdaptivePace),
}

/// `v ← βv + (1 − β)·mean(q²); Γ = min(cap, γ/(√v̂ + ε))`, for each tensor by itself, with the compressed differences `q`
/// that the node has told in this exchange and `v̂ = v/(1 − βᵗ)`.
///
/// The sender alone decides and says what it gives, so that masses are kept; a receiver that scaled what it takes, as
/// AdaGossip does, would lose some. As models agree, `q` goes to 0 and `Γ` to `cap`, which therefore has to be stable by
/// itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptivePace {
    /// `β`, the weight of the old second moment, below 1.
    pub decay: f64,
    /// `ε`, added to the root of the second moment; above 0.
    pub epsilon: f64,
    /// `γ`, in the unit of parameters, above 0.
    pub step: f64,
    /// The largest `Γ`, above 0 and at most 1.
    pub cap: f64,
}

impl Default for AdaptivePace {
    /// A memory of ten exchanges; `γ = 0.001`, at most a fifth.
    fn default() -> Self {
        Self { decay: 0.9, epsilon: 1e-8, step: 1e-3, cap: 0.2 }
    }
}

impl Pace {
    /// # Panics
    /// If more could be given than there is, or nothing.
    #[track_caller]
    pub(super) fn check(&self) {
        match *self {
            Self::Fixed(step) => {
                assert!(step > 0.0 && step <= 1.0, "a consensus step size of {step}: nobody can give more than he has");
            }
            Self::Adaptive(AdaptivePace { decay, epsilon, step, cap }) => {
                assert!(
                    cap > 0.0 && cap <= 1.0 && step > 0.0,
                    "a consensus step size of {step}, {cap} at most: nobody can give more than he has"
                );
                assert!(
                    epsilon > 0.0 && (0.0..1.0).contains(&decay),
                    "a second moment of decay {decay}, ε = {epsilon}"
                );
            }
        }
    }
}

/// `v` of each tensor, and of how many exchanges.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moments {
    values: Vec<f64>,
    exchanges: u64,
}

impl Moments {
    pub(super) fn new(tensors: usize) -> Self {
        Self { values: vec![0.0; tensors], exchanges: 0 }
    }

    /// `Γ` of each tensor, for an exchange in which these differences were told, one to each receiver.
    pub(super) fn observe<S: Scalar>(&mut self, pace: &Pace, lengths: &[usize], told: &[Vec<S>]) -> Vec<f64> {
        let AdaptivePace { decay, epsilon, step, cap } = match *pace {
            Pace::Fixed(step) => return vec![step; lengths.len()],
            Pace::Adaptive(adaptive) => adaptive,
        };
        self.exchanges = self.exchanges.saturating_add(1);
        let correction = 1.0 - libm::pow(decay, self.exchanges as f64);
        let mut start = 0;
        let rates = lengths.iter().zip(&mut self.values).map(|(&len, moment)| {
            let tensor = start..start + len;
            start += len;
            let squares = told.iter().flat_map(|q| &q[tensor.clone()]).map(|q| q.wide() * q.wide()).sum::<f64>();
            *moment = decay * *moment + (1.0 - decay) * squares / (len * told.len()).max(1) as f64;
            (step / (libm::sqrt(*moment / correction) + epsilon)).min(cap)
        });
        rates.collect()
    }

    pub(super) fn save(&self, words: &mut Words) {
        words.0.push(self.exchanges);
        words.values(&self.values);
    }

    pub(super) fn restore(words: &mut Saved<'_>, tensors: usize) -> Option<Self> {
        let (exchanges, values): (_, Vec<f64>) = (words.word()?, words.values()?);
        (values.len() == tensors).then_some(Self { values, exchanges })
    }
}
