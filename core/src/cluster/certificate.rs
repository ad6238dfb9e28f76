//! What a committed average is made of, in a form that everyone who commits it holds bit for bit.

use crate::cluster::digest::Digest;
use crate::transport::NodeId;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Which start of a node: it grows with every start of the same [`NodeId`]; 0 is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The next start after this one, at `since_epoch` since any moment that is the same at every start: the larger of
    /// one more than this and the microseconds, so that a clock that jumps back cannot shrink it.
    ///
    /// ```
    /// use core::time::Duration;
    /// use kronfleet_core::cluster::Incarnation;
    /// assert_eq!(Incarnation(0).next(Duration::from_micros(70)), Incarnation(70));
    /// assert_eq!(Incarnation(70).next(Duration::from_micros(20)), Incarnation(71));
    /// ```
    #[must_use]
    pub fn next(self, since_epoch: core::time::Duration) -> Self {
        let clock = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(1).max(clock))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

/// How many committed rounds an average has behind it, itself included: the height of its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Round(pub u64);

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// One try at a round: ordered by sequence, then proposer, then the proposer's incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Attempt {
    /// Larger than that of every attempt its proposer had heard of.
    pub sequence: u64,
    /// Who proposed it.
    pub proposer: NodeId,
    /// Which start of the proposer.
    pub incarnation: Incarnation,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.sequence, self.proposer, self.incarnation)
    }
}

/// A certificate's name: its round and the digest of everything in it.
///
/// The default, round 0, names the start of the run, which all nodes share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CertificateId {
    /// Its round.
    pub round: Round,
    /// The digest of the certificate as it stands on the wire.
    pub digest: Digest,
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.round, self.digest)
    }
}

/// What one node put into a committed average.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Which of its contributions, counted from its start.
    pub turn: u64,
    /// The iterations its values had behind them.
    pub iteration: u64,
    /// The first and one past the last of its training samples that no earlier commit it knew of counted.
    ///
    /// Counted from the node's start. A contribution whose commit the node never heard of comes again with
    /// a range that contains the earlier one; so whoever unites the ranges counts each sample once.
    pub samples: (u64, u64),
    /// The digest of its values, see [`Contribution::digest`](super::Contribution::digest).
    pub contribution: Digest,
    /// The last certificate it had committed or been healed to.
    pub parent: CertificateId,
    /// What it counts in each segment.
    pub weights: Vec<f64>,
}

impl Member {
    /// The same as a member that only takes the result: it counts nothing, nor do its samples.
    pub(crate) fn healed(&self) -> Self {
        let weights = self.weights.iter().map(|_| 0.0).collect();
        Self { weights, samples: (self.samples.1, self.samples.1), ..self.clone() }
    }

    /// The same as a member that has missed so many rounds and counts less for it.
    pub(crate) fn discounted(&self, missed: u64) -> Self {
        let weights = self.weights.iter().map(|weight| weight / (missed as f64 + 1.0)).collect();
        Self { weights, ..self.clone() }
    }
}

/// A certificate that an average grew from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Parent {
    /// Its name.
    pub certificate: CertificateId,
    /// Whether another parent is known to descend from it: a member was behind. Two parents that are not
    /// stale are a fork that this average merges.
    pub stale: bool,
}

/// How the sum was formed; other ways have other bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Algorithm {
    /// Each piece's owner sums all contributions in [`NodeId`] order in double precision, divides by the
    /// sum of weights and rounds once.
    Direct,
}

impl Algorithm {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Direct => 0,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Direct),
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
        })
    }
}

/// What was averaged, by whom, into what.
///
/// Segment s of the result is `Σ w_i x_i / Σ w_i` over exactly [`members`](Self::members), with
/// `w_i = members[i].weights[s]`; if it [`is_coded`](Self::is_coded), as far as a code tells that.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Certificate {
    /// The attempt that succeeded.
    pub attempt: Attempt,
    /// 1 + the highest round among the parents.
    pub round: Round,
    /// Who contributed, sorted by node.
    pub members: Vec<Member>,
    /// How the sum was formed.
    pub algorithm: Algorithm,
    /// The type of a value on the wire, [`Scalar::NAME`](crate::scalar::Scalar::NAME); behind a space, in what
    /// [`Code`](crate::compress::Code) members told each other parameters as differences.
    pub wire: String,
    /// The digest of the result, see [`Contribution::digest`](super::Contribution::digest).
    pub result: Digest,
    /// What it grew from, sorted.
    pub parents: Vec<Parent>,
}

/// Whether what is called so are differences in code.
pub(crate) fn is_coded(wire: &str) -> bool {
    wire.contains(' ')
}

impl Certificate {
    /// This certificate's name.
    pub fn id(&self) -> CertificateId {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        CertificateId { round: self.round, digest: Digest::of(&bytes) }
    }

    /// Whether members told each other parameters as compressed differences: the average of these is what the code leaves of
    /// the mean, and what it takes comes later.
    pub fn is_coded(&self) -> bool {
        is_coded(&self.wire)
    }

    /// The entry of `node`, if it contributed.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        let index = self.members.binary_search_by_key(&node, |member| member.node).ok()?;
        Some(&self.members[index])
    }

    /// What all members together count in segment `index`.
    pub fn weight(&self, index: usize) -> f64 {
        self.members.iter().map(|member| member.weights.get(index).copied().unwrap_or(0.0)).sum()
    }

    /// How many rounds a member with this parent had missed; 0 if its history was nobody's past.
    pub fn missed(&self, parent: CertificateId) -> u64 {
        let stale = self.parents.iter().any(|known| known.certificate == parent && known.stale);
        if stale { self.round.0.saturating_sub(parent.round.0 + 1) } else { 0 }
    }

    /// Whether `other` is this certificate with a result.
    pub(crate) fn becomes(&self, other: &Self) -> bool {
        Self { result: self.result, ..other.clone() } == *self
    }

    /// Whether this average merges histories that had parted.
    pub fn merges(&self) -> bool {
        self.parents.iter().filter(|parent| !parent.stale).count() > 1
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} attempt {} members", self.id(), self.attempt)?;
        for (index, member) in self.members.iter().enumerate() {
            let comma = if index == 0 { ' ' } else { ',' };
            write!(f, "{comma}{}", member.node)?;
        }
        write!(f, " {} {} result {} parents", self.algorithm, self.wire, self.result)?;
        for (index, parent) in self.parents.iter().enumerate() {
            let comma = if index == 0 { ' ' } else { ',' };
            let stale = if parent.stale { "(stale)" } else { "" };
            write!(f, "{comma}{}{stale}", parent.certificate)?;
        }
        Ok(())
    }
}
