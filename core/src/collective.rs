//! Sums over nodes, as state machines over point-to-point messages.
//!
//! A collective neither sends nor receives: it names what is to be sent and takes in what came. The
//! [`cluster`](crate::cluster) carries its messages and decides whether its result counts.

pub mod direct;
