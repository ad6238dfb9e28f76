//! What a network is made of: the [`Layer`] trait.
//!
//! A layer owns neither parameters nor activations. All parameters of a network live in one flat buffer, their
//! gradients in another of the same layout, the running statistics of normalisation layers in a third, and the
//! Kronecker statistics of one batch in a fourth; a layer holds *ranges* of them, assigned when the network is built.
//!
//! Activations are `channels × (samples · height · width)` matrices at offset 0 of buffers of their own
//! ([`Extent`] per sample), so flattening moves nothing.

mod activation;
mod batch_norm;
mod convolution;
mod dense;
mod evo_norm;
mod observer;
mod pooling;
mod residual;
mod sequence;

pub use activation::{Relu, Tanh};
pub use batch_norm::BatchNormLayer;
pub use convolution::ConvolutionLayer;
pub use dense::Dense;
pub use evo_norm::EvoNormLayer;
pub use observer::{Capture, CaptureKind, Observer};
pub use pooling::PoolingLayer;
pub(crate) use residual::subsample_fits;
pub use residual::{Residual, Shortcut};
pub use sequence::Sequence;

use crate::backend::{Backend, Extent};
use crate::matrix::Region;
use alloc::string::String;
use alloc::vec::Vec;

/// Whether batch statistics or running ones normalise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Use the batch's statistics and update the running ones.
    Train,
    /// Use the running statistics and change nothing.
    Evaluate,
}

/// What a forward pass works with.
pub struct Forward<'a, B: Backend> {
    /// The device.
    pub backend: &'a mut B,
    /// Samples in the batch.
    pub batch: usize,
    /// Training or evaluation.
    pub mode: Mode,
    /// All parameters.
    pub parameters: &'a B::Buffer,
    /// All running statistics.
    pub running: &'a mut B::Buffer,
    /// Where input statistics `Σ a aᵀ / N` are *added*, if they are wanted now.
    pub statistics: Option<&'a mut B::Buffer>,
    /// Who is shown each block's statistics as soon as they are there.
    pub observer: Option<&'a mut dyn Observer<B>>,
    /// Memory of unspecified content, as long as the longest [`Layer::scratch`].
    pub scratch: &'a mut B::Buffer,
    /// A stack of [`Layer::spares`] buffers of unspecified content, each [`Layer::widest`] scalars per sample: who
    /// takes one puts it back. Empty for a layer that asks for none.
    pub spare: &'a mut Vec<B::Buffer>,
}

impl<B: Backend> Forward<'_, B> {
    /// Shows the observer what block `block` has added to the statistics, if they are wanted.
    ///
    /// # Errors
    /// If the device fails.
    pub fn entered(&mut self, block: usize) -> Result<(), B::Error> {
        match (&mut self.observer, &self.statistics) {
            (Some(observer), Some(statistics)) => observer.entered(self.backend, block, statistics),
            _ => Ok(()),
        }
    }
}

/// What a backward pass works with.
pub struct Backward<'a, B: Backend> {
    /// The device.
    pub backend: &'a mut B,
    /// Samples in the batch.
    pub batch: usize,
    /// All parameters.
    pub parameters: &'a B::Buffer,
    /// All gradients of the *mean* loss: **overwritten** in each layer's range. `None` computes only `dx` and
    /// statistics (the true Fisher's second pass).
    pub gradient: Option<&'a mut B::Buffer>,
    /// Where output statistics `Σ D Dᵀ / (N·S)` are *added*, if they are wanted now; `D` is N times the gradient of
    /// the mean loss, `S` the number of positions.
    pub statistics: Option<&'a mut B::Buffer>,
    /// Who is shown what passes through each observed block, while it is there.
    pub observer: Option<&'a mut dyn Observer<B>>,
    /// Memory of unspecified content, as long as the longest [`Layer::scratch`].
    pub scratch: &'a mut B::Buffer,
    /// As in [`Forward::spare`].
    pub spare: &'a mut Vec<B::Buffer>,
    /// Whether the observer has seen enough: layers that were not passed yet are left out.
    pub ended: bool,
}

impl<B: Backend> Backward<'_, B> {
    /// Shows the observer what block `block` has written, if there is a gradient, and asks it whether the pass ends there.
    ///
    /// # Errors
    /// If the device fails.
    pub fn passed(&mut self, block: usize) -> Result<(), B::Error> {
        match (&mut self.observer, &self.gradient) {
            (Some(observer), Some(gradient)) => {
                observer.passed(self.backend, block, gradient, self.statistics.as_deref())?;
                self.ended = observer.has_enough();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What a range of the flat parameter buffer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name as in PyTorch's `state_dict`, such as `layer1.conv1.weight`.
    pub name: String,
    /// Where it lies: `out × in` for weights (patches channel fastest), `n × 1` for vectors.
    pub region: Region,
    /// What it is, and how its PyTorch form is laid out.
    pub kind: ParameterKind,
}

/// The role of a parameter, which decides initialisation, weight decay and layout at the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// Weights of a dense layer whose input has this extent per sample (flattened channel-major in PyTorch).
    Dense(Extent),
    /// Weights of a convolution: input channels, kernel height and width.
    Convolution {
        /// Input channels.
        channels: usize,
        /// Kernel height and width.
        kernel: [usize; 2],
    },
    /// A bias, initialised from the fan-in of its weights.
    Bias {
        /// Inputs of one output.
        fan_in: usize,
    },
    /// A scale of a normalisation layer: initialised to 1.
    Scale,
    /// A shift of a normalisation layer: initialised to 0.
    Shift,
}

/// A block of curvature: one weight matrix with its bias, `F ≈ A ⊗ G`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The layer's name, such as `layer1.conv1`.
    pub name: String,
    /// `[W | b]` in the flat parameters and gradients: `out × (in + 1)`, or `out × in` without bias; packed.
    pub parameters: Region,
    /// The statistic `Ω = Σ a aᵀ / N` in the flat statistics: `columns × columns`.
    pub a: Region,
    /// The statistic `Γ = Σ D Dᵀ / (N·S)`: `out × out`.
    pub g: Region,
    /// Spatial positions `S` per sample; 1 for a dense layer.
    pub positions: usize,
    /// Positions of the kernel, at each of which a patch has all input channels; 1 for a dense layer.
    pub kernel: usize,
}

/// A differentiable operation with ranges of the flat buffers.
///
/// [`forward`](Self::forward) and [`backward`](Self::backward) neither allocate nor wait.
pub trait Layer<B: Backend>: Send {
    /// The extent of one output sample.
    fn output(&self) -> Extent;

    /// Scalars of scratch the layer asks for at this batch size.
    fn scratch(&self, backend: &B, batch: usize) -> usize {
        let _ = (backend, batch);
        0
    }

    /// How many spare buffers the layer takes at once.
    fn spares(&self) -> usize {
        0
    }

    /// Scalars per sample that a spare buffer of this layer holds.
    fn widest(&self) -> usize {
        0
    }

    /// Whether [`backward`](Self::backward) reads `x`.
    fn reads_input(&self) -> bool {
        true
    }

    /// Whether [`backward`](Self::backward) reads `y`. What neither the layer before nor the one after reads is not kept.
    fn reads_output(&self) -> bool {
        true
    }

    /// Turns the statistics of block number `block` on or off, if the layer has that block; they are on at first.
    fn observe(&mut self, block: usize, wanted: bool) {
        let _ = (block, wanted);
    }

    /// Has block number `block`, if the layer has it, add its statistics at these places from now on: A, G.
    fn lay(&mut self, block: usize, places: [Region; 2]) {
        let _ = (block, places);
    }

    /// Allocates what the layer keeps between the passes (saved statistics, inner activations) for batches of up to
    /// `batch` samples.
    ///
    /// # Errors
    /// If memory runs out.
    fn reserve(&mut self, backend: &mut B, batch: usize) -> Result<(), B::Error> {
        let _ = (backend, batch);
        Ok(())
    }

    /// `y ← f(x)`.
    ///
    /// # Errors
    /// If the device fails.
    fn forward(&mut self, pass: &mut Forward<'_, B>, x: &B::Buffer, y: &mut B::Buffer) -> Result<(), B::Error>;

    /// `dx ← (∂f/∂x)ᵀ dy` if asked for, and the layer's range of the gradient, at the `x` and `y` of the last forward
    /// pass in training mode. `x` and `y` have unspecified content where the layer says that it does not read them.
    ///
    /// # Errors
    /// If the device fails.
    fn backward(
        &mut self,
        pass: &mut Backward<'_, B>,
        x: &B::Buffer,
        y: &B::Buffer,
        dy: &B::Buffer,
        dx: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error>;
}
