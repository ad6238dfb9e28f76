//! Softmax cross-entropy and drawing from a softmax.

use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::CudaError;
use crate::kernel::line;
use crate::shape::SoftmaxTable;
use crate::table::narrow;
use kronfleet_core::backend::Softmax;

/// See [`Backend::softmax_cross_entropy`](kronfleet_core::backend::Backend::softmax_cross_entropy).
pub(crate) fn softmax_cross_entropy(
    device: &mut Device,
    shape: &Softmax<f32>,
    batch: usize,
    (z, labels): (&Buffer, &Buffer),
    (dz, loss): (&mut Buffer, &mut Buffer),
) -> Result<(), CudaError> {
    assert!(shape.classes > 0, "a loss over no classes");
    z.check("the loss reads", 0, batch * shape.classes);
    labels.check("the loss reads", 0, batch);
    dz.check("the loss writes", 0, batch * shape.classes);
    loss.check("the loss writes", 0, 2);
    let table = SoftmaxTable { classes: narrow(shape.classes), batch: narrow(batch), smoothing: shape.smoothing };
    let [z, labels] = [z, labels].map(|buffer| device.reads(&buffer.0));
    let pointers = [z, labels, device.writes(&dz.0), device.writes(&loss.0)];
    device.launch("softmax_cross_entropy", 1, &table, &pointers)
}

/// See [`Backend::sample_labels`](kronfleet_core::backend::Backend::sample_labels).
pub(crate) fn sample_labels(
    device: &mut Device,
    classes: usize,
    batch: usize,
    (z, uniform): (&Buffer, &Buffer),
    labels: &mut Buffer,
) -> Result<(), CudaError> {
    assert!(classes > 0, "a label of no classes");
    z.check("drawing reads", 0, batch * classes);
    uniform.check("drawing reads", 0, batch);
    labels.check("drawing writes", 0, batch);
    let table = SoftmaxTable { classes: narrow(classes), batch: narrow(batch), smoothing: 0.0 };
    let pointers = [device.reads(&z.0), device.reads(&uniform.0), device.writes(&labels.0)];
    device.launch("sample_labels", line(batch), &table, &pointers)
}
