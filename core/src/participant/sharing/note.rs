//! What nodes that share steps tell each other.

use alloc::vec::Vec;

/// What notes of shared steps begin with; policies have other notes.
const MAGIC: [u8; 4] = *b"KFSS";
/// Bytes before a note's content: magic, kind, epoch, number.
pub(super) const HEADER: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A message of a letter: the number is its stage.
    Letter,
    /// The sender has given the epoch up after so many iterations.
    Halt,
    /// The sender waits for an epoch; the number is the round of its last certificate.
    Call,
}

impl Note {
    pub(super) fn write(self, epoch: u64, number: u64, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + content.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&(self as u32).to_le_bytes());
        bytes.extend_from_slice(&epoch.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(content);
        bytes
    }

    /// Kind, epoch, number and content.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, u64, u64, &[u8])> {
        let (header, content) = bytes.split_at_checked(HEADER)?;
        let kind = match header[4..8] {
            [0, 0, 0, 0] => Self::Letter,
            [1, 0, 0, 0] => Self::Halt,
            [2, 0, 0, 0] => Self::Call,
            _ => return None,
        };
        let word = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        (header[..4] == MAGIC).then_some((kind, word(8)?, word(16)?, content))
    }
}
