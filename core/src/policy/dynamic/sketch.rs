//! Sketches: a few numbers that tell how long a vector is, and those of a mean tell it of the mean.

use crate::seed::{Random, Seed};
use alloc::vec::Vec;

/// The AMS sketch (Alon, Matias & Szegedy 1999) as FDA uses it: `S[j][h_j(i)] += s_j(i)·v_i`.
///
/// Each of `rows` rows throws the values of a vector, with random signs, into `columns` buckets. The sum of a row's
/// squares estimates `‖v‖²`; [`norm`](Self::norm) is the median over rows. Sketches are linear: the mean of sketches is
/// the sketch of the mean.
///
/// Buckets are pairwise and signs four-wise independent: polynomials of degree 1 and 3 modulo 2⁶¹ − 1, the same wherever
/// the seed is. They are computed once and kept, 4 bytes for each value and row, as a vector is sketched after every step.
#[derive(Clone, Debug)]
pub struct Sketcher {
    rows: usize,
    columns: usize,
    /// By rows: twice the bucket of each place, and 1 where the sign is negative.
    places: Vec<u32>,
    len: usize,
}

const PRIME: u64 = (1 << 61) - 1;

fn reduce(product: u128) -> u64 {
    let folded = (product as u64 & PRIME) + (product >> 61) as u64;
    if folded >= PRIME { folded - PRIME } else { folded }
}

/// A random polynomial, of which `coefficients` has the constant last.
fn polynomial<const N: usize>(random: &mut Random) -> [u64; N] {
    core::array::from_fn(|_| random.below(PRIME))
}

fn evaluate(coefficients: &[u64], at: u64) -> u64 {
    coefficients.iter().fold(0, |value, &next| reduce(u128::from(value) * u128::from(at) + u128::from(next)))
}

impl Sketcher {
    /// For vectors of `len` values.
    ///
    /// # Panics
    /// If there are no rows or columns, or 2³¹ columns or more.
    #[track_caller]
    pub fn new(rows: usize, columns: usize, len: usize, seed: Seed) -> Self {
        assert!(rows > 0 && columns > 0 && columns < 1 << 31, "a sketch of {rows} × {columns} holds nothing");
        let mut random = seed.derive("sketch", 0).random();
        let mut places = Vec::with_capacity(rows * len);
        for _ in 0..rows {
            let (bucket, sign) = (polynomial::<2>(&mut random), polynomial::<4>(&mut random));
            places.extend((0..len as u64).map(|at| {
                let bucket = evaluate(&bucket, at) % columns as u64;
                (bucket as u32) << 1 | (evaluate(&sign, at) & 1) as u32
            }));
        }
        Self { rows, columns, places, len }
    }

    /// Values of a vector.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Values of a sketch.
    pub fn size(&self) -> usize {
        self.rows * self.columns
    }

    /// The sketch of `vector`, by rows.
    ///
    /// # Panics
    /// If it does not have the expected length.
    #[track_caller]
    pub fn sketch(&self, vector: &[f64]) -> Vec<f64> {
        assert_eq!(vector.len(), self.len, "values of a vector to be sketched");
        let mut sketch = alloc::vec![0.0; self.size()];
        if self.len > 0 {
            for (row, places) in sketch.chunks_exact_mut(self.columns).zip(self.places.chunks_exact(self.len)) {
                for (&place, &value) in places.iter().zip(vector) {
                    row[(place >> 1) as usize] += if place & 1 == 1 { -value } else { value };
                }
            }
        }
        sketch
    }

    /// `M₂`: the estimate of the squared Euclidean norm of what was sketched.
    pub fn norm(&self, sketch: &[f64]) -> f64 {
        let squares = |row: &[f64]| row.iter().map(|value| value * value).sum::<f64>();
        let mut squares: Vec<f64> = sketch.chunks_exact(self.columns).map(squares).collect();
        squares.sort_by(f64::total_cmp);
        let middle = squares.len() / 2;
        match squares.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => squares[middle],
            _ => f64::midpoint(squares[middle - 1], squares[middle]),
        }
    }
}
