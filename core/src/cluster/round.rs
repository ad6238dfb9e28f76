//! Rounds.
use crate::cluster::certificate::Certificate;
use crate::cluster::contribution::Contribution;
use crate::cluster::membership::{Change, Links};
use crate::cluster::message::Message;
use crate::cluster::node::{Outcome, Settings};
use crate::cluster::record::{AbandonReason, Occurrence};
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::VecDeque;
use alloc::sync::Arc;

#[derive(Debug)]
pub(crate) struct Rounds<S> {
    turn: u64,
    samples: (u64, u64),
    last: Option<(Arc<Certificate>, Arc<Contribution<S>>)>,
    outcomes: VecDeque<Outcome<S>>,
}

impl<S: Scalar> Rounds<S> {
    pub(crate) fn new(_: &Settings) -> Self {
        Self { turn: 0, samples: (0, 0), last: None, outcomes: VecDeque::new() }
    }
    pub(crate) fn last_certificate(&self) -> Option<&Arc<Certificate>> {
        self.last.as_ref().map(|last| &last.0)
    }
    pub(crate) fn last_state(&self) -> Option<&Arc<Contribution<S>>> {
        self.last.as_ref().map(|last| &last.1)
    }
    pub(crate) fn samples(&self) -> (u64, u64) {
        self.samples
    }
    pub(crate) fn count_samples(&mut self, samples: u64) {
        self.samples.1 += samples;
    }
    pub(crate) fn spare(&mut self) -> Contribution<S> {
        Contribution::default()
    }
    pub(crate) fn contribute(&mut self, now: Instant, links: &mut Links<S>, _: Contribution<S>) {
        self.turn += 1;
        let (turn, why) = (self.turn, AbandonReason::Alone);
        links.record(now, Occurrence::Abandoned { turn, why });
        self.outcomes.push_back(Outcome::Abandoned(why));
    }
    pub(crate) fn withdraw(&mut self, _: Instant, _: &mut Links<S>) {}
    pub(crate) fn poll_outcome(&mut self) -> Option<Outcome<S>> {
        self.outcomes.pop_front()
    }
    pub(crate) fn changed(&mut self, _: Instant, _: &mut Links<S>, _: Change) {}
    pub(crate) fn handle(&mut self, _: Instant, _: &mut Links<S>, _: NodeId, _: Message<'_>) {}
    pub(crate) fn wake(&mut self, _: Instant, _: &mut Links<S>) {}
    pub(crate) fn timeout(&self) -> Instant {
        Instant::FAR
    }
}
