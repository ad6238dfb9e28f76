//! Batch normalisation; EvoNorm-S0 is the reference's.
//!
//! Activations are walked in blocks of columns small enough for the first-level cache and, inside, in strips of
//! channels that fill a vector, so that each activation is read from memory once per pass.

pub(crate) use kronfleet_core::backend::reference::{evo_norm_backward, evo_norm_forward};

use crate::parallel::{PIECE, Pool};
use crate::scalar::Real;
use core::ops::Range;
use kronfleet_core::backend::BatchNorm;
use pulp::{Arch, Simd, WithSimd};

/// Channels of a strip.
const STRIP: usize = 16;
/// Columns whose sums are kept in the scalar's own precision before they go on in double precision.
const BLOCK: usize = 64;
/// Channels handled together: their sums live on the stack.
const GROUP: usize = 256;

/// Most segments that columns are cut into, each summed by one thread. Where they end depends on sizes alone, so any
/// number of threads gives the same bits.
const SEGMENTS: usize = 16;

/// Per-channel values of one group.
type Channels<T> = [T; GROUP];
/// Two sums of some columns.
type Pair = [Channels<f64>; 2];

/// Scalars in a piece of whole blocks of columns.
const fn piece(channels: usize) -> usize {
    let columns = PIECE / channels;
    channels * if columns < BLOCK { BLOCK } else { columns.next_multiple_of(BLOCK) }
}

/// Scalars in a segment of whole blocks of columns.
fn segment(channels: usize, columns: usize) -> usize {
    piece(channels).max(channels * columns.div_ceil(SEGMENTS).next_multiple_of(BLOCK))
}

/// See [`Backend::batch_norm_forward`](kronfleet_core::backend::Backend::batch_norm_forward).
pub(crate) fn batch_norm_forward<S: Real>(
    pool: &Pool,
    shape: &BatchNorm<S>,
    columns: usize,
    parameters: &[S],
    x: &[S],
    y: &mut [S],
    saved: &mut [S],
    running: &mut [S],
) {
    let channels = shape.channels;
    if columns == 0 {
        return;
    }
    let (x, y) = (&x[..channels * columns], &mut y[..channels * columns]);
    let momentum = shape.momentum.wide();
    for top in (0..channels).step_by(GROUP) {
        let width = GROUP.min(channels - top);
        let of_segment = |range: Range<usize>, moments: &mut Pair| {
            Arch::new().dispatch(Moments { x: &x[range], channels, top, width, moments });
        };
        let [mean, square] = over_segments(pool, channels, columns, of_segment, |all, [means, squares], counts| {
            for channel in 0..width {
                merge(all, channel, means[channel], squares[channel], counts);
            }
        });
        for channel in 0..width {
            let variance = square[channel] / columns as f64;
            let scale = 1.0 / (variance + shape.epsilon.wide()).sqrt();
            let unbiased = square[channel] / (columns.max(2) - 1) as f64;
            let at = top + channel;
            (saved[at], saved[channels + at]) = (S::of(mean[channel]), S::of(scale));
            let blend = |old: S, new: f64| S::of((1.0 - momentum) * old.wide() + momentum * new);
            running[at] = blend(running[at], mean[channel]);
            running[channels + at] = blend(running[channels + at], unbiased);
        }
        let (mean, scale) = (&saved[top..top + width], &saved[channels + top..][..width]);
        apply(pool, channels, top, mean, |channel| scale[channel], parameters, x, y);
    }
}

/// See [`Backend::batch_norm_evaluate`](kronfleet_core::backend::Backend::batch_norm_evaluate).
pub(crate) fn batch_norm_evaluate<S: Real>(
    pool: &Pool,
    shape: &BatchNorm<S>,
    columns: usize,
    parameters: &[S],
    running: &[S],
    x: &[S],
    y: &mut [S],
) {
    let channels = shape.channels;
    let (x, y) = (&x[..channels * columns], &mut y[..channels * columns]);
    for top in (0..channels).step_by(GROUP) {
        let width = GROUP.min(channels - top);
        let (mean, variance) = (&running[top..top + width], &running[channels + top..][..width]);
        let scale = |channel: usize| S::of(1.0) / (variance[channel] + shape.epsilon).sqrt();
        apply(pool, channels, top, mean, scale, parameters, x, y);
    }
}

/// `y ← (x − mean)·scale·γ + β` for the channels from `top` on.
fn apply<S: Real>(
    pool: &Pool,
    channels: usize,
    top: usize,
    mean: &[S],
    scale: impl Fn(usize) -> S,
    parameters: &[S],
    x: &[S],
    y: &mut [S],
) {
    let zero = S::of(0.0);
    let mut rows = [[zero; GROUP]; 3];
    for (channel, &mean) in mean.iter().enumerate() {
        rows[0][channel] = mean;
        rows[1][channel] = scale(channel) * parameters[top + channel];
        rows[2][channel] = parameters[channels + top + channel];
    }
    pool.pieces(piece(channels), y, |index, y| {
        let x = &x[index * piece(channels)..][..y.len()];
        Arch::new().dispatch(Apply { channels, top, width: mean.len(), rows: &rows, x, y });
    });
}

/// See [`Backend::batch_norm_backward`](kronfleet_core::backend::Backend::batch_norm_backward).
pub(crate) fn batch_norm_backward<S: Real>(
    pool: &Pool,
    shape: &BatchNorm<S>,
    columns: usize,
    parameters: &[S],
    x: &[S],
    saved: &[S],
    dy: &[S],
    gradient: &mut [S],
    dx: &mut [S],
) {
    let channels = shape.channels;
    if columns == 0 {
        return;
    }
    let len = channels * columns;
    let (x, dy, dx) = (&x[..len], &dy[..len], &mut dx[..len]);
    let zero = S::of(0.0);
    for top in (0..channels).step_by(GROUP) {
        let width = GROUP.min(channels - top);
        // Mean, slope of dx in x − mean, level of dy, factor of all.
        let mut rows = [[zero; GROUP]; 4];
        rows[0][..width].copy_from_slice(&saved[top..top + width]);
        let mean = &rows[0];
        let of_segment = |range: Range<usize>, [sums, products]: &mut Pair| {
            let (x, dy) = (&x[range.clone()], &dy[range]);
            Arch::new().dispatch(Sums { x, dy, channels, top, width, mean, sums, products });
        };
        let [sums, products] = over_segments(pool, channels, columns, of_segment, |all, part, _| {
            for (all, part) in all.iter_mut().zip(part) {
                for (all, &part) in all[..width].iter_mut().zip(part) {
                    *all += part;
                }
            }
        });
        for channel in 0..width {
            let at = top + channel;
            let scale = saved[channels + at].wide();
            let of_scale = products[channel] * scale;
            gradient[at] = S::of(of_scale);
            gradient[channels + at] = S::of(sums[channel]);
            rows[1][channel] = S::of(scale * of_scale / columns as f64);
            rows[2][channel] = S::of(sums[channel] / columns as f64);
            rows[3][channel] = S::of(parameters[at].wide() * scale);
        }
        pool.pieces(piece(channels), dx, |index, dx| {
            let at = index * piece(channels)..index * piece(channels) + dx.len();
            let (x, dy) = (&x[at.clone()], &dy[at]);
            Arch::new().dispatch(Adjoint { channels, top, width, rows: &rows, x, dy, dx });
        });
    }
}

/// Both sums over all columns: `sum` of each segment, of which it is given the scalars, joined in order by
/// `join(all before, segment, columns of each)`.
fn over_segments(
    pool: &Pool,
    channels: usize,
    columns: usize,
    sum: impl Fn(Range<usize>, &mut Pair) + Sync,
    join: impl Fn(&mut Pair, &Pair, [usize; 2]),
) -> Pair {
    let (len, step) = (channels * columns, segment(channels, columns));
    let mut parts = [[[0.0; GROUP]; 2]; SEGMENTS];
    let parts = &mut parts[..len.div_ceil(step)];
    let range = |index: usize| index * step..((index + 1) * step).min(len);
    pool.pieces(1, parts, |index, part| sum(range(index), &mut part[0]));
    let mut all = parts[0];
    for (index, part) in parts.iter().enumerate().skip(1) {
        join(&mut all, part, [index * step / channels, range(index).len() / channels]);
    }
    all
}

/// Joins mean and squared distances from it of one channel with those of further columns, as Chan, Golub and LeVeque
/// (1979) do. `counts` says of how many columns each are.
#[inline(always)]
fn merge([means, squares]: &mut Pair, channel: usize, mean: f64, square: f64, counts: [usize; 2]) {
    let [before, count] = counts.map(|count| count as f64);
    let distance = mean - means[channel];
    means[channel] += distance * count / (before + count);
    squares[channel] += square + distance * distance * before * count / (before + count);
}

/// Calls `$body` for every strip of a block of columns, `$from` being its first channel in the group; strips that are
/// not whole come with their width.
macro_rules! strips {
    ($width:expr, |$from:ident, $wide:ident| $body:expr) => {
        let mut $from = 0;
        while $from + STRIP <= $width {
            let $wide = STRIP;
            $body;
            $from += STRIP;
        }
        if $from < $width {
            let $wide = $width - $from;
            $body;
        }
    };
}

/// Mean and sum of squared distances from it, block by block.
struct Moments<'a, S> {
    x: &'a [S],
    channels: usize,
    top: usize,
    width: usize,
    /// Means and squared distances.
    moments: &'a mut Pair,
}

impl<S: Real> WithSimd for Moments<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) {
        let Self { x, channels, top, width, moments } = self;
        let mut before = 0;
        for block in x.chunks(channels * BLOCK) {
            let count = block.len() / channels;
            strips!(width, |from, wide| {
                let mean = sums(
                    block,
                    channels,
                    top + from,
                    wide,
                    #[inline(always)]
                    |_, x| x,
                );
                let mean = mean.map(|sum| S::of(sum.wide() / count as f64));
                let square = sums(
                    block,
                    channels,
                    top + from,
                    wide,
                    #[inline(always)]
                    |lane, x| (x - mean[lane]) * (x - mean[lane]),
                );
                for lane in 0..wide {
                    merge(moments, from + lane, mean[lane].wide(), square[lane].wide(), [before, count]);
                }
            });
            before += count;
        }
    }
}

/// Sums of a strip over the columns of a block.
#[inline(always)]
fn sums<S: Real>(block: &[S], channels: usize, at: usize, wide: usize, of: impl Fn(usize, S) -> S) -> [S; STRIP] {
    let mut sums = [S::of(0.0); STRIP];
    for column in block.chunks_exact(channels) {
        if wide == STRIP {
            let line: &[S; STRIP] = column[at..].first_chunk().expect("a whole strip");
            for lane in 0..STRIP {
                sums[lane] += of(lane, line[lane]);
            }
        } else {
            for (lane, &value) in column[at..at + wide].iter().enumerate() {
                sums[lane] += of(lane, value);
            }
        }
    }
    sums
}

/// `y ← (x − r₀)·r₁ + r₂`.
struct Apply<'a, S> {
    channels: usize,
    top: usize,
    width: usize,
    rows: &'a [Channels<S>; 3],
    x: &'a [S],
    y: &'a mut [S],
}

impl<S: Real> WithSimd for Apply<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) {
        let Self { channels, top, width, rows, x, y } = self;
        let size = channels * BLOCK;
        for (x, y) in x.chunks(size).zip(y.chunks_mut(size)) {
            strips!(width, |from, wide| {
                let rows = rows.each_ref().map(|row| strip(row, from));
                let at = top + from;
                for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                    each(
                        &x[at..at + wide],
                        &mut y[at..at + wide],
                        #[inline(always)]
                        |lane, x, _| (x - rows[0][lane]) * rows[1][lane] + rows[2][lane],
                    );
                }
            });
        }
    }
}

/// `Σ dy` and `Σ dy·(x − mean)`.
struct Sums<'a, S> {
    x: &'a [S],
    dy: &'a [S],
    channels: usize,
    top: usize,
    width: usize,
    mean: &'a Channels<S>,
    sums: &'a mut Channels<f64>,
    products: &'a mut Channels<f64>,
}

impl<S: Real> WithSimd for Sums<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) {
        let Self { x, dy, channels, top, width, mean, sums: all, products } = self;
        let size = channels * BLOCK;
        for (x, dy) in x.chunks(size).zip(dy.chunks(size)) {
            strips!(width, |from, wide| {
                let mean = strip(mean, from);
                let at = top + from;
                let (mut sum, mut product) = ([S::of(0.0); STRIP], [S::of(0.0); STRIP]);
                for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
                    if wide == STRIP {
                        let x: &[S; STRIP] = x[at..].first_chunk().expect("a whole strip");
                        let dy: &[S; STRIP] = dy[at..].first_chunk().expect("a whole strip");
                        for lane in 0..STRIP {
                            sum[lane] += dy[lane];
                            product[lane] += dy[lane] * (x[lane] - mean[lane]);
                        }
                    } else {
                        for lane in 0..wide {
                            sum[lane] += dy[at + lane];
                            product[lane] += dy[at + lane] * (x[at + lane] - mean[lane]);
                        }
                    }
                }
                for lane in 0..wide {
                    all[from + lane] += sum[lane].wide();
                    products[from + lane] += product[lane].wide();
                }
            });
        }
    }
}

/// `dx ← (dy − r₂ − (x − r₀)·r₁)·r₃`.
struct Adjoint<'a, S> {
    channels: usize,
    top: usize,
    width: usize,
    rows: &'a [Channels<S>; 4],
    x: &'a [S],
    dy: &'a [S],
    dx: &'a mut [S],
}

impl<S: Real> WithSimd for Adjoint<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) {
        let Self { channels, top, width, rows, x, dy, dx } = self;
        let size = channels * BLOCK;
        for ((x, dy), dx) in x.chunks(size).zip(dy.chunks(size)).zip(dx.chunks_mut(size)) {
            strips!(width, |from, wide| {
                let rows = rows.each_ref().map(|row| strip(row, from));
                let at = top + from;
                let lines = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
                for ((x, dy), dx) in lines.zip(dx.chunks_exact_mut(channels)) {
                    let dx = &mut dx[at..at + wide];
                    dx.copy_from_slice(&dy[at..at + wide]);
                    each(
                        &x[at..at + wide],
                        dx,
                        #[inline(always)]
                        |lane, x, dy| (dy - rows[2][lane] - (x - rows[0][lane]) * rows[1][lane]) * rows[3][lane],
                    );
                }
            });
        }
    }
}

/// The values of one strip, zeros past the group's end.
#[inline(always)]
fn strip<S: Real>(row: &Channels<S>, from: usize) -> [S; STRIP] {
    core::array::from_fn(|lane| row.get(from + lane).copied().unwrap_or_default())
}

/// `out ← f(lane, x, out)` along a strip.
#[inline(always)]
fn each<S: Real>(x: &[S], out: &mut [S], f: impl Fn(usize, S, S) -> S) {
    if let (Some(x), Some(out)) = (x.first_chunk::<STRIP>(), out.first_chunk_mut::<STRIP>()) {
        for lane in 0..STRIP {
            out[lane] = f(lane, x[lane], out[lane]);
        }
    } else {
        for (lane, (&x, out)) in x.iter().zip(out).enumerate() {
            *out = f(lane, x, *out);
        }
    }
}
