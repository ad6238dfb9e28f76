//! What a node has sent, received and decided, counted where it happens.

use crate::cluster::wire::Kind;

/// Frames and their bytes, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Traffic {
    /// How many frames.
    pub frames: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Traffic {
    pub(crate) fn count(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// Everything a node counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Counters {
    /// Sent frames by [`Kind`], in the order of [`Kind::ALL`].
    pub sent: [Traffic; Kind::ALL.len()],
    /// Received and accepted frames by [`Kind`], in the order of [`Kind::ALL`].
    pub received: [Traffic; Kind::ALL.len()],
    /// Frames that were sent again because no acknowledgement came; also counted in `sent`.
    pub retransmitted: Traffic,
    /// Frames that came more than once.
    pub doubled: u64,
    /// Frames that were damaged or not of this protocol.
    pub malformed: u64,
    /// Frames that were refused: of another run, of an earlier start, or meant for an earlier start.
    pub refused: u64,
    /// Frames dropped because the peer holds more unfinished messages than this node stores.
    pub overflowed: u64,
    /// Whole messages sent.
    pub messages_sent: u64,
    /// Whole messages received.
    pub messages_received: u64,
    /// Attempts this node proposed.
    pub attempts: u64,
    /// Rounds this node committed.
    pub rounds_committed: u64,
    /// Attempts given up while this node took part.
    pub rounds_retried: u64,
    /// Averaging points passed without a round.
    pub rounds_abandoned: u64,
    /// States taken over from others.
    pub healed: u64,
    /// Records dropped because nobody took them.
    pub records_dropped: u64,
}

impl Counters {
    /// Everything sent.
    pub fn total_sent(&self) -> Traffic {
        total(&self.sent)
    }

    /// Everything received and accepted.
    pub fn total_received(&self) -> Traffic {
        total(&self.received)
    }
}

fn total(traffic: &[Traffic]) -> Traffic {
    traffic.iter().fold(Traffic::default(), |sum, item| Traffic {
        frames: sum.frames + item.frames,
        bytes: sum.bytes + item.bytes,
    })
}
