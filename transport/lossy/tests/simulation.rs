//! Laws of the simulator, on a small gossiping process whose state depends on everything that reaches it.

mod gossip;

use gossip::{Gossip, Step};
use kronfleet_core::process::{Process, Work};
use kronfleet_core::seed::Seed;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId};
use kronfleet_lossy::fault::{Fault, FaultSchedule};
use kronfleet_lossy::link::LinkOptions;
use kronfleet_lossy::network::NetworkOptions;
use kronfleet_lossy::simulation::{Ended, Observation, Simulation, SimulationOptions};
use kronfleet_lossy::site::Sites;
use kronfleet_lossy::trace::{Recording, Trace, TraceError, TraceHash};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn simulation(options: SimulationOptions, trace: Trace) -> Simulation<Gossip> {
    let nodes = options.network.nodes;
    Simulation::new(options, trace, move |node, starts, crashed: Option<Gossip>, now| {
        assert_eq!(crashed.is_some(), starts > 0);
        Gossip::new(node, nodes, starts, now)
    })
}

fn play(
    options: &SimulationOptions,
    trace: Trace,
    until: Duration,
) -> (Result<TraceHash, TraceError>, BTreeMap<NodeId, Gossip>) {
    let mut simulation = simulation(options.clone(), trace);
    let ended = simulation.run(Instant::ORIGIN + until, |seen: Observation<'_, Gossip>| {
        let Gossip { state, steps, .. } = seen.process;
        seen.trace.line(seen.now, format_args!("{} {steps} {state:x}", seen.node));
        ControlFlow::Continue(())
    });
    assert_eq!(ended, Ended::Deadline);
    let (trace, processes) = simulation.end();
    (trace.finish(), processes)
}

fn rough(seed: u64, nodes: u32) -> SimulationOptions {
    let mut network = NetworkOptions::new(nodes, Seed(seed));
    network.link =
        "loss=0.1,duplicate=0.1,reorder=0.2,latency=1ms,jitter=500us,bandwidth=200000,capacity=700,max-frame=256"
            .parse()
            .unwrap();
    if seed.is_multiple_of(2) {
        let inside = "loss=0.05,latency=50us,bandwidth=9000000,capacity=700,max-frame=256".parse().unwrap();
        network.sites = Some(Sites { groups: vec![vec![NodeId(0), NodeId(2)], vec![NodeId(1)]], inside });
    }
    let at = |milliseconds: u64| Instant::ORIGIN + Duration::from_millis(milliseconds);
    network.faults.faults.push(Fault::Outage { node: NodeId(1), from: at(10), until: at(25) });
    network.faults.faults.push(Fault::Crash { node: NodeId(0), at: at(12), restart: at(31) });
    network.faults.partition([NodeId(1)].into(), [NodeId(2)].into(), at(30), at(40));
    let mut options = SimulationOptions::new(network);
    options.slowness.insert(NodeId(2), 1.7);
    options
}

const WHILE: Duration = Duration::from_millis(60);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn one_seed_gives_one_run_on_any_number_of_threads(seed in any::<u64>(), nodes in 3_u32..9) {
        let options = rough(seed, nodes);
        let runs = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| play(&options, Trace::hashed("gossip"), WHILE).0.unwrap())
        });
        prop_assert_eq!(runs[0], runs[1]);
        prop_assert_eq!(runs[0], runs[2]);
        let other = play(&rough(seed ^ 1, nodes), Trace::hashed("gossip"), WHILE).0.unwrap();
        prop_assert_ne!(runs[0], other);
    }

    #[test]
    fn a_written_run_replays(seed in any::<u64>(), frames in any::<bool>()) {
        let options = rough(seed, 4);
        let file = File::default();
        let (hash, _) = play(&options, Trace::written(file.clone(), format!("seed={seed}"), frames), WHILE);
        let text = file.0.lock().unwrap().clone();
        let recording = Recording::read(io::Cursor::new(text.clone())).unwrap();
        prop_assert_eq!(&recording.options, &format!("seed={seed}\n"));
        prop_assert_eq!(&recording.faults, &options.network.faults);
        let (again, _) = play(&options, Trace::compared(recording), WHILE);
        prop_assert_eq!(again.unwrap(), hash.unwrap());

        let mut other = options;
        other.network.seed = Seed(seed ^ 1);
        let recording = Recording::read(io::Cursor::new(text)).unwrap();
        let changed = play(&other, Trace::compared(recording), WHILE).0;
        let differs = matches!(changed, Err(TraceError::Differs { .. }));
        prop_assert!(differs, "other links, other run");
    }
}

#[test]
fn without_faults_everything_arrives_and_work_takes_its_time() {
    let mut network = NetworkOptions::new(5, Seed(1));
    network.link.latency = Duration::from_micros(10);
    let options = SimulationOptions::new(network);
    let (_, processes) = play(&options, Trace::hashed(""), Duration::from_millis(21));
    for process in processes.values() {
        assert_eq!(process.steps, 10, "2 ms each");
        assert_eq!(process.heard, 4 * (10 + 4), "four peers, each step and each 5 ms");
        assert_eq!(process.starts, 0);
    }
}

#[test]
fn full_links_are_tried_again_and_lose_nothing() {
    let mut network = NetworkOptions::new(2, Seed(1));
    network.link = LinkOptions { bandwidth: Some(10_000), capacity: 256, max_frame: 256, ..LinkOptions::default() };
    let mut simulation = simulation(SimulationOptions::new(network), Trace::hashed(""));
    simulation.run(Instant::ORIGIN + WHILE, |_| ControlFlow::Continue(()));
    assert!(simulation.traffic().full > 0);
    let queued: usize = simulation.processes().map(|(_, process)| process.out.len()).sum();
    let heard: u64 = simulation.processes().map(|(_, process)| process.heard).sum();
    let steps: u32 = simulation.processes().map(|(_, process)| process.steps).sum();
    let on_links = simulation.traffic().frames - heard;
    // 30 steps and 12 deadlines on each side; at most 32 frames of 8 bytes fit on a link.
    assert_eq!(steps, 60);
    assert_eq!(queued as u64 + on_links + heard, 2 * (30 + 12));
    assert!(heard > 0 && on_links <= 64);
}

#[test]
fn a_full_link_holds_up_nobody_else() {
    let mut network = NetworkOptions::new(3, Seed(1));
    network.faults = "clog n0 n1 0 900000000".parse().unwrap();
    let mut simulation = simulation(SimulationOptions::new(network), Trace::hashed(""));
    simulation.run(Instant::ORIGIN + WHILE, |_| ControlFlow::Continue(()));
    let heard: BTreeMap<_, _> = simulation.processes().map(|(node, process)| (node, process.heard)).collect();
    assert_eq!(heard[&NodeId(2)], heard[&NodeId(0)], "node 2 hears two peers");
    assert_eq!(2 * heard[&NodeId(1)], heard[&NodeId(0)], "node 1 hears one");
}

#[test]
fn a_late_joiner_starts_late_and_a_crash_takes_the_work_along() {
    let at = |milliseconds: u64| Instant::ORIGIN + Duration::from_millis(milliseconds);
    let mut network = NetworkOptions::new(3, Seed(1));
    network.reports = true;
    network.faults = FaultSchedule {
        faults: vec![
            Fault::Crash { node: NodeId(2), at: at(0), restart: at(20) },
            Fault::Crash { node: NodeId(1), at: at(11), restart: Instant::FAR },
        ],
    };
    let options = SimulationOptions::new(network);
    let mut simulation = Simulation::new(options, Trace::hashed(""), move |node, starts, _, now| {
        let first = if node == NodeId(2) { at(20) } else { at(0) };
        assert_eq!(now, first);
        Gossip::new(node, 3, starts, now)
    });
    simulation.run(at(31), |_| ControlFlow::Continue(()));
    let processes: BTreeMap<_, _> = simulation.processes().collect();
    assert_eq!(processes.keys().copied().collect::<Vec<_>>(), [NodeId(0), NodeId(2)]);
    assert_eq!(processes[&NodeId(2)].steps, 5);
    let reports = [(NodeId(2), false), (NodeId(1), false), (NodeId(2), true)];
    assert_eq!(processes[&NodeId(0)].reports, reports);
}

#[test]
fn an_outage_cuts_both_ways_and_training_goes_on() {
    let mut network = NetworkOptions::new(3, Seed(1));
    network.faults = "outage n1 0 30000000".parse().unwrap();
    let options = SimulationOptions::new(network);
    let (_, processes) = play(&options, Trace::hashed(""), Duration::from_millis(29));
    assert_eq!(processes[&NodeId(1)].heard, 0);
    assert_eq!(processes[&NodeId(0)].heard, 14 + 5);
    assert!(processes.values().all(|process| process.steps == 14));
}

#[test]
fn thousands_of_nodes_cost_what_they_say() {
    // Each node tells two neighbours: links in use grow with the nodes, not with their square.
    struct Ring(Gossip);
    impl Process for Ring {
        fn handle(&mut self, now: Instant, event: Event<'_>) {
            self.0.handle(now, event);
        }
        fn wake(&mut self, now: Instant) {
            self.0.wake(now);
        }
        fn timeout(&self) -> Instant {
            self.0.timeout()
        }
        fn poll(&mut self, now: Instant, max: usize) -> Option<(NodeId, usize)> {
            self.0.poll(now, max)
        }
        fn fill(&mut self, target: &mut [u8]) {
            self.0.fill(target);
        }
        fn discard(&mut self) {
            self.0.discard();
        }
        fn postpone(&mut self) {
            self.0.postpone();
        }
    }
    impl Work for Ring {
        type Task = Step;
        fn begin(&mut self) -> Option<(Duration, Step)> {
            self.0.begin()
        }
        fn complete(&mut self, now: Instant, task: Step) {
            self.0.complete(now, task);
            let (node, nodes) = (self.0.node.0, 5000);
            let neighbours = [(node + 1) % nodes, (node + nodes - 1) % nodes];
            self.0.out.extend(neighbours.map(|peer| (NodeId(peer), vec![node as u8; 8])));
        }
    }
    let options = SimulationOptions::new(NetworkOptions::new(5000, Seed(1)));
    let mut simulation =
        Simulation::new(options, Trace::hashed(""), |node, starts, _, now| Ring(Gossip::new(node, 0, starts, now)));
    simulation.run(Instant::ORIGIN + Duration::from_millis(41), |_| ControlFlow::Continue(()));
    assert_eq!(simulation.traffic().frames, 5000 * 2 * 20);
    assert!(simulation.processes().all(|(_, ring)| ring.0.heard == 40));
}
