//! What a node knows of a neighbour.

use super::super::exchange::{Assembly, Family, Message, Note, digest};
use super::super::words::{Saved, Words};
use crate::compress::Compressor;
use crate::gossip::Consensus;
use crate::policy::PolicyAction;
use crate::scalar::Scalar;
use crate::transport::NodeId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What a node knows of a neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Whether it has this node's public copy, unless it says otherwise.
    pub(super) follows: bool,
    /// The sequence at which it was last sent this node's public copy whole.
    pub(super) whole_said: Option<u64>,
    /// How many messages this node's copy of it consists of; `None` if there is none.
    pub(super) held: Option<u64>,
    /// What has come and was not taken in yet, oldest first.
    pub(super) pending: VecDeque<Message>,
    /// A message of which pieces are missing.
    pub(super) partial: Assembly,
    /// It has been asked for its copy, which has not come.
    asked: bool,
    /// Messages of it, since it was asked, that add to a copy which is not there.
    useless: u32,
    /// Exchanges that have ended without news of it.
    silent: u32,
    /// The sequence of its last message.
    last: u64,
    /// Which of its messages goes with which exchange of this node, as this node has last moved: their difference.
    lead: Option<u64>,
    /// The same as its last message says of how it has moved itself. Where both are equal, both have moved by the same two
    /// copies, so that one has gained what the other has given.
    told: Option<u64>,
    /// Exchanges since that have ended before the message came that goes with them.
    behind: u32,
}

/// Bytes in front of a message that say which of its receiver's messages goes with it, 0 if the sender does not know.
pub(super) const MATE: usize = 8;

/// Exchanges without a message after which a neighbour is taken for silent.
const MOST_SILENT: u32 = 4;

/// A neighbour that has been asked for its copy and goes on with so many messages that add to it has not heard: fewer can
/// have been on their way.
const LEAST_USELESS: u32 = 4;

/// A neighbour that has sent so many messages ahead of its turn is asked to begin anew.
const MOST_PENDING: usize = 4;

impl Neighbour {
    /// The sequence of a message that adds to the last one.
    fn next(&self) -> Option<u64> {
        self.pending.back().map(|message| message.sequence).or(self.held)?.checked_add(1)
    }

    /// What its sender says in front of its `sequence`-th message to it.
    pub(super) fn mate(&self, sequence: u64) -> [u8; MATE] {
        self.lead.map_or(0, |lead| sequence.wrapping_add(lead)).to_le_bytes()
    }

    /// How many of its messages come after this one up to the one that goes with this node's exchange, less than 0 if this one
    /// belongs to a later exchange; `None` if that is not known.
    fn gap(&self, message: u64, exchange: u64) -> Option<i64> {
        self.told.map(|told| exchange.wrapping_add(told).wrapping_sub(message).cast_signed())
    }

    /// Whether this node's exchange waits for it: for any message, and for the one that goes with the exchange. That one may be
    /// late every time: it is waited for after 0, 1, 2, 4, 8 … exchanges without it.
    pub(super) fn is_awaited(&self, exchange: u64) -> bool {
        let Some(last) = self.pending.back() else { return !self.is_silent() };
        let is_early = self.gap(last.sequence, exchange).is_some_and(|gap| gap > 0);
        is_early && (self.behind == 0 || self.behind.is_power_of_two())
    }

    /// Whether a node moves with its copy of it. Where nothing has come for more than one exchange, it has stopped more likely
    /// than it is heard late: it does not move either, and would not take what is given to it.
    pub(super) fn counts(&self) -> bool {
        self.held.is_some() && self.silent <= 1
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent >= MOST_SILENT
    }

    /// Its copy is of no use any more; asks for it if that was not done yet.
    pub(super) fn lose(&mut self, node: NodeId, actions: &mut VecDeque<PolicyAction>) {
        self.held = None;
        self.pending.clear();
        self.ask(node, actions);
    }

    /// Sends nothing but a request: what it has missed is sent whole once it speaks again. It is asked more and more
    /// rarely: the request or the answer may have been lost, or wait in front of the link.
    pub(super) fn neglect(&mut self, node: NodeId, actions: &mut VecDeque<PolicyAction>) {
        self.follows = false;
        self.held = None;
        self.asked &= !self.silent.is_power_of_two();
        self.ask(node, actions);
    }

    /// Asks for its copy, if that was not done yet.
    fn ask(&mut self, node: NodeId, actions: &mut VecDeque<PolicyAction>) {
        if !self.asked {
            self.asked = true;
            actions.push_back(PolicyAction::Tell { to: node, bytes: Note::Ask.encode(Family::Gossip) });
        }
    }

    /// Keeps a message for its turn.
    pub(super) fn keep(&mut self, message: Message, from: NodeId, actions: &mut VecDeque<PolicyAction>) {
        // The answer to a request that says nothing new is that of a node which is still at the same step.
        if message.sequence != self.last {
            self.silent = 0;
        }
        self.last = message.sequence;
        let told = mate(&message).map(|mate| message.sequence.wrapping_sub(mate));
        if message.whole {
            (self.asked, self.useless, self.told) = (false, 0, told);
            self.pending.clear();
            self.pending.push_back(message);
        } else if self.next() == Some(message.sequence) && self.pending.len() < MOST_PENDING {
            self.told = told;
            self.pending.push_back(message);
        } else {
            // The request or the answer may have been lost, though it goes on speaking. Who says nothing is not asked for it
            // here, so that answers do not pile up in front of a link that stands still.
            self.useless = self.useless.saturating_add(u32::from(self.asked));
            self.asked &= self.useless < LEAST_USELESS || !self.useless.is_power_of_two();
            self.lose(from, actions);
        }
    }

    /// This exchange of this node ends: takes in what goes with it and what had been left out before, one message
    /// at least unless that is a whole copy of a later exchange.
    pub(super) fn end<S: Scalar>(
        &mut self,
        node: NodeId,
        exchange: u64,
        consensus: &mut Consensus<S>,
        compressor: &mut dyn Compressor<S>,
        actions: &mut VecDeque<PolicyAction>,
    ) {
        self.silent = if self.pending.is_empty() { self.silent.saturating_add(1) } else { 0 };
        let is_due = |message: &&Message| self.gap(message.sequence, exchange).is_some_and(|gap| gap >= 0);
        let due = self.pending.iter().take_while(is_due).count();
        // A whole copy of a later exchange has come in place of what was lost. It waits for its turn: taken now, it would leave
        // both ends one ahead of each other.
        let is_early =
            |message: &Message| message.whole && self.gap(message.sequence, exchange).is_some_and(|gap| gap < 0);
        let least = usize::from(!self.pending.front().is_some_and(is_early));
        let turns = self.pending.len().saturating_sub(1).max(due).max(least).min(self.pending.len());
        for message in self.pending.drain(..turns).collect::<Vec<_>>() {
            if !take(consensus, compressor, node, &message) {
                self.lose(node, actions);
                break;
            }
            self.held = Some(message.sequence);
        }
        self.lead = self.held.map(|held| held.wrapping_sub(exchange));
        // Who has fallen silent has not caught up.
        if let Some(held) = self.held {
            let is_behind = self.gap(held, exchange).is_some_and(|gap| gap > 0);
            self.behind = if is_behind { self.behind.saturating_add(1) } else { 0 };
        }
    }

    pub(super) fn save(&self, words: &mut Words) {
        words.0.extend([self.follows, self.asked].map(u64::from));
        words.0.extend([self.useless, self.silent, self.behind].map(u64::from));
        words.0.push(self.last);
        for word in [self.whole_said, self.held, self.lead, self.told] {
            words.optional(word.as_ref(), |words, &word| words.0.push(word));
        }
        words.0.push(self.pending.len() as u64);
        self.pending.iter().for_each(|message| message.save(words));
        self.partial.save(words);
    }

    pub(super) fn restore(words: &mut Saved<'_>) -> Option<Self> {
        let (follows, asked) = (words.flag()?, words.flag()?);
        let mut count = || words.word().and_then(|word| u32::try_from(word).ok());
        let (useless, silent, behind) = (count()?, count()?, count()?);
        let (last, whole_said, held) = (words.word()?, words.optional()?, words.optional()?);
        let (lead, told) = (words.optional()?, words.optional()?);
        let pending = (0..words.count()?).map(|_| Message::restore(words)).collect::<Option<_>>()?;
        let partial = Assembly::restore(words)?;
        Some(Self { follows, whole_said, held, pending, partial, asked, useless, silent, last, lead, told, behind })
    }
}

/// Takes a message in; whether it led to the copy that its sender has.
fn take<S: Scalar>(
    consensus: &mut Consensus<S>,
    compressor: &mut dyn Compressor<S>,
    from: NodeId,
    message: &Message,
) -> bool {
    let bytes = message.bytes.get(MATE..).unwrap_or_default();
    let read = if message.whole { consensus.replace(from, bytes) } else { consensus.receive(from, bytes, compressor) };
    read.is_ok() && consensus.other(from).is_some_and(|copy| digest(copy) == message.digest)
}

/// Which of its receiver's messages goes with a message, as its sender says.
fn mate(message: &Message) -> Option<u64> {
    let mate = message.bytes.first_chunk().map(|&bytes| u64::from_le_bytes(bytes));
    mate.filter(|&mate| mate > 0)
}
