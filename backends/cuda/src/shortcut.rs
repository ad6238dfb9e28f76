//! The option-A shortcut.

use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::CudaError;
use crate::kernel::line;
use crate::shape::SubsampleTable;
use crate::table::narrow;
use kronfleet_core::backend::Extent;

fn table(input: Extent, output: Extent, stride: usize, batch: usize, accumulate: bool) -> SubsampleTable {
    assert!(output.channels >= input.channels, "a shortcut from {input} to {output} loses channels");
    assert!(
        output.height.saturating_sub(1) * stride < input.height.max(1)
            && output.width.saturating_sub(1) * stride < input.width.max(1),
        "every {stride}th pixel of {input} is not {output}"
    );
    SubsampleTable {
        input: input.into(),
        output: output.into(),
        stride: narrow(stride),
        batch: narrow(batch),
        accumulate: u32::from(accumulate),
    }
}

/// See [`Backend::subsample`](kronfleet_core::backend::Backend::subsample).
pub(crate) fn subsample(
    device: &mut Device,
    (input, output): (Extent, Extent),
    stride: usize,
    batch: usize,
    accumulate: bool,
    x: &Buffer,
    y: &mut Buffer,
) -> Result<(), CudaError> {
    let len = batch * output.len();
    x.check("a shortcut reads", 0, batch * input.len());
    y.check("a shortcut writes", 0, len);
    let pointers = [device.reads(&x.0), device.writes(&y.0)];
    device.launch("subsample", line(len), &table(input, output, stride, batch, accumulate), &pointers)
}

/// See [`Backend::subsample_adjoint`](kronfleet_core::backend::Backend::subsample_adjoint).
pub(crate) fn adjoint(
    device: &mut Device,
    (input, output): (Extent, Extent),
    stride: usize,
    batch: usize,
    dy: &Buffer,
    dx: &mut Buffer,
) -> Result<(), CudaError> {
    let len = batch * input.len();
    dy.check("a shortcut reads", 0, batch * output.len());
    dx.check("a shortcut writes", 0, len);
    let pointers = [device.reads(&dy.0), device.writes(&dx.0)];
    device.launch("subsample_adjoint", line(len), &table(input, output, stride, batch, true), &pointers)
}
