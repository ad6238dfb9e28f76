//! Patches written out and summed back, for what the kernels on padded images do not cover.

use crate::scalar::Real;
use core::ops::Range;
use kronfleet_core::backend::Convolution;
use pulp::Arch;

/// Bytes of patches in a tile: half of a usual second-level cache.
const TILE: usize = 1 << 19;

/// Samples in a tile.
pub(crate) fn tile<S: Real>(shape: &Convolution) -> usize {
    (TILE / S::BYTES / (shape.patch_rows() * shape.output.positions()).max(1)).max(1)
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
    Arch::new().dispatch(
        #[inline(always)]
        || write(shape, samples, x, patches),
    );
}

#[inline(always)]
fn write<S: Real>(shape: &Convolution, samples: Range<usize>, x: &[S], patches: &mut [S]) {
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
    Arch::new().dispatch(
        #[inline(always)]
        || sum(shape, samples, patches, x),
    );
}

#[inline(always)]
fn sum<S: Real>(shape: &Convolution, samples: Range<usize>, patches: &[S], x: &mut [S]) {
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
