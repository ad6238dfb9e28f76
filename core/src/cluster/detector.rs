//! When silence means loss.
//!
//! Suspicion adapts to the gaps between a peer's frames (mean and deviation, as TCP's retransmission timer
//! does, RFC 6298), between three heartbeats and what the [`Budget`] allows.

use crate::cluster::budget::Budget;
use crate::mutant::mutant;
use crate::time::{Duration, Instant};

/// Judges one peer's silence.
///
/// Spans are nanoseconds: what is asked of it after every frame must not cost more than a few additions.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Detector {
    heard: Option<Instant>,
    mean: u64,
    deviation: u64,
    heartbeat: u64,
    suspect: u64,
    down: u64,
    suspect_after: u64,
}

impl Detector {
    pub(crate) fn new(budget: Budget) -> Self {
        let heartbeat = nanoseconds(budget.heartbeat());
        Self {
            heard: None,
            mean: heartbeat,
            deviation: 0,
            heartbeat,
            suspect: nanoseconds(budget.suspect()),
            down: nanoseconds(budget.down()),
            suspect_after: 3 * heartbeat,
        }
    }

    /// Takes note of a frame.
    pub(crate) fn hear(&mut self, now: Instant) {
        if let Some(heard) = self.heard {
            let gap = now.as_nanos().saturating_sub(heard.as_nanos());
            // What came after the peer had been lost says nothing about its rhythm.
            if gap < self.down {
                let difference = gap.abs_diff(self.mean);
                self.mean = (self.mean * 7 + gap) / 8;
                self.deviation = (self.deviation * 3 + difference) / 4;
                let usual = self.mean + 4 * self.deviation + self.heartbeat;
                self.suspect_after = usual.clamp(3 * self.heartbeat, self.suspect);
            }
        }
        self.heard = Some(now);
    }

    /// When something was last heard.
    pub(crate) fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// From when on the peer is suspected.
    pub(crate) fn suspect_at(&self) -> Instant {
        self.after(self.suspect_after)
    }

    /// From when on the peer is down.
    pub(crate) fn down_at(&self) -> Instant {
        if mutant!(DetectorPatient) {
            return Instant::FAR;
        }
        self.after((2 * self.suspect_after).min(self.down))
    }

    fn after(&self, silence: u64) -> Instant {
        self.heard.map_or(Instant::FAR, |heard| Instant::from_nanos(heard.as_nanos().saturating_add(silence)))
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_adapts_within_the_budget() {
        let budget = Budget::default();
        let mut detector = Detector::new(budget);
        let mut now = Instant::ORIGIN;
        for _ in 0..200 {
            now += budget.heartbeat();
            detector.hear(now);
        }
        assert_eq!(detector.suspect_at(), now + 3 * budget.heartbeat());
        assert_eq!(detector.down_at(), now + 6 * budget.heartbeat());
        for i in 0..200 {
            now += budget.heartbeat() * (1 + i % 5);
            detector.hear(now);
        }
        assert_eq!(detector.suspect_at(), now + budget.suspect());
        assert_eq!(detector.down_at(), now + budget.down());
    }
}
