//! Averaging every so many iterations (Local SGD, Stich 2018; for K-FAC Yu & Tatebe 2024).

use crate::policy::{AveragingPolicy, PolicyAction, PolicyInput, Rejoin, Request};
use crate::time::Instant;

/// Averages every [`interval`](Self::interval) iterations of its own node.
///
/// Training waits until the round is committed, abandoned or nobody else is in view; then it goes on. A
/// node that could reach nobody trains on and contributes at its next averaging point.
#[derive(Clone, Debug)]
pub struct Periodic {
    /// Iterations from one averaging point to the next, at least 1.
    pub interval: u64,
    /// What a contribution consists of.
    pub request: Request,
    /// How a node that was away comes back.
    pub rejoin: Rejoin,
    due: bool,
}

impl Periodic {
    /// Averages parameters and batch statistics with equal weights every `interval` iterations.
    ///
    /// # Panics
    /// If `interval` is 0.
    #[track_caller]
    pub fn new(interval: u64) -> Self {
        assert!(interval > 0, "an averaging interval of 0 iterations leaves no time to train");
        Self { interval, request: Request::default(), rejoin: Rejoin::FullWeight, due: false }
    }
}

impl AveragingPolicy for Periodic {
    fn name(&self) -> &'static str {
        "periodic"
    }

    fn handle(&mut self, _: Instant, input: PolicyInput<'_>) {
        if let PolicyInput::Stepped { iteration, .. } = input {
            self.due = iteration.is_multiple_of(self.interval);
        }
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        core::mem::take(&mut self.due).then_some(PolicyAction::Contribute(self.request))
    }

    fn rejoin(&self) -> Rejoin {
        self.rejoin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::participant::Summary;

    #[test]
    fn due_at_multiples_of_the_interval_and_only_once() {
        let mut policy = Periodic::new(3);
        let mut due = alloc::vec::Vec::new();
        for iteration in 1..=9 {
            let summary = Summary::default();
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &summary });
            if policy.poll().is_some() {
                due.push(iteration);
            }
            assert_eq!(policy.poll(), None);
        }
        assert_eq!(due, [3, 6, 9]);
    }
}
