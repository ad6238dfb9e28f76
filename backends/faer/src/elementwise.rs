//! Element-wise operations: the operation is chosen outside the loops, and whole columns are handled as slices, so
//! that the loops become vector code.

use crate::parallel::{PIECE, Part, Piece, Pool};
use crate::scalar::Real;
use core::ops::Range;
use core::slice;
use kronfleet_core::backend::{Map, MapJob};
use kronfleet_core::matrix::Region;

impl Piece for MapJob {
    fn target(&self) -> Range<usize> {
        self.out.offset..self.out.end()
    }

    fn cost(&self) -> u64 {
        self.out.len() as u64 + 1
    }
}

/// The operands of all jobs.
#[derive(Clone, Copy)]
struct Operands<'a, S> {
    x: Option<&'a [S]>,
    y: Option<&'a [S]>,
}

/// See [`Backend::map`](kronfleet_core::backend::Backend::map).
pub(crate) fn map<S: Real>(pool: &Pool, op: Map<S>, jobs: &[MapJob], x: Option<&[S]>, y: Option<&[S]>, out: &mut [S]) {
    let operands = Operands { x, y };
    jobs.iter().for_each(MapJob::check);
    let lens = jobs.iter().map(|job| job.out.len());
    if lens.clone().any(|len| len > PIECE) {
        for job in jobs {
            cut(pool, op, operands.shape(*job), operands, out);
        }
    } else if lens.sum::<usize>() > PIECE {
        pool.each(jobs, out, &mut [(); 0], |_, job, part, _| all(op, slice::from_ref(job), operands, part));
    } else {
        all(op, jobs, operands, Part::whole(out));
    }
}

/// One job, in pieces.
fn cut<S: Real>(pool: &Pool, op: Map<S>, job: MapJob, operands: Operands<'_, S>, out: &mut [S]) {
    let Region { offset, rows, columns, row_step, column_step } = job.out;
    let apart = columns == 1 || column_step >= rows;
    if job.out.is_empty() || row_step != 1 || !apart {
        return all(op, slice::from_ref(&job), operands, Part::whole(out));
    }
    // Pieces of one long column, or whole columns.
    let step = if columns == 1 { PIECE } else { (PIECE / column_step).max(1) * column_step };
    pool.pieces(step, &mut out[offset..job.out.end()], |index, content| {
        let block = |region: Region| match columns {
            1 => region.block(index * step, 0, content.len(), 1),
            _ => region.block(0, index * step / column_step, rows, content.len().div_ceil(column_step)),
        };
        let job = MapJob { x: block(job.x), y: block(job.y), out: block(job.out) };
        all(op, slice::from_ref(&job), operands, Part { base: job.out.offset, content });
    });
}

/// Jobs one after the other.
fn all<S: Real>(op: Map<S>, jobs: &[MapJob], operands: Operands<'_, S>, out: Part<'_, S>) {
    /// The variant is known inside the closure, so that `apply` shrinks to its own arm.
    macro_rules! dispatch {
        ($($pattern:pat => $rebuilt:expr),* $(,)?) => {
            match op {
                $($pattern => run(jobs, operands, out, #[inline(always)] |x, y, z| $rebuilt.apply(x, y, z)),)*
                other => run(jobs, operands, out, |x, y, z| other.apply(x, y, z)),
            }
        };
    }
    dispatch! {
        Map::Fill(v) => Map::Fill(v),
        Map::Axpby(a, b) => Map::Axpby(a, b),
        Map::Sum(a, b) => Map::Sum(a, b),
        Map::MultiplyAdd(a, b) => Map::MultiplyAdd(a, b),
        Map::Divide => Map::Divide,
        Map::Reciprocal => Map::Reciprocal,
        Map::Sqrt => Map::Sqrt,
        Map::Maximum(a, b) => Map::Maximum(a, b),
        Map::Relu => Map::Relu,
        Map::ReluGradient => Map::ReluGradient,
        Map::Tanh => Map::Tanh,
        Map::TanhGradient => Map::TanhGradient,
        Map::DivideByProduct(d) => Map::DivideByProduct(d),
        Map::DivideDamped(d) => Map::DivideDamped(d),
        Map::Blend(w) => Map::Blend(w),
        Map::Moment(w) => Map::Moment(w),
        Map::AdamDirection(a, b, e) => Map::AdamDirection(a, b, e),
        Map::Select => Map::Select,
    }
}

/// One column (or row) of an operand.
#[derive(Clone, Copy)]
enum Line<'a, S> {
    Slice(&'a [S]),
    Constant(S),
    Strided(&'a [S], usize),
}

impl<S> Operands<'_, S> {
    /// The same job in the shape that is walked fastest.
    fn shape(&self, job: MapJob) -> MapJob {
        let flat = |region: Region, present: bool| {
            !present || region.is_packed() || (region.row_step, region.column_step) == (0, 0)
        };
        if job.out.is_packed() && flat(job.x, self.x.is_some()) && flat(job.y, self.y.is_some()) {
            // Steps of 0 stay: one long column.
            let long = |region: Region| Region {
                rows: region.len(),
                columns: 1,
                row_step: usize::from(region.is_packed() && (region.row_step, region.column_step) != (0, 0)),
                ..region
            };
            MapJob { x: long(job.x), y: long(job.y), out: Region { row_step: 1, ..long(job.out) } }
        } else if job.out.row_step != 1 && (job.out.column_step == 1 || job.out.rows < job.out.columns) {
            MapJob { x: job.x.transposed(), y: job.y.transposed(), out: job.out.transposed() }
        } else {
            job
        }
    }
}

fn run<S: Real>(jobs: &[MapJob], operands: Operands<'_, S>, out: Part<'_, S>, op: impl Fn(S, S, S) -> S + Copy) {
    let Part { base, content } = out;
    for job in jobs {
        if !job.out.is_empty() {
            one(operands.shape(*job), operands, base, content, op);
        }
    }
}

fn one<S: Real>(job: MapJob, operands: Operands<'_, S>, base: usize, out: &mut [S], op: impl Fn(S, S, S) -> S + Copy) {
    for column in 0..job.out.columns {
        let x = line(job.x, operands.x, column);
        let y = line(job.y, operands.y, column);
        let rows = job.out.rows;
        let start = job.out.index(0, column) - base;
        if job.out.row_step == 1 {
            combine(x, y, &mut out[start..start + rows], op);
        } else {
            for row in 0..rows {
                let z = &mut out[start + row * job.out.row_step];
                *z = op(x.at(row), y.at(row), *z);
            }
        }
    }
}

fn line<S: Real>(region: Region, buffer: Option<&[S]>, column: usize) -> Line<'_, S> {
    let Some(buffer) = buffer else { return Line::Constant(S::of(0.0)) };
    let start = region.index(0, column);
    match region.row_step {
        0 => Line::Constant(buffer[start]),
        1 => Line::Slice(&buffer[start..start + region.rows]),
        step => Line::Strided(&buffer[start..], step),
    }
}

impl<S: Real> Line<'_, S> {
    #[inline(always)]
    fn at(&self, row: usize) -> S {
        match self {
            Self::Slice(content) => content[row],
            Self::Constant(value) => *value,
            Self::Strided(content, step) => content[row * step],
        }
    }
}

fn combine<S: Real>(x: Line<'_, S>, y: Line<'_, S>, out: &mut [S], op: impl Fn(S, S, S) -> S + Copy) {
    match (x, y) {
        (Line::Slice(x), Line::Slice(y)) => {
            for ((z, &x), &y) in out.iter_mut().zip(x).zip(y) {
                *z = op(x, y, *z);
            }
        }
        (Line::Slice(x), Line::Constant(y)) => {
            for (z, &x) in out.iter_mut().zip(x) {
                *z = op(x, y, *z);
            }
        }
        (Line::Constant(x), Line::Slice(y)) => {
            for (z, &y) in out.iter_mut().zip(y) {
                *z = op(x, y, *z);
            }
        }
        (Line::Constant(x), Line::Constant(y)) => {
            for z in out.iter_mut() {
                *z = op(x, y, *z);
            }
        }
        (x, y) => {
            for (row, z) in out.iter_mut().enumerate() {
                *z = op(x.at(row), y.at(row), *z);
            }
        }
    }
}
