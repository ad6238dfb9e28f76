//! What stands before every frame in a ring.
//!
//! | offset | field |
//! |---|---|
//! | 0 | length of what follows in bytes, `u32` |
//! | 4 | kind: a frame, or padding up to the end of the ring, `u32` |
//! | 8 | the generation of the sender, `u64` |
//!
//! Numbers stand in the machine's own order: both ends are processes of one machine.

use std::fmt;

/// Bytes before a frame, and what every record is aligned to.
pub(crate) const HEADER: usize = 16;

const FRAME: u32 = 0x4d52_464b;
const PADDING: u32 = 0x4441_504b;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Frame,
    Padding,
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// Bytes that follow.
    pub(crate) len: usize,
    /// Which life of the sender wrote it.
    pub(crate) generation: u64,
}

/// How much of the ring a record with `len` bytes takes.
pub(crate) const fn span(len: usize) -> u64 {
    (HEADER as u64 + len as u64).next_multiple_of(HEADER as u64)
}

impl Record {
    /// The header as bytes.
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let kind = match self.kind {
            Kind::Frame => FRAME,
            Kind::Padding => PADDING,
        };
        bytes[..4].copy_from_slice(&(self.len as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&kind.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.generation.to_ne_bytes());
        bytes
    }

    /// The header that these bytes are, if the record does not take more than `available` bytes of the ring.
    ///
    /// # Errors
    /// If they are none: another process wrote them.
    pub(crate) fn parse(bytes: [u8; HEADER], available: u64) -> Result<Self, Corrupt> {
        let [len, kind] = [0, 4].map(|at| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four of them")));
        let generation = u64::from_ne_bytes(bytes[8..].try_into().expect("eight of them"));
        let kind = match kind {
            FRAME => Kind::Frame,
            PADDING => Kind::Padding,
            _ => return Err(Corrupt::Kind(kind)),
        };
        let len = len as usize;
        if span(len) > available {
            return Err(Corrupt::Length { len, available });
        }
        Ok(Self { kind, len, generation })
    }
}

/// What another process left in a ring makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Corrupt {
    /// A record is neither frame nor padding.
    Kind(u32),
    /// A record is longer than what is there.
    Length {
        /// Its length.
        len: usize,
        /// What is there.
        available: u64,
    },
    /// Padding does not end where the ring ends.
    Padding,
    /// Positions are further apart than the ring is long, or not aligned.
    Position {
        /// Where is written next.
        head: u64,
        /// Where is read next.
        tail: u64,
    },
    /// A frame of a life that the sender never had, or of one before that of the frame before.
    Generation(u64),
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "a record of unknown kind {kind:#x}"),
            Self::Length { len, available } => write!(f, "a record of {len} bytes where {available} are"),
            Self::Padding => f.write_str("padding that does not end at the ring's end"),
            Self::Position { head, tail } => write!(f, "positions {head} and {tail} do not belong together"),
            Self::Generation(generation) => write!(f, "a frame of generation {generation}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(len in 0_usize..100_000, generation: u64, frame: bool) {
            let kind = if frame { Kind::Frame } else { Kind::Padding };
            let record = Record { kind, len, generation };
            prop_assert_eq!(Record::parse(record.encode(), span(len)), Ok(record));
            let short = span(len) - 1;
            prop_assert_eq!(Record::parse(record.encode(), short), Err(Corrupt::Length { len, available: short }));
        }

        #[test]
        fn what_is_read_fits(bytes: [u8; HEADER], available in 0_u64..1 << 40) {
            if let Ok(record) = Record::parse(bytes, available) {
                prop_assert!(span(record.len) <= available);
            }
        }
    }
}
