//! Runs a schedule and judges the run.
//!
//! - Every safety invariant of `kronfleet-conformance`, on everything that every node records.
//! - Liveness, as every schedule's faults stop: all nodes that are up commit within three budgets and one reduction after
//!   the last fault, and all of them finish; a former self that came back learns that it is one; nobody spins; nobody is
//!   left with nothing where others that have done their iterations hold an average.
//! - Where processes go on from checkpoints, the same run without that: the traces are the same, byte for byte.
//! - With [`Options::twice`], the same run again: the same.

use crate::farewell::Farewells;
use crate::machine::{Fleet, Machine, is_progress, patience};
use crate::schedule::{Fault, Mode, Policy, Rejoin, Run, Schedule};
use crate::training::{self, Witness};
use kronfleet_conformance::invariants::memory::Memory;
use kronfleet_conformance::invariants::{Checker, Summary};
use kronfleet_core::cluster::CertificateId;
use kronfleet_core::seed::Seed;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::fault as wire;
use kronfleet_lossy::network::NetworkOptions;
use kronfleet_lossy::simulation::{Ended, Simulation, SimulationOptions};
use kronfleet_lossy::trace::{Trace, TraceHash};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How a schedule is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Run it twice and compare the traces.
    pub twice: bool,
    /// Print every record.
    pub verbose: bool,
}

/// What a run came to in which nothing was broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What the checker counted.
    pub summary: Summary,
    /// The hash of the trace.
    pub hash: TraceHash,
    /// How long after the last fault the last node committed; zero if no node had to.
    pub recovered: Duration,
    /// Virtual time that passed.
    pub ended: Instant,
    /// The most bytes that a node held for others, see [`limit`].
    pub held: usize,
}

/// What a run broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The invariant.
    pub law: String,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

/// How often a node may be woken within [`WHILE`]; one that waits for nothing, in vain, is woken every microsecond.
const OFTEN: u32 = 2000;
const WHILE: Duration = Duration::from_millis(10);

/// The name under which liveness stands beside the invariants.
pub const LIVENESS: &str = "liveness";
/// The same for a node that panics.
pub const PANIC: &str = "panic";

/// Runs `schedule` and judges it.
///
/// # Errors
/// The first invariant that was broken.
pub fn play(schedule: &Schedule, options: Options) -> Result<Outcome, Failure> {
    let outcome = once(schedule, options.verbose, true)?;
    let compare = |restores: bool, what: &str| {
        let again = once(schedule, false, restores)?;
        if again.hash == outcome.hash {
            return Ok(());
        }
        let what = format!("{what} have traces {} and {}", outcome.hash, again.hash);
        Err(Failure { law: "reproducibility (invariant 11)".into(), what })
    };
    if schedule.faults.iter().any(|fault| matches!(fault, Fault::Restore { .. })) {
        compare(false, "runs with and without restored checkpoints")?;
    }
    if options.twice {
        compare(true, "two equal runs")?;
    }
    Ok(outcome)
}

/// The same; a panic of the node's code is a failure of the run, too.
///
/// # Errors
/// The first invariant that was broken.
pub fn play_caught(schedule: &Schedule, options: Options) -> Result<Outcome, Failure> {
    let run = std::panic::AssertUnwindSafe(|| play(schedule, options));
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let what = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(Failure { law: PANIC.into(), what: what.into() })
    })
}

/// How long after the last fault every node has committed, at the latest.
pub fn bound(schedule: &Schedule) -> Duration {
    let run = &schedule.run;
    // One reduction of a few values with retransmissions, and the steps until the next averaging point.
    let reduction = run.step * (run.interval as u32 + 1) + Duration::from_millis(500);
    3 * run.budget + reduction + yielded(run)
}

/// For how long a node may leave decisions to others: eight checks in a row.
fn yielded(run: &Run) -> Duration {
    if run.policy == Policy::Fda { 8 * (run.step * run.interval as u32 + patience(run)) } else { Duration::ZERO }
}

/// Bytes that a node may hold for others.
///
/// For every peer a quarter of a window of frames, the messages of one attempt in which it sends and receives everything, and some
/// that only say something; and what it writes to its disk.
pub fn limit(schedule: &Schedule) -> usize {
    let run = &schedule.run;
    let values = 4 * run.values as usize + 64;
    let peers = run.nodes as usize;
    peers * (16 * run.link.max_frame + 2 * values) + 4 * values
}

/// What the simulator itself sees to.
fn network(schedule: &Schedule) -> NetworkOptions {
    let run = &schedule.run;
    let mut network = NetworkOptions::new(run.nodes, Seed(run.seed));
    network.link = run.link.clone();
    network.reports = run.reports;
    let faults = &mut network.faults;
    for fault in &schedule.faults {
        match fault.clone() {
            Fault::Crash { node, at, back } => {
                faults.faults.push(wire::Fault::Crash { node, at, restart: back.unwrap_or(Instant::FAR) });
            }
            Fault::Outage { node, from, until } => faults.faults.push(wire::Fault::Outage { node, from, until }),
            Fault::Flap { node, period, from, until } => {
                let mut begins = from;
                while begins < until {
                    let ends = until.min(begins + period / 2);
                    faults.faults.push(wire::Fault::Outage { node, from: begins, until: ends });
                    begins += period;
                }
            }
            Fault::Cut { sources, targets, from, until } => {
                faults.faults.push(wire::Fault::Cut { sources, targets, from, until });
            }
            Fault::Partition { one, other, from, until } => faults.partition(one, other, from, until),
            Fault::Link { sources, targets, link, from, until } => {
                faults.faults.push(wire::Fault::Link { sources, targets, options: link, from, until });
            }
            Fault::Clog { sources, targets, from, until } => {
                faults.faults.push(wire::Fault::Clog { sources, targets, from, until });
            }
            // Machines see to these.
            _ => {}
        }
    }
    network
}

fn once(schedule: &Schedule, verbose: bool, restores: bool) -> Result<Outcome, Failure> {
    let calm = schedule.calm();
    let within = bound(schedule);
    let enough = calm + within;
    // Steps under way, a last round, and goodbyes.
    let deadline = enough + 4 * schedule.run.budget + schedule.run.step * 4;
    let fleet = Fleet {
        run: Arc::new(schedule.run.clone()),
        faults: schedule.faults.clone().into(),
        witness: Witness::default(),
        enough,
        restores,
    };
    let witness = fleet.witness.clone();
    let start = move |node: NodeId, _: u32, crashed: Option<Machine>, now: Instant| match crashed {
        Some(mut machine) => {
            machine.restart(now);
            machine
        }
        None => Machine::new(&fleet, node, now),
    };
    let options = SimulationOptions::new(network(schedule));
    let mut simulation = Simulation::new(options, Trace::hashed(schedule.to_string()), start);
    let mut checker = Checker::new("the schedule below");
    let mut broken = None;
    let memory = Memory { limit: limit(schedule) };
    let mut most = 0;
    let mut recovered = BTreeMap::new();
    let mut over = vec![false; schedule.run.nodes as usize];
    let mut trains = vec![true; schedule.run.nodes as usize];
    let mut heard = Vec::new();
    let mut farewells = Farewells::default();
    let mut wakes = vec![(Instant::ORIGIN, 0); schedule.run.nodes as usize];
    let ended = simulation.run(deadline, |seen| {
        let (machine, now, node, trace) = (seen.process, seen.now, seen.node, seen.trace);
        let (since, times) = &mut wakes[node.0 as usize];
        *times += 1;
        if now.since(*since) >= WHILE {
            (*since, *times) = (now, 0);
        } else if *times > OFTEN {
            let what = format!("{node} was woken {times} times within {WHILE:?}, at {now}");
            broken = Some(Failure { law: LIVENESS.into(), what });
            return ControlFlow::Break(());
        }
        let seen = witness.take();
        for (who, contribution) in seen.contributions {
            checker.contribution(who, &contribution);
        }
        let owned = seen.owners.iter().try_for_each(|&(attempt, piece, owner)| checker.owns(attempt, piece, owner));
        let heeds = machine.heeds();
        for member in machine.nodes_mut() {
            let verdict = checker.node(member, |record| {
                trace.line(now, format_args!("{record}"));
                if verbose {
                    println!("{now} {record}");
                }
                if now > calm && is_progress(record) {
                    recovered.entry(node).or_insert(now.since(calm));
                }
                if heeds {
                    heard.push(record.clone());
                }
                farewells.record(now, record);
            });
            farewells.look(now, member);
            let held = member.held();
            most = most.max(held);
            if let Err(violation) = verdict.and(owned.clone()).and(memory.holds(member.id(), held)) {
                broken = Some(Failure { law: violation.law.into(), what: violation.what });
                return ControlFlow::Break(());
            }
        }
        if let Some(what) = machine.broken() {
            broken = Some(Failure { law: "storage (invariant 9)".into(), what: format!("{node}: {what}") });
            return ControlFlow::Break(());
        }
        for record in heard.drain(..) {
            machine.heed(now, &record);
        }
        if now < enough {
            trains[node.0 as usize] = machine.trains();
        }
        over[node.0 as usize] = now >= enough && machine.is_over();
        if over.iter().all(|over| *over) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if let Some(failure) = broken {
        return Err(failure);
    }
    let now = simulation.now();
    let trains = |node: NodeId| trains[node.0 as usize];
    let live = simulation.processes().filter(|&(node, machine)| machine.is_live() && trains(node));
    let live: Vec<NodeId> = live.map(|(node, _)| node).collect();
    let run = &schedule.run;
    let majority = if run.mode == Mode::Strict { run.nodes as usize / 2 + 1 } else { 0 };
    let needed = (run.minimum as usize).max(2).max(majority);
    let liveness = |what: String| Failure { law: LIVENESS.into(), what };
    let lagging = simulation.processes().filter(|(_, machine)| !machine.is_over());
    let lagging: Vec<String> = lagging.map(|(node, machine)| format!("{node} {}", situation(machine))).collect();
    // Too few nodes may wait for those that are missing, if they are told to.
    let may_wait = run.wait && live.len() < needed;
    if ended != Ended::Observer && !lagging.is_empty() && !may_wait {
        return Err(liveness(format!("calm since {calm}, not over at {deadline}: {}", lagging.join(", "))));
    }
    // What nodes with a wrong shape have agreed on nobody else can take over. If they are too few for a round, those that
    // have to take it over before they count have none either.
    let fits = |node: NodeId| simulation.processes().any(|(id, machine)| id == node && fits(machine, run));
    let misfits = live.iter().filter(|node| !fits(**node)).count();
    let misled = run.rejoin == Rejoin::HealFirst && (1..needed).contains(&misfits);
    // Who sits out may do so for longer.
    if live.len() >= needed && run.quarantine == 0 && !misled {
        let late = live.iter().filter(|node| recovered.get(node).is_none_or(|after| *after > within));
        let late: Vec<String> = late
            .map(|node| match recovered.get(node) {
                Some(after) => format!("{node} after {after:?}"),
                None => format!("{node} never"),
            })
            .collect();
        if !late.is_empty() {
            return Err(liveness(format!(
                "calm since {calm}, every node should commit within {within:?}: {}",
                late.join(", ")
            )));
        }
        for (node, machine) in simulation.processes() {
            if let Some(wakes) = machine.unaware()
                && now.since(wakes.max(calm)) > within
            {
                return Err(liveness(format!("the former self of {node}, awake since {wakes}, was never told")));
            }
        }
    }
    if run.quarantine == 0
        && let Some(what) = left_with_nothing(simulation.processes(), trains, run)
    {
        return Err(liveness(what));
    }
    let nodes = simulation.processes().filter(|(_, machine)| machine.is_live());
    let nodes: Vec<_> = nodes.filter_map(|(_, machine)| Some(machine.participant()?.node())).collect();
    // Links are no worse than at the beginning since all was calm, so that what was said a budget ago has arrived.
    if let Some(what) = farewells.untold(calm + 2 * run.budget, &nodes) {
        return Err(liveness(what));
    }
    let recovered = live.iter().filter_map(|node| recovered.get(node)).max().copied().unwrap_or_default();
    let (trace, _) = simulation.end();
    let hash = trace.finish().map_err(|error| liveness(error.to_string()))?;
    let summary = checker.finish().map_err(|violation| Failure { law: violation.law.into(), what: violation.what })?;
    Ok(Outcome { summary, hash, recovered, ended: now, held: most })
}

/// Whether what a node holds of others, if anything, has the shape of what a model of such a run contributes.
fn fits(machine: &Machine, run: &Run) -> bool {
    let state = machine.participant().and_then(|participant| participant.node().last_state());
    state.is_none_or(|state| training::fits(run, state))
}

/// A node that has neither been part of an average nor been healed, although others stopped training with one.
fn left_with_nothing<'a>(
    machines: impl Iterator<Item = (NodeId, &'a Machine)>,
    trains: impl Fn(NodeId) -> bool,
    run: &Run,
) -> Option<String> {
    let (mut nothing, mut holder) = (None, None);
    for (node, machine) in machines.filter(|(_, machine)| machine.is_live()) {
        let Some(participant) = machine.participant() else { continue };
        let last = participant.node().last();
        match (trains(node), last == CertificateId::default()) {
            (true, true) => nothing = nothing.or(Some(node)),
            (false, false) if fits(machine, run) => holder = holder.or(Some((node, last))),
            _ => {}
        }
    }
    let (node, (holder, last)) = nothing.zip(holder)?;
    Some(format!("{node} was never healed, although {holder} was there and held {last}"))
}

fn situation(machine: &Machine) -> String {
    match machine.participant() {
        Some(participant) if participant.is_waiting() => "waits for a round".into(),
        Some(participant) if participant.is_finished() => "is finished, but waits for others".into(),
        Some(participant) => format!("trains at iteration {}", participant.iteration()),
        None => "is to be started again".into(),
    }
}
