//! A fleet whose nodes are processes of this machine: the same program, started once per node.
//!
//! The process that the user starts trains nothing. It starts one process per node, shows what they report, kills some of
//! them on the way as it is told to, starts them again, and ends with the same report as every trainer. A node's
//! process reports over its standard output, one [`Message`] a line, writes what its node records into an event log, and leaves when its standard input is closed: so
//! nothing runs on when the first process dies, however it dies.
//!
//! # For users
//! A trainer is [`main`] with the name of the transport and a function that opens one node's end of it.
//!
//! # For implementers
//! `node` is a node's process, `fleet` the one that starts them, `message` what goes between them, `claim` what keeps a former
//! start of either from writing.

mod claim;
mod command;
mod fleet;
mod message;
mod node;
mod warnings;

pub use claim::{Claim, SUPERSEDED, Superseded};
#[cfg(test)]
pub(crate) use command::understands;
pub use command::{Launcher, NoSettings, Preparation, Run, main, main_with};
pub use fleet::Fleet;
pub use message::Message;
pub use node::{Connection, Job, Place};
