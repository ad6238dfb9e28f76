//! When nodes average, and what.
//!
//! An [`AveragingPolicy`] hears what its node's training and rounds do, and says when to contribute. It
//! neither touches frames nor the model: the [`Participant`](crate::participant::Participant) does.
//!
//! # For users
//! [`Local`] never averages, [`Periodic`] averages every so many iterations.
//!
//! # For implementers
//! A policy is a state machine: it answers every [`handle`](AveragingPolicy::handle) with what
//! [`poll`](AveragingPolicy::poll) then gives, and knows time only from its arguments. Inputs and actions
//! will grow (states to be exchanged, gossip); match them with a wildcard.

mod local;
mod periodic;

pub use local::Local;
pub use periodic::{Missed, Periodic};

pub use crate::cluster::Rejoin;
use crate::cluster::{AbandonReason, Certificate};
use crate::participant::Summary;
use crate::time::Instant;
use alloc::vec::Vec;

/// What a policy hears.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PolicyInput<'a> {
    /// The training made a step.
    Stepped {
        /// Its iterations so far.
        iteration: u64,
        /// What the step did.
        summary: &'a Summary,
    },
    /// A round with this node's contribution was committed and the training has adopted it.
    Committed(&'a Certificate),
    /// The training has adopted a committed state instead of its own.
    Healed(&'a Certificate),
    /// The contribution came to nothing.
    Abandoned(AbandonReason),
}

/// What a policy wants done.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum PolicyAction {
    /// Contribute what training holds now to the next round, and wait for its outcome.
    Contribute(Request),
    /// Give up waiting and go on with training.
    Withdraw,
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
}
