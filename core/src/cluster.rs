//! The cluster: who is there, and averages they all agree on.
//!
//! # For users
//! A [`Node`] is a state machine ([`Process`](crate::process::Process)) that talks in frames. Give it
//! contributions and it answers with committed averages, each with a [`Certificate`] that says exactly what
//! it is made of; everybody who commits an attempt holds the same bits. [`Record`]s tell what happened,
//! [`Counters`] how much. [`Budget`] is the only time to be chosen.
//!
//! # For implementers
//! `membership` keeps one link per peer: detector, `outbox` (what is sent when, within the `window` and again after the
//! `patience`), `inbox` (reassembly).
//! `round` decides, `collective` computes, `healing` brings back who fell behind. Partitions go on
//! independently and merge when they meet again: the merging certificate names both parents.

mod budget;
mod certificate;
mod contribution;
mod counters;
mod detector;
mod digest;
mod exercise;
mod healing;
mod inbox;
mod membership;
mod message;
mod mode;
mod node;
mod outbox;
mod patience;
mod peer;
mod persistence;
mod quarantine;
mod record;
mod rejoin;
mod round;
#[cfg(test)]
mod tests;
mod window;
pub mod wire;

pub use budget::{Budget, BudgetError};
pub use certificate::{Algorithm, Attempt, Certificate, CertificateId, Incarnation, Member, Parent, Round};
pub use contribution::{Contribution, Segment};
pub use counters::{Counters, Traffic};
pub use digest::{Digest, Digester};
pub use exercise::{exercise, exercise_membership};
pub use mode::Mode;
pub use node::{Node, Outcome, Settings};
pub use peer::{Liveness, Peer};
pub use persistence::Persisted;
pub use quarantine::Quarantine;
pub use record::{AbandonReason, AbortReason, Loss, Occurrence, Record};
pub use rejoin::{Rejoin, Shortage};
pub use wire::{Kind, RunId, Status};
