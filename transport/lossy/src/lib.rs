//! In-process lossy links for kronfleet: a deterministic virtual-time simulator and real threads.
//!
//! One model of links ([`link`]), faults ([`fault`], [`outage`]) and the network between nodes
//! ([`network`], [`site`]) serves two drivers over the same node code:
//!
//! - [`simulation`]: virtual time. The protocol runs on one thread and is deterministic to the byte; the
//!   computations of independent nodes run in parallel. Thousands of nodes are feasible.
//! - [`endpoint`] and [`threads`]: real time. Every node is driven on a thread of its own and computes on
//!   another.
//!
//! One seed gives one run: [`trace`] hashes everything that happens, writes it down on request, and
//! verifies that a replay does the same.
#![forbid(unsafe_code)]

pub mod endpoint;
pub mod fault;
pub mod link;
pub mod network;
pub mod outage;
pub mod simulation;
pub mod site;
pub mod storage;
pub mod threads;
pub mod trace;
