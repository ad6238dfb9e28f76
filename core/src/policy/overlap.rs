//! How training goes on while a contribution is under way.

use core::ops::Range;

/// How training goes on while a contribution is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overlap {
    /// Steps from contributing to taking the outcome in: not before, however early it is there.
    pub delay: u64,
    /// Steps after which the node waits for the outcome; [`u64::MAX`] to go on as long as it takes.
    pub most: u64,
    /// What of the model is contributed: the part of this number, out of so many; all of them after the last iteration, so
    /// that whoever is healed by what comes of it has a whole model.
    pub part: (u32, u32),
    /// What becomes of a model that has gone on meanwhile.
    pub blend: Blend,
}

/// What becomes of a model `x` that was `x_then` when it was contributed, where `x̄` was made of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blend {
    /// `x ← x̄ + (x − x_then)`: the steps made meanwhile are kept (LASGD, arXiv 2203.13085).
    Progress,
    /// `x ← αx + (1 − α)x̄` (Streaming DiLoCo, arXiv 2501.18512).
    Share(f64),
}

impl Blend {
    /// The new value.
    pub fn of(self, x: f64, then: f64, made: f64) -> f64 {
        match self {
            Self::Progress => made + (x - then),
            // Whatever it was.
            Self::Share(0.0) => made,
            Self::Share(own) => own * x + (1.0 - own) * made,
        }
    }
}

/// The values of part `number`, of `parts` of a model with so many values: equal up to one value.
pub fn part(len: usize, number: u32, parts: u32) -> Range<usize> {
    let at = |number: u32| (len as u128 * u128::from(number) / u128::from(parts)) as usize;
    at(number)..at(number + 1)
}
