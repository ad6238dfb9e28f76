//! Waking a process that sleeps: a count to sleep on, and a flag that says whether anybody does.
//!
//! Ringing costs a fence and a load unless somebody sleeps. No ring is lost: the sleeper raises its flag before it looks
//! for news a last time, the ringer makes news before it looks at the flag, and each does so across a fence; so one of
//! them sees the other.

use crate::layout::APART;
use crate::memory::Memory;
use rustix::io::Errno;
use rustix::thread::futex;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

/// What a bell is made of.
pub(crate) trait Signal {
    /// How often it was rung.
    fn count(&self) -> u32;

    /// Counts a ring.
    fn advance(&self);

    /// Says whether somebody sleeps.
    fn announce(&self, sleeping: bool);

    /// Whether somebody said so.
    fn is_announced(&self) -> bool;

    /// Orders everything before against everything after, in all processes: `fence(SeqCst)`.
    fn fence(&self);

    /// Sleeps for `span` at most if the count still is `seen`.
    fn park(&self, seen: u32, span: Duration);

    /// Wakes whoever sleeps.
    fn unpark(&self);

    /// Wakes whoever sleeps and is not aware of what was done before this call.
    fn ring(&self) {
        self.fence();
        if self.is_announced() {
            self.advance();
            self.unpark();
        }
    }

    /// Sleeps for `span` at most, unless `news` are there.
    fn sleep(&self, span: Duration, news: impl FnOnce() -> bool) {
        let seen = self.count();
        self.announce(true);
        self.fence();
        if !news() {
            self.park(seen, span);
        }
        self.announce(false);
    }
}

/// A bell in a node's slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bell<'a> {
    count: &'a AtomicU32,
    sleeping: &'a AtomicU32,
}

impl<'a> Bell<'a> {
    /// The bell at byte `at` of a segment.
    pub(crate) fn new(memory: &'a Memory, at: usize) -> Self {
        Self { count: memory.half(at), sleeping: memory.half(at + APART) }
    }
}

impl Signal for Bell<'_> {
    fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    fn advance(&self) {
        self.count.fetch_add(1, Ordering::Release);
    }

    fn announce(&self, sleeping: bool) {
        self.sleeping.store(u32::from(sleeping), Ordering::Relaxed);
    }

    fn is_announced(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed) != 0
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn park(&self, seen: u32, span: Duration) {
        // Without the private flag, so that other processes' rings are heard. Whatever the answer is (rung, late,
        // interrupted, rung before), the caller looks for itself.
        let span = span.min(Duration::from_secs(3600)).try_into().expect("an hour is a time the system knows");
        let _: Result<(), Errno> = futex::wait(self.count, futex::Flags::empty(), seen, Some(&span));
    }

    fn unpark(&self) {
        let _: Result<usize, Errno> = futex::wake(self.count, futex::Flags::empty(), i32::MAX as u32);
    }
}
