//! Symmetric eigenproblems.

use super::bound::unit;
use super::data::{Canvas, Placed, Values, done, extent, fetch, placed};
use super::factorisation::untouched;
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Eigen};
use kronfleet_core::scalar::Scalar;
use proptest::collection::vec;
use proptest::prelude::*;

/// Eigenvalues ascend.
pub fn eigenvalues_ascend<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    check.hold(vec(symmetric(), 1..3), |matrices| {
        for Pair { values, .. } in decompose(&mut make(), &matrices)? {
            // Not `a > b`: a NaN is neither greater nor less.
            if let Some(at) = values.windows(2).position(|pair| !matches!(pair, [a, b] if a <= b)) {
                return Err(format!("eigenvalue {at} is {}, the next one {}", values[at], values[at + 1]));
            }
        }
        Ok(())
    })
}

/// `‖QᵀQ − 1‖ ≤ 16·n·ε`.
pub fn eigenvectors_are_orthonormal<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    check.hold(vec(symmetric(), 1..3), |matrices| {
        for Pair { n, vectors, .. } in decompose(&mut make(), &matrices)? {
            let mut off = 0.0;
            for i in 0..n {
                for j in 0..n {
                    let product: f64 = (0..n).map(|row| vectors[row + i * n] * vectors[row + j * n]).sum();
                    off += (product - f64::from(u8::from(i == j))).powi(2);
                }
            }
            within::<B::Scalar>("‖QᵀQ − 1‖", off.sqrt(), n, 1.0)?;
        }
        Ok(())
    })
}

/// `‖Q·diag(d)·Qᵀ − A‖ ≤ 16·n·ε·‖A‖`.
pub fn eigenpairs_multiply_back<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    check.hold(vec(symmetric(), 1..3), |matrices| {
        let pairs = decompose(&mut make(), &matrices)?;
        for (matrix, Pair { n, vectors, values }) in matrices.iter().zip(pairs) {
            let (mut off, mut size) = (0.0, 0.0);
            for i in 0..n {
                for j in 0..n {
                    let product: f64 = (0..n).map(|k| vectors[i + k * n] * values[k] * vectors[j + k * n]).sum();
                    let value = matrix.at::<B::Scalar>(i, j);
                    off += (product - value).powi(2);
                    size += value * value;
                }
            }
            within::<B::Scalar>("‖Q·diag(d)·Qᵀ − A‖", off.sqrt(), n, size.sqrt())?;
        }
        Ok(())
    })
}

/// A matrix with a NaN gives eigenvalues that are all NaN, in finite time, and leaves the other jobs alone.
pub fn eigenvalues_of_nan_are_nan<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let spoilt = (1..=17_usize).prop_flat_map(|n| (placed(n, n, false), 0..n));
    let cases = (spoilt, symmetric()).prop_map(|((mut spoilt, at), sound)| {
        spoilt.values.0.fill(1.0);
        spoilt.values.0[at * (spoilt.rows + 1)] = f64::NAN;
        [spoilt, sound]
    });
    check.hold(cases, |matrices| {
        let pairs = decompose(&mut make(), &matrices)?;
        if let Some(value) = pairs[0].values.iter().find(|value| !value.is_nan()) {
            return Err(format!("an eigenvalue of a matrix with a NaN is {value}"));
        }
        match pairs[1].values.iter().find(|value| value.is_nan()) {
            Some(_) => Err("an eigenvalue of a sound matrix beside it is NaN".into()),
            None => Ok(()),
        }
    })
}

/// Symmetric matrices: full, of low rank, diagonal, with equal eigenvalues, zero.
fn symmetric() -> impl Strategy<Value = Placed> + Clone {
    (extent(), 0..5_usize).prop_flat_map(|(n, kind)| {
        placed(n, n, false).prop_map(move |matrix| {
            let m = &matrix.values.0;
            let mut values = vec![0.0; n * n];
            for column in 0..n {
                for row in 0..n {
                    let (low, high) = (row.max(column), row.min(column));
                    let diagonal = row == column;
                    values[row + column * n] = match kind {
                        0 => m[low + high * n],
                        1 => (0..n.div_ceil(3)).map(|k| m[row + k * n] * m[column + k * n]).sum(),
                        2 if diagonal => m[row],
                        3 if diagonal => m[row].round(),
                        _ => 0.0,
                    };
                }
            }
            Placed { values: Values(values), ..matrix }
        })
    })
}

struct Pair {
    n: usize,
    vectors: Vec<f64>,
    values: Vec<f64>,
}

/// The decompositions of all matrices in one call.
fn decompose<B: Backend>(backend: &mut B, matrices: &[Placed]) -> Result<Vec<Pair>, String> {
    let (mut squares, mut lines) = (Canvas::default(), Canvas::default());
    let jobs: Vec<Eigen> = matrices
        .iter()
        .map(|matrix| {
            let n = matrix.rows;
            let line = Placed { columns: 1, between: 0, values: Values(vec![7.0; n]), ..matrix.clone() };
            Eigen { matrix: squares.place(matrix), values: lines.place(&line) }
        })
        .collect();
    let mut vectors = squares.upload(backend);
    let mut values = lines.upload(backend);
    done(backend.symmetric_eigen(&jobs, &mut vectors, &mut values));
    let (vectors, values) = (fetch(backend, &vectors), fetch(backend, &values));
    untouched(&squares, &jobs.iter().map(|job| job.matrix).collect::<Vec<_>>(), &vectors)?;
    untouched(&lines, &jobs.iter().map(|job| job.values).collect::<Vec<_>>(), &values)?;
    let pair = |job: &Eigen| {
        let n = job.matrix.rows;
        let element = |at: usize| vectors[job.matrix.index(at % n, at / n)].wide();
        Pair {
            n,
            vectors: (0..n * n).map(element).collect(),
            values: (0..n).map(|at| values[job.values.index(at, 0)].wide()).collect(),
        }
    };
    Ok(jobs.iter().map(pair).collect())
}

/// Backward stable algorithms stay within a small multiple of n·ε (Golub & Van Loan, §8.1 and §8.3).
fn within<S: Scalar>(what: &str, off: f64, n: usize, magnitude: f64) -> Result<(), String> {
    let bound = 8.0 * unit::<S>(n) * magnitude + f64::MIN_POSITIVE;
    // Not `off > bound`: a NaN is neither greater nor less.
    let near = off <= bound;
    if near { Ok(()) } else { Err(format!("{what} is {off:e}, more than {bound:e}, for n = {n}")) }
}
