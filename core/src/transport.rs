//! Moving frames between nodes.
//!
//! A transport delivers frames point to point. It may lose, double, reorder and delay them; it never
//! alters them and never blocks. Retransmission, reassembly, membership and rounds live above it, in
//! `cluster`, once for all transports.
//!
//! # For users
//! Nodes are driven by a loop of some twenty lines, [`drive`](crate::process::drive); the simulator of
//! `kronfleet-lossy` drives the same nodes in virtual time.
//!
//! # For implementers
//! Implement [`Transport`], add one line to `tests/conformance.rs`, and the suite of
//! `kronfleet-conformance` says what is missing; `docs/transport.md` walks through it.

use crate::error::{Error, ErrorKind};
use crate::time::Instant;
use alloc::string::String;
use core::fmt;

/// Who a node is, for the whole run: small numbers from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// What became of a frame given to [`Transport::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The transport has it and will try to deliver it.
    Accepted,
    /// No room now: `fill` was not called; try again after the next [`recv`](Transport::recv).
    Full,
}

/// What a transport reports.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A frame from a peer, borrowed from the transport's memory.
    Frame {
        /// Who sent it.
        from: NodeId,
        /// Exactly what the peer wrote.
        bytes: &'a [u8],
    },
    /// A peer can be reached, as far as the transport knows.
    Up(NodeId),
    /// A peer cannot be reached (connection reset, process dead).
    Down(NodeId),
}

/// Point-to-point frames between the nodes of one run.
///
/// - Frames arrive unaltered or not at all; they may be lost, doubled, reordered and delayed.
/// - No call blocks longer than it is told to: [`send`](Self::send) never waits, [`recv`](Self::recv) waits
///   until its deadline at most.
/// - A full transport says [`Sent::Full`]; it never drops silently for lack of room and never waits for the peer.
/// - Frames to oneself are not carried; sending one is a bug and panics.
pub trait Transport {
    /// Who this end is.
    fn local(&self) -> NodeId;

    /// The longest frame [`send`](Self::send) takes, in bytes; at least 256.
    fn max_frame(&self) -> usize;

    /// The time: the only clock of this node.
    fn now(&self) -> Instant;

    /// Sends a frame of `len` bytes to `to`; never waits.
    ///
    /// `fill` is called at most once, with a slice of exactly `len` bytes in the transport's own memory, whose
    /// content is unspecified; it is not called if the answer is [`Sent::Full`] or an error.
    ///
    /// # Errors
    /// If `to` is unknown or cannot be reached ([`ErrorKind::Unreachable`]).
    ///
    /// # Panics
    /// If `len` exceeds [`max_frame`](Self::max_frame) or `to` is [`local`](Self::local).
    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError>;

    /// Waits until there is an event or `deadline` has come, and gives at most one event to `sink`.
    ///
    /// Answers whether `sink` was called. A deadline in the past makes this a poll.
    ///
    /// # Errors
    /// If the transport itself has failed, or knows that a later start of this node has taken its place
    /// ([`ErrorKind::Superseded`]); a dead peer is an [`Event::Down`], not an error.
    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError>;
}

/// Why a transport could not do something: the kind, the peer if there is one, and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportError {
    /// What a caller can do about it.
    pub kind: ErrorKind,
    /// The peer concerned.
    pub peer: Option<NodeId>,
    /// What happened and what helps.
    pub reason: String,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{peer}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl core::error::Error for TransportError {}

impl Error for TransportError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}
