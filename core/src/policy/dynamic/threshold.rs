//! How far models may be apart.

/// `Θ`: models are averaged when their variance may be above it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// This, for all parameters together.
    Fixed(f64),
    /// So much for each parameter. The variance grows with the square of the learning rate; the paper's guesses are
    /// 4.91e-5 where bytes are dear, 2.74e-5 where they are not, and 3.89e-5 between (§3.4).
    PerParameter(f64),
    /// As FDA-Opt tunes it (Theologitis & Deligiannakis 2025): the first average follows the first check; from then on
    /// `Θ ← (most/2)/n · H`, where `H` is what the last average found after `n` checks. After `most` checks, models are
    /// averaged in any case. Meant for one check in each local epoch, and `most` = 10.
    Tuned {
        /// Checks between two averages at most.
        most: u32,
    },
}

/// A threshold as it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limit {
    rule: Threshold,
    /// What `H` has to be above; 0 before the first average of a tuned one.
    pub(super) value: f64,
}

impl Limit {
    pub(super) fn new(rule: Threshold, parameters: usize) -> Self {
        let value = match rule {
            Threshold::Fixed(value) => value,
            Threshold::PerParameter(value) => value * parameters as f64,
            Threshold::Tuned { .. } => 0.0,
        };
        Self { rule, value }
    }

    /// The same rule, gone on with.
    pub(super) fn at(self, value: f64) -> Self {
        Self { value, ..self }
    }

    /// Whether models are to be averaged, of which the check of this number since the last average has found `bound`.
    pub(super) fn exceeded(self, check: u64, bound: f64) -> bool {
        match self.rule {
            Threshold::Tuned { most } => self.value == 0.0 || bound > self.value || check >= u64::from(most),
            Threshold::Fixed(_) | Threshold::PerParameter(_) => bound > self.value,
        }
    }

    /// Takes in that models were averaged, of which the last check, of this number, had found this bound, if it had found
    /// anything.
    pub(super) fn averaged(&mut self, found: Option<(u64, f64)>) {
        if let (Threshold::Tuned { most }, Some((check, bound))) = (self.rule, found)
            && bound > 0.0
        {
            self.value = f64::from(most) / 2.0 / check.max(1) as f64 * bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuned_threshold_aims_at_half_the_most_checks() {
        let mut limit = Limit::new(Threshold::Tuned { most: 10 }, 7);
        assert!(limit.exceeded(1, 4.0), "the first check is followed by an average");
        limit.averaged(Some((1, 4.0)));
        assert_eq!(limit.value, 20.0);
        assert!((1..4).all(|check| !limit.exceeded(check, 19.0)) && limit.exceeded(4, 21.0));
        limit.averaged(Some((4, 21.0)));
        assert_eq!(limit.value, 5.0 / 4.0 * 21.0);
        assert!((1..10).all(|check| !limit.exceeded(check, 1.0)) && limit.exceeded(10, 1.0), "no more than ten");
        limit.averaged(None);
        assert_eq!(limit.value, 5.0 / 4.0 * 21.0);
    }

    #[test]
    fn a_fixed_threshold_has_to_be_exceeded() {
        let mut limit = Limit::new(Threshold::PerParameter(0.5), 4);
        assert!(!limit.exceeded(1, 2.0) && limit.exceeded(1, 2.1));
        limit.averaged(Some((1, 9.0)));
        assert_eq!(limit.value, 2.0);
    }
}
