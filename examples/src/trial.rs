//! Fleets of real processes under trial: started, watched by their event logs, and harmed.
//!
//! For tests, and for the programs `recovery`, `allreduce` and `placements`; `tcp` takes its networks from here. Whoever waits has a deadline.

mod line;
mod network;
mod observed;
mod worker;

pub use line::{fetch, serve};
pub use network::Network;
pub use observed::{Observed, commit_of, loss_of, until};
pub use worker::{Lines, Worker};
