//! The symmetric eigenproblem by cyclic Jacobi rotations (Golub & Van Loan, §8.5): slow, obvious, accurate.

use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;

/// Replaces the symmetric matrix at `region` by its eigenvectors and writes its eigenvalues in ascending order; see
/// [`Backend::symmetric_eigen`](super::Backend::symmetric_eigen). Computes in double precision.
///
/// # Panics
/// If a region reaches outside its slice or the shapes do not fit.
pub fn jacobi<S: Scalar>(region: Region, matrix: &mut [S], value_region: Region, values: &mut [S]) {
    let n = region.rows;
    assert!(region.columns == n && value_region.len() == n, "eigenvalues of {}×{}", region.rows, region.columns);
    let mut a: Vec<f64> = vec![0.0; n * n];
    let mut q: Vec<f64> = vec![0.0; n * n];
    for column in 0..n {
        for row in 0..n {
            let (low, high) = (row.max(column), row.min(column));
            a[row + column * n] = matrix[region.index(low, high)].wide();
        }
        q[column + column * n] = 1.0;
    }
    let sound = a.iter().all(|value| value.is_finite());
    if sound {
        diagonalise(n, &mut a, &mut q);
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[i + i * n].total_cmp(&a[j + j * n]));
    for (to, &from) in order.iter().enumerate() {
        let value = if sound { a[from + from * n] } else { f64::NAN };
        values[value_region.index(to, 0)] = S::of(value);
        for row in 0..n {
            matrix[region.index(row, to)] = S::of(q[row + from * n]);
        }
    }
}

/// Rotates until the part off the diagonal is nothing beside the whole.
fn diagonalise(n: usize, a: &mut [f64], q: &mut [f64]) {
    let total: f64 = a.iter().map(|value| value * value).sum();
    // Convergence is quadratic: well-separated or not, some ten sweeps suffice.
    for _ in 0..60 {
        let mut off = 0.0;
        for column in 0..n {
            for row in 0..column {
                off += a[row + column * n] * a[row + column * n];
            }
        }
        if off <= total * 1e-32 {
            return;
        }
        for p in 0..n {
            for r in p + 1..n {
                rotate(n, a, q, p, r);
            }
        }
    }
}

fn rotate(n: usize, a: &mut [f64], q: &mut [f64], p: usize, r: usize) {
    let off = a[p + r * n];
    if off == 0.0 {
        return;
    }
    let theta = (a[r + r * n] - a[p + p * n]) / (2.0 * off);
    let t = theta.signum() / (libm::fabs(theta) + libm::sqrt(theta * theta + 1.0));
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / libm::sqrt(t * t + 1.0);
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[k + p * n], a[k + r * n]);
        (a[k + p * n], a[k + r * n]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..n {
        let (x, y) = (a[p + k * n], a[r + k * n]);
        (a[p + k * n], a[r + k * n]) = (c * x - s * y, s * x + c * y);
        let (x, y) = (q[k + p * n], q[k + r * n]);
        (q[k + p * n], q[k + r * n]) = (c * x - s * y, s * x + c * y);
    }
}
