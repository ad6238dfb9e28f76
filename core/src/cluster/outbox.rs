//! Messages on their way to one peer: cut into frames, sent within a window, sent again until acknowledged.
//!
//! A stream has an epoch; when the peer was lost, everything unsent is dropped and a new epoch begins, so
//! that the receiver never waits for what will not come. Values are written straight from where they live
//! into the transport's memory, again for every retransmission.

use crate::cluster::budget::Budget;
use crate::cluster::certificate::Attempt;
use crate::cluster::contribution::Contribution;
use crate::cluster::patience::Patience;
use crate::cluster::window::Window;
use crate::cluster::wire::{Acknowledged, HEADER, Place, SEGMENT};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::{Duration, Instant};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// Frames that may be under way at once: what one acknowledgement can describe. Their bytes are the [`Window`]'s.
pub(crate) const FRAMES: u32 = 64;
/// Bytes that a frame takes beside its data.
const OVERHEAD: usize = HEADER + SEGMENT;
/// A frame is taken for lost when one this much later was acknowledged.
const REORDERING: u32 = 3;

/// A message to be sent: some bytes, then some values.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Post<S> {
    pub(crate) head: Vec<u8>,
    pub(crate) tail: Tail<S>,
    /// The attempt it belongs to, if an abort makes it worthless.
    pub(crate) attempt: Option<Attempt>,
    pub(crate) rank: Rank,
}

/// Which messages go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Rank {
    /// Short, and rounds wait for it: the window does not hold it up.
    Urgent,
    /// Of any length, in order among themselves.
    Note,
    /// It lets all others pass.
    Bulk,
}

impl<S> Post<S> {
    pub(crate) fn urgent(head: Vec<u8>) -> Self {
        Self { head, tail: Tail::None, attempt: None, rank: Rank::Urgent }
    }

    pub(crate) fn note(head: Vec<u8>) -> Self {
        Self { rank: Rank::Note, ..Self::urgent(head) }
    }
}

/// Values at the end of a message, shared with whoever else needs them.
#[derive(Clone, Debug)]
pub(crate) enum Tail<S> {
    None,
    Part { source: Arc<Contribution<S>>, segment: usize, range: Range<usize> },
    Whole(Arc<Vec<S>>),
}

impl<S> Tail<S> {
    fn values(&self) -> &[S] {
        match self {
            Self::None => &[],
            Self::Part { source, segment, range } => &source.segments()[*segment].values[range.clone()],
            Self::Whole(values) => values,
        }
    }
}

/// Only the values themselves are written: many messages share one contribution.
#[cfg(feature = "serde")]
impl<S: serde::Serialize> serde::Serialize for Tail<S> {
    fn serialize<T: serde::Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        self.values().serialize(serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de, S: serde::Deserialize<'de>> serde::Deserialize<'de> for Tail<S> {
    fn deserialize<T: serde::Deserializer<'de>>(deserializer: T) -> Result<Self, T::Error> {
        let values: Vec<S> = serde::Deserialize::deserialize(deserializer)?;
        Ok(if values.is_empty() { Self::None } else { Self::Whole(Arc::new(values)) })
    }
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Message<S> {
    post: Post<S>,
    total: u32,
    sent: u32,
    flying: u32,
    cancelled: bool,
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Flight {
    message: u32,
    offset: u32,
    len: u32,
    at: Instant,
    times: u32,
    /// How long those that were under way before it may keep it waiting.
    queued: Duration,
}

/// The next frame an outbox wants to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Plan {
    pub(crate) place: Place,
    pub(crate) offset: u32,
    /// 0 if the frame cancels its message.
    pub(crate) len: u32,
    pub(crate) total: u32,
    pub(crate) attempt: Attempt,
    pub(crate) again: bool,
}

/// See the [module](self).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Outbox<S> {
    budget: Budget,
    window: Window,
    patience: Patience,
    epoch: u32,
    base: u32,
    next_message: u32,
    flights: VecDeque<Option<Flight>>,
    messages: BTreeMap<u32, Message<S>>,
    urgent: VecDeque<u32>,
    notes: VecDeque<u32>,
    bulk: VecDeque<u32>,
    lost: BTreeSet<u32>,
    /// Bytes that are not acknowledged.
    under_way: usize,
    deadline: Instant,
}

impl<S: Scalar> Outbox<S> {
    pub(crate) fn new(budget: Budget) -> Self {
        Self::with_window(budget, Window::new(budget))
    }

    pub(crate) fn with_window(budget: Budget, window: Window) -> Self {
        Self {
            budget,
            window,
            patience: Patience::new(budget),
            epoch: 1,
            base: 0,
            next_message: 0,
            flights: VecDeque::new(),
            messages: BTreeMap::new(),
            urgent: VecDeque::new(),
            notes: VecDeque::new(),
            bulk: VecDeque::new(),
            lost: BTreeSet::new(),
            under_way: 0,
            deadline: Instant::FAR,
        }
    }

    /// Drops everything and begins a new epoch.
    pub(crate) fn reset(&mut self) {
        *self = Self { epoch: self.epoch.wrapping_add(1).max(1), ..Self::new(self.budget) };
    }

    /// Which epoch this is.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How many bulky messages are not wholly sent.
    pub(crate) fn backlog(&self) -> usize {
        self.bulk.len()
    }

    /// Whether notes are not wholly sent.
    pub(crate) fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    /// How many messages are not wholly sent.
    #[cfg(test)]
    pub(crate) fn unsent(&self) -> usize {
        self.urgent.len() + self.notes.len() + self.bulk.len()
    }

    /// Bytes of the messages that are not wholly acknowledged.
    pub(crate) fn held(&self) -> usize {
        self.messages.values().map(|message| message.total as usize).sum()
    }

    /// Takes a message.
    pub(crate) fn push(&mut self, post: Post<S>) {
        let total = post.head.len() + post.tail.values().len() * S::BYTES;
        let total = u32::try_from(total).expect("messages are cut far below 4 GiB");
        let id = self.next_message;
        self.next_message = id.wrapping_add(1);
        let queue = match post.rank {
            Rank::Urgent => &mut self.urgent,
            Rank::Note => &mut self.notes,
            Rank::Bulk => &mut self.bulk,
        };
        queue.push_back(id);
        let message = Message { post, total, sent: 0, flying: 0, cancelled: false };
        self.messages.insert(id, message);
    }

    /// Gives up all messages of attempts up to `attempt`.
    pub(crate) fn cancel(&mut self, attempt: Attempt) {
        let Self { messages, bulk, urgent, .. } = self;
        messages.retain(|id, message| {
            if message.cancelled || message.post.attempt.is_none_or(|other| other > attempt) {
                return true;
            }
            bulk.retain(|queued| queued != id);
            if message.sent == 0 {
                return false;
            }
            // The receiver may hold a part of it, or get one later: the last frame of the message, after
            // all others in the stream, says that it can forget them.
            message.cancelled = true;
            message.post.head = Vec::new();
            message.post.tail = Tail::None;
            urgent.push_back(*id);
            true
        });
    }

    /// The next frame, with at most `capacity` bytes of data, if one may be sent now.
    pub(crate) fn plan(&self, capacity: usize) -> Option<Plan> {
        if let Some(&sequence) = self.lost.first() {
            let flight = self.flights[sequence.wrapping_sub(self.base) as usize]?;
            return Some(self.describe(sequence, flight.message, flight.offset, flight.len, true));
        }
        if self.flights.len() as u32 >= FRAMES {
            return None;
        }
        let id = *self.urgent.front().or_else(|| self.notes.front()).or_else(|| self.bulk.front())?;
        let message = &self.messages[&id];
        let head = message.post.head.len();
        let capacity = capacity.min(self.window.frame());
        let mut end = (message.sent as usize + capacity).min(message.total as usize);
        if end < message.total as usize && end > head {
            end -= (end - head) % S::BYTES;
        }
        // What is urgent is short, and not held up by what may be long.
        let len = end - message.sent as usize;
        let held_up = self.urgent.is_empty() && self.under_way > 0;
        if held_up && self.under_way + OVERHEAD + len > self.window.bytes() {
            return None;
        }
        let sequence = self.base.wrapping_add(self.flights.len() as u32);
        Some(self.describe(sequence, id, message.sent, end as u32 - message.sent, false))
    }

    fn describe(&self, sequence: u32, id: u32, offset: u32, len: u32, again: bool) -> Plan {
        let message = &self.messages[&id];
        Plan {
            place: Place { epoch: self.epoch, sequence, message: id },
            offset,
            len: if message.cancelled { 0 } else { len },
            total: message.total,
            attempt: message.post.attempt.unwrap_or_default(),
            again,
        }
    }

    /// Writes the data of a planned frame.
    pub(crate) fn write(&self, plan: &Plan, mut target: &mut [u8]) {
        let post = &self.messages[&plan.place.message].post;
        let mut offset = plan.offset as usize;
        if offset < post.head.len() {
            let part = &post.head[offset..post.head.len().min(offset + target.len())];
            let (front, rest) = target.split_at_mut(part.len());
            front.copy_from_slice(part);
            target = rest;
            offset = post.head.len();
        }
        let first = (offset - post.head.len()) / S::BYTES;
        let values = &post.tail.values()[first..first + target.len() / S::BYTES];
        for (value, bytes) in values.iter().zip(target.chunks_exact_mut(S::BYTES)) {
            value.write_le(bytes);
        }
    }

    /// Takes note that a planned frame is on its way.
    pub(crate) fn sent(&mut self, now: Instant, plan: &Plan) {
        let (times, queued) = if plan.again {
            self.lost.remove(&plan.place.sequence);
            let index = plan.place.sequence.wrapping_sub(self.base) as usize;
            let Some(flight) = &mut self.flights[index] else {
                return;
            };
            flight.times += 1;
            flight.at = now;
            (flight.times, flight.queued)
        } else {
            let id = plan.place.message;
            let message = self.messages.get_mut(&id).expect("planned from this message");
            message.sent += plan.len;
            message.flying += 1;
            if message.cancelled || message.sent == message.total {
                self.urgent.retain(|queued| *queued != id);
                for queue in [&mut self.notes, &mut self.bulk] {
                    if queue.front() == Some(&id) {
                        queue.pop_front();
                    }
                }
            }
            let queued = self.window.queueing(self.under_way);
            let Plan { offset, len, .. } = *plan;
            self.flights.push_back(Some(Flight { message: id, offset, len, at: now, times: 1, queued }));
            self.under_way += OVERHEAD + len as usize;
            self.window.used(self.under_way);
            (1, queued)
        };
        self.deadline = self.deadline.min(now + self.patience.span(times, queued));
    }

    /// Takes in an acknowledgement that was sent so long after the last frame had come.
    pub(crate) fn acknowledge(&mut self, now: Instant, there: Acknowledged, kept: Duration) {
        let flying = self.flights.len() as u32;
        let passed = there.next.wrapping_sub(self.base);
        if there.epoch != self.epoch || passed > flying {
            return;
        }
        let mut highest = None;
        let last = if mutant!(OutboxBlind) { passed + 64 - there.beyond.leading_zeros() } else { 0 };
        for index in 0..flying {
            let there = index < passed.max(last)
                || (index > passed && index - passed <= 64 && there.beyond >> (index - passed - 1) & 1 == 1);
            if there && let Some(flight) = self.flights[index as usize].take() {
                self.land(now, self.base.wrapping_add(index), flight, kept);
                highest = Some(index);
            }
        }
        for index in 0..highest.unwrap_or(0).saturating_sub(REORDERING - 1) {
            if self.flights[index as usize].is_some_and(|flight| flight.times == 1) {
                self.lost.insert(self.base.wrapping_add(index));
            }
        }
        while let Some(None) = self.flights.front() {
            self.flights.pop_front();
            self.base = self.base.wrapping_add(1);
        }
        if self.flights.is_empty() {
            self.deadline = Instant::FAR;
        }
    }

    fn land(&mut self, now: Instant, sequence: u32, flight: Flight, kept: Duration) {
        self.lost.remove(&sequence);
        self.under_way -= OVERHEAD + flight.len as usize;
        if flight.times == 1 {
            let round_trip = now.since(flight.at);
            let next = self.base.wrapping_add(self.flights.len() as u32);
            self.patience.measured(round_trip);
            self.window.measured(now, sequence, next, round_trip.saturating_sub(kept));
        }
        if let Some(message) = self.messages.get_mut(&flight.message) {
            message.flying -= 1;
            let whole = message.cancelled || message.sent == message.total;
            let queued = self.urgent.contains(&flight.message);
            if message.flying == 0 && whole && !queued && !mutant!(AcknowledgedKept) {
                self.messages.remove(&flight.message);
            }
        }
    }

    /// When [`wake`](Self::wake) wants to be called.
    pub(crate) fn timeout(&self) -> Instant {
        self.deadline
    }

    /// Marks frames as lost that have waited too long.
    pub(crate) fn wake(&mut self, now: Instant) {
        if now < self.deadline {
            return;
        }
        self.deadline = Instant::FAR;
        if mutant!(OutboxSilent) {
            return;
        }
        let mut again = false;
        for index in 0..self.flights.len() {
            let Some(flight) = self.flights[index] else {
                continue;
            };
            let sequence = self.base.wrapping_add(index as u32);
            if self.lost.contains(&sequence) {
                continue;
            }
            let due = flight.at + self.patience.span(flight.times, flight.queued);
            if due <= now {
                again |= flight.times > 1;
                self.lost.insert(sequence);
            } else {
                self.deadline = self.deadline.min(due);
            }
        }
        if again {
            self.patience.exhausted();
        }
    }
}
