//! Cholesky factorisations, solutions, inverses and eigendecompositions, each sequential inside: for the sizes of
//! layers, several at once use the threads better than one after the other.

use crate::arena::Arenas;
use crate::parallel::{Part, Piece, Pool};
use crate::product::mirror;
use crate::scalar::Real;
use crate::view;
use core::ops::Range;
use faer::Par;
use faer::diag::DiagMut;
use faer::linalg::cholesky::llt;
use faer::linalg::evd::{self, ComputeEigenvectors};
use faer::prelude::*;
use kronfleet_core::backend::{Eigen, Invert, Solve};
use kronfleet_core::matrix::Region;

const fn cube(n: usize) -> u64 {
    (n as u64).pow(3)
}

/// A matrix to factorise in place.
impl Piece for Region {
    fn target(&self) -> Range<usize> {
        self.offset..self.end()
    }

    fn second(&self, index: usize) -> Range<usize> {
        index..index + 1
    }

    fn cost(&self) -> u64 {
        cube(self.rows) + 1
    }
}

impl Piece for Solve {
    fn target(&self) -> Range<usize> {
        self.x.offset..self.x.end()
    }

    fn cost(&self) -> u64 {
        (self.factor.rows * self.x.len()) as u64 + 1
    }
}

impl Piece for Invert {
    fn target(&self) -> Range<usize> {
        self.out.offset..self.out.end()
    }

    fn cost(&self) -> u64 {
        cube(self.out.rows) + 1
    }
}

impl Piece for Eigen {
    fn target(&self) -> Range<usize> {
        self.matrix.offset..self.matrix.end()
    }

    fn second(&self, _: usize) -> Range<usize> {
        self.values.offset..self.values.end()
    }

    fn cost(&self) -> u64 {
        cube(self.matrix.rows) + 1
    }
}

/// Factorises in place and says which succeeded. Returns the operations done.
pub(crate) fn cholesky<S: Real>(
    pool: &Pool,
    arenas: &Arenas<S>,
    jobs: &[Region],
    matrices: &mut [S],
    sound: &mut [bool],
) -> u64 {
    for job in jobs {
        assert!(job.rows == job.columns && job.row_step == 1, "Cholesky of {}×{}", job.rows, job.columns);
    }
    pool.each(jobs, matrices, sound, |index, region, part, verdict| {
        verdict.content[index - verdict.base] = factorise(arenas, *region, part);
    });
    jobs.iter().map(|job| cube(job.rows) / 3).sum()
}

fn factorise<S: Real>(arenas: &Arenas<S>, region: Region, part: Part<'_, S>) -> bool {
    let n = region.rows;
    if n == 0 {
        return true;
    }
    let Part { base, content } = part;
    let need = llt::factor::cholesky_in_place_scratch::<S>(n, Par::Seq, Default::default());
    let regularisation = llt::factor::LltRegularization::default();
    let outcome = arenas.with(|arena| {
        let matrix = view::write(region, base, content);
        llt::factor::cholesky_in_place(matrix, regularisation, Par::Seq, arena.stack(need), Default::default())
    });
    // NaN and infinity pass comparisons with zero in some kernels.
    let positive = |i: usize| {
        let pivot = content[region.index(i, i) - base];
        pivot.is_finite() && pivot > S::of(0.0)
    };
    outcome.is_ok() && (0..n).all(positive)
}

/// Solves in place. Returns the operations done.
pub(crate) fn solve<S: Real>(pool: &Pool, jobs: &[Solve], factors: &[S], x: &mut [S]) -> u64 {
    pool.each(jobs, x, &mut [(); 0], |_, job, part, _| {
        job.check();
        if job.x.is_empty() {
            return;
        }
        let factor = view::read(job.factor, factors);
        let target = view::write(job.x, part.base, part.content);
        let mut nothing = faer::dyn_stack::MemBuffer::new(faer::dyn_stack::StackReq::EMPTY);
        let stack = faer::dyn_stack::MemStack::new(&mut nothing);
        llt::solve::solve_in_place(factor, target, Par::Seq, stack);
    });
    jobs.iter().map(|job| 2 * job.factor.rows as u64 * job.x.len() as u64).sum()
}

/// Inverts from factors. Returns the operations done.
pub(crate) fn invert<S: Real>(pool: &Pool, arenas: &Arenas<S>, jobs: &[Invert], factors: &[S], out: &mut [S]) -> u64 {
    for Invert { factor, out } in jobs {
        assert!(
            factor.rows == factor.columns && out.rows == factor.rows && out.columns == factor.rows,
            "the inverse of {}×{} is not {}×{}",
            factor.rows,
            factor.columns,
            out.rows,
            out.columns
        );
        assert!(factor.row_step == 1 && out.row_step == 1, "inversion needs row steps of 1");
    }
    pool.each(jobs, out, &mut [(); 0], |_, job, part, _| {
        if job.out.is_empty() {
            return;
        }
        let Part { base, content } = part;
        let need = llt::inverse::inverse_scratch::<S>(job.out.rows, Par::Seq);
        arenas.with(|arena| {
            let target = view::write(job.out, base, content);
            llt::inverse::inverse(target, view::read(job.factor, factors), Par::Seq, arena.stack(need));
        });
        mirror(job.out, base, content);
    });
    jobs.iter().map(|job| 2 * cube(job.out.rows) / 3).sum()
}

/// Diagonalises in place. Returns the operations done: tridiagonalisation (4/3 n³), back-transformation (2 n³) and
/// the merges of divide and conquer without deflation (4/3 n³).
pub(crate) fn eigen<S: Real>(
    pool: &Pool,
    arenas: &Arenas<S>,
    jobs: &[Eigen],
    matrices: &mut [S],
    values: &mut [S],
) -> u64 {
    for Eigen { matrix, values } in jobs {
        assert!(
            matrix.rows == matrix.columns && values.len() == matrix.rows && matrix.row_step == 1,
            "{} eigenvalues of {}×{}",
            values.len(),
            matrix.rows,
            matrix.columns
        );
    }
    pool.each(jobs, matrices, values, |_, job, matrix, values| diagonalise(arenas, job, matrix, values));
    jobs.iter().map(|job| 14 * cube(job.matrix.rows) / 3).sum()
}

fn diagonalise<S: Real>(arenas: &Arenas<S>, job: &Eigen, matrix: Part<'_, S>, values: Part<'_, S>) {
    let n = job.matrix.rows;
    if n == 0 {
        return;
    }
    let need = evd::self_adjoint_evd_scratch::<S>(n, ComputeEigenvectors::Yes, Par::Seq, Default::default());
    let values = &mut values.content[job.values.offset - values.base..][..n];
    let mut matrix = view::write(job.matrix, matrix.base, matrix.content);
    let finite = (0..n).all(|column| (column..n).all(|row| matrix.rb()[(row, column)].is_finite()));
    let sound = finite
        && arenas.with(|arena| {
            let (copy, stack) = arena.both(n * n, need);
            let mut copy = faer::MatMut::from_column_major_slice_mut(copy, n, n);
            copy.copy_from(matrix.rb());
            let diagonal = DiagMut::from_slice_mut(values);
            evd::self_adjoint_evd(copy.rb(), diagonal, Some(matrix.rb_mut()), Par::Seq, stack, Default::default())
                .is_ok()
        });
    if !sound {
        values.fill(S::nan());
    }
}
