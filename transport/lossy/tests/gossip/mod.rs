//! A small process whose state depends on everything that reaches it.

use kronfleet_core::process::{Process, Task, Work};
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId};
use std::collections::{BTreeSet, VecDeque};

/// Computes on what it has heard, and tells everybody.
pub(crate) struct Gossip {
    pub node: NodeId,
    pub nodes: u32,
    pub state: u64,
    pub starts: u32,
    pub working: bool,
    pub steps: u32,
    pub due: Instant,
    pub out: VecDeque<(NodeId, Vec<u8>)>,
    pub full: BTreeSet<NodeId>,
    pub heard: u64,
    pub reports: Vec<(NodeId, bool)>,
}

/// One piece of its work.
pub(crate) struct Step(u64);

impl Task for Step {
    fn perform(&mut self) {
        let mut random: Random = Seed(self.0).random();
        self.0 = (0..100).fold(self.0, |sum, _| sum ^ random.bits());
    }
}

impl Gossip {
    pub(crate) fn new(node: NodeId, nodes: u32, starts: u32, now: Instant) -> Self {
        Self {
            node,
            nodes,
            state: u64::from(node.0) + 1000 * u64::from(starts),
            starts,
            working: false,
            steps: 0,
            due: now + Duration::from_millis(5),
            out: VecDeque::new(),
            full: BTreeSet::new(),
            heard: 0,
            reports: Vec::new(),
        }
    }

    pub(crate) fn tell(&mut self, len: usize) {
        for peer in (0..self.nodes).map(NodeId).filter(|&peer| peer != self.node) {
            let mut bytes = vec![self.node.0 as u8; len.max(8)];
            bytes[..8].copy_from_slice(&self.state.to_le_bytes());
            self.out.push_back((peer, bytes));
        }
    }

    /// The oldest frame whose link is not known to be full.
    fn next(&self) -> Option<usize> {
        self.out.iter().position(|(to, _)| !self.full.contains(to))
    }

    fn take(&mut self) -> (NodeId, Vec<u8>) {
        let index = self.next().unwrap();
        self.out.remove(index).unwrap()
    }
}

impl Process for Gossip {
    fn handle(&mut self, _: Instant, event: Event<'_>) {
        match event {
            Event::Frame { from, bytes } => {
                assert!(bytes[8..].iter().all(|&byte| byte == from.0 as u8));
                let value = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                self.state = self.state.rotate_left(7) ^ value;
                self.heard += 1;
            }
            Event::Up(peer) => self.reports.push((peer, true)),
            Event::Down(peer) => self.reports.push((peer, false)),
        }
    }

    fn wake(&mut self, now: Instant) {
        self.full.clear();
        if self.due <= now {
            self.due = now + Duration::from_millis(5);
            self.tell(100);
        }
    }

    fn timeout(&self) -> Instant {
        self.due
    }

    fn poll(&mut self, _: Instant, _: usize) -> Option<(NodeId, usize)> {
        self.next().map(|index| (self.out[index].0, self.out[index].1.len()))
    }

    fn fill(&mut self, target: &mut [u8]) {
        let (_, bytes) = self.take();
        target.copy_from_slice(&bytes);
    }

    fn discard(&mut self) {
        self.take();
    }

    fn postpone(&mut self) {
        let index = self.next().unwrap();
        self.full.insert(self.out[index].0);
    }
}

impl Work for Gossip {
    type Task = Step;

    fn begin(&mut self) -> Option<(Duration, Step)> {
        assert!(!self.working, "one piece at a time");
        self.working = true;
        Some((Duration::from_millis(2), Step(self.state)))
    }

    fn complete(&mut self, _: Instant, task: Step) {
        self.working = false;
        self.steps += 1;
        self.state ^= task.0;
        self.tell(8);
    }
}
