//! One connection: a socket, its channel, and what waits to be sent and read.

use crate::buffer::Buffer;
use crate::channel::{Channel, Received};
use crate::frame::{self, CONTROL, HEADER, Kind};
use crate::hello::{Generation, Refusal};
use crate::incident::Closure;
use crate::options::Options;
use crate::parley::Role;
use crate::reception::Reception;
use kronfleet_core::cluster::Incarnation;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use mio::net::TcpStream;
use std::collections::BTreeSet;
use std::net::{Shutdown, SocketAddr};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The system is connecting.
    Connecting,
    /// TLS is coming to terms, or the other end's first frame is awaited.
    Greeting,
    /// A link with a peer.
    Open,
}

/// Why this node dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    Peer(NodeId),
    Seed(usize),
}

/// What the protocol has yet to say, as soon as there is room.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    pub(crate) ping: bool,
    pub(crate) pong: bool,
    pub(crate) neighbours: bool,
    /// Announcements about these nodes.
    pub(crate) book: BTreeSet<NodeId>,
}

impl Owed {
    pub(crate) fn is_empty(&self) -> bool {
        !self.ping && !self.pong && !self.neighbours && self.book.is_empty()
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) channel: Channel,
    pub(crate) address: SocketAddr,
    pub(crate) role: Role,
    pub(crate) goal: Option<Goal>,
    pub(crate) stage: Stage,
    /// This node's number and the number of the connection, as its hello says.
    pub(crate) dialled: u64,
    pub(crate) peer: Option<NodeId>,
    pub(crate) generation: Generation,
    pub(crate) version: u16,
    pub(crate) opened: Instant,
    pub(crate) heard: Instant,
    pub(crate) asked: bool,
    pub(crate) input: Reception,
    pub(crate) output: Buffer,
    pub(crate) owed: Owed,
    /// The socket may have something to read.
    pub(crate) readable: bool,
    /// It waits among those that may have something to give.
    pub(crate) queued: bool,
    /// It waits among those that have something to write.
    pub(crate) unflushed: bool,
    /// The system may still owe the other end an acknowledgement of what was read.
    unacknowledged: bool,
    /// Writing has failed; what the other end still said is read first.
    broken: Option<Closure>,
    /// It is to be closed once what it has received is delivered.
    pub(crate) over: Option<Closure>,
}

impl Connection {
    pub(crate) fn new(
        socket: TcpStream,
        channel: Channel,
        address: SocketAddr,
        role: Role,
        stage: Stage,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            channel,
            address,
            role,
            goal: None,
            stage,
            dialled: 0,
            peer: None,
            generation: Generation::default(),
            version: 0,
            opened: now,
            heard: now,
            asked: false,
            input: Reception::new(),
            output: Buffer::new(HEADER + CONTROL),
            owed: Owed::default(),
            readable: true,
            queued: false,
            unflushed: false,
            unacknowledged: false,
            broken: None,
            over: None,
        }
    }

    /// Both ends have come to terms: this is a link with `peer` now, with the memory of one. The input is left to whoever
    /// reads from it.
    pub(crate) fn open(&mut self, peer: NodeId, version: u16, options: &Options, now: Instant) {
        self.peer = Some(peer);
        self.version = version;
        self.stage = Stage::Open;
        self.heard = now;
        self.output.grow(options.output_capacity());
    }

    /// Whether a frame of the user with a body of `len` bytes fits, leaving room for the protocol's own.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.output.room() >= HEADER + len + 2 * (CONTROL + HEADER)
    }

    /// Writes a frame into the output.
    ///
    /// # Panics
    /// If there is no room.
    pub(crate) fn write(
        &mut self,
        kind: Kind,
        origin: NodeId,
        target: NodeId,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        frame::encode(self.version, kind, origin, target, self.output.reserve(HEADER + len), fill);
        self.output.advance(HEADER + len);
    }

    /// Writes a short frame of the protocol's own if there is room; answers whether there was.
    pub(crate) fn write_control(&mut self, kind: Kind, origin: NodeId, target: NodeId, body: &[u8]) -> bool {
        let room = self.output.room() >= HEADER + body.len();
        if room {
            self.write(kind, origin, target, body.len(), |target| target.copy_from_slice(body));
        }
        room
    }

    /// Says why it is refused, and that nothing follows; `newest` is the latest known start of the other end.
    pub(crate) fn refuse(&mut self, refusal: Refusal, newest: Incarnation, origin: NodeId, target: NodeId) {
        let body = refusal.body(newest);
        self.write_control(Kind::Refuse, origin, target, &body);
        self.flush();
    }

    /// Whether something waits to be written.
    pub(crate) fn is_pending(&self) -> bool {
        !self.output.is_empty() || self.channel.wants_write()
    }

    /// Writes what the socket takes; a failure ends the connection once what it has received is delivered.
    pub(crate) fn flush(&mut self) {
        if self.stage == Stage::Connecting || !self.is_sound() {
            return;
        }
        if let Err(error) = self.channel.flush(&mut self.socket, &mut self.output) {
            self.broken = Some(error.into());
            self.readable = true;
        }
    }

    /// Whether it still carries what is written.
    pub(crate) fn is_sound(&self) -> bool {
        self.over.is_none() && self.broken.is_none()
    }

    /// Reads what is there, as far as there is room; answers whether anything came.
    pub(crate) fn fill(&mut self, now: Instant) -> bool {
        let mut came = false;
        while self.readable && self.over.is_none() && self.stage != Stage::Connecting {
            let vacant = self.input.vacant();
            if vacant.is_empty() {
                break;
            }
            match self.channel.read(&mut self.socket, vacant) {
                Ok(Received::Bytes(count)) => {
                    self.input.filled(count);
                    (self.heard, self.asked, came) = (now, false, true);
                    self.unacknowledged = true;
                    // Enough for now: frames are handed out before more is read.
                    break;
                }
                Ok(Received::Nothing) => {
                    self.readable = false;
                    self.over = self.broken.take();
                }
                Ok(Received::End) => self.over = Some(Closure::Ended),
                Err(error) => self.over = Some(error.into()),
            }
        }
        came
    }

    /// Has the system acknowledge what was read. It would wait up to 40 ms for something to send with it, and the other end,
    /// where its window is full, for the acknowledgement.
    pub(crate) fn acknowledge(&mut self) {
        if std::mem::take(&mut self.unacknowledged) {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            {
                // A system that does not do so costs time and nothing else.
                let _ = socket2::SockRef::from(&self.socket).set_tcp_quickack(true);
            }
        }
    }

    /// Ends the connection in such a way that what was written still arrives, if it can.
    pub(crate) fn close(&mut self) {
        self.flush();
        self.channel.farewell(&mut self.socket);
        let _ = self.socket.shutdown(Shutdown::Write);
        // Bytes left unread would make the system reset the connection and discard what is under way.
        let mut scratch = [0; 4096];
        for _ in 0..256 {
            match std::io::Read::read(&mut self.socket, &mut scratch) {
                Ok(count) if count > 0 => {}
                _ => break,
            }
        }
    }
}
