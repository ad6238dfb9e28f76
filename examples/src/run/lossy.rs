//! A fleet over lossy in-process links, in virtual time or on real threads.

use super::backends::Backends;
use super::clock::clock;
use super::display::{Display, announce};
use super::evaluation::{Agenda, Evaluator, Judge, Model};
use super::keeper::Keeper;
use super::resume::Resumed;
use super::story::Story;
use super::survivor::Survivor;
use super::watch::{Trained, Watch, blank};
use super::witness::Witness;
use super::workshop::Workshop;
use super::zeros::Zeros;
use crate::checkpoint::{Disk, RunIdentity, Saved};
use crate::settings::{
    AveragingSettings, CheckpointSettings, Driver, NetworkSettings, OutputSettings, Policy, TaskSettings,
};
use anyhow::{Context, Result, bail};
use kronfleet_core::cluster::{Incarnation, Persisted, Record, RunId};
use kronfleet_core::participant::{Clock, Participant, Schedule};
use kronfleet_core::seed::Seed;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::endpoint::LossyNetwork;
use kronfleet_lossy::fault::{Fault, FaultSchedule};
use kronfleet_lossy::network::{Connectivity, NetworkOptions};
use kronfleet_lossy::outage::OutageSchedule;
use kronfleet_lossy::simulation::{Ended, Simulation, SimulationOptions};
use kronfleet_lossy::storage::Disks;
use kronfleet_lossy::threads;
use kronfleet_lossy::trace::Trace;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// A fleet about to train.
pub struct Fleet<'a> {
    /// Model, data, curvature, optimiser.
    pub workshop: &'a Workshop,
    /// What is trained.
    pub task: &'a TaskSettings,
    /// Who trains.
    pub averaging: &'a AveragingSettings,
    /// The network.
    pub network: &'a NetworkSettings,
    /// What is shown.
    pub output: &'a OutputSettings,
    /// Every setting as text, for the report and the trace.
    pub settings: &'a str,
    /// Raised when the user wants to stop.
    pub stop: Arc<AtomicBool>,
}

/// What is kept of a run, and what it goes on from.
#[derive(Default)]
pub struct Keeping {
    /// Who writes checkpoints.
    pub keeper: Option<Keeper>,
    /// The checkpoint to go on from.
    pub saved: Option<Saved>,
}

impl Keeping {
    /// Finds the checkpoint to go on from and opens the folder for new ones, before anything of this `run` is computed.
    ///
    /// # Errors
    /// If there is no sound checkpoint of this run, or the folder cannot be written.
    pub fn open(settings: &CheckpointSettings, run: impl Fn() -> RunIdentity) -> Result<Self> {
        let CheckpointSettings { checkpoint, every, keep, resume } = settings;
        let saved = match resume {
            None => None,
            Some(place) => {
                let saved = Saved::find(&Disk, place, Some(&run()))?;
                eprintln!("going on from {}", saved.describe());
                Some(saved)
            }
        };
        let keeper = match checkpoint {
            None => None,
            Some(folder) => Some(Keeper::open(folder, (*every, *keep), resume.as_deref(), run())?),
        };
        Ok(Self { keeper, saved })
    }
}

/// What a run gives: its story, and the averaged parameters and running statistics.
pub type Ending = (Story, Option<Model>);

impl Fleet<'_> {
    /// The outages that the settings ask for, in iterations; they depend on the seed, the number of nodes, the outages'
    /// fraction, length and cap, and on nothing else, unless outages are drawn at each averaging.
    ///
    /// Waiting for rounds makes an iteration longer than a step; twice the iterations are scheduled, so that outages
    /// do not run out before training does.
    pub fn outages(&self) -> OutageSchedule {
        let options = self.network.outage_options();
        let seed = Seed(self.task.seed).derive("outages", 0);
        let iterations = 2 * self.task.iterations;
        OutageSchedule::new(&options, self.averaging.nodes, iterations, self.averaging.interval, seed)
    }

    /// The same in time, with the partitions and cuts that the settings ask for.
    ///
    /// # Errors
    /// If a partition or cut names a node that there is not.
    pub fn faults(&self) -> Result<FaultSchedule> {
        let mut faults = self.outages().faults(self.network.step_duration);
        self.network.extend(&mut faults, self.averaging.nodes).map_err(anyhow::Error::msg)?;
        Ok(faults)
    }

    /// Trains on the backends and with the policy of the settings, under these faults; from the beginning, or from a
    /// checkpoint.
    ///
    /// # Errors
    /// If a backend cannot be had, a node cannot be made or the checkpoint does not fit; if a trace is asked of a policy that
    /// has none. A node that fails later, a broken invariant and a replayed run that differs from its trace are the
    /// story's [`failure`](Story::failure), so that the report is written all the same.
    pub fn run(&self, faults: FaultSchedule, trace: Trace, keeping: Keeping) -> Result<Ending> {
        let backends = Backends::open(self.task)?;
        self.workshop.inform(self.averaging)?;
        if self.averaging.policy == Policy::Zeros {
            if self.task.backend.len() > 1 {
                bail!("--policy zeros has one model, which one backend computes: name one with --backend");
            }
            if keeping.keeper.is_some() || keeping.saved.is_some() {
                bail!("--policy zeros has no nodes to be kept: leave out --checkpoint and --resume");
            }
            if self.network.trace.is_some() || self.network.replay.is_some() || self.network.driver == Driver::Threads {
                bail!("--policy zeros exchanges no frames: leave out --trace, --replay and --driver threads");
            }
            let mut outages = self.outages();
            if faults.faults.is_empty() {
                outages.outages.clear();
            }
            return backends.with(Zeros { fleet: self, outages: &outages });
        }
        self.train(&backends, faults, trace, keeping)
    }

    fn train(&self, backends: &Backends, faults: FaultSchedule, trace: Trace, keeping: Keeping) -> Result<Ending> {
        let Keeping { mut keeper, saved } = keeping;
        if self.network.driver == Driver::Threads && (keeper.is_some() || saved.is_some()) {
            bail!("checkpoints are of virtual time: leave out --checkpoint and --resume, or use --driver virtual");
        }
        let crashes = crashes(&faults)?;
        let nodes: Vec<NodeId> = (0..self.averaging.nodes).map(NodeId).collect();
        let last = self.task.iterations;
        let agenda = self.agenda();
        let evaluator = Evaluator::new(backends.judge(self.workshop)?, self.averaging.nodes, agenda);
        let title = format!(
            "{} on {} with {}, {} nodes",
            self.workshop.model.name,
            self.workshop.data,
            self.workshop.method(),
            nodes.len()
        );
        let story =
            blank(title, self.settings.to_owned(), self.task.seed, self.averaging.nodes, self.output.target_accuracy);
        let display = Display::new(self.averaging.nodes, last, self.output.quiet);
        let replay = format!("lossy --config run.toml, with run.toml:\n{}", self.settings);
        let mut watch = Watch::new(story, evaluator, display, Arc::clone(&self.stop), replay.clone())
            .waiting(self.averaging.min_members.is_some())
            .stopping(self.output.stop_at_accuracy);
        let options = NetworkOptions {
            link: self.network.link(),
            sites: self.network.sites(self.averaging.nodes, &self.averaging.sharing.sites),
            reports: self.network.reports,
            faults,
            ..NetworkOptions::new(self.averaging.nodes, Seed(self.task.seed).derive("network", 0))
        };
        let again = |node: NodeId| Ok((node, Witness::new(backends.trainer(self.workshop, node.0)?)));
        let mut starts = Starts {
            first: BTreeMap::new(),
            again: crashes.into_iter().map(again).collect::<Result<_>>()?,
            averaging: self.averaging.clone(),
            run: RunId(self.task.seed),
            schedules: nodes.iter().map(|&node| self.schedule(node)).collect(),
            disks: Disks::default(),
            clock: None,
        };
        if let Some(saved) = saved.as_ref().filter(|saved| saved.manifest.run.nodes == self.averaging.nodes) {
            let Resumed { snapshot, parts, watch: state } = self.resume(backends, saved)?;
            watch.resume(state, parts.iter().filter_map(|parts| parts.process.as_ref()), replay)?;
            watch.story.resumed = Some(saved.describe());
            let disks = snapshot.disks();
            starts.disks = disks.clone();
            let start = move |node, start, _, now| starts.start(node, start, now);
            let simulation = Simulation::resume(SimulationOptions::new(options), trace, snapshot, parts, start);
            let simulation = simulation.with_context(|| format!("the checkpoint {}", saved.path.display()))?.on(&disks);
            if let Some(keeper) = &mut keeper {
                keeper.go_on(watch.furthest());
            }
            return simulate(simulation, watch, keeper);
        }
        starts.first = match &saved {
            Some(saved) => {
                let (participants, iteration) = self.reshape(backends, saved)?;
                watch.begin_at(iteration);
                watch.story.resumed = Some(saved.describe());
                if let Some(keeper) = &mut keeper {
                    keeper.go_on(iteration);
                }
                participants
            }
            None => {
                let make = |&node: &NodeId| {
                    let trainer = backends.trainer(self.workshop, node.0)?;
                    Ok((node, self.participant(trainer, node)?))
                };
                nodes.iter().map(make).collect::<Result<_>>()?
            }
        };
        let disks = starts.disks.clone();
        match self.network.driver {
            Driver::Virtual => {
                let start = move |node, start, _, now| starts.start(node, start, now);
                let simulation = Simulation::new(SimulationOptions::new(options), trace, start).on(&disks);
                simulate(simulation, watch, keeper)
            }
            Driver::Threads => run_threads(starts, options, watch, self.averaging.stall_budget),
        }
    }

    /// When models are judged.
    pub(super) fn agenda(&self) -> Agenda {
        Agenda::of(self.output, self.task.iterations)
    }

    /// How long `node` trains, and how fast.
    pub(super) fn schedule(&self, node: NodeId) -> Schedule {
        Schedule { iterations: self.task.iterations, step: self.network.step_of(node) }
    }

    /// A node that begins with `trainer`.
    pub(super) fn participant(&self, mut trainer: Survivor, node: NodeId) -> Result<Trained> {
        self.averaging.check_statistics(trainer.model()?.running.len())?;
        let settings = self.averaging.cluster(RunId(self.task.seed), node, Incarnation(1))?;
        let training = Witness::new(trainer);
        let policy = self.averaging.policy(node)?;
        let participant = Participant::new(settings, Instant::ORIGIN, training, policy, self.schedule(node));
        Ok(self.averaging.shared(participant, Instant::ORIGIN, node))
    }
}

/// The nodes that crash, as often as they do.
fn crashes(faults: &FaultSchedule) -> Result<Vec<NodeId>> {
    let mut nodes = Vec::new();
    for fault in &faults.faults {
        if let Fault::Crash { node, restart, .. } = fault {
            if *restart == Instant::FAR {
                bail!(
                    "{node} is never started again, and the run would wait for it: say when, as in `crash {node} 1000 2000`"
                );
            }
            nodes.push(*node);
        }
    }
    Ok(nodes)
}

/// The processes that nodes are started with: at first, and after crashes with nothing but what their disks hold.
struct Starts {
    first: BTreeMap<NodeId, Trained>,
    /// One for each restart.
    again: Vec<(NodeId, Witness)>,
    averaging: AveragingSettings,
    run: RunId,
    /// In the order of the nodes.
    schedules: Vec<Schedule>,
    disks: Disks,
    /// Of real time.
    clock: Option<Clock>,
}

impl Starts {
    /// The process of a node that has been started so often before.
    fn start(&mut self, node: NodeId, starts: u32, now: Instant) -> Trained {
        let by = |participant: Trained, clock: &Option<Clock>| match clock {
            Some(clock) => participant.by(Arc::clone(clock)),
            None => participant,
        };
        if let Some(participant) = self.first.remove(&node) {
            return by(participant, &self.clock);
        }
        let index = self.again.iter().position(|&(whose, _)| whose == node);
        let (_, training) = self.again.swap_remove(index.expect("a trainer for each scheduled restart"));
        let persisted = Persisted::read(&mut self.disks.of(node)).expect("memory can be read");
        let incarnation = Incarnation(1 + u64::from(starts));
        let settings = self.averaging.cluster(self.run, node, incarnation).expect("the first start had the same");
        let policy = self.averaging.policy(node).expect("the first start had the same");
        let schedule = self.schedules[node.0 as usize];
        let participant = Participant::recover(settings, now, persisted, training, policy, schedule);
        by(self.averaging.shared(participant, now, node), &self.clock)
    }
}

/// Virtual time: the same settings give the same run, byte for byte.
fn simulate<J>(mut simulation: Simulation<Trained>, mut watch: Watch<J>, mut keeper: Option<Keeper>) -> Result<Ending>
where
    J: Judge,
{
    let mut over = false;
    let nodes = watch.nodes();
    while !watch.is_over() {
        let ended = simulation.run(Instant::FAR, |seen| {
            let online = !seen.network.offline(seen.node);
            let (now, trace) = (seen.now, seen.trace);
            let line = |record: &Record| trace.line(now, format_args!("{record}"));
            let flow = watch.observe(now, seen.node, seen.process, online, line);
            // A recording that was interrupted ends here, and so does what repeats it.
            over = trace.is_over();
            let due = keeper.as_mut().is_some_and(|keeper| keeper.is_due(watch.furthest()));
            // Of a crashed node there is nothing to be kept: the checkpoint is written once all are back.
            let due = due && (0..nodes).all(|node| !seen.network.dead(NodeId(node)));
            if due || over { ControlFlow::Break(()) } else { flow }
        });
        if over || ended != Ended::Observer {
            break;
        }
        let all = simulation.processes().count() == nodes as usize;
        if let Some(keeper) = keeper.as_mut().filter(|_| !watch.is_over() && all) {
            keeper.keep(&mut simulation, &watch);
        }
    }
    if let Some(keeper) = &mut keeper {
        // What has failed is not worth keeping.
        if !watch.has_failed() {
            keeper.keep(&mut simulation, &watch);
        }
        watch.story.kept = keeper.kept.clone();
    }
    let (trace, _) = simulation.end();
    watch.story.interrupted |= trace.is_over();
    let (mut story, model) = watch.end();
    match trace.finish() {
        Ok(hash) => story.trace_hash = Some(hash.to_string()),
        Err(error) => {
            story.failure.get_or_insert(error.to_string());
        }
    }
    Ok((story, model))
}

/// Real threads and real time; says so where steps take longer than nodes wait for each other.
fn run_threads<J>(mut starts: Starts, options: NetworkOptions, watch: Watch<J>, budget: Duration) -> Result<Ending>
where
    J: Judge + Send,
{
    // Who is offline is a matter of the schedule and the clock.
    let mut changes = options.faults.events().into_iter().peekable();
    let connectivity =
        Mutex::new((Connectivity::new(options.faults.clone()), move |connectivity: &mut Connectivity, now| {
            while let Some((_, change)) = changes.next_if(|(at, _)| *at <= now) {
                connectivity.apply(&change);
            }
        }));
    let network = LossyNetwork::new(options);
    starts.clock = Some(clock());
    let nodes: Vec<NodeId> = starts.first.keys().copied().collect();
    let disks = starts.disks.clone();
    let starts = Mutex::new(starts);
    let watch = Mutex::new(watch);
    let locked = "no thread panics while it holds this lock";
    let until = Instant::ORIGIN + Duration::from_secs(7 * 24 * 3600);
    threads::run_with(
        &network,
        &nodes,
        until,
        |node| Box::new(disks.of(node)),
        |node, start, _, now| starts.lock().expect(locked).start(node, start, now),
        |now, node, process| {
            let online = {
                let (connectivity, advance) = &mut *connectivity.lock().expect(locked);
                advance(connectivity, now);
                !connectivity.offline(node)
            };
            watch.lock().expect(locked).observe(now, node, process, online, |_| {})
        },
    )
    .context("the lossy network")?;
    let (story, model) = watch.into_inner().expect(locked).end();
    let iterations = story.nodes.iter().map(|node| node.iterations).max().unwrap_or(0).max(1);
    let step = story.virtual_seconds / iterations as f64;
    if step > budget.as_secs_f64() {
        announce(&format!(
            "an iteration took {:.0} ms on average, more than a lost node may stall the others: nodes that compute \
             longer than others are taken for lost; choose --stall-budget {:.0}ms or more, smaller batches or fewer nodes",
            1e3 * step,
            2e3 * step
        ));
    }
    Ok((story, model))
}
