//! `Σ patch · patchᵀ` without the patches, a pair of image rows at a time.
//!
//! Rows `i` and `i + δ` of a kernel see rows `ρ` and `ρ + δ` of the padded image, whatever `i` is. So the products of a
//! pair of image rows, summed along them, serve every `i` that meets this pair: instead of
//! `kernel height · (kernel height + 1) / 2` products for each row of positions there are about `kernel height`. Pairs
//! that serve the same kernel rows are summed together; near the top and the bottom these are few.

use super::geometry::Window;
use crate::kernel::{Along, Lines, Runwise, Shifted, padded};
use crate::scalar::Real;
use kronfleet_core::backend::Convolution;
use kronfleet_core::matrix::Region;

/// What fills the registers.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Lanes {
    /// Elements of a run: of padded images.
    Elements,
    /// Positions: of planes.
    Positions,
}

impl Lanes {
    /// Whichever leaves few lanes empty; none, if both leave many or rows cannot be paired.
    pub(crate) fn choose(shape: &Convolution) -> Option<Self> {
        let run = shape.kernel[1] * shape.input.channels;
        let width = shape.output.width;
        // Kernel rows are bits.
        if !(2..=32).contains(&shape.kernel[0]) || shape.dilation != [1, 1] {
            None
        } else if 2 * run > padded(run) {
            Some(Self::Elements)
        } else {
            (2 * width > padded(width)).then_some(Self::Positions)
        }
    }
}

/// Pairs of rows that serve the same kernel rows.
#[derive(Clone, Copy, Debug, Default)]
struct Class {
    /// How far the rows of a pair lie apart.
    apart: usize,
    /// The kernel rows served, as bits.
    served: u32,
    /// The upper row of the first pair.
    first: usize,
}

const fn rows(window: &Window) -> usize {
    window.image.height + 2 * window.padding[0]
}

const fn run(window: &Window) -> usize {
    window.kernel[1] * window.image.channels
}

/// The kernel rows that see row `row` of the padded image while those `apart` further down see `row + apart`; none
/// where only padding is seen.
fn served(window: &Window, apart: usize, row: usize) -> u32 {
    let inside = row >= window.padding[0] && row + apart < window.padding[0] + window.image.height;
    let meets = |i: &usize| {
        let down = row.wrapping_sub(*i);
        row >= *i && down.is_multiple_of(window.stride[0]) && down / window.stride[0] < window.positions[0]
    };
    if inside { (0..window.kernel[0] - apart).filter(meets).map(|i| 1 << i).sum() } else { 0 }
}

/// Most classes of a window.
const MOST: usize = 128;

/// All classes of a window, by distance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Classes {
    list: [Class; MOST],
    count: usize,
    /// How many are of single rows: they come first.
    single: usize,
}

impl Classes {
    /// None, where rows serve kernel rows in too many ways.
    pub(crate) fn new(window: &Window) -> Option<Self> {
        let mut classes = Self { list: [Class::default(); MOST], count: 0, single: 0 };
        for apart in 0..window.kernel[0] {
            let start = classes.count;
            for first in 0..rows(window) {
                let served = served(window, apart, first);
                if served == 0 || classes.list[start..classes.count].iter().any(|class| class.served == served) {
                    continue;
                }
                *classes.list.get_mut(classes.count)? = Class { apart, served, first };
                classes.count += 1;
            }
            if apart == 0 {
                classes.single = classes.count;
            }
        }
        Some(classes)
    }

    fn iter(&self) -> impl Iterator<Item = &Class> {
        self.list[..self.count].iter()
    }

    /// Scalars of blocks.
    const fn blocks(&self, window: &Window) -> usize {
        self.count * run(window) * run(window)
    }

    /// Scalars of sums: a block for each class, then, with a bias, a sum of runs for each class of single rows.
    pub(crate) const fn sums(&self, window: &Window, bias: bool) -> usize {
        self.blocks(window) + if bias { self.single * run(window) } else { 0 }
    }
}

/// Entries tabulated for `samples` samples.
pub(crate) fn tables(window: &Window, samples: usize) -> usize {
    2 * samples * rows(window)
}

/// Scalars that are to be 1.
pub(crate) fn ones(window: &Window) -> usize {
    window.positions[1]
}

/// Where the pixels of a tile lie, followed by a [`MARGIN`](crate::kernel::MARGIN) of zeros.
#[derive(Clone, Copy)]
pub(crate) enum Pixels<'a, S> {
    /// In padded images.
    Images(&'a [S]),
    /// In planes, with the taps of the first kernel row.
    Planes(&'a [S], &'a [usize]),
}

/// Adds the sums over one tile. `ones` is as many as [`ones`] says, and a margin.
pub(crate) fn accumulate<S: Real>(
    window: &Window,
    classes: &Classes,
    samples: usize,
    pixels: Pixels<'_, S>,
    ones: &[S],
    tables: &mut [usize],
    bias: bool,
    sums: &mut [S],
) {
    let run = run(window);
    let (zeros, lines) = tables.split_at_mut(samples * rows(window));
    zeros.fill(0);
    let (blocks, of_bias) = sums.split_at_mut(classes.blocks(window));
    let mut of_bias = of_bias.chunks_exact_mut(run);
    let [image_len, row_len] = match pixels {
        Pixels::Images(_) => [window.padded_len(), window.row_len()],
        Pixels::Planes(..) => [window.planes_len(), window.plane_row_len()],
    };
    for (class, block) in classes.iter().zip(blocks.chunks_exact_mut(run * run)) {
        let pairs = (class.first..rows(window)).filter(|&row| served(window, class.apart, row) == class.served);
        let mut count = 0;
        for row in pairs {
            for sample in 0..samples {
                lines[count] = sample * image_len + row * row_len;
                count += 1;
            }
        }
        let lines = &lines[..count];
        add(window, pixels, class.apart * row_len, lines, None, block);
        if let (0, true, Some(target)) = (class.apart, bias, of_bias.next()) {
            add(window, pixels, 0, lines, Some((ones, &zeros[..count])), target);
        }
    }
}

/// Adds products of runs with those `further` on, or with lines of ones.
fn add<S: Real>(
    window: &Window,
    pixels: Pixels<'_, S>,
    further: usize,
    lines: &[usize],
    ones: Option<(&[S], &[usize])>,
    target: &mut [S],
) {
    let (arch, width) = (pulp::Arch::new(), window.positions[1]);
    match pixels {
        Pixels::Images(images) => {
            let runs = Lines { starts: lines, step: window.step() };
            let ones = ones.map(|(ones, starts)| (ones, Lines { starts, step: 1 }, 1));
            let (vectors, others, rows) = ones.unwrap_or((images, runs, run(window)));
            let (x, len, stride) = (&images[further..], run(window), run(window));
            arch.dispatch(Runwise { x, runs, len, vectors, others, rows, width, target, stride });
        }
        Pixels::Planes(planes, taps) => {
            let right = Shifted { planes: &planes[further..], lines, taps };
            let ones = ones.map(|(planes, lines)| Shifted { planes, lines, taps: &[0] });
            let left = ones.unwrap_or(Shifted { planes, lines, taps });
            arch.dispatch(Along { left, right, width, target });
        }
    }
}

/// `target[region] += scale · Σ patch · patchᵀ`, lower triangle of blocks, from the sums over `samples` samples.
pub(crate) fn assemble<S: Real>(
    window: &Window,
    classes: &Classes,
    samples: usize,
    bias: bool,
    sums: &[S],
    scale: S,
    region: Region,
    target: &mut [S],
) {
    let run = run(window);
    let (blocks, of_bias) = sums.split_at(classes.blocks(window));
    let mut of_bias = of_bias.chunks_exact(run);
    let last = region.rows - 1;
    for (class, block) in classes.iter().zip(blocks.chunks_exact(run * run)) {
        let of_bias = if class.apart == 0 && bias { of_bias.next() } else { None };
        for first in (0..window.kernel[0]).filter(|i| class.served >> i & 1 == 1) {
            for (element, sums) in block.chunks_exact(run).enumerate() {
                let column = first * run + element;
                let at = region.index((first + class.apart) * run, column);
                for (target, &sum) in target[at..at + run].iter_mut().zip(sums) {
                    *target += scale * sum;
                }
                if let Some(of_bias) = of_bias {
                    target[region.index(last, column)] += scale * of_bias[element];
                }
            }
        }
    }
    if bias {
        target[region.index(last, last)] += scale * S::of((window.count() * samples) as f64);
    }
}

/// Operations on `samples` samples.
pub(crate) fn flops(window: &Window, classes: &Classes, bias: bool, samples: usize) -> u64 {
    let run = run(window);
    let line = |class: &Class| run * run + if bias && class.apart == 0 { run } else { 0 };
    let pairs =
        |class: &Class| (0..rows(window)).filter(|&row| served(window, class.apart, row) == class.served).count();
    let pixels: usize = classes.iter().map(|class| pairs(class) * line(class)).sum();
    2 * (pixels * window.positions[1] * samples) as u64
}
