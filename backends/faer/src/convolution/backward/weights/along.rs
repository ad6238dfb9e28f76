//! From planes, positions filling the registers.

use super::super::super::Share;
use super::super::super::forward::window;
use super::super::super::geometry::Window;
use crate::arena::Arenas;
use crate::kernel::{Along, MARGIN, Shifted};
use crate::scalar::Real;
use core::ops::Range;
use kronfleet_core::backend::Convolution;
use pulp::Arch;

/// Adds the sums over one share.
pub(super) fn sums<S: Real>(
    arenas: &Arenas<S>,
    shape: &Convolution,
    share: &Share,
    x: &[S],
    dy: &[S],
    weights: &mut [S],
    bias: &mut [S],
    squares: &mut [S],
) {
    let window = window(shape);
    let flat = [1, 1];
    let positions = window.positions;
    // The positions, as planes without a border.
    let of_outputs =
        Window { image: shape.output, padding: [0, 0], kernel: flat, stride: flat, dilation: flat, positions };
    let tile = window.tile::<S>().min(of_outputs.tile::<S>()).min(share.samples().len().max(1));
    let (outputs, kernels) = (shape.output.channels, shape.patch_len());
    let lines = tile * positions[0];
    arenas.with(|arena| {
        let pixels = tile * window.planes_len() + MARGIN;
        let cotangents = tile * of_outputs.planes_len() + MARGIN;
        let ones = positions[1] + MARGIN;
        let (numbers, indices) = arena.tables(pixels + cotangents + ones, 3 * lines + outputs + kernels);
        let (pixels, numbers) = numbers.split_at_mut(pixels);
        let (cotangents, ones) = numbers.split_at_mut(cotangents);
        ones.fill(S::of(1.0));
        let (pixel_lines, indices) = indices.split_at_mut(lines);
        let (cotangent_lines, indices) = indices.split_at_mut(lines);
        let (zeros, indices) = indices.split_at_mut(lines);
        zeros.fill(0);
        let (pixel_taps, cotangent_taps) = indices.split_at_mut(kernels);
        window.plane_starts(pixel_lines);
        window.taps(pixel_taps);
        of_outputs.plane_starts(cotangent_lines);
        of_outputs.taps(cotangent_taps);
        for first in share.samples().step_by(tile) {
            let samples = first..(first + tile).min(share.last);
            spread(&window, samples.clone(), x, pixels);
            spread(&of_outputs, samples.clone(), dy, cotangents);
            let used = samples.len() * positions[0];
            let left = Shifted { planes: cotangents, lines: &cotangent_lines[..used], taps: cotangent_taps };
            let right = Shifted { planes: pixels, lines: &pixel_lines[..used], taps: pixel_taps };
            let (arch, width) = (Arch::new(), positions[1]);
            arch.dispatch(Along { left, right, width, target: weights });
            if !bias.is_empty() {
                let ones = Shifted { planes: ones, lines: &zeros[..used], taps: &[0] };
                arch.dispatch(Along { left: ones, right: left, width, target: bias });
            }
            if !squares.is_empty() {
                arch.dispatch(Along { left, right: left, width, target: squares });
            }
        }
    });
}

/// Copies samples into planes and zeros behind them.
fn spread<S: Real>(window: &Window, samples: Range<usize>, x: &[S], planes: &mut [S]) {
    let (planes, margin) = planes.split_at_mut(samples.len() * window.planes_len());
    window.spread(samples, x, planes);
    margin[..MARGIN].fill(S::of(0.0));
}
