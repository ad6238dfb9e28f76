//! Where a matrix lies inside a buffer.
//!
//! Buffers are linear; a [`Region`] says which of their elements form a matrix. Matrices are column-major
//! unless a region says otherwise: an activation tensor is `channels × (samples · height · width)`, channels
//! fastest, so that a dense layer sees the same memory as `(channels · height · width) × samples`.

use alloc::vec::Vec;

/// A matrix inside a buffer: element `(r, c)` lies at `offset + r · row_step + c · column_step`.
///
/// A step of 0 repeats one element, which is how vectors and scalars are broadcast; swapped steps are a
/// transpose, a column step of `n + 1` over one row is a diagonal. None of them moves data.
///
/// ```
/// use kronfleet_core::matrix::Region;
/// let a = Region::matrix(0, 3, 3);
/// assert_eq!(a.diagonal().index(0, 2), 8);
/// assert_eq!(a.transposed().index(0, 2), a.index(2, 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Index of element `(0, 0)`, in scalars.
    pub offset: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Distance between vertical neighbours, in scalars.
    pub row_step: usize,
    /// Distance between horizontal neighbours, in scalars.
    pub column_step: usize,
}

impl Region {
    /// A packed column-major matrix starting at `offset`.
    pub const fn matrix(offset: usize, rows: usize, columns: usize) -> Self {
        Self { offset, rows, columns, row_step: 1, column_step: rows }
    }

    /// A packed column vector starting at `offset`.
    pub const fn vector(offset: usize, len: usize) -> Self {
        Self::matrix(offset, len, 1)
    }

    /// The one element at `offset`, repeated to `rows × columns`.
    pub const fn scalar(offset: usize, rows: usize, columns: usize) -> Self {
        Self { offset, rows, columns, row_step: 0, column_step: 0 }
    }

    /// The packed column vector at `offset`, repeated in every one of `columns` columns.
    pub const fn repeated_column(offset: usize, rows: usize, columns: usize) -> Self {
        Self { offset, rows, columns, row_step: 1, column_step: 0 }
    }

    /// The packed vector at `offset`, of `columns` elements, as every one of `rows` rows.
    pub const fn repeated_row(offset: usize, rows: usize, columns: usize) -> Self {
        Self { offset, rows, columns, row_step: 0, column_step: 1 }
    }

    /// The same elements with rows and columns exchanged.
    pub const fn transposed(self) -> Self {
        Self {
            offset: self.offset,
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
        }
    }

    /// The diagonal, as one row.
    ///
    /// # Panics
    /// If the matrix is not square.
    #[track_caller]
    pub const fn diagonal(self) -> Self {
        assert!(self.rows == self.columns, "only a square matrix has a diagonal here");
        Self {
            offset: self.offset,
            rows: 1,
            columns: self.rows,
            row_step: 0,
            column_step: self.row_step + self.column_step,
        }
    }

    /// The `rows × columns` block whose first element is `(row, column)`.
    ///
    /// # Panics
    /// If the block does not lie inside this matrix.
    #[track_caller]
    pub const fn block(self, row: usize, column: usize, rows: usize, columns: usize) -> Self {
        assert!(row + rows <= self.rows && column + columns <= self.columns, "the block reaches outside the matrix");
        Self {
            offset: self.offset + row * self.row_step + column * self.column_step,
            rows,
            columns,
            row_step: self.row_step,
            column_step: self.column_step,
        }
    }

    /// One column.
    ///
    /// # Panics
    /// If there is no such column.
    #[track_caller]
    pub const fn column(self, column: usize) -> Self {
        self.block(0, column, self.rows, 1)
    }

    /// The same elements `distance` scalars further on.
    pub const fn shifted(self, distance: usize) -> Self {
        Self { offset: self.offset + distance, ..self }
    }

    /// How many elements the matrix has.
    pub const fn len(self) -> usize {
        self.rows * self.columns
    }

    /// Whether the matrix has no elements.
    pub const fn is_empty(self) -> bool {
        self.rows == 0 || self.columns == 0
    }

    /// Position of element `(row, column)` in the buffer.
    #[inline(always)]
    pub const fn index(self, row: usize, column: usize) -> usize {
        self.offset + row * self.row_step + column * self.column_step
    }

    /// One past the highest position in the buffer; `offset` if the matrix is empty.
    pub const fn end(self) -> usize {
        if self.is_empty() { self.offset } else { self.index(self.rows - 1, self.columns - 1) + 1 }
    }

    /// Whether the elements are `offset..end()` in column-major order.
    pub const fn is_packed(self) -> bool {
        self.is_empty()
            || ((self.row_step == 1 || self.rows == 1) && (self.column_step == self.rows || self.columns == 1))
    }

    /// Whether `other` has the same number of rows and columns.
    pub const fn same_shape(self, other: Self) -> bool {
        self.rows == other.rows && self.columns == other.columns
    }

    /// Panics unless the region lies inside a buffer of `len` scalars.
    ///
    /// # Panics
    /// With the region and the length.
    #[track_caller]
    pub const fn check(self, len: usize) {
        assert!(self.end() <= len, "the region reaches outside its buffer");
    }
}

/// Regions of a flat buffer of `len` scalars that none of `taken` covers, in ascending order.
pub(crate) fn gaps(len: usize, taken: &[Region]) -> Vec<Region> {
    let mut taken: Vec<_> = taken.iter().map(|region| (region.offset, region.end())).collect();
    taken.sort_unstable();
    let mut free = Vec::new();
    let mut next = 0;
    for (first, end) in taken.into_iter().chain([(len, len)]) {
        if first > next {
            free.push(Region::vector(next, first - next));
        }
        next = next.max(end);
    }
    free
}

/// Rounds a length in scalars up so that what follows starts on a 256-byte boundary, which GPU bindings ask for.
pub const fn aligned<S: crate::scalar::Scalar>(len: usize) -> usize {
    len.next_multiple_of(256 / S::BYTES)
}
