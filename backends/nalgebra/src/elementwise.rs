//! Element-wise operations and sums.

use kronfleet_core::backend::{Map, MapJob, ReduceJob};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;

/// `out ← op(x, y, out)`; a missing operand reads as 0.
pub(crate) fn map<S: Scalar>(op: Map<S>, job: &MapJob, x: Option<&[S]>, y: Option<&[S]>, out: &mut [S]) {
    job.check();
    job.out.check(out.len());
    let zero = S::of(0.0);
    let operand = |source: Option<&[S]>, region: Region, row, column| match source {
        Some(source) => source[region.index(row, column)],
        None => zero,
    };
    for column in 0..job.out.columns {
        for row in 0..job.out.rows {
            let target = &mut out[job.out.index(row, column)];
            *target = op.apply(operand(x, job.x, row, column), operand(y, job.y, row, column), *target);
        }
    }
}

/// `out ← α·Σ x⊙y + β·out`, summed in double precision over the dimensions in which `out` has extent 1.
pub(crate) fn reduce<S: Scalar>(job: &ReduceJob<S>, x: &[S], y: Option<&[S]>, out: &mut [S]) {
    job.check();
    let span = |summed: bool, extent: usize, at: usize| if summed { 0..extent } else { at..at + 1 };
    for column in 0..job.out.columns {
        for row in 0..job.out.rows {
            let mut sum = 0.0;
            for c in span(job.out.columns == 1, job.x.columns, column) {
                for r in span(job.out.rows == 1, job.x.rows, row) {
                    let value = x[job.x.index(r, c)].wide();
                    sum += y.map_or(value, |y| value * y[job.y.index(r, c)].wide());
                }
            }
            let target = &mut out[job.out.index(row, column)];
            let old = if job.beta == S::of(0.0) { 0.0 } else { job.beta.wide() * target.wide() };
            *target = S::of(job.alpha.wide() * sum + old);
        }
    }
}
