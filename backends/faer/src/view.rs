//! Regions as faer's matrix views.

use faer::{MatMut, MatRef};
use kronfleet_core::matrix::Region;

/// The matrix at `region`; one of its steps is 1.
#[track_caller]
pub(crate) fn read<S>(region: Region, buffer: &[S]) -> MatRef<'_, S> {
    if region.row_step == 1 {
        let content = &buffer[region.offset..region.end()];
        MatRef::from_column_major_slice_with_stride(content, region.rows, region.columns, region.column_step)
    } else {
        assert_eq!(region.column_step, 1, "a matrix operand needs a step of 1");
        read(region.transposed(), buffer).transpose()
    }
}

/// The matrix at `region`, whose row step is 1, where `buffer` starts `base` scalars into the region's buffer.
#[track_caller]
pub(crate) fn write<S>(region: Region, base: usize, buffer: &mut [S]) -> MatMut<'_, S> {
    assert!(
        region.column_step >= region.rows || region.columns <= 1,
        "the columns of a written {}×{} matrix overlap: step {}",
        region.rows,
        region.columns,
        region.column_step
    );
    let content = &mut buffer[region.offset - base..region.end() - base];
    MatMut::from_column_major_slice_with_stride_mut(content, region.rows, region.columns, region.column_step)
}
