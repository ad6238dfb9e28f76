//! Maximum and mean pooling, along channels, which are neighbours in memory.

use crate::scalar::Real;
use core::ops::Range;
use kronfleet_core::backend::{Convolution, Pool, Pooling};
use pulp::{Arch, Simd, WithSimd};

/// Channels handled together: their maxima live on the stack.
const GROUP: usize = 64;

/// See [`Backend::pool_forward`](kronfleet_core::backend::Backend::pool_forward).
pub(crate) fn pool_forward<S: Real>(shape: &Pooling, batch: usize, x: &[S], y: &mut [S]) {
    let y = &mut y[..batch * shape.windows.output.len()];
    Arch::new().dispatch(Forward { shape, x, y });
}

/// See [`Backend::pool_backward`](kronfleet_core::backend::Backend::pool_backward).
pub(crate) fn pool_backward<S: Real>(shape: &Pooling, batch: usize, x: &[S], dy: &[S], dx: &mut [S]) {
    let dy = &dy[..batch * shape.windows.output.len()];
    Arch::new().dispatch(Backward { shape, x, dy, dx: &mut dx[..batch * shape.windows.input.len()] });
}

fn share<S: Real>(shape: &Pooling) -> S {
    S::of(1.0 / (shape.windows.kernel[0] * shape.windows.kernel[1]) as f64)
}

/// The pixels a window sees along one axis.
#[inline(always)]
fn seen(windows: &Convolution, axis: usize, position: usize, extent: usize) -> Range<usize> {
    let start = position * windows.stride[axis];
    let end = (start + windows.kernel[axis]).saturating_sub(windows.padding[axis]).min(extent);
    start.saturating_sub(windows.padding[axis])..end
}

/// Calls `visit(output pixel, rows, columns)` for every window of one sample.
#[inline(always)]
fn each_window(windows: &Convolution, mut visit: impl FnMut(usize, Range<usize>, Range<usize>)) {
    for row in 0..windows.output.height {
        let rows = seen(windows, 0, row, windows.input.height);
        for column in 0..windows.output.width {
            let columns = seen(windows, 1, column, windows.input.width);
            visit(row * windows.output.width + column, rows.clone(), columns);
        }
    }
}

struct Forward<'a, S> {
    shape: &'a Pooling,
    x: &'a [S],
    y: &'a mut [S],
}

impl<S: Real> WithSimd for Forward<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) {
        let Self { shape, x, y } = self;
        let windows = &shape.windows;
        let (channels, width) = (windows.input.channels, windows.input.width);
        let maximum = shape.pool == Pool::Maximum;
        let (start, share) = if maximum { (S::neg_infinity(), S::of(1.0)) } else { (S::of(0.0), share(shape)) };
        let (inputs, outputs) = (windows.input.len().max(1), windows.output.len().max(1));
        for (image, y) in x.chunks_exact(inputs).zip(y.chunks_exact_mut(outputs)) {
            each_window(
                windows,
                #[inline(always)]
                |pixel, rows, columns| {
                    let target = &mut y[pixel * channels..][..channels];
                    target.fill(start);
                    for row in rows {
                        for column in columns.clone() {
                            let source = &image[(row * width + column) * channels..][..channels];
                            if maximum {
                                for (target, &value) in target.iter_mut().zip(source) {
                                    // A NaN wins, so that it is seen.
                                    *target = if value > *target || value.is_nan() { value } else { *target };
                                }
                            } else {
                                for (target, &value) in target.iter_mut().zip(source) {
                                    *target += value * share;
                                }
                            }
                        }
                    }
                },
            );
        }
    }
}

struct Backward<'a, S> {
    shape: &'a Pooling,
    x: &'a [S],
    dy: &'a [S],
    dx: &'a mut [S],
}

impl<S: Real> WithSimd for Backward<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) {
        let Self { shape, x, dy, dx } = self;
        let windows = &shape.windows;
        let channels = windows.input.channels;
        let (inputs, outputs) = (windows.input.len().max(1), windows.output.len().max(1));
        dx.fill(S::of(0.0));
        for ((image, dx), dy) in x.chunks_exact(inputs).zip(dx.chunks_exact_mut(inputs)).zip(dy.chunks_exact(outputs)) {
            each_window(
                windows,
                #[inline(always)]
                |pixel, rows, columns| {
                    let dy = &dy[pixel * channels..][..channels];
                    if shape.pool == Pool::Maximum {
                        for top in (0..channels).step_by(GROUP) {
                            let group = top..(top + GROUP).min(channels);
                            to_maximum(windows, &rows, &columns, group, image, dy, dx);
                        }
                        return;
                    }
                    let share = share::<S>(shape);
                    for row in rows {
                        for column in columns.clone() {
                            let at = (row * windows.input.width + column) * channels;
                            for (target, &value) in dx[at..at + channels].iter_mut().zip(dy) {
                                *target += value * share;
                            }
                        }
                    }
                },
            );
        }
    }
}

/// Sends `dy` to the first maximum of a window, channel by channel.
#[inline(always)]
fn to_maximum<S: Real>(
    windows: &Convolution,
    rows: &Range<usize>,
    columns: &Range<usize>,
    group: Range<usize>,
    image: &[S],
    dy: &[S],
    dx: &mut [S],
) {
    let at = |row: usize, column: usize| {
        let pixel = (row * windows.input.width + column) * windows.input.channels;
        pixel + group.start..pixel + group.end
    };
    let zero = S::of(0.0);
    let mut largest = [S::neg_infinity(); GROUP];
    for row in rows.clone() {
        for column in columns.clone() {
            for (largest, &value) in largest.iter_mut().zip(&image[at(row, column)]) {
                *largest = if value > *largest || value.is_nan() { value } else { *largest };
            }
        }
    }
    // What has not found its maximum yet.
    let mut left = [zero; GROUP];
    left[..group.len()].copy_from_slice(&dy[group.clone()]);
    for row in rows.clone() {
        for column in columns.clone() {
            let values = image[at(row, column)].iter().zip(&mut dx[at(row, column)]);
            for ((&largest, left), (&value, target)) in largest.iter().zip(&mut left).zip(values) {
                let found = value == largest || value.is_nan();
                *target += if found { *left } else { zero };
                *left = if found { zero } else { *left };
            }
        }
    }
}
