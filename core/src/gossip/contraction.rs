//! What compressors keep of the differences that are really told, and the steps that this allows.

use super::mixing::Row;
use crate::policy::words::{Saved, Words};
use crate::scalar::Scalar;

/// The running mean of `ω = 1 − ‖d − C(d)‖²/‖d‖²` over what a node has told, later differences counting more.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Contraction {
    /// `(1 − β) Σ βᵗ ω`, the last with `t = 0`.
    sum: f64,
    /// The same of ones.
    weight: f64,
}

/// `β`, the weight of the old mean: a memory of ten differences.
const DECAY: f64 = 0.9;

impl Contraction {
    /// A difference was told, and read as this. One of nothing says nothing.
    pub(super) fn observe<S: Scalar>(&mut self, difference: &[S], read: &[S]) {
        let square = |value: f64| value * value;
        let whole: f64 = difference.iter().map(|value| square(value.wide())).sum();
        let lost: f64 = difference.iter().zip(read).map(|(told, read)| square(told.wide() - read.wide())).sum();
        let kept = 1.0 - lost / whole;
        // Squares can leave the range of numbers at either end where values do not.
        if kept.is_finite() {
            self.sum = DECAY * self.sum + (1.0 - DECAY) * kept.clamp(0.0, 1.0);
            self.weight = DECAY * self.weight + (1.0 - DECAY);
        }
    }

    /// `ω`; `None` before anything was told.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| (self.sum / self.weight).min(1.0))
    }

    pub(super) fn save(&self, words: &mut Words) {
        words.0.extend([self.sum, self.weight].map(f64::to_bits));
    }

    pub(super) fn restore(words: &mut Saved<'_>) -> Option<Self> {
        let mut number = || words.word().map(f64::from_bits).filter(|number| (0.0..=1.0).contains(number));
        Some(Self { sum: number()?, weight: number()? })
    }
}

/// The largest step, of at most 1, with which a node's own movement adds no more to what it has to tell than a compressor of
/// contraction `ω` takes away: `γ` with `(1 − ω)((1 + γa)² + γ²s) = 1`, hence
/// `γ = r/(a + √(a² + (a² + s)r))`, where `a = Σ_j w_ij`, `s = Σ_j w_ij²` over its neighbours and `r = ω/(1 − ω)`.
///
/// Of a difference `d` a part `d̃` is left untold, of `(1 − ω)` its square. Copies are models without it, `x̂ = x − d̃`, so
/// that the node moves by `γ Σ_j w_ij (x̂_j − x̂_i) = γ Σ_j w_ij (x_j − x_i) + γa d̃_i − γ Σ_j w_ij d̃_j`. The first term
/// goes to 0 as models agree; with the other two, `(1 + γa) d̃_i − γ Σ_j w_ij d̃_j` is to be told next. If what different
/// nodes leave untold is uncorrelated and equally large, its square is `(1 − ω)((1 + γa)² + γ²s)‖d‖²`.
///
/// Where a node and all its neighbours leave the opposite untold it is `(1 − ω)(1 + 2γa)²‖d‖²` instead, which half the step
/// keeps below `‖d‖²`: it is `(1 − ω)(1 + γa)²‖d‖²` then, with nothing in place of `γ²s`. Two nodes without other neighbours do,
/// whose errors are opposite, so that half of it is theirs: who gives as much to a neighbour as to all others and itself
/// together is such a node ([Metropolis weights](super::Mixing::metropolis) are a third at most elsewhere). Spectral gaps are
/// not in it: they say how fast nodes agree with a step, not which is too large.
pub fn bearable(row: &Row, contraction: f64) -> f64 {
    let given: f64 = row.others.values().sum();
    let squares: f64 = row.others.values().map(|weight| weight * weight).sum();
    let ratio = contraction / (1.0 - contraction);
    let step = ratio / (given + libm::sqrt(given * given + (given * given + squares) * ratio));
    let is_paired = row.others.values().any(|weight| *weight >= 0.5);
    // Not a number where everything is kept, or nothing given: any step is borne then.
    (if is_paired { step / 2.0 } else { step }).min(1.0)
}
