//! Many nodes on real threads: every node is driven on one and computes on another.
//!
//! A training step may take longer than the time after which a silent node is suspected, so the protocol
//! goes on while the step runs; the [`Task`] owns all it touches. Nothing is
//! left behind: [`run`] comes back when all its threads have ended.

use crate::endpoint::LossyNetwork;
use kronfleet_core::process::{Process, Task, Work, drive_with};
use kronfleet_core::storage::{NoStorage, Storage};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{NodeId, TransportError};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// How long a node sleeps at most before it looks around: the grain of a full link's next attempt.
const IDLE: Duration = Duration::from_millis(1);

/// Runs `nodes`, which keep nothing across crashes, over `network`; see [`run_with`].
///
/// # Errors
/// If an endpoint fails.
///
/// # Panics
/// If a node panics; the others are stopped first.
pub fn run<P>(
    network: &LossyNetwork,
    nodes: &[NodeId],
    until: Instant,
    start: impl Fn(NodeId, u32, Option<P>, Instant) -> P + Sync,
    observe: impl Fn(Instant, NodeId, &mut P) -> ControlFlow<()> + Sync,
) -> Result<BTreeMap<NodeId, P>, TransportError>
where
    P: Process + Work + Send,
{
    run_with(network, nodes, until, |_| Box::new(NoStorage), start, observe)
}

/// Runs `nodes` over `network` until `until` or until `observe` breaks at any of them; answers the processes
/// that are alive then.
///
/// `storage` opens what a node writes to, anew at every start of it; `start` may read there first.
///
/// `start` and `observe` are those of [`Simulation`](crate::simulation::Simulation), on the nodes' own
/// threads; scheduled crashes drop the endpoint and hand the process to the next `start`. Work takes the time
/// it takes, its declared duration means nothing here.
///
/// # Errors
/// If an endpoint fails.
///
/// # Panics
/// If a node panics; the others are stopped first.
pub fn run_with<P>(
    network: &LossyNetwork,
    nodes: &[NodeId],
    until: Instant,
    storage: impl Fn(NodeId) -> Box<dyn Storage> + Sync,
    start: impl Fn(NodeId, u32, Option<P>, Instant) -> P + Sync,
    observe: impl Fn(Instant, NodeId, &mut P) -> ControlFlow<()> + Sync,
) -> Result<BTreeMap<NodeId, P>, TransportError>
where
    P: Process + Work + Send,
{
    let run = Run { network, nodes, until, stop: AtomicBool::new(false), storage, start, observe };
    thread::scope(|scope| {
        let run = &run;
        let nodes: Vec<_> = nodes.iter().map(|&node| (node, scope.spawn(move || run.node(node)))).collect();
        let mut alive = BTreeMap::new();
        let mut panic = None;
        let mut failed = None;
        for (node, thread) in nodes {
            match thread.join() {
                Ok(Ok(process)) => alive.extend(process.map(|process| (node, process))),
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(payload) => panic = panic.or(Some(payload)),
            }
        }
        if let Some(payload) = panic {
            std::panic::resume_unwind(payload);
        }
        failed.map_or(Ok(alive), Err)
    })
}

/// What all nodes of a run share.
struct Run<'a, D, S, O> {
    network: &'a LossyNetwork,
    nodes: &'a [NodeId],
    until: Instant,
    stop: AtomicBool,
    storage: D,
    start: S,
    observe: O,
}

/// Why a node is not driven any more.
#[derive(Clone, Copy, PartialEq)]
enum Over {
    Run,
    Crash,
}

impl<D, S, O> Run<'_, D, S, O> {
    /// Runs one node through all its crashes and restarts.
    fn node<P>(&self, node: NodeId) -> Result<Option<P>, TransportError>
    where
        P: Process + Work + Send,
        D: Fn(NodeId) -> Box<dyn Storage>,
        S: Fn(NodeId, u32, Option<P>, Instant) -> P,
        O: Fn(Instant, NodeId, &mut P) -> ControlFlow<()>,
    {
        // Also on a panic, so that nobody waits for a node that is gone.
        let _stop = StopOnDrop(self);
        let mut crashed = None;
        for starts in 0.. {
            while !self.network.wait_alive(node, self.until) {
                if self.over() {
                    return Ok(None);
                }
            }
            let mut process = (self.start)(node, starts, crashed.take(), self.network.now());
            if self.life(node, &mut process)? == Over::Run {
                return Ok(Some(process));
            }
            crashed = Some(process);
        }
        Ok(None)
    }

    /// Drives one process from its start to its crash or the end of the run.
    fn life<P>(&self, node: NodeId, process: &mut P) -> Result<Over, TransportError>
    where
        P: Process + Work + Send,
        D: Fn(NodeId) -> Box<dyn Storage>,
        O: Fn(Instant, NodeId, &mut P) -> ControlFlow<()>,
    {
        let mut endpoint = self.network.endpoint(node);
        let mut storage = (self.storage)(node);
        let network = self.network;
        let mut over = None;
        thread::scope(|scope| {
            let (begun, tasks) = channel::<P::Task>();
            let (results, done) = channel::<P::Task>();
            scope.spawn(move || work(&tasks, &results, network, node));
            let mut out = false;
            drive_with(process, &mut endpoint, &mut *storage, IDLE, |process, now| {
                if let Ok(task) = done.try_recv() {
                    process.complete(now, task);
                    out = false;
                }
                if (self.observe)(now, node, process).is_break() {
                    self.stop();
                }
                if self.over() {
                    over = Some(Over::Run);
                } else if self.network.dead(node) {
                    over = Some(Over::Crash);
                } else if !out && let Some((_, task)) = process.begin() {
                    out = begun.send(task).is_ok();
                }
                over.is_some()
            })
        })?;
        Ok(over.expect("drive comes back only when it is over or failed"))
    }

    fn over(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.network.now() >= self.until
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.nodes.iter().for_each(|&node| self.network.wake(node));
    }
}

/// Performs the work of a node until the node is gone.
fn work<T: Task>(tasks: &Receiver<T>, results: &Sender<T>, network: &LossyNetwork, node: NodeId) {
    for mut task in tasks {
        task.perform();
        if results.send(task).is_err() {
            return;
        }
        network.wake(node);
    }
}

/// Stops the run when a node's thread ends, whatever the reason.
struct StopOnDrop<'a, 'b, D, S, O>(&'a Run<'b, D, S, O>);

impl<D, S, O> Drop for StopOnDrop<'_, '_, D, S, O> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
