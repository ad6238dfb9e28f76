//! A lock-free ring of frames between one producer and one consumer.
//!
//! Two positions, `tail ≤ head`, count bytes since the ring was made. The producer alone moves `head`, the consumer alone
//! moves `tail`; bytes `tail..head` (modulo the capacity) belong to the consumer, the others to the producer. A frame
//! never wraps: where it does not fit before the end, a record of padding takes the rest.
//!
//! - A producer that dies before it has moved `head` has written nothing; its successor goes on from there.
//! - A consumer that dies before it has moved `tail` has read nothing; its successor leaves out what is there.
//! - Either reads what the other moves with care: positions and headers are checked before anything is touched.
//!
//! # For implementers
//! The protocol is written over [`Store`], so that the model checker runs the same lines over a tiny ring of its own
//! words and cells. What may be touched when is argued here; that it lies inside the mapping is checked in `memory`.

mod exercise;

pub use exercise::exercise_ring;

use crate::layout::{APART, Layout};
use crate::memory::Memory;
use crate::record::{Corrupt, HEADER, Kind, Record, span};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

/// A word that both ends see.
pub(crate) trait Word {
    fn load(&self, ordering: Ordering) -> u64;
    fn store(&self, value: u64, ordering: Ordering);
}

/// The memory of one ring.
pub(crate) trait Store {
    /// Its words.
    type Word: Word;

    /// Where is written next.
    fn head(&self) -> &Self::Word;

    /// Where is read next.
    fn tail(&self) -> &Self::Word;

    /// Whether the producer waits for room.
    fn starved(&self) -> &Self::Word;

    /// Bytes of the ring: a power of two, and several records at least.
    fn capacity(&self) -> u64;

    /// Orders everything before against everything after, in all processes: `fence(SeqCst)`.
    fn fence();

    /// Lends `len` bytes from `at` on to be read.
    ///
    /// # Safety
    /// Nobody writes to them meanwhile.
    ///
    /// # Panics
    /// If they do not lie inside the ring.
    unsafe fn read<R>(&self, at: u64, len: usize, look: impl FnOnce(&[u8]) -> R) -> R;

    /// Lends `len` bytes from `at` on to be written.
    ///
    /// # Safety
    /// Nobody else touches them meanwhile.
    ///
    /// # Panics
    /// If they do not lie inside the ring.
    unsafe fn write<R>(&self, at: u64, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R;
}

/// The longest frame that a ring of this capacity always has room for once it is empty, in bytes.
pub(crate) const fn longest(capacity: u64) -> usize {
    capacity as usize / 2 - HEADER
}

/// Bytes that are used, if the positions belong together.
fn used(head: u64, tail: u64, capacity: u64) -> Result<u64, Corrupt> {
    let used = head.wrapping_sub(tail);
    let sound = used <= capacity && head.is_multiple_of(HEADER as u64) && tail.is_multiple_of(HEADER as u64);
    if sound { Ok(used) } else { Err(Corrupt::Position { head, tail }) }
}

/// The end that writes.
#[derive(Debug)]
pub(crate) struct Producer<S> {
    store: S,
    generation: u64,
    head: u64,
    tail: u64,
    starved: bool,
}

impl<S: Store> Producer<S> {
    /// Goes on where the producer before stopped; its own frames carry `generation`.
    ///
    /// # Safety
    /// As long as this producer lives, there is no other of this ring.
    pub(crate) unsafe fn resume(store: S, generation: u64) -> Self {
        let tail = store.tail().load(Acquire);
        let mut head = store.head().load(Relaxed);
        if used(head, tail, store.capacity()).is_err() {
            // Whoever wrote this is gone. From here on the ring is empty and sound, unless the consumer is not.
            head = tail.next_multiple_of(HEADER as u64);
            store.head().store(head, Release);
        }
        store.starved().store(0, Relaxed);
        Self { store, generation, head, tail, starved: false }
    }

    /// Writes a frame of `len` bytes through `fill`; answers false, without calling it, if there is no room.
    ///
    /// # Errors
    /// If the consumer has left something senseless.
    ///
    /// # Panics
    /// If `len` is more than [`longest`].
    pub(crate) fn send(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<bool, Corrupt> {
        let capacity = self.store.capacity();
        assert!(len <= longest(capacity), "{len} bytes in a ring that takes {}", longest(capacity));
        let span = span(len);
        let mut at = self.head & (capacity - 1);
        let rest = capacity - at;
        let padding = if span > rest { rest } else { 0 };
        if !self.room(padding + span)? {
            return Ok(false);
        }
        let header = |kind, len| Record { kind, len, generation: self.generation }.encode();
        if padding > 0 {
            let header = header(Kind::Padding, padding as usize - HEADER);
            // SAFETY: `room` has seen the consumer's `tail` (Acquire) beyond these bytes, so it is done with them, and
            // reads no further than `head`, which is moved below. There is no other producer.
            unsafe { self.store.write(at, HEADER, |target| target.copy_from_slice(&header)) };
            at = 0;
        }
        let header = header(Kind::Frame, len);
        // SAFETY: as above.
        unsafe {
            self.store.write(at, HEADER + len, |target| {
                let (first, rest) = target.split_at_mut(HEADER);
                first.copy_from_slice(&header);
                fill(rest);
            });
        }
        self.head = self.head.wrapping_add(padding + span);
        self.store.head().store(self.head, Release);
        Ok(true)
    }

    /// Whether room has been made since a frame was refused; says so once.
    pub(crate) fn relieved(&mut self) -> bool {
        let relieved = self.is_relieved();
        self.starved &= !relieved;
        relieved
    }

    /// The same, without taking note of it.
    pub(crate) fn is_relieved(&self) -> bool {
        self.starved && self.store.starved().load(Acquire) == 0
    }

    /// Whether `needed` bytes are free; if not, the consumer is asked to say when some are.
    fn room(&mut self, needed: u64) -> Result<bool, Corrupt> {
        if self.fits(needed)? {
            return Ok(true);
        }
        // Asked before looking again: either the consumer sees the wish after it has made room, or the room is seen
        // here. The fence in `take` is the other half.
        self.store.starved().store(1, Relaxed);
        S::fence();
        self.starved = !self.fits(needed)?;
        if !self.starved {
            self.store.starved().store(0, Relaxed);
        }
        Ok(!self.starved)
    }

    fn fits(&mut self, needed: u64) -> Result<bool, Corrupt> {
        let capacity = self.store.capacity();
        if self.head.wrapping_sub(self.tail).saturating_add(needed) <= capacity {
            return Ok(true);
        }
        let tail = self.store.tail().load(Acquire);
        let used = used(self.head, tail, capacity)?;
        self.tail = tail;
        Ok(used + needed <= capacity)
    }
}

/// The end that reads.
#[derive(Debug)]
pub(crate) struct Consumer<S> {
    store: S,
    head: u64,
    tail: u64,
    next: Option<Record>,
}

impl<S: Store> Consumer<S> {
    /// Begins after everything that is there: it was meant for the consumer before.
    ///
    /// # Safety
    /// As long as this consumer lives, there is no other of this ring.
    pub(crate) unsafe fn resume(store: S) -> Self {
        let head = store.head().load(Acquire);
        // Senseless positions stay so and are found at the first look.
        let tail = head - head % HEADER as u64;
        store.tail().store(tail, Release);
        S::fence();
        store.starved().store(0, Release);
        Self { store, head, tail, next: None }
    }

    /// Whether something may be there.
    pub(crate) fn is_waiting(&self) -> bool {
        self.next.is_some() || self.store.head().load(Acquire) != self.tail
    }

    /// The next frame's header, if there is one.
    ///
    /// # Errors
    /// If the producer has left something senseless.
    pub(crate) fn peek(&mut self) -> Result<Option<Record>, Corrupt> {
        let capacity = self.store.capacity();
        while self.next.is_none() {
            if self.tail == self.head {
                self.head = self.store.head().load(Acquire);
            }
            let used = used(self.head, self.tail, capacity)?;
            if used == 0 {
                return Ok(None);
            }
            let at = self.tail & (capacity - 1);
            let rest = capacity - at;
            // SAFETY: these bytes lie between `tail` and `head` (Acquire), where a producer that keeps the protocol has
            // finished writing and does not write again before `tail` has passed them. One that does not can change
            // them: they are copied out once, and checked after that.
            let header = unsafe { self.store.read(at, HEADER, |bytes| <[u8; HEADER]>::try_from(bytes)) };
            let record = Record::parse(header.expect("as many as asked for"), used.min(rest))?;
            match record.kind {
                Kind::Frame => self.next = Some(record),
                Kind::Padding if span(record.len) == rest => self.tail = self.tail.wrapping_add(rest),
                Kind::Padding => return Err(Corrupt::Padding),
            }
        }
        Ok(self.next)
    }

    /// Lends the frame that [`peek`](Self::peek) has shown to `look` and frees its room after that; answers whether
    /// the producer waits for it.
    ///
    /// # Panics
    /// If none was shown.
    pub(crate) fn take(&mut self, look: impl FnOnce(&[u8])) -> bool {
        let record = self.next.expect("a frame has been shown");
        let at = self.tail & (self.store.capacity() - 1);
        // SAFETY: `peek` has checked that the record lies between `tail` and `head`; as there.
        unsafe { self.store.read(at, HEADER + record.len, |bytes| look(&bytes[HEADER..])) };
        self.next = None;
        self.tail = self.tail.wrapping_add(span(record.len));
        self.store.tail().store(self.tail, Release);
        // The other half is in `room`.
        S::fence();
        let starved = self.store.starved().load(Relaxed) != 0;
        if starved {
            self.store.starved().store(0, Release);
        }
        starved
    }

    /// Gives up what is there, after something senseless: the next producer finds out where to begin.
    pub(crate) fn reset(&mut self) {
        self.next = None;
        self.head = self.tail;
        self.store.tail().store(self.tail, Release);
    }
}

/// The ring from one node to another in a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Mapped {
    memory: Arc<Memory>,
    control: usize,
    data: Range<usize>,
}

impl Mapped {
    /// The ring `from` one node `to` another.
    pub(crate) fn new(memory: &Arc<Memory>, layout: &Layout, from: u32, to: u32) -> Self {
        Self { memory: Arc::clone(memory), control: layout.control(from, to), data: layout.data(from, to) }
    }

    /// The bytes of the mapping that are `len` bytes of the ring.
    fn range(&self, at: u64, len: usize) -> Range<usize> {
        let room = self.data.len();
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        assert!(start <= room && len <= room - start, "{len} bytes at {at} of a ring of {room}");
        self.data.start + start..self.data.start + start + len
    }
}

impl Store for Mapped {
    type Word = AtomicU64;

    fn head(&self) -> &AtomicU64 {
        self.memory.word(self.control)
    }

    fn tail(&self) -> &AtomicU64 {
        self.memory.word(self.control + APART)
    }

    fn starved(&self) -> &AtomicU64 {
        self.memory.word(self.control + 2 * APART)
    }

    fn capacity(&self) -> u64 {
        self.data.len() as u64
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }

    unsafe fn read<R>(&self, at: u64, len: usize, look: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: the caller vouches that nobody writes meanwhile; rings and words lie apart.
        look(unsafe { self.memory.bytes(self.range(at, len)) })
    }

    unsafe fn write<R>(&self, at: u64, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        // SAFETY: the caller vouches for exclusive use; rings and words lie apart.
        fill(unsafe { self.memory.bytes_mut(self.range(at, len)) })
    }
}

impl Word for AtomicU64 {
    fn load(&self, ordering: Ordering) -> u64 {
        self.load(ordering)
    }

    fn store(&self, value: u64, ordering: Ordering) {
        self.store(value, ordering);
    }
}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
