//! Matrix products.

use crate::parallel::{Part, Piece, Pool};
use crate::scalar::Real;
use crate::view;
use core::ops::Range;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Par};
use kronfleet_core::backend::{Gemm, Outer};
use kronfleet_core::matrix::Region;

/// Below this many operations a product is not worth waking threads for.
const WORTH_THREADS: u64 = 1 << 21;

impl<S: Real> Piece for Gemm<S> {
    fn target(&self) -> Range<usize> {
        self.c.offset..self.c.end()
    }

    fn cost(&self) -> u64 {
        self.flops().max(1)
    }
}

impl<S: Real> Piece for Outer<S> {
    fn target(&self) -> Range<usize> {
        self.c.offset..self.c.end()
    }

    fn cost(&self) -> u64 {
        self.flops().max(1)
    }
}

/// How many threads the products of one call want: each with all of them, or one each.
fn shared(pool: &Pool, costs: impl Iterator<Item = u64> + Clone) -> Par {
    let threads = pool.threads();
    let (total, largest) = costs.fold((0, 0), |(total, largest), cost| (total + cost, largest.max(cost)));
    // One product that outweighs a thread's share of the rest would leave the other threads idle.
    if threads > 1 && largest >= WORTH_THREADS && largest * threads as u64 > total {
        Par::rayon(threads)
    } else {
        Par::Seq
    }
}

/// See [`Backend::gemm`](kronfleet_core::backend::Backend::gemm).
pub(crate) fn gemm<S: Real>(pool: &Pool, jobs: &[Gemm<S>], a: &[S], b: &[S], c: &mut [S]) {
    let costs = jobs.iter().map(Piece::cost);
    match shared(pool, costs.clone()) {
        Par::Seq if costs.sum::<u64>() < WORTH_THREADS => {
            for job in jobs {
                multiply(job, a, b, Part::whole(c), Par::Seq);
            }
        }
        Par::Seq => pool.each(jobs, c, &mut [(); 0], |_, job, part, _| multiply(job, a, b, part, Par::Seq)),
        par => pool.install(|| {
            for job in jobs {
                multiply(job, a, b, Part::whole(c), par);
            }
        }),
    }
}

/// One product, by the current thread or shared as `par` says.
pub(crate) fn multiply<S: Real>(job: &Gemm<S>, a: &[S], b: &[S], c: Part<'_, S>, par: Par) {
    job.check();
    if job.c.is_empty() {
        return;
    }
    let accumulate = scale(job.c, job.beta, c.base, c.content);
    if job.a.columns == 0 {
        if accumulate == Accum::Replace {
            fill(job.c, c.base, c.content);
        }
        return;
    }
    let par = if job.flops() < WORTH_THREADS { Par::Seq } else { par };
    let target = view::write(job.c, c.base, c.content);
    faer::linalg::matmul::matmul(target, accumulate, view::read(job.a, a), view::read(job.b, b), job.alpha, par);
}

/// See [`Backend::symmetric_product`](kronfleet_core::backend::Backend::symmetric_product).
pub(crate) fn symmetric<S: Real>(pool: &Pool, jobs: &[Outer<S>], x: &[S], c: &mut [S]) {
    let costs = jobs.iter().map(Piece::cost);
    match shared(pool, costs.clone()) {
        Par::Seq if costs.sum::<u64>() < WORTH_THREADS => {
            for job in jobs {
                square(job, x, Part::whole(c), Par::Seq);
            }
        }
        Par::Seq => pool.each(jobs, c, &mut [(); 0], |_, job, part, _| square(job, x, part, Par::Seq)),
        par => pool.install(|| {
            for job in jobs {
                square(job, x, Part::whole(c), par);
            }
        }),
    }
}

fn square<S: Real>(job: &Outer<S>, x: &[S], c: Part<'_, S>, par: Par) {
    job.check();
    if job.c.is_empty() {
        return;
    }
    let Part { base, content } = c;
    lower(job, x, Part { base, content }, par);
    mirror(job.c, base, content);
}

/// The lower triangle of a symmetric product; the upper one is left unspecified.
pub(crate) fn lower<S: Real>(job: &Outer<S>, x: &[S], c: Part<'_, S>, par: Par) {
    let accumulate = scale(job.c, job.beta, c.base, c.content);
    if job.x.columns == 0 {
        if accumulate == Accum::Replace {
            fill(job.c, c.base, c.content);
        }
        return;
    }
    let par = if job.flops() < WORTH_THREADS { Par::Seq } else { par };
    let x = view::read(job.x, x);
    let all = BlockStructure::Rectangular;
    let target = view::write(job.c, c.base, c.content);
    let triangle = BlockStructure::TriangularLower;
    triangular::matmul(target, triangle, accumulate, x, all, x.transpose(), all, job.alpha, par);
}

/// Applies a β that faer does not know and says how the product is to be added.
fn scale<S: Real>(region: Region, beta: S, base: usize, content: &mut [S]) -> Accum {
    if beta == S::of(0.0) {
        return Accum::Replace;
    }
    if beta != S::of(1.0) {
        for column in columns(region, base, content) {
            column.iter_mut().for_each(|value| *value *= beta);
        }
    }
    Accum::Add
}

fn fill<S: Real>(region: Region, base: usize, content: &mut [S]) {
    for column in columns(region, base, content) {
        column.fill(S::of(0.0));
    }
}

/// The columns of a written region, whose row step is 1.
fn columns<S>(region: Region, base: usize, content: &mut [S]) -> impl Iterator<Item = &mut [S]> {
    let (rows, step) = (region.rows, region.column_step.max(1));
    let content = &mut content[region.offset - base..region.end() - base];
    content.chunks_mut(step).map(move |column| &mut column[..rows])
}

/// Copies the strict lower triangle onto the upper one, in blocks that stay in cache.
pub(crate) fn mirror<S: Copy>(region: Region, base: usize, content: &mut [S]) {
    const BLOCK: usize = 16;
    let n = region.rows;
    assert_eq!(n, region.columns, "only a square matrix is mirrored");
    let at = |row: usize, column: usize| region.index(row, column) - base;
    for left in (0..n).step_by(BLOCK) {
        for top in (left..n).step_by(BLOCK) {
            for column in left..(left + BLOCK).min(n) {
                for row in top.max(column + 1)..(top + BLOCK).min(n) {
                    content[at(column, row)] = content[at(row, column)];
                }
            }
        }
    }
}
