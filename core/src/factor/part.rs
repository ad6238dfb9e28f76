//! Diagonal blocks of a factor that is too large to be decomposed whole.

use crate::mutant::mutant;
use alloc::vec::Vec;

/// A diagonal block of a factor: some of its rows, and the same columns.
///
/// Of a convolution's patches it is whole input channels, at every position of the kernel. As patches have channels
/// fastest, these rows are not neighbours in the factor; in the part they are, still with channels fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its first channel, and how many it has.
    first: usize,
    channels: usize,
    /// Channels of the whole factor, and how often each of them has a row.
    stride: usize,
    kernel: usize,
    /// Whether the bias's row comes last.
    bias: bool,
}

/// Neighbouring rows of a factor that are neighbours in a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first row in the factor.
    pub(crate) from: usize,
    /// The same in the part.
    pub(crate) at: usize,
    /// How many.
    pub(crate) len: usize,
}

impl Part {
    /// A factor as one part.
    pub(crate) const fn whole(rows: usize) -> Self {
        Self { first: 0, channels: rows, stride: rows, kernel: 1, bias: false }
    }

    /// Rows, and columns.
    pub(crate) const fn rows(&self) -> usize {
        self.channels * self.kernel + self.bias as usize
    }

    /// Its rows, in their order.
    pub(crate) fn runs(self) -> impl Iterator<Item = Run> + Clone {
        let Self { first, channels, stride, kernel, bias } = self;
        let of_kernel = (0..kernel).map(move |k| Run { from: k * stride + first, at: k * channels, len: channels });
        let of_bias = bias.then_some(Run { from: kernel * stride, at: kernel * channels, len: 1 });
        of_kernel.chain(of_bias)
    }
}

/// The parts of a factor of so many rows, of which every channel has `kernel`: as many as it takes of `limit` rows each,
/// of near equal size, the larger ones first; one if `limit` is 0 or holds all rows.
///
/// Channels are not divided: a part may have less than a channel more than `limit`, and none is without a channel. A row
/// that is left over, the bias's, goes with the last part.
pub(crate) fn parts(rows: usize, kernel: usize, limit: usize) -> Vec<Part> {
    if limit == 0 || rows <= limit {
        return alloc::vec![Part::whole(rows)];
    }
    let stride = rows / kernel;
    let count = rows.div_ceil(limit).min(stride);
    let (each, more) = (stride / count, stride % count);
    let mut first = 0;
    let part = |number: usize| {
        let channels = each + usize::from(number < more);
        let last = if mutant!(BiasMisplaced) { 0 } else { count - 1 };
        let bias = number == last && rows > kernel * stride;
        first += channels;
        Part { first: first - channels, channels, stride, kernel, bias }
    };
    (0..count).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_part_and_channels_stay_together() {
        for (channels, kernel, bias) in [(1, 1, 0), (7, 1, 0), (12, 9, 1), (5, 9, 0), (64, 9, 1), (3, 49, 1), (2, 4, 0)]
        {
            let rows = channels * kernel + bias;
            for limit in 0..rows + 3 {
                let all = parts(rows, kernel, limit);
                let mut seen: Vec<usize> = Vec::new();
                for part in &all {
                    let found: Vec<usize> = part.runs().flat_map(|run| run.from..run.from + run.len).collect();
                    assert_eq!(found.len(), part.rows());
                    let at: Vec<usize> = part.runs().flat_map(|run| run.at..run.at + run.len).collect();
                    assert!(at.into_iter().eq(0..part.rows()), "rows of a part follow each other");
                    if all.len() > 1 {
                        let channel = |row: &usize| row % channels;
                        let whole = found.iter().filter(|row| **row < channels * kernel);
                        let mut of: Vec<usize> = whole.clone().map(channel).collect();
                        of.sort_unstable();
                        of.dedup();
                        assert_eq!(whole.count(), of.len() * kernel, "whole channels");
                    }
                    seen.extend(found);
                }
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..rows), "{rows} rows in parts of {limit}");
                let wanted = if limit == 0 { 1 } else { rows.div_ceil(limit).max(1) };
                assert!(
                    all.len() == wanted || all.len() == channels.max(1),
                    "{} parts of {rows} by {limit}",
                    all.len()
                );
                let sizes = || all.iter().map(Part::rows);
                assert!(limit == 0 || sizes().all(|size| size < limit + kernel + bias), "{rows} by {limit}");
                let (most, least) = (sizes().max().unwrap_or(0), sizes().min().unwrap_or(0));
                assert!(most - least <= kernel + bias, "near equal");
            }
        }
    }
}
