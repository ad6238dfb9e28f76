//! How long a frame may stay unacknowledged before it is sent again.
//!
//! The smoothed round trip and four times its mean deviation, as RFC 6298 has it; beyond that, as long as frames may wait
//! to be acknowledged together, and as what was under way before may keep it waiting. What merely queues is not lost.
//! For a frame all of it is doubled whenever it was in vain; for those that follow, too, where it was in vain twice, until
//! one that was sent once is acknowledged: of one that was sent twice nobody knows which is meant (Karn & Partridge 1987).
//! Once alone may be chance, on links that lose frames.

use crate::cluster::budget::Budget;
use crate::time::Duration;

/// How often it is doubled at most.
const DOUBLINGS: u32 = 4;

/// See the [module](self). Spans are nanoseconds.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Patience {
    budget: Budget,
    /// The mean round trip and its deviation.
    usual: Option<(u64, u64)>,
    doublings: u32,
}

impl Patience {
    pub(crate) fn new(budget: Budget) -> Self {
        Self { budget, usual: None, doublings: 0 }
    }

    /// Takes in how long it took until a frame that was sent once was acknowledged.
    pub(crate) fn measured(&mut self, round_trip: Duration) {
        let sample = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX / 16);
        self.doublings = 0;
        self.usual = Some(match self.usual {
            None => (sample, sample / 2),
            Some((mean, deviation)) => ((mean * 7 + sample) / 8, (deviation * 3 + sample.abs_diff(mean)) / 4),
        });
    }

    /// Takes in that it was in vain for a frame that had been sent again.
    pub(crate) fn exhausted(&mut self) {
        self.doublings = (self.doublings + 1).min(DOUBLINGS);
    }

    /// How long to wait for the acknowledgement of a frame sent `times` times, behind others that may take `queued`.
    pub(crate) fn span(&self, times: u32, queued: Duration) -> Duration {
        let usual = match self.usual {
            None => self.budget.retransmit(),
            Some((mean, deviation)) => Duration::from_nanos(mean + 4 * deviation) + 2 * self.budget.acknowledge(),
        };
        let usual = usual + queued;
        let doublings = self.doublings.max((times - 1).min(DOUBLINGS));
        usual.saturating_mul(1 << doublings).min(self.budget.retransmit_longest().max(usual))
    }
}
