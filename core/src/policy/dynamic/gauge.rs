//! Estimates of how far models are apart, from a few numbers of each.

use super::confidence::{Confidence, Drifts, SketchError, check};
use super::sketch::Sketcher;
use crate::seed::Seed;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// What each node tells of its drift `u = w − w₀`, and what follows for the variance
/// `Var = mean‖u‖² − ‖ū‖²` (Theologitis et al. 2024).
///
/// All give an `H` above which `Var` is not: [`Naive`](Self::Naive) and [`Linear`](Self::Linear) always,
/// [`Sketch`](Self::Sketch) with a stated confidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// `H = mean‖u‖²`, from one number of each.
    Naive,
    /// `H = mean‖u‖² − (mean⟨ξ,u⟩)²`, from two numbers of each; `ξ` is the direction of the last average's step.
    Linear,
    /// `H = mean‖u‖² − M₂/(1 + ε)`, from a number and a sketch of each.
    Sketch {
        /// Rows of a sketch.
        rows: usize,
        /// Columns of a sketch.
        columns: usize,
        /// How sure it is that `H` is not below `Var`.
        confidence: Confidence,
        /// Of which drifts it is so sure.
        drifts: Drifts,
    },
}

/// What a node tells of its drift.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// `‖u‖²`.
    pub norm: f64,
    /// [`Gauge::Linear`]: `⟨ξ,u⟩`. [`Gauge::Sketch`]: the sketch, by rows.
    pub more: Vec<f64>,
}

impl State {
    /// Whether everything is finite.
    pub fn is_finite(&self) -> bool {
        self.norm.is_finite() && self.more.iter().all(|value| value.is_finite())
    }

    /// An order of states that does not depend on whose they are.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let more = || self.more.iter().zip(&other.more).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
        self.norm.total_cmp(&other.norm).then_with(|| more().unwrap_or(Ordering::Equal))
    }
}

/// `ξ`, a direction that all nodes know.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis(Vec<f64>);

impl Axis {
    /// The direction from one vector to another; `None` if they are equal.
    pub fn between(before: &[f64], after: &[f64]) -> Option<Self> {
        Self::of(after.iter().zip(before).map(|(after, before)| after - before).collect())
    }

    /// A direction of its own for each seed.
    pub fn random(len: usize, seed: Seed) -> Option<Self> {
        let mut random = seed.derive("axis", 0).random();
        Self::of((0..len).map(|_| random.normal()).collect())
    }

    fn of(mut vector: Vec<f64>) -> Option<Self> {
        let norm = libm::sqrt(vector.iter().map(|value| value * value).sum());
        vector.iter_mut().for_each(|value| *value /= norm);
        vector.iter().all(|value| value.is_finite()).then_some(Self(vector))
    }

    /// Its coordinates, of which the squares add up to 1.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    pub(super) fn from_values(values: Vec<f64>) -> Self {
        Self(values)
    }
}

impl Gauge {
    /// Whether it can be told and keeps what it says.
    ///
    /// # Errors
    /// If its sketches have no rows or columns, too few columns for their confidence, or too many values for a note.
    pub fn check(self) -> Result<(), SketchError> {
        match self {
            Self::Naive | Self::Linear => Ok(()),
            Self::Sketch { rows, columns, drifts, .. } => check(rows, columns, drifts),
        }
    }

    /// What sketches, where this gauge does.
    pub fn sketcher(self, len: usize, seed: Seed) -> Option<Sketcher> {
        match self {
            Self::Sketch { rows, columns, .. } => Some(Sketcher::new(rows, columns, len, seed)),
            Self::Naive | Self::Linear => None,
        }
    }

    /// Numbers of a state beside the norm.
    pub fn more(self) -> usize {
        match self {
            Self::Naive => 0,
            Self::Linear => 1,
            Self::Sketch { rows, columns, .. } => rows * columns,
        }
    }

    /// What to tell of this drift; without an `axis`, a linear gauge tells as much as a naive one.
    pub fn state(self, drift: &[f64], axis: Option<&Axis>, sketcher: Option<&Sketcher>) -> State {
        let norm = drift.iter().map(|value| value * value).sum();
        let more = match self {
            Self::Naive => Vec::new(),
            Self::Linear => {
                let along = |axis: &Axis| axis.0.iter().zip(drift).map(|(axis, value)| axis * value).sum();
                vec![axis.map_or(0.0, along)]
            }
            Self::Sketch { .. } => sketcher.map_or_else(Vec::new, |sketcher| sketcher.sketch(drift)),
        };
        State { norm, more }
    }

    /// `H` of nodes that have these states, and of others that are `away`: so far from `w₀` at most, in whatever direction.
    ///
    /// `common` says that all states are of the same axis; otherwise what they tell of it is left out.
    ///
    /// With `n` states and `m` that are away at `ℓ`, `H` is the lesser of two bounds. With `w₀` as the centre, it is
    /// `(Σ‖u‖² + Σℓ²)/(n + m)`. With the mean of the states as the centre, whose distance from `w₀` is `√(mean‖u‖²)` at most,
    /// it is `(n·H(states) + Σ(ℓ + √mean‖u‖²)²)/(n + m)`. `Var` is about the mean of all, for which it is least.
    pub fn bound(self, states: &[&State], away: &[f64], common: bool, sketcher: Option<&Sketcher>) -> f64 {
        let count = states.len().max(1) as f64;
        let norm = states.iter().map(|state| state.norm).sum::<f64>() / count;
        let alone = self.alone(states, norm, common, sketcher);
        if away.is_empty() {
            return alone;
        }
        let about = |centre: f64| away.iter().map(|away| (away + centre) * (away + centre)).sum::<f64>();
        let about_origin = count * norm + about(0.0);
        let about_mean = count * alone + about(libm::sqrt(norm));
        about_origin.min(about_mean) / (count + away.len() as f64)
    }

    /// `H` of these states alone, the mean of their `‖u‖²` being `norm`.
    fn alone(self, states: &[&State], norm: f64, common: bool, sketcher: Option<&Sketcher>) -> f64 {
        let mean =
            |place: usize| states.iter().map(|state| state.more[place]).sum::<f64>() / states.len().max(1) as f64;
        match self {
            Self::Naive => norm,
            Self::Linear if !common => norm,
            Self::Linear => {
                let along = mean(0);
                norm - along * along
            }
            Self::Sketch { rows, columns, confidence, drifts } => {
                let sketch: Vec<f64> = (0..rows * columns).map(mean).collect();
                let drift = sketcher.map_or(0.0, |sketcher| sketcher.norm(&sketch));
                // Nothing is spread over more columns than there are parameters.
                let spread = sketcher.is_some_and(|sketcher| sketcher.len() >= columns);
                let drifts = if spread { drifts } else { Drifts::Any };
                norm - drift / (1.0 + confidence.epsilon(rows, columns, drifts))
            }
        }
    }
}
