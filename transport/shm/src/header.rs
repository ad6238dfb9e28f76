//! The first bytes of a segment, which say what it is.
//!
//! Eight 64-bit numbers in the machine's own order:
//!
//! | offset | field |
//! |---|---|
//! | 0 | magic `KFLTSHM1`; written last, 0 while the segment is being made |
//! | 8 | version |
//! | 16 | run |
//! | 24 | nodes |
//! | 32 | bytes of each ring |
//! | 40, 48 | the process that made it: number and start time |
//! | 56 | the table of processes that these numbers belong to |
//!
//! [`parse`](Header::parse) answers every sequence of bytes with a header or a [`HeaderError`].

use crate::layout::{Layout, MOST_NODES};
use crate::life::Process;
use std::fmt;

/// Bytes of a header.
pub const LEN: usize = 64;

/// The version this crate writes and reads; it is raised when the cluster's own protocol changes, too, so that processes
/// that could not average together are told so when they open the segment.
pub const VERSION: u64 = 2;

const MAGIC: u64 = u64::from_ne_bytes(*b"KFLTSHM1");

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The run it belongs to.
    pub run: u64,
    /// How many nodes it has room for.
    pub nodes: u64,
    /// Bytes of each ring.
    pub capacity: u64,
    /// Who made it.
    pub creator: Process,
    /// The table of processes (`/proc/self/ns/pid`) that process numbers in it belong to.
    pub namespace: u64,
}

impl Header {
    /// The header as bytes.
    pub fn encode(&self) -> [u8; LEN] {
        let Self { run, nodes, capacity, creator, namespace } = *self;
        let words = [MAGIC, VERSION, run, nodes, capacity, u64::from(creator.pid), creator.start, namespace];
        let mut bytes = [0; LEN];
        for (target, word) in bytes.chunks_exact_mut(8).zip(words) {
            target.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// The header at the beginning of `bytes`.
    ///
    /// # Errors
    /// If they do not begin with one that this version understands.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut words = [0; LEN / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("chunks of eight"));
        }
        let [magic, version, run, nodes, capacity, pid, start, namespace] = words;
        if magic == 0 {
            return Err(HeaderError::Unfinished);
        }
        if magic != MAGIC || bytes.len() < LEN {
            return Err(HeaderError::Foreign);
        }
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        if Layout::new(nodes, capacity).is_none() {
            return Err(HeaderError::Shape { nodes, capacity });
        }
        let pid = u32::try_from(pid).map_err(|_| HeaderError::Foreign)?;
        Ok(Self { run, nodes, capacity, creator: Process { pid, start }, namespace })
    }
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Whoever was making the segment has not finished.
    Unfinished,
    /// It is something else.
    Foreign,
    /// It is of another version.
    Version(u64),
    /// No segment has such a shape.
    Shape {
        /// How many nodes it claims to have.
        nodes: u64,
        /// How long it claims rings to be, in bytes.
        capacity: u64,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished => f.write_str("it was never finished"),
            Self::Foreign => f.write_str("it is no segment of kronfleet"),
            Self::Version(found) => write!(f, "it is of version {found}, this program speaks version {VERSION}"),
            Self::Shape { nodes, capacity } => write!(
                f,
                "it claims {nodes} nodes with rings of {capacity} bytes; 1 to {MOST_NODES} nodes with rings of a power \
                 of two from 4 KiB to 1 GiB can be"
            ),
        }
    }
}

impl std::error::Error for HeaderError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(run: u64, nodes in 1_u64..9, power in 12_u32..31, pid: u32, start: u64, namespace: u64) {
            let header = Header { run, nodes, capacity: 1 << power, creator: Process { pid, start }, namespace };
            prop_assert_eq!(Header::parse(&header.encode()), Ok(header));
            prop_assert_eq!(Header::parse(&header.encode()[..LEN - 1]), Err(HeaderError::Foreign));
        }

        #[test]
        fn whatever_is_read_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Header::parse(&bytes);
        }
    }

    #[test]
    fn other_versions_and_shapes_are_named() {
        let header = Header { run: 1, nodes: 2, capacity: 4096, creator: Process::default(), namespace: 3 };
        let changed = |at: usize, byte: u8| {
            let mut bytes = header.encode();
            bytes[at] = byte;
            Header::parse(&bytes).expect_err("it was changed").to_string()
        };
        assert_eq!(changed(8, 1), "it is of version 1, this program speaks version 2");
        assert_eq!(changed(0, 0), "it is no segment of kronfleet");
        assert!(changed(24, 0).starts_with("it claims 0 nodes with rings of 4096 bytes"));
        assert!(changed(32, 1).starts_with("it claims 2 nodes with rings of 4097 bytes"));
        assert_eq!(Header::parse(&[]), Err(HeaderError::Unfinished));
    }
}
