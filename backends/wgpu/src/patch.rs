//! Patches of images, and the strided identity of shortcuts.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::{FOLD, Kernel, SUBSAMPLE, SUBSAMPLE_ADJOINT, UNFOLD};
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

impl Wgpu {
    pub(crate) fn run_unfold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        x: &Buffer,
        patches: &Buffer,
    ) -> Result<(), WgpuError> {
        let len = shape.patch_rows() * shape.output.positions() * samples.len();
        expect("patches", len, patches);
        expect("samples", samples.end * shape.input.len(), x);
        self.run_patches(&UNFOLD, shape, samples.start, len, x, patches)
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
        self.run_patches(&FOLD, shape, samples.start, shape.input.len() * samples.len(), patches, x)
    }

    fn run_patches(
        &mut self,
        kernel: &Kernel,
        shape: &Convolution,
        first: usize,
        len: usize,
        source: &Buffer,
        target: &Buffer,
    ) -> Result<(), WgpuError> {
        let bound = [self.bind_all(source)?, self.bind_all(target)?];
        let mut table = self.table();
        table.extend([word(len), word(first)]);
        table.extend(geometry(shape));
        self.launch(kernel, table, &bound, len.div_ceil(GROUP))
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
        let bound = [self.bind_all(source)?, self.bind_all(target)?];
        let len = batch * to.len();
        let mut table = self.table();
        table.extend([word(len), u32::from(forward == Some(true)), word(stride)]);
        table.extend([input, output].into_iter().flat_map(|e| [e.channels, e.height, e.width].map(word)));
        let kernel = if forward.is_some() { &SUBSAMPLE } else { &SUBSAMPLE_ADJOINT };
        self.launch(kernel, table, &bound, len.div_ceil(GROUP))
    }
}

/// Panics unless the buffer holds as many scalars as an operation uses.
#[track_caller]
pub(crate) fn expect(what: &str, len: usize, buffer: &Buffer) {
    assert!(len <= buffer.len(), "{what} of {len} scalars do not fit into a buffer of {}", buffer.len());
}
