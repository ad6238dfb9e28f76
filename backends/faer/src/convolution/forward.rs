//! The forward pass, and `Σ patch · patchᵀ` beside it.

use super::geometry::Window;
use super::{Means, Share, Statistic, autocorrelation, gather_sums, patches, shares};
use crate::arena::Arenas;
use crate::kernel::{Gather, pack, packed_len};
use crate::parallel::Part;
use crate::product::{lower, mirror};
use crate::scalar::Real;
use faer::Par;
use kronfleet_core::backend::{Convolution, Outer};
use kronfleet_core::matrix::Region;

/// How the statistic is summed.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Not at all.
    Not,
    /// From shifted pixels.
    Shifts,
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
    let way = match &statistic {
        None => Way::Not,
        Some(_) if autocorrelation::applies(shape) => Way::Shifts,
        Some(_) => Way::Patches,
    };
    let sums = match way {
        Way::Not => 0,
        Way::Shifts => autocorrelation::len(shape.input.channels),
        Way::Patches => elements * elements,
    };
    let (shares, count) = shares(pool.threads(), batch, shape.output.len(), sums);
    let (packed, sums_of_shares) = workspace.take(packed_len(rows, shape.patch_len()), sums * count);
    let bias = |row: usize| if shape.bias { weights[region.index(row, elements - 1)] } else { S::of(0.0) };
    pack(rows, shape.patch_len(), |row, element| weights[region.index(row, element)], bias, packed);
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
        if way == Way::Shifts {
            autocorrelation::assemble(shape.input.channels, total, scale, region, target);
            mirror(region.transposed(), 0, target);
            flops += autocorrelation::flops(&window(shape), batch);
        } else {
            for column in 0..elements {
                for row in column..elements {
                    target[region.index(row, column)] += scale * total[column * elements + row];
                }
            }
            mirror(region, 0, target);
            flops += (elements * (elements + 1) * shape.output.positions() * batch) as u64;
        }
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
    way: Way,
) {
    let window = window(shape);
    let y = &mut y.content[share.first * shape.output.len() - y.base..];
    let sums = &mut sums.content[..share.sums];
    let tile = window.tile::<S>().min(share.samples().len().max(1));
    let (images, margin) = (tile * window.padded_len(), autocorrelation::margin(&window));
    let tables = if way == Way::Shifts { autocorrelation::tables(&window, tile) } else { 0 };
    arenas.with(|arena| {
        let (padded, indices) = arena.tables(images + margin, tile * window.count() + window.run_count() + tables);
        let (starts, indices) = indices.split_at_mut(tile * window.count());
        let (offsets, tables) = indices.split_at_mut(window.run_count());
        window.starts(starts);
        let runs = window.runs(offsets);
        for first in share.samples().step_by(tile) {
            let samples = first..(first + tile).min(share.last);
            let count = samples.len();
            let used = count * window.padded_len();
            window.pad(samples, x, &mut padded[..used]);
            padded[used..used + margin].fill(S::of(0.0));
            let at = (first - share.first) * shape.output.len();
            pulp::Arch::new().dispatch(Gather {
                weights: packed,
                runs,
                x: padded,
                starts: &starts[..count * window.count()],
                rows: shape.output.channels,
                y: &mut y[at..at + count * shape.output.len()],
            });
            if way == Way::Shifts {
                autocorrelation::accumulate(&window, count, padded, tables, sums);
            }
        }
    });
    if way == Way::Patches {
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
