//! Why values cannot be encoded, or bytes not decoded.

use crate::error::{Error, ErrorKind};
use core::fmt;

/// Why values cannot be encoded, or bytes not decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CompressError {
    /// A value is not a number, or infinite.
    NotFinite {
        /// Which one.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A value, or the norm of all, is beyond what the code can say.
    TooLarge {
        /// What is too large.
        value: f64,
    },
    /// There are fewer bytes than so many values take.
    Truncated {
        /// Bytes there are.
        found: usize,
        /// Bytes there are at least if nothing is missing.
        least: usize,
    },
    /// There are more bytes than so many values take.
    Oversized {
        /// Bytes there are.
        found: usize,
        /// Bytes there can be at most.
        most: usize,
    },
    /// A field of the bytes has a value that means nothing.
    Field(&'static str),
}

impl fmt::Display for CompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { index, value } => {
                write!(f, "value {index} is {value}; only finite numbers can be sent: lower the learning rate")
            }
            Self::TooLarge { value } => write!(f, "{value:e} is too large for this code; send in full precision"),
            Self::Truncated { found, least } => write!(f, "{found} bytes are too few: there are at least {least}"),
            Self::Oversized { found, most } => write!(f, "{found} bytes are too many: there are at most {most}"),
            Self::Field(name) => write!(f, "the message's {name} has no meaning"),
        }
    }
}

impl core::error::Error for CompressError {}

impl Error for CompressError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFinite { .. } | Self::TooLarge { .. } => ErrorKind::Numeric,
            Self::Truncated { .. } | Self::Oversized { .. } | Self::Field(_) => ErrorKind::Other,
        }
    }
}
