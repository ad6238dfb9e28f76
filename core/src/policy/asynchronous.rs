//! Averages that nobody waits for (LASGD, arXiv 2203.13085).

use crate::policy::{AveragingPolicy, Blend, Overlap, PolicyAction, PolicyInput, Rejoin, Request};
use crate::time::Instant;
use alloc::vec::Vec;

/// Contributes what the node has every [`interval`](Self::interval) iterations and trains on while the round is under way;
/// what comes of it is merged with the steps made meanwhile: `x ← x̄ + (x − x_then)`.
///
/// One round at a time: whoever is still in one at its next averaging point contributes after it, after the last step too. So does, after its next
/// step, whose contribution came to nothing.
#[derive(Clone, Debug)]
pub struct Asynchronous {
    /// Iterations from one averaging point to the next, at least 1.
    pub interval: u64,
    /// What a contribution consists of.
    pub request: Request,
    /// How a node that was away comes back.
    pub rejoin: Rejoin,
    /// How many iterations its training has in all.
    iterations: u64,
    /// Whether all of them are done.
    done: bool,
    due: bool,
    overdue: bool,
    flying: bool,
}

impl Asynchronous {
    /// Averages parameters and batch statistics with equal weights every `interval` iterations.
    ///
    /// # Panics
    /// If `interval` is 0.
    #[track_caller]
    pub fn new(interval: u64) -> Self {
        assert!(interval > 0, "an averaging interval of 0 iterations leaves no time to train");
        let (request, rejoin) = (Request::default(), Rejoin::FullWeight);
        Self { interval, request, rejoin, iterations: u64::MAX, done: false, due: false, overdue: false, flying: false }
    }
}

impl AveragingPolicy for Asynchronous {
    fn name(&self) -> &'static str {
        "lasgd"
    }

    fn handle(&mut self, _: Instant, input: PolicyInput<'_>) {
        match input {
            PolicyInput::Began { iterations, .. } => self.iterations = iterations,
            PolicyInput::Stepped { iteration, .. } => {
                self.overdue |= iteration.is_multiple_of(self.interval);
                self.done = iteration >= self.iterations;
                self.due = self.overdue && !self.flying;
            }
            PolicyInput::Committed(_) => {
                self.flying = false;
                // No step follows after which it could be.
                self.due = self.done && self.overdue;
            }
            PolicyInput::Healed(_) => (self.flying, self.overdue) = (false, self.overdue && !self.done),
            PolicyInput::Abandoned(_) => (self.flying, self.overdue) = (false, true),
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        if !core::mem::take(&mut self.due) {
            return None;
        }
        (self.flying, self.overdue) = (true, false);
        let overlap = Overlap { delay: 0, most: u64::MAX, part: (0, 1), blend: Blend::Progress };
        Some(PolicyAction::Offer(self.request, overlap))
    }

    fn save(&self) -> Vec<u64> {
        let flags = [self.due, self.overdue, self.flying, self.done].map(u64::from);
        flags.into_iter().chain([self.iterations]).collect()
    }

    fn restore(&mut self, state: &[u64]) {
        let flag = |index: usize| state.get(index) == Some(&1);
        (self.due, self.overdue, self.flying, self.done) = (flag(0), flag(1), flag(2), flag(3));
        self.iterations = state.get(4).copied().unwrap_or(u64::MAX);
    }

    fn rejoin(&self) -> Rejoin {
        self.rejoin
    }

    fn unites(&self) -> bool {
        false
    }
}
