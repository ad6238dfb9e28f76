//! What an end knows of one peer, and of one seed.

use crate::backoff::Backoff;
use crate::hello::Generation;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// A peer.
#[derive(Debug)]
pub(crate) struct Link {
    /// The connection that is the link.
    pub(crate) open: Option<usize>,
    /// The latest generation that was seen; earlier ones are refused.
    pub(crate) greatest: Generation,
    /// What was last reported: up or down.
    pub(crate) reported: bool,
    /// To whom the peer has links.
    pub(crate) neighbours: BTreeSet<NodeId>,
    /// No relaying before this: who has just lost a connection finds out first whether the peer is dead.
    pub(crate) hold: Instant,
    /// When to dial.
    pub(crate) backoff: Backoff,
    /// A connection is being made.
    pub(crate) dialling: bool,
    /// Which of its addresses was tried last.
    pub(crate) address: usize,
    /// It said goodbye, and is not dialled until a later start is announced.
    pub(crate) left: bool,
}

impl Link {
    pub(crate) fn new(dial: Instant, hold: Instant) -> Self {
        Self {
            open: None,
            greatest: Generation::default(),
            reported: false,
            neighbours: BTreeSet::new(),
            hold,
            backoff: Backoff::at(dial),
            dialling: false,
            address: 0,
            left: false,
        }
    }
}

/// An address by which the run may be joined.
#[derive(Debug)]
pub(crate) struct Seed {
    /// `host:port`, as it was given.
    pub(crate) host: String,
    /// What it resolves to.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Who was met there.
    pub(crate) node: Option<NodeId>,
    /// It is this node's own.
    pub(crate) own: bool,
    pub(crate) resolving: bool,
    pub(crate) dialling: bool,
    pub(crate) address: usize,
    pub(crate) backoff: Backoff,
    /// Attempts, lookups among them, until somebody was met.
    pub(crate) attempts: u32,
}

impl Seed {
    pub(crate) fn new(host: &str) -> Self {
        Self {
            host: host.into(),
            addresses: host.parse().into_iter().collect(),
            node: None,
            own: false,
            resolving: false,
            dialling: false,
            address: 0,
            backoff: Backoff::default(),
            attempts: 0,
        }
    }

    /// Whether the name has to be looked up.
    pub(crate) fn is_name(&self) -> bool {
        self.host.parse::<SocketAddr>().is_err()
    }
}
