//! What a node knows of another.

use crate::cluster::certificate::{CertificateId, Incarnation};
use crate::cluster::wire::Status;
use crate::time::Instant;
use crate::transport::NodeId;

/// Whether a peer can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Liveness {
    /// It has never been heard.
    #[default]
    Unknown,
    /// It is heard and hears this node.
    Up,
    /// It has been silent for longer than usual.
    Suspect,
    /// It is lost.
    Down,
    /// It said goodbye.
    Left,
}

impl Peer {
    /// Whether frames to it may still arrive.
    pub fn is_reachable(&self) -> bool {
        matches!(self.liveness, Liveness::Up | Liveness::Suspect)
    }

    /// Whether it can be reached and does not sit out.
    pub fn takes_part(&self) -> bool {
        self.liveness == Liveness::Up && self.quarantine.is_none()
    }
}

/// What a node knows of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// Which start of it is the newest heard of; 0 if none.
    pub incarnation: Incarnation,
    /// Whether it can be reached.
    pub liveness: Liveness,
    /// What it does, as it last said.
    pub status: Status,
    /// Until when it sits out, because it comes and goes all the time.
    pub quarantine: Option<Instant>,
    /// Its last certificate, as it last said.
    pub last: CertificateId,
}
