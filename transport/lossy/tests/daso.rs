//! Exchanges of models over links that lose frames: what is lost is sent again, as long as its receiver is there.

mod quadratic;

use kronfleet_core::cluster::{Budget, Incarnation, RunId, Settings};
use kronfleet_core::participant::{Participant, Schedule};
use kronfleet_core::policy::{
    AveragingPolicy, CycleOptions, Hierarchical, HierarchicalOptions, Merge, PolicyAction, PolicyInput,
};
use kronfleet_core::seed::Seed;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::fault::Fault;
use kronfleet_lossy::link::LinkOptions;
use kronfleet_lossy::network::NetworkOptions;
use kronfleet_lossy::simulation::{Ended, Simulation, SimulationOptions};
use kronfleet_lossy::trace::Trace;
use proptest::prelude::*;
use quadratic::{Quadratic, Witness};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

const NODES: u32 = 4;
const ITERATIONS: u64 = 40;

/// Counts the notes that a policy says and hears, and does what it does.
struct Counting {
    policy: Hierarchical,
    notes: Arc<Mutex<Notes>>,
}

/// Notes of all nodes.
#[derive(Debug, Default)]
struct Notes {
    said: u64,
    heard: u64,
}

impl AveragingPolicy for Counting {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn handle(&mut self, now: Instant, input: PolicyInput<'_>) {
        self.notes.lock().expect("nobody panics").heard += u64::from(matches!(input, PolicyInput::Told { .. }));
        self.policy.handle(now, input);
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        let action = self.policy.poll();
        let is_note = matches!(action, Some(PolicyAction::Tell { .. }));
        self.notes.lock().expect("nobody panics").said += u64::from(is_note);
        action
    }

    fn timeout(&self) -> Instant {
        self.policy.timeout()
    }

    fn wake(&mut self, now: Instant) {
        self.policy.wake(now);
    }

    fn numbers(&self) -> Vec<f64> {
        self.policy.numbers()
    }
}

/// The notes of a run, and how many frames were lost.
fn train(seed: u64, loss: f64, merge: Merge, outage: Option<Fault>) -> (Notes, u64) {
    let mut network = NetworkOptions::new(NODES, Seed(seed));
    let latency = Duration::from_millis(1);
    network.link = LinkOptions { loss, latency, reorder: loss, ..LinkOptions::default() };
    network.faults.faults.extend(outage);
    let witness = Witness::default();
    let notes = Arc::new(Mutex::new(Notes::default()));
    let counted = Arc::clone(&notes);
    let nodes: Vec<NodeId> = (0..NODES).map(NodeId).collect();
    let mut simulation = Simulation::new(SimulationOptions::new(network), Trace::hashed(""), move |node, _, _, now| {
        let mut options = HierarchicalOptions::new(nodes.iter().map(|&node| vec![node]).collect(), 20);
        options.cycle = CycleOptions { warm_up: 0, cool_down: 0, bad: u64::MAX, ..options.cycle };
        (options.merge, options.patience) = (merge, Duration::from_secs(5));
        let budget = Budget::new(Duration::from_secs(10)).expect("a budget");
        let settings = Settings::new(RunId(seed), node, Incarnation(1), nodes.clone(), budget);
        // Three notes to a snapshot.
        let training = Quadratic::new(seed, node, 30_000, None, witness.clone());
        let schedule = Schedule { iterations: ITERATIONS, step: Duration::from_millis(20) };
        let policy = Counting { policy: Hierarchical::new(options, node), notes: Arc::clone(&counted) };
        Participant::new(settings, now, training, Box::new(policy), schedule)
    });
    let mut over = [false; NODES as usize];
    let ended = simulation.run(Instant::ORIGIN + Duration::from_secs(600), |seen| {
        over[seen.node.0 as usize] = seen.process.is_over();
        if over == [true; NODES as usize] { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_ne!(ended, Ended::Deadline, "everybody is ready long before");
    let lost = simulation.traffic().lost;
    (std::mem::take(&mut *notes.lock().expect("nobody panics")), lost)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3) })]

    #[test]
    fn what_links_lose_is_sent_again(seed in any::<u64>(), progress in any::<bool>()) {
        let merge = if progress { Merge::Progress } else { Merge::Stale };
        let (notes, lost) = train(seed, 0.2, merge, None);
        prop_assert!(lost > 100 && notes.said > 0, "{lost} frames lost of {notes:?}");
        prop_assert!(notes.said == notes.heard, "{notes:?}");
    }
}

#[test]
fn what_is_said_to_a_node_that_is_lost_is_not() {
    let from = Instant::ORIGIN + Duration::from_millis(50);
    let outage = Fault::Outage { node: NodeId(1), from, until: from + Duration::from_secs(30) };
    let (notes, _) = train(1, 0.0, Merge::Stale, Some(outage));
    assert!(notes.said > notes.heard, "{notes:?}");
}
