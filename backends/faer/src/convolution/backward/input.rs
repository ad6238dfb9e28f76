//! The gradient of the input.

use super::super::geometry::Window;
use super::super::{Share, patches};
use crate::arena::Arenas;
use crate::kernel::{Gather, padded};
use crate::parallel::Part;
use crate::product::multiply;
use crate::scalar::Real;
use faer::Par;
use kronfleet_core::backend::{Convolution, Gemm};
use kronfleet_core::matrix::Region;

/// How the gradient of the input is computed.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// Not at all.
    Not,
    /// As a convolution of `dy` with the kernels turned round.
    Turned(Window),
    /// Patches, folded.
    Patches,
}

pub(super) fn way(shape: &Convolution, wanted: bool) -> Way {
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
    // The turned kernels see every input pixel, with one row for each channel; patches, which must be written and
    // summed, fill whatever registers they need.
    let turned = padded(shape.input.channels) * shape.input.positions();
    let patches = 2 * shape.input.channels * shape.output.positions();
    if fits(0) && fits(1) && turned <= patches { Way::Turned(window) } else { Way::Patches }
}

/// `dx ← fold(Wᵀ · dy)`.
pub(super) fn folded<S: Real>(
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

/// `dx` as a convolution of `dy` with the kernels turned round, packed as [`Gather`] wants them.
pub(super) fn turned<S: Real>(
    arenas: &Arenas<S>,
    shape: &Convolution,
    share: &Share,
    window: &Window,
    packed: &[S],
    dy: &[S],
    dx: &mut [S],
) {
    let tile = window.tile::<S>().min(share.samples().len().max(1));
    let (lines, taps) = (tile * window.positions[0], shape.output.channels * window.kernel[0] * window.kernel[1]);
    arenas.with(|arena| {
        let (planes, indices) = arena.tables(tile * window.planes_len(), lines + taps);
        let (starts, taps) = indices.split_at_mut(lines);
        window.plane_starts(starts);
        window.taps(taps);
        for first in share.samples().step_by(tile) {
            let samples = first..(first + tile).min(share.last);
            let count = samples.len();
            window.spread(samples, dy, &mut planes[..count * window.planes_len()]);
            let at = (first - share.first) * shape.input.len();
            pulp::Arch::new().dispatch(Gather {
                weights: packed,
                taps,
                x: planes,
                step: 1,
                starts: &starts[..count * window.positions[0]],
                width: window.positions[1],
                rows: shape.input.channels,
                y: &mut dx[at..at + count * shape.input.len()],
            });
        }
    });
}
