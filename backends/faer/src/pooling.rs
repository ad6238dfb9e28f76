//! Maximum and mean pooling, along channels, which are neighbours in memory.
//!
//! Few channels leave lanes of a vector empty. Where targets are written in the order they lie in, whole vectors are
//! written nevertheless: what they leave past the channels is overwritten next.

use crate::arena::Arenas;
use crate::parallel::{self, PIECE};
use crate::scalar::Real;
use core::ops::Range;
use kronfleet_core::backend::{Convolution, Pool, Pooling};
use pulp::{Arch, Simd, WithSimd};

/// See [`Backend::pool_forward`](kronfleet_core::backend::Backend::pool_forward).
pub(crate) fn pool_forward<S: Real>(pool: &parallel::Pool, shape: &Pooling, batch: usize, x: &[S], y: &mut [S]) {
    let [inputs, outputs] = lens(shape);
    let x = &x[..batch * inputs];
    let samples = samples(shape);
    pool.pieces((samples * outputs).max(1), &mut y[..batch * outputs], |index, y| {
        let x = &x[index * samples * inputs..];
        Arch::new().dispatch(Forward { shape, x, y });
    });
}

/// See [`Backend::pool_backward`](kronfleet_core::backend::Backend::pool_backward).
pub(crate) fn pool_backward<S: Real>(
    pool: &parallel::Pool,
    arenas: &Arenas<S>,
    shape: &Pooling,
    batch: usize,
    x: &[S],
    dy: &[S],
    dx: &mut [S],
) {
    let [inputs, outputs] = lens(shape);
    // A mean does not depend on the inputs: they may be any buffer, even a shorter one.
    let x = if shape.pool == Pool::Maximum { &x[..batch * inputs] } else { &[] };
    let dy = &dy[..batch * outputs];
    let samples = samples(shape);
    pool.pieces((samples * inputs).max(1), &mut dx[..batch * inputs], |index, dx| {
        let x = x.get(index * samples * inputs..).unwrap_or_default();
        let dy = &dy[index * samples * outputs..];
        if shape.pool == Pool::Maximum && tiled(&shape.windows) {
            arenas.with(|arena| {
                let rows = arena.numbers(shape.windows.kernel[0] * row_room(&shape.windows));
                Arch::new().dispatch(ToMaxima { windows: &shape.windows, x, dy, dx, rows });
            });
        } else {
            Arch::new().dispatch(Backward { shape, x, dy, dx });
        }
    });
}

/// Scalars of a sample and of what it becomes.
fn lens(shape: &Pooling) -> [usize; 2] {
    [shape.windows.input.len(), shape.windows.output.len()]
}

/// Samples in a piece.
fn samples(shape: &Pooling) -> usize {
    (PIECE / shape.windows.input.len().max(1)).max(1)
}

/// Whether every pixel lies in at most one window, and those of a row of windows in whole rows.
fn tiled(windows: &Convolution) -> bool {
    windows.stride == windows.kernel && windows.padding == [0, 0]
}

/// Scalars of a row of pixels.
fn row_len(windows: &Convolution) -> usize {
    windows.input.width * windows.input.channels
}

/// Room for a row of pixels and what whole vectors write past it.
fn row_room(windows: &Convolution) -> usize {
    row_len(windows) + crate::kernel::MARGIN
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

/// A window's pixels.
#[derive(Clone, Copy)]
struct Seen {
    /// Where the first starts in a sample.
    first: usize,
    height: usize,
    width: usize,
    row_len: usize,
    channels: usize,
}

impl Seen {
    /// Calls `visit(row, column)` for every pixel, counted from the first.
    #[inline(always)]
    fn each(&self, mut visit: impl FnMut(usize, usize)) {
        for row in 0..self.height {
            for column in 0..self.width {
                visit(row, column);
            }
        }
    }

    /// Where a pixel starts in a sample.
    #[inline(always)]
    fn at(&self, row: usize, column: usize) -> usize {
        self.first + row * self.row_len + column * self.channels
    }
}

/// Calls `visit(output pixel, pixels seen)` for every window of one sample.
#[inline(always)]
fn each_window(windows: &Convolution, mut visit: impl FnMut(usize, Seen)) {
    let (row_len, channels) = (row_len(windows), windows.input.channels);
    let outputs = windows.output.width;
    if tiled(windows) && windows.kernel == [2, 2] {
        // The usual size, known to the compiler.
        for row in 0..windows.output.height {
            for column in 0..outputs {
                let first = 2 * row * row_len + 2 * column * channels;
                visit(row * outputs + column, Seen { first, height: 2, width: 2, row_len, channels });
            }
        }
        return;
    }
    for row in 0..windows.output.height {
        let rows = seen(windows, 0, row, windows.input.height);
        for column in 0..outputs {
            let columns = seen(windows, 1, column, windows.input.width);
            let first = rows.start * row_len + columns.start * channels;
            visit(row * outputs + column, Seen { first, height: rows.len(), width: columns.len(), row_len, channels });
        }
    }
}

/// The vector that starts with `slice`, of which `used` lanes matter.
#[inline(always)]
fn load<A: Simd, S: Real>(simd: A, slice: &[S], used: usize) -> S::Vector<A> {
    match slice.get(..S::lanes::<A>()) {
        Some(whole) => S::vectors::<A>(whole)[0],
        None => S::partial(simd, &slice[..used]),
    }
}

/// Stores `used` lanes and, where there is room, whatever the others hold.
#[inline(always)]
fn put<A: Simd, S: Real>(simd: A, slice: &mut [S], used: usize, value: S::Vector<A>) {
    match slice.get_mut(..S::lanes::<A>()) {
        Some(whole) => S::vectors_mut::<A>(whole)[0] = value,
        None => S::store(simd, &mut slice[..used], value),
    }
}

/// The maxima of a window, of `used` channels of an image that starts with the first of them. A NaN wins, so that it
/// is seen.
#[inline(always)]
fn largest<A: Simd, S: Real>(simd: A, seen: &Seen, image: &[S], used: usize) -> S::Vector<A> {
    let mut largest = S::splat(simd, S::neg_infinity());
    seen.each(
        #[inline(always)]
        |row, column| largest = S::larger(simd, largest, load(simd, &image[seen.at(row, column)..], used)),
    );
    largest
}

struct Forward<'a, S> {
    shape: &'a Pooling,
    /// As many samples as `y`, or more.
    x: &'a [S],
    y: &'a mut [S],
}

impl<S: Real> WithSimd for Forward<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(self, simd: A) {
        let Self { shape, x, y } = self;
        let windows = &shape.windows;
        let (channels, lanes) = (windows.input.channels, S::lanes::<A>());
        let (inputs, outputs) = (windows.input.len(), windows.output.len().max(1));
        for sample in 0..y.len() / outputs {
            let (image, y) = (&x[sample * inputs..], &mut y[sample * outputs..]);
            each_window(
                windows,
                #[inline(always)]
                |pixel, seen| {
                    if shape.pool == Pool::Maximum {
                        for top in (0..channels).step_by(lanes) {
                            let used = lanes.min(channels - top);
                            let largest = largest(simd, &seen, &image[top..], used);
                            put(simd, &mut y[pixel * channels + top..], used, largest);
                        }
                        return;
                    }
                    let (share, target) = (share::<S>(shape), &mut y[pixel * channels..][..channels]);
                    target.fill(S::of(0.0));
                    seen.each(
                        #[inline(always)]
                        |row, column| {
                            for (target, &value) in target.iter_mut().zip(&image[seen.at(row, column)..][..channels]) {
                                *target += value * share;
                            }
                        },
                    );
                },
            );
        }
    }
}

/// Windows that may overlap, and means.
struct Backward<'a, S> {
    shape: &'a Pooling,
    /// For maxima as many samples as `dx`, or more; for means nothing.
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
        let (channels, lanes) = (windows.input.channels, S::lanes::<A>());
        let (inputs, outputs) = (windows.input.len().max(1), windows.output.len());
        dx.fill(S::of(0.0));
        for (sample, dx) in dx.chunks_exact_mut(inputs).enumerate() {
            let image = x.get(sample * inputs..).unwrap_or_default();
            let dy = &dy[sample * outputs..];
            each_window(
                windows,
                #[inline(always)]
                |pixel, seen| {
                    let dy = &dy[pixel * channels..];
                    if shape.pool == Pool::Maximum {
                        for top in (0..channels).step_by(lanes) {
                            let used = lanes.min(channels - top);
                            to_maximum(
                                simd,
                                &seen,
                                &image[top..],
                                &dy[top..],
                                used,
                                #[inline(always)]
                                |row, column, found| {
                                    let target = &mut dx[seen.at(row, column) + top..][..used];
                                    let sum = <S as Real>::add(simd, S::partial(simd, target), found);
                                    S::store(simd, target, sum);
                                },
                            );
                        }
                        return;
                    }
                    let share = share::<S>(shape);
                    seen.each(
                        #[inline(always)]
                        |row, column| {
                            for (target, &value) in dx[seen.at(row, column)..][..channels].iter_mut().zip(dy) {
                                *target += value * share;
                            }
                        },
                    );
                },
            );
        }
    }
}

/// Maxima of windows that do not overlap: every pixel is written once, row by row.
struct ToMaxima<'a, S> {
    windows: &'a Convolution,
    /// As many samples as `dx`, or more.
    x: &'a [S],
    dy: &'a [S],
    dx: &'a mut [S],
    /// As many rows of pixels as a window has, each with the room of [`row_room`].
    rows: &'a mut [S],
}

impl<S: Real> WithSimd for ToMaxima<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(self, simd: A) {
        match self.windows.kernel {
            // The usual size, known to the compiler.
            [2, 2] => self.send(simd, [2, 2]),
            kernel => self.send(simd, kernel),
        }
    }
}

impl<S: Real> ToMaxima<'_, S> {
    #[inline(always)]
    fn send<A: Simd>(self, simd: A, [height, width]: [usize; 2]) {
        let Self { windows, x, dy, dx, rows } = self;
        let (channels, lanes) = (windows.input.channels, S::lanes::<A>());
        let (row_len, room, band) = (row_len(windows), row_room(windows), height * row_len(windows));
        let covered = windows.output.width * width * channels;
        let outputs = windows.output.width * channels;
        if windows.input.is_empty() {
            return;
        }
        for (sample, dx) in dx.chunks_exact_mut(windows.input.len()).enumerate() {
            let image = &x[sample * windows.input.len()..];
            let dy = &dy[sample * windows.output.len()..];
            let (bands, below) = dx.split_at_mut(windows.output.height * band);
            below.fill(S::of(0.0));
            for (row, dx) in bands.chunks_exact_mut(band).enumerate() {
                let (image, dy) = (&image[row * band..], &dy[row * outputs..]);
                for output in 0..windows.output.width {
                    let first = output * width * channels;
                    let seen = Seen { first, height, width, row_len, channels };
                    // Groups that leave lanes empty come last: written first, they spoil nothing.
                    for top in (0..channels).step_by(lanes).rev() {
                        to_maximum(
                            simd,
                            &seen,
                            &image[top..],
                            &dy[output * channels + top..],
                            lanes.min(channels - top),
                            #[inline(always)]
                            |row, column, found| {
                                let at = row * room + first + column * channels + top;
                                S::vectors_mut::<A>(&mut rows[at..at + lanes])[0] = found;
                            },
                        );
                    }
                }
                for (target, row) in dx.chunks_exact_mut(row_len).zip(rows.chunks_exact(room)) {
                    target[..covered].copy_from_slice(&row[..covered]);
                    target[covered..].fill(S::of(0.0));
                }
            }
        }
    }
}

/// Sends `dy` to the first maximum of a window, and zeros to its other pixels: calls
/// `send(row, column, vector)` for each.
#[inline(always)]
fn to_maximum<A: Simd, S: Real>(
    simd: A,
    seen: &Seen,
    image: &[S],
    dy: &[S],
    used: usize,
    mut send: impl FnMut(usize, usize, S::Vector<A>),
) {
    let zero = S::splat(simd, S::of(0.0));
    let largest = largest(simd, seen, image, used);
    // What has not found its maximum yet.
    let mut left = load(simd, dy, used);
    seen.each(
        #[inline(always)]
        |row, column| {
            let value = load(simd, &image[seen.at(row, column)..], used);
            send(row, column, S::matching(simd, value, largest, left, zero));
            left = S::matching(simd, value, largest, zero, left);
        },
    );
}
