//! Convolution over tiles of patches small enough to stay in cache.

use crate::arena::Arenas;
use crate::parallel::Part;
use crate::product::{lower, mirror, multiply};
use crate::scalar::Real;
use core::ops::Range;
use faer::Par;
use kronfleet_core::backend::{Convolution, Gemm, Outer};
use kronfleet_core::matrix::Region;

/// A symmetric matrix accumulated beside a pass.
pub(crate) struct Statistic<'a, S> {
    pub(crate) target: &'a mut [S],
    pub(crate) region: Region,
    pub(crate) scale: S,
}

/// Bytes of patches in a tile: half of a usual second-level cache.
const TILE: usize = 1 << 19;

/// Samples in a tile.
pub(crate) fn tile<S: Real>(shape: &Convolution) -> usize {
    (TILE / S::BYTES / (shape.patch_rows() * shape.output.positions()).max(1)).max(1)
}

/// See [`Backend::convolution_forward`](kronfleet_core::backend::Backend::convolution_forward). Returns the
/// operations done.
pub(crate) fn forward<S: Real>(
    arenas: &Arenas<S>,
    shape: &Convolution,
    batch: usize,
    weights: (&[S], Region),
    x: &[S],
    y: &mut [S],
    mut statistic: Option<Statistic<'_, S>>,
) -> u64 {
    let mut flops = 0;
    let tile = tile::<S>(shape);
    arenas.with(|arena| {
        let scratch = arena.numbers(tile * shape.patch_rows() * shape.output.positions());
        for first in (0..batch).step_by(tile) {
            let samples = first..(first + tile).min(batch);
            let columns = samples.len() * shape.output.positions();
            let patches = Region::matrix(0, shape.patch_rows(), columns);
            unfold(shape, samples, x, scratch);
            let target = Region::matrix(first * shape.output.len(), shape.output.channels, columns);
            let product = Gemm::product(weights.1, patches, target);
            multiply(&product, weights.0, scratch, Part::whole(y), Par::Seq);
            flops += product.flops();
            if let Some(Statistic { target, region, scale }) = &mut statistic {
                let job = Outer { alpha: *scale, x: patches, beta: S::of(1.0), c: *region };
                lower(&job, scratch, Part::whole(target), Par::Seq);
                flops += job.flops();
            }
        }
    });
    if let Some(Statistic { target, region, .. }) = statistic {
        mirror(region, 0, target);
    }
    flops
}

/// See [`Backend::convolution_backward`](kronfleet_core::backend::Backend::convolution_backward). Returns the
/// operations done.
pub(crate) fn backward<S: Real>(
    arenas: &Arenas<S>,
    shape: &Convolution,
    batch: usize,
    weights: (&[S], Region),
    x: &[S],
    dy: &[S],
    gradient: &mut [S],
    mut dx: Option<&mut [S]>,
    statistic: Option<Statistic<'_, S>>,
) -> u64 {
    let mut flops = 0;
    let tile = tile::<S>(shape);
    let region = weights.1;
    let kernel = region.block(0, 0, region.rows, shape.patch_len());
    if batch == 0 && !region.is_empty() {
        gradient[region.offset..region.end()].fill(S::of(0.0));
    }
    arenas.with(|arena| {
        let scratch = arena.numbers(tile * shape.patch_rows() * shape.output.positions());
        for first in (0..batch).step_by(tile) {
            let samples = first..(first + tile).min(batch);
            let columns = samples.len() * shape.output.positions();
            let cotangent = Region::matrix(first * shape.output.len(), shape.output.channels, columns);
            unfold(shape, samples.clone(), x, scratch);
            let patches = Region::matrix(0, shape.patch_rows(), columns);
            let beta = S::of(if first == 0 { 0.0 } else { 1.0 });
            let product = Gemm { alpha: S::of(1.0), a: cotangent, b: patches.transposed(), beta, c: region };
            multiply(&product, dy, scratch, Part::whole(gradient), Par::Seq);
            flops += product.flops();
            if let Some(dx) = &mut dx {
                let patches = Region::matrix(0, shape.patch_len(), columns);
                let product = Gemm::product(kernel.transposed(), cotangent, patches);
                multiply(&product, weights.0, dy, Part::whole(scratch), Par::Seq);
                flops += product.flops();
                fold(shape, samples, scratch, dx);
            }
        }
    });
    if let Some(Statistic { target, region, scale }) = statistic {
        let all = Region::matrix(0, shape.output.channels, batch * shape.output.positions());
        let job = Outer { alpha: scale, x: all, beta: S::of(1.0), c: region };
        job.check();
        lower(&job, dy, Part::whole(target), Par::Seq);
        mirror(region, 0, target);
        flops += job.flops();
    }
    flops
}

/// Output columns whose patches see the input at kernel column `j`.
fn inside(shape: &Convolution, j: usize) -> Range<usize> {
    let (stride, padding, shift) = (shape.stride[1], shape.padding[1], j * shape.dilation[1]);
    let first = padding.saturating_sub(shift).div_ceil(stride);
    let last = (shape.input.width + padding).saturating_sub(shift).div_ceil(stride);
    first.min(shape.output.width)..last.clamp(first.min(shape.output.width), shape.output.width)
}

/// See [`Backend::unfold`](kronfleet_core::backend::Backend::unfold).
pub(crate) fn unfold<S: Real>(shape: &Convolution, samples: Range<usize>, x: &[S], patches: &mut [S]) {
    let (channels, rows) = (shape.input.channels, shape.patch_rows());
    let [_, kernel_width] = shape.kernel;
    // Neighbouring elements of a kernel row are neighbours in memory: one run where none of it is padding.
    let joined = shape.dilation[1] == 1;
    let every = (0..kernel_width).map(|j| inside(shape, j));
    let whole = every.fold(0..shape.output.width, |all, one| all.start.max(one.start)..all.end.min(one.end));
    let mut patches = patches.chunks_exact_mut(rows.max(1));
    for sample in samples {
        let image = &x[sample * shape.input.len()..][..shape.input.len()];
        for row in 0..shape.output.height {
            for column in 0..shape.output.width {
                let patch = patches.next().expect("room for every patch");
                let run = kernel_width * channels;
                for (i, target) in patch[..shape.patch_len()].chunks_exact_mut(run.max(1)).enumerate() {
                    let y = row * shape.stride[0] + i * shape.dilation[0];
                    if y < shape.padding[0] || y - shape.padding[0] >= shape.input.height {
                        target.fill(S::of(0.0));
                    } else if joined && whole.contains(&column) {
                        let x = column * shape.stride[1] - shape.padding[1];
                        let at = ((y - shape.padding[0]) * shape.input.width + x) * channels;
                        target.copy_from_slice(&image[at..at + run]);
                    } else {
                        for (j, target) in target.chunks_exact_mut(channels).enumerate() {
                            match shape.source(row, column, i, j) {
                                Some((y, x)) => {
                                    let at = (y * shape.input.width + x) * channels;
                                    target.copy_from_slice(&image[at..at + channels]);
                                }
                                None => target.fill(S::of(0.0)),
                            }
                        }
                    }
                }
                if let (true, Some(last)) = (shape.bias, patch.last_mut()) {
                    *last = S::of(1.0);
                }
            }
        }
    }
}

/// See [`Backend::fold`](kronfleet_core::backend::Backend::fold).
pub(crate) fn fold<S: Real>(shape: &Convolution, samples: Range<usize>, patches: &[S], x: &mut [S]) {
    let channels = shape.input.channels;
    let [_, kernel_width] = shape.kernel;
    let joined = shape.dilation[1] == 1;
    let every = (0..kernel_width).map(|j| inside(shape, j));
    let whole = every.fold(0..shape.output.width, |all, one| all.start.max(one.start)..all.end.min(one.end));
    let add = |target: &mut [S], source: &[S]| {
        for (target, &value) in target.iter_mut().zip(source) {
            *target += value;
        }
    };
    let mut patches = patches.chunks_exact(shape.patch_len().max(1));
    for sample in samples {
        let image = &mut x[sample * shape.input.len()..][..shape.input.len()];
        image.fill(S::of(0.0));
        for row in 0..shape.output.height {
            for column in 0..shape.output.width {
                let Some(patch) = patches.next() else { return };
                let run = kernel_width * channels;
                for (i, source) in patch.chunks_exact(run.max(1)).enumerate() {
                    let y = row * shape.stride[0] + i * shape.dilation[0];
                    if y < shape.padding[0] || y - shape.padding[0] >= shape.input.height {
                        continue;
                    }
                    if joined && whole.contains(&column) {
                        let x = column * shape.stride[1] - shape.padding[1];
                        let at = ((y - shape.padding[0]) * shape.input.width + x) * channels;
                        add(&mut image[at..at + run], source);
                        continue;
                    }
                    for (j, source) in source.chunks_exact(channels).enumerate() {
                        if let Some((y, x)) = shape.source(row, column, i, j) {
                            let at = (y * shape.input.width + x) * channels;
                            add(&mut image[at..at + channels], source);
                        }
                    }
                }
            }
        }
    }
}
