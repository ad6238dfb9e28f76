//! What was measured: seconds by contestant and size.

use std::collections::BTreeMap;

/// Seconds of every repetition, or why there are none.
#[derive(Debug, Default)]
pub(crate) struct Measurements {
    /// Contestants in the order of their first turn.
    contestants: Vec<Contestant>,
}

/// What one contestant did.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) seconds: BTreeMap<usize, Vec<f64>>,
    pub(crate) skipped: Option<String>,
}

impl Measurements {
    pub(crate) fn contestants(&self) -> &[Contestant] {
        &self.contestants
    }

    /// Adds repetitions with vectors of so many bytes.
    pub(crate) fn add(&mut self, name: &str, bytes: usize, seconds: impl IntoIterator<Item = f64>) {
        self.contestant(name).seconds.entry(bytes).or_default().extend(seconds);
    }

    /// Says why a contestant did not take part.
    pub(crate) fn skip(&mut self, name: &str, reason: String) {
        self.contestant(name).skipped = Some(reason);
    }

    /// Whether a contestant is known not to be able to take part.
    pub(crate) fn is_skipped(&self, name: &str) -> bool {
        self.contestants.iter().any(|known| known.name == name && known.skipped.is_some())
    }

    fn contestant(&mut self, name: &str) -> &mut Contestant {
        let at = self.contestants.iter().position(|known| known.name == name).unwrap_or_else(|| {
            let contestant = Contestant { name: name.into(), seconds: BTreeMap::new(), skipped: None };
            self.contestants.push(contestant);
            self.contestants.len() - 1
        });
        &mut self.contestants[at]
    }
}

/// How often an operation on so many bytes is repeated in one pass; the peers' programs count the same.
pub(crate) fn repetitions(bytes: usize) -> usize {
    match bytes {
        0..=0x4_0000 => 200,
        0x4_0001..=0x40_0000 => 40,
        _ => 10,
    }
}

/// The value below which so large a fraction of them lies; 0 if there are none.
pub(crate) fn quantile(values: &[f64], fraction: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * fraction).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values() {
        let values = [3.0, 1.0, 2.0, 4.0];
        assert_eq!([0.0, 0.25, 0.5, 0.51, 0.99, 1.0].map(|at| quantile(&values, at)), [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
