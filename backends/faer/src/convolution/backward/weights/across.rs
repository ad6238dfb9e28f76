//! From padded images, outputs or elements filling the registers.

use super::super::super::Share;
use super::super::super::forward::window;
use super::super::super::geometry::Window;
use super::Lanes;
use crate::arena::Arenas;
use crate::kernel::{Correlate, Lines, MARGIN, Runs, Runwise, padded};
use crate::scalar::Real;
use kronfleet_core::backend::Convolution;
use pulp::Arch;

/// What is the same for all tiles of a share.
struct Plan<'a> {
    shape: &'a Convolution,
    window: Window,
    /// Where the patches of one position or of a pair start, position by position; none where elements fill registers.
    starts: &'a [usize],
    /// Where their cotangents start.
    vector_starts: &'a [usize],
    /// Where the patches and cotangents of each line start.
    image_lines: &'a [usize],
    output_lines: &'a [usize],
    runs: Runs<'a>,
    /// Positions whose outputs fill a vector.
    together: usize,
}

/// Adds the sums over one share.
pub(super) fn sums<S: Real>(
    arenas: &Arenas<S>,
    shape: &Convolution,
    share: &Share,
    x: &[S],
    dy: &[S],
    lanes: Lanes,
    weights: &mut [S],
    squares: &mut [S],
) {
    let window = window(shape);
    let pair = window.pair().filter(|_| lanes == Lanes::Pairs);
    let (wide, together) = pair.map_or((window, 1), |pair| (pair, 2));
    let outputs = shape.output.channels;
    let tile = window.tile::<S>().min(share.samples().len().max(1));
    let lines = tile * window.positions[0];
    let one_by_one = if lanes == Lanes::Elements { 0 } else { tile * wide.count() };
    let images_len = tile * window.padded_len() + MARGIN;
    // The last samples' cotangents, for whoever reads whole vectors.
    let last_len = shape.output.len() + 2 * MARGIN;
    let rows = together * outputs;
    let pairs_len = if together == 1 { 0 } else { rows * wide.run_count() * wide.run_len() };
    let square_len = if together == 1 || squares.is_empty() { 0 } else { rows * rows };
    arenas.with(|arena| {
        let entries = 2 * one_by_one + 2 * lines + wide.run_count();
        let (numbers, indices) = arena.tables(images_len + last_len + pairs_len + square_len, entries);
        let (images, numbers) = numbers.split_at_mut(images_len);
        let (last, of_pairs) = numbers.split_at_mut(last_len);
        of_pairs.fill(S::of(0.0));
        let (of_pairs, squares_of_pairs) = of_pairs.split_at_mut(pairs_len);
        let (starts, indices) = indices.split_at_mut(one_by_one);
        let (vector_starts, indices) = indices.split_at_mut(one_by_one);
        let (image_lines, indices) = indices.split_at_mut(lines);
        let (output_lines, offsets) = indices.split_at_mut(lines);
        Window { stride: [window.stride[0], together * window.stride[1]], ..wide }.starts(starts);
        window.lines(image_lines);
        for (position, start) in vector_starts.iter_mut().enumerate() {
            *start = position * rows;
        }
        for (line, start) in output_lines.iter_mut().enumerate() {
            *start = line * window.positions[1] * outputs;
        }
        let runs = wide.runs(offsets);
        let plan = Plan { shape, window, starts, vector_starts, image_lines, output_lines, runs, together };
        for first in share.samples().step_by(tile) {
            let samples = first..(first + tile).min(share.last);
            let count = samples.len();
            window.pad(samples.clone(), x, &mut images[..count * window.padded_len()]);
            let len = shape.output.len();
            let dy = &dy[first * len..];
            // Vectors read past the last position: those of the last samples of all would leave the buffer.
            let room = dy.len().saturating_sub(padded(rows) - rows);
            let whole = if room >= count * len { count } else { room / len };
            let [to, squares_to] = match together {
                1 => [&mut *weights, &mut *squares],
                _ => [&mut *of_pairs, &mut *squares_of_pairs],
            };
            plan.add(whole, images, dy, to, squares_to);
            if whole < count {
                let (copy, margin) = last.split_at_mut((count - whole) * len);
                copy.copy_from_slice(&dy[whole * len..count * len]);
                margin.fill(S::of(0.0));
                plan.add(count - whole, &images[whole * window.padded_len()..], last, to, squares_to);
            }
        }
        if together == 2 {
            unpair(&plan, of_pairs, weights);
            for (squares, pairs) in squares.chunks_exact_mut(outputs).zip(squares_of_pairs.chunks_exact(rows)) {
                add(squares, pairs);
            }
            let second = squares_of_pairs.chunks_exact(rows).skip(outputs);
            for (squares, pairs) in squares.chunks_exact_mut(outputs).zip(second) {
                add(squares, &pairs[outputs..]);
            }
        }
    });
}

impl Plan<'_> {
    /// Adds the sums over the first samples. `dy` goes on past them for at least the rest of a vector.
    fn add<S: Real>(&self, samples: usize, images: &[S], dy: &[S], weights: &mut [S], squares: &mut [S]) {
        let Self { shape, window, runs, .. } = *self;
        let (arch, outputs, width) = (Arch::new(), shape.output.channels, window.positions[1]);
        let lines = samples * window.positions[0];
        let outputs_of = Lines { starts: &self.output_lines[..lines], step: outputs };
        if self.starts.is_empty() {
            let runs_of = Lines { starts: &self.image_lines[..lines], step: window.step() };
            for (index, &offset) in runs.offsets.iter().enumerate() {
                arch.dispatch(Runwise {
                    x: &images[offset..],
                    runs: runs_of,
                    len: runs.len,
                    vectors: dy,
                    others: outputs_of,
                    rows: outputs,
                    width,
                    target: &mut weights[index * runs.len..],
                    stride: shape.patch_len(),
                });
            }
        } else {
            let positions = lines * width / self.together;
            arch.dispatch(Correlate {
                vectors: dy,
                rows: self.together * outputs,
                vector_starts: &self.vector_starts[..positions],
                x: images,
                starts: &self.starts[..positions],
                runs,
                scale: S::of(1.0),
                target: weights,
            });
        }
        if !squares.is_empty() {
            let (rows, pairs) = (self.together * outputs, Lines { step: self.together * outputs, ..outputs_of });
            arch.dispatch(Runwise {
                x: dy,
                runs: pairs,
                len: rows,
                vectors: dy,
                others: pairs,
                rows,
                width: width / self.together,
                target: squares,
                stride: rows,
            });
        }
    }
}

/// `weights += ` the sums of pairs: of the first position as they are, of the second a pixel further on.
fn unpair<S: Real>(plan: &Plan<'_>, of_pairs: &[S], weights: &mut [S]) {
    let (outputs, channels) = (plan.shape.output.channels, plan.shape.input.channels);
    let run = plan.shape.kernel[1] * channels;
    let pairs = of_pairs.chunks_exact(2 * outputs * plan.runs.len);
    for (weights, pairs) in weights.chunks_exact_mut(outputs * run).zip(pairs) {
        for (element, weights) in weights.chunks_exact_mut(outputs).enumerate() {
            let first = &pairs[2 * outputs * element..];
            let second = &pairs[2 * outputs * (element + channels) + outputs..];
            add(weights, first);
            add(weights, second);
        }
    }
}

fn add<S: Real>(target: &mut [S], source: &[S]) {
    for (target, &value) in target.iter_mut().zip(source) {
        *target += value;
    }
}
