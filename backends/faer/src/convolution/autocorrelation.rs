//! `Σ patch · patchᵀ` of 3×3 patches without the patches.
//!
//! Two elements of a patch see pixels that lie a fixed shift `d` apart, so every block of the sum is
//! `F(d) = Σ_q x(q) x(q + d)ᵀ` over all pixels, less what the border cuts off: only 13 shifts are different, and
//! 26·C² operations per pixel replace 81·C². Blocks with a vertical (horizontal) shift of 0 at the kernel's last row
//! (column) do not see the image's first row (column), and those at the kernel's first do not see the last; elsewhere
//! the zeros around the image do the cutting by themselves.

use super::geometry::Window;
use crate::kernel::{Lines, Runwise};
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

/// Lines tabulated for `samples` samples.
pub(crate) const fn tables(window: &Window, samples: usize) -> usize {
    samples * window.image.height
}

/// Where each kind of sum starts, in blocks; neighbouring shifts of one row lie side by side in one wide block.
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
}

/// The sums of one shift, element `(a, b)` being that of `x(q)[a]` and `x(q + d)[b]`.
#[derive(Clone, Copy)]
struct Sums<'a, S> {
    wide: &'a [S],
    step: usize,
}

impl<'a, S> Sums<'a, S> {
    /// Of the block of `shifts` shifts that starts at block `at`, the one at `index`.
    fn new(sums: &'a [S], channels: usize, at: usize, shifts: usize, index: usize) -> Self {
        Self { wide: &sums[at * channels * channels + index * channels..], step: shifts * channels }
    }

    /// All pixels, any shift.
    fn shifted(sums: &'a [S], channels: usize, down: usize, right: isize) -> Self {
        if down == 0 {
            Self::new(sums, channels, Sum::LEVEL, 3, right.unsigned_abs())
        } else {
            Self::new(sums, channels, Sum::BELOW + (down - 1) * 5, 5, (right + 2).unsigned_abs())
        }
    }

    fn row(self, a: usize, channels: usize) -> &'a [S] {
        &self.wide[a * self.step..][..channels]
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
    // Lines of `count` pixels, each with the pixels of a run that starts `offset` further on.
    let mut add = |lines: &[usize], step: usize, count: usize, offset: usize, shifts: usize, at: usize| {
        arch.dispatch(Runwise {
            x: &padded[offset..],
            runs: Lines { starts: lines, step },
            len: shifts * channels,
            vectors: padded,
            others: Lines { starts: lines, step },
            rows: channels,
            width: count,
            target: &mut sums[at * block..(at + shifts) * block],
            stride: shifts * channels,
        });
    };
    let lines = &mut tables[..samples * height];
    for (index, line) in lines.iter_mut().enumerate() {
        *line = start(index / height, index % height, 0);
    }
    add(lines, channels, width, 0, 3, Sum::LEVEL);
    for down in [1, 2] {
        add(lines, channels, width, down * row_len - 2 * channels, 5, Sum::BELOW + 5 * (down - 1));
    }
    let lines = &mut tables[..samples];
    for (row, at) in [0, height - 1].into_iter().zip(Sum::ROWS) {
        for (sample, line) in lines.iter_mut().enumerate() {
            *line = start(sample, row, 0);
        }
        add(lines, channels, width, 0, 3, at);
    }
    for (right, at) in [0, width - 1].into_iter().zip(Sum::COLUMNS) {
        for (sample, line) in lines.iter_mut().enumerate() {
            *line = start(sample, 0, right);
        }
        for down in 0..3 {
            add(lines, row_len, height, down * row_len, 1, at + down);
        }
    }
    for (index, (row, right)) in
        [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)].into_iter().enumerate()
    {
        for (sample, line) in lines.iter_mut().enumerate() {
            *line = start(sample, row, right);
        }
        add(lines, channels, 1, 0, 1, Sum::CORNERS + index);
    }
}

/// `target[region] += scale · Σ patch · patchᵀ`, lower triangle of blocks, from the sums.
pub(crate) fn assemble<S: Real>(channels: usize, sums: &[S], scale: S, region: Region, target: &mut [S]) {
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
            let row = edge(i, Sum::ROWS).filter(|_| down == 0);
            let row = row.map(|at| Sums::new(sums, channels, at, 3, right.unsigned_abs()));
            let column = edge(j, Sum::COLUMNS).filter(|_| right == 0);
            let column = column.map(|at| Sums::new(sums, channels, at + down, 1, 0));
            let corner = Sum::CORNERS + 2 * usize::from(i == 0) + usize::from(j == 0);
            let corner = (row.is_some() && column.is_some()).then(|| Sums::new(sums, channels, corner, 1, 0));
            let all = Sums::shifted(sums, channels, down, right);
            for a in 0..channels {
                let at = region.index(second * channels, first * channels + a);
                let target = &mut target[at..at + channels];
                let mut add = |sums: Option<Sums<'_, S>>, scale: S| {
                    for (target, &sum) in target.iter_mut().zip(sums.map_or(&[][..], |sums| sums.row(a, channels))) {
                        *target += scale * sum;
                    }
                };
                add(Some(all), scale);
                add(row, -scale);
                add(column, -scale);
                add(corner, scale);
            }
        }
    }
}

/// Operations on `positions` pixels in all.
pub(crate) const fn flops(window: &Window, samples: usize) -> u64 {
    let pixels = window.image.positions() * 13 + 6 * (window.image.width + window.image.height) + 4;
    2 * (samples * pixels * window.image.channels * window.image.channels) as u64
}
