//! Strict mode, as every node answers in it: promises, acceptance, decisions.
//!
//! # Why at most one certificate per round is committed
//!
//! This is single-decree Paxos (Lamport 1998, 2001) for every round, with attempts as ballots, the nodes of the
//! configured world as acceptors, and certificates as values. `Q` is any majority of that world; two of them meet.
//!
//! - *Promise.* A node answers in attempt `a` (takes part in its reduction, or answers [`Message::Prepare`]) only if
//!   `a` is higher than all it has promised, and only after that promise is durable. From then on it accepts
//!   nothing of a lower attempt. Memory of what it was doing in lower attempts is dropped with the promise.
//! - *Accept.* [`Message::Accept`] of `(a, c)` is answered if nothing higher was promised, after `(a, c)` *and the
//!   result that `c` certifies* are durable. Who lacks the result fetches it first and compares digests.
//! - *Commit.* Acceptance of `(a, c)` by a majority is the commit; everything after it is news of it.
//! - *Which `c` may be asked for in `a`.* Either `a` proposes round `r` itself: all members, a majority, have promised
//!   `a` by taking part, and each refuses to take part if it has accepted a certificate of round `r` or later
//!   (`may_enter`). Suppose `(b, v)`, `b < a`, of round `r` is ever accepted by a majority: it shares a node with the
//!   members of `a`. That node accepted `(b, v)` before it promised `a` (afterwards it refuses), so it has accepted
//!   a certificate of round `r` when it was asked to take part, and refused: `a` never comes to Accept. Or `a` is a
//!   recovery: a majority has promised `a` and told what it had accepted; the certificate of the highest
//!   round, among those of the highest attempt, is asked for again, word for word. By the usual induction over
//!   attempts, if some `v` of round `r` was accepted by a majority in `b < a`, what is found is `v` itself or
//!   belongs to a later round, whose members could take part only because round `r` was decided.
//! - *Chain.* A certificate of round `r + 1` names as its only living parent a certificate of round `r` that one of its
//!   members holds as committed. So the last accepted certificate is all that has to be kept: an accepted round
//!   `r + 1` says that round `r` is decided, and how.
//! - *Crashes.* A node starts again with the highest attempt it promised or accepted in, and what it accepted. What it
//!   was taking part in is gone, hence it cannot accept in that attempt except with a result fetched anew. A write
//!   that was not acknowledged may have happened or not: it was not answered for, and both are states in which the
//!   node could have been.
//! - *Members may have restarted.* A recovered certificate may name an earlier start of a member: that start did
//!   contribute, and its contribution is in the result.
//!
//! A proposer that died may have had its majority: every node that accepted stays in doubt, says so whenever it is
//! ready ([`Ready::accepted`](crate::cluster::message::Ready)), takes part in nothing else of that round, and whoever
//! proposes next recovers first. Without a majority that promises, nothing commits and [`Occurrence::Lacking`] names
//! the missing.

use crate::cluster::certificate::{Attempt, Certificate, CertificateId, Incarnation};
use crate::cluster::contribution::Contribution;
use crate::cluster::healing::Healing;
use crate::cluster::membership::Links;
use crate::cluster::message::Message;
use crate::cluster::mode::Mode;
use crate::cluster::node::{Outcome, Settings};
use crate::cluster::outbox::Post;
use crate::cluster::persistence::{Accepted, Persisted, write_copy, write_vote};
use crate::cluster::record::{AbortReason, Occurrence};
use crate::cluster::round::entry::{Entry, Phase};
use crate::cluster::round::{Rounds, is_of_type};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::storage::Write;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Values that a node which has never contributed takes in at most.
const ON_TRUST: u64 = 1 << 24;

/// What a node has promised and accepted, and what it may say once that is durable.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Votes<S: Scalar> {
    pub(super) mode: Mode,
    pub(super) quorum: usize,
    incarnation: Incarnation,
    pub(super) promised: Attempt,
    /// The newest certificate known to be committed.
    pub(super) decided: CertificateId,
    pub(super) accepted: Option<Accepted<S>>,
    /// A committed result that training has not taken over yet.
    pub(super) inherited: Option<(Arc<Certificate>, Arc<Contribution<S>>)>,
    /// A certificate to be accepted once its result is here.
    awaited: Option<(Attempt, Certificate)>,
    fetch: Healing<S>,
    /// The newest write that was asked for, and the newest that is durable.
    asked: u64,
    durable: u64,
    /// The write with the newest promise.
    promise: u64,
    writes: VecDeque<Write>,
    /// What to say to whom, and record, once a write is durable.
    held: VecDeque<Held>,
}

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Held {
    ticket: u64,
    to: NodeId,
    message: Vec<u8>,
    record: Option<Occurrence>,
}

impl<S: Scalar> Votes<S> {
    pub(super) fn new(settings: &Settings, persisted: Persisted<S>) -> Self {
        let world = settings.peers.iter().filter(|peer| **peer != settings.node).count() + 1;
        let accepted = persisted.accepted.into_iter().next();
        let mut votes = Self {
            mode: settings.mode,
            quorum: if mutant!(MinorityCommits) { 1 } else { world / 2 + 1 },
            incarnation: settings.incarnation,
            promised: persisted.promised,
            decided: persisted.decided,
            // What was decided when it stopped is what training goes on from.
            inherited: None,
            accepted,
            awaited: None,
            fetch: Healing::new(settings.budget),
            asked: 0,
            durable: 0,
            promise: 0,
            writes: VecDeque::new(),
            held: VecDeque::new(),
        };
        if let Some(Accepted { certificate, state, .. }) = &votes.accepted
            && certificate.id() == votes.decided
        {
            votes.inherited = Some((Arc::clone(certificate), Arc::clone(state)));
        }
        if votes.is_strict() {
            votes.write_vote();
        }
        votes
    }

    pub(super) fn is_strict(&self) -> bool {
        self.mode == Mode::Strict
    }

    /// What has been accepted and is not known to be decided; the default if nothing.
    pub(super) fn open(&self) -> CertificateId {
        let open = self.accepted.as_ref().map(|accepted| accepted.certificate.id());
        open.filter(|id| id.round > self.decided.round).unwrap_or_default()
    }

    /// Whether this node may take part in a proposal of this round.
    pub(super) fn may_enter(&self, certificate: &Certificate) -> bool {
        let accepted = self.accepted.as_ref().map(|accepted| accepted.certificate.round);
        !self.is_strict()
            || (certificate.attempt > self.promised
                && certificate.round > self.decided.round
                && accepted.is_none_or(|round| round < certificate.round)
                && certificate.members.len() >= self.quorum)
    }

    /// Promises to take part in no lower attempt.
    pub(super) fn promise(&mut self, attempt: Attempt) {
        if self.is_strict() && attempt > self.promised {
            self.promised = attempt;
            self.awaited = None;
            self.fetch.stop();
            self.write_vote();
        }
    }

    fn write_vote(&mut self) {
        let bytes = write_vote(self.incarnation, &self.promised, &self.decided);
        self.asked += 1;
        self.promise = self.asked;
        self.writes.push_back(Write { ticket: self.asked, slot: crate::storage::Slot::Vote, bytes });
    }

    /// Takes note that this certificate is committed.
    pub(super) fn decide(&mut self, id: CertificateId) {
        if id.round > self.decided.round {
            self.decided = id;
        }
    }

    pub(super) fn poll_write(&mut self) -> Option<Write> {
        self.writes.pop_front()
    }

    pub(super) fn timeout(&self) -> Instant {
        self.fetch.timeout()
    }

    /// The state that this certificate certifies, if it is what this node has accepted.
    pub(super) fn copy(&self, id: CertificateId) -> Option<(&Arc<Certificate>, &Arc<Contribution<S>>)> {
        let accepted = self.accepted.as_ref().filter(|accepted| accepted.certificate.id() == id)?;
        Some((&accepted.certificate, &accepted.state))
    }

    /// Bytes of what waits for a disk.
    pub(super) fn held(&self) -> usize {
        let writes: usize = self.writes.iter().map(|write| write.bytes.len()).sum();
        writes + self.held.iter().map(|held| held.message.len()).sum::<usize>()
    }

    fn say(&mut self, links: &mut Links<S>, held: Held, now: Instant) {
        if held.ticket <= self.durable {
            links.send(held.to, Post::urgent(held.message));
            if let Some(record) = held.record {
                links.record(now, record);
            }
        } else {
            self.held.push_back(held);
        }
    }
}

impl<S: Scalar> Rounds<S> {
    /// Says something that must not be said before the newest promise is durable.
    pub(super) fn say_when_promised(&mut self, now: Instant, links: &mut Links<S>, to: NodeId, message: &Message<'_>) {
        let ticket = self.votes.promise;
        let held = Held { ticket, to, message: message.encode(), record: None };
        self.votes.say(links, held, now);
    }

    /// Takes in that a write is durable, or has failed.
    pub(crate) fn written(&mut self, now: Instant, links: &mut Links<S>, ticket: u64, durable: bool) {
        if ticket > self.votes.asked || ticket <= self.votes.durable {
            return;
        }
        if durable {
            self.votes.durable = ticket;
        } else {
            links.record(now, Occurrence::NotStored { ticket });
        }
        for held in core::mem::take(&mut self.votes.held) {
            // What rests on a write that failed is never said.
            if held.ticket != ticket || durable {
                self.votes.say(links, held, now);
            }
        }
        self.advance(now, links);
    }

    pub(crate) fn poll_write(&mut self) -> Option<Write> {
        self.votes.poll_write()
    }

    /// A proposer that recovers wants a promise.
    pub(super) fn prepare(&mut self, now: Instant, links: &mut Links<S>, from: NodeId, attempt: Attempt) {
        if !self.votes.is_strict() || from != attempt.proposer || links.stream(from).0 != attempt.incarnation {
            return;
        }
        if attempt < self.heard.max(self.votes.promised) {
            let decline = Message::Decline { attempt, heard: self.heard.max(self.votes.promised) };
            links.send(from, Post::urgent(decline.encode()));
            return;
        }
        self.heard = attempt;
        if self.entry.as_ref().and_then(Entry::attempt).is_some() {
            self.give_up(now, links, AbortReason::Superseded, Vec::new());
        }
        self.votes.promise(attempt);
        let accepted = self.votes.accepted.as_ref();
        let accepted = accepted.map(|accepted| (accepted.attempt, Certificate::clone(&accepted.certificate)));
        let promise = Message::Promise { attempt, decided: self.votes.decided, accepted };
        self.say_when_promised(now, links, from, &promise);
    }

    /// A proposer wants a certificate accepted.
    pub(super) fn asked_to_accept(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        attempt: Attempt,
        certificate: Certificate,
        holders: Vec<NodeId>,
    ) {
        if !self.votes.is_strict() || from != attempt.proposer || links.stream(from).0 != attempt.incarnation {
            return;
        }
        let broken = attempt < self.heard.max(self.votes.promised) && !mutant!(PromiseBroken);
        if broken || !is_of_type::<S>(&certificate.wire) {
            let decline = Message::Decline { attempt, heard: self.heard.max(self.votes.promised) };
            links.send(from, Post::urgent(decline.encode()));
            return;
        }
        let id = certificate.id();
        let state = match self.entry.as_ref().map(|entry| &entry.phase) {
            Some(Phase::Done { proposal, average, result, .. })
                if certificate.result == *result && proposal.certificate.becomes(&certificate) =>
            {
                Some(Arc::clone(average))
            }
            _ => self.copy(id).map(|(_, state)| Arc::clone(state)),
        };
        if let Some(state) = state {
            self.accept(now, links, attempt, Arc::new(certificate), state);
            return;
        }
        self.heard = attempt;
        self.votes.promise(attempt);
        self.votes.awaited = Some((attempt, certificate));
        self.votes.fetch.start(id, holders);
        self.next_holder(now, links);
    }

    /// Makes a certificate and its result durable; then says so to who asked.
    fn accept(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        attempt: Attempt,
        certificate: Arc<Certificate>,
        state: Arc<Contribution<S>>,
    ) {
        self.heard = self.heard.max(attempt);
        let id = certificate.id();
        let accepted = Accepted { attempt, certificate, state };
        let (slot, bytes) = write_copy(&accepted);
        let Votes { asked, writes, promised, .. } = &mut self.votes;
        *promised = attempt.max(*promised);
        *asked += 1;
        let ticket = *asked;
        writes.push_back(Write { ticket, slot, bytes });
        self.votes.accepted = Some(accepted);
        let quorum = self.votes.quorum;
        let record = Some(Occurrence::Accepted { attempt, certificate: id, quorum });
        let message = Message::Accepted { attempt }.encode();
        let held = Held { ticket, to: attempt.proposer, message, record };
        self.votes.say(links, held, now);
    }

    /// The certificate called `id` and what it certifies, if this node holds both.
    pub(super) fn copy(&self, id: CertificateId) -> Option<(&Arc<Certificate>, &Arc<Contribution<S>>)> {
        let last = self.last.as_ref().filter(|(certificate, _)| certificate.id() == id);
        last.map(|(certificate, state)| (certificate, state)).or_else(|| self.votes.copy(id))
    }

    /// Takes in that a certificate is committed.
    pub(super) fn learn(&mut self, certificate: &Certificate) {
        if certificate.round > self.votes.decided.round {
            self.votes.decide(certificate.id());
            self.remember(Arc::new(certificate.clone()));
        }
    }

    /// Applies what is decided, once this node has accepted it: it may hear of the decision before, and be in another
    /// attempt meanwhile.
    pub(super) fn take_decided(&mut self, now: Instant, links: &mut Links<S>) {
        let id = self.votes.decided;
        if id.round <= links.last.round {
            return;
        }
        let Some((certificate, state)) = self.votes.copy(id) else { return };
        let (certificate, state) = (Arc::clone(certificate), Arc::clone(state));
        let Some(entry) = &self.entry else {
            self.votes.inherited = Some((certificate, state));
            return;
        };
        if entry.attempt().is_some() {
            return;
        }
        let counted = matches!(entry.phase, Phase::Ready)
            && certificate.member(entry.member.node).is_some_and(|member| {
                (member.incarnation, member.turn) == (entry.member.incarnation, entry.member.turn)
            });
        if counted {
            // Whoever it was announced to since must not propose it once more.
            if let Some((proposer, _)) = entry.told {
                let withdraw = Message::Withdraw { turn: entry.member.turn };
                links.send(proposer, Post::urgent(withdraw.encode()));
            }
            self.apply(now, links, certificate, state);
            return;
        }
        let own = Arc::clone(&entry.contribution);
        self.votes.inherited = Some((certificate, state));
        self.inherit(now, links, &own);
    }

    /// Takes in that whatever is open up to this certificate's round is decided.
    pub(super) fn learn_of(&mut self, now: Instant, id: CertificateId) {
        if let Some((certificate, _)) = self.votes.copy(id) {
            let certificate = Certificate::clone(certificate);
            self.learn(&certificate);
        } else if self.votes.is_strict() {
            self.votes.decide(id);
            if let Some(entry) = &mut self.entry {
                entry.tell_again = now;
            }
        }
    }

    /// Lets training take over a committed result that was decided without it; answers whether there was one.
    ///
    /// `own` is what training would contribute: its segments' names do not travel.
    pub(super) fn inherit(&mut self, now: Instant, links: &mut Links<S>, own: &Contribution<S>) -> bool {
        let Some((certificate, state)) = self.votes.inherited.take() else { return false };
        if certificate.round <= links.last.round {
            return false;
        }
        let donor = certificate.attempt.proposer;
        let state = if state.is_named_like(own) { state } else { Arc::new(state.named_like(own)) };
        self.take_over(now, links, certificate, state, donor);
        true
    }

    /// Takes over a committed state in place of this node's own; its samples since the last commit are lost.
    pub(super) fn take_over(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        certificate: Arc<Certificate>,
        state: Arc<Contribution<S>>,
        donor: NodeId,
    ) {
        let lost = if mutant!(LossHidden) { (self.samples.1, self.samples.1) } else { self.samples };
        self.samples.0 = self.samples.1;
        links.counters.healed += 1;
        let healed = Occurrence::Healed { certificate: Arc::clone(&certificate), donor, lost };
        links.record(now, healed);
        self.votes.decide(certificate.id());
        self.adopt(links, &certificate, &state);
        self.forget_entry(now, links);
        self.memory.forget();
        self.outcomes.push_back(Outcome::Healed { certificate, state });
    }

    /// Asks the next node that holds what is to be accepted.
    pub(super) fn next_holder(&mut self, now: Instant, links: &mut Links<S>) {
        if !self.votes.fetch.ask_next(now, links) {
            self.votes.awaited = None;
            self.votes.fetch.stop();
        }
    }

    /// Whether `from` is who was asked for a result to be accepted.
    pub(super) fn fetches_from(&self, from: NodeId) -> bool {
        self.votes.fetch.donor() == Some(from)
    }

    /// Takes in the description of a result to be accepted; answers whether it was that.
    pub(super) fn fetch_offered(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        certificate: &Certificate,
        iteration: u64,
        lengths: &[u32],
        weights: &[f64],
        chunk: u32,
    ) -> bool {
        let awaited = self.votes.awaited.as_ref().is_some_and(|(_, awaited)| awaited == certificate);
        if !self.fetches_from(from) || !awaited {
            return false;
        }
        let own = self.entry.as_ref().map(|entry| &entry.contribution);
        let own = own.or(self.last_state()).or(self.votes.accepted.as_ref().map(|accepted| &accepted.state));
        let own = own.map_or_else(|| unnamed(lengths), |own| Some(Arc::clone(own))).filter(|own| {
            let segments = own.segments();
            chunk > 0
                && lengths.len() == segments.len()
                && weights.len() == segments.len()
                && lengths.iter().zip(segments).all(|(&len, segment)| len as usize == segment.values.len())
        });
        if let Some(own) = own {
            self.votes.fetch.offered(now, certificate.clone(), iteration, &own, weights, chunk);
            self.votes.fetch.request(links);
            self.fetched(now, links);
        } else {
            self.next_holder(now, links);
        }
        true
    }

    /// Takes in a piece of a result to be accepted; answers whether it was that.
    pub(super) fn fetch_piece(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        certificate: CertificateId,
        index: u32,
        values: &[u8],
    ) -> bool {
        if !self.fetches_from(from) || !self.votes.fetch.piece(now, certificate, index, values) {
            return false;
        }
        self.fetched(now, links);
        true
    }

    fn fetched(&mut self, now: Instant, links: &mut Links<S>) {
        let Some((donor, certificate, state)) = self.votes.fetch.take_whole() else { return };
        let (expected, found) = (certificate.result, state.digest());
        if expected != found && !mutant!(HealUnchecked) {
            links.record(now, Occurrence::HealRejected { donor, expected, found });
            self.next_holder(now, links);
            return;
        }
        self.votes.fetch.stop();
        if let Some((attempt, certificate)) = self.votes.awaited.take()
            && attempt >= self.votes.promised
        {
            self.accept(now, links, attempt, Arc::new(certificate), Arc::new(state));
        }
    }

    pub(super) fn wake_votes(&mut self, now: Instant, links: &mut Links<S>) {
        if self.votes.fetch.timeout() <= now {
            self.next_holder(now, links);
        }
    }
}

/// Room for values of these lengths, for a node that has never contributed and does not know what they are called;
/// `None` if there are more than it takes on trust.
fn unnamed<S: Scalar>(lengths: &[u32]) -> Option<Arc<Contribution<S>>> {
    let values: u64 = lengths.iter().map(|&len| u64::from(len)).sum();
    (values <= ON_TRUST).then(|| {
        let mut contribution = Contribution::default();
        lengths.iter().for_each(|&len| contribution.segment("", len as usize, 0.0).fill(S::zero()));
        Arc::new(contribution)
    })
}
