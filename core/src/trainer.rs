//! One node's training as a state machine: the [`Trainer`].
//!
//! # For users
//! Build a [`Network`], choose a [`Preconditioner`], an [`Optimiser`] and a [`Schedule`](crate::schedule::Schedule), and say where batches come
//! from ([`Batches`]); then call [`Trainer::step`] as often as you like, alone or as the
//! [`Training`](crate::participant::Training) of a participant. A step is
//!
//! ```text
//! batch → forward → loss → backward → update factors → maybe refresh → precondition → KL clip → optimiser
//! ```
//!
//! The loss of a step is taken as a ticket and read at the next step, so that the host never waits for the device
//! within one; only the very first step waits for its own loss.
//!
//! # For implementers
//! After the first steps nothing is allocated here, the backend's own tickets excepted.

mod averaging;
mod checkpoint;
mod drift;
mod evaluation;
mod loss;
mod options;
mod partial;
mod prediction;
mod sharing;
mod source;

pub use checkpoint::{Checkpoint, Course};
pub use drift::Counts;
pub use evaluation::Evaluation;
pub use options::TrainerOptions;
pub use sharing::{BeforeStep, SharedStep};
pub use source::{Batches, Examples};

use self::drift::Drift;
use self::loss::Loss;
use self::partial::{Limit, Partial};
use self::prediction::Prediction;
use self::sharing::Sharing;
use crate::backend::Backend;
use crate::error::{Error, ErrorKind};
use crate::layer::{Capture, CaptureKind, Mode, Observer, ParameterKind};
use crate::matrix::Region;
use crate::network::Network;
use crate::optimiser::Optimiser;
use crate::participant::{Summary, TrainingError};
use crate::preconditioner::{Captures, Fisher, Preconditioner, Report, Taps};
use crate::scalar::Scalar;
use crate::seed::Random;
use crate::transport::TransportError;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

/// What the last steps have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Progress {
    /// Steps made.
    pub iteration: u64,
    /// Training samples used.
    pub samples: u64,
    /// The mean loss of the last step that is known.
    pub loss: f64,
    /// The fraction of right answers in it.
    pub accuracy: f64,
}

/// Losses since the schedules saw the last observation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Window {
    /// Their sum.
    pub sum: f64,
    /// Their number.
    pub count: u64,
}

/// One node's training: backend, network, preconditioner, optimiser, schedule and data.
pub struct Trainer<B: Backend> {
    backend: B,
    network: Network<B>,
    preconditioner: Box<dyn Preconditioner<B>>,
    optimiser: Box<dyn Optimiser<B>>,
    batches: Box<dyn Batches<B::Scalar>>,
    options: TrainerOptions,
    random: Random,
    /// For every block, how a dense one's captures are read.
    kinds: Vec<Option<CaptureKind>>,
    direction: B::Buffer,
    /// The mean gradient of several micro-batches.
    accumulated: Option<B::Buffer>,
    /// `[loss; right answers]`, summed over micro-batches.
    totals: B::Buffer,
    prediction: Option<Prediction<B>>,
    x: Vec<B::Scalar>,
    labels: Vec<u32>,
    loss: Option<(u64, Loss<B>)>,
    progress: Progress,
    window: Window,
    /// What went wrong where nothing could be returned.
    failure: Option<TrainingError>,
    /// Where a step is that is shared with members that come and go.
    sharing: Option<Sharing<B>>,
    /// What is added to gradients.
    drift: Option<Drift<B>>,
    /// What steps take that may end early, once there was one.
    partial: Option<Partial<B>>,
    /// Blocks in front of which the preconditioner was told to leave statistics out.
    left_out: usize,
}

/// The passes of one batch through a network, for low-rank preconditioning.
struct Passes<'a, B: Backend> {
    network: &'a Network<B>,
    kinds: &'a [Option<CaptureKind>],
    batch: usize,
}

impl<B: Backend> Captures<B> for Passes<'_, B> {
    fn batch(&self) -> usize {
        self.batch
    }

    fn capture(&self, block: usize) -> Option<Capture<'_, B>> {
        let kind = self.kinds[block]?;
        self.network.low_rank(block).map(|(x, dy)| Capture { x, dy, kind })
    }
}

/// How the captures of a network's dense blocks are read.
fn dense_kinds<B: Backend>(network: &Network<B>) -> Vec<Option<CaptureKind>> {
    let kind = |(number, block): (usize, &crate::layer::Block)| {
        network.low_rank(number)?;
        let within = block.parameters.offset..block.parameters.end();
        let bias = network.table().iter().any(|parameter| {
            matches!(parameter.kind, ParameterKind::Bias { .. }) && within.contains(&parameter.region.offset)
        });
        let Region { rows, columns, .. } = block.parameters;
        Some(CaptureKind::Dense { inputs: columns - usize::from(bias), outputs: rows, bias })
    };
    network.blocks().iter().enumerate().map(kind).collect()
}

/// Has statistics made of the blocks that have factors, those left out that others make them of.
fn observe<B: Backend>(network: &mut Network<B>, preconditioner: &mut dyn Preconditioner<B>) {
    if preconditioner.factors().is_some() {
        for number in 0..network.blocks().len() {
            let wanted = preconditioner.observes(&network.blocks()[number].name);
            network.observe(number, wanted);
            let place = preconditioner.place(&network.blocks()[number].name);
            if let (true, Some(places)) = (wanted, place) {
                network.lay(number, places);
            }
        }
    }
}

/// A step that may have to end early: what it takes, what says whether it goes on, and whether it counts only as a whole.
type Limited<'a, B> = (&'a mut Partial<B>, &'a mut dyn FnMut(f64) -> bool, bool);

/// What the backward pass gives its statistics to, and who looks at it.
type Seen<'a, B> = (Option<&'a mut <B as Backend>::Buffer>, Option<&'a mut dyn Observer<B>>);

fn backward<B: Backend>(
    backend: &mut B,
    network: &mut Network<B>,
    batch: usize,
    (statistics, observer): Seen<'_, B>,
    limit: Option<&mut Limit<'_>>,
) -> Result<(), B::Error> {
    match limit {
        Some(limit) => limit.backward(backend, network, batch, statistics, observer),
        None => network.backward(backend, batch, statistics, observer),
    }
}

fn failed(step: u64, error: impl Error) -> TrainingError {
    TrainingError { kind: error.kind(), reason: format!("step {step}: {error}") }
}

impl<B: Backend> Trainer<B> {
    /// Training of `network`, whose parameters have been initialised.
    ///
    /// # Errors
    /// If memory runs out.
    ///
    /// # Panics
    /// If the network has no memory for such a batch, the batch or the number of micro-batches is 0, or gradients of shared
    /// steps are to be corrected.
    #[track_caller]
    pub fn new(
        mut backend: B,
        mut network: Network<B>,
        mut preconditioner: Box<dyn Preconditioner<B>>,
        optimiser: Box<dyn Optimiser<B>>,
        batches: Box<dyn Batches<B::Scalar>>,
        options: TrainerOptions,
    ) -> Result<Self, B::Error> {
        let TrainerOptions { batch, micro_batches, .. } = options;
        assert!(batch > 0 && micro_batches > 0, "{micro_batches} micro-batches of {batch} samples are none");
        assert!(batch <= network.capacity(), "batches of {batch} in memory for {}", network.capacity());
        let len = network.parameters_len();
        observe(&mut network, &mut *preconditioner);
        let sharing =
            if preconditioner.is_shared() { Some(Sharing::new(&mut backend, len, &*optimiser)?) } else { None };
        let drift = Drift::new(&mut backend, &options, &network.parameters)?;
        assert!(sharing.is_none() || drift.is_none(), "members that share their steps do not drift apart");
        let prediction = match options.adaptive {
            Some(rule) => Some(Prediction::new(&mut backend, rule, &network)?),
            None => None,
        };
        Ok(Self {
            kinds: dense_kinds(&network),
            direction: backend.allocate(len)?,
            accumulated: if micro_batches > 1 { Some(backend.allocate(len)?) } else { None },
            totals: backend.allocate(2)?,
            prediction,
            x: vec![B::Scalar::of(0.0); batch * network.input_extent().len()],
            labels: vec![0; batch],
            random: options.seed.derive("labels of the true Fisher", 0).random(),
            loss: None,
            progress: Progress::default(),
            window: Window::default(),
            failure: None,
            sharing,
            drift,
            partial: None,
            left_out: 0,
            backend,
            network,
            preconditioner,
            optimiser,
            batches,
            options,
        })
    }

    /// Makes one step.
    ///
    /// The summary's loss is that of the step before, except at the first step.
    ///
    /// # Errors
    /// If the device fails, or the loss is not a number; then nothing more should be trained.
    pub fn step(&mut self) -> Result<Summary, TrainingError> {
        self.advance_while(None)
    }

    fn advance_while(&mut self, limit: Option<Limited<'_, B>>) -> Result<Summary, TrainingError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.sharing.is_some() {
            return self.share();
        }
        let step = self.progress.iteration;
        self.finish_tickets()?;
        let (missing, abandoned) = self.work(step, limit).map_err(|error| failed(step, error))?;
        if let Some(error) = abandoned {
            let reason = format!("step {step} is abandoned, the parameters are those before it: {error}");
            return Err(TrainingError { kind: error.kind(), reason });
        }
        let learnt = missing == 0 || missing < self.network.blocks().len();
        let samples = if learnt { (self.options.batch * self.options.micro_batches) as u64 } else { 0 };
        self.progress.iteration += 1;
        self.progress.samples += samples;
        if step == 0 {
            self.finish_tickets()?;
        }
        Ok(Summary { samples, loss: self.progress.loss, missing: missing as u32 })
    }

    /// Everything a step does on the device: how many layers in front it has no gradient of, and why those who share it could
    /// not, if so.
    fn work(&mut self, step: u64, limit: Option<Limited<'_, B>>) -> Result<(usize, Option<TransportError>), B::Error> {
        let count = self.options.micro_batches;
        let (mut partial, missing) = match limit {
            None => {
                self.passes(step, None)?;
                (None, 0)
            }
            Some((partial, goes_on, whole)) => {
                partial.copy_running(&mut self.backend, &mut self.network.running, false)?;
                self.passes(step, Some(&mut partial.limit(goes_on, count)))?;
                let missing = partial.missing(whole);
                (Some(partial), missing)
            }
        };
        let kept = self
            .network
            .blocks()
            .get(missing)
            .map_or(self.network.parameters_len(), |block| if missing == 0 { 0 } else { block.parameters.offset });
        if missing != self.left_out {
            self.preconditioner.leave_out(&mut self.backend, missing)?;
            self.left_out = missing;
        }
        if let Some(partial) = partial.as_mut().filter(|_| missing > 0) {
            let Self { backend, network, optimiser, accumulated, .. } = self;
            partial.copy(backend, (&mut network.parameters, &mut **optimiser), kept, false)?;
            let gradient = accumulated.as_mut().unwrap_or(&mut network.gradient);
            backend.fill(B::Scalar::of(0.0), Region::vector(0, kept), gradient)?;
        }
        let rate = self.options.rate.value(step);
        self.preconditioner.update(&mut self.backend, count)?;
        let Self { backend, network, prediction, .. } = self;
        let mut prediction = prediction.as_mut().filter(|prediction| prediction.reads(step));
        if let Some(prediction) = &mut prediction {
            prediction.keep(backend, network)?;
        }
        let passes = Passes { network: &self.network, kinds: &self.kinds, batch: self.options.batch };
        let mut gradient = self.accumulated.as_ref().unwrap_or(&self.network.gradient);
        let mut unreduced: Option<&dyn Captures<B>> = if count > 1 || missing > 0 { None } else { Some(&passes) };
        if let Some(drift) = &mut self.drift {
            gradient = drift.correct(&mut self.backend, gradient, &self.network.parameters)?;
            // It is no longer that of the passes alone.
            unreduced = None;
        }
        self.preconditioner.precondition(&mut self.backend, rate, gradient, unreduced, &mut self.direction)?;
        if let Some(error) = self.preconditioner.abandoned() {
            return Ok((missing, Some(error)));
        }
        let made = self.optimiser.steps();
        self.optimiser.step(&mut self.backend, rate, &self.direction, &mut self.network.parameters)?;
        if let Some(partial) = partial.filter(|_| missing > 0) {
            let Self { backend, network, optimiser, .. } = self;
            partial.copy(backend, (&mut network.parameters, &mut **optimiser), kept, true)?;
            if missing == network.blocks().len() {
                // As if it had not been made.
                optimiser.resume(made);
                partial.copy_running(backend, &mut network.running, true)?;
            }
        }
        if let Some(prediction) = prediction {
            let Self { backend, network, preconditioner, accumulated, options, .. } = self;
            prediction.take(backend, network, &mut **preconditioner, accumulated.as_ref(), options)?;
        }
        Ok((missing, None))
    }

    /// Begins a step: gradient and statistics of its batches.
    fn passes(&mut self, step: u64, mut limit: Option<&mut Limit<'_>>) -> Result<(), B::Error> {
        if let Some(schedule) = &self.options.damping {
            self.preconditioner.set_damping(schedule.value(step));
        }
        let count = self.options.micro_batches;
        self.preconditioner.begin(&mut self.backend)?;
        for micro in 0..count {
            self.batches.fill(&mut self.x, &mut self.labels);
            self.network.load(&mut self.backend, &self.x, &self.labels)?;
            self.pass(limit.as_deref_mut().filter(|_| micro + 1 == count))?;
            self.accumulate(micro)?;
        }
        let source = if count > 1 { &self.totals } else { self.network.loss_value() };
        self.loss = Some((step, Loss::Ticket(self.backend.download(source, 0..2)?)));
        Ok(())
    }

    /// Forward and backward through the loaded micro-batch; backward within the limit, if there is one.
    fn pass(&mut self, limit: Option<&mut Limit<'_>>) -> Result<(), B::Error> {
        let Self { backend, network, preconditioner, options, random, .. } = self;
        let (batch, smoothing) = (options.batch, options.smoothing);
        let fisher = preconditioner.fisher();
        let Some(Taps { mut statistics, mut observer }) = preconditioner.taps() else {
            network.forward(backend, batch, Mode::Train, None)?;
            network.loss(backend, batch, smoothing)?;
            return backward(backend, network, batch, (None, None), limit);
        };
        network.forward_observed(
            backend,
            batch,
            Mode::Train,
            statistics.as_deref_mut(),
            observer.as_deref_mut().map(|observer| observer as &mut dyn Observer<B>),
        )?;
        match fisher {
            Fisher::Empirical => {
                network.loss(backend, batch, smoothing)?;
                backward(backend, network, batch, (statistics, observer), limit)
            }
            Fisher::True => {
                network.backward_sampled(backend, batch, random, statistics, observer)?;
                network.loss(backend, batch, smoothing)?;
                backward(backend, network, batch, (None, None), limit)
            }
        }
    }

    /// Adds gradient and loss of micro-batch `micro` to those before.
    fn accumulate(&mut self, micro: usize) -> Result<(), B::Error> {
        let Some(accumulated) = &mut self.accumulated else { return Ok(()) };
        let s = B::Scalar::of;
        let (share, old) = (s(1.0 / self.options.micro_batches as f64), s(if micro == 0 { 0.0 } else { 1.0 }));
        let all = Region::vector(0, self.network.parameters_len());
        self.backend.axpby(share, &self.network.gradient, old, accumulated, all)?;
        self.backend.axpby(s(1.0), self.network.loss_value(), old, &mut self.totals, Region::vector(0, 2))
    }

    /// Reads what the last step took. Waits for the device to have done that step.
    fn finish_tickets(&mut self) -> Result<(), TrainingError> {
        let step = self.progress.iteration;
        if let Some((of, loss)) = self.loss.take() {
            let values = loss.read(&mut self.backend).map_err(|error| failed(step, error))?;
            let micro_batches = self.options.micro_batches as f64;
            let samples = self.options.batch as f64 * micro_batches;
            self.progress.loss = values[0].wide() / micro_batches;
            self.progress.accuracy = values[1].wide() / samples;
            if !self.progress.loss.is_finite() {
                return Err(self.diverged(of));
            }
            self.window.sum += self.progress.loss;
            self.window.count += 1;
            if self.window.count == self.options.observe_every {
                let mean = self.window.sum / self.window.count as f64;
                self.window = Window::default();
                self.observe(mean);
            }
        }
        if let Some(prediction) = &mut self.prediction {
            let damping = prediction.damping(&mut self.backend, self.preconditioner.damping());
            if let Some(damping) = damping.map_err(|error| failed(step, error))? {
                self.preconditioner.set_damping(damping);
            }
        }
        Ok(())
    }

    fn diverged(&self, step: u64) -> TrainingError {
        let damping = self.preconditioner.damping();
        let rate = self.options.rate.value(step);
        let and = if damping > 0.0 { format!(", or more damping than {damping}") } else { "".to_string() };
        let reason = format!(
            "the loss of step {step} is {}: the parameters have diverged; go back to the last checkpoint or start \
             again with a smaller learning rate than {rate}{and}",
            self.progress.loss
        );
        TrainingError { kind: ErrorKind::Numeric, reason }
    }

    /// Waits until all that was asked for is done, and reads the last step's loss.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn settle(&mut self) -> Result<Progress, TrainingError> {
        self.finish_tickets()?;
        let step = self.progress.iteration;
        self.backend.sync().map_err(|error| failed(step, error))?;
        Ok(self.progress)
    }

    /// Shows a loss, such as an evaluation's, to the schedules.
    pub fn observe(&mut self, loss: f64) {
        self.options.rate.observe(loss);
        if let Some(damping) = &mut self.options.damping {
            damping.observe(loss);
        }
    }

    /// What the last steps have shown.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// What went wrong while contributing or adopting, where nothing could be returned; the next step fails with it.
    pub fn failure(&self) -> Option<&TrainingError> {
        self.failure.as_ref()
    }

    /// What the preconditioner has done.
    pub fn report(&self) -> Report {
        self.preconditioner.report()
    }

    /// The options; schedules move on as they are observed.
    pub fn options(&self) -> &TrainerOptions {
        &self.options
    }

    /// The device and the network on it.
    pub fn parts(&mut self) -> (&mut B, &mut Network<B>) {
        (&mut self.backend, &mut self.network)
    }

    /// The preconditioner, beside the device it works on.
    pub fn preconditioner(&mut self) -> (&mut B, &mut dyn Preconditioner<B>) {
        (&mut self.backend, &mut *self.preconditioner)
    }
}
