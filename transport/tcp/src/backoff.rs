//! When to try again.

use kronfleet_core::seed::Random;
use kronfleet_core::time::Instant;
use std::time::Duration;

/// Waits that double from failure to failure, each shortened at random by up to half, so that nodes that lost the same
/// peer do not all come back in the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
    /// Not before this.
    pub(crate) next: Instant,
}

impl Backoff {
    /// Try at `at`, as if for the first time.
    pub(crate) fn at(at: Instant) -> Self {
        Self { failures: 0, next: at }
    }

    /// An attempt is under way; if nothing is heard of it, the next one follows after the wait.
    pub(crate) fn failed(&mut self, now: Instant, first: Duration, longest: Duration, random: &mut Random) {
        let wait = first.saturating_mul(1 << self.failures.min(20)).min(longest);
        self.failures += 1;
        self.next = now + wait.mul_f64(1.0 - 0.5 * random.uniform());
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kronfleet_core::seed::Seed;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(5));
        let mut random = Seed(1).random();
        let mut backoff = Backoff::at(Instant::ORIGIN);
        let mut waits = Vec::new();
        for _ in 0..12 {
            backoff.failed(Instant::ORIGIN, first, longest, &mut random);
            waits.push(backoff.next.since(Instant::ORIGIN));
        }
        for (failures, wait) in waits.iter().enumerate() {
            let whole = (first * (1 << failures)).min(longest);
            assert!((whole / 2..=whole).contains(wait), "{failures} failures: {wait:?}");
        }
        assert!(waits.windows(2).skip(8).any(|pair| pair[0] != pair[1]), "no jitter in {waits:?}");
    }
}
