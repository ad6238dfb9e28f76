//! When nodes average, and what.
//!
//! An [`AveragingPolicy`] hears what its node's training and rounds do, and says when to contribute. It
//! neither touches frames nor the model: the [`Participant`](crate::participant::Participant) does.
//!
//! # For users
//! [`Local`] never averages, [`Periodic`] averages every so many iterations, [`Dynamic`] when models have drifted apart;
//! [`Asynchronous`] trains on while an average is under way, [`Streaming`] averages a part of the model at a time;
//! with [`Layerwise`], every step ends by a deadline, and layers are averaged over those who have got so far;
//! [`Hierarchical`] averages in two levels, sites and slow lines between them; with [`Gossip`], models move towards those of neighbours, and with [`PushSum`] parts of them are given away.
//!
//! # For implementers
//! A policy is a state machine: it answers every [`handle`](AveragingPolicy::handle) with what
//! [`poll`](AveragingPolicy::poll) then gives, and knows time only from its arguments. Inputs and actions
//! will grow; match them with a wildcard.
//!
//! One that averages at iterations 1, 2, 4, 8 and so on, and its node's first steps with it:
//!
//! ```
//! use kronfleet_core::participant::Summary;
//! use kronfleet_core::policy::{AveragingPolicy, PolicyAction, PolicyInput, Request};
//! use kronfleet_core::time::Instant;
//!
//! /// Averages often at first, when models change fast.
//! struct Doubling {
//!     next: u64,
//!     due: bool,
//! }
//!
//! impl AveragingPolicy for Doubling {
//!     fn name(&self) -> &'static str {
//!         "doubling"
//!     }
//!
//!     fn handle(&mut self, _: Instant, input: PolicyInput<'_>) {
//!         match input {
//!             PolicyInput::Stepped { iteration, .. } => self.due = iteration >= self.next,
//!             // Whoever was alone tries again after the next step.
//!             PolicyInput::Committed(_) | PolicyInput::Healed(_) => self.next *= 2,
//!             _ => {}
//!         }
//!     }
//!
//!     fn poll(&mut self) -> Option<PolicyAction> {
//!         core::mem::take(&mut self.due).then(|| PolicyAction::Contribute(Request::default()))
//!     }
//!
//!     fn save(&self) -> Vec<u64> {
//!         vec![self.next]
//!     }
//!
//!     fn restore(&mut self, state: &[u64]) {
//!         self.next = state[0];
//!     }
//! }
//!
//! let mut policy = Doubling { next: 2, due: false };
//! for (iteration, contributes) in [(1, false), (2, true)] {
//!     let summary = Summary::default();
//!     policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &summary });
//!     assert_eq!(policy.poll().is_some(), contributes);
//!     assert_eq!(policy.poll(), None);
//! }
//! ```

mod asynchronous;
mod dynamic;
mod exchange;
mod gossip;
mod hierarchical;
mod layerwise;
mod local;
mod overlap;
mod periodic;
mod push;
mod streaming;
mod tag;
pub(crate) mod words;

pub use asynchronous::Asynchronous;
pub use dynamic::{Axis, Confidence, Drifts, Dynamic, DynamicOptions, Gauge, SketchError, Sketcher, State, Threshold};
pub use gossip::{Gossip, GossipOptions};
pub use hierarchical::{Cycle, CycleOptions, Hierarchical, HierarchicalOptions, Merge};
pub use layerwise::Layerwise;
pub use local::Local;
pub use overlap::{Blend, Overlap, part};
pub use periodic::{Missed, Periodic};
pub use push::{PushSum, PushSumOptions};
pub use streaming::{Streaming, StreamingOptions};

pub use crate::cluster::Rejoin;
use crate::cluster::{AbandonReason, Certificate, Incarnation};
use crate::outer::OuterOptimiser;
use crate::participant::Summary;
use crate::scalar::Values;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::vec::Vec;

/// What a policy hears.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PolicyInput<'a> {
    /// The node begins.
    Began {
        /// How many iterations its training has in all; [`u64::MAX`] if that is not known.
        iterations: u64,
        /// Which of its starts this is; later ones of the same node have greater ones.
        incarnation: Incarnation,
    },
    /// The training made a step.
    Stepped {
        /// Its iterations so far.
        iteration: u64,
        /// What the step did.
        summary: &'a Summary,
    },
    /// The means of the [`numbers`](AveragingPolicy::numbers) of all whose contributions are in the average that training has
    /// adopted: before [`PolicyInput::Committed`] or [`PolicyInput::Healed`], where there are any.
    Averaged(&'a [f64]),
    /// A round with this node's contribution was committed and the training has adopted it.
    Committed(&'a Certificate),
    /// The training has adopted a committed state instead of its own.
    Healed(&'a Certificate),
    /// The contribution came to nothing.
    Abandoned(AbandonReason),
    /// Before [`PolicyInput::Observed`]: to these peers not everything has been sent yet that this node's policy has told them.
    Unsaid(&'a [NodeId]),
    /// What training holds, as asked for by [`PolicyAction::Observe`].
    Observed {
        /// The model's parameters.
        parameters: Values<'a>,
        /// The peers that train and can be reached, in the order of their ids.
        peers: &'a [NodeId],
    },
    /// While the node pauses: which peers train and can be reached has changed.
    Peers(&'a [NodeId]),
    /// Where steps are shared, while the node pauses: those with whom it shares them have to part, so that what it waits for may
    /// never come. It goes on, whatever the policy answers.
    Interrupted,
    /// The training has gone back to an earlier state by itself, as where a device was lost: before
    /// [`PolicyInput::Stepped`] or [`PolicyInput::Observed`], if it did so since the last of these.
    Replaced,
    /// A peer's policy says something.
    Told {
        /// Whose.
        from: NodeId,
        /// What it says: as it was said, though perhaps by a policy of another kind.
        bytes: &'a [u8],
    },
}

/// What a policy wants done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PolicyAction {
    /// Contribute what training holds now to the next round, and wait for its outcome.
    Contribute(Request),
    /// Contribute what training holds now, or a part of it, to the next round, and train on meanwhile; with the answers that a
    /// contribution has. One at a time; not where steps are shared.
    Offer(Request, Overlap),
    /// Give up waiting and go on with training.
    Withdraw,
    /// Hand over what training holds now, with [`PolicyInput::Observed`]: in answer to
    /// [`PolicyInput::Began`], [`PolicyInput::Stepped`], [`PolicyInput::Committed`] or [`PolicyInput::Healed`], after
    /// which no step is under way.
    Observe,
    /// Say something to a peer's policy: reliably while the peer can be reached, in order, apart from any round.
    Tell {
        /// To whom.
        to: NodeId,
        /// What, at most 60 KiB.
        bytes: Vec<u8>,
    },
    /// Begin no step until [`PolicyAction::Proceed`] or a contribution.
    ///
    /// A policy that pauses has a [`timeout`](AveragingPolicy::timeout), or a lost peer would hold up its node.
    Pause,
    /// Train on with these parameters instead of the model's own, which they are as many as; where an observation is
    /// allowed, or while the node pauses.
    Adopt(Vec<f64>),
    /// Go on with training.
    Proceed,
}

/// What a contribution consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// What the model's parameters and batch statistics count.
    pub weight: f64,
    /// Whether running statistics of normalisation layers are averaged with the parameters.
    pub running: bool,
    /// Whether Kronecker factors are averaged too, each with its own weight.
    pub factors: bool,
    /// Whether the optimiser's state is averaged too.
    pub optimiser: bool,
}

impl Default for Request {
    /// Parameters and batch statistics with weight 1, nothing else.
    fn default() -> Self {
        Self { weight: 1.0, running: true, factors: false, optimiser: false }
    }
}

/// When a step is to end, done or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// So long after it has begun.
    pub within: Duration,
    /// What becomes of a step that is not done by then.
    pub late: Late,
    /// Whether what is contributed of a layer makes up for the rounds in which nobody has one.
    pub unbiased: bool,
}

/// What a node contributes whose step is not done by a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// The layers that its backward pass has reached.
    #[default]
    Layers,
    /// Nothing: it takes part in the round, and its step is as if it had not been made.
    Nothing,
}

/// When to average, and what.
pub trait AveragingPolicy: Send {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Takes in what happened at `now`.
    fn handle(&mut self, now: Instant, input: PolicyInput<'_>);

    /// What it wants done next; to be asked until it answers `None` after every call that changes it.
    fn poll(&mut self) -> Option<PolicyAction>;

    /// When [`wake`](Self::wake) wants to be called; [`Instant::FAR`] if never.
    fn timeout(&self) -> Instant {
        Instant::FAR
    }

    /// Acts on every deadline that is not later than `now`.
    fn wake(&mut self, now: Instant) {
        let _ = now;
    }

    /// What is averaged with every contribution beside what training has, so that all who were in a round have the same
    /// afterwards: as many numbers every time and on all nodes, finite, in the precision of the model. They come back as
    /// [`PolicyInput::Averaged`].
    fn numbers(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Whether its nodes average at all; others do not wait for one that does not.
    fn averages(&self) -> bool {
        true
    }

    /// What it goes on with, for a checkpoint; a policy that remembers anything between calls says it here.
    fn save(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Goes on with what a policy of the same kind and settings has [`save`](Self::save)d.
    fn restore(&mut self, state: &[u64]) {
        let _ = state;
    }

    /// How a node that was away comes back.
    fn rejoin(&self) -> Rejoin {
        Rejoin::FullWeight
    }

    /// What is made of averages, the same on all nodes; `None` to take them as models.
    fn outer(&self) -> Option<OuterOptimiser> {
        None
    }

    /// When a step has to end; its node then contributes the layers that it has a gradient of, each of which
    /// is averaged over those who have it. `None` lets steps take their time. The same on all nodes whether it is `None`; not
    /// with an [`outer`](Self::outer) optimiser, nor where steps are shared.
    fn deadline(&self) -> Option<Deadline> {
        None
    }

    /// Whether all members of a committed round have one model right after it: not where they train on meanwhile, or keep
    /// a part of their own.
    fn unites(&self) -> bool {
        true
    }
}
