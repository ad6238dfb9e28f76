//! The forward pass, and `Σ patch · patchᵀ` beside it.

use super::geometry::Window;
use super::rows::{self, Classes, Lanes, Pixels};
use super::{Means, Share, Statistic, autocorrelation, gather_sums, patches, shares};
use crate::arena::Arenas;
use crate::kernel::{Gather, MARGIN, pack, packed_len};
use crate::parallel::Part;
use crate::product::{lower, mirror};
use crate::scalar::{self, Real};
use faer::Par;
use kronfleet_core::backend::{Convolution, Outer};
use kronfleet_core::matrix::Region;

/// How the statistic is summed.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// Not at all.
    Not,
    /// From shifted pixels.
    Shifts,
    /// From pairs of rows.
    Rows(Lanes, &'a Classes),
    /// From patches.
    Patches,
}

pub(crate) fn window(shape: &Convolution) -> Window {
    Window {
        image: shape.input,
        padding: shape.padding,
        kernel: shape.kernel,
        stride: shape.stride,
        dilation: shape.dilation,
        positions: [shape.output.height, shape.output.width],
    }
}

/// The window of one position, or of two side by side where their outputs fit one vector: half of the vectors for a
/// little more of each. And how many positions that is.
fn wide<S: Real>(shape: &Convolution) -> (Window, usize) {
    let one = window(shape);
    let two = one.pair().filter(|_| 2 * shape.output.channels <= scalar::lanes::<S>());
    two.map_or((one, 1), |two| (two, 2))
}

/// See [`Backend::convolution_forward`](kronfleet_core::backend::Backend::convolution_forward). Returns the
/// operations done.
pub(crate) fn forward<S: Real>(
    means: Means<'_, S>,
    shape: &Convolution,
    batch: usize,
    weights: (&[S], Region),
    x: &[S],
    y: &mut [S],
    statistic: Option<Statistic<'_, S>>,
) -> u64 {
    let Means { pool, arenas, workspace } = means;
    let (weights, region) = weights;
    let (rows, elements) = (shape.output.channels, shape.patch_rows());
    assert!(
        region.rows == rows && region.columns == elements && region.row_step == 1,
        "weights of {}×{} where {rows}×{elements} are asked for",
        region.rows,
        region.columns
    );
    let window = window(shape);
    let lanes = if statistic.is_some() { Lanes::choose(shape) } else { None };
    let rows_in = lanes.and_then(|lanes| Some((lanes, Classes::new(&window)?)));
    let way = match (&statistic, &rows_in) {
        (None, _) => Way::Not,
        (Some(_), _) if autocorrelation::applies(shape) => Way::Shifts,
        (Some(_), Some((lanes, classes))) => Way::Rows(*lanes, classes),
        (Some(_), None) => Way::Patches,
    };
    let sums = match way {
        Way::Not => 0,
        Way::Shifts => autocorrelation::len(shape.input.channels),
        Way::Rows(_, classes) => classes.sums(&window, shape.bias),
        Way::Patches => elements * elements,
    };
    let (shares, count) = shares(pool.threads(), batch, shape.output.len(), sums);
    let (wide, together) = wide::<S>(shape);
    let taps = shape.input.channels * wide.kernel[0] * wide.kernel[1];
    let (packed, sums_of_shares) = workspace.take(packed_len(together * rows, taps), sums * count);
    let bias = |row: usize| if shape.bias { weights[region.index(row % rows, elements - 1)] } else { S::of(0.0) };
    let run = shape.kernel[1] * shape.input.channels;
    if together == 1 {
        pack(rows, taps, |row, element| weights[region.index(row, element)], bias, packed);
    } else {
        // The second position's run starts a pixel further on.
        let weight = |row: usize, element: usize| {
            let (line, at) = (element / (taps / shape.kernel[0]), element % (taps / shape.kernel[0]));
            match at.checked_sub(row / rows * shape.input.channels) {
                Some(at) if at < run => weights[region.index(row % rows, line * run + at)],
                _ => S::of(0.0),
            }
        };
        pack(together * rows, taps, weight, bias, packed);
    }
    let packed = &*packed;
    pool.each(&shares[..count], &mut y[..batch * shape.output.len()], sums_of_shares, |_, share, y, sums| {
        share_forward(arenas, shape, share, packed, x, y, sums, way);
    });
    let mut flops = 2 * (rows * elements * shape.output.positions() * batch) as u64;
    if let Some(Statistic { target, region, scale }) = statistic {
        assert!(
            region.rows == elements && region.columns == elements && region.row_step == 1,
            "a statistic of {}×{} where {elements}×{elements} is asked for",
            region.rows,
            region.columns
        );
        let total = gather_sums(sums_of_shares, sums);
        match way {
            Way::Not => {}
            Way::Shifts => {
                autocorrelation::assemble(shape.input.channels, total, scale, region, target);
                flops += autocorrelation::flops(&window, batch);
            }
            Way::Rows(_, classes) => {
                rows::assemble(&window, classes, batch, shape.bias, total, scale, region, target);
                flops += rows::flops(&window, classes, shape.bias, batch);
            }
            Way::Patches => {
                for column in 0..elements {
                    for row in column..elements {
                        target[region.index(row, column)] += scale * total[column * elements + row];
                    }
                }
                flops += (elements * (elements + 1) * shape.output.positions() * batch) as u64;
            }
        }
        mirror(region, 0, target);
    }
    flops
}

fn share_forward<S: Real>(
    arenas: &Arenas<S>,
    shape: &Convolution,
    share: &Share,
    packed: &[S],
    x: &[S],
    y: Part<'_, S>,
    sums: Part<'_, S>,
    way: Way<'_>,
) {
    let window = window(shape);
    let (wide, together) = wide::<S>(shape);
    let wide_taps = shape.input.channels * wide.kernel[0] * wide.kernel[1];
    let y = &mut y.content[share.first * shape.output.len() - y.base..];
    let sums = &mut sums.content[..share.sums];
    let tile = window.tile::<S>().min(share.samples().len().max(1));
    let lines = tile * window.positions[0];
    // What the statistic wants of padded images, of ones and of tables.
    let all = tile * window.padded_len();
    let [images, ones, tables] = match way {
        Way::Shifts => [all + autocorrelation::margin(&window), 0, autocorrelation::tables(&window, tile)],
        Way::Rows(lanes, _) => {
            let images = if lanes == Lanes::Elements { all + MARGIN } else { 0 };
            [images, rows::ones(&window), rows::tables(&window, tile)]
        }
        Way::Not | Way::Patches => [0; 3],
    };
    arenas.with(|arena| {
        let planes_len = tile * window.planes_len() + MARGIN;
        let numbers = planes_len + images + ones + MARGIN;
        let (planes, indices) = arena.tables(numbers, lines + wide_taps + shape.patch_len() + tables);
        let (planes, padded) = planes.split_at_mut(planes_len);
        let (padded, ones) = padded.split_at_mut(images);
        ones.fill(S::of(1.0));
        let (starts, indices) = indices.split_at_mut(lines);
        let (wide_taps, indices) = indices.split_at_mut(wide_taps);
        let (taps, tables) = indices.split_at_mut(shape.patch_len());
        window.plane_starts(starts);
        wide.taps(wide_taps);
        window.taps(taps);
        for first in share.samples().step_by(tile) {
            let samples = first..(first + tile).min(share.last);
            let count = samples.len();
            let (used, margin) = planes.split_at_mut(count * window.planes_len());
            window.spread(samples.clone(), x, used);
            margin[..MARGIN].fill(S::of(0.0));
            let at = (first - share.first) * shape.output.len();
            pulp::Arch::new().dispatch(Gather {
                weights: packed,
                taps: wide_taps,
                x: planes,
                step: together,
                starts: &starts[..count * window.positions[0]],
                width: wide.positions[1],
                rows: together * shape.output.channels,
                y: &mut y[at..at + count * shape.output.len()],
            });
            if images > 0 {
                let (images, margin) = padded.split_at_mut(count * window.padded_len());
                window.pad(samples, x, images);
                margin.fill(S::of(0.0));
            }
            match way {
                Way::Not | Way::Patches => {}
                Way::Shifts => autocorrelation::accumulate(&window, count, padded, tables, sums),
                Way::Rows(lanes, classes) => {
                    let run = shape.kernel[1] * shape.input.channels;
                    let pixels = match lanes {
                        Lanes::Elements => Pixels::Images(padded),
                        Lanes::Positions => Pixels::Planes(planes, &taps[..run]),
                    };
                    rows::accumulate(&window, classes, count, pixels, ones, tables, shape.bias, sums);
                }
            }
        }
    });
    if matches!(way, Way::Patches) {
        square(arenas, shape, share, x, sums);
    }
}

/// The lower triangle of `Σ patch · patchᵀ`, from patches written out.
fn square<S: Real>(arenas: &Arenas<S>, shape: &Convolution, share: &Share, x: &[S], sums: &mut [S]) {
    let tile = patches::tile::<S>(shape);
    arenas.with(|arena| {
        let scratch = arena.numbers(tile * shape.patch_rows() * shape.output.positions());
        for first in share.samples().step_by(tile) {
            let samples = first..(first + tile).min(share.last);
            let patches = Region::matrix(0, shape.patch_rows(), samples.len() * shape.output.positions());
            patches::unfold(shape, samples, x, scratch);
            let target = Region::matrix(0, patches.rows, patches.rows);
            let job = Outer { alpha: S::of(1.0), x: patches, beta: S::of(1.0), c: target };
            lower(&job, scratch, Part::whole(sums), Par::Seq);
        }
    });
}
