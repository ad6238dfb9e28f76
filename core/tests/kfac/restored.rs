//! Members that share every step, stopped anywhere and gone on with from what was kept of them.

use crate::dense::Device;
use crate::elastic::{Averages, Method, PATIENCE, SCHEDULE, Story};
use kronfleet_core::backend::Backend;
use kronfleet_core::cluster::Node;
use kronfleet_core::participant::{Participant, ParticipantState, SharingReport, Step};
use kronfleet_core::preconditioner::{GradientMethod, MuonOptions, ShampooOptions, SoapOptions};
use kronfleet_core::seed::Seed;
use kronfleet_core::time::Instant;
use kronfleet_core::trainer::{Checkpoint, Trainer};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::simulation::{Ended, Parts, Simulation, SimulationOptions};
use kronfleet_lossy::trace::Trace;
use std::ops::ControlFlow;

type Member = Participant<Trainer<Device>, f64>;

/// What a run comes to.
#[derive(Debug, PartialEq)]
struct End {
    trace: String,
    events: u64,
    /// The events at which steps were taken back.
    taken_back: Vec<u64>,
    /// Of every node: its report, its parameters, its iteration.
    nodes: Vec<(Option<SharingReport>, Vec<f64>, u64)>,
}

/// What was under way where runs were stopped.
#[derive(Debug, Default)]
struct Met {
    /// Steps whose letters were out, by stage.
    stages: [u64; 4],
    /// Letters that had not left, and steps that could be taken back.
    letters: u64,
    retractable: u64,
    /// Nodes that waited for others.
    waiting: u64,
    dead: u64,
    /// Stops right before a step was taken back.
    taken_back: u64,
}

impl Met {
    fn note(&mut self, state: &Checkpoint<f64>) {
        let shared = state.shared.as_ref().expect("steps are shared");
        self.letters += u64::from(shared.letters.is_some());
        self.retractable += u64::from(shared.before.is_some());
        let part = state.preconditioner.shared.as_ref().expect("work is divided");
        self.stages[part.stage as usize] += 1;
    }
}

/// The same run as made anew from bytes and copies.
fn restored(story: &Story, mut simulation: Simulation<Member>, met: &mut Met) -> Simulation<Member> {
    let snapshot = simulation.snapshot();
    let mut parts = Vec::new();
    for kept in simulation.parts() {
        let Some(process) = kept.process else {
            met.dead += 1;
            parts.push(Parts { process: None, crashed: None, task: None });
            continue;
        };
        met.waiting += u64::from(process.is_waiting());
        let bytes = postcard::to_allocvec(&process.state()).expect("memory");
        let state: ParticipantState<Node<f64>, f64> = postcard::from_bytes(&bytes).expect("it was just encoded");
        let result = kept.task.as_ref().map(|task| task.result().expect("it was performed").clone());
        let start = process.node().incarnation().0 as u32 - 1;
        let trainer = match kept.task {
            Some(task) => task.training_mut(),
            None => process.training_mut().expect("it is not out"),
        };
        let checkpoint = trainer.save().expect("a host's memory");
        met.note(&checkpoint);
        let mut trainer = story.trainer(kept.node, start);
        trainer.restore(&checkpoint).expect("a host's memory");
        let (training, task) = match result {
            Some(result) => (None, Some(Step::resume(trainer, Some(result)))),
            None => (Some(trainer), None),
        };
        let (_, policy) = story.policy(kept.node);
        let process = Participant::resume(state, training, policy, SCHEDULE);
        parts.push(Parts { process: Some(process), crashed: None, task });
    }
    let again = story.clone();
    let start = move |node: NodeId, starts: u32, _: Option<Member>, now: Instant| again.participant(node, starts, now);
    let options = SimulationOptions::new(story.network.clone());
    Simulation::resume(options, Trace::hashed("shared steps"), snapshot, parts, start).expect("it was just taken")
}

/// Runs a story, restored after each of these numbers of events.
fn run(story: &Story, stops: &[u64], met: &mut Met) -> End {
    let first = story.clone();
    let start = move |node: NodeId, starts: u32, _: Option<Member>, now: Instant| first.participant(node, starts, now);
    let options = SimulationOptions::new(story.network.clone());
    let mut simulation = Simulation::new(options, Trace::hashed("shared steps"), start);
    let mut finished = vec![false; story.nodes as usize];
    let calm = story.network.faults.end();
    let (mut events, mut taken_back, mut stops) = (0, Vec::new(), stops.iter().copied().peekable());
    let mut retracted = vec![0; story.nodes as usize];
    loop {
        let ended = simulation.run(Instant::ORIGIN + PATIENCE, |observation| {
            events += 1;
            let process = observation.process;
            assert_eq!(process.failure(), None, "{}", observation.node);
            let times = process.shared().expect("steps are shared").retracted;
            if core::mem::replace(&mut retracted[observation.node.0 as usize], times) < times {
                taken_back.push(events);
            }
            finished[observation.node.0 as usize] = process.is_finished() && observation.now >= calm;
            let over = finished.iter().all(|finished| *finished);
            if over || stops.peek() == Some(&events) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(ended, Ended::Observer, "after {PATIENCE:?} of virtual time");
        if finished.iter().all(|finished| *finished) {
            break;
        }
        stops.next();
        simulation = restored(story, simulation, met);
    }
    let (trace, processes) = simulation.end();
    let node = |mut process: Member| {
        let (report, iteration) = (process.shared(), process.iteration());
        let parameters = process.training_mut().map_or_else(Vec::new, |trainer| {
            let (backend, network) = trainer.parts();
            backend.fetch(&network.parameters, 0..network.parameters_len()).expect("a host's memory")
        });
        (report, parameters, iteration)
    };
    let nodes = processes.into_values().map(node).collect();
    End { trace: trace.finish().expect("nothing is written").to_string(), events, taken_back, nodes }
}

/// What seed decides: a fleet with its faults, and a method.
fn story(seed: u64) -> Story {
    let mut story = Story::new(seed);
    story.method = match seed % 7 {
        0 => Method::Eva,
        1 => Method::Gradient(GradientMethod::Soap(SoapOptions { period: 4, ..SoapOptions::default() }), 0.0),
        2 => Method::Gradient(GradientMethod::Shampoo(ShampooOptions { period: 3, ..ShampooOptions::default() }), 0.6),
        3 => Method::Gradient(GradientMethod::Muon(MuonOptions::default()), 0.0),
        _ => Method::Kfac,
    };
    story.averages = match seed % 3 {
        0 => Averages::Sites,
        1 => Averages::Periodic(1 + seed % 4),
        _ => Averages::Nothing,
    };
    story
}

/// Whether runs of these seeds, stopped anywhere and gone on with, are the runs that never stopped.
fn check(seeds: core::ops::Range<u64>) -> Result<Met, String> {
    let mut met = Met::default();
    for seed in seeds {
        let story = story(seed);
        let whole = run(&story, &[], &mut met);
        let mut random = Seed(seed).derive("stops", 0).random();
        let mut stops: Vec<u64> = (0..12).map(|_| 1 + random.below(whole.events - 1)).collect();
        let before = whole.taken_back.iter().map(|event| event - 1);
        met.taken_back += before.clone().count() as u64;
        stops.extend(before);
        stops.sort_unstable();
        stops.dedup();
        if run(&story, &stops, &mut met) != whole {
            return Err(format!("seed {seed}, stopped after events {stops:?}: {story:?}"));
        }
    }
    Ok(met)
}

/// Whatever was under way: letters of any stage, steps that may be taken back, exchanges between sites, members lost.
#[test]
fn shared_steps_gone_on_with_are_those_that_never_stopped() {
    let met = check(0..84).unwrap_or_else(|what| panic!("another run: {what}"));
    println!("{met:?}");
    let Met { stages, letters, retractable, waiting, dead, taken_back } = met;
    assert!(
        stages.iter().chain([&letters, &retractable, &waiting, &dead, &taken_back]).all(|count| *count > 0),
        "{met:?}"
    );
}

/// Whether some of them are.
#[cfg(feature = "mutants")]
pub(crate) fn holds() -> bool {
    check(0..84).is_ok()
}
