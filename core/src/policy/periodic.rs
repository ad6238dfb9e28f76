//! Averaging every so many iterations (Local SGD, Stich 2018; for K-FAC Yu & Tatebe 2024).

use crate::outer::OuterOptimiser;
use crate::policy::{AveragingPolicy, PolicyAction, PolicyInput, Rejoin, Request};
use crate::time::Instant;
use alloc::vec;
use alloc::vec::Vec;

/// What a node does after an averaging that it missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// It contributes at its next averaging point, like everybody else (Yu & Tatebe 2024).
    #[default]
    Wait,
    /// It contributes after every iteration until an average has counted it.
    ///
    /// Nodes that are online only now and then, and out of step with each other, would hardly ever be online together
    /// at their averaging points.
    Retry,
}

/// Averages every [`interval`](Self::interval) iterations of its own node.
///
/// Training waits until the round is committed, abandoned or nobody else is in view; then it goes on. A
/// node that could reach nobody trains on and does as [`missed`](Self::missed) says.
#[derive(Clone, Debug)]
pub struct Periodic {
    /// Iterations from one averaging point to the next, at least 1.
    pub interval: u64,
    /// What a contribution consists of.
    pub request: Request,
    /// How a node that was away comes back.
    pub rejoin: Rejoin,
    /// What a node does after an averaging that it missed.
    pub missed: Missed,
    /// What is made of averages; `None` to take them as models.
    pub outer: Option<OuterOptimiser>,
    due: bool,
    overdue: bool,
}

impl Periodic {
    /// Averages parameters and batch statistics with equal weights every `interval` iterations.
    ///
    /// # Panics
    /// If `interval` is 0.
    #[track_caller]
    pub fn new(interval: u64) -> Self {
        assert!(interval > 0, "an averaging interval of 0 iterations leaves no time to train");
        Self {
            interval,
            request: Request::default(),
            rejoin: Rejoin::FullWeight,
            missed: Missed::default(),
            outer: None,
            due: false,
            overdue: false,
        }
    }
}

impl AveragingPolicy for Periodic {
    fn name(&self) -> &'static str {
        "periodic"
    }

    fn handle(&mut self, _: Instant, input: PolicyInput<'_>) {
        match input {
            PolicyInput::Stepped { iteration, .. } => {
                self.due = self.overdue || iteration.is_multiple_of(self.interval);
            }
            PolicyInput::Committed(_) | PolicyInput::Healed(_) => self.overdue = false,
            PolicyInput::Abandoned(_) => self.overdue = self.missed == Missed::Retry,
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        core::mem::take(&mut self.due).then_some(PolicyAction::Contribute(self.request))
    }

    fn save(&self) -> Vec<u64> {
        vec![u64::from(self.due), u64::from(self.overdue)]
    }

    fn restore(&mut self, state: &[u64]) {
        (self.due, self.overdue) = (state.first() == Some(&1), state.get(1) == Some(&1));
    }

    fn rejoin(&self) -> Rejoin {
        self.rejoin
    }

    fn outer(&self) -> Option<OuterOptimiser> {
        self.outer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{AbandonReason, Algorithm, Attempt, Certificate, Digest, Round};
    use crate::participant::Summary;
    use alloc::vec::Vec;

    /// The iterations of `1..=9` after which it contributes, each contribution being abandoned.
    fn due(policy: &mut Periodic) -> Vec<u64> {
        let mut due = Vec::new();
        for iteration in 1..=9 {
            let summary = Summary::default();
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &summary });
            if policy.poll().is_some() {
                due.push(iteration);
                policy.handle(Instant::ORIGIN, PolicyInput::Abandoned(AbandonReason::Alone));
            }
            assert_eq!(policy.poll(), None, "once an iteration");
        }
        due
    }

    #[test]
    fn due_at_multiples_of_the_interval_and_only_once() {
        let mut policy = Periodic::new(3);
        assert_eq!(due(&mut policy), [3, 6, 9]);
    }

    #[test]
    fn overdue_until_an_average_has_counted_it() {
        let mut policy = Periodic::new(4);
        policy.missed = Missed::Retry;
        assert_eq!(due(&mut policy), [4, 5, 6, 7, 8, 9]);
        let certificate = Certificate {
            attempt: Attempt::default(),
            round: Round(1),
            members: Vec::new(),
            algorithm: Algorithm::Direct,
            wire: "f32".into(),
            result: Digest::default(),
            parents: Vec::new(),
        };
        policy.handle(Instant::ORIGIN, PolicyInput::Committed(&certificate));
        let summary = Summary::default();
        for (iteration, due) in [(10, false), (11, false), (12, true)] {
            policy.handle(Instant::ORIGIN, PolicyInput::Stepped { iteration, summary: &summary });
            assert_eq!(policy.poll().is_some(), due, "after iteration {iteration}");
        }
    }
}
