//! Laws of the driver on real threads.

mod gossip;

use gossip::Gossip;
use kronfleet_core::process::{Process, Task, Work};
use kronfleet_core::seed::Seed;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId};
use kronfleet_lossy::endpoint::LossyNetwork;
use kronfleet_lossy::fault::Fault;
use kronfleet_lossy::network::NetworkOptions;
use kronfleet_lossy::threads;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

fn names(nodes: u32) -> Vec<NodeId> {
    (0..nodes).map(NodeId).collect()
}

fn far() -> Instant {
    Instant::ORIGIN + Duration::from_secs(60)
}

#[test]
fn everybody_works_and_hears_everybody() {
    let mut options = NetworkOptions::new(4, Seed(1));
    options.link = "loss=0.05,duplicate=0.05,latency=200us,jitter=100us".parse().unwrap();
    let network = LossyNetwork::new(options);
    let reached = AtomicU32::new(0);
    let processes = threads::run(
        &network,
        &names(4),
        far(),
        |node, starts, _, now| Gossip::new(node, 4, starts, now),
        |_, node, process: &mut Gossip| {
            if process.steps >= 50 && process.heard >= 100 {
                reached.fetch_or(1 << node.0, Ordering::Relaxed);
            }
            let all = reached.load(Ordering::Relaxed) == 0b1111;
            if all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    let processes = processes.unwrap();
    assert_eq!(processes.keys().copied().collect::<Vec<_>>(), names(4));
    assert!(processes.values().all(|process| process.steps >= 50 && process.heard >= 100));
    assert!(network.traffic().lost > 0 && network.traffic().doubled > 0);
}

#[test]
fn a_crash_restarts_and_an_outage_is_reported() {
    let at = |milliseconds: u64| Instant::ORIGIN + Duration::from_millis(milliseconds);
    let mut options = NetworkOptions::new(3, Seed(1));
    options.reports = true;
    options.faults.faults.push(Fault::Crash { node: NodeId(1), at: at(20), restart: at(40) });
    options.faults.faults.push(Fault::Outage { node: NodeId(2), from: at(60), until: at(80) });
    let network = LossyNetwork::new(options);
    let processes = threads::run(
        &network,
        &names(3),
        far(),
        |node, starts, crashed: Option<Gossip>, now| {
            assert_eq!(crashed.is_some(), starts > 0);
            Gossip::new(node, 3, starts, now)
        },
        |_, node, process| {
            let over = node == NodeId(0) && process.reports.len() >= 4;
            if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    let processes = processes.unwrap();
    let starts: BTreeMap<_, _> = processes.iter().map(|(node, process)| (node.0, process.starts)).collect();
    assert_eq!(starts, BTreeMap::from([(0, 0), (1, 1), (2, 0)]));
    let expected = [(1, false), (1, true), (2, false), (2, true)].map(|(node, up)| (NodeId(node), up));
    assert_eq!(processes[&NodeId(0)].reports, expected);
}

#[test]
fn the_end_of_time_ends_the_run() {
    let network = LossyNetwork::new(NetworkOptions::new(3, Seed(1)));
    let until = Instant::ORIGIN + Duration::from_millis(30);
    let start = |node, starts, _, now| Gossip::new(node, 3, starts, now);
    let processes = threads::run(&network, &names(3), until, start, |_, _, _| ControlFlow::Continue(()));
    assert_eq!(processes.unwrap().len(), 3);
    assert!(network.now() >= until);
}

/// Answers every frame, also while its one piece of work is under way, which ends when it may.
struct Busy {
    gossip: Gossip,
    begun: bool,
    done: bool,
}

/// Work that lasts until the other node has heard enough.
static MAY_END: Mutex<bool> = Mutex::new(false);

struct Long;

impl Task for Long {
    fn perform(&mut self) {
        while !*MAY_END.lock().unwrap() {
            std::thread::yield_now();
        }
    }
}

impl Process for Busy {
    fn handle(&mut self, now: Instant, event: Event<'_>) {
        self.gossip.handle(now, event);
    }
    fn wake(&mut self, now: Instant) {
        self.gossip.wake(now);
    }
    fn timeout(&self) -> Instant {
        self.gossip.timeout()
    }
    fn poll(&mut self, now: Instant, max: usize) -> Option<(NodeId, usize)> {
        self.gossip.poll(now, max)
    }
    fn fill(&mut self, target: &mut [u8]) {
        self.gossip.fill(target);
    }
    fn discard(&mut self) {
        self.gossip.discard();
    }
    fn postpone(&mut self) {
        self.gossip.postpone();
    }
}

impl Work for Busy {
    type Task = Long;
    fn begin(&mut self) -> Option<(Duration, Long)> {
        let first = self.gossip.node == NodeId(0) && !std::mem::replace(&mut self.begun, true);
        first.then_some((Duration::ZERO, Long))
    }
    fn complete(&mut self, _: Instant, _: Long) {
        self.done = true;
    }
}

#[test]
fn a_long_step_does_not_look_like_death() {
    let network = LossyNetwork::new(NetworkOptions::new(2, Seed(1)));
    let start = |node, starts, _, now| Busy { gossip: Gossip::new(node, 2, starts, now), begun: false, done: false };
    let processes = threads::run(&network, &names(2), far(), start, |_, node, process: &mut Busy| {
        // n1 hears n0 although n0 computes all the time; only then may the step end.
        if node == NodeId(1) && process.gossip.heard >= 3 {
            *MAY_END.lock().unwrap() = true;
        }
        if process.done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let processes = processes.unwrap();
    assert!(processes[&NodeId(0)].done && processes[&NodeId(1)].gossip.heard >= 3);
}

#[test]
#[should_panic(expected = "a node that panics")]
fn a_panic_stops_the_others_and_comes_through() {
    let network = LossyNetwork::new(NetworkOptions::new(3, Seed(1)));
    let start = |node, starts, _, now| Gossip::new(node, 3, starts, now);
    let _ = threads::run(&network, &names(3), far(), start, |_, node, process| {
        assert!(node != NodeId(1) || process.steps < 3, "a node that panics");
        ControlFlow::Continue(())
    });
}

#[test]
fn a_full_link_holds_up_nobody_else_and_does_not_make_a_node_spin() {
    let mut options = NetworkOptions::new(3, Seed(1));
    options.faults.faults.push(Fault::Clog {
        sources: [NodeId(0)].into(),
        targets: [NodeId(1)].into(),
        from: Instant::ORIGIN,
        until: Instant::FAR,
    });
    let network = LossyNetwork::new(options);
    // Nobody is at the other end of the link that is full.
    let nodes = [NodeId(0), NodeId(2)];
    let start = |node, starts, _, now| Gossip::new(node, 3, starts, now);
    let processes = threads::run(&network, &nodes, far(), start, |_, node, process| {
        let over = node == NodeId(2) && process.heard >= 20;
        if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let processes = processes.unwrap();
    assert!(processes[&NodeId(2)].heard >= 20, "node 0 was held up until {}", network.now());
    // It tries again every half a millisecond, whenever it hears something and whenever a step is done.
    let steps: u32 = processes.values().map(|process| process.steps).sum();
    let heard: u64 = processes.values().map(|process| process.heard).sum();
    let waited = network.now().as_nanos() / 500_000;
    let full = network.traffic().full;
    assert!(full > 0 && full <= 2 * (waited + heard + u64::from(steps)) + 20, "{full} refusals in {}", network.now());
}
