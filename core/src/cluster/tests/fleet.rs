//! A few nodes, a queue of frames, and time that jumps from one event to the next.

use crate::cluster::*;
use crate::process::Process;
use crate::seed::{Random, Seed};
use crate::storage::{Slot, Storage, StorageError, Write};
use crate::time::{Duration, Instant};
use crate::transport::{Event, NodeId};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What links do to frames.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) drop: f64,
    pub(crate) double: f64,
    pub(crate) latency: Duration,
    pub(crate) jitter: Duration,
}

impl Faults {
    pub(crate) const NONE: Self =
        Self { drop: 0.0, double: 0.0, latency: Duration::from_millis(1), jitter: Duration::ZERO };
    pub(crate) const SOME: Self =
        Self { drop: 0.1, double: 0.05, latency: Duration::from_millis(1), jitter: Duration::from_millis(3) };
}

/// A message where it arrives.
pub(crate) struct Heard {
    pub(crate) at: Instant,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) message: Vec<u8>,
}

/// Slots in memory.
#[derive(Default)]
pub(crate) struct Disk(pub(crate) BTreeMap<Slot, Vec<u8>>);

impl Storage for Disk {
    fn read(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.get(&slot).cloned())
    }

    fn write(&mut self, slot: Slot, bytes: &[u8]) -> Result<(), StorageError> {
        self.0.insert(slot, bytes.to_vec());
        Ok(())
    }
}

pub(crate) struct Fleet {
    pub(crate) now: Instant,
    pub(crate) nodes: BTreeMap<u32, Node<f32>>,
    pub(crate) faults: Faults,
    /// Directed links that carry nothing.
    pub(crate) cut: BTreeSet<(u32, u32)>,
    /// Nodes whose writes fail.
    pub(crate) broken_disks: BTreeSet<u32>,
    pub(crate) outcomes: BTreeMap<u32, Vec<Outcome<f32>>>,
    pub(crate) records: Vec<Record>,
    pub(crate) max_frame: usize,
    /// Messages as they arrive, if they are wanted.
    pub(crate) heard: Option<Vec<Heard>>,
    size: u32,
    /// How nodes started from now on differ from the usual settings.
    pub(crate) adapt: fn(&mut Settings),
    rejoin: Rejoin,
    minimum: usize,
    random: Random,
    queue: BTreeMap<(Instant, u64), (u32, u32, Vec<u8>)>,
    /// What each node has made durable, and what is on its way there.
    pub(crate) disks: BTreeMap<u32, Disk>,
    writes: BTreeMap<(Instant, u64), (u32, Write)>,
    /// How long a write takes.
    pub(crate) disk_latency: Duration,
    number: u64,
}

impl Fleet {
    pub(crate) fn new(size: u32, faults: Faults, seed: u64) -> Self {
        Self::with(size, faults, seed, Rejoin::FullWeight, 2)
    }

    pub(crate) fn with(size: u32, faults: Faults, seed: u64, rejoin: Rejoin, minimum: usize) -> Self {
        Self::adapted(size, faults, seed, rejoin, minimum, |_| {})
    }

    /// A fleet whose nodes have settings that `adapt` has changed.
    pub(crate) fn adapted(
        size: u32,
        faults: Faults,
        seed: u64,
        rejoin: Rejoin,
        minimum: usize,
        adapt: fn(&mut Settings),
    ) -> Self {
        let mut fleet = Self {
            now: Instant::ORIGIN,
            nodes: BTreeMap::new(),
            faults,
            cut: BTreeSet::new(),
            broken_disks: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            records: Vec::new(),
            max_frame: 1400,
            heard: None,
            size,
            adapt,
            rejoin,
            minimum,
            random: Seed(seed).random(),
            queue: BTreeMap::new(),
            disks: BTreeMap::new(),
            writes: BTreeMap::new(),
            disk_latency: Duration::from_micros(700),
            number: 0,
        };
        for node in 0..size {
            fleet.start(node, 1);
        }
        fleet
    }

    /// How many nodes are configured.
    pub(crate) fn size(&self) -> usize {
        self.size as usize
    }

    /// Starts a node, anew if it was there.
    pub(crate) fn start(&mut self, node: u32, incarnation: u64) {
        let peers = (0..self.size).map(NodeId).collect();
        let mut settings = Settings::new(RunId(7), NodeId(node), Incarnation(incarnation), peers, Budget::default());
        settings.rejoin = self.rejoin;
        settings.minimum = self.minimum;
        (self.adapt)(&mut settings);
        let persisted = Persisted::read(self.disks.entry(node).or_default()).expect("an undamaged disk");
        let mut started = Node::recover(settings, self.now, persisted);
        started.set_status(Status::Training);
        self.nodes.insert(node, started);
        self.outcomes.entry(node).or_default();
    }

    pub(crate) fn kill(&mut self, node: u32) {
        self.collect(node);
        self.nodes.remove(&node);
        // What was being written may be there or not; nothing after what is not.
        let mut lost = false;
        for (at, (writer, write)) in core::mem::take(&mut self.writes) {
            if writer != node {
                self.writes.insert(at, (writer, write));
                continue;
            }
            lost |= self.random.chance(0.5);
            if !lost {
                self.disks.entry(node).or_default().write(write.slot, &write.bytes).expect("memory");
            }
        }
    }

    /// Cuts all links between these groups, both ways.
    pub(crate) fn partition(&mut self, one: &[u32], other: &[u32]) {
        for &a in one {
            for &b in other {
                self.cut.insert((a, b));
                self.cut.insert((b, a));
            }
        }
    }

    /// Lets `node` contribute `len` values that are `value` with weight `weight`.
    pub(crate) fn contribute(&mut self, node: u32, len: usize, value: f32, weight: f64) {
        let now = self.now;
        let target = self.nodes.get_mut(&node).unwrap();
        let mut contribution = target.spare();
        contribution.clear();
        contribution.segment("weights", len, weight).fill(value);
        target.contribute(now, contribution);
        self.after(node);
    }

    /// Lets everybody contribute; node i its number, with weight i + 1.
    pub(crate) fn contribute_all(&mut self, len: usize) {
        let nodes: Vec<u32> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.contribute(node, len, node as f32, f64::from(node) + 1.0);
        }
    }

    pub(crate) fn settle_in(&mut self) {
        self.run(Duration::from_millis(60));
    }

    /// Lets `span` pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.run_until(end, |_| false);
    }

    /// Lets time pass until `done` or `end`; answers whether it was `done`.
    pub(crate) fn run_until(&mut self, end: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        let nodes: Vec<u32> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.after(node);
        }
        let mut steps = 0;
        loop {
            if done(self) {
                return true;
            }
            steps += 1;
            assert!(steps < 2_000_000, "the fleet spins at {}", self.now);
            let timer = self.nodes.iter().map(|(&id, node)| (node.timeout(), id)).min();
            let frame = self.queue.keys().next().copied();
            let timer_at = timer.map_or(Instant::FAR, |timer| timer.0);
            let frame_at = frame.map_or(Instant::FAR, |frame| frame.0);
            let write_at = self.writes.keys().next().map_or(Instant::FAR, |write| write.0);
            let next = timer_at.min(frame_at).min(write_at);
            if next > end {
                self.now = end;
                return done(self);
            }
            self.now = self.now.max(next);
            if write_at <= next {
                let (_, (id, write)) = self.writes.pop_first().unwrap();
                let broken = self.broken_disks.contains(&id);
                if !broken {
                    self.disks.entry(id).or_default().write(write.slot, &write.bytes).expect("memory");
                }
                self.nodes.get_mut(&id).unwrap().written(self.now, write.ticket, !broken);
                self.after(id);
            } else if frame_at <= timer_at {
                let (from, to, bytes) = self.queue.remove(&frame.unwrap()).unwrap();
                if let Some(node) = self.nodes.get_mut(&to)
                    && !self.cut.contains(&(from, to))
                {
                    if let Some(heard) = &mut self.heard
                        && let Ok(frame) = wire::decode(&bytes)
                        && let wire::Body::Segment { total, data, .. } = frame.body
                        && data.len() == total as usize
                    {
                        heard.push(Heard { at: self.now, from, to, message: data.to_vec() });
                    }
                    node.handle(self.now, Event::Frame { from: NodeId(from), bytes: &bytes });
                    self.after(to);
                }
            } else {
                let id = timer.unwrap().1;
                self.nodes.get_mut(&id).unwrap().wake(self.now);
                self.after(id);
            }
        }
    }

    /// Sends what a node wants sent and collects what it says.
    fn after(&mut self, id: u32) {
        loop {
            let Some(node) = self.nodes.get_mut(&id) else { return };
            let Some((to, len)) = node.poll(self.now, self.max_frame) else { break };
            assert!(len <= self.max_frame);
            assert_eq!(node.poll(self.now, self.max_frame), Some((to, len)), "asking changes nothing");
            let mut bytes = alloc::vec![0xaa; len];
            node.fill(&mut bytes);
            let copies = 1 + u32::from(self.random.chance(self.faults.double));
            for _ in 0..copies {
                let lost = self.random.chance(self.faults.drop);
                let jitter = self.faults.jitter.mul_f64(self.random.uniform());
                if !lost && !self.cut.contains(&(id, to.0)) {
                    self.number += 1;
                    let at = self.now + self.faults.latency + jitter;
                    self.queue.insert((at, self.number), (id, to.0, bytes.clone()));
                }
            }
        }
        while let Some(write) = self.nodes.get_mut(&id).and_then(Node::poll_write) {
            self.number += 1;
            self.writes.insert((self.now + self.disk_latency, self.number), (id, write));
        }
        self.collect(id);
    }

    fn collect(&mut self, id: u32) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        while let Some(record) = node.poll_record() {
            self.records.push(record);
        }
        while let Some(outcome) = node.poll_outcome() {
            self.outcomes.entry(id).or_default().push(outcome);
        }
    }

    /// Whether every live node has an outcome; takes none.
    pub(crate) fn all_have_outcomes(&self) -> bool {
        self.nodes.keys().all(|node| !self.outcomes[node].is_empty())
    }

    /// Runs until every live node has an outcome and gives these, at most one per node.
    pub(crate) fn outcomes(&mut self, within: Duration) -> BTreeMap<u32, Outcome<f32>> {
        let end = self.now + within;
        let done = self.run_until(end, Self::all_have_outcomes);
        assert!(done, "no outcome within {within:?}:\n{}", self.trace());
        let mut all = BTreeMap::new();
        for (&node, outcomes) in &mut self.outcomes {
            assert!(outcomes.len() <= 1, "{node} has {} outcomes", outcomes.len());
            if let Some(outcome) = outcomes.pop() {
                all.insert(node, outcome);
            }
        }
        all
    }

    /// Records without times, one line each, of those that `keep` keeps.
    pub(crate) fn lines(&self, keep: impl Fn(&Record) -> bool) -> Vec<String> {
        let kept = self.records.iter().filter(|record| keep(record));
        kept.map(|record| alloc::format!("{} {}", record.node, record.what)).collect()
    }

    pub(crate) fn trace(&self) -> String {
        let lines: Vec<String> = self.records.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    /// Certificates committed so far, by node.
    pub(crate) fn certificates(&self, node: u32) -> Vec<Certificate> {
        self.records
            .iter()
            .filter(|record| record.node == NodeId(node))
            .filter_map(|record| match &record.what {
                Occurrence::Committed { certificate } => Some(Certificate::clone(certificate)),
                _ => None,
            })
            .collect()
    }
}

pub(crate) fn committed(outcome: &Outcome<f32>) -> (&Certificate, &Contribution<f32>) {
    match outcome {
        Outcome::Committed { certificate, average } => (certificate, average),
        other => panic!("not committed: {other:?}"),
    }
}

pub(crate) fn members(certificate: &Certificate) -> Vec<u32> {
    certificate.members.iter().map(|member| member.node.0).collect()
}
