//! A machine's disk: what outlives the node that wrote it, with writes that take time, fail, or are lost in a crash.

use crate::schedule::Decay;
use kronfleet_core::seed::Random;
use kronfleet_core::storage::{Slot, Storage, StorageError, Write};
use kronfleet_core::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a write usually takes.
const USUAL: Duration = Duration::from_millis(1);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Disk {
    slots: BTreeMap<Slot, Vec<u8>>,
    /// Slots that were damaged and not written again.
    decayed: BTreeSet<Slot>,
    /// Writes that are not durable yet, in their order.
    pending: VecDeque<(Instant, Write)>,
    /// When the disk is slow or full, and how long a write takes then; `None` fails.
    pub(super) troubles: Vec<(Instant, Instant, Option<Duration>)>,
}

impl Disk {
    fn trouble(&self, now: Instant) -> Option<Option<Duration>> {
        let trouble = self.troubles.iter().find(|&&(from, until, _)| from <= now && now < until);
        trouble.map(|&(.., takes)| takes)
    }

    /// Takes a write in.
    pub(super) fn ask(&mut self, now: Instant, write: Write) {
        let takes = self.trouble(now).flatten().unwrap_or(USUAL);
        let earliest = self.pending.back().map_or(now, |&(due, _)| due);
        self.pending.push_back((earliest.max(now + takes), write));
    }

    /// When the next write is done.
    pub(super) fn due(&self) -> Instant {
        self.pending.front().map_or(Instant::FAR, |&(due, _)| due)
    }

    /// The next write that is done, and whether it is durable.
    pub(super) fn done(&mut self, now: Instant) -> Option<(u64, bool)> {
        if self.due() > now {
            return None;
        }
        let (_, write) = self.pending.pop_front()?;
        let (ticket, durable) = (write.ticket, self.trouble(now) != Some(None));
        if durable {
            self.put(write);
        }
        Some((ticket, durable))
    }

    fn put(&mut self, Write { slot, bytes, .. }: Write) {
        self.decayed.remove(&slot);
        self.slots.insert(slot, bytes);
    }

    /// Whoever wrote is dead: some of what it asked for has happened, nothing after that.
    pub(super) fn crash(&mut self, random: &mut Random) {
        for (_, write) in std::mem::take(&mut self.pending) {
            if random.chance(0.5) {
                break;
            }
            self.put(write);
        }
    }

    /// Damages a slot.
    pub(super) fn decay(&mut self, how: Decay, random: &mut Random) {
        let mut written: Vec<_> = self.slots.iter_mut().filter(|(_, bytes)| !bytes.is_empty()).collect();
        if written.is_empty() {
            return;
        }
        let chosen = random.below(written.len() as u64) as usize;
        let (slot, bytes) = &mut written[chosen];
        let at = random.below(bytes.len() as u64) as usize;
        match how {
            Decay::Flip => bytes[at] ^= 1 << random.below(8),
            Decay::Truncate => bytes.truncate(at),
        }
        self.decayed.insert(**slot);
    }

    /// Whether something that was damaged still stands there.
    pub(super) fn is_decayed(&self) -> bool {
        !self.decayed.is_empty()
    }
}

impl Storage for Disk {
    fn read(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.slots.get(&slot).cloned())
    }

    fn write(&mut self, slot: Slot, bytes: &[u8]) -> Result<(), StorageError> {
        self.put(Write { ticket: 0, slot, bytes: bytes.to_vec() });
        Ok(())
    }
}
