//! How a learning rate, or a damping, changes over time.

use alloc::vec::Vec;

/// A value over time: a base, a warm-up and a [`Shape`].
///
/// ```
/// use kronfleet_core::schedule::{Schedule, Shape, WarmUp};
/// let mut rate = Schedule::new(0.1, Shape::Step { at: vec![30, 60], factor: 0.1 });
/// rate.warm_up = Some(WarmUp { steps: 10, from: 0.25 });
/// assert_eq!(rate.value(0), 0.025);
/// assert_eq!(rate.value(10), 0.1);
/// assert!((rate.value(60) - 0.001).abs() < 1e-12);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Schedule {
    /// What everything is relative to.
    pub base: f64,
    /// What happens first.
    pub warm_up: Option<WarmUp>,
    /// What happens then.
    pub shape: Shape,
}

/// A linear rise: at step `k < steps` the value is multiplied with `from + (1 − from)·k/steps`.
///
/// P workers whose joint rate is `P·η₁` start at `from = 1/P`, which is the factor `(e(P−1)/W + 1)/P` of the large-batch
/// literature (Goyal et al. 2017), with `e/W` the fraction of the warm-up done.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WarmUp {
    /// Its length, in steps.
    pub steps: u64,
    /// The fraction it begins with.
    pub from: f64,
}

/// The course after the warm-up. Steps count from the beginning of training.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Shape {
    /// The base, always.
    Constant,
    /// Multiplied with `factor` at each of the steps `at`.
    Step {
        /// The steps, in any order.
        at: Vec<u64>,
        /// The factor.
        factor: f64,
    },
    /// From the base down to `last · base` along half a cosine, at step `steps` (Loshchilov & Hutter 2017).
    Cosine {
        /// When it is reached.
        steps: u64,
        /// The fraction left then.
        last: f64,
    },
    /// Multiplied with a factor whenever what [`Schedule::observe`] sees stops falling.
    Plateau(Plateau),
}

/// Falls when progress ends.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Plateau {
    factor: f64,
    patience: u32,
    tolerance: f64,
    best: f64,
    waited: u32,
    scale: f64,
}

impl Plateau {
    /// Multiplies with `factor` after more than `patience` observations in a row that are not below
    /// `(1 − tolerance)` times the best; as PyTorch's `ReduceLROnPlateau` with its relative threshold.
    pub const fn new(factor: f64, patience: u32, tolerance: f64) -> Self {
        Self { factor, patience, tolerance, best: f64::INFINITY, waited: 0, scale: 1.0 }
    }

    fn observe(&mut self, loss: f64) {
        // Written so that a NaN is no progress.
        if loss < self.best * (1.0 - self.tolerance) {
            self.best = loss;
            self.waited = 0;
            return;
        }
        self.waited += 1;
        if self.waited > self.patience {
            self.scale *= self.factor;
            self.waited = 0;
        }
    }
}

impl Schedule {
    /// Without a warm-up.
    pub const fn new(base: f64, shape: Shape) -> Self {
        Self { base, warm_up: None, shape }
    }

    /// The same value for ever.
    pub const fn constant(base: f64) -> Self {
        Self::new(base, Shape::Constant)
    }

    /// The value at step `step`, the first being 0.
    pub fn value(&self, step: u64) -> f64 {
        let rise = match self.warm_up {
            Some(WarmUp { steps, from }) if step < steps => from + (1.0 - from) * (step as f64 / steps as f64),
            _ => 1.0,
        };
        let course = match &self.shape {
            Shape::Constant => 1.0,
            Shape::Step { at, factor } => at.iter().filter(|&&at| at <= step).map(|_| *factor).product(),
            Shape::Cosine { steps, last } => {
                let done = (step as f64 / (*steps).max(1) as f64).min(1.0);
                last + (1.0 - last) * 0.5 * (1.0 + libm::cos(core::f64::consts::PI * done))
            }
            Shape::Plateau(plateau) => plateau.scale,
        };
        self.base * rise * course
    }

    /// Shows a loss, once per epoch or evaluation; only a plateau looks at it.
    pub fn observe(&mut self, loss: f64) {
        if let Shape::Plateau(plateau) = &mut self.shape {
            plateau.observe(loss);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-12 * b.abs().max(1e-12), "{a} instead of {b}");
    }

    #[test]
    fn warm_up_is_the_factor_of_the_literature() {
        let (workers, epochs, per_epoch) = (8.0, 5.0, 13_u64);
        let mut schedule = Schedule::constant(0.1 * workers);
        schedule.warm_up = Some(WarmUp { steps: 5 * per_epoch, from: 1.0 / workers });
        for step in 0..5 * per_epoch {
            let epoch = step as f64 / per_epoch as f64;
            close(schedule.value(step), 0.1 * workers * (epoch * (workers - 1.0) / epochs + 1.0) / workers);
        }
        close(schedule.value(5 * per_epoch), 0.8);
    }

    #[test]
    fn cosine_falls_from_base_to_last() {
        let schedule = Schedule::new(2.0, Shape::Cosine { steps: 100, last: 0.1 });
        close(schedule.value(0), 2.0);
        close(schedule.value(50), 2.0 * 0.55);
        close(schedule.value(100), 0.2);
        close(schedule.value(1000), 0.2);
        assert!((0..100).all(|step| schedule.value(step + 1) < schedule.value(step)));
    }

    #[test]
    fn steps_multiply() {
        let schedule = Schedule::new(1.0, Shape::Step { at: vec![3, 5], factor: 0.5 });
        let values: Vec<f64> = (0..7).map(|step| schedule.value(step)).collect();
        assert_eq!(values, [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
    }

    #[test]
    fn a_plateau_falls_when_progress_ends() {
        let mut schedule = Schedule::new(1.0, Shape::Plateau(Plateau::new(0.1, 2, 1e-4)));
        for loss in [3.0, 2.0, 1.0] {
            schedule.observe(loss);
        }
        close(schedule.value(0), 1.0);
        for loss in [1.0, f64::NAN] {
            schedule.observe(loss);
        }
        close(schedule.value(0), 1.0);
        schedule.observe(1.1);
        close(schedule.value(0), 0.1);
        schedule.observe(0.5);
        close(schedule.value(0), 0.1);
    }
}
