//! The backward pass, and `Σ dy · dyᵀ` beside it.

use super::forward::window;
use super::geometry::Window;
use super::{Means, Share, Statistic, gather_sums, patches, shares};
use crate::arena::Arenas;
use crate::kernel::{Correlate, Gather, Runs, pack, packed_len, padded};
use crate::parallel::Part;
use crate::product::multiply;
use crate::reduction::reduce;
use crate::scalar::Real;
use faer::Par;
use kronfleet_core::backend::{Convolution, Gemm, ReduceJob};
use kronfleet_core::matrix::Region;

/// How the gradient of the input is computed.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Not at all.
    Not,
    /// As a convolution of `dy` with the kernels turned round.
    Turned(Window),
    /// Patches, folded.
    Patches,
}

fn way(shape: &Convolution, wanted: bool) -> Way {
    if !wanted {
        return Way::Not;
    }
    let reach = |axis: usize| shape.dilation[axis] * (shape.kernel[axis] - 1);
    let fits = |axis: usize| shape.stride[axis] == 1 && shape.padding[axis] <= reach(axis);
    let window = Window {
        image: shape.output,
        padding: [0, 1].map(|axis| reach(axis).saturating_sub(shape.padding[axis])),
        kernel: shape.kernel,
        stride: [1, 1],
        dilation: shape.dilation,
        positions: [shape.input.height, shape.input.width],
    };
    if fits(0) && fits(1) { Way::Turned(window) } else { Way::Patches }
}

/// See [`Backend::convolution_backward`](kronfleet_core::backend::Backend::convolution_backward). Returns the
/// operations done.
pub(crate) fn backward<S: Real>(
    means: Means<'_, S>,
    shape: &Convolution,
    batch: usize,
    weights: (&[S], Region),
    x: &[S],
    dy: &[S],
    gradient: &mut [S],
    dx: Option<&mut [S]>,
    statistic: Option<Statistic<'_, S>>,
) -> u64 {
    let Means { pool, arenas, workspace } = means;
    let (content, region) = weights;
    let (outputs, channels, elements) = (shape.output.channels, shape.input.channels, shape.patch_rows());
    assert!(
        region.rows == outputs && region.columns == elements && region.row_step == 1,
        "weights of {}×{} where {outputs}×{elements} are asked for",
        region.rows,
        region.columns
    );
    let way = way(shape, dx.is_some());
    let squares = if statistic.is_some() { outputs * outputs } else { 0 };
    let each = outputs * elements + squares;
    let written = if dx.is_some() { shape.input.len() } else { 0 };
    let (shares, count) = shares(pool.threads(), batch, written, each);
    let turned = outputs * shape.kernel[0] * shape.kernel[1];
    let packing = if matches!(way, Way::Turned(_)) { packed_len(channels, turned) } else { 0 };
    let (packed, sums) = workspace.take(packing, each * count);
    if packing > 0 {
        let taps = shape.kernel[0] * shape.kernel[1];
        // Element (i, j, o) of the turned kernel for channel c is element (last − i, last − j, c) of kernel o.
        let weight = |channel: usize, element: usize| {
            let (tap, output) = (taps - 1 - element / outputs, element % outputs);
            content[region.index(output, tap * channels + channel)]
        };
        pack(channels, turned, weight, |_| S::of(0.0), packed);
    }
    let packed = &*packed;
    let mut nothing = [];
    let dx = dx.map_or(&mut nothing[..], |dx| &mut dx[..batch * shape.input.len()]);
    pool.each(&shares[..count], dx, sums, |_, share, dx, sums| {
        share_backward(arenas, shape, share, weights, packed, x, dy, dx, sums, way);
    });
    let total = gather_sums(sums, each);
    for (column, sums) in total[..outputs * elements].chunks_exact(outputs.max(1)).enumerate() {
        let at = region.index(0, column);
        gradient[at..at + outputs].copy_from_slice(sums);
    }
    let positions = (shape.output.positions() * batch) as u64;
    let mut flops = 2 * (outputs * elements) as u64 * positions;
    flops += match way {
        Way::Not => 0,
        Way::Turned(_) => 2 * (channels * turned * shape.input.positions() * batch) as u64,
        Way::Patches => 2 * (outputs * shape.patch_len()) as u64 * positions,
    };
    if let Some(Statistic { target, region, scale }) = statistic {
        assert!(
            region.rows == outputs && region.columns == outputs && region.row_step == 1,
            "a statistic of {}×{} where {outputs}×{outputs} is asked for",
            region.rows,
            region.columns
        );
        for (column, sums) in total[outputs * elements..].chunks_exact(outputs).enumerate() {
            let at = region.index(0, column);
            for (target, &sum) in target[at..at + outputs].iter_mut().zip(sums) {
                *target += scale * sum;
            }
        }
        flops += 2 * (outputs * outputs) as u64 * positions;
    }
    flops
}

fn share_backward<S: Real>(
    arenas: &Arenas<S>,
    shape: &Convolution,
    share: &Share,
    weights: (&[S], Region),
    packed: &[S],
    x: &[S],
    dy: &[S],
    dx: Part<'_, S>,
    sums: Part<'_, S>,
    way: Way,
) {
    let sums = &mut sums.content[..share.sums];
    let dx = &mut dx.content[share.first * share.written - dx.base..];
    if way == Way::Patches {
        folded(arenas, shape, share, weights, dy, dx);
    }
    gradient(arenas, shape, share, packed, x, dy, dx, sums, way);
}

/// `dx ← fold(Wᵀ · dy)`.
fn folded<S: Real>(
    arenas: &Arenas<S>,
    shape: &Convolution,
    share: &Share,
    weights: (&[S], Region),
    dy: &[S],
    dx: &mut [S],
) {
    let kernel = weights.1.block(0, 0, weights.1.rows, shape.patch_len());
    let tile = patches::tile::<S>(shape);
    arenas.with(|arena| {
        let scratch = arena.numbers(tile * shape.patch_len() * shape.output.positions());
        for first in share.samples().step_by(tile) {
            let samples = first..(first + tile).min(share.last);
            let columns = samples.len() * shape.output.positions();
            let cotangent = Region::matrix(first * shape.output.len(), shape.output.channels, columns);
            let product = Gemm::product(kernel.transposed(), cotangent, Region::matrix(0, shape.patch_len(), columns));
            multiply(&product, weights.0, dy, Part::whole(scratch), Par::Seq);
            let within = samples.start - share.first..samples.end - share.first;
            patches::fold(shape, within, scratch, dx);
        }
    });
}

/// The sums, and `dx` where it is a convolution with turned kernels.
fn gradient<S: Real>(
    arenas: &Arenas<S>,
    shape: &Convolution,
    share: &Share,
    packed: &[S],
    x: &[S],
    dy: &[S],
    dx: &mut [S],
    sums: &mut [S],
    way: Way,
) {
    let window = window(shape);
    let (outputs, count) = (shape.output.channels, window.count());
    let tile = window.tile::<S>().min(share.samples().len().max(1));
    let turned = if let Way::Turned(window) = way { Some(window) } else { None };
    let (turned_len, turned_count) = turned.map_or((0, 0), |window| (window.padded_len(), window.count()));
    let turned_runs = turned.map_or(0, |window| window.run_count());
    // Vectors must be whole: outputs that do not fill them are copied between zeros.
    let width = padded(outputs);
    let copied = if width == outputs { 0 } else { width * count };
    let (of_weights, of_squares) = sums.split_at_mut(outputs * shape.patch_rows());
    let (of_kernels, of_bias) = of_weights.split_at_mut(outputs * shape.patch_len());
    arenas.with(|arena| {
        let entries = tile * (3 * count + turned_count) + window.run_count() + turned_runs;
        let (numbers, indices) = arena.tables(tile * (window.padded_len() + turned_len + copied), entries);
        let (images, numbers) = numbers.split_at_mut(tile * window.padded_len());
        let (cotangents, copies) = numbers.split_at_mut(tile * turned_len);
        let (starts, indices) = indices.split_at_mut(tile * count);
        let (vector_starts, indices) = indices.split_at_mut(tile * count);
        let (column_starts, indices) = indices.split_at_mut(tile * count);
        let (turned_starts, indices) = indices.split_at_mut(tile * turned_count);
        let (offsets, turned_offsets) = indices.split_at_mut(window.run_count());
        window.starts(starts);
        let runs = window.runs(offsets);
        for (position, (vector, column)) in vector_starts.iter_mut().zip(column_starts.iter_mut()).enumerate() {
            (*vector, *column) = (position * width, position * outputs);
        }
        let turned = turned.map(|window| {
            window.starts(turned_starts);
            (window, window.runs(turned_offsets))
        });
        let arch = pulp::Arch::new();
        for first in share.samples().step_by(tile) {
            let samples = first..(first + tile).min(share.last);
            let positions = samples.len() * count;
            let dy = &dy[first * shape.output.len()..samples.end * shape.output.len()];
            if let Some((window, runs)) = turned {
                let used = samples.len() * turned_len;
                window.pad(0..samples.len(), dy, &mut cotangents[..used]);
                let at = (first - share.first) * shape.input.len();
                arch.dispatch(Gather {
                    weights: packed,
                    runs,
                    x: cotangents,
                    starts: &turned_starts[..samples.len() * turned_count],
                    rows: shape.input.channels,
                    y: &mut dx[at..at + samples.len() * shape.input.len()],
                });
            }
            let vectors = if copied == 0 {
                dy
            } else {
                for (copy, column) in copies.chunks_exact_mut(width).zip(dy.chunks_exact(outputs)) {
                    copy[..outputs].copy_from_slice(column);
                }
                &*copies
            };
            let correlate = |x: &[S], starts: &[usize], runs: Runs<'_>, target: &mut [S]| {
                arch.dispatch(Correlate {
                    vectors,
                    rows: outputs,
                    vector_starts: &vector_starts[..positions],
                    x,
                    starts: &starts[..positions],
                    runs,
                    scale: S::of(1.0),
                    target,
                });
            };
            window.pad(samples.clone(), x, &mut images[..samples.len() * window.padded_len()]);
            correlate(images, starts, runs, of_kernels);
            if !of_squares.is_empty() {
                correlate(dy, column_starts, Runs { offsets: &[0], len: outputs }, of_squares);
            }
            if shape.bias {
                let all = Region::matrix(0, outputs, positions);
                let sum = ReduceJob { beta: S::of(1.0), ..ReduceJob::sum(all, Region::vector(0, outputs)) };
                reduce(&[sum], dy, None, of_bias);
            }
        }
    });
}
