//! Fleets that train a toy problem under mixed faults: all safety invariants hold, and once faults stop
//! everybody averages again in time.
//!
//! `KRONFLEET_SEED=7 cargo test -p kronfleet-lossy --test fleet` runs one seed alone and prints what happened.

mod quadratic;

use kronfleet_conformance::invariants::reproducibility::same_twice;
use kronfleet_conformance::invariants::{Checker, Summary};
use kronfleet_core::cluster::{Budget, Incarnation, Mode, Occurrence, Persisted, RunId, Settings};
use kronfleet_core::participant::{Participant, Schedule};
use kronfleet_core::policy::{Periodic, Rejoin};
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::fault::{Fault, FaultSchedule};
use kronfleet_lossy::link::LinkOptions;
use kronfleet_lossy::network::NetworkOptions;
use kronfleet_lossy::simulation::{Ended, Simulation, SimulationOptions};
use kronfleet_lossy::storage::Disks;
use kronfleet_lossy::trace::{Trace, TraceHash};
use quadratic::{Quadratic, Witness};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

const BUDGET: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(20);

/// Everything that a seed decides.
#[derive(Debug)]
struct Story {
    seed: u64,
    nodes: u32,
    values: usize,
    chunk: usize,
    interval: u64,
    rejoin: Rejoin,
    mode: Mode,
    poisoned: Option<(NodeId, u64)>,
    options: SimulationOptions,
    /// When the last fault is over.
    calm: Instant,
}

impl Story {
    fn new(seed: u64, mode: Mode) -> Self {
        let mut random = Seed(seed).derive("story", 0).random();
        let nodes = 3 + random.below(4) as u32;
        let latency = Duration::from_micros(100 + random.below(5_000));
        let mut network = NetworkOptions::new(nodes, Seed(seed));
        network.link = LinkOptions {
            loss: 0.1 * random.uniform(),
            duplicate: 0.1 * random.uniform(),
            reorder: 0.3 * random.uniform(),
            hold: latency * 2,
            latency,
            jitter: latency.mul_f64(random.uniform()),
            bandwidth: random.chance(0.5).then(|| 500_000 + random.below(5_000_000)),
            capacity: 4000 + random.below(100_000) as usize,
            max_frame: 256 + random.below(1_200) as usize,
        };
        network.reports = random.chance(0.3);
        network.faults = faults(&mut random, nodes);
        let calm = network.faults.end();
        let mut options = SimulationOptions::new(network);
        for node in (0..nodes).map(NodeId) {
            options.slowness.insert(node, 1.0 + 0.5 * random.uniform());
        }
        let poisoned = random.chance(0.2).then(|| (NodeId(random.below(nodes.into()) as u32), 20 + random.below(60)));
        Self {
            seed,
            nodes,
            values: 1 + random.below(60) as usize,
            chunk: 3 + random.below(20) as usize,
            interval: 2 + random.below(5),
            mode,
            rejoin: [Rejoin::FullWeight, Rejoin::ByProgress, Rejoin::HealFirst][random.below(3) as usize],
            poisoned,
            options,
            calm,
        }
    }

    fn start(
        &self,
        witness: &Witness,
        disks: &Disks,
    ) -> impl FnMut(NodeId, u32, Option<Fleet>, Instant) -> Fleet + 'static {
        let (nodes, values, chunk, seed) = (self.nodes, self.values, self.chunk, self.seed);
        let (interval, poisoned, witness) = (self.interval, self.poisoned, witness.clone());
        let (rejoin, mode, disks) = (self.rejoin, self.mode, disks.clone());
        // All train until everything has been calm for long enough to be judged.
        let iterations = self.calm.since(Instant::ORIGIN).as_millis() as u64 / STEP.as_millis() as u64 + 400;
        move |node, starts, _, now| {
            let peers = (0..nodes).map(NodeId).collect();
            let incarnation = Incarnation(u64::from(starts) + 1);
            let budget = Budget::new(BUDGET).unwrap();
            let mut settings = Settings::new(RunId(seed), node, incarnation, peers, budget);
            settings.chunk = chunk;
            settings.mode = mode;
            let persisted = Persisted::read(&mut disks.of(node)).unwrap();
            let poisoned = poisoned.filter(|(who, _)| *who == node && starts == 0).map(|(_, at)| at);
            let training = Quadratic::new(seed, node, values, poisoned, witness.clone());
            let mut policy = Periodic::new(interval);
            policy.rejoin = rejoin;
            let schedule = Schedule { iterations, step: STEP };
            Participant::recover(settings, now, persisted, training, Box::new(policy), schedule)
        }
    }
}

type Fleet = Participant<Quadratic, f32>;

/// One to five faults within three seconds.
fn faults(random: &mut Random, nodes: u32) -> FaultSchedule {
    let mut schedule = FaultSchedule::default();
    for _ in 0..1 + random.below(5) {
        let from = Instant::from_nanos(random.below(2_500_000_000));
        let until = from + Duration::from_millis(10 + random.below(1_500));
        let node = NodeId(random.below(nodes.into()) as u32);
        let mut side: BTreeSet<NodeId> = (0..nodes).map(NodeId).filter(|_| random.chance(0.5)).collect();
        side.insert(node);
        let rest: BTreeSet<NodeId> = (0..nodes).map(NodeId).filter(|node| !side.contains(node)).collect();
        match random.below(5) {
            // A late joiner.
            4 => schedule.faults.push(Fault::Crash { node, at: Instant::ORIGIN, restart: until }),
            0 => schedule.faults.push(Fault::Outage { node, from, until }),
            1 => schedule.faults.push(Fault::Crash { node, at: from, restart: until }),
            _ if rest.is_empty() => schedule.faults.push(Fault::Outage { node, from, until }),
            2 => schedule.faults.push(Fault::Cut { sources: side, targets: rest, from, until }),
            _ => schedule.partition(side, rest, from, until),
        }
    }
    schedule
}

/// What a run came to.
struct Outcome {
    hash: TraceHash,
    summary: Summary,
    /// For each node, how long after the faults its first commit came.
    recovered: BTreeMap<NodeId, Duration>,
    ended: Instant,
}

fn run(story: &Story, verbose: bool) -> Result<Outcome, String> {
    let replay = format!("KRONFLEET_SEED={} cargo test -p kronfleet-lossy --test fleet", story.seed);
    let mut checker = Checker::new(&replay);
    let witness = Witness::default();
    let disks = Disks::default();
    let mut simulation =
        Simulation::new(story.options.clone(), Trace::hashed(format!("{story:?}")), story.start(&witness, &disks))
            .on(&disks);
    let mut recovered = BTreeMap::new();
    let mut broken = None;
    let deadline = story.calm + Duration::from_secs(60);
    let mut over: BTreeSet<NodeId> = BTreeSet::new();
    let ended = simulation.run(deadline, |seen| {
        for (node, contribution) in witness.lock().unwrap().drain(..) {
            checker.contribution(node, &contribution);
        }
        let (trace, node) = (seen.trace, seen.node);
        let verdict = checker.node(seen.process.node_mut(), |record| {
            trace.line(record.at, format_args!("{record}"));
            if verbose {
                println!("{record}");
            }
            if let Occurrence::Committed { .. } = record.what
                && record.at > story.calm
            {
                recovered.entry(node).or_insert(record.at.since(story.calm));
            }
        });
        if let Err(violation) = verdict {
            broken = Some(violation.to_string());
            return ControlFlow::Break(());
        }
        // A node that crashes later is not over; none does once it is calm.
        if seen.process.is_over() && seen.now > story.calm {
            over.insert(node);
        }
        if over.len() == story.nodes as usize { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if let Some(broken) = broken {
        return Err(broken);
    }
    if ended != Ended::Observer {
        let waiting: Vec<_> = simulation.processes().filter(|(node, _)| !over.contains(node)).collect();
        let waiting: Vec<_> =
            waiting.iter().map(|(node, process)| format!("{node} at {}", process.iteration())).collect();
        return Err(format!("not over after {deadline}: {}\n  again: {replay}", waiting.join(", ")));
    }
    let ended = simulation.now();
    let (trace, _) = simulation.end();
    let hash = trace.finish().map_err(|error| error.to_string())?;
    let summary = checker.finish().map_err(|violation| violation.to_string())?;
    Ok(Outcome { hash, summary, recovered, ended })
}

/// Judges one seed; answers what it came to.
fn judge(seed: u64, mode: Mode, verbose: bool) -> Result<Outcome, String> {
    let story = Story::new(seed, mode);
    if verbose {
        println!("{story:#?}");
    }
    let outcome = run(&story, verbose)?;
    // One reduction of these few values, with retransmissions and steps of the slowest node until it is ready.
    let reduction = STEP.mul_f64(1.5) * story.interval as u32 + Duration::from_millis(500);
    let bound = 3 * BUDGET + reduction;
    let last = outcome.recovered.values().max();
    if outcome.recovered.len() < story.nodes as usize || last.is_none_or(|last| *last > bound) {
        let after = &outcome.recovered;
        return Err(format!("calm since {}, first commits of the nodes {after:?} later, bound {bound:?}", story.calm));
    }
    Ok(outcome)
}

#[test]
fn all_invariants_hold_under_mixed_faults_and_rounds_come_back() {
    if let Ok(seed) = std::env::var("KRONFLEET_SEED") {
        let outcome = judge(seed.parse().expect("a seed is a number"), Mode::Available, true)
            .unwrap_or_else(|error| panic!("{error}"));
        println!(
            "{}\ntrace_hash {} recovered {:?} ended {}",
            outcome.summary, outcome.hash, outcome.recovered, outcome.ended
        );
        return;
    }
    let mut total = Summary::default();
    let mut failures = Vec::new();
    let mut slowest = Duration::ZERO;
    let seeds = 200;
    for seed in 0..seeds {
        match judge(seed, Mode::Available, false) {
            Ok(outcome) => {
                total += outcome.summary;
                slowest = slowest.max(*outcome.recovered.values().max().unwrap());
            }
            Err(error) => failures.push(format!("seed {seed}: {error}")),
        }
    }
    println!("{total}; everybody committed within {slowest:?} after the faults");
    assert!(failures.is_empty(), "{} of {seeds} seeds:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(total.recomputed, total.commits, "every average is small enough to be recomputed");
    assert!(total.retried > 0 && total.forks > 0 && total.merges > 0 && total.healed > 0, "{total}");
}

/// `KRONFLEET_STRICT_SEED=7 cargo test -p kronfleet-lossy --test fleet strict` runs one seed alone.
#[test]
fn strict_mode_has_one_history_and_rounds_come_back() {
    let (seeds, verbose) = match std::env::var("KRONFLEET_STRICT_SEED") {
        Ok(seed) => (seed.parse().expect("a seed is a number")..u64::MAX, true),
        Err(_) => (0..60, false),
    };
    let mut failures = Vec::new();
    let mut total = Summary::default();
    for seed in seeds.take(if verbose { 1 } else { 60 }) {
        match judge(seed, Mode::Strict, verbose) {
            Ok(outcome) => {
                total.commits += outcome.summary.commits;
                total.forks += outcome.summary.forks;
                total.merges += outcome.summary.merges;
            }
            Err(error) => failures.push(format!("seed {seed}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{} seeds:\n{}", failures.len(), failures.join("\n"));
    assert!(total.commits > 0 && total.forks == 0 && total.merges == 0, "{total}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 14, 15] {
        let story = Story::new(seed, Mode::Available);
        let verdict = same_twice(&format!("seed {seed}"), || {
            run(&story, false).map_or_else(|error| error, |outcome| outcome.hash.to_string())
        });
        verdict.unwrap();
    }
}
