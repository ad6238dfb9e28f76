//! The one thing that can go wrong.

use core::fmt;
use kronfleet_core::error::{Error, ErrorKind};

/// A buffer could not be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// How large it was to be.
    pub bytes: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no memory for a buffer of {} bytes: take a smaller batch or model", self.bytes)
    }
}

impl core::error::Error for OutOfMemory {}

impl Error for OutOfMemory {
    fn kind(&self) -> ErrorKind {
        ErrorKind::OutOfMemory
    }
}
