//! Softmax cross-entropy and drawing from a softmax.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::{CROSS_ENTROPY, SAMPLE};
use crate::lines::{Line, Work};
use crate::patch::{GROUP, expect};
use crate::table::word;
use kronfleet_core::backend::{Map, MapJob, Softmax};
use kronfleet_core::matrix::Region;

/// Loss and right answers.
const LOSS: Region = Region::vector(0, 2);

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
        let classes = shape.classes;
        // One workgroup, which adds up all samples that are bound; no samples are a loss of nothing, once.
        if batch == 0 {
            return self.run_map(Map::Fill(0.0), &[MapJob::unary(LOSS, LOSS)], None, None, loss);
        }
        let operands =
            [Line::each(z, classes), Line::each(labels, 1), Line::each(dz, classes), Line::all(loss, 0..LOSS.rows)];
        let work = Work { kernel: &CROSS_ENTROPY, lines: batch, each: 1, group: usize::MAX };
        let facts = [word(classes), word(batch), shape.smoothing.to_bits()];
        self.run_lines(work, &operands, None, &facts)
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
        let operands = [Line::each(z, classes), Line::each(uniform, 1), Line::each(labels, 1)];
        let work = Work { kernel: &SAMPLE, lines: batch, each: 1, group: GROUP };
        self.run_lines(work, &operands, None, &[word(classes)])
    }
}
