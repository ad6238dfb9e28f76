//! A fleet on real threads: rounds commit in spite of losses, a crash and an outage, and the invariants hold.

mod quadratic;

use kronfleet_conformance::invariants::Checker;
use kronfleet_core::cluster::{Budget, Incarnation, Occurrence, RunId, Settings};
use kronfleet_core::participant::{Participant, Schedule};
use kronfleet_core::policy::Periodic;
use kronfleet_core::seed::Seed;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::endpoint::LossyNetwork;
use kronfleet_lossy::fault::Fault;
use kronfleet_lossy::network::NetworkOptions;
use kronfleet_lossy::threads;
use quadratic::{Quadratic, Witness};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;

/// What all threads tell; records come before the frames they cause, so their order is causal.
struct Told {
    checker: Checker,
    /// For each node, its commits after all faults.
    commits: BTreeMap<NodeId, u32>,
    broken: Option<String>,
}

#[test]
fn rounds_commit_on_real_threads() {
    let nodes = [0, 1, 2, 3].map(NodeId);
    let at = |milliseconds: u64| Instant::ORIGIN + Duration::from_millis(milliseconds);
    let mut options = NetworkOptions::new(4, Seed(9));
    options.link = "loss=0.03,duplicate=0.03,reorder=0.1,latency=300us,jitter=200us,max-frame=600".parse().unwrap();
    options.faults.faults.push(Fault::Crash { node: NodeId(0), at: at(200), restart: at(500) });
    options.faults.faults.push(Fault::Outage { node: NodeId(2), from: at(300), until: at(700) });
    let calm = options.faults.end();
    let network = LossyNetwork::new(options);
    let witness = Witness::default();
    let told =
        Mutex::new(Told { checker: Checker::new("no replay in real time"), commits: BTreeMap::new(), broken: None });
    let start = |node, starts, _, now| {
        let budget = Budget::new(Duration::from_millis(800)).unwrap();
        let incarnation = Incarnation(u64::from(starts) + 1);
        let settings = Settings::new(RunId(9), node, incarnation, nodes.to_vec(), budget);
        let training = Quadratic::new(9, node, 2000, None, witness.clone());
        let schedule = Schedule { iterations: u64::MAX, step: Duration::ZERO };
        Participant::new(settings, now, training, Box::new(Periodic::new(3)), schedule)
    };
    let far = at(60_000);
    let ended = threads::run(&network, &nodes, far, start, |now, node, process: &mut Participant<Quadratic, f32>| {
        let Told { checker, commits, broken } = &mut *told.lock().unwrap();
        for (node, contribution) in witness.lock().unwrap().drain(..) {
            checker.contribution(node, &contribution);
        }
        let verdict = checker.node(process.node_mut(), |record| {
            if matches!(record.what, Occurrence::Committed { .. }) && now > calm {
                *commits.entry(node).or_default() += 1;
            }
        });
        *broken = broken.take().or(verdict.err().map(|violation| violation.to_string()));
        let all = commits.len() == nodes.len() && commits.values().all(|&commits| commits >= 5);
        if all || broken.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(ended.unwrap().len(), 4);
    let Told { checker, commits, broken } = told.into_inner().unwrap();
    assert_eq!(broken, None);
    let summary = checker.finish().unwrap();
    println!("{summary} within {}", network.now());
    assert!(network.now() < far, "within a minute these committed: {commits:?}");
    assert!(commits.values().all(|&commits| commits >= 5));
    assert_eq!(summary.recomputed, summary.commits);
}
