//! Random numbers, shapes and places, drawn so that they shrink.

use core::fmt;
use kronfleet_core::backend::Backend;
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use proptest::collection::vec;
use proptest::prelude::*;

/// What fills memory that belongs to no region: reading it spoils a result, writing it is noticed.
pub(crate) const POISON: f64 = 1e30;

/// Numbers; printed in full only if they are few.
#[derive(Clone, PartialEq)]
pub(crate) struct Values(pub(crate) Vec<f64>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0..=64 => write!(f, "{:?}", self.0),
            len => write!(f, "{:?} and {} more", &self.0[..16], len - 16),
        }
    }
}

/// `len` numbers from -2 to 2.
pub(crate) fn values(len: usize) -> impl Strategy<Value = Values> + Clone {
    vec(-2.0..2.0, len).prop_map(Values)
}

/// `len` small whole numbers: sums of products of them are exact in any order.
pub(crate) fn whole(len: usize) -> impl Strategy<Value = Values> + Clone {
    vec(-3..=3, len).prop_map(|values| Values(values.into_iter().map(f64::from).collect()))
}

/// An extent: empty, tiny, odd, and around the sizes of vectors and blocks.
pub(crate) fn extent() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![
        8 => 0..=9_usize,
        8 => 10..=33_usize,
        1 => prop::sample::select(vec![47, 48, 49, 63, 64, 65, 95, 96, 97]),
    ]
}

/// A factor, often one of those that are treated apart.
pub(crate) fn factor() -> impl Strategy<Value = f64> + Clone {
    prop_oneof![Just(0.0), Just(1.0), Just(-1.0), -2.0..2.0]
}

/// A matrix and how it lies in its buffer.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Rows contiguous instead of columns.
    pub(crate) transposed: bool,
    /// Unused scalars before it.
    pub(crate) before: usize,
    /// Unused scalars between two columns (rows, if transposed).
    pub(crate) between: usize,
    /// Column-major, whatever the place.
    pub(crate) values: Values,
}

impl Placed {
    /// Element `(row, column)` as the backend holds it.
    pub(crate) fn at<S: Scalar>(&self, row: usize, column: usize) -> f64 {
        S::of(self.values.0[row + column * self.rows]).wide()
    }
}

/// A matrix of this shape somewhere in a buffer; `turnable` ones may be transposed.
pub(crate) fn placed(rows: usize, columns: usize, turnable: bool) -> impl Strategy<Value = Placed> + Clone {
    let transposed = if turnable { any::<bool>().boxed() } else { Just(false).boxed() };
    (transposed, 0..5_usize, 0..4_usize, values(rows * columns)).prop_map(
        move |(transposed, before, between, values)| Placed { rows, columns, transposed, before, between, values },
    )
}

/// The same place with small whole numbers.
pub(crate) fn placed_whole(rows: usize, columns: usize, turnable: bool) -> impl Strategy<Value = Placed> + Clone {
    (placed(rows, columns, turnable), whole(rows * columns)).prop_map(|(placed, values)| Placed { values, ..placed })
}

/// A buffer in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Canvas {
    pub(crate) content: Vec<f64>,
}

impl Canvas {
    /// Puts the matrix behind what is there.
    pub(crate) fn place(&mut self, matrix: &Placed) -> Region {
        let (length, lines) =
            if matrix.transposed { (matrix.columns, matrix.rows) } else { (matrix.rows, matrix.columns) };
        let step = length + matrix.between;
        let straight = Region {
            offset: self.content.len() + matrix.before,
            rows: length,
            columns: lines,
            row_step: 1,
            column_step: step,
        };
        let region = if matrix.transposed { straight.transposed() } else { straight };
        self.content.resize(straight.offset + step * lines + 1, POISON);
        for column in 0..matrix.columns {
            for row in 0..matrix.rows {
                self.content[region.index(row, column)] = matrix.values.0[row + column * matrix.rows];
            }
        }
        region
    }

    /// The buffer on the device.
    pub(crate) fn upload<B: Backend>(&self, backend: &mut B) -> B::Buffer {
        upload(backend, &self.content)
    }
}

/// A new buffer with this content.
pub(crate) fn upload<B: Backend>(backend: &mut B, content: &[f64]) -> B::Buffer {
    let content: Vec<B::Scalar> = content.iter().map(|&value| B::Scalar::of(value)).collect();
    let mut buffer = done(backend.allocate(content.len()));
    done(backend.upload(&content, &mut buffer, 0));
    buffer
}

/// All of a buffer.
pub(crate) fn fetch<B: Backend>(backend: &mut B, buffer: &B::Buffer) -> Vec<B::Scalar> {
    use kronfleet_core::backend::Buffer as _;
    done(backend.fetch(buffer, 0..buffer.len()))
}

/// The result of a call; a device that fails is not what laws are about.
#[track_caller]
pub(crate) fn done<T, E: core::error::Error>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("the device failed: {error}"))
}
