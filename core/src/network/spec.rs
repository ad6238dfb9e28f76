//! Descriptions of networks: plain data, no backend.

use alloc::string::String;
use alloc::vec::Vec;

/// One layer of a network.
///
/// Names are those of PyTorch modules: layer `conv1` has the parameters `conv1.weight` and `conv1.bias`. Inside a
/// [`Residual`](Self::Residual) they are prefixed with the block's name. Pairs are (vertical, horizontal).
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// Fully connected; sees the whole sample, whatever its extent.
    Dense {
        /// The module's name.
        name: String,
        /// Number of outputs.
        outputs: usize,
        /// Whether there is a bias.
        bias: bool,
    },
    /// Two-dimensional convolution.
    Convolution {
        /// The module's name.
        name: String,
        /// Output channels.
        outputs: usize,
        /// Kernel, stride, padding, dilation.
        shape: Shape,
        /// Groups of channels; only 1 is built.
        groups: usize,
        /// Whether there is a bias.
        bias: bool,
    },
    /// Batch normalisation.
    BatchNorm {
        /// The module's name.
        name: String,
        /// ε, 1e-5 in PyTorch.
        epsilon: f64,
        /// Weight of the new statistics in the running ones, 0.1 in PyTorch.
        momentum: f64,
    },
    /// EvoNorm-S0, which is normalisation and activation; parameters `weight`, `bias`, `v`.
    EvoNorm {
        /// The module's name.
        name: String,
        /// Groups of channels.
        groups: usize,
        /// ε, 1e-5 as a rule.
        epsilon: f64,
    },
    /// `max(x, 0)`.
    Relu,
    /// `tanh x`.
    Tanh,
    /// The largest element of every window; `dilation` must be 1.
    MaxPool(Shape),
    /// The mean of every window, padding counted as zeros; `dilation` must be 1.
    MeanPool(Shape),
    /// The mean over all pixels of every channel.
    GlobalMeanPool,
    /// Says that what follows sees vectors; moves nothing.
    Flatten,
    /// `body(x) + shortcut(x)`.
    Residual {
        /// Prefix of the names inside; may be empty.
        name: String,
        /// The layers of the body.
        body: Vec<Spec>,
        /// What is added to it.
        shortcut: ShortcutSpec,
    },
}

/// What a residual block adds to its body's output.
#[derive(Clone, Debug, PartialEq)]
pub enum ShortcutSpec {
    /// The input.
    Identity,
    /// Option A of He et al. 2015: every `stride`-th pixel, channels padded with zeros on both sides.
    Subsample {
        /// Distance between the pixels carried over.
        stride: usize,
    },
    /// Layers of its own.
    Projection(Vec<Spec>),
}

/// The windows of a convolution or pooling; pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Distance between neighbouring windows.
    pub stride: [usize; 2],
    /// Zeros on each side.
    pub padding: [usize; 2],
    /// Distance between neighbouring elements of a window.
    pub dilation: [usize; 2],
}

impl Shape {
    /// Square windows.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], dilation: [1; 2] }
    }
}

impl Spec {
    /// A dense layer with bias.
    pub fn dense(name: impl Into<String>, outputs: usize) -> Self {
        Self::Dense { name: name.into(), outputs, bias: true }
    }

    /// A convolution with bias and one group.
    pub fn convolution(name: impl Into<String>, outputs: usize, shape: Shape) -> Self {
        Self::Convolution { name: name.into(), outputs, shape, groups: 1, bias: true }
    }

    /// A convolution without bias, as before a normalisation.
    pub fn plain_convolution(name: impl Into<String>, outputs: usize, shape: Shape) -> Self {
        Self::Convolution { name: name.into(), outputs, shape, groups: 1, bias: false }
    }

    /// Batch normalisation with PyTorch's settings.
    pub fn batch_norm(name: impl Into<String>) -> Self {
        Self::BatchNorm { name: name.into(), epsilon: 1e-5, momentum: 0.1 }
    }

    /// A residual block.
    pub fn residual(name: impl Into<String>, body: Vec<Self>, shortcut: ShortcutSpec) -> Self {
        Self::Residual { name: name.into(), body, shortcut }
    }

    /// The name, or what the layer is where it has none.
    pub fn label(&self) -> &str {
        match self {
            Self::Dense { name, .. }
            | Self::Convolution { name, .. }
            | Self::BatchNorm { name, .. }
            | Self::EvoNorm { name, .. }
            | Self::Residual { name, .. }
                if !name.is_empty() =>
            {
                name
            }
            Self::Dense { .. } => "dense",
            Self::Convolution { .. } => "convolution",
            Self::BatchNorm { .. } => "batch norm",
            Self::EvoNorm { .. } => "EvoNorm",
            Self::Residual { .. } => "residual block",
            Self::Relu => "ReLU",
            Self::Tanh => "tanh",
            Self::MaxPool(_) => "max pooling",
            Self::MeanPool(_) => "mean pooling",
            Self::GlobalMeanPool => "global mean pooling",
            Self::Flatten => "flatten",
        }
    }
}
