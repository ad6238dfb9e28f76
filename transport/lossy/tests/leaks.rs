//! Invariant 10: the threads driver leaves no thread and no file behind, whatever happens to its nodes.
//!
//! One test in a program of its own, because what is counted belongs to the whole program.

mod gossip;

use gossip::Gossip;
use kronfleet_conformance::invariants::leaks::leaves_nothing;
use kronfleet_core::seed::Seed;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::endpoint::LossyNetwork;
use kronfleet_lossy::fault::Fault;
use kronfleet_lossy::network::NetworkOptions;
use kronfleet_lossy::threads;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn nothing_is_left_after_ends_crashes_and_panics() {
    let nodes = [0, 1, 2].map(NodeId);
    let at = |milliseconds: u64| Instant::ORIGIN + Duration::from_millis(milliseconds);
    for panics in [false, true] {
        leaves_nothing(|| {
            let mut options = NetworkOptions::new(3, Seed(1));
            options.faults.faults.push(Fault::Crash { node: NodeId(1), at: at(5), restart: at(15) });
            options.faults.faults.push(Fault::Crash { node: NodeId(2), at: at(5), restart: Instant::FAR });
            let network = LossyNetwork::new(options);
            let start = |node, starts, _, now| Gossip::new(node, 3, starts, now);
            let run = AssertUnwindSafe(|| {
                threads::run(&network, &nodes, at(60), start, |now, node, _| {
                    assert!(!panics || node != NodeId(1) || now < at(40), "a node that panics");
                    ControlFlow::Continue(())
                })
            });
            match catch_unwind(run) {
                Ok(processes) => {
                    let starts = processes.unwrap().into_iter().map(|(node, process)| (node.0, process.starts));
                    assert_eq!(starts.collect::<Vec<_>>(), [(0, 0), (1, 1)]);
                }
                Err(_) => assert!(panics),
            }
        })
        .unwrap();
    }
}
