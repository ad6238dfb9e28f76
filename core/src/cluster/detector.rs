//! When silence means loss.
//!
//! Suspicion adapts to the gaps between a peer's frames (mean and deviation, as TCP's retransmission timer
//! does, RFC 6298), between three heartbeats and what the [`Budget`] allows.

use crate::cluster::budget::Budget;
use crate::time::{Duration, Instant};

/// Judges one peer's silence.
#[derive(Clone, Debug)]
pub(crate) struct Detector {
    budget: Budget,
    heard: Option<Instant>,
    mean: f64,
    deviation: f64,
}

impl Detector {
    pub(crate) fn new(budget: Budget) -> Self {
        Self { budget, heard: None, mean: budget.heartbeat().as_secs_f64(), deviation: 0.0 }
    }

    /// Takes note of a frame.
    pub(crate) fn hear(&mut self, now: Instant) {
        if let Some(heard) = self.heard {
            let gap = now.since(heard);
            // What came after the peer had been lost says nothing about its rhythm.
            if gap < self.budget.down() {
                let difference = gap.as_secs_f64() - self.mean;
                self.mean += difference / 8.0;
                self.deviation += (libm::fabs(difference) - self.deviation) / 4.0;
            }
        }
        self.heard = Some(now);
    }

    /// When something was last heard.
    pub(crate) fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// The silence after which the peer is suspected.
    pub(crate) fn suspect_after(&self) -> Duration {
        let heartbeat = self.budget.heartbeat();
        let usual = Duration::from_secs_f64(self.mean + 4.0 * self.deviation);
        (usual + heartbeat).clamp(3 * heartbeat, self.budget.suspect())
    }

    /// The silence after which the peer is down.
    pub(crate) fn down_after(&self) -> Duration {
        (2 * self.suspect_after()).min(self.budget.down())
    }
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
        assert_eq!(detector.suspect_after(), 3 * budget.heartbeat());
        assert_eq!(detector.down_after(), 6 * budget.heartbeat());
        for i in 0..200 {
            now += budget.heartbeat() * (1 + i % 5);
            detector.hear(now);
        }
        assert_eq!(detector.suspect_after(), budget.suspect());
        assert_eq!(detector.down_after(), budget.down());
    }
}
