//! Checkpoints: everything a run goes on from, whole or not at all.
//!
//! `docs/checkpoints.md` states the format. [`Store`] writes and keeps them, [`Saved`] finds and checks one.

mod error;
mod fleet;
mod layers;
mod manifest;
mod storage;
mod store;

pub use error::CheckpointError;
pub use fleet::{Common, FLEET, FleetState, MODEL, NodeState, Numbers, SharedState, TrainerState};
pub use layers::{Layers, file};
pub use manifest::{Committed, Entry, Manifest, ManifestError, RunIdentity, Sum, VERSION};
pub use storage::{Disk, Storage};
pub use store::{MANIFEST, Part, Saved, Store, VOUCHER};

#[cfg(test)]
mod tests;
