//! The same lossy network in real time: a [`Transport`] between threads of one process.
//!
//! # For users
//! A [`LossyNetwork`] is made once; each node takes its [`LossyEndpoint`]. Dropping an endpoint is the death
//! of its node, taking it again a restart. Scheduled faults happen by themselves as time passes.
//!
//! # For implementers
//! One lock guards the whole network and is never held while a caller's function runs. There is no thread of
//! its own: whoever sends or receives first applies the faults that are due, and a receiver sleeps no longer
//! than until the next one.

use crate::fault::Change;
use crate::link::Fate;
use crate::network::{Connectivity, Links, NetworkOptions, Traffic};
use kronfleet_core::error::ErrorKind;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Lossy links between threads of one process, in real time.
///
/// A handle: clones refer to the same network.
///
/// ```
/// use kronfleet_core::seed::Seed;
/// use kronfleet_core::time::Duration;
/// use kronfleet_core::transport::{Event, NodeId, Transport};
/// use kronfleet_lossy::endpoint::LossyNetwork;
/// use kronfleet_lossy::network::NetworkOptions;
///
/// let network = LossyNetwork::new(NetworkOptions::new(2, Seed(7)));
/// let (mut one, mut other) = (network.endpoint(NodeId(0)), network.endpoint(NodeId(1)));
/// one.send(NodeId(1), 5, &mut |frame| frame.copy_from_slice(b"hello")).unwrap();
/// let deadline = other.now() + Duration::from_secs(5);
/// let heard = other.recv(deadline, &mut |event| assert_eq!(event, Event::Frame { from: NodeId(0), bytes: b"hello" }));
/// assert!(heard.unwrap());
/// ```
#[derive(Clone)]
pub struct LossyNetwork(Arc<Shared>);

struct Shared {
    started: std::time::Instant,
    max_frame: usize,
    reports: bool,
    state: Mutex<State>,
    /// One per node, so that a frame wakes its receiver alone.
    news: Vec<Condvar>,
}

struct State {
    links: Links,
    connectivity: Connectivity,
    faults: VecDeque<(Instant, Change)>,
    inboxes: Vec<Inbox>,
    accepted: u64,
    traffic: Traffic,
}

#[derive(Default)]
struct Inbox {
    taken: bool,
    woken: bool,
    arrivals: BinaryHeap<Arrival>,
    reports: VecDeque<(NodeId, bool)>,
}

/// A frame on its way; `bytes` of a lost one is absent, its length is not.
struct Arrival {
    at: Instant,
    sequence: u64,
    from: NodeId,
    len: usize,
    bytes: Option<Vec<u8>>,
    copy: bool,
}

impl Ord for Arrival {
    /// The earliest, then the first sent, is the greatest, as the heap hands out the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Arrival {}

impl LossyNetwork {
    /// A network whose time begins now.
    pub fn new(options: NetworkOptions) -> Self {
        let nodes = options.nodes as usize;
        Self(Arc::new(Shared {
            started: std::time::Instant::now(),
            max_frame: options.link.max_frame,
            reports: options.reports,
            state: Mutex::new(State {
                links: Links::new(options.seed, options.link, options.sites),
                faults: options.faults.events().into(),
                connectivity: Connectivity::new(options.faults),
                inboxes: (0..nodes).map(|_| Inbox::default()).collect(),
                accepted: 0,
                traffic: Traffic::default(),
            }),
            news: (0..nodes).map(|_| Condvar::new()).collect(),
        }))
    }

    /// Takes the end of `node`; after it was dropped, this is a restart.
    ///
    /// # Panics
    /// If the network has no such node or its end is taken.
    #[track_caller]
    pub fn endpoint(&self, node: NodeId) -> LossyEndpoint {
        let mut state = self.state();
        let nodes = state.inboxes.len();
        let Some(inbox) = state.inboxes.get_mut(node.0 as usize) else {
            panic!("{node} is not one of {nodes} nodes");
        };
        assert!(!inbox.taken, "the end of {node} is taken already");
        inbox.taken = true;
        self.change(&mut state, &Change::Restart(node));
        LossyEndpoint { network: self.clone(), node }
    }

    /// The time since the network was made.
    pub fn now(&self) -> Instant {
        Instant::ORIGIN + self.0.started.elapsed()
    }

    /// Whether a scheduled crash has killed `node`.
    pub fn dead(&self, node: NodeId) -> bool {
        let mut state = self.state();
        self.advance(&mut state);
        state.connectivity.dead(node)
    }

    /// Waits until `node` is not dead or `deadline` has come; answers whether it is alive.
    pub fn wait_alive(&self, node: NodeId, deadline: Instant) -> bool {
        let mut state = self.state();
        loop {
            let next = self.advance(&mut state);
            if !state.connectivity.dead(node) {
                return true;
            }
            if self.now() >= deadline {
                return false;
            }
            state = self.wait(state, node, next.min(deadline));
            if std::mem::take(&mut state.inboxes[node.0 as usize].woken) {
                return !state.connectivity.dead(node);
            }
        }
    }

    /// What the links carried so far.
    pub fn traffic(&self) -> Traffic {
        self.state().traffic
    }

    /// Makes the [`recv`](Transport::recv) that `node` waits in, or the next one, come back without an event.
    ///
    /// For work done on another thread, whose result the node should not sleep over.
    pub fn wake(&self, node: NodeId) {
        self.state().inboxes[node.0 as usize].woken = true;
        self.0.news[node.0 as usize].notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No caller's function runs under the lock, so a panic elsewhere has left the state whole.
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies the faults that are due; answers when the next one is.
    fn advance(&self, state: &mut State) -> Instant {
        let now = self.now();
        while let Some((at, change)) = state.faults.front() {
            if *at > now {
                return *at;
            }
            let change = change.clone();
            state.faults.pop_front();
            self.change(state, &change);
        }
        Instant::FAR
    }

    fn change(&self, state: &mut State, change: &Change) {
        let changed = state.connectivity.apply(change);
        if let Change::Crash(node) | Change::Restart(node) = change {
            // A killed node waits for nothing any more, a restarted one has not heard what its former self did.
            let State { links, inboxes, .. } = state;
            let inbox = &mut inboxes[node.0 as usize];
            if matches!(change, Change::Crash(_)) {
                for frame in inbox.arrivals.drain().filter(|frame| !frame.copy) {
                    links.release(frame.from, *node, frame.len);
                }
                inbox.reports.clear();
            }
            self.0.news[node.0 as usize].notify_all();
        }
        let Some((node, up)) = changed.filter(|_| self.0.reports) else {
            return;
        };
        for other in (0..state.inboxes.len() as u32).map(NodeId) {
            let silent = state.connectivity.offline(other) || state.connectivity.dead(other);
            if other != node && !silent {
                for (whom, about) in [(other, node), (node, other)] {
                    let inbox = &mut state.inboxes[whom.0 as usize];
                    inbox.reports.push_back((about, up));
                    self.0.news[whom.0 as usize].notify_all();
                }
            }
        }
    }

    /// Sleeps until there may be news for `node` or `until` has come.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, node: NodeId, until: Instant) -> MutexGuard<'a, State> {
        // Condition variables take no endless time.
        let span = until.since(self.now()).min(Duration::from_secs(3600));
        let waited = self.0.news[node.0 as usize].wait_timeout(state, span);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// One node's end of a [`LossyNetwork`].
pub struct LossyEndpoint {
    network: LossyNetwork,
    node: NodeId,
}

impl LossyEndpoint {
    /// The network this is an end of.
    pub fn network(&self) -> &LossyNetwork {
        &self.network
    }
}

impl Transport for LossyEndpoint {
    fn local(&self) -> NodeId {
        self.node
    }

    fn max_frame(&self) -> usize {
        self.network.0.max_frame
    }

    fn now(&self) -> Instant {
        self.network.now()
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        let from = self.node;
        assert!(to != from, "{from} sends a frame to itself");
        assert!(len <= self.max_frame(), "{from} sends {len} bytes in a frame, {} at most", self.max_frame());
        let mut guard = self.network.state();
        let state = &mut *guard;
        self.network.advance(state);
        let nodes = state.inboxes.len();
        let unreachable = |reason: String| Err(TransportError { kind: ErrorKind::Unreachable, peer: Some(to), reason });
        if to.0 as usize >= nodes {
            return unreachable(format!("not one of the {nodes} nodes of this network"));
        }
        if self.network.0.reports && state.connectivity.dead(to) {
            return unreachable("dead; it can be reached once it is started again".into());
        }
        let now = self.network.now();
        let fate = state.links.offer(&state.connectivity, from, to, now, len);
        if fate == Fate::Full {
            state.traffic.full += 1;
            return Ok(Sent::Full);
        }
        drop(guard);
        let mut bytes = vec![0; len];
        fill(&mut bytes);
        self.launch(to, bytes, fate);
        Ok(Sent::Accepted)
    }

    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        let network = &self.network;
        let index = self.node.0 as usize;
        let mut state = network.state();
        loop {
            let next_fault = network.advance(&mut state);
            let now = network.now();
            let inbox = &mut state.inboxes[index];
            if let Some((peer, up)) = inbox.reports.pop_front() {
                drop(state);
                sink(if up { Event::Up(peer) } else { Event::Down(peer) });
                return Ok(true);
            }
            let due = inbox.arrivals.peek().map_or(Instant::FAR, |first| first.at);
            if due <= now {
                let arrival = inbox.arrivals.pop().expect("peeked above");
                let Some((from, bytes)) = state.take(self.node, arrival) else {
                    continue;
                };
                drop(state);
                sink(Event::Frame { from, bytes: &bytes });
                return Ok(true);
            }
            if now >= deadline || std::mem::take(&mut inbox.woken) {
                return Ok(false);
            }
            state = network.wait(state, self.node, deadline.min(due).min(next_fault));
        }
    }
}

impl LossyEndpoint {
    /// Puts a frame on its link.
    fn launch(&self, to: NodeId, bytes: Vec<u8>, fate: Fate) {
        let from = self.node;
        let mut state = self.network.state();
        let state = &mut *state;
        state.traffic.frames += 1;
        state.traffic.bytes += bytes.len() as u64;
        let len = bytes.len();
        if state.connectivity.dead(to) {
            state.traffic.cut += 1;
            state.links.release(from, to, len);
            return;
        }
        let cut = !state.connectivity.connected(from, to);
        let mut push = |at, bytes, copy| {
            state.accepted += 1;
            state.inboxes[to.0 as usize].arrivals.push(Arrival {
                at,
                sequence: state.accepted,
                from,
                len,
                bytes,
                copy,
            });
        };
        match fate {
            Fate::Arrives(at, None) if !cut => push(at, Some(bytes), false),
            Fate::Arrives(at, Some(later)) if !cut => {
                push(at, Some(bytes.clone()), false);
                push(later, Some(bytes), true);
                state.traffic.doubled += 1;
            }
            Fate::Lost(at) | Fate::Arrives(at, _) => {
                push(at, None, false);
                state.traffic.cut += u64::from(cut);
                state.traffic.lost += u64::from(!cut);
            }
            Fate::Full => unreachable!("a refused frame is not launched"),
        }
        self.network.0.news[to.0 as usize].notify_all();
    }
}

impl Drop for LossyEndpoint {
    /// The node is dead: what is under way to it is lost, peers are told if this network reports.
    fn drop(&mut self) {
        let mut state = self.network.state();
        state.inboxes[self.node.0 as usize].taken = false;
        self.network.change(&mut state, &Change::Crash(self.node));
    }
}

impl State {
    /// Takes a frame off its link; answers it if it reaches its receiver.
    fn take(&mut self, to: NodeId, arrival: Arrival) -> Option<(NodeId, Vec<u8>)> {
        let from = arrival.from;
        if !arrival.copy {
            self.links.release(from, to, arrival.len);
        }
        let bytes = arrival.bytes?;
        if !self.connectivity.carries(from, to) {
            self.traffic.cut += 1;
            return None;
        }
        self.traffic.delivered += 1;
        Some((from, bytes))
    }
}
