//! Gossip: models approach each other from neighbour to neighbour, without rounds and without agreement.
//!
//! # For users
//! A [`Topology`] says who is whose neighbour, [`Mixing`] how much each counts, and a [`Consensus`] is what one node keeps
//! of its neighbours: it makes messages through any [`Compressor`](crate::compress::Compressor), takes those of others in,
//! and moves its model. Where ways are not mutual or change, [`Directed`] says who tells whom, and a [`Push`] is what one
//! node keeps of what it gives and takes. [`tune`] finds a step size for a graph and a compressor by trial, [`Unit::Measured`] while
//! nodes train.
//!
//! ```
//! use kronfleet_core::compress::Identity;
//! use kronfleet_core::gossip::{Consensus, Mixing, Rule, Topology};
//! use kronfleet_core::seed::Seed;
//! use kronfleet_core::transport::NodeId;
//!
//! let mixing = Mixing::metropolis(&Topology::complete(2));
//! let mut models = [[0.0_f64], [4.0]];
//! let mut nodes = [0, 1].map(|node| Consensus::new(Rule::Choco { step: 1.0 }, mixing.row(NodeId(node)), 1));
//! let (mut random, mut messages) = (Seed(1).random(), [vec![], vec![]]);
//! for ((node, model), message) in nodes.iter_mut().zip(&models).zip(&mut messages) {
//!     node.send(model, &mut Identity, &mut random, message).unwrap();
//! }
//! nodes[0].receive(NodeId(1), &messages[1], &mut Identity).unwrap();
//! nodes[1].receive(NodeId(0), &messages[0], &mut Identity).unwrap();
//! for (node, model) in nodes.iter_mut().zip(&mut models) {
//!     node.mix(model);
//! }
//! assert_eq!(models, [[2.0], [2.0]]);
//! ```
//!
//! # For implementers
//! Nothing here knows of frames or time: [`Gossip`](crate::policy::Gossip) is the policy that carries these messages.

mod consensus;
mod contraction;
mod directed;
mod mass;
mod mixing;
mod pace;
mod push;
mod topology;
mod tuning;

pub use consensus::{AdaGossip, Consensus, Rule, Unit};
pub use contraction::bearable;
pub use directed::{Directed, Place};
pub use mass::Mass;
pub use mixing::{Mixing, Row};
pub use pace::{AdaptivePace, Pace};
pub use push::{Part, Push, Whole};
pub use topology::Topology;
pub use tuning::{Agreement, Tuning, agreement, kept, theoretical, tune, tune_at};
