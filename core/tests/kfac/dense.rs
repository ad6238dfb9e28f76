//! Dense algebra in plain loops: what the tests compare with. Matrices are column-major.

use kronfleet_core::backend::Backend;
use kronfleet_core::layer::Block;
use kronfleet_core::matrix::{Region, aligned};
use kronfleet_core::seed::{Random, Seed};
use kronfleet_nalgebra::Nalgebra;

/// The device the laws are tested on.
pub(crate) type Device = Nalgebra<f64>;

/// A column-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<f64>,
}

impl Matrix {
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    pub(crate) fn random(random: &mut Random, rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: (0..rows * columns).map(|_| random.normal()).collect() }
    }

    pub(crate) fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row + column * self.rows]
    }

    pub(crate) fn times(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows);
        let mut product = Self::zeros(self.rows, other.columns);
        for column in 0..other.columns {
            for row in 0..self.rows {
                let sum: f64 = (0..self.columns).map(|k| self.at(row, k) * other.at(k, column)).sum();
                product.values[row + column * self.rows] = sum;
            }
        }
        product
    }

    pub(crate) fn transposed(&self) -> Self {
        let mut turned = Self::zeros(self.columns, self.rows);
        for column in 0..self.columns {
            for row in 0..self.rows {
                turned.values[column + row * self.columns] = self.at(row, column);
            }
        }
        turned
    }

    pub(crate) fn plus_identity(mut self, scale: f64) -> Self {
        for at in 0..self.rows {
            self.values[at + at * self.rows] += scale;
        }
        self
    }

    pub(crate) fn mean_diagonal(&self) -> f64 {
        (0..self.rows).map(|at| self.at(at, at)).sum::<f64>() / self.rows as f64
    }

    /// `self⁻¹ · right`, by Gaussian elimination with row exchanges.
    pub(crate) fn solve(&self, right: &Self) -> Self {
        let n = self.rows;
        let (mut a, mut x) = (self.clone(), right.clone());
        for column in 0..n {
            let pivot = (column..n).max_by(|&p, &q| a.at(p, column).abs().total_cmp(&a.at(q, column).abs()));
            let pivot = pivot.expect("there are rows left");
            for matrix in [&mut a, &mut x] {
                for k in 0..matrix.columns {
                    matrix.values.swap(column + k * n, pivot + k * n);
                }
            }
            for row in 0..n {
                if row == column {
                    continue;
                }
                let factor = a.at(row, column) / a.at(column, column);
                for matrix in [&mut a, &mut x] {
                    for k in 0..matrix.columns {
                        matrix.values[row + k * n] -= factor * matrix.values[column + k * n];
                    }
                }
            }
        }
        for row in 0..n {
            let pivot = a.at(row, row);
            for k in 0..x.columns {
                x.values[row + k * n] /= pivot;
            }
        }
        x
    }

    /// `X Xᵀ / columns`.
    pub(crate) fn second_moment(&self) -> Self {
        let mut product = self.times(&self.transposed());
        product.values.iter_mut().for_each(|value| *value /= self.columns as f64);
        product
    }
}

/// Blocks of these `out × in` shapes, with the lengths of the flat parameters and statistics. A gap of parameters that
/// belong to no block lies before the first one.
pub(crate) fn blocks(shapes: &[(usize, usize)]) -> (Vec<Block>, usize, usize) {
    let (mut parameters, mut statistics) = (aligned::<f64>(3), 0);
    let mut blocks = Vec::new();
    for (number, &(rows, columns)) in shapes.iter().enumerate() {
        let place = |rows, columns, next: &mut usize| {
            let region = Region::matrix(*next, rows, columns);
            *next += aligned::<f64>(region.len());
            region
        };
        blocks.push(Block {
            name: format!("layer{number}"),
            parameters: place(rows, columns, &mut parameters),
            a: place(columns, columns, &mut statistics),
            g: place(rows, rows, &mut statistics),
            positions: 1,
            kernel: 1,
        });
    }
    (blocks, parameters, statistics)
}

/// A buffer with this content.
pub(crate) fn upload<B: Backend>(backend: &mut B, content: &[B::Scalar]) -> B::Buffer {
    let mut buffer = backend.allocate(content.len()).expect("memory");
    backend.upload(content, &mut buffer, 0).expect("memory");
    buffer
}

/// The matrix at `region` of a flat buffer.
pub(crate) fn read(flat: &[f64], region: Region) -> Matrix {
    let mut matrix = Matrix::zeros(region.rows, region.columns);
    for column in 0..region.columns {
        for row in 0..region.rows {
            matrix.values[row + column * region.rows] = flat[region.index(row, column)];
        }
    }
    matrix
}

/// Writes a matrix to `region` of a flat buffer.
pub(crate) fn write(flat: &mut [f64], region: Region, matrix: &Matrix) {
    for column in 0..region.columns {
        for row in 0..region.rows {
            flat[region.index(row, column)] = matrix.at(row, column);
        }
    }
}

/// Random second moments of every factor, in the layout of the statistics. A factor of dimension n has rank
/// `min(n, samples)`.
pub(crate) fn statistics(seed: u64, blocks: &[Block], len: usize, samples: usize) -> Vec<f64> {
    let mut random = Seed(seed).derive("statistics", 0).random();
    let mut flat = vec![0.0; len];
    for block in blocks {
        for region in [block.a, block.g] {
            write(&mut flat, region, &Matrix::random(&mut random, region.rows, samples).second_moment());
        }
    }
    flat
}

/// Asserts that two vectors agree to `tolerance` times the largest element.
#[track_caller]
pub(crate) fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(1e-300_f64, |largest, value| largest.max(value.abs()));
    for (at, (a, e)) in actual.iter().zip(expected).enumerate() {
        // Written so that a NaN fails.
        assert!((a - e).abs() <= tolerance * scale, "element {at}: {a} instead of {e} (scale {scale})");
    }
}
