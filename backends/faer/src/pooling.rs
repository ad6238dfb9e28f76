//! Maximum and mean pooling, along channels, which are neighbours in memory.

use crate::scalar::Real;
use core::ops::Range;
use kronfleet_core::backend::{Convolution, Pool, Pooling};
use pulp::{Arch, Simd, WithSimd};

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
    fn with_simd<A: Simd>(self, simd: A) {
        let Self { shape, x, y } = self;
        let windows = &shape.windows;
        let (channels, width) = (windows.input.channels, windows.input.width);
        let maximum = shape.pool == Pool::Maximum;
        let share = share::<S>(shape);
        let (inputs, outputs) = (windows.input.len().max(1), windows.output.len().max(1));
        for (image, y) in x.chunks_exact(inputs).zip(y.chunks_exact_mut(outputs)) {
            each_window(
                windows,
                #[inline(always)]
                |pixel, rows, columns| {
                    let target = &mut y[pixel * channels..][..channels];
                    if maximum {
                        for top in (0..channels).step_by(S::lanes::<A>()) {
                            let group = top..(top + S::lanes::<A>()).min(channels);
                            let largest = largest(simd, windows, &rows, &columns, group.clone(), image);
                            S::store(simd, &mut target[group], largest);
                        }
                        return;
                    }
                    target.fill(S::of(0.0));
                    for row in rows {
                        for column in columns.clone() {
                            let source = &image[(row * width + column) * channels..][..channels];
                            for (target, &value) in target.iter_mut().zip(source) {
                                *target += value * share;
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
    fn with_simd<A: Simd>(self, simd: A) {
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
                        for top in (0..channels).step_by(S::lanes::<A>()) {
                            let group = top..(top + S::lanes::<A>()).min(channels);
                            to_maximum(simd, windows, &rows, &columns, group, image, dy, dx);
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

/// Where a group of channels of a pixel lies.
#[inline(always)]
fn at(windows: &Convolution, row: usize, column: usize, group: &Range<usize>) -> Range<usize> {
    let pixel = (row * windows.input.width + column) * windows.input.channels;
    pixel + group.start..pixel + group.end
}

/// The maxima of a window, of at most a vector's channels. A NaN wins, so that it is seen.
#[inline(always)]
fn largest<A: Simd, S: Real>(
    simd: A,
    windows: &Convolution,
    rows: &Range<usize>,
    columns: &Range<usize>,
    group: Range<usize>,
    image: &[S],
) -> S::Vector<A> {
    let mut largest = S::splat(simd, S::neg_infinity());
    for row in rows.clone() {
        for column in columns.clone() {
            let value = S::partial(simd, &image[at(windows, row, column, &group)]);
            largest = S::larger(simd, largest, value);
        }
    }
    largest
}

/// Sends `dy` to the first maximum of a window, of at most a vector's channels.
#[inline(always)]
fn to_maximum<A: Simd, S: Real>(
    simd: A,
    windows: &Convolution,
    rows: &Range<usize>,
    columns: &Range<usize>,
    group: Range<usize>,
    image: &[S],
    dy: &[S],
    dx: &mut [S],
) {
    let zero = S::splat(simd, S::of(0.0));
    let largest = largest(simd, windows, rows, columns, group.clone(), image);
    // What has not found its maximum yet.
    let mut left = S::partial(simd, &dy[group.clone()]);
    for row in rows.clone() {
        for column in columns.clone() {
            let pixel = at(windows, row, column, &group);
            let value = S::partial(simd, &image[pixel.clone()]);
            let found = S::matching(simd, value, largest, left, zero);
            left = S::matching(simd, value, largest, zero, left);
            let target = &mut dx[pixel];
            let sum = <S as Real>::add(simd, S::partial(simd, target), found);
            S::store(simd, target, sum);
        }
    }
}
