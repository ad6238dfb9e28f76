//! Averages layer by layer of as much as everybody has by a deadline (SALF, arXiv 2403.18375).

use crate::policy::{AveragingPolicy, Deadline, Late, PolicyAction, PolicyInput, Rejoin, Request};
use crate::time::{Duration, Instant};
use alloc::vec;
use alloc::vec::Vec;

/// Averages after every step, which has so much time: whoever needs longer contributes the layers that its backward pass has
/// reached, the last ones, and every layer is averaged over those who contribute it.
///
/// The time of a step runs from the outcome of the round before. A layer that nobody contributes stays. In a
/// fleet in which everybody is in time this is [`Periodic`](super::Periodic) with an interval of 1, to the bit.
///
/// Steps are of the trainer's batches: the paper's stragglers take part in every round and bring less, where
/// [`Periodic`](super::Periodic) waits for them or goes on without them.
#[derive(Clone, Debug)]
pub struct Layerwise {
    /// How long a step may take.
    pub deadline: Duration,
    /// What a node contributes that is late.
    pub late: Late,
    /// Whether steps of a layer that nobody has contributed in a share `p` of the rounds so far are made `1/(1 − p)` times as
    /// long, at most ten times, where it is contributed: the paper's `w ← (w̄ − p·w_then)/(1 − p)`. That is right in the mean
    /// where all nodes are late with the same odds, which share `p` tells ever better. Where some are always late, layers in
    /// front are averages over the others, made longer or not.
    /// How often a layer was absent is averaged with the models, so that all members of a round count alike. Steps that a node
    /// has made alone are contributed as long as they are.
    pub unbiased: bool,
    /// What a contribution consists of beside the layers.
    pub request: Request,
    /// How a node that was away comes back.
    pub rejoin: Rejoin,
    due: bool,
}

impl Layerwise {
    /// Averages what there is after so much time, with equal weights.
    pub fn new(deadline: Duration) -> Self {
        let (request, rejoin) = (Request::default(), Rejoin::FullWeight);
        Self { deadline, late: Late::default(), unbiased: false, request, rejoin, due: false }
    }
}

impl AveragingPolicy for Layerwise {
    fn name(&self) -> &'static str {
        "layerwise"
    }

    fn handle(&mut self, _: Instant, input: PolicyInput<'_>) {
        if let PolicyInput::Stepped { .. } = input {
            self.due = true;
        }
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        core::mem::take(&mut self.due).then_some(PolicyAction::Contribute(self.request))
    }

    fn deadline(&self) -> Option<Deadline> {
        Some(Deadline { within: self.deadline, late: self.late, unbiased: self.unbiased })
    }

    fn save(&self) -> Vec<u64> {
        vec![u64::from(self.due)]
    }

    fn restore(&mut self, state: &[u64]) {
        self.due = state.first() == Some(&1);
    }

    fn rejoin(&self) -> Rejoin {
        self.rejoin
    }

    /// Nodes that had different models may keep them in a layer that nobody contributes.
    fn unites(&self) -> bool {
        false
    }
}
