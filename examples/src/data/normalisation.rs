//! Mean and deviation of each channel, so that pixels reach the network centred and of unit variance.

use crate::data::set::DataSet;

/// Mean and standard deviation of each channel, of pixels scaled to `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    /// One per channel.
    pub mean: Vec<f64>,
    /// One per channel, above 0.
    pub deviation: Vec<f64>,
}

impl Normalisation {
    /// The statistics of all pixels of `set`, which should be the training set.
    ///
    /// A channel of one constant value has deviation 0 and is given 1 instead, so that it becomes 0.
    pub fn of(set: &DataSet) -> Self {
        let channels = set.shape().channels;
        let mut counts = vec![[0_u64; 256]; channels];
        for pixel in set.pixels().chunks_exact(channels) {
            for (counts, &value) in counts.iter_mut().zip(pixel) {
                counts[usize::from(value)] += 1;
            }
        }
        let (mean, deviation) = counts.iter().map(moments).unzip();
        Self { mean, deviation }
    }
}

fn moments(counts: &[u64; 256]) -> (f64, f64) {
    let weighted = |value: &dyn Fn(f64) -> f64| -> f64 {
        counts.iter().enumerate().map(|(level, &count)| count as f64 * value(level as f64 / 255.0)).sum()
    };
    let total = weighted(&|_| 1.0);
    let mean = weighted(&|level| level) / total;
    // A constant channel may miss its own mean by rounding; real deviations are a fraction of a level at least.
    let deviation = (weighted(&|level| (level - mean).powi(2)) / total).sqrt();
    (mean, if deviation < 1e-9 { 1.0 } else { deviation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::set::Shape;

    #[test]
    fn channels_have_their_own_statistics() {
        let shape = Shape { channels: 3, height: 1, width: 2 };
        let set = DataSet::new(shape, 1, vec![0, 51, 255, 255, 51, 255], vec![0]);
        let Normalisation { mean, deviation } = Normalisation::of(&set);
        assert!((mean[0] - 0.5).abs() < 1e-12 && (mean[1] - 0.2).abs() < 1e-12 && (mean[2] - 1.0).abs() < 1e-12);
        assert!((deviation[0] - 0.5).abs() < 1e-12);
        assert_eq!(deviation[1..], [1.0, 1.0]);
    }
}
