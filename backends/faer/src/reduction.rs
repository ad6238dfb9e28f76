//! Sums.

use crate::parallel::{PIECE, Part, Piece, Pool};
use crate::scalar::Real;
use core::ops::Range;
use kronfleet_core::backend::ReduceJob;
use kronfleet_core::matrix::Region;
use pulp::{Arch, Simd, WithSimd};

/// Elements summed in the scalar's own precision before the sum goes on in double precision: short enough that
/// single precision loses nothing to speak of, long enough that vectors pay.
const BLOCK: usize = 64;
/// Partial sums side by side.
const LANES: usize = 16;
/// Most rows of a matrix whose neighbouring columns are summed side by side, so that they fill registers.
const NARROW: usize = 16;

impl<S: Real> Piece for ReduceJob<S> {
    fn target(&self) -> Range<usize> {
        self.out.offset..self.out.end()
    }

    fn cost(&self) -> u64 {
        self.x.len() as u64 + 1
    }
}

/// See [`Backend::reduce`](kronfleet_core::backend::Backend::reduce).
pub(crate) fn reduce<S: Real>(pool: &Pool, jobs: &[ReduceJob<S>], x: &[S], y: Option<&[S]>, out: &mut [S]) {
    if jobs.iter().map(|job| job.x.len()).sum::<usize>() > PIECE {
        pool.each(jobs, out, &mut [(); 0], |_, job, part, _| one(job, x, y, part));
    } else {
        for job in jobs {
            one(job, x, y, Part::whole(out));
        }
    }
}

/// One sum, by the current thread.
pub(crate) fn one<S: Real>(job: &ReduceJob<S>, x: &[S], y: Option<&[S]>, out: Part<'_, S>) {
    job.check();
    if job.out.is_empty() {
        return;
    }
    let mut put = |row: usize, column: usize, sum: f64| {
        let target = &mut out.content[job.out.index(row, column) - out.base];
        let old = if job.beta == S::of(0.0) { 0.0 } else { job.beta.wide() * target.wide() };
        *target = S::of(job.alpha.wide() * sum + old);
    };
    let (rows, columns) = (job.x.rows, job.x.columns);
    match (job.out.rows == rows, job.out.columns == columns) {
        (true, true) => {
            for column in 0..columns {
                for row in 0..rows {
                    put(row, column, element(job, x, y, row, column).wide());
                }
            }
        }
        (false, true) => {
            for column in 0..columns {
                put(0, column, down(job, x, y, column));
            }
        }
        (true, false) if y.is_none() && rows <= NARROW && job.x.row_step == 1 && job.x.column_step == rows => {
            let content = &x[job.x.offset..job.x.end()];
            for (row, &sum) in Arch::new().dispatch(Narrow { rows, content })[..rows].iter().enumerate() {
                put(row, 0, sum);
            }
        }
        (true, false) => across(job, x, y, |row, sum| put(row, 0, sum)),
        (false, false) => {
            let packed = |region: Region| region.is_packed() && region.row_step == 1;
            let second = y.is_none() || packed(job.y);
            let sum = if packed(job.x) && second && !job.x.is_empty() {
                let long = |region: Region| Region { rows: region.len(), columns: 1, ..region };
                down(&ReduceJob { x: long(job.x), y: long(job.y), ..*job }, x, y, 0)
            } else {
                (0..columns).map(|column| down(job, x, y, column)).sum()
            };
            put(0, 0, sum);
        }
    }
}

#[inline(always)]
fn element<S: Real>(job: &ReduceJob<S>, x: &[S], y: Option<&[S]>, row: usize, column: usize) -> S {
    let x = x[job.x.index(row, column)];
    y.map_or(x, |y| x * y[job.y.index(row, column)])
}

/// The sum of one column.
fn down<S: Real>(job: &ReduceJob<S>, x: &[S], y: Option<&[S]>, column: usize) -> f64 {
    let slice = |region: Region| region.row_step == 1 && region.rows > 0;
    let range = |region: Region| region.index(0, column)..region.index(0, column) + region.rows;
    match y {
        None if slice(job.x) => sum(&x[range(job.x)]),
        Some(y) if slice(job.x) && slice(job.y) => dot(&x[range(job.x)], &y[range(job.y)]),
        _ => (0..job.x.rows).map(|row| element(job, x, y, row, column).wide()).sum(),
    }
}

/// `Σ x`.
pub(crate) fn sum<S: Real>(x: &[S]) -> f64 {
    let mut total = 0.0;
    for block in x.chunks(BLOCK * LANES) {
        let mut lanes = [S::of(0.0); LANES];
        let (body, tail) = block.as_chunks::<LANES>();
        for chunk in body {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane += value;
            }
        }
        total += lanes.iter().map(|lane| lane.wide()).sum::<f64>();
        total += tail.iter().map(|value| value.wide()).sum::<f64>();
    }
    total
}

/// `Σ x⊙y`.
pub(crate) fn dot<S: Real>(x: &[S], y: &[S]) -> f64 {
    let mut total = 0.0;
    for (x, y) in x.chunks(BLOCK * LANES).zip(y.chunks(BLOCK * LANES)) {
        let mut lanes = [S::of(0.0); LANES];
        let (x_body, x_tail) = x.as_chunks::<LANES>();
        let (y_body, y_tail) = y.as_chunks::<LANES>();
        for (x, y) in x_body.iter().zip(y_body) {
            for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
                *lane += x * y;
            }
        }
        total += lanes.iter().map(|lane| lane.wide()).sum::<f64>();
        total += x_tail.iter().zip(y_tail).map(|(&x, &y)| x.wide() * y.wide()).sum::<f64>();
    }
    total
}

/// The sums of all rows of a packed matrix of few.
struct Narrow<'a, S> {
    rows: usize,
    content: &'a [S],
}

impl<S: Real> WithSimd for Narrow<'_, S> {
    type Output = [f64; NARROW];

    #[inline(always)]
    fn with_simd<A: Simd>(self, _: A) -> [f64; NARROW] {
        let Self { rows, content } = self;
        let mut wide = [0.0; NARROW];
        let mut narrow = [S::of(0.0); NARROW * LANES];
        let narrow = &mut narrow[..rows * LANES];
        for block in content.chunks(rows * LANES * BLOCK) {
            narrow.fill(S::of(0.0));
            for columns in block.chunks(rows * LANES) {
                for (sum, &value) in narrow.iter_mut().zip(columns) {
                    *sum += value;
                }
            }
            for column in narrow.chunks_exact(rows) {
                for (wide, &sum) in wide.iter_mut().zip(column) {
                    *wide += sum.wide();
                }
            }
        }
        wide
    }
}

/// The sums of all rows, a strip of rows at a time.
fn across<S: Real>(job: &ReduceJob<S>, x: &[S], y: Option<&[S]>, mut put: impl FnMut(usize, f64)) {
    const STRIP: usize = 64;
    for top in (0..job.x.rows).step_by(STRIP) {
        let rows = STRIP.min(job.x.rows - top);
        let mut wide = [0.0; STRIP];
        for left in (0..job.x.columns).step_by(BLOCK) {
            let mut narrow = [S::of(0.0); STRIP];
            for column in left..(left + BLOCK).min(job.x.columns) {
                let start = job.x.index(top, column);
                if job.x.row_step == 1 && y.is_none() {
                    for (sum, &value) in narrow.iter_mut().zip(&x[start..start + rows]) {
                        *sum += value;
                    }
                } else {
                    for (row, sum) in narrow.iter_mut().enumerate().take(rows) {
                        *sum += element(job, x, y, top + row, column);
                    }
                }
            }
            for (wide, narrow) in wide.iter_mut().zip(&narrow) {
                *wide += narrow.wide();
            }
        }
        for (row, &sum) in wide.iter().enumerate().take(rows) {
            put(top + row, sum);
        }
    }
}
