//! The smallest transport that obeys all laws: queues in memory. It shows an implementer what is asked for,
//! and carries the [`mutants`](super::mutant).

use super::{Fabric, Promise};
use kronfleet_core::error::ErrorKind;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may wait for one receiver.
const ROOM: usize = 64 << 10;

/// Makes connected [`CorridorEnd`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct Corridor;

impl Fabric for Corridor {
    type End = CorridorEnd;

    fn connect(&mut self, nodes: u32) -> Vec<CorridorEnd> {
        let boxes = Arc::new(Boxes {
            started: std::time::Instant::now(),
            waiting: Mutex::new((0..nodes).map(|_| Waiting { alive: true, ..Waiting::default() }).collect()),
            news: Condvar::new(),
        });
        (0..nodes).map(|node| CorridorEnd { local: NodeId(node), boxes: boxes.clone() }).collect()
    }

    fn promise(&self) -> Promise {
        Promise { settle: Duration::from_millis(500), ..Promise::RELIABLE }
    }
}

/// One node's end of a corridor.
pub struct CorridorEnd {
    local: NodeId,
    boxes: Arc<Boxes>,
}

/// What waits for each node.
struct Boxes {
    started: std::time::Instant,
    waiting: Mutex<Vec<Waiting>>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    alive: bool,
    bytes: usize,
    frames: VecDeque<(NodeId, Vec<u8>)>,
    down: VecDeque<NodeId>,
}

impl Boxes {
    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for CorridorEnd {
    fn local(&self) -> NodeId {
        self.local
    }

    fn max_frame(&self) -> usize {
        4096
    }

    fn now(&self) -> Instant {
        Instant::ORIGIN + self.boxes.started.elapsed()
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        assert!(to != self.local, "{to} sends a frame to itself");
        assert!(len <= self.max_frame(), "{len} bytes in a frame, {} at most", self.max_frame());
        let room = |waiting: &[Waiting]| match waiting.get(to.0 as usize) {
            Some(waiting) if waiting.alive => Ok(waiting.bytes + len <= ROOM),
            _ => Err(TransportError {
                kind: ErrorKind::Unreachable,
                peer: Some(to),
                reason: "no such node, or dead".into(),
            }),
        };
        if !room(&self.boxes.lock())? {
            return Ok(Sent::Full);
        }
        // Filled without the lock: what the caller does takes time. Nobody else makes room smaller by more
        // than one frame each, so the bound is soft and the promise firm.
        let mut bytes = vec![0; len];
        fill(&mut bytes);
        let mut waiting = self.boxes.lock();
        let target = &mut waiting[to.0 as usize];
        target.bytes += len;
        target.frames.push_back((self.local, bytes));
        self.boxes.news.notify_all();
        Ok(Sent::Accepted)
    }

    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        let mut waiting = self.boxes.lock();
        loop {
            let mine = &mut waiting[self.local.0 as usize];
            if let Some((from, bytes)) = mine.frames.pop_front() {
                mine.bytes -= bytes.len();
                drop(waiting);
                sink(Event::Frame { from, bytes: &bytes });
                return Ok(true);
            }
            if let Some(peer) = mine.down.pop_front() {
                drop(waiting);
                sink(Event::Down(peer));
                return Ok(true);
            }
            let now = self.now();
            if now >= deadline {
                return Ok(false);
            }
            let span = deadline.since(now).min(Duration::from_secs(3600));
            let woken = self.boxes.news.wait_timeout(waiting, span);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for CorridorEnd {
    fn drop(&mut self) {
        let mut waiting = self.boxes.lock();
        for (node, other) in waiting.iter_mut().enumerate() {
            if node == self.local.0 as usize {
                *other = Waiting::default();
            } else {
                other.down.push_back(self.local);
            }
        }
        self.boxes.news.notify_all();
    }
}
