//! The attempt that a proposer has under way: what its members say of it, and how it ends.

use crate::cluster::certificate::{Attempt, Certificate};
use crate::cluster::digest::Digest;
use crate::cluster::membership::Links;
use crate::cluster::message::{Message, Proposal};
use crate::cluster::mode::Mode;
use crate::cluster::outbox::Post;
use crate::cluster::record::{AbortReason, Occurrence};
use crate::cluster::round::proposer::Proposer;
use crate::cluster::round::recovery::Acceptance;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Running {
    pub(super) proposal: Proposal,
    done: BTreeMap<NodeId, Digest>,
    pub(super) moved: Instant,
    /// In strict mode, what all members are done with, and who has accepted it.
    pub(super) accepting: Option<Acceptance>,
    missing: BTreeMap<NodeId, Vec<NodeId>>,
}

impl Running {
    /// One that has just been proposed.
    pub(super) fn new(proposal: Proposal, now: Instant) -> Self {
        Self { proposal, done: BTreeMap::new(), moved: now, missing: BTreeMap::new(), accepting: None }
    }

    pub(super) fn attempt(&self) -> Attempt {
        self.proposal.certificate.attempt
    }

    pub(super) fn has(&self, node: NodeId) -> bool {
        self.proposal.certificate.member(node).is_some()
    }
}

impl Proposer {
    pub(super) fn declined<S: Scalar>(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        attempt: Attempt,
        heard: Attempt,
    ) {
        self.sequence = self.sequence.max(heard.sequence);
        self.stop_recovery(attempt);
        if self.running.as_ref().is_none_or(|running| {
            let settled = running.done.contains_key(&from) && running.accepting.is_none();
            running.attempt() != attempt || !running.has(from) || settled
        }) {
            return;
        }
        // It may be ready but have heard of a higher attempt; then the next one will be higher still.
        if heard < attempt {
            self.forget(from);
        }
        self.abort(now, links, AbortReason::Declined, vec![from]);
    }

    pub(super) fn progress(&mut self, now: Instant, from: NodeId, attempt: Attempt, missing: Vec<NodeId>) {
        if let Some(running) = &mut self.running
            && running.attempt() == attempt
            && running.has(from)
        {
            running.moved = now;
            running.missing.insert(from, missing);
        }
    }

    pub(super) fn failed<S: Scalar>(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        attempt: Attempt,
        who: NodeId,
    ) {
        let concerns = |running: &Running| running.attempt() == attempt && running.has(from) && running.has(who);
        if self.running.as_ref().is_some_and(concerns) {
            self.abort(now, links, AbortReason::NotFinite, vec![who]);
        }
    }

    /// Takes in that a member holds a result; with those of all members and equal digests, commits.
    pub(super) fn done<S: Scalar>(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        attempt: Attempt,
        result: Digest,
    ) -> Option<Arc<Certificate>> {
        let running = self.running.as_mut()?;
        let old = mutant!(OldAttempt) && attempt < running.attempt();
        if (running.attempt() != attempt && !old) || !running.has(from) {
            return None;
        }
        let result = running.done.values().next().copied().filter(|_| old).unwrap_or(result);
        running.done.insert(from, result);
        running.moved = now;
        let members = running.proposal.certificate.members.len();
        let needed = if mutant!(CommitOnSubset) { (members - 1).max(1) } else { members };
        if running.done.len() < needed {
            return None;
        }
        let mut votes = BTreeMap::<Digest, usize>::new();
        for &result in running.done.values() {
            *votes.entry(result).or_default() += 1;
        }
        if votes.len() > 1 && !mutant!(DigestIgnored) {
            // Where as many hold one as the other, nobody can tell which is right.
            let most = votes.values().copied().max();
            let tied = votes.values().filter(|&&votes| Some(votes) == most).count() > 1 && !mutant!(TieGuessed);
            let odd = running.done.iter().filter(|&(_, digest)| tied || votes.get(digest).copied() != most);
            let odd = odd.map(|(&node, _)| node).collect();
            self.abort(now, links, AbortReason::Unequal, odd);
            return None;
        }
        let certificate = Certificate { result, ..running.proposal.certificate.clone() };
        if self.mode == Mode::Available {
            if !mutant!(AbortAfterCommit) {
                self.running = None;
            }
            return Some(self.committed(links, certificate, &BTreeSet::new()));
        }
        if running.accepting.is_none() {
            let accept = Message::Accept { attempt, certificate: certificate.clone(), holders: Vec::new() }.encode();
            for member in &certificate.members {
                links.send(member.node, Post::urgent(accept.clone()));
            }
            running.accepting = Some(Acceptance::new(certificate));
        }
        None
    }

    /// Who is to be left out of the next attempt, as this one stands still: whom most members wait for, or
    /// else whoever has not said anything.
    pub(super) fn blamed(&self) -> Vec<NodeId> {
        let Some(running) = &self.running else { return Vec::new() };
        let mut votes = BTreeMap::<NodeId, usize>::new();
        for (node, missing) in &running.missing {
            if !running.done.contains_key(node) {
                for &other in missing.iter().filter(|other| running.has(**other)) {
                    *votes.entry(other).or_default() += 1;
                }
            }
        }
        let members = running.proposal.certificate.members.iter().map(|member| member.node);
        let mute: Vec<NodeId> =
            members.filter(|node| !running.done.contains_key(node) && !running.missing.contains_key(node)).collect();
        if !mute.is_empty() {
            return mute;
        }
        votes.into_iter().max_by_key(|&(node, votes)| (votes, node)).map(|(node, _)| node).into_iter().collect()
    }

    /// Gives the running attempt up and tells all its members.
    pub(super) fn abort<S: Scalar>(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        why: AbortReason,
        mut who: Vec<NodeId>,
    ) {
        let Some(running) = self.running.take() else { return };
        if running.accepting.is_some() {
            // A majority may have accepted already; only a recovery can tell.
            self.recover(now, links);
            return;
        }
        who.sort_unstable();
        if mutant!(NobodyNamed) {
            who.clear();
        }
        let attempt = running.attempt();
        if matches!(why, AbortReason::NotFinite | AbortReason::Unequal | AbortReason::Stuck) {
            for &node in &who {
                self.forget(node);
                self.left_out.insert(node);
            }
        }
        links.record(now, Occurrence::Aborted { attempt, why, who: who.clone() });
        let abort = Message::Abort { attempt, why, who }.encode();
        for member in &running.proposal.certificate.members {
            links.send(member.node, Post::urgent(abort.clone()));
        }
    }
}
