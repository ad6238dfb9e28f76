//! Regions as nalgebra's views.

use kronfleet_core::matrix::Region;
use nalgebra::{Const, Dyn, MatrixView, MatrixViewMut};

/// A matrix whose columns are contiguous.
pub(crate) type Columns<'a, S> = MatrixView<'a, S, Dyn, Dyn, Const<1>, Dyn>;
/// A matrix whose columns are contiguous, to be written.
pub(crate) type ColumnsMut<'a, S> = MatrixViewMut<'a, S, Dyn, Dyn, Const<1>, Dyn>;
/// A matrix whose columns are not contiguous.
pub(crate) type Strided<'a, S> = MatrixView<'a, S, Dyn, Dyn, Dyn, Dyn>;

/// The region, which has a row step of 1 and is not empty.
pub(crate) fn columns<S: nalgebra::Scalar>(region: Region, buffer: &[S]) -> Columns<'_, S> {
    let content = &buffer[region.offset..region.end()];
    let (rows, columns) = (Dyn(region.rows), Dyn(region.columns));
    Columns::from_slice_with_strides_generic(content, rows, columns, Const, Dyn(region.column_step))
}

/// The region, which has a row step of 1 and is not empty.
pub(crate) fn columns_mut<S: nalgebra::Scalar>(region: Region, buffer: &mut [S]) -> ColumnsMut<'_, S> {
    let content = &mut buffer[region.offset..region.end()];
    let (rows, columns) = (Dyn(region.rows), Dyn(region.columns));
    // The only column may lie anywhere, but nalgebra looks for overlap in the steps alone.
    let step = if region.columns == 1 { region.rows } else { region.column_step };
    ColumnsMut::from_slice_with_strides_generic(content, rows, columns, Const, Dyn(step))
}

/// The region, which is not empty.
pub(crate) fn strided<S: nalgebra::Scalar>(region: Region, buffer: &[S]) -> Strided<'_, S> {
    let content = &buffer[region.offset..region.end()];
    let (rows, columns) = (Dyn(region.rows), Dyn(region.columns));
    Strided::from_slice_with_strides_generic(content, rows, columns, Dyn(region.row_step), Dyn(region.column_step))
}
