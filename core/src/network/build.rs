//! From [`Spec`]s to a [`Network`]: shapes, names and places in the flat buffers.

use super::{Network, Shape, ShortcutSpec, Spec};
use crate::backend::{Backend, BatchNorm, Convolution, EvoNorm, Extent, Pool, Pooling};
use crate::error::{Error, ErrorKind};
use crate::layer::{
    BatchNormLayer, Block, ConvolutionLayer, Dense, EvoNormLayer, Layer, Parameter, ParameterKind, PoolingLayer, Relu,
    Residual, Sequence, Shortcut, Tanh, subsample_fits,
};
use crate::matrix::{Region, aligned, gaps};
use crate::scalar::Scalar;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Why a network could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A layer does not fit what it is given.
    Layer {
        /// The layer, as `number: name` in the order of the description.
        layer: String,
        /// What does not fit, with the shapes.
        problem: String,
        /// What to change.
        remedy: String,
    },
    /// The backend failed, as a rule for want of memory.
    Device {
        /// What a caller can do about it.
        kind: ErrorKind,
        /// The backend's own words.
        source: Box<dyn core::error::Error + Send + Sync>,
    },
}

impl BuildError {
    fn device(error: impl Error) -> Self {
        Self::Device { kind: error.kind(), source: Box::new(error) }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer { layer, problem, remedy } => write!(f, "layer {layer}: {problem}; {remedy}"),
            Self::Device { source, .. } => write!(f, "no memory for the network: {source}; try a smaller batch"),
        }
    }
}

impl core::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Layer { .. } => None,
            Self::Device { source, .. } => Some(&**source),
        }
    }
}

impl Error for BuildError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Layer { .. } => ErrorKind::Other,
            Self::Device { kind, .. } => *kind,
        }
    }
}

impl<B: Backend> Network<B> {
    /// Builds the layers for samples of extent `input` and batches of up to `batch`, with all parameters zero;
    /// [`initialise`](Self::initialise) draws them.
    ///
    /// # Errors
    /// If a layer does not fit its input, a name is taken twice, or memory runs out.
    pub fn build(backend: &mut B, input: Extent, specs: &[Spec], batch: usize) -> Result<Self, BuildError> {
        let (builder, layers, output) = Builder::new(input, specs)?;
        builder.finish(backend, input, layers, output.channels, batch)
    }

    /// Whether these layers fit each other and what they are given, without taking device memory.
    ///
    /// # Errors
    /// As [`build`](Self::build), except for want of memory.
    pub fn check(input: Extent, specs: &[Spec]) -> Result<(), BuildError> {
        Builder::<B>::new(input, specs).map(drop)
    }
}

/// The most rows or columns of a weight matrix: a factor of this size has 2⁴⁰ elements.
const LARGEST_SIDE: usize = 1 << 20;
/// The most elements of one sample's patches.
const LARGEST_PATCHES: u128 = 1 << 40;

/// What flows from one layer to the next.
#[derive(Clone, Copy)]
struct Flow {
    extent: Extent,
    /// Whether what follows takes it for a vector.
    flat: bool,
}

struct Builder<B: Backend> {
    table: Vec<Parameter>,
    running_table: Vec<Parameter>,
    blocks: Vec<Block>,
    dense: Vec<Option<usize>>,
    names: BTreeSet<String>,
    /// How many layers were described so far, for messages.
    number: usize,
    parameters: usize,
    running: usize,
    statistics: usize,
    backend: core::marker::PhantomData<B>,
}

impl<B: Backend> Default for Builder<B> {
    fn default() -> Self {
        Self {
            table: Vec::new(),
            running_table: Vec::new(),
            blocks: Vec::new(),
            dense: Vec::new(),
            names: BTreeSet::new(),
            number: 0,
            parameters: 0,
            running: 0,
            statistics: 0,
            backend: core::marker::PhantomData,
        }
    }
}

type Boxed<B> = Box<dyn Layer<B>>;

impl<B: Backend> Builder<B> {
    /// Lays out a whole network: the layers, and the extent of what they give.
    fn new(input: Extent, specs: &[Spec]) -> Result<(Self, Sequence<B>, Extent), BuildError> {
        let mut builder = Self::default();
        if input.is_empty() {
            let problem = format!("samples of {input} are empty");
            return Err(builder.error("the input", problem, "give every extent at least 1"));
        }
        let (layers, end) = builder.sequence(specs, "", Flow { extent: input, flat: false }, true)?;
        if end.extent.positions() != 1 {
            let problem = format!("the last layer gives {}, the loss needs a vector", end.extent);
            return Err(builder.error("the output", problem, "end with a dense layer or a global mean pooling"));
        }
        Ok((builder, layers, end.extent))
    }

    fn error(&self, layer: &str, problem: String, remedy: &str) -> BuildError {
        let layer = if self.number == 0 { layer.to_string() } else { format!("{}: {layer}", self.number) };
        BuildError::Layer { layer, problem, remedy: remedy.to_string() }
    }

    /// Builds a list of layers. `top` is whether it is the network itself, whose dense blocks show their low rank.
    fn sequence(
        &mut self,
        specs: &[Spec],
        prefix: &str,
        mut flow: Flow,
        top: bool,
    ) -> Result<(Sequence<B>, Flow), BuildError> {
        let mut layers: Vec<Boxed<B>> = Vec::new();
        let mut kept = Vec::new();
        for spec in specs {
            self.number += 1;
            let name = qualified(prefix, spec.label());
            if top && matches!(spec, Spec::Dense { .. }) {
                kept.push(layers.len());
            }
            let (layer, next) = self.layer(spec, &name, flow)?;
            if top {
                self.dense.resize(self.blocks.len(), None);
                if let (Spec::Dense { .. }, Some(last)) = (spec, self.dense.last_mut()) {
                    *last = Some(layers.len());
                }
            }
            layers.extend(layer);
            flow = next;
        }
        if layers.is_empty() {
            let of = if prefix.is_empty() { "the network" } else { prefix };
            return Err(self.error(
                of,
                "there is no layer in it".to_string(),
                "add at least one layer besides flatten",
            ));
        }
        let mut sequence = Sequence::new(layers);
        kept.into_iter().for_each(|index| sequence.keep(index));
        Ok((sequence, flow))
    }

    fn layer(&mut self, spec: &Spec, name: &str, flow: Flow) -> Result<(Option<Boxed<B>>, Flow), BuildError> {
        let input = flow.extent;
        if flow.flat && input.positions() > 1 {
            self.check_flat(spec, name, input)?;
        }
        let layer: Boxed<B> = match spec {
            Spec::Flatten => return Ok((None, Flow { flat: true, ..flow })),
            Spec::Relu => Box::new(Relu::new(input)),
            Spec::Tanh => Box::new(Tanh::new(input)),
            Spec::Dense { outputs, bias, .. } => self.dense(name, input, *outputs, *bias)?,
            Spec::Convolution { outputs, shape, groups, bias, .. } => {
                self.convolution(name, input, *outputs, shape, *groups, *bias)?
            }
            Spec::BatchNorm { epsilon, momentum, .. } => self.batch_norm(name, input, *epsilon, *momentum)?,
            Spec::EvoNorm { groups, epsilon, .. } => self.evo_norm(name, input, *groups, *epsilon)?,
            Spec::MaxPool(shape) => self.pooling(name, Pool::Maximum, input, shape)?,
            Spec::MeanPool(shape) => self.pooling(name, Pool::Mean, input, shape)?,
            Spec::GlobalMeanPool => {
                let Some(shape) = Pooling::global(input) else {
                    return Err(self.error(
                        name,
                        format!("nothing to pool in {input}"),
                        "pool fewer pixels away before it",
                    ));
                };
                Box::new(PoolingLayer::new(shape))
            }
            Spec::Residual { name: inner, body, shortcut } => {
                let prefix = if inner.is_empty() { "" } else { name };
                // An unnamed block passes on the names around it.
                let prefix = if inner.is_empty() { outer(name) } else { prefix };
                self.residual(name, prefix, flow, body, shortcut)?
            }
        };
        let extent = layer.output();
        let flat = flow.flat && extent == input;
        Ok((Some(layer), Flow { extent, flat }))
    }

    /// After a flattening only layers that do not look at single channels or pixels make sense.
    fn check_flat(&self, spec: &Spec, name: &str, input: Extent) -> Result<(), BuildError> {
        match spec {
            Spec::Dense { .. } | Spec::Relu | Spec::Tanh | Spec::Flatten => Ok(()),
            _ => Err(self.error(
                name,
                format!("it needs channels and pixels, but {input} was flattened to {} before it", input.len()),
                "move the flatten behind it, or put a dense layer between",
            )),
        }
    }

    fn dense(&mut self, name: &str, input: Extent, outputs: usize, bias: bool) -> Result<Boxed<B>, BuildError> {
        if outputs == 0 {
            return Err(self.error(name, format!("0 outputs from {input}"), "give it at least one output"));
        }
        let inputs = input.len();
        let block = self.block(name, [outputs, inputs], 1, ParameterKind::Dense(input), bias)?;
        Ok(Box::new(Dense::new(block, self.blocks.len() - 1, bias)))
    }

    fn convolution(
        &mut self,
        name: &str,
        input: Extent,
        outputs: usize,
        shape: &Shape,
        groups: usize,
        bias: bool,
    ) -> Result<Boxed<B>, BuildError> {
        if groups != 1 {
            let problem =
                format!("{groups} groups over {} channels, but only ungrouped convolutions are built", input.channels);
            return Err(self.error(name, problem, "set groups = 1"));
        }
        if outputs == 0 {
            return Err(self.error(name, format!("0 output channels from {input}"), "give it at least one"));
        }
        let Shape { kernel, stride, padding, dilation } = *shape;
        let Some(shape) = Convolution::new(input, outputs, kernel, stride, padding, dilation, bias) else {
            return Err(self.window(name, input, shape));
        };
        let kind = ParameterKind::Convolution { channels: input.channels, kernel };
        let block = self.block(name, [outputs, shape.patch_len()], shape.output.positions(), kind, bias)?;
        Ok(Box::new(ConvolutionLayer::new(shape, block, self.blocks.len() - 1)))
    }

    fn pooling(&mut self, name: &str, pool: Pool, input: Extent, shape: &Shape) -> Result<Boxed<B>, BuildError> {
        if shape.dilation != [1, 1] {
            let problem = format!("dilation {:?} of a pooling over {input}", shape.dilation);
            return Err(self.error(name, problem, "set dilation = 1"));
        }
        if (0..2).any(|axis| 2 * shape.padding[axis] > shape.kernel[axis]) {
            let problem = format!("padding {:?} is more than half of the kernel {:?}", shape.padding, shape.kernel);
            return Err(self.error(name, problem, "use less padding or a larger kernel"));
        }
        match Pooling::new(pool, input, shape.kernel, shape.stride, shape.padding) {
            Some(shape) => Ok(Box::new(PoolingLayer::new(shape))),
            None => Err(self.window(name, input, shape)),
        }
    }

    /// The error of a window that does not fit.
    fn window(&self, name: &str, input: Extent, shape: &Shape) -> BuildError {
        let Shape { kernel, stride, padding, dilation } = shape;
        let zero = [kernel, stride, dilation].iter().any(|pair| pair.contains(&0));
        let remedy = if zero {
            "kernel, stride and dilation are at least 1"
        } else {
            "use a smaller kernel or dilation, more padding, or fewer strides before it"
        };
        let problem = format!(
            "kernel {}×{} (stride {}×{}, padding {}×{}, dilation {}×{}) does not fit the input {input}",
            kernel[0], kernel[1], stride[0], stride[1], padding[0], padding[1], dilation[0], dilation[1]
        );
        self.error(name, problem, remedy)
    }

    fn batch_norm(&mut self, name: &str, input: Extent, epsilon: f64, momentum: f64) -> Result<Boxed<B>, BuildError> {
        if !(0.0..=1.0).contains(&momentum) {
            let problem = format!("running statistics cannot take a share of {momentum} from each batch");
            return Err(self.error(name, problem, "choose a momentum from 0 to 1"));
        }
        let channels = input.channels;
        let parameters =
            self.vectors(name, channels, &[("weight", ParameterKind::Scale), ("bias", ParameterKind::Shift)])?;
        let running = self.running;
        let kinds = [("running_mean", ParameterKind::Shift), ("running_var", ParameterKind::Scale)];
        for (index, (suffix, kind)) in kinds.into_iter().enumerate() {
            let region = Region::vector(running + index * channels, channels);
            self.running_table.push(Parameter { name: format!("{name}.{suffix}"), region, kind });
        }
        self.running = aligned::<B::Scalar>(running + 2 * channels);
        let (epsilon, momentum) = (B::Scalar::of(epsilon), B::Scalar::of(momentum));
        let shape = BatchNorm { channels, epsilon, momentum };
        Ok(Box::new(BatchNormLayer::new(input, shape, parameters, running)))
    }

    fn evo_norm(&mut self, name: &str, input: Extent, groups: usize, epsilon: f64) -> Result<Boxed<B>, BuildError> {
        let channels = input.channels;
        if groups == 0 || !channels.is_multiple_of(groups) {
            let problem = format!("{groups} groups do not divide the {channels} channels of {input}");
            return Err(self.error(name, problem, "choose a divisor of the channels"));
        }
        let kinds = [("weight", ParameterKind::Scale), ("bias", ParameterKind::Shift), ("v", ParameterKind::Scale)];
        let parameters = self.vectors(name, channels, &kinds)?;
        let epsilon = B::Scalar::of(epsilon);
        let shape = EvoNorm { channels, positions: input.positions(), groups, epsilon };
        Ok(Box::new(EvoNormLayer::new(input, shape, parameters)))
    }

    fn residual(
        &mut self,
        name: &str,
        prefix: &str,
        flow: Flow,
        body: &[Spec],
        shortcut: &ShortcutSpec,
    ) -> Result<Boxed<B>, BuildError> {
        let (input, number) = (flow.extent, self.number);
        let (body, end) = self.sequence(body, prefix, flow, false)?;
        let output = end.extent;
        let (shortcut, problem) = match shortcut {
            ShortcutSpec::Identity => (
                Shortcut::Identity,
                (input != output).then(|| {
                    (
                        format!("the body turns {input} into {output}, which the identity cannot be added to"),
                        "make the body keep the shape, or use a subsample or projection shortcut",
                    )
                }),
            ),
            ShortcutSpec::Subsample { stride } => {
                let problem = (!subsample_fits(input, output, *stride)).then(|| {
                    (format!("the body turns {input} into {output}, which every pixel number {stride} of the input does not fill"),
                    "use the body's stride for the shortcut too, and at least as many channels as the input, or a projection shortcut")
                });
                (Shortcut::Subsample { stride: *stride }, problem)
            }
            ShortcutSpec::Projection(specs) => {
                let (projection, end) = self.sequence(specs, prefix, flow, false)?;
                let problem = (end.extent != output).then(|| {
                    (
                        format!("the body turns {input} into {output}, the projection into {}", end.extent),
                        "give both the same strides and output channels",
                    )
                });
                (Shortcut::Projection(projection), problem)
            }
        };
        if let Some((problem, remedy)) = problem {
            self.number = number;
            return Err(self.error(name, problem, remedy));
        }
        Ok(Box::new(Residual::new(input, body, shortcut)))
    }

    /// Places the vectors of a normalisation one after another and tells where they start.
    fn vectors(&mut self, name: &str, len: usize, kinds: &[(&str, ParameterKind)]) -> Result<usize, BuildError> {
        self.claim(name)?;
        let offset = self.parameters;
        for (index, &(suffix, kind)) in kinds.iter().enumerate() {
            let region = Region::vector(offset + index * len, len);
            self.table.push(Parameter { name: format!("{name}.{suffix}"), region, kind });
        }
        self.parameters = aligned::<B::Scalar>(offset + kinds.len() * len);
        Ok(offset)
    }

    /// Refuses what no memory holds before a product of extents overflows.
    fn check_size(&self, name: &str, outputs: usize, inputs: usize, positions: usize) -> Result<(), BuildError> {
        let patches = inputs as u128 * positions as u128;
        if outputs.max(inputs) <= LARGEST_SIDE && patches <= LARGEST_PATCHES {
            return Ok(());
        }
        let problem = format!("{outputs} outputs of {inputs} inputs each at {positions} positions are too many");
        Err(self.error(name, problem, "use fewer channels, a smaller kernel or a smaller input"))
    }

    /// Places `[W | b]` and the statistics of a block.
    fn block(
        &mut self,
        name: &str,
        [outputs, inputs]: [usize; 2],
        positions: usize,
        kind: ParameterKind,
        bias: bool,
    ) -> Result<Block, BuildError> {
        self.check_size(name, outputs, inputs, positions)?;
        self.claim(name)?;
        let offset = self.parameters;
        let columns = inputs + usize::from(bias);
        let region = Region::matrix(offset, outputs, inputs);
        self.table.push(Parameter { name: format!("{name}.weight"), region, kind });
        if bias {
            let region = Region::vector(offset + outputs * inputs, outputs);
            let kind = ParameterKind::Bias { fan_in: inputs };
            self.table.push(Parameter { name: format!("{name}.bias"), region, kind });
        }
        self.parameters = aligned::<B::Scalar>(offset + outputs * columns);
        let mut square = |extent: usize| {
            let region = Region::matrix(self.statistics, extent, extent);
            self.statistics = aligned::<B::Scalar>(region.end());
            region
        };
        let block = Block {
            name: name.to_string(),
            parameters: Region::matrix(offset, outputs, columns),
            a: square(columns),
            g: square(outputs),
            positions,
            kernel: match kind {
                ParameterKind::Convolution { kernel, .. } => kernel.iter().product(),
                _ => 1,
            },
        };
        self.blocks.push(block.clone());
        Ok(block)
    }

    fn claim(&mut self, name: &str) -> Result<(), BuildError> {
        if self.names.insert(name.to_string()) {
            return Ok(());
        }
        Err(self.error(name, "the name is taken by an earlier layer".to_string(), "give every layer a name of its own"))
    }

    fn finish(
        self,
        backend: &mut B,
        input: Extent,
        mut layers: Sequence<B>,
        classes: usize,
        batch: usize,
    ) -> Result<Network<B>, BuildError> {
        let mut allocate = |len: usize| backend.allocate(len).map_err(BuildError::device);
        let network_memory = (
            allocate(self.parameters)?,
            allocate(self.parameters)?,
            allocate(self.running)?,
            // Labels are uploaded behind the samples.
            allocate((input.len() + 1) * batch)?,
            [allocate(batch)?, allocate(batch)?, allocate(batch)?],
            [allocate(classes * batch)?, allocate(classes * batch)?],
            [allocate(2)?, allocate(2)?],
        );
        let widest = layers.widest() * batch;
        let spare = (0..layers.spares()).map(|_| allocate(widest)).collect::<Result<Vec<_>, _>>()?;
        let scratch = layers.scratch(backend, batch);
        let scratch = backend.allocate(scratch).map_err(BuildError::device)?;
        layers.reserve(backend, batch).map_err(BuildError::device)?;
        let (parameters, gradient, running, input_buffer, [labels, uniform, drawn], [logits, cotangent], losses) =
            network_memory;
        let [loss, drawn_loss] = losses;
        let taken: Vec<_> = self.table.iter().map(|parameter| parameter.region).collect();
        let mut network = Network {
            gaps: gaps(self.parameters, &taken),
            parameters,
            gradient,
            running,
            layers,
            table: self.table,
            running_table: self.running_table,
            places: self.blocks.iter().map(|block| [block.a, block.g]).collect(),
            observed: alloc::vec![true; self.blocks.len()],
            blocks: self.blocks,
            dense: self.dense,
            parameters_len: self.parameters,
            running_len: self.running,
            statistics_len: self.statistics,
            input_extent: input,
            classes,
            capacity: batch,
            input: input_buffer,
            labels,
            uniform,
            drawn,
            logits,
            cotangent,
            loss,
            drawn_loss,
            scratch,
            spare,
            staging: Vec::with_capacity((input.len() + 1) * batch),
        };
        network.reset_running(backend).map_err(BuildError::device)?;
        Ok(network)
    }
}

fn qualified(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
}

/// The prefix a qualified name was made with.
fn outer(name: &str) -> &str {
    name.rfind('.').map_or("", |dot| &name[..dot])
}
