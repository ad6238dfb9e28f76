//! Messages on their way from one peer: each frame taken once, parts put together, acknowledged together.
//!
//! Memory is bounded: frames that would make a peer's unfinished messages take more than that are dropped
//! unacknowledged, and come again later.

use crate::cluster::budget::Budget;
use crate::cluster::wire::{Acknowledged, Place};
use crate::mutant::mutant;
use crate::time::Instant;
use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// An acknowledgement goes out at the latest when this many frames wait for it.
const TOGETHER: u32 = 16;
/// The same for bytes: a sender whose window is small must not wait for an acknowledgement that waits for company.
const BYTES_TOGETHER: usize = 32 << 10;
/// The same for frames while one is missing, so that its sender learns soon.
const TOGETHER_WITH_GAP: u32 = 4;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Partial {
    bytes: Vec<u8>,
    there: usize,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<'a> {
    /// It was there already, or is of an earlier epoch.
    Doubled,
    /// There is no room for it now.
    Overflow,
    /// It was taken.
    Taken,
    /// It was taken and completes this message.
    Message(Cow<'a, [u8]>),
}

/// See the [module](self).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Inbox {
    budget: Budget,
    largest: usize,
    epoch: u32,
    next: u32,
    beyond: u64,
    partial: BTreeMap<u32, Partial>,
    held: usize,
    cancelled: BTreeMap<u32, u32>,
    waiting: u32,
    waiting_bytes: usize,
    due: Instant,
}

impl Inbox {
    pub(crate) fn new(budget: Budget, largest: usize) -> Self {
        Self {
            budget,
            largest,
            epoch: 0,
            next: 0,
            beyond: 0,
            partial: BTreeMap::new(),
            held: 0,
            cancelled: BTreeMap::new(),
            waiting: 0,
            waiting_bytes: 0,
            due: Instant::FAR,
        }
    }

    /// One in which nothing has arrived.
    pub(crate) fn anew(&self) -> Self {
        Self::new(self.budget, self.largest)
    }

    /// What to tell the peer of its stream.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        Acknowledged { epoch: self.epoch, next: self.next, beyond: self.beyond }
    }

    /// Bytes kept for messages that are not whole yet.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// When an acknowledgement is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Takes note that a frame went to the peer, and the acknowledgement with it.
    pub(crate) fn told(&mut self) {
        self.waiting = 0;
        self.waiting_bytes = 0;
        self.due = Instant::FAR;
    }

    /// Takes a part of a message.
    pub(crate) fn segment<'a>(
        &mut self,
        now: Instant,
        place: Place,
        offset: u32,
        total: u32,
        data: &'a [u8],
    ) -> Arrival<'a> {
        if self.doubled(now, place) {
            return Arrival::Doubled;
        }
        let (offset, total) = (offset as usize, total as usize);
        let whole = data.len() == total;
        let known = self.partial.contains_key(&place.message);
        if total > self.largest
            || self.beyond_window(place)
            || (!whole && !known && self.held + total > 3 * self.largest)
        {
            return Arrival::Overflow;
        }
        self.note(now, place, data.len());
        if whole {
            return Arrival::Message(Cow::Borrowed(data));
        }
        if self.cancelled.contains_key(&place.message) {
            return Arrival::Taken;
        }
        if !known {
            self.held += total;
            self.partial.insert(place.message, Partial { bytes: vec![0; total], there: 0 });
        }
        let partial = self.partial.get_mut(&place.message).expect("inserted above");
        if partial.bytes.len() != total {
            return Arrival::Taken;
        }
        partial.bytes[offset..offset + data.len()].copy_from_slice(data);
        partial.there += data.len();
        if partial.there < total && !(mutant!(InboxHole) && 2 * partial.there > total) {
            return Arrival::Taken;
        }
        let partial = self.partial.remove(&place.message).expect("just used");
        self.held -= partial.bytes.len();
        Arrival::Message(Cow::Owned(partial.bytes))
    }

    /// Forgets a message that will not be completed.
    pub(crate) fn cancel(&mut self, now: Instant, place: Place) -> Arrival<'static> {
        if self.doubled(now, place) {
            return Arrival::Doubled;
        }
        if self.beyond_window(place) {
            return Arrival::Overflow;
        }
        if let Some(partial) = self.partial.remove(&place.message) {
            self.held -= partial.bytes.len();
        }
        // Earlier frames of it may still be under way; they are ignored until all of them are accounted for.
        self.cancelled.insert(place.message, place.sequence);
        self.note(now, place, 0);
        Arrival::Taken
    }

    fn doubled(&mut self, now: Instant, place: Place) -> bool {
        if place.epoch > self.epoch {
            let next = if mutant!(InboxEpoch) { self.next } else { 0 };
            *self = Self { epoch: place.epoch, next, ..self.anew() };
        }
        let ahead = self.ahead(place.sequence);
        let doubled =
            place.epoch < self.epoch || ahead < 0 || ((1..=64).contains(&ahead) && self.beyond >> (ahead - 1) & 1 == 1);
        if doubled && place.epoch == self.epoch {
            // Our acknowledgement must have been lost.
            self.due = now;
        }
        doubled
    }

    fn beyond_window(&self, place: Place) -> bool {
        self.ahead(place.sequence) > 64
    }

    /// How far a frame is from the next missing one; sequence numbers wrap.
    fn ahead(&self, sequence: u32) -> i32 {
        sequence.wrapping_sub(self.next) as i32
    }

    fn note(&mut self, now: Instant, place: Place, bytes: usize) {
        let had_gap = self.beyond != 0;
        match self.ahead(place.sequence) {
            0 => {
                self.next = self.next.wrapping_add(1);
                while self.beyond & 1 == 1 {
                    self.beyond >>= 1;
                    self.next = self.next.wrapping_add(1);
                }
                self.beyond >>= 1;
            }
            ahead => self.beyond |= 1 << (ahead - 1),
        }
        let next = self.next;
        self.cancelled.retain(|_, last| last.wrapping_sub(next) as i32 >= 0);
        let gap = self.beyond != 0;
        self.waiting += 1;
        self.waiting_bytes += bytes;
        let together = if gap { TOGETHER_WITH_GAP } else { TOGETHER };
        let enough = self.waiting >= together || self.waiting_bytes >= BYTES_TOGETHER;
        self.due = if gap != had_gap || enough { now } else { self.due.min(now + self.budget.acknowledge()) };
    }
}
