//! A run in virtual time as data: saved between two events, gone on from to the byte.
//!
//! Everything that lies between the nodes is here, frames under way included. Processes and their work are the
//! caller's to save, since only he knows what they are made of: [`Simulation::parts`] shows them,
//! [`Simulation::resume`] asks for them.

use super::{Out, Scheduled, Simulation, SimulationOptions, Slot, What, Wire};
use crate::fault::Change;
use crate::network::{Connectivity, Links, Traffic};
use crate::storage::{Contents, Disks};
use crate::trace::{Trace, TraceHash};
use kronfleet_core::process::{Process, Work};
use kronfleet_core::seed::Random;
use kronfleet_core::storage::Write;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use std::collections::{BTreeMap, VecDeque};

/// What a simulated run goes on with, its processes and their work apart.
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Snapshot {
    now: Instant,
    trace: TraceHash,
    slots: Vec<SlotState>,
    links: Links,
    connectivity: Connectivity,
    /// In the order in which they will happen.
    queue: Vec<Scheduled>,
    scheduled: u64,
    traffic: Traffic,
    disks: Contents,
    /// Writes that are not durable yet.
    writes: BTreeMap<NodeId, VecDeque<Write>>,
    random: Random,
}

#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct SlotState {
    starts: u32,
    piece: u64,
    armed: Instant,
    blocked: bool,
}

impl Snapshot {
    /// The virtual time it was taken at.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The trace's hash up to then.
    pub fn trace(&self) -> TraceHash {
        self.trace
    }

    /// How many frames were under way, and will arrive unless a link is cut meanwhile.
    pub fn frames(&self) -> u64 {
        let frames = self.queue.iter().filter(|event| matches!(event.what, What::Leave { bytes: Some(_), .. }));
        frames.count() as u64
    }

    /// Disks with what was durable then, for a run that goes on [`on`](Simulation::on) them.
    pub fn disks(&self) -> Disks {
        Disks::holding(self.disks.clone())
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> u32 {
        self.slots.len() as u32
    }
}

/// What a snapshot does not hold of one node, to be saved.
pub struct PartsMut<'a, P: Work> {
    /// The node.
    pub node: NodeId,
    /// Its process, if it is alive.
    pub process: Option<&'a mut P>,
    /// What a crash has left of an earlier one.
    pub crashed: Option<&'a mut P>,
    /// Its work that is out, performed.
    pub task: Option<&'a mut P::Task>,
}

/// What a snapshot does not hold of one node, to go on with.
pub struct Parts<P: Work> {
    /// Its process, if it was alive.
    pub process: Option<P>,
    /// What a crash had left of an earlier one.
    pub crashed: Option<P>,
    /// Its work that was out, performed.
    pub task: Option<P::Task>,
}

/// Why a snapshot is none of a run with these options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved run does not fit: {reason}")]
pub struct SnapshotError {
    reason: String,
}

impl<P: Process + Work> Simulation<P> {
    /// Takes down everything between the nodes, between two calls of [`run`](Self::run). Work that has begun is
    /// performed first, which changes no result; [`parts`](Self::parts) are then to be saved as well.
    pub fn snapshot(&mut self) -> Snapshot {
        self.perform();
        let mut queue: Vec<Scheduled> = self.wire.queue.iter().cloned().collect();
        // The queue hands out its greatest first.
        queue.sort_unstable_by(|a, b| b.cmp(a));
        let slot = |slot: &Slot<P>| {
            let Slot { starts, piece, armed, blocked, .. } = *slot;
            SlotState { starts, piece, armed, blocked }
        };
        Snapshot {
            now: self.now,
            trace: self.wire.trace.hash(),
            slots: self.slots.iter().map(slot).collect(),
            links: self.wire.links.clone(),
            connectivity: self.wire.connectivity.clone(),
            queue,
            scheduled: self.wire.scheduled,
            traffic: self.wire.traffic,
            disks: self.disks.contents(),
            writes: self.writes.clone(),
            random: self.random.clone(),
        }
    }

    /// The processes and their work, in the order of the nodes.
    pub fn parts(&mut self) -> impl Iterator<Item = PartsMut<'_, P>> {
        self.slots.iter_mut().enumerate().map(|(node, slot)| PartsMut {
            node: NodeId(node as u32),
            process: slot.process.as_mut(),
            crashed: slot.crashed.as_mut(),
            task: slot.work.as_mut().and_then(|work| work.task.as_mut()),
        })
    }

    /// A run that goes on from `snapshot`, taken of one with the same options, with the `parts` of every node; `trace`
    /// goes on with its hash.
    ///
    /// # Errors
    /// If the snapshot or the parts are of another number of nodes, or contradict themselves.
    pub fn resume(
        options: SimulationOptions,
        mut trace: Trace,
        snapshot: Snapshot,
        parts: Vec<Parts<P>>,
        start: impl FnMut(NodeId, u32, Option<P>, Instant) -> P + 'static,
    ) -> Result<Self, SnapshotError> {
        let nodes = options.network.nodes;
        let wrong = |reason: String| Err(SnapshotError { reason });
        if snapshot.slots.len() != nodes as usize || parts.len() != nodes as usize {
            return wrong(format!("{} and {} nodes instead of {nodes}", snapshot.slots.len(), parts.len()));
        }
        if let Some(event) =
            snapshot.queue.iter().find(|event| !event.what.fits(nodes, options.network.faults.faults.len()))
        {
            return wrong(format!("an event at {} is of nobody in it", event.at));
        }
        trace.resume(snapshot.trace);
        let slots = snapshot.slots.into_iter().zip(parts).map(|(slot, parts)| Slot {
            process: parts.process,
            crashed: parts.crashed,
            starts: slot.starts,
            work: parts.task.map(|task| Out { task: Some(task), performed: true }),
            piece: slot.piece,
            armed: slot.armed,
            blocked: slot.blocked,
        });
        Ok(Self {
            slots: slots.collect(),
            start: Box::new(start),
            slowness: options.slowness,
            disks: Disks::holding(snapshot.disks),
            disk_latency: options.disk_latency,
            disk_failures: options.disk_failures,
            writes: snapshot.writes,
            random: snapshot.random,
            wire: Wire {
                links: snapshot.links,
                connectivity: snapshot.connectivity,
                queue: snapshot.queue.into(),
                scheduled: snapshot.scheduled,
                trace,
                traffic: snapshot.traffic,
                spare: Vec::new(),
                nodes,
                reports: options.network.reports,
            },
            begun: Vec::new(),
            now: snapshot.now,
        })
    }
}

impl What {
    /// Whether it is an event of a run with so many nodes and faults.
    fn fits(&self, nodes: u32, faults: usize) -> bool {
        let known = |node: &NodeId| node.0 < nodes;
        match self {
            Self::Change(Change::Cut(number) | Change::Healed(number)) => *number < faults,
            Self::Change(
                Change::Offline(node) | Change::Online(node) | Change::Crash(node) | Change::Restart(node),
            )
            | Self::Start(node)
            | Self::Wake(node)
            | Self::Retry(node)
            | Self::Done(node, _)
            | Self::Written(node, _) => known(node),
            Self::Report(node, peer, _) => known(node) && known(peer),
            Self::Leave { from, to, .. } => known(from) && known(to),
        }
    }
}
