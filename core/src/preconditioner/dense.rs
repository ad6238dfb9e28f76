//! Small dense algebra in double precision on the host: the second try where the device failed.

use crate::backend::reference::jacobi;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;

/// The inverse of a symmetric positive definite `n × n` matrix (column-major), of which the lower triangle is read;
/// `None` if it is not positive definite, or its inverse is not finite.
pub(super) fn invert(n: usize, matrix: &[f64]) -> Option<Vec<f64>> {
    let mut factor = matrix.to_vec();
    for column in 0..n {
        for row in column..n {
            let mut sum = factor[row + column * n];
            for k in 0..column {
                sum -= factor[row + k * n] * factor[column + k * n];
            }
            if row == column {
                // Written so that a NaN fails too.
                if !(sum > 0.0 && sum.is_finite()) {
                    return None;
                }
                factor[row + column * n] = libm::sqrt(sum);
            } else {
                factor[row + column * n] = sum / factor[column + column * n];
            }
        }
    }
    let mut inverse = vec![0.0; n * n];
    for column in 0..n {
        let x = &mut inverse[column * n..][..n];
        x[column] = 1.0;
        for row in column..n {
            let sum: f64 = (column..row).map(|k| factor[row + k * n] * x[k]).sum();
            x[row] = (x[row] - sum) / factor[row + row * n];
        }
        for row in (0..n).rev() {
            let sum: f64 = (row + 1..n).map(|k| factor[k + row * n] * x[k]).sum();
            x[row] = (x[row] - sum) / factor[row + row * n];
        }
    }
    for column in 1..n {
        for row in 0..column {
            inverse[row + column * n] = inverse[column + row * n];
        }
    }
    inverse.iter().all(|value| value.is_finite()).then_some(inverse)
}

/// The eigenvalues of `matrix / weight` (symmetric, `n × n`), which becomes its eigenvectors; `None` if they are not
/// finite.
pub(super) fn eigen<S: Scalar>(n: usize, weight: f64, matrix: &mut [S]) -> Option<Vec<S>> {
    // Double precision throughout: the eigenvalues of a tiny weight would not survive a division in S.
    let mut wide: Vec<f64> = matrix.iter().map(|value| value.wide() / weight).collect();
    let mut values = vec![0.0; n];
    jacobi(Region::matrix(0, n, n), &mut wide, Region::vector(0, n), &mut values);
    for (target, value) in matrix.iter_mut().zip(&wide) {
        *target = S::of(*value);
    }
    let values: Vec<S> = values.into_iter().map(S::of).collect();
    values.iter().all(|value| value.is_finite()).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn the_inverse_of_a_positive_matrix_inverts_it() {
        for n in 0..12_usize {
            let mut random = Seed(n as u64).random();
            let x: Vec<f64> = (0..n * n).map(|_| random.normal()).collect();
            let entry = |r: usize, c: usize| (0..n).map(|k| x[r + k * n] * x[c + k * n]).sum::<f64>();
            let a: Vec<f64> =
                (0..n * n).map(|i| entry(i % n, i / n) + if i % n == i / n { 1.0 } else { 0.0 }).collect();
            let inverse = invert(n, &a).expect("x xᵀ + 1 is positive definite");
            for row in 0..n {
                for column in 0..n {
                    let product: f64 = (0..n).map(|k| a[row + k * n] * inverse[k + column * n]).sum();
                    let expected = if row == column { 1.0 } else { 0.0 };
                    // Condition number ≤ 1 + ‖x‖² < 200 at these sizes.
                    assert!((product - expected).abs() < 200.0 * 12.0 * f64::EPSILON, "{n}: {product}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_has_no_inverse_here() {
        assert_eq!(invert(2, &[1.0, 2.0, 2.0, 1.0]), None);
        assert_eq!(invert(1, &[f64::NAN]), None);
        assert_eq!(invert(1, &[0.0]), None);
        assert_eq!(invert(1, &[1e-320]), None);
    }
}
