//! Second-order (K-FAC) training of neural networks among nodes that drop out and come back.
//!
//! The algorithm is written once, here, over small traits: a compute backend implements
//! [`backend::Backend`], a transport implements [`transport::Transport`]; neither knows the other. This crate is
//! `no_std` + `alloc` and has no clock, thread, lock, hash map or randomness of its own.
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::std_instead_of_core, clippy::std_instead_of_alloc, clippy::alloc_instead_of_core)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod backend;
pub mod cluster;
pub mod collective;
pub mod compress;
pub mod error;
pub mod factor;
pub mod gossip;
pub mod layer;
pub mod matrix;
#[cfg(feature = "mutants")]
pub mod mutant;
#[cfg(not(feature = "mutants"))]
mod mutant;
pub mod network;
pub mod optimiser;
pub mod outer;
pub mod participant;
pub mod placement;
pub mod policy;
pub mod preconditioner;
pub mod process;
pub mod scalar;
pub mod schedule;
pub mod seed;
pub mod storage;
pub mod time;
pub mod trainer;
pub mod transport;
