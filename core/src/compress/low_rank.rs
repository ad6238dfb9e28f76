//! Matrices of low rank.

use super::{CompressError, Compressor, check_finite, check_size};
use crate::collective::Encoding;
use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::{Range, RangeInclusive};

/// One step of the power iteration of PowerSGD (Vogels et al. 2019, arXiv 1905.13727), by one node for itself: the vector is
/// taken as a matrix `M` that is about square, `P` is an orthonormal basis of `MΩ` for a random `Ω`, and `C(M) = P(MᵀP)ᵀ`.
///
/// `P` and `MᵀP` travel. PowerSGD averages both factors over the nodes, tensor by tensor; a code knows neither, and the next
/// `Ω` is drawn anew. As `P` is the basis of a random subspace that leans towards what is large, `E‖C(M) − M‖² ≤ (1 − r/k)‖M‖²`
/// with `k` the shorter side. What would take no fewer values than the vector travels as it is.
#[derive(Clone, Copy, Debug)]
pub struct LowRank {
    rank: u16,
}

impl LowRank {
    /// Of this rank.
    ///
    /// # Panics
    /// If it is 0.
    #[track_caller]
    pub fn new(rank: u16) -> Self {
        assert!(rank > 0, "of rank 0 there is nothing but zeros");
        Self { rank }
    }

    /// Rows and columns; `None` if the vector travels as it is.
    fn shape(self, len: usize) -> Option<(usize, usize)> {
        let columns = len.isqrt() + usize::from(len.isqrt() * len.isqrt() < len);
        let rows = if columns == 0 { 0 } else { len.div_ceil(columns) };
        (usize::from(self.rank) * (rows + columns) < len).then_some((rows, columns))
    }
}

/// The part of the vector that a row is; the last may be shorter.
fn row(number: usize, columns: usize, len: usize) -> Range<usize> {
    number * columns..len.min((number + 1) * columns)
}

/// Makes the `rank` columns of a matrix orthonormal, those that are none of their own zeros.
fn orthonormalise(matrix: &mut [f64], rank: usize) {
    let rows = matrix.len() / rank;
    let dot = |matrix: &[f64], a: usize, b: usize| {
        (0..rows).map(|row| matrix[row * rank + a] * matrix[row * rank + b]).sum::<f64>()
    };
    for column in 0..rank {
        let whole = dot(matrix, column, column);
        // Twice is enough (Giraud et al. 2005).
        for _ in 0..2 {
            for before in 0..column {
                let along = dot(matrix, before, column);
                (0..rows).for_each(|row| matrix[row * rank + column] -= along * matrix[row * rank + before]);
            }
        }
        let left = dot(matrix, column, column);
        let scale = if left > 1e-20 * whole { 1.0 / libm::sqrt(left) } else { 0.0 };
        (0..rows).for_each(|row| matrix[row * rank + column] *= scale);
    }
}

impl<S: Scalar> Compressor<S> for LowRank {
    fn name(&self) -> &'static str {
        "low rank"
    }

    fn sizes(&self, len: usize) -> RangeInclusive<usize> {
        let values = self.shape(len).map_or(len, |(rows, columns)| usize::from(self.rank) * (rows + columns));
        values * S::BYTES..=values * S::BYTES
    }

    fn encode(&mut self, values: &[S], random: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError> {
        check_finite(values)?;
        let start = target.len();
        let Some((rows, columns)) = self.shape(values.len()) else {
            target.resize(start + values.len() * S::BYTES, 0);
            Encoding::Full.write(values, &mut target[start..]);
            return Ok(());
        };
        let (rank, len) = (usize::from(self.rank), values.len());
        // Squares of values that are far from 1 would leave the range of numbers.
        let largest = values.iter().map(|value| libm::fabs(value.wide())).fold(0.0, f64::max);
        let scale = if largest > 0.0 { largest } else { 1.0 };
        let draws: Vec<f64> = (0..columns * rank).map(|_| random.normal()).collect();
        let mut basis = vec![0.0; rows * rank];
        for (number, sums) in basis.chunks_exact_mut(rank).enumerate() {
            for (value, draws) in values[row(number, columns, len)].iter().zip(draws.chunks_exact(rank)) {
                sums.iter_mut().zip(draws).for_each(|(sum, draw)| *sum += value.wide() / scale * draw);
            }
        }
        orthonormalise(&mut basis, rank);
        // What others read of it is what the other factor goes with.
        let basis: Vec<S> = basis.into_iter().map(S::of).collect();
        let mut other = vec![0.0; columns * rank];
        for (number, along) in basis.chunks_exact(rank).enumerate() {
            for (value, sums) in values[row(number, columns, len)].iter().zip(other.chunks_exact_mut(rank)) {
                sums.iter_mut().zip(along).for_each(|(sum, along)| *sum += value.wide() * along.wide());
            }
        }
        let other: Vec<S> = other.into_iter().map(S::of).collect();
        if let Some(value) = other.iter().find(|value| !value.is_finite()) {
            return Err(CompressError::TooLarge { value: value.wide() });
        }
        target.resize(start + (basis.len() + other.len()) * S::BYTES, 0);
        let (first, second) = target[start..].split_at_mut(basis.len() * S::BYTES);
        Encoding::Full.write(&basis, first);
        Encoding::Full.write(&other, second);
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], values: &mut [S]) -> Result<(), CompressError> {
        check_size(bytes, Compressor::<S>::sizes(self, values.len()))?;
        let Some((rows, columns)) = self.shape(values.len()) else {
            return if Encoding::Full.read(bytes, values) { Ok(()) } else { Err(CompressError::Field("value")) };
        };
        let (rank, len) = (usize::from(self.rank), values.len());
        let (first, second) = bytes.split_at(rows * rank * S::BYTES);
        let (mut basis, mut other) = (vec![S::zero(); rows * rank], vec![S::zero(); columns * rank]);
        if !Encoding::Full.read(first, &mut basis) || !Encoding::Full.read(second, &mut other) {
            return Err(CompressError::Field("factor"));
        }
        for column in 0..rank {
            let square: f64 = basis.iter().skip(column).step_by(rank).map(|value| value.wide() * value.wide()).sum();
            let nothing = square == 0.0 && other.iter().skip(column).step_by(rank).all(|value| *value == S::zero());
            if !nothing && libm::fabs(square - 1.0) > 1e-3 {
                return Err(CompressError::Field("basis"));
            }
        }
        for (number, along) in basis.chunks_exact(rank).enumerate() {
            for (value, other) in values[row(number, columns, len)].iter_mut().zip(other.chunks_exact(rank)) {
                *value = S::of(along.iter().zip(other).map(|(a, b)| a.wide() * b.wide()).sum());
            }
        }
        if values.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(CompressError::Field("factor")) }
    }

    fn contraction(&self, len: usize) -> f64 {
        self.shape(len).map_or(1.0, |(rows, columns)| f64::from(self.rank) / rows.min(columns) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn what_has_the_rank_is_kept() {
        let mut random = Seed(1).random();
        let vectors: Vec<Vec<f64>> = (0..4).map(|_| (0..40).map(|_| random.normal()).collect()).collect();
        let of_rank = |rank: usize| -> Vec<f64> {
            let value = |at: usize| (0..rank).map(|term| vectors[term][at / 40] * vectors[3 - term][at % 40]).sum();
            (0..1600).map(value).collect()
        };
        let lost = |values: &[f64]| {
            let (mut bytes, mut read) = (Vec::new(), vec![0.0; values.len()]);
            LowRank::new(2).encode(values, &mut Seed(2).random(), &mut bytes).expect("finite values");
            assert_eq!(bytes.len(), 2 * 80 * 8);
            LowRank::new(2).decode(&bytes, &mut read).expect("what was encoded");
            let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
            squares(&mut values.iter().zip(&read).map(|(a, b)| a - b)) / squares(&mut values.iter().copied())
        };
        assert!(lost(&of_rank(1)) < 1e-20 && lost(&of_rank(2)) < 1e-20, "{} {}", lost(&of_rank(1)), lost(&of_rank(2)));
        let noise: Vec<f64> = (0..1600).map(|_| random.normal()).collect();
        assert!(lost(&noise) > 0.5, "noise has every rank");
    }

    #[test]
    fn a_basis_that_is_none_is_refused() {
        let values: Vec<f32> = (0..1600).map(|at| at as f32).collect();
        let mut bytes = Vec::new();
        LowRank::new(1).encode(&values, &mut Seed(2).random(), &mut bytes).expect("finite values");
        let mut read = vec![0.0_f32; 1600];
        bytes[..4].copy_from_slice(&2.0_f32.to_le_bytes());
        assert_eq!(LowRank::new(1).decode(&bytes, &mut read), Err(CompressError::Field("basis")));
    }
}
