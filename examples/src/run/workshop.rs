//! From settings to everything the nodes of a run need: model, data, trainers, judges.

use super::evaluation::Model;
use super::judge::NetworkJudge;
use crate::checkpoint::{RunIdentity, Sum};
use crate::data::augmentation::Augmentation;
use crate::data::feed::Feed;
use crate::data::sampler::{Cursor, Sampler};
use crate::data::set::DataSet;
use crate::data::source::Data;
use crate::model::tensors::{Precision, Tensors};
use crate::model::{self, state};
use crate::settings::{
    AveragingSettings, DriftSettings, Fisher, Inner, KfacSettings, Method, Optimiser as OptimiserKind,
    OptimiserSettings, SharingSettings, TaskSettings,
};
use anyhow::{Context, Result, anyhow, bail};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::network::Network;
use kronfleet_core::optimiser::{
    Adam, AdamOptions, Optimiser, QuasiGlobal, QuasiGlobalOptions, Sgd, SgdOptions, decayed,
};
use kronfleet_core::placement::{Machine, Work};
use kronfleet_core::preconditioner::{
    ByGradient, Eva, EvaOptions, Form, GradientMethod, Identity, Kronecker, LevenbergMarquardt, MuonOptions,
    OptionsError, Preconditioner, ShampooOptions, SoapOptions,
};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::schedule::Schedule;
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use kronfleet_faer::Faer;
use std::path::Path;
use std::sync::Arc;

/// What all nodes of a run share; a clone has the same data.
#[derive(Clone)]
pub struct Workshop {
    /// The network's description.
    pub model: model::Model,
    /// What the data are called, for reports.
    pub data: String,
    train: Arc<DataSet>,
    test: Arc<DataSet>,
    normalisation: crate::data::normalisation::Normalisation,
    shares: Vec<Vec<u32>>,
    augment: bool,
    weights: Option<Tensors>,
    task: TaskSettings,
    kfac: KfacSettings,
    optimiser: OptimiserSettings,
    /// How steps are shared, if they are.
    shared: Option<(Inner, SharingSettings)>,
    drift: DriftSettings,
}

impl Workshop {
    /// Loads the data, deals them out to `nodes` nodes and reads the model.
    ///
    /// # Errors
    /// If files cannot be read, or settings do not fit each other or the data.
    pub fn open(
        task: &TaskSettings,
        kfac: &KfacSettings,
        optimiser: &OptimiserSettings,
        nodes: u32,
        weights: Option<&Path>,
    ) -> Result<Self> {
        let Data { name, train, test, normalisation } = task.data.load()?;
        let seed = Seed(task.seed);
        let train = match task.samples {
            None => train,
            Some(samples) if samples > train.len() => {
                bail!(
                    "--samples {samples}: {name} has {} training samples; ask for no more, or leave it out",
                    train.len()
                )
            }
            Some(samples) => {
                let chosen = train.stratified(samples.div_ceil(train.classes()), seed.derive("samples", 0));
                train.select(&chosen)
            }
        };
        let shares = task.partition.split(train.labels(), nodes as usize, seed.derive("partition", 0))?;
        let shape = train.shape();
        let input = Extent::new(shape.channels, shape.height, shape.width);
        let model = model::Model::choose(&task.model, input, train.classes())?;
        // The pixels of one channel are a vector as they lie.
        let flat = model.input == Extent::flat(input.len()) && shape.channels == 1;
        if model.input != input && !flat {
            bail!(
                "{} takes samples of {}, but those of {name} are {input}; choose another --model or --data",
                model.name,
                model.input
            );
        }
        let weights = match weights {
            Some(path) => Some(Tensors::read(path)?),
            None => None,
        };
        Ok(Self {
            model,
            data: name,
            augment: task.augment || (shape.channels == 3 && !task.no_augment),
            train: Arc::new(train),
            test: Arc::new(test),
            normalisation,
            shares,
            weights,
            task: task.clone(),
            kfac: kfac.clone(),
            optimiser: optimiser.clone(),
            shared: None,
            drift: DriftSettings::default(),
        })
    }

    /// The same for nodes that are kept together in this way.
    #[must_use]
    pub fn correcting(self, drift: &DriftSettings) -> Self {
        Self { drift: drift.clone(), ..self }
    }

    /// The same for nodes that share their steps, if these settings say so.
    ///
    /// # Errors
    /// If what is to be shared cannot be.
    pub fn sharing(self, sharing: &SharingSettings) -> Result<Self> {
        let Some(inner) = sharing.inner else { return Ok(self) };
        let shared = Some((inner, sharing.clone()));
        match self.kfac.preconditioner {
            Method::Kfac if !self.kfac.adaptive_damping => Ok(Self { shared, ..self }),
            Method::Kfac => bail!(
                "--inner {inner} with --adaptive-damping: a member's own loss says too little of the others'; leave one out"
            ),
            Method::Shampoo | Method::Soap | Method::Muon | Method::None => {
                inner.of_gradient(self.kfac.preconditioner.has_bases())?;
                if sharing.apart {
                    bail!(
                        "--apart has no effect on --preconditioner {}, which never has one factor of a layer without \
                         the other: leave it out",
                        self.kfac.preconditioner.name()
                    );
                }
                Ok(Self { shared, ..self })
            }
            Method::Ekfac => bail!(
                "--inner {inner} with --preconditioner ekfac, whose second moments are of single samples: choose kfac with \
                 --form eigen"
            ),
            Method::Eva => {
                inner.of_vectors()?;
                if sharing.apart {
                    bail!("--apart has no effect on --preconditioner eva, which decomposes nothing: leave it out");
                }
                Ok(Self { shared, ..self })
            }
        }
    }

    /// Tells the policies of nodes what they need to know of the model and the data, before they are made.
    ///
    /// # Errors
    /// If the model's layers do not fit each other.
    pub fn inform(&self, averaging: &AveragingSettings) -> Result<()> {
        if averaging.asks_for_tensors() {
            averaging.gossip.learn(self.tensors()?);
        }
        averaging.weighing.learn(self.shares.iter().map(Vec::len).collect());
        let TaskSettings { batch, micro_batches, .. } = self.task;
        let step = self.shares.len() as u64 * u64::from(batch) * u64::from(micro_batches);
        averaging.dynamic.learn(self.train.len() as u64 / step.max(1));
        Ok(())
    }

    /// How many values each tensor of the model has, up to where the next one begins in memory.
    ///
    /// # Errors
    /// If the model's layers do not fit each other.
    pub fn tensors(&self) -> Result<Vec<usize>> {
        let network = self.network(&mut Faer::<f32>::new(1), 1)?;
        let mut starts: Vec<usize> = network.table().iter().map(|parameter| parameter.region.offset).collect();
        starts.sort_unstable();
        let ends = starts.iter().skip(1).copied().chain([network.parameters_len()]);
        // What lies before the first, if anything does, belongs to it.
        let begins = [0].into_iter().chain(starts.iter().skip(1).copied());
        Ok(begins.zip(ends).map(|(start, end)| end - start).collect())
    }

    /// Training samples, all nodes together.
    pub fn samples(&self) -> usize {
        self.train.len()
    }

    /// The training samples of a node.
    pub(super) fn share(&self, node: u32) -> &[u32] {
        &self.shares[node as usize]
    }

    /// The network with memory for `batch` samples, initialised from the run's seed: the same on every node.
    ///
    /// # Errors
    /// If its layers do not fit each other, weights to be loaded do not fit, or the device fails.
    pub fn network<B: Backend>(&self, backend: &mut B, batch: usize) -> Result<Network<B>> {
        let mut network = Network::build(backend, self.model.input, &self.model.layers, batch)
            .map_err(|error| anyhow!("{}: {error}", self.model.name))?;
        if network.classes() < self.train.classes() {
            bail!(
                "{} has {} outputs, but {} has {} classes; give its last layer as many outputs",
                self.model.name,
                network.classes(),
                self.data,
                self.train.classes()
            );
        }
        let seed = Seed(self.task.seed).derive("initialisation", 0);
        network.initialise(backend, seed, self.task.initialisation.into()).map_err(|error| anyhow!("{error}"))?;
        if let Some(weights) = &self.weights {
            state::load(backend, &mut network, &weights.tensors)
                .map_err(|error| anyhow!("{error}"))
                .context("cannot start from the weights given with --load")?;
        }
        Ok(network)
    }

    /// A node's trainer. Nodes differ in their share of the data and the order they see it in.
    ///
    /// # Errors
    /// If settings do not fit the network, or the device fails.
    pub fn trainer<B>(&self, mut backend: B, node: u32) -> Result<Trainer<B>>
    where
        B: Backend<Buffer: Send, Verdict: Send, Download: Send> + Send + 'static,
    {
        let batch = self.task.batch as usize;
        let network = self.network(&mut backend, batch)?;
        let preconditioner = self.preconditioner(&mut backend, &network)?;
        let optimiser = self.optimiser(&mut backend, &network)?;
        let batches = self.batches(node);
        let options = TrainerOptions {
            micro_batches: self.task.micro_batches as usize,
            smoothing: self.task.label_smoothing,
            rate: self.rate(),
            adaptive: self.kfac.adaptive_damping.then(LevenbergMarquardt::default),
            seed: self.node_seed(node).derive("labels", 0),
            proximal: self.drift.prox,
            variates: self.drift.scaffold,
            ..TrainerOptions::new(batch, self.optimiser.learning_rate)
        };
        Trainer::new(backend, network, preconditioner, optimiser, batches, options)
            .map_err(|error| anyhow!("n{node}: {error}"))
    }

    /// Whether training looks at more than a batch's labels: at labels drawn from the model, or at the loss after a step.
    pub(super) fn samples_labels(&self) -> bool {
        self.kfac.adaptive_damping || (self.kfac.fisher == Fisher::True && self.kfac.options().is_some())
    }

    fn node_seed(&self, node: u32) -> Seed {
        Seed(self.task.seed).derive("node", u64::from(node))
    }

    /// The learning rate over the run.
    pub(super) fn rate(&self) -> Schedule {
        self.optimiser.rate(self.task.iterations)
    }

    /// What is done to the gradients of `network`.
    ///
    /// # Errors
    /// If settings do not fit the network, or the device fails.
    pub(super) fn preconditioner<B>(&self, backend: &mut B, network: &Network<B>) -> Result<Box<dyn Preconditioner<B>>>
    where
        B: Backend<Buffer: Send, Verdict: Send, Download: Send> + Send + 'static,
    {
        let device = |error: B::Error| anyhow!("{error}");
        let (blocks, statistics, parameters) = (network.blocks(), network.statistics_len(), network.parameters_len());
        let exclude = self.kfac.skip_layer.clone();
        if let Some(unknown) = exclude.iter().find(|name| blocks.iter().all(|block| block.name != **name)) {
            let known: Vec<_> = blocks.iter().map(|block| block.name.clone()).collect();
            return Err(anyhow!("{}", OptionsError::Unknown { name: unknown.clone(), known }));
        }
        let KfacSettings { damping, ema: ema_old, inverse_every: period, .. } = self.kfac;
        let OptimiserSettings { momentum, beta2, epsilon, .. } = self.optimiser;
        Ok(match self.kfac.preconditioner {
            Method::None if self.shared.is_none() => Box::new(Identity::default()),
            Method::Eva => {
                let options = EvaOptions { damping, ema_old, clip: self.kfac.clip(), exclude };
                let made = match &self.shared {
                    Some((inner, sharing)) => {
                        let placement = sharing.owners(inner.of_vectors()?);
                        let batch = self.task.batch as usize;
                        let work = Work { form: Form::Inverse, batch, machine: Machine::default() };
                        Eva::elastic(backend, blocks, parameters, &options, (placement, work))
                    }
                    None => Eva::new(backend, blocks, parameters, &options),
                };
                Box::new(made.map_err(device)?)
            }
            Method::Shampoo | Method::Soap | Method::Muon | Method::None => {
                let method = match self.kfac.preconditioner {
                    Method::Shampoo => {
                        GradientMethod::Shampoo(ShampooOptions { ema_old, epsilon: damping, period, exclude })
                    }
                    Method::Soap => {
                        let betas = [momentum, beta2];
                        GradientMethod::Soap(SoapOptions { betas, epsilon, ema_old, period, exclude })
                    }
                    // Without momentum of its own and with all blocks left out, it is the mean gradient that is followed.
                    Method::None => {
                        let exclude = blocks.iter().map(|block| block.name.clone()).collect();
                        GradientMethod::Muon(MuonOptions { momentum: 0.0, exclude })
                    }
                    _ => GradientMethod::Muon(MuonOptions { momentum, exclude }),
                };
                let lengths = [statistics, parameters];
                let made = match &self.shared {
                    Some((inner, sharing)) => {
                        let placement = inner.of_gradient(self.kfac.preconditioner.has_bases())?;
                        let placement = sharing.owners(placement);
                        let batch = self.task.batch as usize;
                        let work = Work { form: Form::Eigen, batch, machine: Machine::default() };
                        ByGradient::elastic(backend, blocks, lengths, &method, (placement, work))
                    }
                    None => ByGradient::new(backend, blocks, lengths, &method),
                };
                Box::new(made.map_err(device)?)
            }
            Method::Kfac | Method::Ekfac => {
                let options = self.kfac.options().expect("K-FAC has options");
                options.check(blocks).map_err(|error| anyhow!("{error}"))?;
                if let Some((inner, sharing)) = &self.shared {
                    let batch = self.task.batch as usize;
                    let work = Work { form: options.form, batch, machine: Machine::default() };
                    let division = (sharing.owners(inner.placement(options.form != Form::Inverse)), work);
                    let made = Kronecker::elastic(backend, blocks, [statistics, parameters], options, division);
                    return Ok(Box::new(made.map_err(device)?));
                }
                Box::new(Kronecker::new(backend, blocks, statistics, parameters, options).map_err(device)?)
            }
        })
    }

    /// The base optimiser for `network`.
    ///
    /// # Errors
    /// If the device fails.
    pub(super) fn optimiser<B>(&self, backend: &mut B, network: &Network<B>) -> Result<Box<dyn Optimiser<B>>>
    where
        B: Backend<Buffer: Send> + 'static,
    {
        let device = |error: B::Error| anyhow!("{error}");
        let regions = decayed(network.table(), false);
        let parameters = network.parameters_len();
        let weight_decay = self.optimiser.decay();
        Ok(match self.optimiser.optimiser {
            OptimiserKind::Sgd => {
                let OptimiserSettings { momentum, nesterov, .. } = self.optimiser;
                let momentum = if self.kfac.preconditioner.has_momentum() { 0.0 } else { momentum };
                let options = SgdOptions { momentum, nesterov, weight_decay };
                Box::new(Sgd::new(backend, parameters, &regions, options).map_err(device)?)
            }
            OptimiserKind::QuasiGlobal => {
                let OptimiserSettings { momentum, nesterov, .. } = self.optimiser;
                let momentum = if self.kfac.preconditioner.has_momentum() { 0.0 } else { momentum };
                let options = QuasiGlobalOptions { momentum, nesterov, weight_decay };
                Box::new(QuasiGlobal::new(backend, parameters, &regions, options).map_err(device)?)
            }
            OptimiserKind::Adam => {
                let betas = [self.optimiser.momentum, self.optimiser.beta2];
                let options = AdamOptions { betas, epsilon: self.optimiser.epsilon, weight_decay };
                Box::new(Adam::new(backend, parameters, &regions, options).map_err(device)?)
            }
        })
    }

    /// A node's share of the training set, as batches.
    pub(super) fn batches<S: kronfleet_core::scalar::Scalar>(&self, node: u32) -> Box<dyn Batches<S>> {
        let seed = self.node_seed(node);
        let augmentation = self.augment.then(|| Augmentation::new(seed.derive("augmentation", 0)));
        Box::new(Share {
            feed: Feed::new(&self.train, &self.normalisation, augmentation),
            train: Arc::clone(&self.train),
            sampler: Sampler::new(self.share(node), seed.derive("sampler", 0)),
            samples: Vec::with_capacity(self.task.batch as usize),
            drawn: 0,
        })
    }

    /// What judges models on the test set, with one backend per thread.
    ///
    /// # Errors
    /// If the device fails.
    pub fn judge<B: Backend>(&self, backends: Vec<B>) -> Result<NetworkJudge<B>> {
        let lanes = backends.into_iter().map(|mut backend| {
            let network = self.network(&mut backend, 256)?;
            Ok((backend, network))
        });
        let feed = Feed::new(&self.train, &self.normalisation, None);
        Ok(NetworkJudge::new(lanes.collect::<Result<_>>()?, feed, Arc::clone(&self.test)))
    }

    /// Writes a model's parameters and running statistics as safetensors, in PyTorch's layout and by its names.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path, model: &Model) -> Result<()> {
        let mut backend = Faer::<f32>::new(1);
        let mut network = self.network(&mut backend, 1)?;
        backend.upload(&model.parameters, &mut network.parameters, 0)?;
        backend.upload(&model.running, &mut network.running, 0)?;
        state::save(&mut backend, &network)?.write(path, Precision::Single)?;
        Ok(())
    }

    /// What tells this run, of `nodes` nodes with these settings in numbers of type `S`, from others.
    pub fn identity<S: Scalar>(&self, settings: &str, nodes: u32) -> RunIdentity {
        let model = format!("{:?} {:?}", self.model.input, self.model.layers);
        RunIdentity {
            settings: settings.to_owned(),
            settings_sha256: Sum::of(settings.as_bytes()),
            model: self.model.name.clone(),
            model_sha256: Sum::of(model.as_bytes()),
            data: self.data.clone(),
            data_sha256: Sum::of_all([self.train.pixels(), self.train.labels()]),
            nodes,
            scalar: S::NAME.to_owned(),
        }
    }

    /// What curvature is used for, in a word, for titles.
    pub fn method(&self) -> &'static str {
        match (self.kfac.preconditioner, self.optimiser.optimiser) {
            (Method::None, OptimiserKind::Sgd) => "SGD",
            (Method::None, OptimiserKind::QuasiGlobal) => "SGD with quasi-global momentum",
            (Method::None, OptimiserKind::Adam) => "Adam",
            (Method::Kfac, _) => "K-FAC",
            (Method::Ekfac, _) => "EKFAC",
            (Method::Eva, _) => "Eva",
            (Method::Shampoo, _) => "Shampoo",
            (Method::Soap, _) => "SOAP",
            (Method::Muon, _) => "Muon",
        }
    }
}

/// A node's share of the training set, as an endless stream of batches.
struct Share<S> {
    feed: Feed<S>,
    train: Arc<DataSet>,
    sampler: Sampler,
    samples: Vec<u32>,
    drawn: u64,
}

impl<S: Scalar> Batches<S> for Share<S> {
    fn fill(&mut self, x: &mut [S], labels: &mut [u32]) {
        self.samples.resize(labels.len(), 0);
        let draw = self.sampler.draw(&mut self.samples);
        self.drawn += labels.len() as u64;
        self.feed.fill(&self.train, &self.samples, draw, x, labels);
    }

    fn position(&self) -> u64 {
        self.drawn
    }

    fn restore(&mut self, position: u64) {
        self.drawn = position;
        self.sampler.restore(Cursor(position));
    }
}
