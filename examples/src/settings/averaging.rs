//! Who trains, and how nodes stay together.

use super::division::Division;
use super::drift::DriftSettings;
use super::dynamic::DynamicSettings;
use super::gossip::{ConsensusStep, GossipSettings};
use super::hierarchical::HierarchicalSettings;
use super::layerwise::LayerwiseSettings;
use super::outer::OuterSettings;
use super::sharing::{Outer, SharingSettings};
use super::sketch::SketchSettings;
use super::streaming::StreamingSettings;
use super::weight::WeightSettings;
use anyhow::{Result, anyhow, bail};
use clap::{Args, ValueEnum};
use kronfleet_core::cluster::{Budget, Incarnation, Mode, Quarantine, RunId, Settings, Shortage};
use kronfleet_core::collective::{BLOCK, Encoding};
use kronfleet_core::compress::Code;
use kronfleet_core::gossip::{AdaptivePace, Mixing, Pace, Rule};
use kronfleet_core::participant::{Participant, Training};
use kronfleet_core::policy::{
    Asynchronous, AveragingPolicy, Dynamic, DynamicOptions, Gauge, Gossip, GossipOptions, Hierarchical,
    HierarchicalOptions, Local, Missed, Periodic, PushSum, PushSumOptions, Rejoin, Request, Streaming,
    StreamingOptions,
};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Seed;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;

/// How nodes stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Not at all: every node trains alone.
    Local,
    /// All that are online average their weights every so many iterations.
    Periodic,
    /// All that are online tell each other how far their models have gone, and average when they may be further apart
    /// than --theta; by one number of each.
    #[value(name = "fda:naive")]
    Naive,
    /// The same by two numbers, one of which is how far a model has gone in the direction of the last average.
    #[value(name = "fda:linear")]
    Linear,
    /// The same by a number and a sketch of 5 rows.
    #[value(name = "fda:sketch")]
    Sketch,
    /// All average at first, at last and now and then; between, they exchange models while they train on (DASO; with
    /// --daso-merge progress, LASGD). With --inner, sites do: --outer daso.
    Daso,
    /// The same as periodic, but nodes train on while an average is under way, and the steps made meanwhile are kept (LASGD).
    Lasgd,
    /// One of --fragments parts of the model at a time is averaged, stepped by the outer optimiser (diloco, if none is chosen)
    /// and taken in --fragment-delay steps later, mixed with the node's own values (Streaming DiLoCo); it needs a longer
    /// --interval than the usual one, such as 20.
    Streaming,
    /// All average after every step, for which there is so much time as --deadline says: whoever is slower contributes the
    /// layers that its backward pass has reached by then, and each layer is averaged over those who have it (SALF); it needs a
    /// longer --stall-budget than the usual one, such as 450ms.
    Salf,
    /// No averages: models move towards those of their neighbours, all the way (D-PSGD).
    #[value(name = "gossip:dpsgd")]
    Dpsgd,
    /// The same, of what neighbours are known to have by messages in fewer bytes (CHOCO-SGD).
    #[value(name = "gossip:choco")]
    Choco,
    /// The same, each parameter with a step of its own (AdaGossip).
    #[value(name = "gossip:ada")]
    Ada,
    /// The same as gossip:choco for what was told in an exchange, all the way, and nothing for the rest: no step has to be
    /// searched for.
    #[value(name = "gossip:partial")]
    Partial,
    /// No averages: parts of models are given away along directed ways, and others' taken (stochastic gradient push).
    #[value(name = "gossip:sgp")]
    Sgp,
    /// The same by messages in fewer bytes.
    #[value(name = "gossip:push")]
    Push,
    /// The same, each tensor with a weight of its own, of which less is given where less of it was told.
    #[value(name = "gossip:push-ada")]
    PushAda,
    /// A baseline without any protocol: one model, each gradient the sum over the online nodes divided by the number of
    /// all nodes, as if those that are offline contributed zeros.
    Zeros,
}

/// Who trains, and how nodes stay together.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Averaging")]
pub struct AveragingSettings {
    /// How many nodes train
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub nodes: u32,
    /// How nodes stay together
    #[arg(long, value_enum, default_value_t = Policy::Periodic)]
    pub policy: Policy,
    /// Iterations between two averagings, or between two exchanges with neighbours
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub interval: u64,
    /// After an averaging that a node missed: wait (for its next one) or retry (after every iteration)
    #[arg(long, default_value = "retry", value_name = "wait|retry", value_parser = missed)]
    pub missed: Missed,
    /// Average the Kronecker factors too
    #[arg(long)]
    pub average_factors: bool,
    /// Average the optimiser's state too
    #[arg(long)]
    pub average_optimiser: bool,
    /// Do not average the running statistics of normalisation layers
    #[arg(long)]
    pub local_statistics: bool,
    /// How a node that was away comes back: full (with what it has, however stale), progress (that counts less the more
    /// rounds it has missed) or heal (with the fleet's state; what it trained alone is lost)
    #[arg(long, default_value = "full", value_name = "full|progress|heal", value_parser = rejoin)]
    pub rejoin: Rejoin,
    /// Nodes that a round needs: with fewer online, nodes wait and say for whom. Without this, whoever finds nobody to
    /// average with trains on alone
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub min_members: Option<u32>,
    /// Let a node that was lost N times in short order sit out rounds when it comes back, for ever longer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub quarantine: Option<u32>,
    /// Which rounds may commit while nodes cannot reach each other: available (whoever can reach each other goes on, and
    /// histories that part merge later) or strict (one history: a majority of --nodes has to make each average durable,
    /// and without a majority nothing commits)
    #[arg(long, default_value = "available", value_name = "available|strict", value_parser = mode)]
    pub mode: Mode,
    /// How long a lost node may stall the others; every timeout is derived from it. On real threads it should be several
    /// times as long as a round's iterations of one node differ from another's
    #[arg(long, default_value = "50ms", value_name = "SPAN", value_parser = super::span)]
    pub stall_budget: Duration,
    /// What a node's contribution to an average counts.
    #[command(flatten)]
    pub weighing: WeightSettings,
    /// What is made of averages.
    #[command(flatten)]
    pub outer: OuterSettings,
    /// How parts of models take turns.
    #[command(flatten)]
    pub streaming: StreamingSettings,
    /// What becomes of steps that take too long.
    #[command(flatten)]
    pub layerwise: LayerwiseSettings,
    /// What keeps nodes together while they train apart.
    #[command(flatten)]
    pub drift: DriftSettings,
    /// How far models may drift apart before they are averaged.
    #[command(flatten)]
    pub dynamic: DynamicSettings,
    /// How sure sketches of drifts are.
    #[command(flatten)]
    pub sketch: SketchSettings,
    /// How sites and slow lines between them average.
    #[command(flatten)]
    pub hierarchical: HierarchicalSettings,
    /// How neighbours gossip.
    #[command(flatten)]
    pub gossip: GossipSettings,
    /// Who shares every step.
    #[command(flatten)]
    pub sharing: SharingSettings,
}

fn mode(text: &str) -> std::result::Result<Mode, String> {
    match text {
        "available" => Ok(Mode::Available),
        "strict" => Ok(Mode::Strict),
        _ => Err(format!("{text:?} is no mode; use available or strict")),
    }
}

fn missed(text: &str) -> std::result::Result<Missed, String> {
    match text {
        "wait" => Ok(Missed::Wait),
        "retry" => Ok(Missed::Retry),
        _ => Err(format!("{text:?} is nothing to do after a missed averaging; use wait or retry")),
    }
}

fn rejoin(text: &str) -> std::result::Result<Rejoin, String> {
    match text {
        "full" => Ok(Rejoin::FullWeight),
        "progress" => Ok(Rejoin::ByProgress),
        "heal" => Ok(Rejoin::HealFirst),
        _ => Err(format!("{text:?} is no way to come back; use full, progress or heal")),
    }
}

/// The highest rank in which a block of differences takes fewer bytes than its values do.
fn most_rank() -> u16 {
    let bytes = |code: Code| *code.compressor::<f32>().sizes(BLOCK).end();
    (1..u16::MAX).take_while(|&rank| bytes(Code::Rank(rank)) < bytes(Code::All)).last().unwrap_or(0)
}

impl AveragingSettings {
    /// What all timeouts follow from.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn budget(&self) -> Result<Budget> {
        Budget::new(self.stall_budget).map_err(|error| anyhow!("--stall-budget: {error}"))
    }

    /// What these settings are known not to be good at, in words.
    pub fn caution(&self) -> Option<String> {
        let (Code::Top(kept) | Code::Random(kept)) = self.gossip.code() else { return None };
        let measured = self.policy == Policy::Ada && self.gossip.consensus_step == Some(ConsensusStep::Measured);
        (measured && kept.of(1000) < 50).then(|| {
            format!(
                "--consensus-step measured with --compress {}: where so little is told, a step that keeps nodes together is \
                 too small to train with (docs/gossip.md); --policy gossip:partial needs none, or give a number",
                self.gossip.code()
            )
        })
    }

    /// The cluster settings of one node.
    ///
    /// # Errors
    /// If they do not fit each other.
    pub fn cluster(&self, run: RunId, node: NodeId, incarnation: Incarnation) -> Result<Settings> {
        self.sharing.check(self.nodes)?;
        let budget = self.budget()?;
        let peers = self.peers(node)?;
        let mut settings = Settings::new(run, node, incarnation, peers, budget);
        settings.mode = self.mode;
        settings.quarantine = self.quarantine.map(Quarantine::after);
        settings.code = self.round_code();
        if let Code::Rank(rank) = settings.code
            && !self.policy.gossips()
            && rank > most_rank()
        {
            let (side, most) = (BLOCK.isqrt(), most_rank());
            bail!(
                "--compress rank:{rank}: rounds tell differences in blocks of {side} by {side} values, which take no fewer bytes \
                 in a rank above {most}: give at most rank:{most}, or all"
            );
        }
        if let Some(minimum) = self.min_members {
            if minimum > self.nodes {
                bail!("--min-members {minimum} can never be online: there are --nodes {}", self.nodes);
            }
            settings.minimum = minimum as usize;
            settings.shortage = Shortage::Wait;
        }
        Ok(settings)
    }

    /// What parameters are told in where all average: sites that share steps tell each other snapshots so, and rounds bring
    /// newcomers what they lack.
    fn round_code(&self) -> Code {
        if self.sharing.inner.is_some() { Code::All } else { self.gossip.compress.unwrap_or_default() }
    }

    /// Whom a node has to know: all others, or its neighbours where nobody else is spoken to. Signs of life to all would
    /// cost every node time and bytes in proportion to the whole fleet.
    fn peers(&self, node: NodeId) -> Result<Vec<NodeId>> {
        if self.sharing.inner.is_some() || !self.policy.gossips() {
            return Ok((0..self.nodes).map(NodeId).collect());
        }
        if matches!(self.policy, Policy::Sgp | Policy::Push | Policy::PushAda) {
            let place = self.gossip.topology.directed(self.nodes)?.place(node);
            return Ok(place.receivers().union(&place.senders()).copied().collect());
        }
        Ok(self.mixing()?.row(node).others.keys().copied().collect())
    }

    /// The policy of one node.
    ///
    /// # Errors
    /// If there are not so many nodes as its topology has.
    pub fn policy(&self, node: NodeId) -> Result<Box<dyn AveragingPolicy>> {
        match (self.sharing.inner, self.sharing.outer) {
            (None, _) => {}
            (Some(_), None) => return Ok(Box::new(Local)),
            (Some(_), Some(Outer::Periodic(interval))) => return Ok(Box::new(Periodic::new(interval))),
            (Some(_), Some(Outer::Daso)) => return self.in_sites(node, &self.sharing.sites),
        }
        let gauge = match self.policy {
            Policy::Local | Policy::Zeros => return Ok(Box::new(Local)),
            Policy::Periodic => {
                let mut policy = Periodic::new(self.interval);
                policy.request = self.request(node);
                policy.rejoin = self.rejoin;
                policy.missed = self.missed;
                policy.outer = self.outer.optimiser();
                return Ok(Box::new(policy));
            }
            Policy::Daso => return self.in_sites(node, &Division::Count(self.nodes)),
            Policy::Lasgd => {
                let mut policy = Asynchronous::new(self.interval);
                (policy.request, policy.rejoin) = (self.request(node), self.rejoin);
                return Ok(Box::new(policy));
            }
            Policy::Streaming => {
                if self.mode == Mode::Strict && self.streaming.fragments > 1 {
                    bail!(
                        "--policy streaming: what a majority makes durable is one part of the model, so that a fleet that is \
                         started again would lose the others; use --mode available, or --fragments 1"
                    );
                }
                let segments = self.cluster(RunId(0), node, Incarnation(1))?.most_segments();
                let options = self.streaming.options(self.interval, &self.outer, segments)?;
                let options = StreamingOptions { request: self.request(node), rejoin: self.rejoin, ..options };
                return Ok(Box::new(Streaming::new(options)));
            }
            Policy::Salf => {
                if self.mode == Mode::Strict {
                    bail!(
                        "--policy salf: what a majority has made durable need not have every layer, so that a fleet that \
                         is started again would lose some; use --mode available"
                    );
                }
                let mut policy = self.layerwise.policy(self.budget()?.ready())?;
                (policy.request, policy.rejoin) = (self.request(node), self.rejoin);
                return Ok(Box::new(policy));
            }
            Policy::Dpsgd => return self.neighbourly(node, Rule::Choco { step: 1.0 }, Code::All),
            Policy::Choco => {
                let step = match self.gossip.consensus_step {
                    None => 0.4,
                    Some(ConsensusStep::Fixed(step)) if step > 1.0 => bail!(
                        "--consensus-step {}: with gossip:choco it is a part of the way to the neighbours: give at most 1",
                        super::shown(step)
                    ),
                    Some(ConsensusStep::Fixed(step)) => step,
                    Some(ConsensusStep::Auto) => self.gossip.tuned(&self.mixing()?)?,
                    Some(ConsensusStep::Measured) => bail!(
                        "--consensus-step measured is of gossip:ada: steps that differ from node to node would cost \
                         gossip:choco the mean over nodes; try auto"
                    ),
                };
                return self.neighbourly(node, Rule::Choco { step }, self.gossip.code());
            }
            Policy::Ada => {
                let rule = self.gossip.ada(|| self.gossip.tuned(&self.mixing()?))?;
                return self.neighbourly(node, Rule::Ada(rule), self.gossip.code());
            }
            Policy::Partial => {
                let code = self.gossip.code();
                let step = match self.gossip.consensus_step {
                    // Values drawn at random can be too much for who is silent.
                    None if matches!(code, Code::Random(_)) => 0.5,
                    None => 1.0,
                    Some(ConsensusStep::Fixed(step)) if step <= 1.0 => step,
                    Some(_) => {
                        bail!("--consensus-step with gossip:partial is a part of the way: give a number of at most 1")
                    }
                };
                return self.neighbourly(node, Rule::Partial { step }, code);
            }
            Policy::Sgp => return self.giving(node, Pace::Fixed(1.0), Code::All),
            Policy::Push | Policy::PushAda => return self.giving(node, self.pace()?, self.gossip.code()),
            Policy::Naive => Gauge::Naive,
            Policy::Linear => Gauge::Linear,
            Policy::Sketch => self.sketch.gauge()?,
        };
        Ok(Box::new(Dynamic::new(DynamicOptions {
            check_every: self.dynamic.check_every(),
            patience: self.patience(),
            ready: self.budget()?.ready(),
            request: self.request(node),
            rejoin: self.rejoin,
            seed: Seed(0).derive("drift", 0),
            outer: self.outer.optimiser(),
            ..DynamicOptions::new(gauge, self.dynamic.theta)
        })))
    }

    /// The same participant, sharing its steps if the settings say so; before its first.
    pub fn shared<T: Training<S>, S: Scalar>(
        &self,
        participant: Participant<T, S>,
        now: Instant,
        node: NodeId,
    ) -> Participant<T, S> {
        match self.sharing.site(node, self.nodes) {
            Some(site) => participant.share(now, site),
            None => participant,
        }
    }

    /// Whether nodes can keep a model with so many running statistics of batch normalisation together.
    ///
    /// # Errors
    /// If nodes gossip: only parameters move then, and statistics of a model that has moved are those of no model. The
    /// user may want that all the same.
    pub fn check_statistics(&self, running: usize) -> Result<()> {
        if running > 0 && self.policy.gossips() && !self.local_statistics {
            bail!(
                "neighbours tell each other parameters only, and running statistics of batch normalisation would fit none \
                 of the models they come from: choose a model with another normalisation (resnet20-evonorm), or \
                 --local-statistics to let every node keep those of its own batches"
            );
        }
        Ok(())
    }

    /// How much neighbours count.
    fn mixing(&self) -> Result<Mixing> {
        Ok(Mixing::metropolis(&self.gossip.topology.topology(self.nodes)?))
    }

    /// A policy of these sites.
    ///
    /// # Errors
    /// If snapshots of models cannot be told as asked for.
    fn in_sites(&self, node: NodeId, division: &Division) -> Result<Box<dyn AveragingPolicy>> {
        let options = self.hierarchical.options(division.groups(self.nodes));
        let encoding = match self.gossip.compress {
            None | Some(Code::All) => Encoding::Full,
            Some(Code::Bf16) => Encoding::Bf16,
            Some(other) => bail!(
                "--compress {other}: sites tell each other models as they are, not differences from a state that they have in \
                 common; use bf16 or all"
            ),
        };
        let options = HierarchicalOptions {
            encoding,
            patience: self.patience(),
            request: self.request(node),
            rejoin: self.rejoin,
            ..options
        };
        Ok(Box::new(Hierarchical::new(options, node)))
    }

    /// A policy that gossips.
    fn neighbourly(&self, node: NodeId, rule: Rule, code: Code) -> Result<Box<dyn AveragingPolicy>> {
        let mixing = self.mixing()?;
        let options = GossipOptions {
            interval: self.interval,
            patience: self.patience(),
            seed: Seed(0).derive("gossip", u64::from(node.0)),
            ..GossipOptions::new(mixing.row(node).clone(), rule)
        };
        Ok(Box::new(Gossip::new(options, code.compressor::<f32>())))
    }

    /// How much a node gives away in fewer bytes.
    fn pace(&self) -> Result<Pace> {
        let given = match self.gossip.consensus_step {
            None => None,
            Some(ConsensusStep::Fixed(step)) => Some(step),
            Some(ConsensusStep::Auto) => {
                bail!("--consensus-step auto is of gossip:choco and gossip:ada: give a number")
            }
            Some(ConsensusStep::Measured) => {
                bail!("--consensus-step measured is of gossip:ada: give a number")
            }
        };
        let usual = AdaptivePace::default();
        let (cap, pace) = if self.policy == Policy::PushAda {
            let cap = self.gossip.consensus_cap.unwrap_or(usual.cap);
            let decay = self.gossip.consensus_decay.unwrap_or(usual.decay);
            let step = given.unwrap_or(usual.step);
            (cap, Pace::Adaptive(AdaptivePace { decay, epsilon: self.gossip.consensus_epsilon, step, cap }))
        } else {
            let step = given.unwrap_or(0.1);
            (step, Pace::Fixed(step))
        };
        if cap > 1.0 {
            let flag = if self.policy == Policy::PushAda { "cap" } else { "step" };
            bail!("--consensus-{flag} {} gives away more than there is: use one of at most 1", super::shown(cap));
        }
        Ok(pace)
    }

    /// A policy that gives parts of models away.
    fn giving(&self, node: NodeId, pace: Pace, code: Code) -> Result<Box<dyn AveragingPolicy>> {
        let mut options = PushSumOptions::new(&self.gossip.topology.directed(self.nodes)?, node);
        options.pace = pace;
        if self.policy == Policy::PushAda {
            options.tensors = self.gossip.tensors().to_vec();
        }
        options.interval = self.interval;
        options.patience = self.patience();
        options.seed = Seed(0).derive("gossip", u64::from(node.0));
        Ok(Box::new(PushSum::new(options, code.compressor::<f32>())))
    }

    /// Whether the policy needs to know how long the tensors of the model are.
    pub fn asks_for_tensors(&self) -> bool {
        self.policy == Policy::PushAda || self.gossip.consensus_step == Some(ConsensusStep::Auto)
    }

    /// How long a policy waits for what others say: by then a peer that has been lost is suspected, and one that computes
    /// longer is late.
    fn patience(&self) -> Duration {
        self.stall_budget / 2
    }

    /// What a contribution of a node consists of.
    fn request(&self, node: NodeId) -> Request {
        Request {
            weight: self.weighing.of(node),
            running: !self.local_statistics,
            factors: self.average_factors,
            optimiser: self.average_optimiser,
        }
    }
}

impl Policy {
    /// Whether nodes average in rounds.
    pub fn averages(self) -> bool {
        !matches!(self, Self::Local | Self::Zeros) && !self.gossips()
    }

    /// Whether models move towards those of neighbours.
    pub fn gossips(self) -> bool {
        matches!(self, Self::Dpsgd | Self::Choco | Self::Ada | Self::Partial | Self::Sgp | Self::Push | Self::PushAda)
    }

    /// Whether nodes average when they have drifted apart.
    pub fn is_dynamic(self) -> bool {
        matches!(self, Self::Naive | Self::Linear | Self::Sketch)
    }
}
