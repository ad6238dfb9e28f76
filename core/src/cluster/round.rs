//! Committed averaging rounds: one node as a member, as the proposer, and as the one that is healed.
//!
//! Ready → Propose → reduce into a copy → Done → Commit. The model is untouched until the commit; an attempt
//! that fails costs a reduction and nothing else. `member` holds this node's own contribution and what it
//! may commit, `proposer` collects readiness and verdicts when this node is the lowest that is up.
//!
//! In available mode, whoever can reach each other goes on. A commit needs Done with equal digests from all
//! members. A member that has Done and loses its proposer is in doubt and asks the other members;
//! it commits if one of them has, and else aborts. Two histories may exist after that, each with its own
//! certificates; the next common round has both as parents.
//!
//! In strict mode, Done from all members leads to Accept, and a majority's acceptance is the commit: `strict` says why
//! that makes one history of one run, `recovery` settles what a lost proposer left open.

mod behind;
mod doubt;
mod ending;
mod entry;
mod member;
mod proposer;
mod recovery;
mod reducing;
mod running;
mod selection;
mod strict;
mod telling;

use crate::cluster::budget::Budget;
use crate::cluster::certificate::{Attempt, Certificate, CertificateId, Member};
use crate::cluster::contribution::Contribution;
use crate::cluster::healing::Healing;
use crate::cluster::membership::{Change, Links};
use crate::cluster::message::{Message, Verdict};
use crate::cluster::node::{Outcome, Settings};
use crate::cluster::outbox::Post;
use crate::cluster::persistence::Persisted;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use entry::Entry;
use proposer::Proposer;
use selection::Chain;
use strict::Votes;
use telling::Memory;
pub(crate) use telling::is_of_type;

/// Certificates a node remembers as ancestors of its last one.
const ANCESTORS: usize = 4096;
/// How many of them it names whenever it is ready; besides those that it knows to be the last of a peer.
const NAMED: usize = 32;
/// Attempts whose commit a node can tell others of.
const VERDICTS: usize = 16;

/// See the [module](self).
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Rounds<S: Scalar> {
    budget: Budget,
    peers: usize,
    turn: u64,
    samples: (u64, u64),
    last: Option<(Arc<Certificate>, Arc<Contribution<S>>)>,
    ancestors: BTreeSet<CertificateId>,
    forks: VecDeque<CertificateId>,
    /// The highest attempt heard of: no lower one is entered any more.
    heard: Attempt,
    /// The highest attempt left without a commit.
    released: Attempt,
    entry: Option<Entry<S>>,
    early: VecDeque<Early>,
    verdicts: VecDeque<Arc<Certificate>>,
    proposer: Proposer,
    votes: Votes<S>,
    healing: Healing<S>,
    outcomes: VecDeque<Outcome<S>>,
    memory: Memory<S>,
    #[cfg_attr(feature = "serde", serde(skip))]
    spare: Vec<Contribution<S>>,
}

/// A piece that came before the proposal it belongs to.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Early {
    attempt: Attempt,
    from: NodeId,
    reduced: bool,
    index: u32,
    values: Vec<u8>,
}

impl<S: Scalar> Rounds<S> {
    pub(crate) fn new(settings: &Settings, persisted: Persisted<S>) -> Self {
        Self {
            budget: settings.budget,
            peers: settings.peers.len(),
            turn: 0,
            samples: (0, 0),
            last: None,
            ancestors: BTreeSet::new(),
            forks: VecDeque::new(),
            heard: persisted.promised,
            released: Attempt::default(),
            entry: None,
            early: VecDeque::new(),
            verdicts: VecDeque::new(),
            proposer: Proposer::new(settings, persisted.promised.sequence),
            votes: Votes::new(settings, persisted),
            healing: Healing::new(settings.budget),
            outcomes: VecDeque::new(),
            memory: Memory::new(settings.code, settings.remade),
            spare: Vec::new(),
        }
    }

    /// How many nodes a round needs, if this node waits for them.
    pub(crate) fn waits_for(&self) -> Option<usize> {
        self.proposer.waits_for()
    }

    pub(crate) fn last_certificate(&self) -> Option<&Arc<Certificate>> {
        self.last.as_ref().map(|(certificate, _)| certificate)
    }

    pub(crate) fn last_state(&self) -> Option<&Arc<Contribution<S>>> {
        self.last.as_ref().map(|(_, state)| state)
    }

    pub(crate) fn contribution(&self) -> Option<&Contribution<S>> {
        self.entry.as_ref().map(|entry| &*entry.contribution)
    }

    pub(crate) fn samples(&self) -> (u64, u64) {
        self.samples
    }

    pub(crate) fn count_samples(&mut self, samples: u64) {
        self.samples.1 += samples;
    }

    pub(crate) fn spare(&mut self) -> Contribution<S> {
        self.spare.pop().unwrap_or_default()
    }

    pub(crate) fn poll_outcome(&mut self) -> Option<Outcome<S>> {
        self.outcomes.pop_front()
    }

    /// Bytes of what came too early, and of what waits for a disk.
    pub(crate) fn held(&self) -> usize {
        self.early.iter().map(|early| early.values.len()).sum::<usize>() + self.votes.held()
    }

    /// Takes in that a peer came or went.
    pub(crate) fn changed(&mut self, now: Instant, links: &mut Links<S>, change: Change) {
        if let Change::Down(node) = change {
            self.proposer.lost(now, links, node);
            self.early.retain(|early| early.from != node);
            self.peer_lost(now, links, node);
        }
        if let Some(entry) = &mut self.entry {
            // The proposer leaves out whoever another one cannot reach; it must not go by what was so once.
            entry.tell_again = now;
        }
        self.advance(now, links);
    }

    /// Takes in a message; what it has no place for changes nothing.
    pub(crate) fn handle(&mut self, now: Instant, links: &mut Links<S>, from: NodeId, message: Message<'_>) {
        match message {
            Message::Ready(ready) => {
                self.tell_decided(links, from, ready.accepted);
                self.proposer.ready(now, links, from, ready);
            }
            Message::Withdraw { turn } => self.proposer.withdraw(now, links, from, turn),
            Message::Decline { attempt, heard } => {
                self.proposer.declined(now, links, from, attempt, heard);
            }
            Message::Progress { attempt, missing } => {
                self.proposer.progress(now, from, attempt, missing);
            }
            Message::Failed { attempt, who } => self.proposer.failed(now, links, from, attempt, who),
            Message::Done { attempt, result } => {
                if let Some(certificate) = self.proposer.done(now, links, from, attempt, result) {
                    self.remember(certificate);
                }
            }
            Message::Propose(proposal) => self.proposed(now, links, from, proposal),
            Message::Piece { attempt, reduced, index, values } => {
                self.piece(now, links, from, attempt, reduced, index, values);
            }
            Message::Commit { certificate } => self.commit(now, links, certificate),
            Message::Prepare { attempt } => self.prepare(now, links, from, attempt),
            Message::Promise { attempt, decided, accepted } => {
                self.proposer.promised(now, links, from, attempt, decided, accepted);
            }
            Message::Accept { attempt, certificate, holders } => {
                self.asked_to_accept(now, links, from, attempt, certificate, holders);
            }
            Message::Accepted { attempt } => {
                if let Some(certificate) = self.proposer.accepted(now, links, from, attempt) {
                    self.remember(certificate);
                }
            }
            Message::Decided { certificate } => self.learn_of(now, certificate),
            Message::Abort { attempt, why, who } => {
                self.aborted(now, links, from, attempt, why, &who);
            }
            Message::Abandon { turn, why } => self.told_to_abandon(now, links, from, turn, why),
            Message::Lacking { ready, missing } => self.told_to_wait(now, links, from, ready, missing),
            Message::Inquire { attempt } => {
                let verdict = self.verdict(attempt);
                let answer = Message::Answer { attempt, verdict };
                links.send(from, Post::urgent(answer.encode()));
            }
            Message::Answer { attempt, verdict } => {
                self.answered(now, links, from, attempt, verdict);
            }
            Message::Heal { donors, .. } => self.told_to_heal(now, links, donors),
            Message::HealRequest { wanted, have, from: first } => {
                self.heal_requested(links, from, wanted, have, first);
            }
            Message::HealOffer { certificate, iteration, lengths, weights, chunk } => {
                self.heal_offered(now, links, from, certificate, iteration, &lengths, &weights, chunk);
            }
            Message::HealPiece { certificate, index, values } => {
                self.heal_piece(now, links, from, certificate, index, values);
            }
            Message::HealRefuse => self.heal_refused(now, links, from),
            // The node sees to these itself.
            Message::Note { .. } | Message::Departed { .. } => {}
        }
        self.advance(now, links);
    }

    pub(crate) fn wake(&mut self, now: Instant, links: &mut Links<S>) {
        self.wake_member(now, links);
        self.wake_votes(now, links);
        self.advance(now, links);
    }

    pub(crate) fn timeout(&self) -> Instant {
        let entry = self.entry.as_ref().map_or(Instant::FAR, Entry::timeout);
        entry.min(self.proposer.timeout()).min(self.healing.timeout()).min(self.votes.timeout())
    }

    /// What the state now allows: telling the proposer, proposing, giving up.
    fn advance(&mut self, now: Instant, links: &mut Links<S>) {
        if links.zombie {
            self.zombie(now, links);
            return;
        }
        self.take_decided(now, links);
        self.tell(now, links);
        let chain = Chain { mode: self.votes.mode, last: links.last, ancestors: &self.ancestors };
        self.proposer.act(now, links, &chain);
    }

    /// Ancestors of the last certificate that a proposer may have to know of: the newest, and peers' last ones.
    fn named_ancestors(&self, links: &Links<S>) -> Vec<CertificateId> {
        let newest = self.ancestors.iter().rev().take(NAMED).copied();
        let met = links.peers().map(|peer| peer.last).filter(|last| self.ancestors.contains(last));
        newest.chain(met).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Tells a node in doubt what became of the certificate it has accepted, if this node knows.
    fn tell_decided(&self, links: &mut Links<S>, to: NodeId, open: CertificateId) {
        if !self.votes.is_strict() || open == CertificateId::default() {
            return;
        }
        let certificate = if open == links.last || self.ancestors.contains(&open) {
            open
        } else if open.round <= self.votes.decided.round {
            self.votes.decided
        } else {
            return;
        };
        links.send(to, Post::urgent(Message::Decided { certificate }.encode()));
    }

    /// What is known of an attempt.
    fn verdict(&self, attempt: Attempt) -> Verdict {
        if let Some(certificate) = self.verdicts.iter().find(|verdict| verdict.attempt == attempt) {
            Verdict::Committed(Certificate::clone(certificate))
        } else if self.proposer.is_running(attempt)
            || self.entry.as_ref().is_some_and(|entry| entry.attempt() == Some(attempt))
        {
            Verdict::Pending
        } else {
            Verdict::Unknown
        }
    }

    fn remember(&mut self, certificate: Arc<Certificate>) {
        if self.verdicts.iter().all(|verdict| verdict.attempt != certificate.attempt) {
            if self.verdicts.len() == VERDICTS {
                self.verdicts.pop_front();
            }
            self.verdicts.push_back(certificate);
        }
    }

    /// The name of the last certificate.
    fn last_id(&self, links: &Links<S>) -> CertificateId {
        links.last
    }

    /// Makes `certificate` and `state` the last ones.
    fn adopt(&mut self, links: &mut Links<S>, certificate: &Arc<Certificate>, state: &Arc<Contribution<S>>) {
        let old = links.last;
        let parents = certificate.parents.iter().map(|parent| parent.certificate);
        self.ancestors.extend(parents.chain([old]));
        while self.ancestors.len() > ANCESTORS {
            self.ancestors.pop_first();
        }
        links.last = certificate.id();
        self.memory.follow(self.last.as_ref(), state);
        let replaced = self.last.replace((Arc::clone(certificate), Arc::clone(state)));
        if let Some((_, state)) = replaced {
            self.recycle(state);
        }
        self.proposer.counted(&certificate.members);
    }

    /// Keeps memory that nobody uses any more.
    fn recycle(&mut self, contribution: Arc<Contribution<S>>) {
        if self.spare.len() < 3
            && let Some(contribution) = Arc::into_inner(contribution)
        {
            self.spare.push(contribution);
        }
    }

    fn weights(members: &[Member]) -> Vec<Vec<f64>> {
        members.iter().map(|member| member.weights.clone()).collect()
    }
}
