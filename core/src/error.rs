//! What can go wrong that a caller could not foresee.
//!
//! Wrong shapes and broken contracts are bugs and panic; memory, devices, links and files are not, and
//! give errors that carry the facts. Generic code looks only at the [`ErrorKind`].

use core::fmt;

/// What a caller can do about an error, whatever backend or transport it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ErrorKind {
    /// Not enough memory; a smaller batch or model may fit.
    OutOfMemory,
    /// The device is gone; go on with another backend from the last committed weights.
    DeviceLost,
    /// No such device, driver or library; install what the message names.
    Unavailable,
    /// A decomposition did not succeed; raise the damping or keep the old one.
    Numeric,
    /// A peer cannot be reached; it will be seen as down.
    Unreachable,
    /// A later start of this node has taken its place; this one is to end.
    Superseded,
    /// Anything else; the message says what.
    Other,
}

/// An error with a kind, from a backend or a transport.
pub trait Error: core::error::Error + Send + Sync + 'static {
    /// What a caller can do about it.
    fn kind(&self) -> ErrorKind;
}

/// The error of a backend that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl core::error::Error for Never {}

impl Error for Never {
    fn kind(&self) -> ErrorKind {
        match *self {}
    }
}
