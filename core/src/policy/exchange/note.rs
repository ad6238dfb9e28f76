//! What neighbours' policies say to each other.

use crate::cluster::Digest;
use crate::policy::tag::Tag;
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
    /// The same, which start of the sender it is, and for which of its exchanges.
    AskAs { birth: u64, exchange: u64 },
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

/// Whose notes these are: the others' are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Family {
    Gossip,
    Push,
}

impl Family {
    /// Of parts of whole messages, or of others.
    fn piece(self, whole: bool) -> Tag {
        match (self, whole) {
            (Self::Gossip, false) => Tag::GossipDifference,
            (Self::Gossip, true) => Tag::GossipWhole,
            (Self::Push, false) => Tag::PushDifference,
            (Self::Push, true) => Tag::PushWhole,
        }
    }
}

impl<'a> Note<'a> {
    /// Requests are each of one family alone.
    pub(in crate::policy) fn encode(&self, family: Family) -> Vec<u8> {
        match self {
            Self::Piece(piece) => {
                let mut bytes = Vec::with_capacity(25 + piece.bytes.len());
                bytes.push(family.piece(piece.whole) as u8);
                bytes.extend_from_slice(&piece.sequence.to_le_bytes());
                bytes.extend_from_slice(&piece.digest.0.to_le_bytes());
                bytes.extend_from_slice(&piece.total.to_le_bytes());
                bytes.extend_from_slice(&piece.offset.to_le_bytes());
                bytes.extend_from_slice(piece.bytes);
                bytes
            }
            Self::Ask => vec![Tag::GossipAsk as u8],
            Self::AskAs { birth, exchange } => {
                let mut bytes = vec![Tag::PushAsk as u8];
                bytes.extend_from_slice(&birth.to_le_bytes());
                bytes.extend_from_slice(&exchange.to_le_bytes());
                bytes
            }
        }
    }

    /// Reads a note of this family; `None` if it is none.
    pub(in crate::policy) fn decode(bytes: &'a [u8], family: Family) -> Option<Self> {
        let (&tag, rest) = bytes.split_first()?;
        let tag = Tag::of(tag)?;
        match (tag, family) {
            (Tag::GossipAsk, Family::Gossip) => return rest.is_empty().then_some(Self::Ask),
            (Tag::PushAsk, Family::Push) => {
                let (birth, exchange) = rest.split_first_chunk()?;
                let [birth, exchange] = [*birth, exchange.try_into().ok()?].map(u64::from_le_bytes);
                return Some(Self::AskAs { birth, exchange });
            }
            _ => {}
        }
        let whole = tag == family.piece(true);
        if !whole && tag != family.piece(false) {
            return None;
        }
        let (sequence, rest) = rest.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let (total, rest) = rest.split_first_chunk()?;
        let (offset, bytes) = rest.split_first_chunk()?;
        Some(Self::Piece(Piece {
            whole,
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
            for (family, other) in [(Family::Gossip, Family::Push), (Family::Push, Family::Gossip)] {
                let written = note.encode(family);
                prop_assert_eq!(Note::decode(&written, family), Some(note.clone()));
                prop_assert!(Note::decode(&written[..24], family).is_none());
                prop_assert!(Note::decode(&written, other).is_none());
            }
        }

        #[test]
        fn any_bytes_are_a_note_or_none(bytes: Vec<u8>) {
            for family in [Family::Gossip, Family::Push] {
                if let Some(note) = Note::decode(&bytes, family) {
                    prop_assert_eq!(note.encode(family), &bytes[..]);
                }
            }
        }
    }

    #[test]
    fn requests_are_read_as_they_were_written() {
        let ask = Note::Ask.encode(Family::Gossip);
        assert_eq!((ask.len(), Note::decode(&ask, Family::Gossip)), (1, Some(Note::Ask)));
        assert_eq!(Note::decode(&[ask[0], 0], Family::Gossip), None);
        assert_eq!(Note::decode(&ask, Family::Push), None);
        let note = Note::AskAs { birth: 7, exchange: 9 };
        let ask = note.encode(Family::Push);
        assert_eq!((Note::decode(&ask, Family::Push), Note::decode(&ask, Family::Gossip)), (Some(note), None));
    }
}
