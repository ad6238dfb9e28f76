//! Connections become links.
//!
//! Of several connections with one peer, both ends keep the same: one of a later start replaces one of an earlier; of
//! one start, one dialled later replaces one dialled earlier; and if both dial each other at once, the connection from
//! the lower node stays.

use super::TcpEndpoint;
use crate::book::Entry;
use crate::connection::{Connection, Goal, Stage};
use crate::frame::{ANYBODY, Header};
use crate::hello::{Generation, Hello, Refusal};
use crate::incident::Closure;
use crate::parley::{Greeting, Rejection, Role};
use crate::tls;
use kronfleet_core::cluster::Incarnation;
use kronfleet_core::transport::{NodeId, Transport};

impl TcpEndpoint {
    /// Takes in the first frame of a connection.
    ///
    /// # Errors
    /// Why the connection ends; the other end has been told.
    pub(super) fn greet(
        &mut self,
        token: usize,
        connection: &mut Connection,
        header: &Header,
        body: &[u8],
    ) -> Result<(), Closure> {
        let outcome = self.judge(connection, header, body);
        let refusal = match &outcome {
            Err(Closure::Refused(refusal)) => Some(*refusal),
            Err(Closure::Frame(_)) => Some(Refusal::Frame),
            Ok(()) | Err(_) => None,
        };
        if let Some(refusal) = refusal {
            let known = connection.peer.and_then(|peer| self.links.get(&peer));
            let newest = known.map_or(Incarnation(0), |link| link.greatest.incarnation);
            connection.refuse(refusal, newest, self.options.node, ANYBODY);
        }
        outcome?;
        let peer = connection.peer.expect("known now");
        self.counters.established += 1;
        self.become_link(token, peer, connection);
        Ok(())
    }

    fn judge(&mut self, connection: &mut Connection, header: &Header, body: &[u8]) -> Result<(), Closure> {
        let greeting = match self.terms.judge(connection.role, header, body) {
            Ok(greeting) => greeting,
            Err(rejection) => {
                if header.origin == self.options.node && self.is_own(body) {
                    if let Some(Goal::Seed(seed)) = connection.goal {
                        self.seeds[seed].own = true;
                    }
                    return Err(Closure::Itself);
                }
                if rejection == Rejection::Refused(Refusal::Node) {
                    tracing::warn!(node = %self.options.node, other = %header.origin, "a node with an impossible number");
                }
                return Err(rejection.into());
            }
        };
        let (peer, hello, version) = match greeting {
            Greeting::Refused(refusal) => {
                if self.is_named(connection, header.origin) {
                    self.heed(header.origin, body);
                }
                // An address of its own that answers so is dialled again and again for nothing.
                if refusal == Refusal::Node
                    && let Some(Goal::Seed(seed)) = connection.goal
                    && connection.socket.peer_addr().ok() == self.listening
                {
                    self.seeds[seed].own = true;
                }
                return Err(Closure::RefusedBy(refusal));
            }
            Greeting::Hello { peer, hello, version } => (peer, hello, version),
        };
        connection.peer = Some(peer);
        if !self.is_named(connection, peer) {
            return Err(Closure::Refused(Refusal::Certificate));
        }
        let stay = match connection.role {
            Role::Accepted => self.admit(peer, hello.generation),
            Role::Dialled(_) => self.keep(connection, peer, hello.generation),
        };
        stay.map_err(Closure::Refused)?;
        let now = self.now();
        if connection.role == Role::Accepted {
            connection.version = version;
            self.prepare(connection);
            self.say_hello(connection, peer, self.dialled);
        }
        let opened = connection.opened;
        connection.open(peer, version, &self.options, now);
        // A dialled connection began when it was dialled: see `keep`.
        connection.opened = if connection.role == Role::Accepted { now } else { opened };
        let link = self.link(peer);
        link.left = false;
        if let Some(Goal::Seed(seed)) = connection.goal {
            self.seeds[seed].node = Some(peer);
        }
        let Hello { generation, addresses, .. } = hello;
        connection.generation = generation;
        self.learn(peer, Entry { incarnation: generation.incarnation, addresses }, Some(peer));
        Ok(())
    }

    /// Whether the other end's certificate is that of the node it says it is; without certificates, anybody's word counts.
    fn is_named(&self, connection: &Connection, peer: NodeId) -> bool {
        let certificate = connection.channel.certificate();
        self.options.identity.is_none()
            || certificate.is_some_and(|certificate| tls::names(certificate, self.options.run, peer))
    }

    /// Whether a hello of this node's own number is its own.
    fn is_own(&self, body: &[u8]) -> bool {
        Hello::read(body).is_ok_and(|hello| hello.generation.incarnation == self.options.incarnation)
    }

    /// Takes note if a refusal says that a later start of this node is known.
    pub(super) fn heed(&mut self, by: NodeId, body: &[u8]) {
        if let Some(newest) = Refusal::newest(body).filter(|&newest| newest > self.options.incarnation) {
            self.superseded.get_or_insert((by, newest));
        }
    }

    /// Whether a connection that `peer` dialled may stay.
    fn admit(&mut self, peer: NodeId, generation: Generation) -> Result<(), Refusal> {
        let local = self.options.node;
        let link = self.link(peer);
        if generation <= link.greatest {
            let same = generation.incarnation == link.greatest.incarnation;
            return Err(if same { Refusal::Overtaken } else { Refusal::Stale });
        }
        // A dial that nobody has answered for long leads nowhere, and must not keep out a peer that does come through.
        let (now, patience) = (self.now(), self.options.handshake / 4);
        let own = self.connections.iter().flatten().any(|connection| {
            connection.goal == Some(Goal::Peer(peer))
                && connection.stage == Stage::Greeting
                && connection.is_sound()
                && now.since(connection.opened) < patience
        });
        if own && local < peer {
            return Err(Refusal::Crossed);
        }
        Ok(())
    }

    /// Whether a connection that this node dialled, and that `peer` has admitted, may stay.
    fn keep(&mut self, connection: &Connection, peer: NodeId, generation: Generation) -> Result<(), Refusal> {
        let local = self.options.node;
        let link = self.link(peer);
        if generation.incarnation < link.greatest.incarnation {
            return Err(Refusal::Stale);
        }
        let greatest = link.greatest.incarnation;
        if let Some(open) = link.open
            && let Some(other) = &self.connections[open]
            && other.role == Role::Accepted
            && other.opened >= connection.opened
            && local > peer
            && generation.incarnation == greatest
        {
            // Both dialled an address without knowing whose it was; the peer keeps the one that it dialled.
            return Err(Refusal::Crossed);
        }
        Ok(())
    }

    /// Makes `connection` the link to `peer`; others with this peer end.
    fn become_link(&mut self, token: usize, peer: NodeId, connection: &mut Connection) {
        let generation = connection.generation;
        let link = self.link(peer);
        let restarted = generation.incarnation > link.greatest.incarnation && link.reported;
        let replaced = link.open.replace(token);
        link.greatest = link.greatest.max(generation);
        link.neighbours.clear();
        if restarted {
            link.reported = false;
            self.reports.push_back((peer, false));
        }
        for other in 0..self.connections.len() {
            let Some(ended) = self.connections[other].take() else {
                continue;
            };
            let dial = ended.goal == Some(Goal::Peer(peer)) && ended.stage < Stage::Open;
            if replaced == Some(other) || dial {
                let mut ended = ended;
                if ended.generation.incarnation < generation.incarnation && ended.stage == Stage::Open {
                    // Whoever it was may still live, and finds out in good time: before it hears that the link is gone.
                    ended.refuse(Refusal::Stale, generation.incarnation, self.options.node, peer);
                }
                self.close(other, ended, Closure::Replaced);
            } else {
                self.connections[other] = Some(ended);
            }
        }
        // Everything this node knows of, in as many frames as it takes.
        connection.owed.book = self.book.entries().map(|(node, _)| node).filter(|&node| node != peer).collect();
        self.owe(token, connection);
        tracing::debug!(node = %self.options.node, %peer, address = %connection.address, "connected");
        self.tell_neighbours();
        self.owe_neighbours(token, connection);
        self.judge_reach();
        self.stir();
    }
}
