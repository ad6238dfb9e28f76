//! What happened in a node, as typed events with one stable line of text each.
//!
//! Records go into traces that must be equal byte for byte, and checkers of invariants read them; so their
//! text depends on nothing but the events.

use crate::cluster::certificate::{Attempt, Certificate, CertificateId, Incarnation};
use crate::cluster::digest::Digest;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Something that happened in a node.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// When.
    pub at: Instant,
    /// In whom.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// What.
    pub what: Occurrence,
}

/// Why a peer counts as down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Loss {
    /// Nothing was heard of it for too long.
    Silent,
    /// It is heard, but has not heard this node for too long: the link works one way only.
    Deaf,
    /// The transport said so.
    Reported,
    /// It said goodbye.
    Left,
    /// It was started anew.
    Replaced,
}

/// Why an attempt was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AbortReason {
    /// The named members are lost.
    Lost,
    /// Nothing moved for too long; the named members were being waited for.
    Stuck,
    /// The named members contributed a value that is not finite.
    NotFinite,
    /// The named members hold a result with another digest than the rest.
    Unequal,
    /// The named members were no longer ready.
    Declined,
    /// A later attempt took its place.
    Superseded,
    /// The proposer is lost, and nobody who can be reached has committed.
    InDoubt,
}

/// Why a node goes on without a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AbandonReason {
    /// Nobody else takes part in this node's view.
    Alone,
    /// Fewer nodes were ready than a round needs.
    TooFew,
    /// The budget is spent.
    Late,
    /// Its values are not finite.
    NotFinite,
    /// Its result had another digest than the others', or others could not exchange values with it.
    Excluded,
    /// No donor could heal it.
    NoDonor,
    /// A later start of the same node is running.
    Zombie,
    /// It comes and goes all the time, and sits out for a while.
    Quarantined,
}

/// What can happen in a node.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Occurrence {
    /// The node began.
    Started,
    /// A peer is heard and hears this node.
    Up {
        /// Who.
        peer: NodeId,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// A peer was silent for longer than usual.
    Suspect {
        /// Who.
        peer: NodeId,
        /// For how long.
        silent: Duration,
    },
    /// A peer is lost.
    Down {
        /// Who.
        peer: NodeId,
        /// Why.
        why: Loss,
    },
    /// A peer is back that comes and goes all the time: it sits out.
    Quarantined {
        /// Who.
        peer: NodeId,
        /// How often it was lost.
        losses: u32,
        /// For how long.
        cool_down: Duration,
    },
    /// A peer has sat out for long enough.
    Readmitted {
        /// Who.
        peer: NodeId,
    },
    /// A peer of an earlier start was heard; it is refused and told so.
    ZombieRefused {
        /// Who.
        peer: NodeId,
        /// The start it claims.
        incarnation: Incarnation,
        /// The start that is known.
        known: Incarnation,
    },
    /// A peer refused this node, because a later start of it is known.
    Refused {
        /// Who.
        by: NodeId,
        /// The start that is known.
        known: Incarnation,
    },
    /// A frame of another run or of a version this node does not speak was refused.
    Stranger {
        /// Who the transport says it came from.
        peer: NodeId,
    },
    /// The node reached an averaging point.
    Ready {
        /// Which of its contributions.
        turn: u64,
        /// The training iteration.
        iteration: u64,
        /// The samples its values rest on, not known to be counted before.
        samples: (u64, u64),
        /// The digest of its values.
        contribution: Digest,
    },
    /// This node proposed an attempt.
    Proposed {
        /// Which.
        attempt: Attempt,
        /// Its members, sorted.
        members: Vec<NodeId>,
    },
    /// This node proposed without waiting longer for these.
    Slow {
        /// Who was not ready.
        nodes: Vec<NodeId>,
        /// How long it had waited.
        waited: Duration,
    },
    /// This node waits for more nodes than are ready.
    Lacking {
        /// How many are ready.
        ready: usize,
        /// How many a round needs.
        minimum: usize,
        /// Who is not to be reached or not ready.
        missing: Vec<NodeId>,
    },
    /// This node asks for promises, to settle what an earlier attempt left open (strict mode).
    Recovering {
        /// The attempt that does nothing else.
        attempt: Attempt,
    },
    /// This node has made a certificate and its result durable (strict mode).
    Accepted {
        /// In which attempt; a later one than the certificate's if that is being recovered.
        attempt: Attempt,
        /// Which certificate.
        certificate: CertificateId,
        /// How many nodes have to do so before it is committed.
        quorum: usize,
    },
    /// Stable storage has failed: the node does not say what rests on this write (strict mode).
    NotStored {
        /// Which write.
        ticket: u64,
    },
    /// This node holds a whole result.
    Done {
        /// Of which attempt.
        attempt: Attempt,
        /// Its digest.
        result: Digest,
    },
    /// This node applied a result.
    Committed {
        /// What it is made of.
        certificate: Arc<Certificate>,
    },
    /// An attempt was given up; inputs are unharmed.
    Aborted {
        /// Which.
        attempt: Attempt,
        /// Why.
        why: AbortReason,
        /// Who caused it, sorted.
        who: Vec<NodeId>,
    },
    /// The node went on without a round.
    Abandoned {
        /// Which of its contributions.
        turn: u64,
        /// Why.
        why: AbandonReason,
    },
    /// A history was met that has parted from this node's.
    Forked {
        /// Its own last certificate.
        ours: CertificateId,
        /// The other one.
        theirs: CertificateId,
    },
    /// The commit just recorded merges histories that had parted.
    Merged {
        /// The last certificate of each.
        parents: Vec<CertificateId>,
    },
    /// This node is being healed.
    Healing {
        /// By whom.
        donor: NodeId,
    },
    /// This node took over a committed state.
    Healed {
        /// Which.
        certificate: Arc<Certificate>,
        /// From whom; the proposer if it took the result of a round in which it counted nothing.
        donor: NodeId,
        /// Its samples that this state does not contain and that are lost.
        lost: (u64, u64),
    },
    /// Healing data did not have the certified digest and was thrown away.
    HealRejected {
        /// Who sent it.
        donor: NodeId,
        /// The certified digest.
        expected: Digest,
        /// The digest it had.
        found: Digest,
    },
    /// The node has done all its iterations.
    Finished {
        /// How many.
        iteration: u64,
        /// All samples it has trained on.
        samples: u64,
        /// Those of them that no commit it knows of counts.
        uncommitted: (u64, u64),
    },
    /// The node said goodbye.
    Left,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{} {}", self.at, self.node, self.incarnation, self.what)
    }
}

impl fmt::Display for Occurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Up { peer, incarnation } => write!(f, "up {peer} {incarnation}"),
            Self::Suspect { peer, silent } => {
                write!(f, "suspect {peer} silent {}us", silent.as_micros())
            }
            Self::Down { peer, why } => write!(f, "down {peer} {why}"),
            Self::Quarantined { peer, losses, cool_down } => {
                write!(f, "quarantined {peer} losses {losses} for {}us", cool_down.as_micros())
            }
            Self::Readmitted { peer } => write!(f, "readmitted {peer}"),
            Self::ZombieRefused { peer, incarnation, known } => {
                write!(f, "zombie {peer} {incarnation} known {known}")
            }
            Self::Refused { by, known } => write!(f, "refused by {by} known {known}"),
            Self::Stranger { peer } => write!(f, "stranger {peer}"),
            Self::Ready { turn, iteration, samples, contribution } => write!(
                f,
                "ready turn {turn} iteration {iteration} samples {}..{} contribution {contribution}",
                samples.0, samples.1
            ),
            Self::Proposed { attempt, members } => {
                write!(f, "proposed {attempt} members {}", List(members))
            }
            Self::Slow { nodes, waited } => {
                write!(f, "slow {} waited {}us", List(nodes), waited.as_micros())
            }
            Self::Lacking { ready, minimum, missing } => {
                write!(f, "lacking {ready} of {minimum} missing {}", List(missing))
            }
            Self::Recovering { attempt } => write!(f, "recovering {attempt}"),
            Self::Accepted { attempt, certificate, quorum } => {
                write!(f, "accepted {certificate} in {attempt} quorum {quorum}")
            }
            Self::NotStored { ticket } => write!(f, "not stored write {ticket}"),
            Self::Done { attempt, result } => write!(f, "done {attempt} result {result}"),
            Self::Committed { certificate } => write!(f, "committed {certificate}"),
            Self::Aborted { attempt, why, who } => {
                write!(f, "aborted {attempt} {why} {}", List(who))
            }
            Self::Abandoned { turn, why } => write!(f, "abandoned turn {turn} {why}"),
            Self::Forked { ours, theirs } => write!(f, "forked ours {ours} theirs {theirs}"),
            Self::Merged { parents } => write!(f, "merged {}", List(parents)),
            Self::Healing { donor } => write!(f, "healing from {donor}"),
            Self::Healed { certificate, donor, lost } => {
                write!(f, "healed {} from {donor} lost {}..{}", certificate.id(), lost.0, lost.1)
            }
            Self::HealRejected { donor, expected, found } => {
                write!(f, "heal rejected from {donor} expected {expected} found {found}")
            }
            Self::Finished { iteration, samples, uncommitted } => write!(
                f,
                "finished iteration {iteration} samples {samples} uncommitted {}..{}",
                uncommitted.0, uncommitted.1
            ),
            Self::Left => f.write_str("left"),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "silent",
            Self::Deaf => "deaf",
            Self::Reported => "reported",
            Self::Left => "left",
            Self::Replaced => "replaced",
        })
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Stuck => "stuck",
            Self::NotFinite => "not-finite",
            Self::Unequal => "unequal",
            Self::Declined => "declined",
            Self::Superseded => "superseded",
            Self::InDoubt => "in-doubt",
        })
    }
}

impl fmt::Display for AbandonReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alone => "alone",
            Self::TooFew => "too-few",
            Self::Late => "late",
            Self::NotFinite => "not-finite",
            Self::Excluded => "excluded",
            Self::NoDonor => "no-donor",
            Self::Zombie => "zombie",
            Self::Quarantined => "quarantined",
        })
    }
}

struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{item}")?;
        }
        if self.0.is_empty() { f.write_str("-") } else { Ok(()) }
    }
}
