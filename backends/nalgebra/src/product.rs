//! Matrix products.

use crate::view::{columns, columns_mut, strided};
use kronfleet_core::backend::{Gemm, Outer};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use nalgebra::RealField;

/// `c ← α·a·b + β·c`.
pub(crate) fn gemm<S: Scalar + RealField>(job: &Gemm<S>, a: &[S], b: &[S], c: &mut [S]) {
    job.check();
    if job.c.is_empty() {
        return;
    }
    let mut target = columns_mut(job.c, c);
    if job.a.columns == 0 {
        return if job.beta == S::of(0.0) { target.fill(job.beta) } else { target *= job.beta };
    }
    // nalgebra adds columns of `a`, or takes inner products with them: the column of `a` should be contiguous.
    match (job.a.row_step, job.b.row_step) {
        (1, 1) => target.gemm(job.alpha, &columns(job.a, a), &columns(job.b, b), job.beta),
        (1, _) => target.gemm(job.alpha, &columns(job.a, a), &strided(job.b, b), job.beta),
        (_, 1) => target.gemm_tr(job.alpha, &columns(job.a.transposed(), a), &columns(job.b, b), job.beta),
        (_, _) => target.gemm_tr(job.alpha, &columns(job.a.transposed(), a), &strided(job.b, b), job.beta),
    }
}

/// Columns whose products are taken together: what is computed twice is one triangle of this many columns.
const BLOCK: usize = 32;

/// `c ← α·x·xᵀ + β·c`: the lower triangle is computed, the upper one copied from it.
pub(crate) fn symmetric_product<S: Scalar + RealField>(job: &Outer<S>, x: &[S], c: &mut [S]) {
    job.check();
    let (n, depth) = (job.x.rows, job.x.columns);
    for first in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - first);
        let product = Gemm {
            alpha: job.alpha,
            a: job.x.block(first, 0, n - first, depth),
            b: job.x.block(first, 0, width, depth).transposed(),
            beta: job.beta,
            c: job.c.block(first, first, n - first, width),
        };
        gemm(&product, x, x, c);
    }
    mirror(job.c, c);
}

/// Copies the strict lower triangle onto the upper one.
pub(crate) fn mirror<S: Copy>(region: Region, matrix: &mut [S]) {
    for column in 1..region.columns {
        for row in 0..column {
            matrix[region.index(row, column)] = matrix[region.index(column, row)];
        }
    }
}
