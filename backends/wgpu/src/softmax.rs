//! Softmax cross-entropy and drawing from a softmax.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::{CROSS_ENTROPY, SAMPLE};
use crate::patch::{GROUP, expect};
use crate::table::word;
use kronfleet_core::backend::Softmax;

impl Wgpu {
    pub(crate) fn run_cross_entropy(
        &mut self,
        shape: &Softmax<f32>,
        batch: usize,
        [z, labels, dz, loss]: [&Buffer; 4],
    ) -> Result<(), WgpuError> {
        expect("logits", shape.classes * batch, z);
        expect("labels", batch, labels);
        expect("gradients", shape.classes * batch, dz);
        expect("loss and right answers", 2, loss);
        let bound = [self.bind_all(z)?, self.bind_all(labels)?, self.bind_all(dz)?, self.bind_all(loss)?];
        let mut table = self.table();
        table.extend([word(shape.classes), word(batch), shape.smoothing.to_bits()]);
        self.launch(&CROSS_ENTROPY, table, &bound, 1)
    }

    pub(crate) fn run_sample_labels(
        &mut self,
        classes: usize,
        batch: usize,
        [z, uniform, labels]: [&Buffer; 3],
    ) -> Result<(), WgpuError> {
        expect("logits", classes * batch, z);
        expect("uniform numbers", batch, uniform);
        expect("labels", batch, labels);
        let bound = [self.bind_all(z)?, self.bind_all(uniform)?, self.bind_all(labels)?];
        let mut table = self.table();
        table.extend([word(batch), word(classes)]);
        self.launch(&SAMPLE, table, &bound, batch.div_ceil(GROUP))
    }
}
