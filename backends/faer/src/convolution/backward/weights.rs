//! The gradient of the weights, and `Σ dy · dyᵀ` beside it.

use super::super::Share;
use super::super::forward::window;
use super::super::geometry::Window;
use crate::arena::Arenas;
use crate::kernel::{Along, Correlate, Lines, MARGIN, Runwise, Shifted, padded};
use crate::parallel::Part;
use crate::reduction;
use crate::scalar::Real;
use core::ops::Range;
use kronfleet_core::backend::{Convolution, ReduceJob};
use kronfleet_core::matrix::Region;
use pulp::Arch;

/// What fills the registers while the gradient of the weights is summed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Lanes {
    Outputs,
    /// Elements of a patch, a run at a time.
    Elements,
    Positions,
}

impl Lanes {
    /// Whichever leaves fewest lanes empty.
    pub(super) fn choose(shape: &Convolution) -> Self {
        let run = if shape.dilation[1] == 1 { shape.kernel[1] } else { 1 } * shape.input.channels;
        let (outputs, width) = (shape.output.channels, shape.output.width);
        let full = |rows: usize| rows as f64 / padded(rows).max(1) as f64;
        // Two or more full vectors of outputs share each element: that is hard to beat. Positions cost a copy of `dy`.
        if outputs > 16 && full(outputs) == 1.0 {
            Self::Outputs
        } else if 0.6 * full(width) > full(outputs).max(full(run)) {
            Self::Positions
        } else if full(run) >= full(outputs) {
            Self::Elements
        } else {
            Self::Outputs
        }
    }

    /// Whether sums of weights lie by output, element by element, rather than by element.
    pub(super) fn by_output(self) -> bool {
        self != Self::Outputs
    }
}

/// Sums of one share: of `dy · patchᵀ` without the bias, of `dy`, and, where there is room, of `dy · dyᵀ`.
pub(super) fn sums<S: Real>(arenas: &Arenas<S>, shape: &Convolution, share: &Share, x: &[S], dy: &[S], sums: &mut [S]) {
    let outputs = shape.output.channels;
    let (of_weights, squares) = sums.split_at_mut(outputs * shape.patch_rows());
    let (weights, bias) = of_weights.split_at_mut(outputs * shape.patch_len());
    if Lanes::choose(shape) == Lanes::Positions {
        along(arenas, shape, share, x, dy, weights, bias, squares);
    } else {
        across(arenas, shape, share, x, dy, weights, squares);
        if shape.bias {
            let positions = share.samples().len() * shape.output.positions();
            let all = Region::matrix(share.first * shape.output.len(), outputs, positions);
            reduction::one(&ReduceJob::sum(all, Region::vector(0, outputs)), dy, None, Part::whole(bias));
        }
    }
}

/// From planes, positions filling the registers.
fn along<S: Real>(
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

/// From padded images, outputs or elements filling the registers.
fn across<S: Real>(
    arenas: &Arenas<S>,
    shape: &Convolution,
    share: &Share,
    x: &[S],
    dy: &[S],
    weights: &mut [S],
    squares: &mut [S],
) {
    let window = window(shape);
    let (outputs, count) = (shape.output.channels, window.count());
    let tile = window.tile::<S>().min(share.samples().len().max(1));
    let by_elements = Lanes::choose(shape) == Lanes::Elements;
    // Vectors must be whole: outputs that do not fill them are copied beside whatever was there.
    let width = padded(outputs);
    let wide = !by_elements || !squares.is_empty();
    let copied = if width == outputs || !wide { 0 } else { width * count };
    let lines = tile * window.positions[0];
    let one_by_one = if by_elements { 0 } else { tile * count };
    arenas.with(|arena| {
        let entries = 2 * one_by_one + 3 * lines + window.run_count();
        let images_len = tile * window.padded_len() + MARGIN;
        let (numbers, indices) = arena.tables(images_len + tile * copied, entries);
        let (images, copies) = numbers.split_at_mut(images_len);
        let (starts, indices) = indices.split_at_mut(one_by_one);
        let (vector_starts, indices) = indices.split_at_mut(one_by_one);
        let (image_lines, indices) = indices.split_at_mut(lines);
        let (output_lines, indices) = indices.split_at_mut(lines);
        let (vector_lines, offsets) = indices.split_at_mut(lines);
        window.starts(starts);
        window.lines(image_lines);
        let runs = window.runs(offsets);
        for (position, vector) in vector_starts.iter_mut().enumerate() {
            *vector = position * width;
        }
        for (line, (output, vector)) in output_lines.iter_mut().zip(vector_lines.iter_mut()).enumerate() {
            (*output, *vector) = (line * window.positions[1] * outputs, line * window.positions[1] * width);
        }
        let arch = Arch::new();
        for first in share.samples().step_by(tile) {
            let samples = first..(first + tile).min(share.last);
            let positions = samples.len() * count;
            let dy = &dy[first * shape.output.len()..samples.end * shape.output.len()];
            let vectors = if copied == 0 {
                dy
            } else {
                for (copy, column) in copies.chunks_exact_mut(width).zip(dy.chunks_exact(outputs)) {
                    copy[..outputs].copy_from_slice(column);
                }
                &*copies
            };
            window.pad(samples.clone(), x, &mut images[..samples.len() * window.padded_len()]);
            let used = samples.len() * window.positions[0];
            let outputs_of = Lines { starts: &output_lines[..used], step: outputs };
            if by_elements {
                let runs_of = Lines { starts: &image_lines[..used], step: window.step() };
                for (index, &offset) in runs.offsets.iter().enumerate() {
                    arch.dispatch(Runwise {
                        x: &images[offset..],
                        runs: runs_of,
                        len: runs.len,
                        vectors: dy,
                        others: outputs_of,
                        rows: outputs,
                        width: window.positions[1],
                        target: &mut weights[index * runs.len..],
                        stride: shape.patch_len(),
                    });
                }
            } else {
                arch.dispatch(Correlate {
                    vectors,
                    rows: outputs,
                    vector_starts: &vector_starts[..positions],
                    x: images,
                    starts: &starts[..positions],
                    runs,
                    scale: S::of(1.0),
                    target: weights,
                });
            }
            if !squares.is_empty() {
                arch.dispatch(Runwise {
                    x: vectors,
                    runs: Lines { starts: &vector_lines[..used], step: width },
                    len: outputs,
                    vectors: dy,
                    others: outputs_of,
                    rows: outputs,
                    width: window.positions[1],
                    target: squares,
                    stride: outputs,
                });
            }
        }
    });
}
