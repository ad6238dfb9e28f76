//! Patches of images, and the strided identity of shortcuts.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::{FOLD, SUBSAMPLE, SUBSAMPLE_ADJOINT, UNFOLD, UNFOLD_TO_HALF};
use crate::lines::{Line, Rows, Work};
use crate::table::word;
use core::ops::Range;
use kronfleet_core::backend::{Buffer as _, Convolution, Extent};

/// Elements of one workgroup of the shaders that take element after element.
pub(crate) const GROUP: usize = 256;

/// The geometry as shaders read it.
pub(crate) fn geometry(shape: &Convolution) -> [u32; 15] {
    let Convolution { input, output, kernel, stride, padding, dilation, bias } = shape;
    let [c, h, w] = [input.channels, input.height, input.width];
    let [oc, oh, ow] = [output.channels, output.height, output.width];
    let pairs = [kernel, stride, padding, dilation].map(|pair| pair.map(word));
    let [[kh, kw], [sh, sw], [ph, pw], [dh, dw]] = pairs;
    let extents = [c, h, w, oc, oh, ow].map(word);
    let [c, h, w, oc, oh, ow] = extents;
    [c, h, w, oc, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, u32::from(*bias)]
}

/// How the rows of images and of windows' positions belong together.
pub(crate) fn rows(shape: &Convolution) -> Rows {
    Rows {
        input: shape.input.height,
        output: shape.output.height,
        reach: (shape.kernel[0] - 1) * shape.dilation[0],
        stride: shape.stride[0],
        padding: shape.padding[0],
    }
}

/// The scalars of rows of `len`.
pub(crate) fn scalars(rows: Range<usize>, len: usize) -> Range<usize> {
    rows.start * len..rows.end * len
}

impl Wgpu {
    /// To patches in single or in half precision.
    pub(crate) fn run_unfold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        half: bool,
        x: &Buffer,
        patches: &Buffer,
    ) -> Result<(), WgpuError> {
        let row = shape.patch_rows() * shape.output.width;
        let lines = samples.len() * shape.output.height;
        expect("patches", if half { (lines * row).div_ceil(2) } else { lines * row }, patches);
        expect("samples", samples.end * shape.input.len(), x);
        let (rows, first) = (rows(shape), samples.start * shape.input.height);
        let of_x = Line::new(x, |outputs| {
            let seen = rows.seen(outputs);
            scalars(first + seen.start..first + seen.end, shape.input.channels * shape.input.width)
        });
        let (kernel, of_patches) =
            if half { (&UNFOLD_TO_HALF, Line::halves(patches, row)) } else { (&UNFOLD, Line::each(patches, row)) };
        let work = Work { kernel, lines, each: row, group: GROUP };
        let facts = [&[word(samples.start)][..], &geometry(shape)].concat();
        self.run_lines(work, &[of_x, of_patches], None, &facts)
    }

    pub(crate) fn run_fold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        patches: &Buffer,
        x: &Buffer,
    ) -> Result<(), WgpuError> {
        expect("patches", shape.patch_len() * shape.output.positions() * samples.len(), patches);
        expect("samples", samples.end * shape.input.len(), x);
        let row = shape.input.channels * shape.input.width;
        let (rows, first) = (rows(shape), samples.start * shape.input.height);
        let of_patches =
            Line::new(patches, |inputs| scalars(rows.seeing(inputs), shape.patch_len() * shape.output.width));
        let of_x = Line::new(x, |inputs| scalars(first + inputs.start..first + inputs.end, row));
        let work = Work { kernel: &FOLD, lines: samples.len() * shape.input.height, each: row, group: GROUP };
        let facts = [&[word(samples.start)][..], &geometry(shape)].concat();
        self.run_lines(work, &[of_patches, of_x], None, &facts)
    }

    /// The strided identity, or its adjoint, which adds to what is there.
    pub(crate) fn run_subsample(
        &mut self,
        (input, output, stride): (Extent, Extent, usize),
        batch: usize,
        forward: Option<bool>,
        source: &Buffer,
        target: &Buffer,
    ) -> Result<(), WgpuError> {
        let (from, to) = if forward.is_some() { (input, output) } else { (output, input) };
        expect("samples", batch * from.len(), source);
        expect("samples", batch * to.len(), target);
        let rows = Rows { input: input.height, output: output.height, reach: 0, stride, padding: 0 };
        let of_source = Line::new(source, |lines| {
            let rows = if forward.is_some() { rows.seen(lines) } else { rows.seeing(lines) };
            scalars(rows, from.channels * from.width)
        });
        let each = to.channels * to.width;
        let kernel = if forward.is_some() { &SUBSAMPLE } else { &SUBSAMPLE_ADJOINT };
        let mut facts = vec![u32::from(forward == Some(true)), word(stride)];
        facts.extend([input, output].into_iter().flat_map(|e| [e.channels, e.height, e.width].map(word)));
        let work = Work { kernel, lines: batch * to.height, each, group: GROUP };
        self.run_lines(work, &[of_source, Line::each(target, each)], None, &facts)
    }
}

/// Panics unless the buffer holds as many scalars as an operation uses.
#[track_caller]
pub(crate) fn expect(what: &str, len: usize, buffer: &Buffer) {
    assert!(len <= buffer.len(), "{what} of {len} scalars do not fit into a buffer of {}", buffer.len());
}
