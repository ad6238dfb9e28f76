//! A baseline: data-parallel training in which offline nodes contribute zeros.
//!
//! This is what Yu & Tatebe (2024) depart from. There is one model. Every iteration each online node contributes the
//! gradient of its own batch, each offline node zeros, and the sum is divided by the number of *all* nodes:
//!
//! ```text
//! g = 1/P · Σ_online ∇L_i(w)
//! ```
//!
//! Then one step is made with that gradient, preconditioned or not. An offline node computes nothing; what is missing
//! shrinks the gradient, and with it the step.
//!
//! No frames are exchanged: this is arithmetic under the outages that the other runs have, in iterations. Curvature is
//! treated kindly: its statistics are averaged over the online nodes, not diluted by zeros.

use super::backends::With;
use super::evaluation::{Evaluator, Judge};
use super::lossy::{Ending, Fleet};
use super::story::{Metric, Story};
use super::watch::blank;
use anyhow::{Result, anyhow, bail};
use kronfleet_core::backend::Backend;
use kronfleet_core::layer::Mode;
use kronfleet_core::matrix::Region;
use kronfleet_core::network::Network;
use kronfleet_core::optimiser::Optimiser;
use kronfleet_core::preconditioner::{Preconditioner, Taps};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::schedule::Schedule;
use kronfleet_core::trainer::Batches;
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::outage::OutageSchedule;
use std::sync::atomic::Ordering;

/// One model with the gradients of whoever is online under `outages`, zeros standing for the others.
pub(super) struct Zeros<'a> {
    pub(super) fleet: &'a Fleet<'a>,
    pub(super) outages: &'a OutageSchedule,
}

impl With for Zeros<'_> {
    type Output = Ending;

    /// Fails if the model cannot be made, or it has settings that only nodes with models of their own have. Divergence is
    /// the story's [`failure`](Story::failure).
    fn with<B>(self, make: &(dyn Fn() -> Result<B> + Sync)) -> Result<Ending>
    where
        B: Backend<Scalar = f32, Buffer: Send, Verdict: Send, Download: Send> + Send + 'static,
    {
        let Self { fleet, outages } = self;
        if fleet.workshop.samples_labels() {
            bail!("--policy zeros has neither --fisher true nor --adaptive-damping; leave them out");
        }
        let nodes = fleet.averaging.nodes;
        let title = format!(
            "{} on {} with data-parallel {}, {nodes} nodes, zeros for those offline",
            fleet.workshop.model.name,
            fleet.workshop.data,
            fleet.workshop.method(),
        );
        let mut story = blank(title, fleet.settings.to_owned(), fleet.task.seed, nodes, fleet.output.target_accuracy);
        let judges = (0..rayon::current_num_threads()).map(|_| make()).collect::<Result<_>>()?;
        // There is one model: it is everybody's own, and their average.
        let agenda = super::evaluation::Agenda { own_every: None, ..fleet.agenda() };
        let mut evaluator = Evaluator::new(fleet.workshop.judge(judges)?, 1, agenda);
        let mut model = Replica::new(fleet, make()?)?;
        for iteration in 1..=fleet.task.iterations {
            if fleet.stop.load(Ordering::Relaxed) {
                story.interrupted = true;
                break;
            }
            let online = |node: u32| !outages.offline(NodeId(node), iteration - 1);
            let online: Vec<bool> = (0..nodes).map(online).collect();
            let loss = model.step(&online).map_err(|error| anyhow!("iteration {iteration}: {error}"))?;
            for (node, &online) in online.iter().enumerate() {
                let told = &mut story.nodes[node];
                told.iterations += 1;
                told.offline += u64::from(!online);
                told.loss = loss;
                story.samples += if online { u64::from(fleet.task.batch) } else { 0 };
                story.metrics.push(Metric { node: node as u32, iteration, time: 0.0, loss, online });
            }
            if !loss.is_finite() {
                story.failure =
                    Some(format!("the loss of iteration {iteration} is {loss}; use a smaller learning rate"));
                break;
            }
            if evaluator.wants(iteration) {
                model.judge(&mut evaluator, iteration)?;
            }
            if fleet.output.stop_at_accuracy.is_some_and(|at| evaluator.reached(at).is_some()) {
                break;
            }
        }
        story.averaged = Story::curve(&evaluator.averaged);
        story.own_mean.clone_from(&story.averaged);
        for node in &mut story.nodes {
            node.accuracy = evaluator.own.get(&0).copied();
        }
        Ok((story, evaluator.model))
    }
}

/// The one model, its optimiser and everybody's batches.
struct Replica<B: Backend> {
    backend: B,
    network: Network<B>,
    preconditioner: Box<dyn Preconditioner<B>>,
    optimiser: Box<dyn Optimiser<B>>,
    rate: Schedule,
    batches: Vec<Box<dyn Batches<B::Scalar>>>,
    gradient: B::Buffer,
    direction: B::Buffer,
    pixels: Vec<B::Scalar>,
    labels: Vec<u32>,
    smoothing: f64,
    steps: u64,
    loss: f64,
}

impl<B> Replica<B>
where
    B: Backend<Buffer: Send, Verdict: Send, Download: Send> + Send + 'static,
{
    fn new(fleet: &Fleet<'_>, mut backend: B) -> Result<Self> {
        let batch = fleet.task.batch as usize;
        let mut network = fleet.workshop.network(&mut backend, batch)?;
        let mut preconditioner = fleet.workshop.preconditioner(&mut backend, &network)?;
        if let Some(factors) = preconditioner.factors() {
            // Blocks without a factor need no statistics.
            for number in 0..network.blocks().len() {
                let name = &network.blocks()[number].name;
                let wanted = factors.blocks().iter().any(|block| block.name == *name);
                network.observe(number, wanted);
            }
        }
        let device = |error: B::Error| anyhow!("{error}");
        Ok(Self {
            optimiser: fleet.workshop.optimiser(&mut backend, &network)?,
            rate: fleet.workshop.rate(),
            batches: (0..fleet.averaging.nodes).map(|node| fleet.workshop.batches(node)).collect(),
            gradient: backend.allocate(network.parameters_len()).map_err(device)?,
            direction: backend.allocate(network.parameters_len()).map_err(device)?,
            pixels: vec![B::Scalar::of(0.0); batch * network.input_extent().len()],
            labels: vec![0; batch],
            smoothing: fleet.task.label_smoothing,
            steps: 0,
            loss: 0.0,
            backend,
            network,
            preconditioner,
        })
    }

    /// One iteration; answers the mean loss over the batches of whoever is online, or the last one if nobody is.
    fn step(&mut self, online: &[bool]) -> Result<f64, B::Error> {
        let s = B::Scalar::of;
        let share = s(1.0 / online.len() as f64);
        let all = Region::vector(0, self.network.parameters_len());
        let rate = self.rate.value(self.steps);
        let Self { backend, network, preconditioner, gradient, direction, .. } = self;
        backend.fill(s(0.0), all, gradient)?;
        preconditioner.begin(backend)?;
        let (mut loss, mut count) = (0.0, 0);
        let present = self.batches.iter_mut().zip(online).filter(|(_, online)| **online);
        for (batches, _) in present {
            batches.fill(&mut self.pixels, &mut self.labels);
            network.load(backend, &self.pixels, &self.labels)?;
            let batch = self.labels.len();
            match preconditioner.taps() {
                None => {
                    network.forward(backend, batch, Mode::Train, None)?;
                    network.loss(backend, batch, self.smoothing)?;
                    network.backward(backend, batch, None, None)?;
                }
                Some(Taps { mut statistics, observer }) => {
                    network.forward(backend, batch, Mode::Train, statistics.as_deref_mut())?;
                    network.loss(backend, batch, self.smoothing)?;
                    network.backward(backend, batch, statistics, observer)?;
                }
            }
            backend.axpby(share, &network.gradient, s(1.0), gradient, all)?;
            loss += backend.fetch(network.loss_value(), 0..1)?[0].wide();
            count += 1;
        }
        if count > 0 {
            preconditioner.update(backend, count)?;
            preconditioner.precondition(backend, rate, gradient, None, direction)?;
            self.loss = loss / count as f64;
        } else {
            backend.fill(s(0.0), all, direction)?;
        }
        self.optimiser.step(backend, rate, direction, &mut network.parameters)?;
        self.steps += 1;
        Ok(self.loss)
    }

    fn judge<J: Judge>(&mut self, evaluator: &mut Evaluator<J>, iteration: u64) -> Result<()> {
        let Self { backend, network, .. } = self;
        let mut fetch = |buffer: &B::Buffer, len: usize| -> Result<Vec<f32>> {
            let values = backend.fetch(buffer, 0..len).map_err(|error| anyhow!("{error}"))?;
            Ok(values.into_iter().map(|value| value.wide() as f32).collect())
        };
        let parameters = fetch(&network.parameters, network.parameters_len())?;
        let running = fetch(&network.running, network.running_len())?;
        evaluator.take(0, iteration, parameters, running)?;
        Ok(())
    }
}
