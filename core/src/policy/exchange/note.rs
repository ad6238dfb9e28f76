//! What neighbours' policies say to each other.

use crate::cluster::Digest;
use alloc::vec;
use alloc::vec::Vec;

/// How much of a message a note holds: with its head less than a note may have.
pub(in crate::policy) const MOST_BYTES: usize = 56 << 10;

/// A note, little-endian throughout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Note<'a> {
    /// A part of a message.
    Piece(Piece<'a>),
    /// The sender's copy of the receiver's model is of no use: it wants it whole.
    Ask,
    /// The same, and when the sender began.
    AskAs(u64),
}

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Piece<'a> {
    /// Whether the message is the sender's public copy itself.
    pub(in crate::policy) whole: bool,
    /// How many messages that copy consists of.
    pub(in crate::policy) sequence: u64,
    /// Of the copy with this message.
    pub(in crate::policy) digest: Digest,
    /// Bytes of the whole message.
    pub(in crate::policy) total: u32,
    /// Which of them are these.
    pub(in crate::policy) offset: u32,
    pub(in crate::policy) bytes: &'a [u8],
}

const DIFFERENCE: u8 = 0x11;
const WHOLE: u8 = 0x12;
const ASK: u8 = 0x13;
const ASK_AS: u8 = 0x14;

impl<'a> Note<'a> {
    pub(in crate::policy) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Piece(piece) => {
                let mut bytes = Vec::with_capacity(25 + piece.bytes.len());
                bytes.push(if piece.whole { WHOLE } else { DIFFERENCE });
                bytes.extend_from_slice(&piece.sequence.to_le_bytes());
                bytes.extend_from_slice(&piece.digest.0.to_le_bytes());
                bytes.extend_from_slice(&piece.total.to_le_bytes());
                bytes.extend_from_slice(&piece.offset.to_le_bytes());
                bytes.extend_from_slice(piece.bytes);
                bytes
            }
            Self::Ask => vec![ASK],
            Self::AskAs(birth) => {
                let mut bytes = vec![ASK_AS];
                bytes.extend_from_slice(&birth.to_le_bytes());
                bytes
            }
        }
    }

    /// Reads a note; `None` if it is none.
    pub(in crate::policy) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        if kind == ASK {
            return rest.is_empty().then_some(Self::Ask);
        }
        if kind == ASK_AS {
            return Some(Self::AskAs(u64::from_le_bytes(rest.try_into().ok()?)));
        }
        if kind != WHOLE && kind != DIFFERENCE {
            return None;
        }
        let (sequence, rest) = rest.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let (total, rest) = rest.split_first_chunk()?;
        let (offset, bytes) = rest.split_first_chunk()?;
        Some(Self::Piece(Piece {
            whole: kind == WHOLE,
            sequence: u64::from_le_bytes(*sequence),
            digest: Digest(u64::from_le_bytes(*digest)),
            total: u32::from_le_bytes(*total),
            offset: u32::from_le_bytes(*offset),
            bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn notes_are_read_as_they_were_written(
            whole: bool, sequence: u64, digest: u64, total: u32, offset: u32, bytes: Vec<u8>
        ) {
            let note = Note::Piece(Piece { whole, sequence, digest: Digest(digest), total, offset, bytes: &bytes });
            let written = note.encode();
            prop_assert_eq!(Note::decode(&written), Some(note));
            prop_assert!(Note::decode(&written[..24]).is_none());
        }

        #[test]
        fn any_bytes_are_a_note_or_none(bytes: Vec<u8>) {
            if let Some(note) = Note::decode(&bytes) {
                prop_assert_eq!(note.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_request_is_one_byte() {
        assert_eq!(Note::decode(&Note::Ask.encode()), Some(Note::Ask));
        assert_eq!(Note::decode(&[ASK, 0]), None);
        assert_eq!(Note::decode(&Note::AskAs(7).encode()), Some(Note::AskAs(7)));
    }
}
