//! Damping that follows how well the quadratic model predicts.

/// The rule of Levenberg and Marquardt (Martens & Grosse 2015, §6.5, with the constants of kfac-jax).
///
/// Every `interval` steps, with `ρ = (h(θ+δ) − h(θ)) / M(δ)`: the damping shrinks by `decay^interval` where
/// `ρ > 3/4`, and grows by the inverse where `ρ < 1/4`. A ρ that is not a number counts as failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevenbergMarquardt {
    /// Steps between two readings.
    pub interval: u64,
    /// The factor of one step.
    pub decay: f64,
    /// The smallest damping.
    pub least: f64,
}

impl Default for LevenbergMarquardt {
    fn default() -> Self {
        Self { interval: 5, decay: 0.9, least: 1e-8 }
    }
}

impl LevenbergMarquardt {
    /// Whether step `step` is one to read the model at.
    pub fn reads(&self, step: u64) -> bool {
        (step + 1).is_multiple_of(self.interval.max(1))
    }

    /// The damping after a reading: the loss changed by `change` where the model had said `predicted`.
    pub fn damping(&self, damping: f64, change: f64, predicted: f64) -> f64 {
        let ratio = change / predicted;
        let factor = libm::pow(self.decay, self.interval as f64);
        let next = if ratio > 0.75 {
            damping * factor
        } else if ratio >= 0.25 {
            damping
        } else {
            damping / factor
        };
        next.max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damping_follows_the_ratio() {
        let rule = LevenbergMarquardt::default();
        let factor = 0.9_f64.powi(5);
        let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-15 * b, "{a} instead of {b}");
        close(rule.damping(0.01, -0.9, -1.0), 0.01 * factor);
        close(rule.damping(0.01, -0.5, -1.0), 0.01);
        close(rule.damping(0.01, -0.1, -1.0), 0.01 / factor);
        // The loss rose although the model fell.
        close(rule.damping(0.01, 0.5, -1.0), 0.01 / factor);
        close(rule.damping(0.01, f64::NAN, -1.0), 0.01 / factor);
        close(rule.damping(0.01, 0.0, 0.0), 0.01 / factor);
        close(rule.damping(1e-8, -1.0, -1.0), 1e-8);
    }

    #[test]
    fn readings_come_every_interval() {
        let rule = LevenbergMarquardt::default();
        let read: alloc::vec::Vec<u64> = (0..15).filter(|&step| rule.reads(step)).collect();
        assert_eq!(read, [4, 9, 14]);
    }
}
