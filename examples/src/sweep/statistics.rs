//! Mean and spread.

use std::fmt;

/// Mean and spread of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation, `√(Σ (x − mean)² / (n − 1))`; `None` of a single one.
    pub deviation: Option<f64>,
    /// How many there are.
    pub count: usize,
}

impl Spread {
    /// Of these values; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (count > 1).then(|| (squares / (count - 1) as f64).sqrt());
        Some(Self { mean, deviation, count })
    }
}

impl fmt::Display for Spread {
    /// `mean ± deviation`, with as many digits as the formatter is asked for, four otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(4);
        write!(f, "{:.digits$}", self.mean)?;
        match self.deviation {
            Some(deviation) => write!(f, " ± {deviation:.digits$}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        let spread = Spread::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).expect("there are values");
        assert_eq!((spread.mean, spread.count), (5.0, 8));
        assert!((spread.deviation.expect("more than one") - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(format!("{spread:.1}"), "5.0 ± 2.1");
        assert_eq!(Spread::of(&[0.5]).expect("a value").to_string(), "0.5000");
        assert_eq!(Spread::of(&[]), None);
    }

    proptest! {
        #[test]
        fn shifting_moves_the_mean_and_scaling_both(
            values in proptest::collection::vec(-1.0..1.0_f64, 2..9),
            shift in -1.0..1.0_f64,
            scale in 0.1..10.0_f64,
        ) {
            let plain = Spread::of(&values).expect("there are values");
            let moved: Vec<f64> = values.iter().map(|value| scale * value + shift).collect();
            let moved = Spread::of(&moved).expect("there are values");
            prop_assert!((moved.mean - (scale * plain.mean + shift)).abs() < 1e-9);
            let deviation = |spread: Spread| spread.deviation.expect("more than one");
            prop_assert!((deviation(moved) - scale * deviation(plain)).abs() < 1e-9);
        }
    }
}
