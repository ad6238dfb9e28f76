//! The backward pass, and `Σ dy · dyᵀ` beside it.

mod input;
mod weights;

use super::{Means, Share, Statistic, gather_sums, shares};
use crate::arena::Arenas;
use crate::kernel::{pack, packed_len};
use crate::parallel::Part;
use crate::scalar::Real;
use input::{Way, folded, turned, way};
use kronfleet_core::backend::Convolution;
use kronfleet_core::matrix::Region;
use weights::Lanes;

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
    let around = outputs * shape.kernel[0] * shape.kernel[1];
    let packing = if matches!(way, Way::Turned(_)) { packed_len(channels, around) } else { 0 };
    let (packed, sums) = workspace.take(packing, each * count);
    if packing > 0 {
        let taps = shape.kernel[0] * shape.kernel[1];
        // Element (i, j, o) of the turned kernel for channel c is element (last − i, last − j, c) of kernel o.
        let weight = |channel: usize, element: usize| {
            let (tap, output) = (taps - 1 - element / outputs, element % outputs);
            content[region.index(output, tap * channels + channel)]
        };
        pack(channels, around, weight, |_| S::of(0.0), packed);
    }
    let packed = &*packed;
    let mut nothing = [];
    let dx = dx.map_or(&mut nothing[..], |dx| &mut dx[..batch * shape.input.len()]);
    pool.each(&shares[..count], dx, sums, |_, share, dx, sums| {
        share_backward(arenas, shape, share, weights, packed, x, dy, dx, sums, way);
    });
    let total = gather_sums(sums, each);
    let by_output = Lanes::choose::<S>(shape).by_output();
    let kernels = shape.patch_len();
    for column in 0..elements {
        let at = region.index(0, column);
        for (output, target) in gradient[at..at + outputs].iter_mut().enumerate() {
            let at = if by_output && column < kernels { output * kernels + column } else { column * outputs + output };
            *target = total[at];
        }
    }
    let positions = (shape.output.positions() * batch) as u64;
    let mut flops = 2 * (outputs * elements) as u64 * positions;
    flops += match way {
        Way::Not => 0,
        Way::Turned(_) => 2 * (channels * around * shape.input.positions() * batch) as u64,
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
    match way {
        Way::Not => {}
        Way::Turned(window) => turned(arenas, shape, share, &window, packed, dy, dx),
        Way::Patches => folded(arenas, shape, share, weights, dy, dx),
    }
    self::weights::sums(arenas, shape, share, x, dy, sums);
}
