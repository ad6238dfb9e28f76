//! Who can be reached, and how.
//!
//! A node tells its neighbours to whom it has links. Frames to a node without a connection go through a neighbour that
//! has one: enough for nodes that can only dial, as long as somebody is reached by both.

use super::TcpEndpoint;
use crate::connection::{Connection, Stage};
use crate::frame::{CONTROL, HEADER, Kind};
use kronfleet_core::transport::{NodeId, Transport};

impl TcpEndpoint {
    /// The connection over which frames to `to` go: its own, or that of a neighbour who relays.
    pub(super) fn route(&self, to: NodeId) -> Option<usize> {
        let link = self.links.get(&to)?;
        if let Some(token) = link.open {
            return Some(token);
        }
        if link.left || self.now() < link.hold {
            return None;
        }
        // The same relay for the same pair in both directions, different ones for different pairs.
        let rank = |relay: NodeId| {
            let pair = u64::from(self.options.node.0 ^ to.0) << 32 | u64::from(relay.0);
            pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
        };
        let relays = self.links.iter().filter(|(_, link)| link.open.is_some() && link.neighbours.contains(&to));
        relays.min_by_key(|(relay, _)| (rank(**relay), **relay)).and_then(|(_, link)| link.open)
    }

    /// Reports whoever can be reached or lost since the last look.
    pub(super) fn judge_reach(&mut self) {
        let nodes: Vec<NodeId> = self.links.keys().copied().collect();
        for node in nodes {
            let reached = self.route(node).is_some();
            let link = self.links.get_mut(&node).expect("listed above");
            if std::mem::replace(&mut link.reported, reached) != reached {
                self.reports.push_back((node, reached));
            }
        }
    }

    /// Passes a frame on; without room for it, it is lost, and counted.
    pub(super) fn relay(&mut self, origin: NodeId, target: NodeId, body: &[u8]) {
        let open = self.links.get(&target).and_then(|link| link.open);
        let connection = open.and_then(|token| self.connections[token].as_mut().map(|connection| (token, connection)));
        if self.options.relay
            && let Some((token, connection)) = connection
            && connection.is_sound()
            && connection.has_room(body.len())
        {
            connection.write(Kind::Data, origin, target, body.len(), |frame| frame.copy_from_slice(body));
            self.counters.relayed += 1;
            if !std::mem::replace(&mut connection.unflushed, true) {
                self.unflushed.push(token);
            }
        } else {
            self.counters.relay_dropped += 1;
        }
    }

    /// All neighbours are to hear who is one.
    pub(super) fn tell_neighbours(&mut self) {
        for token in 0..self.connections.len() {
            if let Some(mut connection) = self.connections[token].take() {
                if connection.stage == Stage::Open {
                    self.owe_neighbours(token, &mut connection);
                }
                self.connections[token] = Some(connection);
            }
        }
    }

    pub(super) fn owe_neighbours(&mut self, token: usize, connection: &mut Connection) {
        connection.owed.neighbours = true;
        self.owe(token, connection);
    }

    /// Writes what the protocol itself has to say, as far as there is room.
    pub(super) fn write_owed(&mut self, connection: &mut Connection) {
        let Some(peer) = connection.peer.filter(|_| connection.stage == Stage::Open && !connection.owed.is_empty())
        else {
            return;
        };
        let local = self.options.node;
        if connection.owed.pong && connection.write_control(Kind::Pong, local, peer, &[]) {
            connection.owed.pong = false;
        }
        if connection.owed.ping && connection.write_control(Kind::Ping, local, peer, &[]) {
            connection.owed.ping = false;
        }
        if connection.owed.neighbours {
            // Who does not relay keeps its neighbours to itself. A frame's length bounds the list; beyond it, others
            // relay.
            let told = self.neighbours().filter(|&node| node != peer && self.options.relay).take(CONTROL / 4);
            let body: Vec<u8> = told.flat_map(|node| node.0.to_le_bytes()).collect();
            if connection.write_control(Kind::Neighbours, local, peer, &body) {
                connection.owed.neighbours = false;
            }
        }
        while !connection.owed.book.is_empty() && connection.output.room() >= CONTROL + HEADER {
            let mut body = Vec::new();
            let done = self.book.write(connection.owed.book.iter().copied(), &mut body);
            connection.write_control(Kind::Book, local, peer, &body);
            connection.owed.book = connection.owed.book.iter().skip(done).copied().collect();
        }
    }
}
