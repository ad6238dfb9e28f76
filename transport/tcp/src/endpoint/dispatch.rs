//! What arrives is taken in, handed out or passed on.

use super::TcpEndpoint;
use crate::book;
use crate::connection::{Connection, Stage};
use crate::frame::{ANYBODY, FrameError, Header, Kind, Reader};
use crate::hello::Refusal;
use crate::incident::Closure;
use kronfleet_core::cluster::Incarnation;
use kronfleet_core::transport::{Event, NodeId, Transport};
use std::collections::BTreeSet;

/// Frames that are not the user's and are dealt with at most before the user gets a chance.
const BUDGET: u32 = 64;

/// How dealing with one connection ended.
enum Pause {
    /// A frame was handed out.
    Delivered,
    /// Nothing more is there.
    Idle,
    /// Others have to be served.
    Turn,
    /// The connection is over.
    Over(Closure),
}

impl TcpEndpoint {
    /// Deals with what has arrived until one frame was handed to `sink`; answers whether one was.
    pub(super) fn dispatch(&mut self, sink: &mut dyn FnMut(Event<'_>)) -> bool {
        let mut budget = BUDGET;
        while budget > 0
            && let Some(token) = self.ready.pop_front()
        {
            let Some(mut connection) = self.connections[token].take() else {
                continue;
            };
            connection.queued = false;
            let pause = self.serve(token, &mut connection, &mut budget, sink);
            if connection.is_pending() {
                self.owe(token, &mut connection);
            }
            let delivered = matches!(pause, Pause::Delivered);
            match pause {
                Pause::Over(closure) => self.close(token, connection, closure),
                Pause::Idle => self.connections[token] = Some(connection),
                Pause::Turn | Pause::Delivered => {
                    Self::queue(&mut self.ready, token, &mut connection);
                    self.connections[token] = Some(connection);
                }
            }
            if delivered || !self.reports.is_empty() {
                return delivered;
            }
        }
        false
    }

    /// Deals with one connection.
    fn serve(
        &mut self,
        token: usize,
        connection: &mut Connection,
        budget: &mut u32,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Pause {
        if connection.stage == Stage::Connecting && connection.over.is_none() && !self.connected(connection) {
            return Pause::Idle;
        }
        loop {
            // The input leaves the connection for as long as a frame of it is looked at.
            let mut input = std::mem::take(&mut connection.input);
            let outcome = match input.first() {
                Ok(Some((header, body))) => Some((header, self.take(token, connection, &header, body, sink))),
                Ok(None) => None,
                Err(error) => {
                    if connection.stage == Stage::Greeting {
                        connection.refuse(Refusal::Frame, Incarnation(0), self.options.node, ANYBODY);
                    }
                    return Pause::Over(error.into());
                }
            };
            if let Some((header, _)) = &outcome {
                input.consume(header);
                if header.kind == Kind::Hello && connection.stage == Stage::Open {
                    input.agreed(connection.version, self.options.max_frame, self.options.input_capacity());
                }
            }
            connection.input = input;
            let Some((_, taken)) = outcome else {
                if let Some(closure) = connection.over.take() {
                    return Pause::Over(match connection.input.end() {
                        Err(error) if closure == Closure::Ended => error.into(),
                        _ => closure,
                    });
                }
                let now = self.now();
                if !connection.fill(now) && connection.over.is_none() {
                    // TLS may have answered.
                    connection.flush();
                    return Pause::Idle;
                }
                if connection.stage == Stage::Greeting {
                    connection.flush();
                }
                continue;
            };
            match taken {
                Err(closure) => return Pause::Over(closure),
                Ok(true) => return Pause::Delivered,
                Ok(false) => {}
            }
            *budget = budget.saturating_sub(1);
            if *budget == 0 {
                return Pause::Turn;
            }
        }
    }

    /// Takes in one frame; answers whether it was handed to `sink`.
    fn take(
        &mut self,
        token: usize,
        connection: &mut Connection,
        header: &Header,
        body: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, Closure> {
        let Some(peer) = connection.peer.filter(|_| connection.stage == Stage::Open) else {
            return self.greet(token, connection, header, body).map(|()| false);
        };
        let local = self.options.node;
        if header.kind == Kind::Data {
            return self.data(peer, header, body, sink);
        }
        if header.origin != peer || !(header.target == local || header.kind == Kind::Refuse) {
            return Err(FrameError::Field("origin or target").into());
        }
        match header.kind {
            Kind::Ping => {
                connection.owed.pong = true;
                self.owe(token, connection);
            }
            Kind::Pong => {}
            Kind::Book => {
                for (node, entry) in book::read(body)? {
                    self.learn(node, entry, Some(peer));
                }
            }
            Kind::Neighbours => {
                let neighbours = read_neighbours(body)?;
                let nodes = self.terms.nodes;
                self.link(peer).neighbours =
                    neighbours.into_iter().filter(|node| node.0 < nodes && *node != local).collect();
                self.judge_reach();
            }
            Kind::Bye => return Err(Closure::Left),
            Kind::Refuse => {
                self.heed(peer, body);
                return Err(Closure::RefusedBy(Refusal::read(body)?));
            }
            Kind::Hello | Kind::Data => return Err(FrameError::Kind { found: header.kind as u8 }.into()),
        }
        Ok(false)
    }

    /// A frame of the user's: for this node's, or for another that it can reach.
    fn data(
        &mut self,
        peer: NodeId,
        header: &Header,
        body: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, Closure> {
        let &Header { origin, target, .. } = header;
        let local = self.options.node;
        if origin == local || origin.0 >= self.terms.nodes || target.0 >= self.terms.nodes || target == peer {
            return Err(FrameError::Field("origin or target").into());
        }
        if target == local {
            self.counters.frames_received += 1;
            self.counters.bytes_received += body.len() as u64;
            sink(Event::Frame { from: origin, bytes: body });
            return Ok(true);
        }
        // One hop only: what has been relayed is not relayed again, so that no frame goes round in circles.
        if origin != peer {
            return Err(FrameError::Field("target").into());
        }
        self.relay(origin, target, body);
        Ok(false)
    }
}

/// Reads to whom a peer has links.
///
/// # Errors
/// If it is no such list.
pub(crate) fn read_neighbours(bytes: &[u8]) -> Result<BTreeSet<NodeId>, FrameError> {
    let mut reader = Reader(bytes);
    let mut neighbours = BTreeSet::new();
    while reader.end("").is_err() {
        neighbours.insert(NodeId(reader.u32("neighbour")?));
    }
    Ok(neighbours)
}
