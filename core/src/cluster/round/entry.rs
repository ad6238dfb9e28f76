//! A contribution from its announcement to its outcome.

use crate::cluster::certificate::{Attempt, Incarnation, Member};
use crate::cluster::contribution::Contribution;
use crate::cluster::digest::Digest;
use crate::cluster::message::Proposal;
use crate::cluster::round::telling::Telling;
use crate::collective::Reduction;
use crate::scalar::Scalar;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A contribution without outcome.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Entry<S: Scalar> {
    pub(super) contribution: Arc<Contribution<S>>,
    pub(super) member: Member,
    /// Whom it was announced to, on which stream, and when to do so again.
    pub(super) told: Option<(NodeId, (Incarnation, u32))>,
    pub(super) tell_again: Instant,
    /// When it is given up unless something moves.
    pub(super) deadline: Instant,
    pub(super) retries: u32,
    /// Whom the proposer last said it waits for.
    pub(super) lacking: Option<Lacking>,
    /// How it is told, if differences are.
    pub(super) telling: Option<Telling<S>>,
    pub(super) phase: Phase<S>,
}

/// What was last recorded of nodes that a round lacks.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Lacking {
    pub(super) missing: Vec<NodeId>,
    /// When the same is recorded again, and after what silence.
    pub(super) again: Instant,
    pub(super) silence: Duration,
}

/// How far it has come.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Phase<S: Scalar> {
    /// It waits for a proposal.
    Ready,
    /// Values are moving.
    Reducing { proposal: Proposal, direct: Box<Reduction<S>>, moved: Instant, report: Instant, fresh: bool },
    /// The whole result is there, and nothing is committed.
    Done { proposal: Proposal, average: Arc<Contribution<S>>, result: Digest, doubt: Doubt },
    /// A donor's state is awaited.
    Healing,
}

/// Whether the verdict on a result is awaited or asked for.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Doubt {
    /// The verdict is awaited until then.
    None(Instant),
    /// These were asked and have not answered; until then.
    Asked(BTreeSet<NodeId>, Instant),
}

impl<S: Scalar> Entry<S> {
    /// The attempt it takes part in.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        match &self.phase {
            Phase::Ready | Phase::Healing => None,
            Phase::Reducing { proposal, .. } | Phase::Done { proposal, .. } => Some(proposal.certificate.attempt),
        }
    }

    pub(super) fn timeout(&self) -> Instant {
        match &self.phase {
            Phase::Ready => self.deadline.min(self.tell_again),
            Phase::Reducing { report, .. } => self.deadline.min(*report),
            Phase::Done { doubt: Doubt::None(until) | Doubt::Asked(_, until), .. } => *until,
            Phase::Healing => Instant::FAR,
        }
    }
}
