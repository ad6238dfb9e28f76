//! Patches of images and back.

use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::CudaError;
use crate::kernel::line;
use crate::shape::PatchTable;
use crate::table::narrow;
use core::ops::Range;
use kronfleet_core::backend::Convolution;

fn table(shape: &Convolution, samples: &Range<usize>) -> PatchTable {
    PatchTable { windows: shape.into(), first: narrow(samples.start), samples: narrow(samples.len()) }
}

/// See [`Backend::unfold`](kronfleet_core::backend::Backend::unfold).
pub(crate) fn unfold(
    device: &mut Device,
    shape: &Convolution,
    samples: Range<usize>,
    x: &Buffer,
    patches: &mut Buffer,
) -> Result<(), CudaError> {
    let len = shape.patch_rows() * shape.output.positions() * samples.len();
    x.check("unfold reads", samples.start * shape.input.len(), samples.len() * shape.input.len());
    patches.check("unfold writes", 0, len);
    let pointers = [device.reads(&x.0), device.writes(&patches.0)];
    device.launch("unfold", line(len), &table(shape, &samples), &pointers)
}

/// See [`Backend::fold`](kronfleet_core::backend::Backend::fold).
pub(crate) fn fold(
    device: &mut Device,
    shape: &Convolution,
    samples: Range<usize>,
    patches: &Buffer,
    x: &mut Buffer,
) -> Result<(), CudaError> {
    let len = samples.len() * shape.input.len();
    patches.check("fold reads", 0, shape.patch_len() * shape.output.positions() * samples.len());
    x.check("fold writes", samples.start * shape.input.len(), len);
    let pointers = [device.reads(&patches.0), device.writes(&x.0)];
    device.launch("fold", line(len), &table(shape, &samples), &pointers)
}
