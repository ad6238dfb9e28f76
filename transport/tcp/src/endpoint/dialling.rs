//! Connections come into being and end.

use super::TcpEndpoint;
use crate::book::{Address, Entry, MOST_ADDRESSES};
use crate::channel::Channel;
use crate::connection::{Connection, Goal, Stage};
use crate::frame::{ANYBODY, GREATEST_VERSION, Kind, LEAST_VERSION};
use crate::hello::{Generation, Hello};
use crate::incident::{Closure, Incident};
use crate::link::Link;
use crate::parley::Role;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::{NodeId, Transport};
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tracing::Level;

/// How long accepting pauses when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts to reach a seed, some seconds all in all, after which the user is told that nobody is there.
const UNANSWERED: u32 = 8;
/// Attempts to reach a node by its own addresses before it is looked for at the seed where it was met.
const HOPE: u32 = 3;

impl TcpEndpoint {
    /// Takes in everybody who is waiting.
    pub(super) fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            if self.now() < self.accept_after {
                return;
            }
            match listener.accept() {
                Ok((socket, address)) => {
                    self.counters.accepted += 1;
                    self.make_room_for_a_stranger();
                    let channel = match &self.options.identity {
                        None => Ok(Channel::Plain),
                        Some(identity) => identity.accept(),
                    };
                    match channel {
                        Ok(channel) => self.enter(socket, channel, address, Role::Accepted, None),
                        Err(error) => self.note(None, address, Closure::Tls(error.to_string())),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.knocking = false;
                    return;
                }
                // Whoever knocked has gone again.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections now");
                    self.accept_after = self.now() + PAUSE;
                    self.stir();
                    return;
                }
            }
        }
    }

    /// Strangers have bounded memory together: the one that has been silent longest goes.
    fn make_room_for_a_stranger(&mut self) {
        let strangers = || {
            let all = self.connections.iter().enumerate();
            let all = all.filter_map(|(token, connection)| Some((token, connection.as_ref()?)));
            all.filter(|(_, other)| other.role == Role::Accepted && other.stage == Stage::Greeting)
        };
        if strangers().count() >= self.options.strangers
            && let Some((token, _)) = strangers().min_by_key(|(_, connection)| connection.opened)
            && let Some(connection) = self.connections[token].take()
        {
            self.close(token, connection, Closure::Crowded);
        }
    }

    /// Begins to connect to `address`.
    pub(super) fn dial(&mut self, goal: Goal, address: SocketAddr) {
        self.counters.dialled += 1;
        self.dialled += 1;
        let role = Role::Dialled(match goal {
            Goal::Peer(peer) => Some(peer),
            Goal::Seed(_) => None,
        });
        let channel = match &self.options.identity {
            None => Ok(Channel::Plain),
            Some(identity) => identity.dial().map_err(|error| Closure::Tls(error.to_string())),
        };
        let socket = channel.and_then(|channel| Ok((TcpStream::connect(address)?, channel)));
        match socket {
            Ok((socket, channel)) => self.enter(socket, channel, address, role, Some(goal)),
            Err(closure) => {
                self.dialling(goal, false);
                self.note(None, address, closure);
            }
        }
    }

    /// Gives a new connection its place.
    fn enter(&mut self, socket: TcpStream, channel: Channel, address: SocketAddr, role: Role, goal: Option<Goal>) {
        let stage = if role == Role::Accepted { Stage::Greeting } else { Stage::Connecting };
        let mut connection = Box::new(Connection::new(socket, channel, address, role, stage, self.now()));
        connection.goal = goal;
        connection.dialled = self.dialled;
        let token = self.vacant.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut connection.socket, Token(token), interest) {
            connection.over = Some(error.into());
        }
        if let Some(goal) = goal {
            self.dialling(goal, true);
        }
        Self::queue(&mut self.ready, token, &mut connection);
        self.connections[token] = Some(connection);
        self.stir();
    }

    fn dialling(&mut self, goal: Goal, dialling: bool) {
        match goal {
            Goal::Peer(peer) => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.dialling = dialling;
                }
            }
            Goal::Seed(seed) => self.seeds[seed].dialling = dialling,
        }
    }

    /// The system has connected, or has failed to; answers whether that is known yet.
    pub(super) fn connected(&mut self, connection: &mut Connection) -> bool {
        match connection.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => {
                connection.over = Some(error.into());
                return true;
            }
        }
        if connection.socket.peer_addr().is_err() {
            return false;
        }
        connection.stage = Stage::Greeting;
        let target = match connection.role {
            Role::Dialled(Some(peer)) => peer,
            Role::Dialled(None) | Role::Accepted => ANYBODY,
        };
        self.prepare(connection);
        self.say_hello(connection, target, connection.dialled);
        connection.flush();
        true
    }

    /// Tells the system how to treat a connection.
    pub(super) fn prepare(&self, connection: &Connection) {
        // None of this is vital: without it, a dead connection is noticed by this crate's own timers.
        let _ = connection.socket.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let socket = socket2::SockRef::from(&connection.socket);
            let _ = socket.set_tcp_user_timeout(Some(self.options.silence));
        }
    }

    /// Writes this node's introduction.
    pub(super) fn say_hello(&mut self, connection: &mut Connection, target: NodeId, dialled: u64) {
        let local = self.options.node;
        let addresses = self.own_addresses(connection);
        let hello = Hello {
            least: LEAST_VERSION,
            greatest: GREATEST_VERSION,
            run: self.options.run,
            generation: Generation { incarnation: self.options.incarnation, dialled },
            longest: self.terms.longest,
            addresses,
        };
        connection.write(Kind::Hello, local, target, hello.length(), |body| hello.write(body));
    }

    /// Where the other end of `connection` can reach this node; one that listens everywhere learns it from there.
    fn own_addresses(&mut self, connection: &Connection) -> Vec<Address> {
        let local = self.options.node;
        let mut entry = self.book.entry(local).cloned().unwrap_or_default();
        let everywhere = self.options.advertise.is_empty() && self.listening.is_some_and(|at| at.ip().is_unspecified());
        if everywhere && let (Some(at), Ok(here)) = (self.listening, connection.socket.local_addr()) {
            let address = Address::new(here.ip(), at.port());
            // Others would dial themselves.
            if !here.ip().is_loopback() && !entry.addresses.contains(&address) && entry.addresses.len() < MOST_ADDRESSES
            {
                entry.addresses.push(address);
                self.learn(local, entry.clone(), None);
            } else if !entry.addresses.contains(&address) {
                entry.addresses.insert(0, address);
                entry.addresses.truncate(MOST_ADDRESSES);
            }
        }
        entry.addresses
    }

    /// Takes an announcement, and passes it on to everybody but `source` if it is news.
    pub(super) fn learn(&mut self, node: NodeId, entry: Entry, source: Option<NodeId>) {
        let local = self.options.node;
        if node.0 >= self.terms.nodes {
            return;
        }
        if node == local && entry.incarnation > self.options.incarnation {
            self.superseded.get_or_insert((source.unwrap_or(local), entry.incarnation));
            return;
        }
        let incarnation = entry.incarnation;
        if !self.book.learn(node, entry) {
            return;
        }
        if node != local {
            let link = self.link(node);
            if link.left && incarnation > link.greatest.incarnation {
                link.left = false;
            }
        }
        for token in 0..self.connections.len() {
            let Some(mut connection) = self.connections[token].take() else {
                continue;
            };
            if connection.stage == Stage::Open && connection.peer != source && connection.peer != Some(node) {
                connection.owed.book.insert(node);
                self.owe(token, &mut connection);
            }
            self.connections[token] = Some(connection);
        }
        self.stir();
    }

    /// What is known of `peer`.
    pub(super) fn link(&mut self, peer: NodeId) -> &mut Link {
        let now = self.now();
        // Of two who learn of each other at once, the lower one dials first.
        let grace = if self.options.node < peer { Duration::ZERO } else { self.options.backoff };
        let hold = now + self.options.relay_after;
        self.links.entry(peer).or_insert_with(|| Link::new(now + grace, hold))
    }

    /// Ends a connection and draws the conclusions.
    pub(super) fn close(&mut self, token: usize, mut connection: Box<Connection>, closure: Closure) {
        let _ = self.poll.registry().deregister(&mut connection.socket);
        connection.close();
        if let Some(goal) = connection.goal {
            self.dialling(goal, false);
        }
        if let (Some(peer), Stage::Open) = (connection.peer, connection.stage) {
            let (now, hold) = (self.now(), self.options.relay_after);
            let (first, longest) = (self.options.backoff, self.options.backoff_longest);
            let random = &mut self.random;
            if let Some(link) = self.links.get_mut(&peer)
                && link.open == Some(token)
            {
                link.open = None;
                link.neighbours.clear();
                link.hold = now + hold;
                link.left = closure == Closure::Left;
                if now.since(connection.opened) > longest {
                    link.backoff = crate::backoff::Backoff::at(now);
                }
                link.backoff.failed(now, first, longest, random);
                self.tell_neighbours();
                self.judge_reach();
            }
        }
        self.note(connection.peer, connection.address, closure);
        drop(connection);
        self.vacant.push(token);
        self.stir();
    }

    /// Remembers why a connection ended, and logs it.
    pub(super) fn note(&mut self, peer: Option<NodeId>, address: SocketAddr, closure: Closure) {
        let node = self.options.node;
        let peer_name = peer.map(tracing::field::display);
        match closure.level() {
            Level::WARN => tracing::warn!(%node, peer = peer_name, %address, reason = %closure, "connection closed"),
            Level::INFO => tracing::info!(%node, peer = peer_name, %address, reason = %closure, "connection closed"),
            _ => tracing::debug!(%node, peer = peer_name, %address, reason = %closure, "connection closed"),
        }
        if self.incidents.len() == super::INCIDENTS {
            self.incidents.pop_front();
        }
        self.incidents.push_back(Incident { peer, address, closure });
    }

    /// The next attempt to reach a peer or a seed that is not connected; answers when something is due again.
    pub(super) fn dial_due(&mut self, now: Instant) -> Instant {
        let mut next = Instant::FAR;
        let mut dials = Vec::new();
        let (first, longest) = (self.options.backoff, self.options.backoff_longest);
        let random = &mut self.random;
        for (&peer, link) in &mut self.links {
            let addresses = self.book.entry(peer).map_or(&[][..], |entry| &entry.addresses);
            if link.open.is_some() || link.dialling || link.left || addresses.is_empty() {
                continue;
            }
            if link.backoff.next > now {
                next = next.min(link.backoff.next);
                continue;
            }
            link.backoff.failed(now, first, longest, random);
            link.address = (link.address + 1) % addresses.len();
            dials.push((Goal::Peer(peer), addresses[link.address]));
        }
        let alone = self.links.values().all(|link| link.open.is_none());
        let met = |address: &SocketAddr| {
            self.links.iter().any(|(&peer, link)| {
                link.open.is_some() && self.book.entry(peer).is_some_and(|entry| entry.addresses.contains(address))
            })
        };
        // Two connections with one node would take each other's place.
        let under_way: Vec<SocketAddr> = {
            let dialled = self.connections.iter().flatten().filter(|other| other.stage < Stage::Open);
            dialled.map(|other| other.address).chain(dials.iter().map(|(_, address)| *address)).collect()
        };
        let hopeful = |node: NodeId| {
            let link = self.links.get(&node);
            let addresses = self.book.entry(node).is_some_and(|entry| !entry.addresses.is_empty());
            link.is_some_and(|link| addresses && !link.left && link.backoff.failures() < HOPE)
        };
        for (index, seed) in self.seeds.iter_mut().enumerate() {
            seed.own |= seed.addresses.iter().any(|address| Some(*address) == self.listening);
            let known = seed.node.is_some_and(|node| !alone || hopeful(node));
            let busy = seed.dialling || seed.resolving || seed.addresses.iter().any(|at| under_way.contains(at));
            if seed.own || busy || known || seed.addresses.iter().any(met) {
                continue;
            }
            if seed.backoff.next > now {
                next = next.min(seed.backoff.next);
                continue;
            }
            seed.attempts += u32::from(seed.node.is_none() && seed.attempts <= UNANSWERED);
            if seed.attempts == UNANSWERED {
                let node = self.options.node;
                tracing::warn!(%node, seed = %seed.host, "nobody of this run has answered there so far; is it right?");
            }
            let tried_all = seed.backoff.failures() as usize % (seed.addresses.len() + 1) == seed.addresses.len();
            if seed.addresses.is_empty() || (seed.is_name() && tried_all && seed.backoff.failures() > 0) {
                seed.resolving = true;
                self.resolver.ask(index, &seed.host);
                seed.backoff.failed(now, first, longest, random);
                continue;
            }
            seed.backoff.failed(now, first, longest, random);
            seed.address = (seed.address + 1) % seed.addresses.len();
            dials.push((Goal::Seed(index), seed.addresses[seed.address]));
        }
        for (goal, address) in dials {
            if self.may_talk_to(address) {
                self.dial(goal, address);
            }
        }
        next
    }

    /// Without certificates, only this machine is talked to.
    fn may_talk_to(&mut self, address: SocketAddr) -> bool {
        let may = self.options.insecure || self.options.identity.is_some() || address.ip().is_loopback();
        if !may {
            self.note(None, address, Closure::Exposed);
        }
        may
    }

    /// A seed's name has these addresses now.
    pub(super) fn resolved(&mut self, seed: usize, addresses: Vec<SocketAddr>) {
        let seed = &mut self.seeds[seed];
        seed.resolving = false;
        if !addresses.is_empty() {
            seed.addresses = addresses;
            seed.backoff = crate::backoff::Backoff::default();
        }
        self.stir();
    }
}
