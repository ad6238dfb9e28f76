//! Messages longer than a note.

use super::note::{Family, MOST_BYTES, Note, Piece};
use crate::cluster::{Digest, Digester};
use crate::policy::PolicyAction;
use crate::policy::words::{Saved, Words};
use crate::scalar::Scalar;
use crate::transport::NodeId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What a neighbour has said, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Message {
    /// How many messages the copy to which it leads consists of.
    pub(in crate::policy) sequence: u64,
    /// Of that copy.
    pub(in crate::policy) digest: Digest,
    /// Whether it is the copy itself, instead of what is to be added to it.
    pub(in crate::policy) whole: bool,
    pub(in crate::policy) bytes: Vec<u8>,
}

impl Message {
    pub(in crate::policy) fn save(&self, words: &mut Words) {
        words.0.extend([self.sequence, self.digest.0, u64::from(self.whole)]);
        words.bytes(&self.bytes);
    }

    pub(in crate::policy) fn restore(words: &mut Saved<'_>) -> Option<Self> {
        let (sequence, digest, whole) = (words.word()?, Digest(words.word()?), words.flag()?);
        Some(Self { sequence, digest, whole, bytes: words.bytes()? })
    }
}

/// The digest of a copy.
pub(in crate::policy) fn digest<S: Scalar>(values: &[S]) -> Digest {
    let mut digester = Digester::new();
    digester.update_values(values);
    digester.finish()
}

/// Whether all messages can be said that a model of so many values may need, of so many bytes at most.
///
/// # Panics
/// If they cannot.
#[track_caller]
pub(in crate::policy) fn check_length(most: usize, values: usize) {
    let longest = u32::MAX;
    let can_be_said = u32::try_from(most).is_ok();
    assert!(can_be_said, "a model of {values} values needs messages of {most} bytes, and {longest} can be said in one");
}

/// Says a message in pieces that fit into notes.
pub(in crate::policy) fn say(family: Family, actions: &mut VecDeque<PolicyAction>, to: NodeId, message: &Message) {
    let Message { sequence, digest, whole, bytes } = message;
    let total = u32::try_from(bytes.len()).expect("checked before anything is said");
    let mut offset = 0;
    loop {
        let end = bytes.len().min(offset + MOST_BYTES);
        let piece = Piece {
            whole: *whole,
            sequence: *sequence,
            digest: *digest,
            total,
            offset: offset as u32,
            bytes: &bytes[offset..end],
        };
        actions.push_back(PolicyAction::Tell { to, bytes: Note::Piece(piece).encode(family) });
        offset = end;
        if offset == bytes.len() {
            break;
        }
    }
}

/// A message of which pieces may be missing, and how long it will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::policy) struct Assembly(Option<(Message, usize)>);

/// What a piece has led to.
pub(in crate::policy) enum Assembled {
    /// It is not what comes next.
    Wrong,
    Partly,
    Message(Message),
}

impl Assembly {
    /// Adds a piece, of a message that has a length that it can have.
    pub(in crate::policy) fn add(&mut self, piece: &Piece<'_>, can_have: impl Fn(usize) -> bool) -> Assembled {
        let Piece { whole, sequence, digest, total, offset, bytes } = *piece;
        let begun = self.0.take();
        let total = total as usize;
        let begun = match offset {
            0 if !can_have(total) => None,
            0 => Some((Message { sequence, digest, whole, bytes: Vec::with_capacity(total) }, total)),
            _ => begun,
        };
        let Some((mut message, total)) = begun else { return Assembled::Wrong };
        let expected = (message.sequence, message.whole, message.bytes.len());
        if expected != (sequence, whole, offset as usize) || message.bytes.len() + bytes.len() > total {
            return Assembled::Wrong;
        }
        message.bytes.extend_from_slice(bytes);
        if message.bytes.len() < total {
            self.0 = Some((message, total));
            return Assembled::Partly;
        }
        Assembled::Message(message)
    }

    pub(in crate::policy) fn save(&self, words: &mut Words) {
        words.optional(self.0.as_ref(), |words, (message, total)| {
            message.save(words);
            words.0.push(*total as u64);
        });
    }

    pub(in crate::policy) fn restore(words: &mut Saved<'_>) -> Option<Self> {
        if !words.flag()? {
            return Some(Self::default());
        }
        let (message, total) = (Message::restore(words)?, usize::try_from(words.word()?).ok()?);
        (message.bytes.len() < total).then_some(Self(Some((message, total))))
    }
}
