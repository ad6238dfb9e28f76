//! How a contribution or an attempt ends: committed, aborted, or given up.

use crate::cluster::certificate::{Attempt, Certificate};
use crate::cluster::contribution::Contribution;
use crate::cluster::membership::Links;
use crate::cluster::message::Message;
use crate::cluster::node::Outcome;
use crate::cluster::outbox::Post;
use crate::cluster::record::{AbandonReason, AbortReason, Occurrence};
use crate::cluster::round::Rounds;
use crate::cluster::round::entry::{Entry, Phase};
use crate::cluster::wire::Status;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Failed attempts after which a node goes on without a round.
const RETRIES: u32 = 16;

impl<S: Scalar> Rounds<S> {
    /// A mistake: applies the result that is there, whatever the others have.
    pub(super) fn apply_unasked(&mut self, now: Instant, links: &mut Links<S>) {
        if let Some(Entry { phase: Phase::Done { proposal, result, .. }, .. }) = &self.entry {
            let certificate = Certificate { result: *result, ..proposal.certificate.clone() };
            self.commit(now, links, certificate);
        }
    }

    /// Applies a committed attempt, once, if this node holds its result.
    pub(super) fn commit(&mut self, now: Instant, links: &mut Links<S>, certificate: Certificate) {
        if mutant!(CommitTwice) && self.verdicts.iter().any(|known| known.attempt == certificate.attempt) {
            links.record(now, Occurrence::Committed { certificate: Arc::new(certificate.clone()) });
        }
        match self.entry.as_ref().map(|entry| &entry.phase) {
            Some(Phase::Done { proposal, result, average, .. })
                if certificate.result == *result && proposal.certificate.becomes(&certificate) =>
            {
                let average = Arc::clone(average);
                self.votes.decide(certificate.id());
                self.apply(now, links, Arc::new(certificate), average);
            }
            _ if self.votes.is_strict() => self.learn(&certificate),
            _ => {}
        }
    }

    /// Applies a committed result that this node's contribution is part of.
    pub(super) fn apply(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        certificate: Arc<Certificate>,
        average: Arc<Contribution<S>>,
    ) {
        let Some(Entry { contribution, member, telling, .. }) = self.entry.take() else { return };
        links.counters.rounds_committed += 1;
        links.record(now, Occurrence::Committed { certificate: Arc::clone(&certificate) });
        if certificate.merges() {
            let parents = certificate.parents.iter().filter(|parent| !parent.stale);
            let parents = parents.map(|parent| parent.certificate).collect();
            links.record(now, Occurrence::Merged { parents });
        }
        let only_taken = member.healed();
        let counted = member == only_taken || certificate.member(member.node) != Some(&only_taken);
        if !counted {
            links.counters.healed += 1;
            let healed = Occurrence::Healed {
                certificate: Arc::clone(&certificate),
                donor: certificate.attempt.proposer,
                lost: member.samples,
            };
            links.record(now, healed);
        }
        if counted {
            self.memory.keep(telling, member.node, &certificate);
        } else {
            self.memory.forget();
        }
        if !mutant!(SamplesTwice) {
            self.samples.0 = self.samples.0.max(member.samples.1);
        }
        self.remember(Arc::clone(&certificate));
        self.adopt(links, &certificate, &average);
        self.recycle(contribution);
        self.early.clear();
        self.outcomes.push_back(if counted {
            Outcome::Committed { certificate, average }
        } else {
            Outcome::Healed { certificate, state: average }
        });
    }

    /// Takes in that the proposer gave an attempt up.
    pub(super) fn aborted(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        attempt: Attempt,
        why: AbortReason,
        who: &[NodeId],
    ) {
        if from != attempt.proposer {
            return;
        }
        if self.entry.as_ref().and_then(Entry::attempt) != Some(attempt) {
            return;
        }
        self.give_up(now, links, why, who.to_vec());
        if who.contains(&links.identity.node) {
            match why {
                AbortReason::NotFinite => self.abandon(now, links, AbandonReason::NotFinite),
                AbortReason::Unequal | AbortReason::Stuck => {
                    self.abandon(now, links, AbandonReason::Excluded);
                }
                _ => {}
            }
        }
    }

    /// A later attempt takes the place of the one under way.
    pub(super) fn supersede(&mut self, now: Instant, links: &mut Links<S>) {
        if self.entry.as_ref().and_then(Entry::attempt).is_some() {
            self.give_up(now, links, AbortReason::Superseded, Vec::new());
        }
    }

    /// Leaves the attempt under way, keeps the contribution for the next.
    pub(super) fn give_up(&mut self, now: Instant, links: &mut Links<S>, why: AbortReason, who: Vec<NodeId>) {
        let Some(attempt) = self.leave_attempt(links) else { return };
        links.counters.rounds_retried += 1;
        // As its proposer, this node has recorded it already.
        if attempt.proposer != links.identity.node {
            links.record(now, Occurrence::Aborted { attempt, why, who });
        }
        let Some(entry) = &mut self.entry else { return };
        entry.deadline = now + self.budget.total();
        entry.retries += 1;
        entry.tell_again = now;
        if entry.retries > RETRIES {
            self.abandon(now, links, AbandonReason::Late);
        }
    }

    /// Drops the copy and what is still to be sent; the attempt can no longer be committed here.
    pub(super) fn leave_attempt(&mut self, links: &mut Links<S>) -> Option<Attempt> {
        let entry = self.entry.as_mut()?;
        let attempt = entry.attempt()?;
        entry.phase = Phase::Ready;
        self.released = self.released.max(attempt);
        if !mutant!(OldAttempt) {
            links.cancel(attempt);
        }
        Some(attempt)
    }

    /// Goes on without a round.
    pub(super) fn abandon(&mut self, now: Instant, links: &mut Links<S>, why: AbandonReason) {
        let Some(turn) = self.forget_entry(now, links) else { return };
        links.counters.rounds_abandoned += 1;
        links.record(now, Occurrence::Abandoned { turn, why });
        self.outcomes.push_back(Outcome::Abandoned(why));
    }

    pub(super) fn forget_entry(&mut self, now: Instant, links: &mut Links<S>) -> Option<u64> {
        let Entry { contribution, member, told, .. } = self.entry.take()?;
        if self.healing.stop() {
            links.status = Status::Training;
            links.announce(now);
        }
        if let Some((proposer, _)) = told {
            let withdraw = Message::Withdraw { turn: member.turn };
            links.send(proposer, Post::urgent(withdraw.encode()));
        }
        self.early.clear();
        self.recycle(contribution);
        Some(member.turn)
    }

    pub(super) fn zombie(&mut self, now: Instant, links: &mut Links<S>) {
        if self.entry.is_some() {
            self.leave_attempt(links);
            self.abandon(now, links, AbandonReason::Zombie);
        }
    }
}
