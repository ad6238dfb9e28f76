//! `Σ patch · patchᵀ` of 3×3 patches without the patches.
//!
//! Two elements of a patch see pixels that lie a fixed shift `d` apart, so every block of the sum is
//! `F(d) = Σ_q x(q) x(q + d)ᵀ` over all pixels, less what the border cuts off: only 13 shifts are different, and
//! 26·C² operations per pixel replace 81·C². Blocks with a vertical (horizontal) shift of 0 at the kernel's last row
//! (column) do not see the image's first row (column), and those at the kernel's first do not see the last; elsewhere
//! the zeros around the image do the cutting by themselves.

use super::geometry::Window;
use crate::kernel::{Correlate, Runs};
use crate::scalar::Real;
use kronfleet_core::backend::Convolution;
use kronfleet_core::matrix::Region;

/// Whether this shape is one the sums below are made for.
pub(crate) fn applies(shape: &Convolution) -> bool {
    let square = |pair: [usize; 2], extent: usize| pair == [extent, extent];
    !shape.bias
        && square(shape.kernel, 3)
        && square(shape.stride, 1)
        && square(shape.padding, 1)
        && square(shape.dilation, 1)
        && shape.input.channels.is_multiple_of(16)
        // Of small images the border is too large a part.
        && shape.input.height.min(shape.input.width) >= 6
}

/// Scalars of sums: blocks of `channels × channels`, in the order of [`Sum`].
pub(crate) const fn len(channels: usize) -> usize {
    Sum::COUNT * channels * channels
}

/// Zeros past the last image of a tile: shifted reads go there.
pub(crate) const fn margin(window: &Window) -> usize {
    window.image.channels * (window.image.width + 2 * window.padding[1] + 4)
}

/// Positions tabulated for `samples` samples.
pub(crate) const fn tables(window: &Window, samples: usize) -> usize {
    samples * (window.image.positions() + 2 * window.image.width + 2 * window.image.height + 4)
}

/// Where each kind of sum starts, in blocks.
struct Sum;

impl Sum {
    /// All pixels, shifts (0, 0..=2).
    const LEVEL: usize = 0;
    /// All pixels, shifts (1, −2..=2), then (2, −2..=2).
    const BELOW: usize = 3;
    /// Pixels of the first row, shifts (0, 0..=2); then those of the last.
    const ROWS: [usize; 2] = [13, 16];
    /// Pixels of the first column, shifts (0..=2, 0); then those of the last.
    const COLUMNS: [usize; 2] = [19, 22];
    /// The corner pixels with themselves, row by row.
    const CORNERS: usize = 25;
    const COUNT: usize = 29;

    /// All pixels, any shift.
    fn shift(down: usize, right: isize) -> usize {
        if down == 0 {
            Self::LEVEL + right.unsigned_abs()
        } else {
            Self::BELOW + (down - 1) * 5 + (right + 2).unsigned_abs()
        }
    }
}

/// Adds the sums over the images of one tile, `padded` being followed by a [`margin`] of zeros.
pub(crate) fn accumulate<S: Real>(window: &Window, samples: usize, padded: &[S], tables: &mut [usize], sums: &mut [S]) {
    let (channels, row_len) = (window.image.channels, window.row_len());
    let [height, width] = [window.image.height, window.image.width];
    let block = channels * channels;
    let start = |sample: usize, row: usize, column: usize| {
        sample * window.padded_len() + (row + 1) * row_len + (column + 1) * channels
    };
    let arch = pulp::Arch::new();
    let mut add = |starts: &[usize], runs: Runs<'_>, at: usize| {
        arch.dispatch(Correlate {
            vectors: padded,
            rows: channels,
            vector_starts: starts,
            x: padded,
            starts,
            runs,
            scale: S::of(1.0),
            target: &mut sums[at * block..(at + runs.elements() / channels) * block],
        });
    };
    let level = Runs { offsets: &[0], len: 3 * channels };
    let down = [0, row_len, 2 * row_len];
    let left = [row_len - 2 * channels, 2 * row_len - 2 * channels];
    let below = Runs { offsets: &left, len: 5 * channels };
    let column = Runs { offsets: &down, len: channels };
    let corner = Runs { offsets: &[0], len: channels };

    let (all, tables) = tables.split_at_mut(samples * height * width);
    for (index, target) in all.iter_mut().enumerate() {
        let (sample, position) = (index / (height * width), index % (height * width));
        *target = start(sample, position / width, position % width);
    }
    add(all, level, Sum::LEVEL);
    add(all, below, Sum::BELOW);
    let (edge, _) = tables.split_at_mut(samples * height.max(width));
    for (row, at) in [0, height - 1].into_iter().zip(Sum::ROWS) {
        for (index, target) in edge.iter_mut().enumerate().take(samples * width) {
            *target = start(index / width, row, index % width);
        }
        add(&edge[..samples * width], level, at);
    }
    for (right, at) in [0, width - 1].into_iter().zip(Sum::COLUMNS) {
        for (index, target) in edge.iter_mut().enumerate().take(samples * height) {
            *target = start(index / height, index % height, right);
        }
        add(&edge[..samples * height], column, at);
    }
    for (index, (row, right)) in
        [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)].into_iter().enumerate()
    {
        for (sample, target) in edge.iter_mut().enumerate().take(samples) {
            *target = start(sample, row, right);
        }
        add(&edge[..samples], corner, Sum::CORNERS + index);
    }
}

/// `target[region] += scale · Σ patch · patchᵀ`, upper triangle of blocks, from the sums.
pub(crate) fn assemble<S: Real>(channels: usize, sums: &[S], scale: S, region: Region, target: &mut [S]) {
    let block = |index: usize| &sums[index * channels * channels..][..channels * channels];
    for first in 0..9 {
        for second in first..9 {
            let (i, j) = (first / 3, first % 3);
            let (down, right) = (second / 3 - i, (second % 3) as isize - j as isize);
            // What the border cuts off: the first row or column at the kernel's last, the last at its first.
            let edge = |at: usize, blocks: [usize; 2]| match at {
                0 => Some(blocks[1]),
                2 => Some(blocks[0]),
                _ => None,
            };
            let row = edge(i, Sum::ROWS).filter(|_| down == 0).map(|at| block(at + right.unsigned_abs()));
            let column = edge(j, Sum::COLUMNS).filter(|_| right == 0).map(|at| block(at + down));
            let corner = (row.is_some() && column.is_some())
                .then(|| block(Sum::CORNERS + 2 * usize::from(i == 0) + usize::from(j == 0)));
            let all = block(Sum::shift(down, right));
            for b in 0..channels {
                let at = region.index(first * channels, second * channels + b);
                let target = &mut target[at..at + channels];
                let line = b * channels..(b + 1) * channels;
                for (a, target) in target.iter_mut().enumerate() {
                    let at = line.start + a;
                    let mut value = all[at];
                    if let Some(row) = row {
                        value -= row[at];
                    }
                    if let Some(column) = column {
                        value -= column[at];
                    }
                    if let Some(corner) = corner {
                        value += corner[at];
                    }
                    *target += scale * value;
                }
            }
        }
    }
}

/// Operations on `positions` pixels in all.
pub(crate) const fn flops(window: &Window, samples: usize) -> u64 {
    let pixels = window.image.positions() * 13 + 6 * (window.image.width + window.image.height) + 4;
    2 * (samples * pixels * window.image.channels * window.image.channels) as u64
}
