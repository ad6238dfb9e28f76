//! Many nodes in virtual time: deterministic protocol, parallel compute.
//!
//! # For users
//! A [`Simulation`] is made from [`SimulationOptions`], a [`Trace`] and a function that starts a node; it
//! runs until a virtual time or until the observer has seen enough. Two runs with equal options, seed and
//! node code have byte-identical traces, whatever the number of threads.
//!
//! A late joiner is a node that crashes at the origin of time and restarts later.
//!
//! # For implementers
//! Events wait in a queue ordered by time, ties by the order in which they were scheduled. A piece of work
//! begins when the process hands it out and ends after its declared duration; it is really performed when
//! the first end of an unperformed one is reached, together with all others that have begun by then. Work
//! owns what it touches, so neither that moment nor the thread can change a result.

mod snapshot;

pub use snapshot::{Parts, PartsMut, Snapshot, SnapshotError};

use crate::fault::Change;
use crate::link::Fate;
use crate::network::{Connectivity, Links, NetworkOptions, Traffic};
use crate::storage::Disks;
use crate::trace::{FrameEvent, Trace};
use kronfleet_core::process::{Process, Task, Work};
use kronfleet_core::seed::Random;
use kronfleet_core::storage::Write;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::ControlFlow;

/// What a simulated run consists of, apart from the node code.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulationOptions {
    /// Nodes, links and faults.
    pub network: NetworkOptions,
    /// How many times longer than declared the work of a node takes; 1 for nodes not named.
    pub slowness: BTreeMap<NodeId, f64>,
    /// How long it takes until a write is durable.
    ///
    /// Writes of a node that crashes meanwhile may have happened or not, as the seed decides for each crash; after one
    /// that has not, no later one has.
    pub disk_latency: Duration,
    /// The share of writes that fail.
    pub disk_failures: f64,
}

impl SimulationOptions {
    /// This network, all nodes equally fast.
    pub fn new(network: NetworkOptions) -> Self {
        Self { network, slowness: BTreeMap::new(), disk_latency: Duration::from_millis(1), disk_failures: 0.0 }
    }
}

/// A node that has just acted, shown to the observer of a run.
pub struct Observation<'a, P> {
    /// The virtual time.
    pub now: Instant,
    /// The node.
    pub node: NodeId,
    /// Its process; the observer may hand things in and take results out, frames are sent afterwards.
    pub process: &'a mut P,
    /// The trace, for the node's records.
    pub trace: &'a mut Trace,
    /// Who can reach whom at this moment.
    pub network: &'a Connectivity,
}

/// Why [`Simulation::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The observer had seen enough.
    Observer,
    /// The given virtual time has come.
    Deadline,
    /// Nothing will ever happen again.
    Idle,
}

/// Starts a node: its name, how often it has been started before, the process that crashed if any (for what
/// it had persisted), and the time.
pub type Start<P> = Box<dyn FnMut(NodeId, u32, Option<P>, Instant) -> P>;

/// Many nodes in virtual time.
pub struct Simulation<P: Process + Work> {
    slots: Vec<Slot<P>>,
    start: Start<P>,
    slowness: BTreeMap<NodeId, f64>,
    wire: Wire,
    disks: Disks,
    disk_latency: Duration,
    disk_failures: f64,
    /// Writes that are not durable yet, in the order of the nodes and then of asking.
    writes: BTreeMap<NodeId, VecDeque<Write>>,
    random: Random,
    /// Nodes whose work has begun and is not performed yet; crashed ones are skipped when their turn comes.
    begun: Vec<usize>,
    now: Instant,
}

/// A node and what the driver knows about it.
struct Slot<P: Work> {
    process: Option<P>,
    crashed: Option<P>,
    starts: u32,
    work: Option<Out<P::Task>>,
    /// Counts pieces of work, so that the end of one that died with its node is not taken for another's.
    piece: u64,
    /// The time of the earliest wake event in the queue.
    armed: Instant,
    /// Whether a frame was refused in its last turn because a link was full.
    blocked: bool,
}

/// A piece of work that is out of its process.
struct Out<T> {
    /// Absent while it is being performed.
    task: Option<T>,
    performed: bool,
}

/// All that lies between the nodes.
struct Wire {
    links: Links,
    connectivity: Connectivity,
    queue: BinaryHeap<Scheduled>,
    scheduled: u64,
    trace: Trace,
    traffic: Traffic,
    /// Buffers of delivered frames, to be filled again.
    spare: Vec<Vec<u8>>,
    nodes: u32,
    reports: bool,
}

#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Scheduled {
    at: Instant,
    sequence: u64,
    what: What,
}

#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum What {
    Change(Change),
    Start(NodeId),
    Report(NodeId, NodeId, bool),
    Wake(NodeId),
    Retry(NodeId),
    Done(NodeId, u64),
    /// The oldest write of this start of the node.
    Written(NodeId, u32),
    /// A frame at the end of its link; `bytes` of a lost one is absent, its length is not.
    Leave {
        from: NodeId,
        to: NodeId,
        len: usize,
        bytes: Option<Vec<u8>>,
        copy: bool,
    },
}

impl Ord for Scheduled {
    /// The earliest, then the first scheduled, is the greatest, as the queue hands out the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl<P: Process + Work> Simulation<P> {
    /// A run that is about to begin: `start` is called for every node at the origin of time, and again when
    /// one is restarted.
    pub fn new(
        options: SimulationOptions,
        mut trace: Trace,
        start: impl FnMut(NodeId, u32, Option<P>, Instant) -> P + 'static,
    ) -> Self {
        let NetworkOptions { seed, nodes, link, sites, faults, reports } = options.network;
        trace.begin(&faults);
        let slots = (0..nodes).map(|_| Slot {
            process: None,
            crashed: None,
            starts: 0,
            work: None,
            piece: 0,
            armed: Instant::FAR,
            blocked: false,
        });
        let mut simulation = Self {
            slots: slots.collect(),
            start: Box::new(start),
            slowness: options.slowness,
            disks: Disks::default(),
            disk_latency: options.disk_latency,
            disk_failures: options.disk_failures,
            writes: BTreeMap::new(),
            random: seed.derive("disks", 0).random(),
            wire: Wire {
                links: Links::new(seed, link, sites),
                connectivity: Connectivity::new(faults.clone()),
                queue: BinaryHeap::new(),
                scheduled: 0,
                trace,
                traffic: Traffic::default(),
                spare: Vec::new(),
                nodes,
                reports,
            },
            begun: Vec::new(),
            now: Instant::ORIGIN,
        };
        for (at, change) in faults.events() {
            simulation.wire.schedule(at, What::Change(change));
        }
        for node in 0..nodes {
            let start = What::Start(NodeId(node));
            simulation.wire.schedule(Instant::ORIGIN, start);
        }
        simulation
    }

    /// The same with disks that the caller holds, too: `start` reads there what a node made durable before it crashed.
    #[must_use]
    pub fn on(self, disks: &Disks) -> Self {
        Self { disks: disks.clone(), ..self }
    }

    /// Lets virtual time pass until `until`, until `observe` breaks, or until nothing is left to happen.
    ///
    /// `observe` sees a node each time it has taken in an event or a deadline. A run can be continued.
    pub fn run(&mut self, until: Instant, mut observe: impl FnMut(Observation<'_, P>) -> ControlFlow<()>) -> Ended {
        loop {
            match self.wire.queue.peek() {
                None => return Ended::Idle,
                Some(next) if next.at > until => {
                    self.now = until;
                    return Ended::Deadline;
                }
                Some(_) => {}
            }
            let Scheduled { at, what, .. } = self.wire.queue.pop().expect("peeked above");
            self.now = at;
            if let Some(node) = self.happen(what)
                && self.turn(node, &mut observe).is_break()
            {
                return Ended::Observer;
            }
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The processes that are alive, in the order of their names.
    pub fn processes(&self) -> impl Iterator<Item = (NodeId, &P)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(node, slot)| Some((NodeId(node as u32), slot.process.as_ref()?)))
    }

    /// What the links carried so far.
    pub fn traffic(&self) -> Traffic {
        self.wire.traffic
    }

    /// Who can reach whom now.
    pub fn network(&self) -> &Connectivity {
        &self.wire.connectivity
    }

    /// The trace so far, for lines of the caller.
    pub fn trace(&mut self) -> &mut Trace {
        &mut self.wire.trace
    }

    /// Ends the run: the trace, to be finished, and the processes that are alive.
    pub fn end(self) -> (Trace, BTreeMap<NodeId, P>) {
        let slots = self.slots.into_iter().enumerate();
        let processes = slots.filter_map(|(node, slot)| Some((NodeId(node as u32), slot.process?)));
        (self.wire.trace, processes.collect())
    }

    /// Lets one event happen; answers which node, if any, has its turn because of it.
    fn happen(&mut self, what: What) -> Option<NodeId> {
        let now = self.now;
        match what {
            What::Change(change) => {
                self.change(&change);
                None
            }
            What::Start(node) => {
                let slot = &mut self.slots[node.0 as usize];
                if self.wire.connectivity.dead(node) || slot.process.is_some() {
                    return None;
                }
                let crashed = slot.crashed.take();
                slot.process = Some((self.start)(node, slot.starts, crashed, now));
                slot.starts += 1;
                Some(node)
            }
            What::Report(node, peer, up) => {
                let process = self.slots[node.0 as usize].process.as_mut()?;
                let event = if up { Event::Up(peer) } else { Event::Down(peer) };
                process.handle(now, event);
                Some(node)
            }
            What::Wake(node) => {
                let slot = &mut self.slots[node.0 as usize];
                // An earlier wake was scheduled meanwhile and has come; this one is not needed any more.
                if slot.armed != now {
                    return None;
                }
                slot.armed = Instant::FAR;
                slot.process.is_some().then_some(node)
            }
            What::Retry(node) => self.slots[node.0 as usize].process.is_some().then_some(node),
            What::Done(node, piece) => self.complete(node, piece),
            What::Written(node, starts) => self.written(node, starts),
            What::Leave { from, to, len, bytes, copy } => {
                if !copy {
                    self.wire.links.release(from, to, len);
                    let sender = &mut self.slots[from.0 as usize];
                    if std::mem::take(&mut sender.blocked) {
                        self.wire.schedule(now, What::Retry(from));
                    }
                }
                let bytes = bytes?;
                let reached = self.wire.arrive(now, from, to, &bytes);
                if reached && let Some(process) = &mut self.slots[to.0 as usize].process {
                    process.handle(now, Event::Frame { from, bytes: &bytes });
                }
                self.wire.spare.push(bytes);
                reached.then_some(to)
            }
        }
    }

    fn change(&mut self, change: &Change) {
        let now = self.now;
        let wire = &mut self.wire;
        let changed = wire.connectivity.apply(change);
        wire.trace.line(now, format_args!("{change}"));
        match *change {
            Change::Crash(node) => {
                self.writes
                    .remove(&node)
                    .into_iter()
                    .flatten()
                    .take_while(|_| self.random.chance(0.5))
                    .for_each(|write| self.disks.put(node, write.slot, write.bytes));
                let slot = &mut self.slots[node.0 as usize];
                slot.crashed = slot.process.take().or(slot.crashed.take());
                slot.work = None;
                slot.piece += 1;
                slot.armed = Instant::FAR;
                slot.blocked = false;
            }
            Change::Restart(node) => wire.schedule(now, What::Start(node)),
            // Whoever found a link clogged tries again.
            Change::Healed(_) => {
                for (node, slot) in self.slots.iter_mut().enumerate() {
                    if std::mem::take(&mut slot.blocked) {
                        wire.schedule(now, What::Retry(NodeId(node as u32)));
                    }
                }
            }
            Change::Offline(_) | Change::Online(_) | Change::Cut(_) => {}
        }
        if let Some((node, up)) = changed
            && self.wire.reports
        {
            self.report(node, up);
        }
    }

    /// Tells everyone whom `node` can or could reach, and `node` itself.
    fn report(&mut self, node: NodeId, up: bool) {
        for other in (0..self.wire.nodes).map(NodeId) {
            let silent = self.wire.connectivity.offline(other) || self.wire.connectivity.dead(other);
            if other != node && !silent {
                let now = self.now;
                self.wire.schedule(now, What::Report(other, node, up));
                self.wire.schedule(now, What::Report(node, other, up));
            }
        }
    }

    /// Hands a finished piece of work back to its node.
    fn complete(&mut self, node: NodeId, piece: u64) -> Option<NodeId> {
        let index = node.0 as usize;
        if self.slots[index].piece != piece {
            return None;
        }
        let performed = self.slots[index].work.as_ref()?.performed;
        if !performed {
            self.perform();
        }
        let slot = &mut self.slots[index];
        let task = slot.work.take()?.task?;
        slot.piece += 1;
        slot.process.as_mut()?.complete(self.now, task);
        Some(node)
    }

    /// Makes the oldest write of a node durable, or fails to.
    fn written(&mut self, node: NodeId, starts: u32) -> Option<NodeId> {
        let slot = &mut self.slots[node.0 as usize];
        // What an earlier start was writing when it crashed has been dealt with.
        let process = slot.process.as_mut().filter(|_| slot.starts == starts)?;
        let Write { ticket, slot, bytes } = self.writes.get_mut(&node)?.pop_front()?;
        let durable = !self.random.chance(self.disk_failures);
        if durable {
            self.disks.put(node, slot, bytes);
        }
        process.written(self.now, ticket, durable);
        Some(node)
    }

    /// Performs all work that has begun, in parallel.
    fn perform(&mut self) {
        let mut tasks: Vec<(usize, P::Task)> = Vec::with_capacity(self.begun.len());
        for index in self.begun.drain(..) {
            let work = self.slots[index].work.as_mut();
            // The node may have crashed since, and begun anew: then it stands here twice.
            if let Some(work) = work.filter(|work| !work.performed)
                && let Some(task) = work.task.take()
            {
                tasks.push((index, task));
            }
        }
        match tasks.as_mut_slice() {
            [(_, only)] => only.perform(),
            several => several.par_iter_mut().with_max_len(1).for_each(|(_, task)| task.perform()),
        }
        for (index, task) in tasks {
            self.slots[index].work = Some(Out { task: Some(task), performed: true });
        }
    }

    /// Lets a node act: deadlines, observer, frames, work, next deadline.
    fn turn(
        &mut self,
        node: NodeId,
        observe: &mut impl FnMut(Observation<'_, P>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let now = self.now;
        let slot = &mut self.slots[node.0 as usize];
        let Some(process) = &mut slot.process else {
            return ControlFlow::Continue(());
        };
        process.wake(now);
        let verdict =
            observe(Observation { now, node, process, trace: &mut self.wire.trace, network: &self.wire.connectivity });
        slot.blocked = self.wire.send_all(now, node, process);
        while let Some(write) = process.poll_write() {
            self.writes.entry(node).or_default().push_back(write);
            self.wire.schedule(now + self.disk_latency, What::Written(node, slot.starts));
        }
        if slot.work.is_none()
            && let Some((duration, task)) = process.begin()
        {
            let slowness = self.slowness.get(&node);
            let duration = slowness.map_or(duration, |&factor| duration.mul_f64(factor));
            slot.work = Some(Out { task: Some(task), performed: false });
            self.begun.push(node.0 as usize);
            self.wire.schedule(now + duration, What::Done(node, slot.piece));
        }
        // A process that wants to be woken at once has been: time must pass before it is woken again.
        let timeout = process.timeout().max(now + Duration::from_micros(1));
        if timeout < slot.armed {
            slot.armed = timeout;
            self.wire.schedule(timeout, What::Wake(node));
        }
        verdict
    }
}

impl Wire {
    fn schedule(&mut self, at: Instant, what: What) {
        self.scheduled += 1;
        self.queue.push(Scheduled { at, sequence: self.scheduled, what });
    }

    /// Sends what the process has to send; answers whether a link was full.
    fn send_all<P: Process>(&mut self, now: Instant, from: NodeId, process: &mut P) -> bool {
        let max_frame = self.links.options().max_frame;
        let mut full = false;
        while let Some((to, len)) = process.poll(now, max_frame) {
            assert!(to != from, "{from} sends a frame to itself");
            assert!(len <= max_frame, "{from} sends {len} bytes in a frame, {max_frame} at most");
            let gone = self.reports && self.connectivity.dead(to);
            if gone || to.0 >= self.nodes {
                process.discard();
                continue;
            }
            let fate = self.links.offer(&self.connectivity, from, to, now, len);
            if fate == Fate::Full {
                self.traffic.full += 1;
                process.postpone();
                full = true;
                continue;
            }
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.resize(len, 0);
            process.fill(&mut bytes);
            self.launch(now, from, to, bytes, fate);
        }
        full
    }

    /// Puts a frame on its link.
    fn launch(&mut self, now: Instant, from: NodeId, to: NodeId, bytes: Vec<u8>, fate: Fate) {
        let len = bytes.len();
        self.traffic.frames += 1;
        self.traffic.bytes += len as u64;
        let (at, copy) = match fate {
            Fate::Lost(at) | Fate::Arrives(at, None) => (at, None),
            Fate::Arrives(at, copy) => (at, copy),
            Fate::Full => unreachable!("a refused frame is not launched"),
        };
        let cut = !self.connectivity.connected(from, to);
        let lost = matches!(fate, Fate::Lost(_));
        let event = match (cut, lost, copy) {
            (true, ..) => FrameEvent::Cut,
            (_, true, _) => FrameEvent::Lost,
            (_, _, Some(_)) => FrameEvent::Doubled,
            (_, _, None) => FrameEvent::Sent,
        };
        self.trace.frame(now, event, from, to, &bytes);
        let leave = |bytes, copy| What::Leave { from, to, len, bytes, copy };
        if cut || lost {
            self.traffic.cut += u64::from(cut);
            self.traffic.lost += u64::from(!cut);
            self.spare.push(bytes);
            self.schedule(at, leave(None, false));
            return;
        }
        if let Some(later) = copy {
            self.traffic.doubled += 1;
            let double = bytes.clone();
            self.schedule(at, leave(Some(bytes), false));
            self.schedule(later, leave(Some(double), true));
            return;
        }
        self.schedule(at, leave(Some(bytes), false));
    }

    /// Notes a frame at the end of its link; answers whether it reaches its receiver.
    fn arrive(&mut self, now: Instant, from: NodeId, to: NodeId, bytes: &[u8]) -> bool {
        // The sender may have died after sending; what is under way still arrives.
        let reached = self.connectivity.carries(from, to);
        let event = if reached {
            self.traffic.delivered += 1;
            FrameEvent::Delivered
        } else {
            self.traffic.cut += 1;
            FrameEvent::Cut
        };
        self.trace.frame(now, event, from, to, bytes);
        reached
    }
}
