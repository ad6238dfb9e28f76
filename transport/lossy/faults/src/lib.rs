//! Seeded fault schedules for a simulated fleet: drawn, run, judged, shrunk and replayed.
//!
//! A [`Schedule`](schedule::Schedule) is a small text file: what a run consists of, and one fault per line. [`draw()`]
//! makes one from a seed, [`play`](play::play) runs it on the simulator with the shipped node code and a tiny model and
//! checks every invariant, [`shrink`](shrink::shrink) finds the smallest schedule that still fails. The program `faults`
//! does all of it from the command line.
//!
//! Faults of links are the simulator's own; what happens inside a machine (a process that is killed, frozen or doubled,
//! a clock that runs wrong, frames that are damaged, values that are not finite) is the business of
//! `machine`.
#![forbid(unsafe_code)]

pub mod draw;
mod farewell;
mod machine;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod play;
pub mod schedule;
pub mod shrink;
pub mod sweep;
mod text;
mod training;

pub use draw::draw;
