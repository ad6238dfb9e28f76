//! Stable storage: what outlives a crash, as far as core is concerned.
//!
//! # For users
//! Only nodes in strict mode ([`Mode::Strict`](crate::cluster::Mode)) write. A driver that gets [`Write`]s from
//! [`Process::poll_write`](crate::process::Process::poll_write) makes each of them durable, in their order, and says so
//! with [`written`](crate::process::Process::written); before that, the node says nothing that rests on it. When a node
//! is started again, what its [`Storage`] holds is read back
//! ([`Persisted::read`](crate::cluster::Persisted::read)) and given to it. A driver without storage for a node that
//! writes leaves that node mute in every vote; it harms nobody.
//!
//! # For implementers
//! - A slot is replaced as a whole or not at all: write aside, sync, rename, sync the folder. A crash leaves the old
//!   content or the new one, whether it was acknowledged or not.
//! - Writes take effect in the order in which they were asked for. After one that failed, later ones may succeed.
//! - Content is guarded by a check sum of its own; damage is found when it is read, and never taken for "nothing".

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// One of the places that a node writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Slot {
    /// What it has promised: some dozens of bytes.
    Vote,
    /// The last certificate of an even round that it has accepted, and the result: as large as the model.
    Even,
    /// The same for odd rounds, so that the last committed result is never overwritten by one that may fail.
    Odd,
}

impl Slot {
    /// All slots.
    pub const ALL: [Self; 3] = [Self::Vote, Self::Even, Self::Odd];
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vote => "vote",
            Self::Even => "even",
            Self::Odd => "odd",
        })
    }
}

/// Something to be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Write {
    /// Its number; they grow.
    pub ticket: u64,
    /// Where it goes.
    pub slot: Slot,
    /// The slot's new content.
    pub bytes: Vec<u8>,
}

/// What a node keeps, in slots that are replaced as a whole.
pub trait Storage {
    /// The content of a slot; `None` if it was never written.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, StorageError>;

    /// Replaces the content of a slot; waits until that is durable.
    ///
    /// # Errors
    /// If it is not durable; the old content is unharmed.
    fn write(&mut self, slot: Slot, bytes: &[u8]) -> Result<(), StorageError>;
}

/// Why something could not be kept, or not be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageError {
    /// Which slot.
    pub slot: Slot,
    /// What happened, with the path if there is one, and what to do about it.
    pub reason: String,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stable storage, slot {}: {}", self.slot, self.reason)
    }
}

impl core::error::Error for StorageError {}

/// No storage: holds nothing, keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStorage;

impl Storage for NoStorage {
    fn read(&mut self, _: Slot) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(None)
    }

    fn write(&mut self, slot: Slot, _: &[u8]) -> Result<(), StorageError> {
        Err(StorageError { slot, reason: "this node was given no storage; strict mode needs one".into() })
    }
}
