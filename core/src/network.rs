//! Networks: what a [`Spec`] describes, built on a backend.
//!
//! # For users
//! Describe the layers as a list of [`Spec`]s, [`build`](Network::build) them for a largest batch, load a batch and run
//! [`forward`](Network::forward), [`loss`](Network::loss), [`backward`](Network::backward), in this order. The results
//! stay in device memory: [`parameters`](Network::parameters), [`gradient`](Network::gradient),
//! [`loss_value`](Network::loss_value), [`logits`](Network::logits). None of the passes allocates or waits.
//!
//! The true Fisher's statistics come from a pass of their own, [`backward_sampled`](Network::backward_sampled), run
//! *before* [`loss`](Network::loss) and [`backward`](Network::backward), since the cotangents of the last pass are what
//! [`low_rank`](Network::low_rank) shows.
//!
//! # For implementers
//! Parameters, gradients, running statistics and Kronecker statistics each lie in one flat buffer. Every block `[W | b]`
//! and every normalisation's parameters start on a 256-byte boundary; the gaps hold zeros and stay zero.

mod build;
mod initialisation;
mod spec;

pub use build::BuildError;
pub use initialisation::Initialisation;
pub use spec::{Shape, ShortcutSpec, Spec};

use crate::backend::{Backend, Buffer, Extent, Map, MapJob, Softmax};
use crate::layer::{Backward, Block, Forward, Layer, Mode, Observer, Parameter, Sequence};
use crate::matrix::Region;
use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec::Vec;

/// A network with its memory on one backend.
#[derive(Debug)]
pub struct Network<B: Backend> {
    /// All parameters; [`table`](Self::table) says what lies where.
    pub parameters: B::Buffer,
    /// The gradient of the mean loss, laid out as the parameters.
    pub gradient: B::Buffer,
    /// Running statistics of normalisation layers; [`running_table`](Self::running_table) says what lies where.
    pub running: B::Buffer,
    layers: Sequence<B>,
    table: Vec<Parameter>,
    running_table: Vec<Parameter>,
    blocks: Vec<Block>,
    /// Where every block adds its statistics, and whether it does.
    places: Vec<[Region; 2]>,
    observed: Vec<bool>,
    /// For every block the index of its dense layer in `layers`, if that is where it lies.
    dense: Vec<Option<usize>>,
    parameters_len: usize,
    running_len: usize,
    statistics_len: usize,
    input_extent: Extent,
    classes: usize,
    capacity: usize,
    input: B::Buffer,
    labels: B::Buffer,
    /// Uniform numbers for drawing labels, and the labels drawn.
    uniform: B::Buffer,
    drawn: B::Buffer,
    logits: B::Buffer,
    /// Gradient of the mean loss with respect to the logits.
    cotangent: B::Buffer,
    /// `[mean loss; correct answers]`.
    loss: B::Buffer,
    /// The same for drawn labels: read by nobody.
    drawn_loss: B::Buffer,
    scratch: B::Buffer,
    spare: Vec<B::Buffer>,
    /// What no tensor covers of the parameters.
    gaps: Vec<Region>,
    /// Host memory in which a batch is put together, labels as scalars behind the samples.
    staging: Vec<B::Scalar>,
}

impl<B: Backend> Network<B> {
    /// What lies where in the flat parameters, in the order of the layers.
    pub fn table(&self) -> &[Parameter] {
        &self.table
    }

    /// What lies where in the running statistics. A mean is a [`Shift`](crate::layer::ParameterKind::Shift) (at first 0),
    /// a variance a [`Scale`](crate::layer::ParameterKind::Scale) (at first 1).
    pub fn running_table(&self) -> &[Parameter] {
        &self.running_table
    }

    /// The blocks of curvature, in the order of the layers.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Scalars in the flat parameters and the gradient, gaps included.
    pub fn parameters_len(&self) -> usize {
        self.parameters_len
    }

    /// Scalars in the running statistics.
    pub fn running_len(&self) -> usize {
        self.running_len
    }

    /// Scalars in a statistics buffer that the blocks' regions fit into.
    pub fn statistics_len(&self) -> usize {
        self.statistics_len
    }

    /// The extent of one input sample.
    pub fn input_extent(&self) -> Extent {
        self.input_extent
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The largest batch.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The network's answer to the last forward pass: `classes × batch`.
    pub fn logits(&self) -> &B::Buffer {
        &self.logits
    }

    /// `[mean loss; number of correct answers]` of the last [`loss`](Self::loss).
    pub fn loss_value(&self) -> &B::Buffer {
        &self.loss
    }

    /// Fills the gaps between the parameters' tensors with zeros again, for whoever writes all of the parameters: a lossy
    /// code that leaves no zeros gives gaps values, which are in no checkpoint.
    ///
    /// # Errors
    /// If the device fails.
    pub fn clear_gaps(&mut self, backend: &mut B) -> Result<(), B::Error> {
        let Self { parameters, gaps, .. } = self;
        gaps.iter().try_for_each(|gap| backend.fill(B::Scalar::of(0.0), *gap, parameters))
    }

    /// Turns the statistics of one block on or off, for blocks opted out and for blocks that another node owns.
    ///
    /// All are on at first. An unobserved block's regions are left as they are.
    ///
    /// # Panics
    /// If there is no such block.
    #[track_caller]
    pub fn observe(&mut self, block: usize, wanted: bool) {
        assert!(block < self.blocks.len(), "block {block} of {}", self.blocks.len());
        self.layers.observe(block, wanted);
        self.observed[block] = wanted;
    }

    /// Has a block add its statistics at these places: A, G; for statistics of fewer blocks in smaller buffers.
    /// [`blocks`](Self::blocks) goes on naming the places it was built with.
    ///
    /// # Panics
    /// If there is no such block, or one of another shape.
    #[track_caller]
    pub fn lay(&mut self, block: usize, places: [Region; 2]) {
        assert!(block < self.blocks.len(), "block {block} of {}", self.blocks.len());
        let Block { a, g, .. } = self.blocks[block];
        let fit = a.same_shape(places[0]) && g.same_shape(places[1]);
        assert!(fit, "statistics like {a:?} and {g:?}, not {places:?}");
        self.layers.lay(block, places);
        self.places[block] = places;
    }

    /// What the gradient of a dense block was made of: `x: in × batch` of the last forward pass (without the bias's 1)
    /// and `dy: out × batch` of the last backward pass, so that `∇ = [dy·xᵀ | Σ dy]`.
    ///
    /// `None` for convolutions and for dense layers inside residual blocks.
    ///
    /// # Panics
    /// If there is no such block.
    #[track_caller]
    pub fn low_rank(&self, block: usize) -> Option<(&B::Buffer, &B::Buffer)> {
        let index = self.dense[block]?;
        Some((self.layers.input(index, &self.input)?, self.layers.cotangent(index, &self.cotangent)?))
    }

    /// Uploads a batch: `x` channel fastest (`channels × (samples · height · width)`), one label per sample.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the lengths do not fit each other, the batch is larger than reserved, or a label is no class.
    #[track_caller]
    pub fn load(&mut self, backend: &mut B, x: &[B::Scalar], labels: &[u32]) -> Result<(), B::Error> {
        let (batch, sample) = (labels.len(), self.input_extent.len());
        assert_eq!(x.len(), batch * sample, "{batch} labels, samples of {sample} scalars and inputs");
        self.check_batch(batch);
        for &label in labels {
            assert!((label as usize) < self.classes, "label {label} is not one of {} classes", self.classes);
        }
        // One transfer: the labels come behind the samples and are taken from there on the device.
        self.staging.clear();
        self.staging.extend_from_slice(x);
        self.staging.extend(labels.iter().map(|&label| B::Scalar::of(f64::from(label))));
        backend.upload(&self.staging, &mut self.input, 0)?;
        let copy = Map::Axpby(B::Scalar::of(1.0), B::Scalar::of(0.0));
        let job = MapJob::unary(Region::vector(x.len(), batch), Region::vector(0, batch));
        backend.map(copy, &[job], Some(&self.input), None, &mut self.labels)
    }

    /// Computes the logits of the first `batch` loaded samples, and adds every block's `Ω` where `statistics` are given.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the batch is larger than reserved or the statistics do not fit.
    #[track_caller]
    pub fn forward(
        &mut self,
        backend: &mut B,
        batch: usize,
        mode: Mode,
        statistics: Option<&mut B::Buffer>,
    ) -> Result<(), B::Error> {
        self.forward_observed(backend, batch, mode, statistics, None)
    }

    /// The same, and the `observer`, if there is one, is shown every block's `Ω` as soon as it is there.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the batch is larger than reserved or the statistics do not fit.
    #[track_caller]
    pub fn forward_observed(
        &mut self,
        backend: &mut B,
        batch: usize,
        mode: Mode,
        statistics: Option<&mut B::Buffer>,
        observer: Option<&mut dyn Observer<B>>,
    ) -> Result<(), B::Error> {
        self.check_batch(batch);
        self.check_statistics(statistics.as_deref());
        let mut pass = Forward {
            backend,
            batch,
            mode,
            parameters: &self.parameters,
            running: &mut self.running,
            statistics,
            // The cast shortens the object's own lifetime.
            observer: observer.map(|observer| observer as &mut dyn Observer<B>),
            scratch: &mut self.scratch,
            spare: &mut self.spare,
        };
        self.layers.forward(&mut pass, &self.input, &mut self.logits)
    }

    /// Compares the logits with the labels: [`loss_value`](Self::loss_value), and what [`backward`](Self::backward) starts from.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the batch is larger than reserved.
    #[track_caller]
    pub fn loss(&mut self, backend: &mut B, batch: usize, smoothing: f64) -> Result<(), B::Error> {
        self.check_batch(batch);
        let shape = Softmax { classes: self.classes, smoothing: B::Scalar::of(smoothing) };
        backend.softmax_cross_entropy(&shape, batch, &self.logits, &self.labels, &mut self.cotangent, &mut self.loss)
    }

    /// Computes the gradient of the loss, and adds every block's `Γ` (empirical Fisher) where `statistics` are given.
    /// The `observer`, if there is one, is shown what passes through every observed block. Where it ends the pass, what was not
    /// passed keeps its gradient.
    ///
    /// Follows [`forward`](Self::forward) in training mode and [`loss`](Self::loss).
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the batch is larger than reserved or the statistics do not fit.
    #[track_caller]
    pub fn backward(
        &mut self,
        backend: &mut B,
        batch: usize,
        statistics: Option<&mut B::Buffer>,
        observer: Option<&mut dyn Observer<B>>,
    ) -> Result<(), B::Error> {
        self.check_batch(batch);
        self.check_statistics(statistics.as_deref());
        let mut pass = Backward {
            backend,
            batch,
            parameters: &self.parameters,
            gradient: Some(&mut self.gradient),
            statistics,
            // The cast shortens the object's own lifetime.
            observer: observer.map(|observer| observer as &mut dyn Observer<B>),
            scratch: &mut self.scratch,
            spare: &mut self.spare,
            ended: false,
        };
        self.layers.backward(&mut pass, &self.input, &self.logits, &self.cotangent, None)
    }

    /// Adds every block's `Γ` where `statistics` are given, for labels drawn from the model's own softmax (the true Fisher);
    /// computes no gradient.
    ///
    /// Follows [`forward`](Self::forward) in training mode and precedes [`loss`](Self::loss), whose result it would overwrite.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the batch is larger than reserved or the statistics do not fit.
    #[track_caller]
    pub fn backward_sampled(
        &mut self,
        backend: &mut B,
        batch: usize,
        random: &mut Random,
        statistics: Option<&mut B::Buffer>,
        observer: Option<&mut dyn Observer<B>>,
    ) -> Result<(), B::Error> {
        self.check_batch(batch);
        self.check_statistics(statistics.as_deref());
        self.staging.clear();
        self.staging.extend((0..batch).map(|_| B::Scalar::of(random.uniform())));
        backend.upload(&self.staging, &mut self.uniform, 0)?;
        backend.sample_labels(self.classes, batch, &self.logits, &self.uniform, &mut self.drawn)?;
        let shape = Softmax { classes: self.classes, smoothing: B::Scalar::of(0.0) };
        let (cotangent, loss) = (&mut self.cotangent, &mut self.drawn_loss);
        backend.softmax_cross_entropy(&shape, batch, &self.logits, &self.drawn, cotangent, loss)?;
        let mut pass = Backward {
            backend,
            batch,
            parameters: &self.parameters,
            gradient: None,
            statistics,
            // The cast shortens the object's own lifetime.
            observer: observer.map(|observer| observer as &mut dyn Observer<B>),
            scratch: &mut self.scratch,
            spare: &mut self.spare,
            ended: false,
        };
        self.layers.backward(&mut pass, &self.input, &self.logits, &self.cotangent, None)
    }

    #[track_caller]
    fn check_batch(&self, batch: usize) {
        assert!(batch <= self.capacity, "a batch of {batch} samples, memory for {}", self.capacity);
    }

    #[track_caller]
    fn check_statistics(&self, statistics: Option<&B::Buffer>) {
        let Some(statistics) = statistics else { return };
        let wanted = self.places.iter().zip(&self.observed).filter(|(_, observed)| **observed);
        let most = wanted.flat_map(|(places, _)| places).map(|place| place.end()).max().unwrap_or(0);
        assert!(statistics.len() >= most, "{} scalars for {most} of statistics", statistics.len());
    }
}

/// Uploads what `values` writes for every parameter of `table`; the gaps stay as they are.
fn upload_table<B: Backend>(
    backend: &mut B,
    table: &[Parameter],
    target: &mut B::Buffer,
    mut values: impl FnMut(&Parameter, &mut [f64]),
) -> Result<(), B::Error> {
    for parameter in table {
        let Region { offset, .. } = parameter.region;
        let mut wide = alloc::vec![0.0; parameter.region.len()];
        values(parameter, &mut wide);
        let narrow: Vec<B::Scalar> = wide.into_iter().map(B::Scalar::of).collect();
        backend.upload(&narrow, target, offset)?;
    }
    Ok(())
}
