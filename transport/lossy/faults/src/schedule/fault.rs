//! Everything that can go wrong in a simulated run.

use crate::text;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::link::LinkOptions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a node records at the points where it can be killed: the first word of the record.
pub const POINTS: [&str; 17] = [
    "up",
    "down",
    "suspect",
    "ready",
    "proposed",
    "done",
    "accepted",
    "recovering",
    "not",
    "committed",
    "aborted",
    "abandoned",
    "healing",
    "healed",
    "merged",
    "lacking",
    "slow",
];

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Fault {
    /// The process is killed at a time; a machine that was never up before `back` is a late joiner.
    Crash {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// When.
        #[serde(with = "text::at")]
        at: Instant,
        /// When it is started again, if ever.
        #[serde(with = "text::maybe_at", default, skip_serializing_if = "Option::is_none")]
        back: Option<Instant>,
    },
    /// The process is killed at a point of the protocol: when it has recorded `on` for the `nth` time and sent `frames`
    /// frames after that.
    Kill {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// One of [`POINTS`].
        on: String,
        /// Which record of this kind, from 1.
        nth: u32,
        /// How many frames it still sends.
        frames: u32,
        /// How long after its death it is started again, if ever.
        #[serde(with = "text::maybe_span", default, skip_serializing_if = "Option::is_none")]
        back: Option<Duration>,
        /// By when this has happened, or does not happen any more.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// The process is told to leave, and says goodbye.
    Leave {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// When.
        #[serde(with = "text::at")]
        at: Instant,
        /// When it is started again, if ever.
        #[serde(with = "text::maybe_at", default, skip_serializing_if = "Option::is_none")]
        back: Option<Instant>,
    },
    /// The node has done its iterations earlier than the others, and only answers from then on. Another start of it begins
    /// from nothing and trains.
    Finish {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// After which step: the first that ends after this time.
        #[serde(with = "text::at")]
        at: Instant,
    },
    /// The process is stopped and continued; frames wait for it.
    Pause {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// When it is stopped.
        #[serde(with = "text::at")]
        from: Instant,
        /// When it goes on.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// The process is stopped, another one is started in its place, and the first goes on beside it: a zombie.
    Ghost {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// When the second is started.
        #[serde(with = "text::at")]
        from: Instant,
        /// When the first goes on.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// Training steps take `factor` times as long.
    Slow {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// How many times.
        factor: f64,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// All links of the node are cut.
    Outage {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// All links of the node are cut for the first half of every period.
    Flap {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// How long a period is.
        #[serde(with = "text::span")]
        period: Duration,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// Nothing gets from `sources` to `targets`.
    Cut {
        /// Who is not heard.
        #[serde(with = "text::nodes")]
        sources: BTreeSet<NodeId>,
        /// Who does not hear.
        #[serde(with = "text::nodes")]
        targets: BTreeSet<NodeId>,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// Nothing gets from one side to the other or back.
    Partition {
        /// One side.
        #[serde(with = "text::nodes")]
        one: BTreeSet<NodeId>,
        /// The other.
        #[serde(with = "text::nodes")]
        other: BTreeSet<NodeId>,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// Links behave otherwise.
    Link {
        /// The senders.
        #[serde(with = "text::nodes")]
        sources: BTreeSet<NodeId>,
        /// The receivers.
        #[serde(with = "text::nodes")]
        targets: BTreeSet<NodeId>,
        /// How.
        #[serde(with = "text::link")]
        link: LinkOptions,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// Links are full.
    Clog {
        /// The senders.
        #[serde(with = "text::nodes")]
        sources: BTreeSet<NodeId>,
        /// The receivers.
        #[serde(with = "text::nodes")]
        targets: BTreeSet<NodeId>,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// A share of the frames that arrive are damaged.
    Damage {
        /// At whom.
        #[serde(with = "text::node")]
        node: NodeId,
        /// How.
        how: Damage,
        /// Which share of them.
        share: f64,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// A share of the frames that arrive do so once more, much later.
    Echo {
        /// At whom.
        #[serde(with = "text::node")]
        node: NodeId,
        /// Which share of them.
        share: f64,
        /// How much later.
        #[serde(with = "text::span")]
        after: Duration,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// The clock jumps ahead.
    Jump {
        /// Whose.
        #[serde(with = "text::node")]
        node: NodeId,
        /// When.
        #[serde(with = "text::at")]
        at: Instant,
        /// How far.
        #[serde(with = "text::span")]
        by: Duration,
    },
    /// The clock runs `rate` times as fast as time.
    Drift {
        /// Whose.
        #[serde(with = "text::node")]
        node: NodeId,
        /// How many times.
        rate: f64,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// The node's disk fails or is slow.
    Disk {
        /// Whose.
        #[serde(with = "text::node")]
        node: NodeId,
        /// How long a write takes; left out, every write fails as if there were no space.
        #[serde(with = "text::maybe_span", default, skip_serializing_if = "Option::is_none")]
        takes: Option<Duration>,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
    /// What stands on the node's disk is damaged.
    Decay {
        /// Whose.
        #[serde(with = "text::node")]
        node: NodeId,
        /// How.
        how: Decay,
        /// When.
        #[serde(with = "text::at")]
        at: Instant,
    },
    /// The process is written down in the middle of whatever it does, and one that is read back goes on in its place:
    /// nothing must come of it.
    Restore {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// When.
        #[serde(with = "text::at")]
        at: Instant,
    },
    /// What the node contributes is wrong.
    Sick {
        /// Who.
        #[serde(with = "text::node")]
        node: NodeId,
        /// How.
        with: Sickness,
        /// From when on.
        #[serde(with = "text::at")]
        from: Instant,
        /// Until when.
        #[serde(with = "text::at")]
        until: Instant,
    },
}

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// Its end is missing.
    Truncate,
    /// There is more of it than there was.
    Extend,
    /// One of its bits is another one.
    Flip,
    /// Other bytes come in its place.
    Garbage,
    /// It is of another version of the protocol.
    Version,
    /// It is of another run.
    Stranger,
    /// If it carries a donor's state, a bit of that is another one, and its check sum is right: the donor's memory rots.
    Rot,
    /// If it carries averaged values, a bit of one is another one, and its check sum is right: the receiver's result is
    /// not what the others have.
    Spoil,
}

impl Damage {
    /// Those of which no node takes anything for what it is not.
    pub const HARMLESS: [Self; 6] =
        [Self::Truncate, Self::Extend, Self::Flip, Self::Garbage, Self::Version, Self::Stranger];
}

/// What happens to what stands on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// One bit is another one.
    Flip,
    /// Its end is missing, as after a write that was torn.
    Truncate,
}

/// What is wrong with a contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sickness {
    /// A value is not a number.
    Nan,
    /// A value is infinite.
    Infinite,
    /// There is a value too many.
    Shape,
}

impl Fault {
    /// When it is over, a restart that follows included.
    pub fn end(&self) -> Instant {
        match *self {
            Self::Crash { at, back, .. } | Self::Leave { at, back, .. } => back.unwrap_or(at),
            Self::Kill { until, back, .. } => until + back.unwrap_or_default(),
            Self::Finish { at, .. } | Self::Jump { at, .. } | Self::Decay { at, .. } | Self::Restore { at, .. } => at,
            Self::Echo { until, after, .. } => until + after,
            Self::Pause { until, .. }
            | Self::Ghost { until, .. }
            | Self::Slow { until, .. }
            | Self::Outage { until, .. }
            | Self::Flap { until, .. }
            | Self::Cut { until, .. }
            | Self::Partition { until, .. }
            | Self::Link { until, .. }
            | Self::Clog { until, .. }
            | Self::Damage { until, .. }
            | Self::Drift { until, .. }
            | Self::Disk { until, .. }
            | Self::Sick { until, .. } => until,
        }
    }

    /// When it begins and when it ends, to be changed; what has no length has no end.
    pub(crate) fn span_mut(&mut self) -> (Option<&mut Instant>, Option<&mut Instant>) {
        match self {
            Self::Crash { at, back, .. } | Self::Leave { at, back, .. } => (Some(at), back.as_mut()),
            Self::Kill { .. } => (None, None),
            Self::Finish { at, .. } | Self::Jump { at, .. } | Self::Decay { at, .. } | Self::Restore { at, .. } => {
                (Some(at), None)
            }
            Self::Echo { from, until, .. }
            | Self::Pause { from, until, .. }
            | Self::Ghost { from, until, .. }
            | Self::Slow { from, until, .. }
            | Self::Outage { from, until, .. }
            | Self::Flap { from, until, .. }
            | Self::Cut { from, until, .. }
            | Self::Partition { from, until, .. }
            | Self::Link { from, until, .. }
            | Self::Clog { from, until, .. }
            | Self::Damage { from, until, .. }
            | Self::Drift { from, until, .. }
            | Self::Disk { from, until, .. }
            | Self::Sick { from, until, .. } => (Some(from), Some(until)),
        }
    }

    /// The node it happens to, if it happens to one.
    pub fn node(&self) -> Option<NodeId> {
        match *self {
            Self::Crash { node, .. }
            | Self::Kill { node, .. }
            | Self::Leave { node, .. }
            | Self::Finish { node, .. }
            | Self::Pause { node, .. }
            | Self::Ghost { node, .. }
            | Self::Slow { node, .. }
            | Self::Outage { node, .. }
            | Self::Flap { node, .. }
            | Self::Damage { node, .. }
            | Self::Echo { node, .. }
            | Self::Jump { node, .. }
            | Self::Drift { node, .. }
            | Self::Disk { node, .. }
            | Self::Decay { node, .. }
            | Self::Restore { node, .. }
            | Self::Sick { node, .. } => Some(node),
            Self::Cut { .. } | Self::Partition { .. } | Self::Link { .. } | Self::Clog { .. } => None,
        }
    }

    /// The groups of nodes between which it happens.
    pub(crate) fn groups(&self) -> Vec<&BTreeSet<NodeId>> {
        match self {
            Self::Partition { one, other, .. } => vec![one, other],
            Self::Cut { sources, targets, .. }
            | Self::Link { sources, targets, .. }
            | Self::Clog { sources, targets, .. } => vec![sources, targets],
            _ => Vec::new(),
        }
    }

    /// The same without this node, if anything is left of it.
    pub(crate) fn without(&self, gone: NodeId) -> Option<Self> {
        let mut fault = self.clone();
        match &mut fault {
            Self::Partition { one, other, .. } => {
                one.remove(&gone);
                other.remove(&gone);
            }
            Self::Cut { sources, targets, .. }
            | Self::Link { sources, targets, .. }
            | Self::Clog { sources, targets, .. } => {
                sources.remove(&gone);
                targets.remove(&gone);
            }
            _ => {}
        }
        (fault.node() != Some(gone) && fault.groups().iter().all(|group| !group.is_empty())).then_some(fault)
    }
}
