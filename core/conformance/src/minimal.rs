//! A backend of one's own, in one sitting: only what [`Backend`] requires, on plain vectors.
//!
//! # For users
//! [`Minimal`] trains any network and obeys every law, slowly. It is there to be read.
//!
//! # For implementers
//! Copy this file, rename the type and replace the bodies, from top to bottom:
//!
//! 1. *Memory.* Choose a [`Buffer`](kronfleet_core::backend::Buffer): here a `Vec`, on a device a handle and a length.
//! 2. *Tickets.* [`Download`](Backend::Download) and [`Verdict`](Backend::Verdict) are answers that may not be known
//!    yet. This backend works at once, so its tickets are the answers themselves.
//! 3. *Algebra.* Five operations on [`Region`]s, each over a slice of independent jobs. Begin every job with its
//!    `check`, which panics on wrong shapes; empty regions then fall through the loops.
//! 4. *The laws.* Add `tests/conformance.rs` to your crate, with one line, and run `cargo test`:
//!    `kronfleet_conformance::backend_laws!(make: || MyBackend::<f32>::new());`
//! 5. *Speed.* Everything else is provided through [`host`](Backend::host), by copying to the host and back. If your
//!    buffers are host memory, override `host` with a plain call first. Then override `symmetric_product` and what
//!    a profile shows; the laws hold overrides to the same results.

use core::marker::PhantomData;
use core::ops::Range;
use kronfleet_core::backend::{Backend, Counters, Gemm, Map, MapJob, ReduceJob, Solve};
use kronfleet_core::error::Never;
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;

/// Loops over vectors.
#[derive(Debug, Default)]
pub struct Minimal<S> {
    counters: Counters,
    scalar: PhantomData<S>,
}

impl<S: Scalar> Minimal<S> {
    /// A backend that has done nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S: Scalar> Backend for Minimal<S> {
    type Scalar = S;
    type Buffer = Vec<S>;
    type Download = Vec<S>;
    type Verdict = Vec<bool>;
    type Error = Never;

    fn allocate(&mut self, len: usize) -> Result<Vec<S>, Never> {
        self.counters.allocations += 1;
        self.counters.allocated += len as u64;
        Ok(vec![S::of(0.0); len])
    }

    fn upload(&mut self, source: &[S], target: &mut Vec<S>, offset: usize) -> Result<(), Never> {
        self.counters.uploaded += source.len() as u64;
        target[offset..offset + source.len()].copy_from_slice(source);
        Ok(())
    }

    /// A ticket is a snapshot: what is written to `source` from now on must not show in it.
    fn download(&mut self, source: &Vec<S>, range: Range<usize>) -> Result<Vec<S>, Never> {
        self.counters.downloaded += range.len() as u64;
        Ok(source[range].to_vec())
    }

    fn finish(&mut self, ticket: Vec<S>, target: &mut [S]) -> Result<(), Never> {
        self.counters.host_waits += 1;
        target.copy_from_slice(&ticket);
        Ok(())
    }

    /// Transposed operands need no case of their own: their regions' steps are swapped.
    fn gemm(&mut self, jobs: &[Gemm<S>], a: &Vec<S>, b: &Vec<S>, c: &mut Vec<S>) -> Result<(), Never> {
        for job in jobs {
            job.check();
            self.counters.flops += job.flops();
            for column in 0..job.c.columns {
                for row in 0..job.c.rows {
                    let terms = (0..job.a.columns).map(|k| a[job.a.index(row, k)] * b[job.b.index(k, column)]);
                    let sum: S = terms.sum();
                    let target = &mut c[job.c.index(row, column)];
                    *target = job.alpha * sum + scaled(job.beta, *target);
                }
            }
        }
        Ok(())
    }

    /// `op.apply` knows every operation; a device needs one kernel per variant of [`Map`].
    fn map(
        &mut self,
        op: Map<S>,
        jobs: &[MapJob],
        x: Option<&Vec<S>>,
        y: Option<&Vec<S>>,
        out: &mut Vec<S>,
    ) -> Result<(), Never> {
        let zero = S::of(0.0);
        for job in jobs {
            job.check();
            for column in 0..job.out.columns {
                for row in 0..job.out.rows {
                    let x = x.map_or(zero, |x| x[job.x.index(row, column)]);
                    let y = y.map_or(zero, |y| y[job.y.index(row, column)]);
                    let target = &mut out[job.out.index(row, column)];
                    *target = op.apply(x, y, *target);
                }
            }
        }
        Ok(())
    }

    /// An extent of 1 in `out` is summed over; an extent that both have is kept.
    fn reduce(&mut self, jobs: &[ReduceJob<S>], x: &Vec<S>, y: Option<&Vec<S>>, out: &mut Vec<S>) -> Result<(), Never> {
        for job in jobs {
            job.check();
            for column in 0..job.out.columns {
                for row in 0..job.out.rows {
                    let columns = if job.out.columns == 1 { 0..job.x.columns } else { column..column + 1 };
                    let rows = if job.out.rows == 1 { 0..job.x.rows } else { row..row + 1 };
                    let terms = columns.flat_map(|c| rows.clone().map(move |r| (r, c))).map(|(r, c)| {
                        let factor = y.map_or(S::of(1.0), |y| y[job.y.index(r, c)]);
                        x[job.x.index(r, c)] * factor
                    });
                    let sum: S = terms.sum();
                    let target = &mut out[job.out.index(row, column)];
                    *target = job.alpha * sum + scaled(job.beta, *target);
                }
            }
        }
        Ok(())
    }

    /// One matrix that is not positive definite must neither stop nor spoil the others.
    fn cholesky(&mut self, jobs: &[Region], matrices: &mut Vec<S>) -> Result<Vec<bool>, Never> {
        self.counters.factorisations += jobs.len() as u64;
        Ok(jobs.iter().map(|&region| factorise(region, matrices)).collect())
    }

    /// `L y = x` downwards, then `Lᵀ x = y` upwards, in place.
    fn cholesky_solve(&mut self, jobs: &[Solve], factors: &Vec<S>, x: &mut Vec<S>) -> Result<(), Never> {
        for job in jobs {
            job.check();
            let n = job.factor.rows;
            let l = |row, column| factors[job.factor.index(row, column)];
            self.counters.flops += 2 * (n * job.x.len()) as u64;
            for column in 0..job.x.columns {
                for row in 0..n {
                    let known: S = (0..row).map(|k| l(row, k) * x[job.x.index(k, column)]).sum();
                    let target = &mut x[job.x.index(row, column)];
                    *target = (*target - known) / l(row, row);
                }
                for row in (0..n).rev() {
                    let known: S = (row + 1..n).map(|k| l(k, row) * x[job.x.index(k, column)]).sum();
                    let target = &mut x[job.x.index(row, column)];
                    *target = (*target - known) / l(row, row);
                }
            }
        }
        Ok(())
    }

    fn verdict(&mut self, ticket: Vec<bool>, sound: &mut [bool]) -> Result<(), Never> {
        self.counters.host_waits += 1;
        sound.copy_from_slice(&ticket);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Never> {
        self.counters.host_waits += 1;
        Ok(())
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

/// `β·old`, where β = 0 ignores even NaN and infinity.
fn scaled<S: Scalar>(beta: S, old: S) -> S {
    if beta == S::of(0.0) { beta } else { beta * old }
}

/// `L Lᵀ = A` column by column, reading and writing the lower triangle only; whether `A` was positive definite.
fn factorise<S: Scalar>(region: Region, matrix: &mut [S]) -> bool {
    let n = region.rows;
    assert!(region.columns == n && region.row_step == 1, "Cholesky of a {n}×{} matrix", region.columns);
    for column in 0..n {
        for row in column..n {
            let product = |k| matrix[region.index(row, k)] * matrix[region.index(column, k)];
            let rest = matrix[region.index(row, column)] - (0..column).map(product).sum::<S>();
            let value = if row == column { rest.sqrt() } else { rest / matrix[region.index(column, column)] };
            // Not `<= 0`: a NaN is neither greater nor less.
            let pivot_is_sound = row != column || (rest > S::of(0.0) && value.is_finite());
            if !pivot_is_sound {
                return false;
            }
            matrix[region.index(row, column)] = value;
        }
    }
    true
}
