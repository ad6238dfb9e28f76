//! A simulated fleet as the parts of a checkpoint, and back.
//!
//! What is numbers of a layer lies in that layer's file, what somebody else may want in `model.safetensors`, everything
//! else (protocol, frames under way, schedules, statistics of the run) in `fleet.postcard`.

use super::layers::{self, Layers};
use super::manifest::Committed;
use super::store::Part;
use crate::model::tensors::{Precision, Tensors};
use anyhow::{Context, Result, anyhow};
use kronfleet_core::cluster::{Contribution, Node};
use kronfleet_core::participant::{ParticipantState, Summary, TrainingError};
use kronfleet_core::preconditioner::{Report, SharedPart};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::schedule::Schedule;
use kronfleet_core::trainer::{Checkpoint, Counts, SharedStep, Window};
use kronfleet_lossy::simulation::Snapshot;
use serde::{Deserialize, Serialize};

/// The file of PyTorch's `state_dict`.
pub const MODEL: &str = "model.safetensors";
/// The file of everything that is no tensor.
pub const FLEET: &str = "fleet.postcard";

/// What of a trainer is no tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    iteration: u64,
    samples: u64,
    last: (f64, f64),
    optimiser_steps: u64,
    steps: u64,
    counted: u64,
    damping: f64,
    refresh_due: bool,
    report: Report,
    updates: u64,
    clip: f64,
    schedules: (Schedule, Option<Schedule>),
    window: Window,
    random: [u64; 4],
    position: u64,
    drift: Counts,
}

impl TrainerState {
    /// That of a saved trainer.
    pub fn of<S: Scalar>(state: &Checkpoint<S>) -> Self {
        let memory = &state.preconditioner;
        Self {
            iteration: state.iteration,
            samples: state.samples,
            last: state.last,
            optimiser_steps: state.optimiser_steps,
            steps: memory.steps,
            counted: memory.counted,
            damping: memory.damping,
            refresh_due: memory.refresh_due,
            report: memory.report,
            updates: memory.updates,
            clip: memory.clip.wide(),
            schedules: state.schedules.clone(),
            window: state.window,
            random: state.random,
            position: state.position,
            drift: state.drift.1,
        }
    }

    /// Puts it into a state whose tensors are put elsewhere.
    pub fn put<S: Scalar>(self, state: &mut Checkpoint<S>) {
        (state.iteration, state.samples, state.last) = (self.iteration, self.samples, self.last);
        state.optimiser_steps = self.optimiser_steps;
        let memory = &mut state.preconditioner;
        (memory.steps, memory.counted) = (self.steps, self.counted);
        (memory.damping, memory.refresh_due) = (self.damping, self.refresh_due);
        (memory.report, memory.updates, memory.clip) = (self.report, self.updates, S::of(self.clip));
        (state.schedules, state.window) = (self.schedules, self.window);
        (state.random, state.position, state.drift.1) = (self.random, self.position, self.drift);
    }
}

/// What of a node is no layer's tensor; `N` is its cluster node, or a reference to it.
#[derive(Serialize, Deserialize)]
pub struct NodeState<N, S: Scalar> {
    /// Protocol and policy.
    pub participant: ParticipantState<N, S>,
    /// Schedules and counters of its trainer.
    pub trainer: TrainerState,
    /// Where its step stands that it shares with others, if it shares any.
    pub shared: Option<SharedState<S>>,
    /// What the step gave that is out and made, if one is.
    pub step: Option<Result<Summary, TrainingError>>,
}

/// A trainer's share of a step under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedState<S> {
    step: SharedStep<S>,
    part: Option<SharedPart<S>>,
}

impl<S: Scalar> SharedState<S> {
    /// That of a saved trainer, if its steps are shared.
    pub fn of(state: &Checkpoint<S>) -> Option<Self> {
        let step = state.shared.clone()?;
        Some(Self { step, part: state.preconditioner.shared.clone() })
    }

    /// Puts it into the state of a trainer.
    pub fn put(self, state: &mut Checkpoint<S>) {
        (state.shared, state.preconditioner.shared) = (Some(self.step), self.part);
    }
}

/// Everything of a fleet that is no layer's tensor; `W` is what watches it.
#[derive(Serialize, Deserialize)]
pub struct FleetState<N, S: Scalar, W> {
    /// What lies between the nodes.
    pub simulation: Snapshot,
    /// The nodes, in order.
    pub nodes: Vec<NodeState<N, S>>,
    /// What was seen of the run so far.
    pub watch: W,
}

impl<'a, N: Deserialize<'a>, S: Scalar + Deserialize<'a>, W: Deserialize<'a>> FleetState<N, S, W> {
    /// Reads the bytes of [`FLEET`]; allocates no more than a multiple of their length.
    ///
    /// # Errors
    /// If they are not such bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let (state, rest) =
            postcard::take_from_bytes(bytes).map_err(|error| anyhow!("{FLEET} cannot be understood: {error}"))?;
        if !rest.is_empty() {
            return Err(anyhow!("{FLEET} has {} bytes too many", rest.len()));
        }
        Ok(state)
    }
}

impl<N: Serialize, S: Scalar + Serialize, W: Serialize> FleetState<N, S, W> {
    /// The bytes of [`FLEET`].
    ///
    /// # Errors
    /// If memory runs out.
    pub fn encode(&self) -> Result<Vec<u8>> {
        postcard::to_allocvec(self).with_context(|| format!("cannot encode {FLEET}"))
    }
}

/// The numbers of a fleet: its trainers, and what they have in common.
pub struct Numbers<S> {
    /// Where they lie.
    pub layers: Layers,
    /// The nodes' trainers, in order.
    pub trainers: Vec<Checkpoint<S>>,
    /// What a fleet of another size begins with.
    pub common: Common<S>,
}

/// What a fleet has in common.
pub struct Common<S> {
    /// The iterations behind it.
    pub iteration: u64,
    /// The flat parameters and running statistics.
    pub model: (Vec<S>, Vec<S>),
    /// The flat values and weights of the factors.
    pub factors: [Vec<S>; 2],
    /// The optimiser's state, if nodes average it.
    pub optimiser: Vec<Vec<S>>,
    /// Which committed average it is.
    pub committed: Option<Committed>,
    /// By how many nodes of those that share steps it is held, where they do not average.
    sharers: Option<usize>,
}

impl<S: Scalar> Common<S> {
    /// The newest committed average among `nodes`, each with what an outer optimiser has made of it if there is one; what it
    /// lacks is the mean over the `trainers`. Averages of parts of models are none of a model. Nodes that share their steps and
    /// do not average have one model after every step: the newest is that of those who have come furthest, or the mean of
    /// theirs where they have parted.
    pub fn of<'a>(
        nodes: impl Iterator<Item = (&'a Node<S>, Option<&'a [S]>)>,
        trainers: &[Checkpoint<S>],
        averages: bool,
    ) -> Self {
        let furthest = trainers.iter().map(|state| state.iteration).max().unwrap_or(0);
        let shares = !averages && trainers.iter().any(|state| state.shared.is_some());
        let ahead: Vec<&Checkpoint<S>> =
            trainers.iter().filter(|state| !shares || state.iteration == furthest).collect();
        let whole = |state: &Contribution<S>| state.find("parameters").is_some_and(|segment| segment.weight > 0.0);
        let newest = nodes.filter_map(|(node, made)| {
            let state = node.last_state().filter(|state| whole(state))?;
            Some((node.last(), node.last_certificate()?, state, made))
        });
        let newest = newest.max_by_key(|(id, ..)| *id).filter(|_| !shares);
        let state = newest.map(|(_, _, state, _)| &**state);
        let segment = |name: &str| {
            let segment = state.and_then(|state: &Contribution<S>| state.find(name));
            segment.filter(|segment| segment.weight > 0.0).map(|segment| segment.values.clone())
        };
        let made = newest.and_then(|(.., made)| made).map(<[S]>::to_vec);
        let parameters = made.or_else(|| segment("parameters"));
        let parameters = parameters.unwrap_or_else(|| mean(&ahead, |state| &state.parameters));
        let running = segment("running").unwrap_or_else(|| mean(&ahead, |state| &state.running));
        let lens = [0, 1].map(|at| trainers.first().map_or(0, |state| state.factors[at].len()));
        let factors = match segment("factors") {
            Some(mut values) if values.len() == lens[0] + lens[1] => {
                let weights = values.split_off(lens[0]);
                [values, weights]
            }
            _ => [mean(&ahead, |state| &state.factors[0]), mean(&ahead, |state| &state.factors[1])],
        };
        let committed = newest.map(|(id, certificate, ..)| Committed {
            certificate: id.to_string(),
            round: id.round.0,
            members: certificate.members.iter().map(|member| member.node.0).collect(),
        });
        let lowest = ahead.iter().map(|state| state.iteration).min().unwrap_or(0);
        Self {
            iteration: state.map_or(lowest, |state| state.iteration),
            model: (parameters, running),
            factors,
            optimiser: (0..).map_while(|index| segment(&format!("optimiser/{index}"))).collect(),
            committed,
            sharers: shares.then_some(ahead.len()),
        }
    }

    /// Whose parameters these are, in words.
    pub fn describe(&self, nodes: usize) -> String {
        match (&self.committed, self.sharers) {
            (Some(committed), _) => {
                format!("the committed average {} at iteration {}", committed.certificate, self.iteration)
            }
            (None, Some(sharers)) => {
                let iteration = self.iteration;
                format!(
                    "the mean of the models of {sharers} of {nodes} nodes, which have come furthest, to iteration {iteration}"
                )
            }
            (None, None) => format!("the mean of the models of {nodes} nodes, of which none was committed as a whole"),
        }
    }
}

/// The mean of one buffer over all nodes, summed in their order in double precision.
fn mean<S: Scalar>(trainers: &[&Checkpoint<S>], buffer: impl Fn(&Checkpoint<S>) -> &Vec<S>) -> Vec<S> {
    let mut sum: Vec<f64> = Vec::new();
    for state in trainers {
        sum.resize(buffer(state).len(), 0.0);
        sum.iter_mut().zip(buffer(state)).for_each(|(sum, value)| *sum += value.wide());
    }
    sum.into_iter().map(|sum| S::of(sum / trainers.len() as f64)).collect()
}

/// The precision that loses nothing.
fn precision<S: Scalar>() -> Precision {
    if S::BYTES == 4 { Precision::Single } else { Precision::Double }
}

impl<S: Scalar> Numbers<S> {
    /// The files of tensors, made one by one.
    pub fn parts(&self) -> impl Iterator<Item = Result<Part>> {
        let encode = |name: String, tensors: &Tensors| -> Result<Part> {
            let bytes = tensors.encode(precision::<S>()).with_context(|| format!("cannot encode {name}"))?;
            Ok((name, bytes))
        };
        let Common { model: (parameters, running), factors, optimiser, .. } = &self.common;
        let model = move || encode(MODEL.into(), &self.layers.model(parameters, running));
        let layer = move |layer: &String| {
            let mut tensors = Tensors::default();
            self.layers.put_factors(layer, "fleet", factors, &mut tensors);
            for (index, buffer) in optimiser.iter().enumerate() {
                self.layers.put_parameters(layer, &format!("fleet/optimiser/{index}"), buffer, &mut tensors);
            }
            for (node, state) in self.trainers.iter().enumerate() {
                self.layers.put(layer, &format!("n{node}"), state, &mut tensors);
            }
            encode(layers::file(layer), &tensors)
        };
        std::iter::once_with(model).chain(self.layers.names().iter().map(layer))
    }
}
