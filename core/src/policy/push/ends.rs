//! The two ends of a way along which parts of models are given.

use super::super::exchange::{Assembly, Family, Message, Note};
use super::super::words::{Saved, Words};
use crate::cluster::{Digest, Digester};
use crate::compress::Compressor;
use crate::gossip::{Mass, Push};
use crate::policy::PolicyAction;
use crate::scalar::Scalar;
use crate::transport::NodeId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Of what both ends of a way have after a message: its head and the start of the receiver, the copy, and the sum of what
/// was given.
fn digest<S: Scalar>(head: &[u8], to: u64, copy: &[S], given: Option<&Mass>) -> Digest {
    let mut digester = Digester::new();
    [head, &to.to_le_bytes()].into_iter().for_each(|bytes| digester.update(bytes));
    digester.update_values(copy);
    if let Some(Mass { values, weights }) = given {
        digester.update_values(weights);
        digester.update_values(values);
    }
    digester.finish()
}

/// One to whom a node gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Receiver {
    /// Which start of it has asked; `None` if none has.
    pub(super) birth: Option<u64>,
    /// Whether it has had everything, unless it says otherwise.
    pub(super) follows: bool,
    /// Messages to it.
    pub(super) sequence: u64,
}

impl Receiver {
    /// The message to it with this body, or with all that it was ever given if it does not follow; it stands for so many
    /// turns.
    pub(super) fn letter<S: Scalar>(
        &mut self,
        push: &mut Push<S>,
        (birth, turns): (u64, u64),
        to: NodeId,
        body: &[u8],
    ) -> Message {
        self.sequence = self.sequence.wrapping_add(1);
        let whole = !core::mem::replace(&mut self.follows, true);
        let all = if whole { push.whole(to) } else { Vec::new() };
        let head = [birth.to_le_bytes(), turns.to_le_bytes()].concat();
        let copy = push.copy_at(to).unwrap_or_default();
        let digest = digest(&head, self.birth.unwrap_or_default(), copy, push.given(to));
        let bytes = [&head[..], if whole { &all } else { body }].concat();
        Message { sequence: self.sequence, digest, whole, bytes }
    }

    pub(super) fn save(&self, words: &mut Words) {
        words.0.extend([u64::from(self.follows), self.sequence]);
        words.optional(self.birth.as_ref(), |words, &birth| words.0.push(birth));
    }

    pub(super) fn restore(words: &mut Saved<'_>) -> Option<Self> {
        Some(Self { follows: words.flag()?, sequence: words.word()?, birth: words.optional()? })
    }
}

/// One that gives to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sender {
    /// Whose messages have been taken, of its starts.
    birth: Option<u64>,
    /// Messages taken; `None` if it has to send a whole one.
    held: Option<u64>,
    /// It has been asked for that.
    asked: bool,
    /// Turns that it has had and that were not waited for yet: it may be some exchanges ahead.
    ahead: u64,
    /// Turns of it that have ended without anything.
    silent: u32,
    /// A message of which pieces are missing.
    pub(super) partial: Assembly,
}

/// Turns without anything after which a sender is not waited for.
const MOST_SILENT: u32 = 4;

/// Turns without anything after which a sender is asked again, more and more rarely; one that is some times slower is not
/// asked.
const LONG_SILENT: u32 = 16;

/// Bytes in front of a message that say which start of its sender it comes from, and for how many turns it stands.
pub(super) const HEAD: usize = 16;

impl Sender {
    /// Whether there is nothing to wait for.
    pub(super) fn is_done(&self) -> bool {
        self.ahead > 0 || self.silent >= MOST_SILENT
    }

    /// Whether it has not been asked, or has said nothing for so long that the request or what it answered may be lost, or
    /// it may have begun anew.
    pub(super) fn is_to_be_asked(&self) -> bool {
        (self.held.is_none() && !self.asked) || (self.silent >= LONG_SILENT && self.silent.is_power_of_two())
    }

    /// Asks for a whole message, as this start of the receiver in this exchange.
    pub(super) fn ask(&mut self, node: NodeId, (birth, exchange): (u64, u64), actions: &mut VecDeque<PolicyAction>) {
        self.asked = true;
        let bytes = Note::AskAs { birth, exchange }.encode(Family::Push);
        actions.push_back(PolicyAction::Tell { to: node, bytes });
    }

    /// It cannot be reached: what it says from now on is not what follows what it said before.
    pub(super) fn part(&mut self) {
        *self = Self { birth: self.birth, ..Self::default() };
    }

    /// It says which start of it it is: whether a later one than is known, which has given nothing yet, and gives nothing
    /// until it is asked.
    pub(super) fn begins_anew(&mut self, birth: u64) -> bool {
        let anew = self.birth.is_some_and(|known| known != birth);
        if anew {
            self.part();
        }
        anew
    }

    /// What it has said last is of no use; asks for all of it if that was not done yet.
    pub(super) fn lose(&mut self, node: NodeId, me: (u64, u64), actions: &mut VecDeque<PolicyAction>) {
        self.held = None;
        if !self.asked {
            self.ask(node, me, actions);
        }
    }

    /// Its turn has ended.
    pub(super) fn end(&mut self) {
        self.silent = if self.ahead > 0 { 0 } else { self.silent.saturating_add(1) };
        self.ahead = self.ahead.saturating_sub(1);
    }

    /// Whether the message could be taken, `to` this start of the receiver; if it is none, nothing of what is known of the
    /// sender has changed.
    pub(super) fn take<S: Scalar>(
        &mut self,
        push: &mut Push<S>,
        compressor: &mut dyn Compressor<S>,
        (from, to): (NodeId, u64),
        message: &Message,
    ) -> bool {
        let Some((head, body)) = message.bytes.split_first_chunk::<HEAD>() else { return false };
        let [birth, turns] = [0, 8].map(|at| u64::from_le_bytes(core::array::from_fn(|place| head[at + place])));
        if message.whole {
            let Ok(whole) = push.read_whole(body) else { return false };
            let anew = self.birth.is_some_and(|known| known != birth);
            let is_theirs = digest(head, to, whole.copy(), Some(whole.given())) == message.digest;
            if !is_theirs || push.take_whole(from, whole, anew).is_err() {
                return false;
            }
            self.birth = Some(birth);
            self.asked = false;
        } else {
            let follows = self.held.and_then(|held| held.checked_add(1)) == Some(message.sequence);
            if self.birth != Some(birth) || !follows {
                return false;
            }
            let Ok(part) = push.read(from, body, compressor) else { return false };
            let is_theirs = digest(head, to, part.copy(), Some(part.given())) == message.digest;
            if !is_theirs || push.take_part(from, part).is_err() {
                return false;
            }
        }
        self.held = Some(message.sequence);
        self.ahead = self.ahead.saturating_add(turns);
        true
    }

    pub(super) fn save(&self, words: &mut Words) {
        words.0.extend([u64::from(self.asked), self.ahead, u64::from(self.silent)]);
        words.optional(self.birth.as_ref(), |words, &birth| words.0.push(birth));
        words.optional(self.held.as_ref(), |words, &held| words.0.push(held));
        self.partial.save(words);
    }

    pub(super) fn restore(words: &mut Saved<'_>) -> Option<Self> {
        let (asked, ahead) = (words.flag()?, words.word()?);
        let silent = u32::try_from(words.word()?).ok()?;
        let (birth, held) = (words.optional()?, words.optional()?);
        Some(Self { birth, held, asked, ahead, silent, partial: Assembly::restore(words)? })
    }
}
