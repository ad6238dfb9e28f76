//! How many bytes may be under way to one peer: as many as its line carries in a round trip, and a little more.
//!
//! What is sent beyond that waits somewhere in between, in front of every later heartbeat and round, and no line gets
//! faster by it. So the window follows the delay, as that of LEDBAT does (RFC 6817): the shortest round trip that was
//! ever seen is that of the empty line, and whatever is above it was spent waiting. Every second round trip, as the first
//! after a change still tells of what was before it, the window
//!
//! - doubles while next to nothing waits,
//! - grows by a fixed number of bytes and a sixteenth, less of both the closer the waiting comes to the target,
//! - shrinks above the target, in proportion to the excess and to half at most.
//!
//! Growing by a sum and shrinking by a factor lets senders that share a line and know its length end with equal shares
//! (Chiu & Jain 1989; LEDBAT++, draft-irtf-iccrg-ledbat-plus-plus); one that has never seen it empty takes more. Receivers
//! acknowledge together and say how long ago they heard the last frame, which is taken off (QUIC does so for the mean,
//! RFC 9002). Of a round trip's measurements the shortest counts, as computers are busy at times. Lost frames say
//! nothing here, for the links that lose some do so whatever is sent. So that a line that is never empty does
//! not pass its waiting off as distance, the shortest round trip is forgotten after a while, and the window shrinks to
//! what the line itself holds, to measure anew (as BBR does, Cardwell et al. 2016).

use crate::cluster::budget::Budget;
use crate::time::{Duration, Instant};

/// Bytes that may be under way at first.
const FIRST: u64 = 64 << 10;
/// The same, at least.
pub(crate) const SMALLEST: u64 = 16 << 10;
/// The same, at most: more than a stream's frames can hold.
const LARGEST: u64 = 16 << 20;
/// Bytes by which the window grows, beside a share of itself.
const STEP: u64 = 16 << 10;
/// Frames that a window is cut into, at least: they share the line with what is urgent.
const FRAMES: u64 = 8;
/// Budgets after which the shortest round trip is forgotten.
const MEMORY: u32 = 64;

/// See the [module](self). Spans are nanoseconds.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Window {
    target: u64,
    memory: Duration,
    bytes: u64,
    /// The shortest round trip of late.
    base: Option<u64>,
    forget: Instant,
    /// The first frame that was sent since the window has changed.
    first: u32,
    /// The shortest round trip of the frames since that one.
    shortest: Option<u64>,
    /// When this frame is acknowledged, enough of them were.
    last: u32,
    /// The window was full meanwhile.
    full: bool,
}

impl Window {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            target: u64::try_from(budget.queueing().as_nanos()).unwrap_or(u64::MAX / 16),
            memory: budget.total() * MEMORY,
            bytes: FIRST,
            base: None,
            forget: Instant::FAR,
            first: 0,
            shortest: None,
            last: 0,
            full: false,
        }
    }

    /// One that never changes.
    #[cfg(test)]
    pub(crate) fn fixed(budget: Budget, bytes: u64) -> Self {
        Self { bytes, first: u32::MAX / 2, ..Self::new(budget) }
    }

    /// Bytes that may be under way.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Bytes of a frame, at most.
    pub(crate) fn frame(&self) -> usize {
        (self.bytes / FRAMES) as usize
    }

    /// How long so many bytes may keep others waiting: the target, where they fill the window.
    pub(crate) fn queueing(&self, under_way: usize) -> Duration {
        Duration::from_nanos((self.target / self.bytes).saturating_mul(under_way as u64).min(self.target))
    }

    /// Takes note that so many bytes are under way.
    pub(crate) fn used(&mut self, under_way: usize) {
        self.full |= under_way + self.frame() > self.bytes();
    }

    /// Takes in how long it took until frame `sequence`, which was sent once, was acknowledged, without what the acknowledgement
    /// waited; `next` has not been sent.
    pub(crate) fn measured(&mut self, now: Instant, sequence: u32, next: u32, round_trip: Duration) {
        let round_trip = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX / 16);
        if self.base.is_none() {
            self.forget = now + self.memory;
        }
        self.base = Some(self.base.map_or(round_trip, |base| base.min(round_trip)));
        if is_before(sequence, self.first) {
            return;
        }
        if self.shortest.is_none() {
            self.last = next;
        }
        self.shortest = Some(self.shortest.map_or(round_trip, |shortest| shortest.min(round_trip)));
        if !is_before(sequence, self.last) {
            self.adapt(now);
            self.first = next;
        }
    }

    fn adapt(&mut self, now: Instant) {
        let (Some(base), Some(shortest)) = (self.base, self.shortest.take()) else { return };
        let full = core::mem::take(&mut self.full);
        let waited = shortest - base;
        if now >= self.forget {
            self.base = None;
            let kept = u128::from(self.bytes) * u128::from(base) / u128::from(base + self.target);
            self.bytes = (kept as u64).max(SMALLEST);
        } else if waited >= self.target {
            let kept = u128::from(self.bytes) * u128::from(base + self.target) / u128::from(shortest.max(1));
            self.bytes = (kept as u64).max(self.bytes / 2).max(SMALLEST);
        } else if full {
            let more = if waited < self.target / 4 {
                self.bytes
            } else {
                (u128::from(STEP + self.bytes / 16) * u128::from(self.target - waited) / u128::from(self.target)) as u64
            };
            self.bytes = (self.bytes + more).min(LARGEST);
        }
    }
}

/// Whether a frame is earlier than another; their numbers wrap.
fn is_before(sequence: u32, other: u32) -> bool {
    (sequence.wrapping_sub(other) as i32) < 0
}
