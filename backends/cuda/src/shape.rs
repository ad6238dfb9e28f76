//! What kernels without jobs take: the structures of `kernels/`, field by field.

use crate::table::narrow;
use kronfleet_core::backend::{Convolution, Extent};

/// An image.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Image {
    channels: u32,
    height: u32,
    width: u32,
}

impl From<Extent> for Image {
    fn from(extent: Extent) -> Self {
        let Extent { channels, height, width } = extent;
        Self { channels: narrow(channels), height: narrow(height), width: narrow(width) }
    }
}

/// The geometry of a convolution or of pooling.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Windows {
    input: Image,
    output: Image,
    kernel: [u32; 2],
    stride: [u32; 2],
    padding: [u32; 2],
    dilation: [u32; 2],
    bias: u32,
}

impl From<&Convolution> for Windows {
    fn from(shape: &Convolution) -> Self {
        Self {
            input: shape.input.into(),
            output: shape.output.into(),
            kernel: shape.kernel.map(narrow),
            stride: shape.stride.map(narrow),
            padding: shape.padding.map(narrow),
            dilation: shape.dilation.map(narrow),
            bias: u32::from(shape.bias),
        }
    }
}

/// `PatchTable` of `patch.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct PatchTable {
    pub(crate) windows: Windows,
    pub(crate) first: u32,
    pub(crate) samples: u32,
}

/// `PoolTable` of `pool.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct PoolTable {
    pub(crate) windows: Windows,
    pub(crate) batch: u32,
    pub(crate) mean: u32,
}

/// `BatchNormTable` of `batch_norm.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BatchNormTable {
    pub(crate) channels: u32,
    pub(crate) columns: u32,
    pub(crate) chunks: u32,
    pub(crate) chunk: u32,
    pub(crate) parameters: u32,
    pub(crate) running: u32,
    pub(crate) gradient: u32,
    pub(crate) epsilon: f32,
    pub(crate) momentum: f32,
}

/// `EvoNormTable` of `evo_norm.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct EvoNormTable {
    pub(crate) channels: u32,
    pub(crate) positions: u32,
    pub(crate) groups: u32,
    pub(crate) batch: u32,
    pub(crate) chunks: u32,
    pub(crate) chunk: u32,
    pub(crate) parameters: u32,
    pub(crate) epsilon: f32,
}

/// `SubsampleTable` of `subsample.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct SubsampleTable {
    pub(crate) input: Image,
    pub(crate) output: Image,
    pub(crate) stride: u32,
    pub(crate) batch: u32,
    pub(crate) accumulate: u32,
}

/// `SoftmaxTable` of `softmax.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct SoftmaxTable {
    pub(crate) classes: u32,
    pub(crate) batch: u32,
    pub(crate) smoothing: f32,
}
