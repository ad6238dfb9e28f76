//! Maximum and mean pooling.

use crate::buffer::Buffer;
use crate::device::{Device, Pointer};
use crate::error::CudaError;
use crate::kernel::line;
use crate::shape::PoolTable;
use crate::table::narrow;
use kronfleet_core::backend::{Pool, Pooling};

fn table(shape: &Pooling, batch: usize) -> PoolTable {
    let mean = u32::from(shape.pool == Pool::Mean);
    PoolTable { windows: (&shape.windows).into(), batch: narrow(batch), mean }
}

/// See [`Backend::pool_forward`](kronfleet_core::backend::Backend::pool_forward).
pub(crate) fn forward(
    device: &mut Device,
    shape: &Pooling,
    batch: usize,
    x: &Buffer,
    y: &mut Buffer,
) -> Result<(), CudaError> {
    let len = batch * shape.windows.output.len();
    x.check("pooling reads", 0, batch * shape.windows.input.len());
    y.check("pooling writes", 0, len);
    let pointers = [device.reads(&x.0), device.writes(&y.0)];
    device.launch("pool_forward", line(len), &table(shape, batch), &pointers)
}

/// See [`Backend::pool_backward`](kronfleet_core::backend::Backend::pool_backward).
pub(crate) fn backward(
    device: &mut Device,
    shape: &Pooling,
    batch: usize,
    x: &Buffer,
    dy: &Buffer,
    dx: &mut Buffer,
) -> Result<(), CudaError> {
    let len = batch * shape.windows.input.len();
    // A mean does not look at what was pooled.
    let looked_at = if shape.pool == Pool::Mean {
        Pointer::NONE
    } else {
        x.check("pooling reads", 0, len);
        device.reads(&x.0)
    };
    dy.check("pooling reads", 0, batch * shape.windows.output.len());
    dx.check("pooling writes", 0, len);
    let pointers = [looked_at, device.reads(&dy.0), device.writes(&dx.0)];
    device.launch("pool_backward", line(len), &table(shape, batch), &pointers)
}
