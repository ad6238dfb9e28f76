//! One node's end: a [`Transport`] over TCP.
//!
//! # For users
//! [`TcpEndpoint::open`] listens and begins to join; [`Event::Up`] tells who can be reached. Dropping an end says
//! goodbye. Whatever the end has to do (accept, dial, greet, relay) it does within [`recv`](Transport::recv), on the
//! caller's thread: it has to be called again and again, as `drive` does. An end of which a later start of its node is known
//! to a peer fails with [`ErrorKind::Superseded`]: it would be refused by everybody for ever.
//!
//! # For implementers
//! `dialling` makes connections, `greeting` turns them into links, `dispatch` takes in what arrives, `routing` says who
//! can be reached how, `timers` does what is due.

mod dialling;
mod dispatch;
mod greeting;
mod routing;
mod timers;

pub(crate) use dispatch::read_neighbours;

use crate::book::{Book, Entry, MOST_ADDRESSES};
use crate::connection::{Connection, Stage};
use crate::frame::Kind;
use crate::incident::{Counters, Incident};
use crate::link::{Link, Seed};
use crate::options::Options;
use crate::parley::Terms;
use crate::resolver::Resolver;
use kronfleet_core::cluster::Incarnation;
use kronfleet_core::error::ErrorKind;
use kronfleet_core::seed::Random;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// Bytes that are written at once, without waiting for more: what fills a packet of the loopback interface. What goes
/// beyond one costs a second.
const FLUSH: usize = 60 << 10;
/// Events handed out before what waits to be sent is written and all sockets are looked at, however much there is.
const PATIENCE: u32 = 8;
/// How often sockets are looked at before waiting for them, at least.
const FEWEST_GLANCES: u32 = 4;
/// The same, at most: about the time of three wake-ups.
const MOST_GLANCES: u32 = 256;
/// A wait that is shorter than this would have been better spent looking.
///
/// Longer than a few wake-ups: two nodes that both wait for each other's would never find out otherwise.
const NAP: Duration = Duration::from_micros(400);
/// Incidents kept for whoever takes them.
const INCIDENTS: usize = 256;

/// One node's end.
pub struct TcpEndpoint {
    options: Options,
    terms: Terms,
    started: std::time::Instant,
    random: Random,
    poll: Poll,
    events: Events,
    waker: Waker,
    resolver: Resolver,
    listener: Option<TcpListener>,
    listening: Option<SocketAddr>,
    /// Somebody may be waiting to be accepted.
    knocking: bool,
    /// No accepting before this: the system had no room.
    accept_after: Instant,
    connections: Vec<Option<Box<Connection>>>,
    vacant: Vec<usize>,
    ready: VecDeque<usize>,
    unflushed: Vec<usize>,
    /// Events handed out since sockets were looked at.
    served: u32,
    /// How often sockets are looked at before waiting: more where peers answer at once, fewer where it is in vain.
    glances: u32,
    links: BTreeMap<NodeId, Link>,
    book: Book,
    seeds: Vec<Seed>,
    dialled: u64,
    /// When something is due.
    timer: Instant,
    reports: VecDeque<(NodeId, bool)>,
    incidents: VecDeque<Incident>,
    counters: Counters,
    /// Who knows of a later start of this node, and of which.
    superseded: Option<(NodeId, Incarnation)>,
}

/// Makes the [`recv`](Transport::recv) that an end waits in, or the next one, come back without an event.
///
/// For work done on another thread, whose result the node should not sleep over.
#[derive(Clone, Debug)]
pub struct Waker {
    called: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
}

impl Waker {
    /// Wakes the end.
    pub fn wake(&self) {
        self.called.store(true, Ordering::Release);
        // Fails only if the system is out of resources; then the end wakes at its deadline.
        let _ = self.waker.wake();
    }
}

impl TcpEndpoint {
    /// Listens, and begins to join the run.
    ///
    /// # Errors
    /// If it cannot listen, or would talk to other machines without certificates and without
    /// [`insecure`](Options::insecure).
    ///
    /// # Panics
    /// If the longest frame is shorter than 256 bytes or the node's number is not below [`nodes`](Options::nodes).
    #[track_caller]
    pub fn open(options: Options) -> Result<Self, TransportError> {
        let (local, nodes) = (options.node, options.nodes);
        assert!((256..1 << 30).contains(&options.max_frame), "the longest frame has {} bytes", options.max_frame);
        assert!(local.0 < nodes, "{local} is not one of {nodes} nodes");
        assert!(options.advertise.len() <= MOST_ADDRESSES, "{} addresses advertised", options.advertise.len());
        options.check()?;
        let poll = Poll::new().map_err(|error| failure("cannot watch sockets", &error))?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(|error| failure("cannot be woken", &error))?;
        let waker = Waker { called: Arc::default(), waker: Arc::new(waker) };
        let mut end = Self {
            terms: Terms { run: options.run, node: local, nodes, longest: options.max_frame as u32 },
            started: std::time::Instant::now(),
            random: options.seed.derive("tcp", u64::from(local.0)).random(),
            poll,
            events: Events::with_capacity(256),
            resolver: Resolver::new(waker.waker.clone()),
            waker,
            listener: None,
            listening: None,
            knocking: false,
            accept_after: Instant::ORIGIN,
            connections: Vec::new(),
            vacant: Vec::new(),
            ready: VecDeque::new(),
            unflushed: Vec::new(),
            served: 0,
            glances: FEWEST_GLANCES,
            links: BTreeMap::new(),
            book: Book::default(),
            seeds: options.seeds.iter().map(|host| Seed::new(host)).collect(),
            dialled: 0,
            timer: Instant::ORIGIN,
            reports: VecDeque::new(),
            incidents: VecDeque::new(),
            counters: Counters::default(),
            superseded: None,
            options,
        };
        end.listen()?;
        Ok(end)
    }

    /// Where this end listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listening
    }

    /// Which start of the node this is.
    pub fn incarnation(&self) -> Incarnation {
        self.options.incarnation
    }

    /// The nodes to which there is a connection, in their order.
    pub fn neighbours(&self) -> impl Iterator<Item = NodeId> {
        self.links.iter().filter(|(_, link)| link.open.is_some()).map(|(&node, _)| node)
    }

    /// The nodes that can be reached, directly or through others, in their order.
    pub fn reachable(&self) -> impl Iterator<Item = NodeId> {
        self.links.iter().filter(|(_, link)| link.reported).map(|(&node, _)| node)
    }

    /// What is known of others' addresses.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes the next of the last connections that ended; the oldest are forgotten first.
    pub fn next_incident(&mut self) -> Option<Incident> {
        self.incidents.pop_front()
    }

    /// Something with which another thread can wake this end.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn listen(&mut self) -> Result<(), TransportError> {
        let local = self.options.node;
        if let Some(address) = self.options.listen {
            let failed = |error| failure(&format!("{local} cannot listen on {address}; is the port taken?"), &error);
            let mut listener = TcpListener::bind(address).map_err(failed)?;
            self.listening = Some(listener.local_addr().map_err(failed)?);
            self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(failed)?;
            self.listener = Some(listener);
            self.knocking = true;
        }
        let addresses = match self.listening {
            _ if !self.options.advertise.is_empty() => self.options.advertise.clone(),
            Some(address) if !address.ip().is_unspecified() => vec![address],
            _ => Vec::new(),
        };
        self.book.learn(local, Entry { incarnation: self.options.incarnation, addresses });
        Ok(())
    }

    /// Something has changed: what is due has to be looked at anew.
    fn stir(&mut self) {
        self.timer = Instant::ORIGIN;
    }

    /// Why this end is of no use any more.
    fn replaced(&self, by: NodeId, newest: Incarnation) -> TransportError {
        let Options { node, incarnation, .. } = &self.options;
        let reason = format!(
            "knows a later start of {node}, {newest}, which has taken the place of this one, {incarnation}: was it started \
             twice, or is the clock behind?"
        );
        TransportError { kind: ErrorKind::Superseded, peer: Some(by), reason }
    }

    fn queue(ready: &mut VecDeque<usize>, token: usize, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.queued, true) {
            ready.push_back(token);
        }
    }

    /// Remembers that `connection` has something to write.
    fn owe(&mut self, token: usize, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.unflushed, true) {
            self.unflushed.push(token);
        }
    }

    /// Writes whatever waits, as far as sockets take it.
    fn flush(&mut self) {
        for token in std::mem::take(&mut self.unflushed) {
            let Some(mut connection) = self.connections[token].take() else {
                continue;
            };
            connection.unflushed = false;
            self.write_owed(&mut connection);
            connection.flush();
            if !connection.is_sound() {
                Self::queue(&mut self.ready, token, &mut connection);
            }
            self.connections[token] = Some(connection);
        }
    }

    /// Waits for sockets until `until`, and notes what they have.
    fn watch(&mut self, until: Instant) -> Result<(), TransportError> {
        self.served = 0;
        let span = until.since(self.now());
        match self.poll.poll(&mut self.events, Some(span)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(failure("cannot wait for sockets", &error));
            }
            Err(_) | Ok(()) => {}
        }
        for event in &self.events {
            match event.token() {
                LISTENER => self.knocking = true,
                // Whoever calls leaves a note of his own.
                WAKER => {}
                Token(token) => {
                    let Some(Some(connection)) = self.connections.get_mut(token) else {
                        continue;
                    };
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        connection.readable = true;
                    }
                    if connection.stage == Stage::Connecting || connection.readable {
                        Self::queue(&mut self.ready, token, connection);
                    }
                    if event.is_writable() && !std::mem::replace(&mut connection.unflushed, true) {
                        self.unflushed.push(token);
                    }
                }
            }
        }
        if self.knocking {
            self.accept();
        }
        while let Some((seed, addresses)) = self.resolver.next() {
            self.resolved(seed, addresses);
        }
        Ok(())
    }
}

impl Transport for TcpEndpoint {
    fn local(&self) -> NodeId {
        self.options.node
    }

    fn max_frame(&self) -> usize {
        self.options.max_frame
    }

    fn now(&self) -> Instant {
        Instant::ORIGIN + self.started.elapsed()
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        let local = self.options.node;
        assert!(to != local, "{to} sends a frame to itself");
        assert!(
            len <= self.options.max_frame,
            "{local} sends {len} bytes in a frame, {} at most",
            self.options.max_frame
        );
        let unreachable =
            |reason: &str| TransportError { kind: ErrorKind::Unreachable, peer: Some(to), reason: reason.into() };
        let token = self.route(to).ok_or_else(|| unreachable("no connection, and nobody who relays"))?;
        let connection = self.connections[token].as_mut().expect("routes lead along open connections");
        if !connection.has_room(len) {
            connection.flush();
        }
        if !connection.is_sound() {
            Self::queue(&mut self.ready, token, connection);
            return Err(unreachable("the connection has just broken"));
        }
        if !connection.has_room(len) {
            self.counters.full += 1;
            return Ok(Sent::Full);
        }
        connection.write(Kind::Data, local, to, len, fill);
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += len as u64;
        if connection.output.len() >= FLUSH {
            connection.flush();
        }
        if connection.is_pending() && !std::mem::replace(&mut connection.unflushed, true) {
            self.unflushed.push(token);
        }
        Ok(Sent::Accepted)
    }

    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        self.served += 1;
        if self.served > PATIENCE {
            // Whoever sends without a pause must not keep the others from being heard, accepted and dialled.
            self.flush();
            let now = self.now();
            self.watch(now)?;
            if now >= self.timer {
                self.act(now);
            }
        }
        let mut watched = 0;
        loop {
            if let Some((by, newest)) = self.superseded {
                return Err(self.replaced(by, newest));
            }
            if let Some((peer, up)) = self.reports.pop_front() {
                sink(if up { Event::Up(peer) } else { Event::Down(peer) });
                return Ok(true);
            }
            if self.dispatch(sink) {
                return Ok(true);
            }
            self.flush();
            let now = self.now();
            if watched > 0 && now >= self.timer {
                self.act(now);
            }
            if !self.reports.is_empty() {
                continue;
            }
            let called = self.waker.called.load(Ordering::Acquire);
            if watched > 0 && (called || now >= deadline) {
                self.waker.called.store(false, Ordering::Release);
                return Ok(false);
            }
            let glance = called || watched <= self.glances || !self.ready.is_empty();
            let until = if glance { now } else { deadline.min(self.timer) };
            if watched > 1 && glance {
                // Whoever is awaited may be waiting for this very core.
                std::thread::yield_now();
            }
            if !glance {
                // Before it sleeps: whoever it waits for may be waiting for this.
                self.connections.iter_mut().flatten().for_each(|connection| connection.acknowledge());
            }
            self.watch(until)?;
            watched += 1;
            if !glance {
                let nap = !self.ready.is_empty() && self.now().since(now) < NAP;
                let glances = if nap { self.glances * 2 } else { self.glances / 2 };
                self.glances = glances.clamp(FEWEST_GLANCES, MOST_GLANCES);
            }
        }
    }
}

impl Drop for TcpEndpoint {
    /// Says goodbye to everybody; what was accepted is on its way as far as the system takes it.
    fn drop(&mut self) {
        let local = self.options.node;
        for mut connection in self.connections.drain(..).flatten() {
            if let (Some(peer), Stage::Open) = (connection.peer, connection.stage) {
                connection.flush();
                connection.write_control(Kind::Bye, local, peer, &[]);
            }
            connection.close();
        }
    }
}

fn failure(what: &str, error: &std::io::Error) -> TransportError {
    TransportError { kind: ErrorKind::Other, peer: None, reason: format!("{what}: {error}") }
}
