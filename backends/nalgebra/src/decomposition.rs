//! Cholesky factors and eigenvectors.

use crate::view::{columns, columns_mut};
use alloc::vec::Vec;
use kronfleet_core::backend::{Eigen, Solve, reference};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use nalgebra::{Cholesky, DMatrix, RealField, SymmetricEigen};

/// `L Lᵀ = A`; whether `A` was positive definite. `scratch` is memory to work in.
pub(crate) fn cholesky<S: Scalar + RealField>(region: Region, matrix: &mut [S], scratch: &mut Vec<S>) -> bool {
    let n = region.rows;
    assert!(
        region.columns == n && region.row_step == 1,
        "the Cholesky factor of a {}×{} matrix with row step {}",
        n,
        region.columns,
        region.row_step
    );
    if n == 0 {
        return true;
    }
    scratch.clear();
    scratch.extend((0..n * n).map(|at| {
        let (row, column) = (at % n, at / n);
        if row < column { S::of(0.0) } else { matrix[region.index(row, column)] }
    }));
    let Some(factor) = Cholesky::new(DMatrix::from_vec(n, n, core::mem::take(scratch))) else {
        return false;
    };
    let factor = factor.unpack_dirty();
    let sound = (0..n).all(|at| num_traits::Float::is_finite(factor[(at, at)]));
    if sound {
        for column in 0..n {
            for row in column..n {
                matrix[region.index(row, column)] = factor[(row, column)];
            }
        }
    }
    *scratch = factor.data.into();
    sound
}

/// `x ← (L Lᵀ)⁻¹ x`.
pub(crate) fn solve<S: Scalar + RealField>(job: &Solve, factors: &[S], x: &mut [S]) {
    job.check();
    if job.x.is_empty() {
        return;
    }
    let (factor, mut x) = (columns(job.factor, factors), columns_mut(job.x, x));
    factor.solve_lower_triangular_unchecked_mut(&mut x);
    factor.tr_solve_lower_triangular_unchecked_mut(&mut x);
}

/// `A = Q diag(d) Qᵀ`, eigenvalues ascending; all NaN where `A` is not finite.
pub(crate) fn eigen<S: Scalar + RealField>(job: &Eigen, matrices: &mut [S], values: &mut [S]) {
    let n = job.matrix.rows;
    let square = job.matrix.columns == n && job.values.rows == n && job.values.columns == 1;
    assert!(square, "eigenvalues of {}×{} into {}×{}", n, job.matrix.columns, job.values.rows, job.values.columns);
    if n == 0 {
        return;
    }
    let matrix = columns(job.matrix, matrices).clone_owned();
    // nalgebra iterates for ever on NaN; a sound matrix takes some two iterations per eigenvalue.
    let sound = matrix.iter().all(|&value| num_traits::Float::is_finite(value));
    let found = if sound { SymmetricEigen::try_new(matrix, S::default_epsilon(), 100 * n) } else { None };
    let Some(SymmetricEigen { eigenvectors, eigenvalues }) = found else {
        return reference::jacobi(job.matrix, matrices, job.values, values);
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| eigenvalues[i].wide().total_cmp(&eigenvalues[j].wide()));
    for (to, &from) in order.iter().enumerate() {
        values[job.values.index(to, 0)] = eigenvalues[from];
        for row in 0..n {
            matrices[job.matrix.index(row, to)] = eigenvectors[(row, from)];
        }
    }
}
