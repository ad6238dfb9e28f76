//! This node's own contribution: announced, taken into an attempt, waited for.

use crate::cluster::certificate::{Attempt, Certificate, Member};
use crate::cluster::contribution::Contribution;
use crate::cluster::membership::Links;
use crate::cluster::message::{Message, Proposal, Ready};
use crate::cluster::outbox::Post;
use crate::cluster::record::{AbandonReason, AbortReason, Occurrence};
use crate::cluster::round::entry::{Doubt, Entry, Lacking, Phase};
use crate::cluster::round::telling::{certified, wire};
use crate::cluster::round::{Early, Rounds};
use crate::cluster::wire::Status;
use crate::collective::{BLOCK, Plan, Reduction};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

impl<S: Scalar> Rounds<S> {
    pub(crate) fn contribute(&mut self, now: Instant, links: &mut Links<S>, mut contribution: Contribution<S>) {
        self.withdraw(now, links);
        self.turn += 1;
        if (!links.zombie || mutant!(FormerInherits)) && self.inherit(now, links, &contribution) {
            return;
        }
        let telling = self.tell_differences(links, &mut contribution);
        let member = Member {
            node: links.identity.node,
            incarnation: links.identity.incarnation,
            turn: self.turn,
            iteration: contribution.iteration,
            samples: self.samples,
            contribution: contribution.digest(),
            parent: self.last_id(links),
            weights: contribution.segments().iter().map(|segment| segment.weight).collect(),
        };
        let ready = Occurrence::Ready {
            turn: member.turn,
            iteration: member.iteration,
            samples: member.samples,
            contribution: member.contribution,
        };
        links.record(now, ready);
        self.entry = Some(Entry {
            contribution: Arc::new(contribution),
            member,
            told: None,
            tell_again: now,
            deadline: now + self.budget.total(),
            retries: 0,
            lacking: None,
            telling,
            phase: Phase::Ready,
        });
        self.advance(now, links);
    }

    pub(crate) fn withdraw(&mut self, now: Instant, links: &mut Links<S>) {
        if self.entry.is_some() {
            self.leave_attempt(links);
            self.forget_entry(now, links);
        }
    }

    /// Announces the contribution to the lowest node that is up, again whenever that may have changed.
    pub(super) fn tell(&mut self, now: Instant, links: &mut Links<S>) {
        if !self.entry.as_ref().is_some_and(|entry| matches!(entry.phase, Phase::Ready)) {
            return;
        }
        let company = links.peers().any(|peer| {
            peer.is_reachable()
                && peer.quarantine.is_none()
                && matches!(peer.status, Status::Training | Status::Healing)
        });
        if self.heal_from_finished(now, links, company) {
            return;
        }
        let Some(entry) = &mut self.entry else { return };
        if !company && self.proposer.minimum > 1 && !self.proposer.waits(links) {
            if self.votes.is_strict() {
                let missing = links.peers().map(|peer| peer.node).collect();
                let minimum = self.proposer.minimum;
                links.record(now, Occurrence::Lacking { ready: 1, minimum, missing });
            }
            self.abandon(now, links, AbandonReason::Alone);
            return;
        }
        let own = links.identity.node;
        let proposer = links.lowest().map_or(own, |lowest| lowest.min(own));
        let told = Some((proposer, links.stream(proposer)));
        if entry.told == told && now < entry.tell_again {
            return;
        }
        entry.told = told;
        entry.tell_again = now + self.budget.inquiry();
        let segments = entry.contribution.segments();
        let ready = Ready {
            member: entry.member.clone(),
            lengths: segments.iter().map(|segment| segment.values.len() as u32).collect(),
            wire: wire::<S>(self.memory.code),
            heard: self.heard,
            released: self.released,
            ancestors: self.named_ancestors(links),
            unreachable: links.peers().filter(|peer| !peer.is_reachable()).map(|peer| peer.node).collect(),
            accepted: self.votes.open(),
            lineage: self.memory.lineage(),
        };
        links.send(proposer, Post::urgent(Message::Ready(ready).encode()));
    }

    /// Takes in a proposal.
    pub(super) fn proposed(&mut self, now: Instant, links: &mut Links<S>, from: NodeId, proposal: Proposal) {
        let attempt = proposal.certificate.attempt;
        if attempt.proposer != from || links.stream(from).0 != attempt.incarnation {
            return;
        }
        if attempt == self.heard {
            return;
        }
        let Some(me) = self.acceptable(links, &proposal) else {
            // Only to a node that is still ready does a higher attempt help.
            let is_ready = |entry: &Entry<S>| matches!(entry.phase, Phase::Ready);
            let ready = self.entry.as_ref().is_some_and(is_ready);
            let heard = if ready { self.heard } else { Attempt::default() };
            if let Some(entry) = &mut self.entry {
                // What the proposer goes by may be what was so once. If it is this node itself, no time passes until
                // it proposes again.
                let own = from == links.identity.node;
                entry.tell_again = if own { now + self.budget.acknowledge() } else { now };
            }
            let decline = Message::Decline { attempt, heard };
            links.send(from, Post::urgent(decline.encode()));
            return;
        };
        self.supersede(now, links);
        self.heard = attempt;
        self.votes.promise(attempt);
        self.note_forks(now, links, &proposal.certificate);
        let memory = self.spare();
        let differences = self.differences(&proposal, me);
        let Some(entry) = &mut self.entry else { return };
        let weights = Self::weights(&proposal.certificate.members);
        let own = Arc::clone(&entry.contribution);
        match Reduction::telling(Plan::direct(proposal.chunk as usize), me, weights, own, memory, differences) {
            Ok(direct) => {
                let direct = Box::new(direct);
                entry.deadline = now + self.budget.total();
                let report = now + self.budget.report();
                entry.phase = Phase::Reducing { proposal, direct, moved: now, report, fresh: true };
            }
            Err(_) => {
                let failed = Message::Failed { attempt, who: links.identity.node };
                links.send(from, Post::urgent(failed.encode()));
                self.abandon(now, links, AbandonReason::NotFinite);
                return;
            }
        }
        let waiting = core::mem::take(&mut self.early).into_iter();
        let (early, later): (Vec<Early>, Vec<Early>) =
            waiting.filter(|early| early.attempt >= attempt).partition(|early| early.attempt == attempt);
        self.early = later.into();
        for Early { attempt, from, reduced, index, values } in early {
            self.piece(now, links, from, attempt, reduced, index, &values);
        }
        self.pump(now, links);
    }

    /// This node's place among the members, if the proposal is one that it can take part in.
    fn acceptable(&self, links: &Links<S>, proposal: &Proposal) -> Option<usize> {
        let Proposal { certificate, lengths, chunk, lineages } = proposal;
        let entry = self.entry.as_ref()?;
        let me = certificate.members.binary_search_by_key(&links.identity.node, |member| member.node).ok()?;
        // Whoever proposes anew has not committed its earlier attempt. That of another proposer may go on
        // without this node, or be committed already, which would make two histories out of one.
        let free = match &entry.phase {
            Phase::Ready => true,
            Phase::Healing => false,
            Phase::Reducing { proposal, .. } | Phase::Done { proposal, .. } => {
                let Attempt { proposer, incarnation, .. } = proposal.certificate.attempt;
                let new = certificate.attempt;
                (proposer, incarnation) == (new.proposer, new.incarnation)
            }
        };
        let segments = entry.contribution.segments();
        let fits = certificate.wire
            == certified::<S>(&wire::<S>(self.memory.code), &certificate.members, &certificate.parents)
            && *chunk > 0
            && (!certificate.is_coded()
                || (*chunk as usize == BLOCK && lineages.get(me) == Some(&self.memory.lineage())))
            && lengths.len() == segments.len()
            && lengths.iter().zip(segments).all(|(&len, s)| len as usize == s.values.len())
            && certificate.members.iter().all(|member| member.weights.len() == segments.len());
        let descends = certificate.round > links.last.round
            && certificate.parents.iter().any(|parent| parent.certificate == links.last);
        let said = &certificate.members[me];
        let missed = certificate.missed(links.last);
        let behind = missed > 0 && (*said == entry.member.healed() || *said == entry.member.discounted(missed));
        let me_as_said = *said == entry.member || behind;
        let me_as_said = me_as_said || mutant!(DoubleReady);
        let acceptable = free && fits && descends && me_as_said && self.votes.may_enter(certificate);
        (acceptable && certificate.attempt > self.heard).then_some(me)
    }

    fn note_forks(&mut self, now: Instant, links: &mut Links<S>, certificate: &Certificate) {
        if !certificate.merges() {
            return;
        }
        let ours = links.last;
        for parent in certificate.parents.iter().filter(|parent| !parent.stale) {
            let theirs = parent.certificate;
            if theirs != ours && !self.forks.contains(&theirs) {
                if self.forks.len() == 16 {
                    self.forks.pop_front();
                }
                self.forks.push_back(theirs);
                links.record(now, Occurrence::Forked { ours, theirs });
            }
        }
    }

    pub(super) fn told_to_abandon(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        turn: u64,
        why: AbandonReason,
    ) {
        let Some(entry) = &self.entry else { return };
        let told = entry.told.map(|(proposer, _)| proposer);
        // A proposer this node has turned away from may say so too late.
        if matches!(entry.phase, Phase::Ready) && entry.member.turn == turn && told == Some(from) {
            self.abandon(now, links, why);
        }
    }

    /// Takes in that the proposer waits for others: so does this node, and says so when there is news, or
    /// after twice the time it was last silent for.
    pub(super) fn told_to_wait(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        ready: u32,
        missing: Vec<NodeId>,
    ) {
        let Some(entry) = &mut self.entry else { return };
        let told = entry.told.map(|(proposer, _)| proposer);
        if !matches!(entry.phase, Phase::Ready) || told != Some(from) {
            return;
        }
        entry.deadline = now + self.budget.total();
        let silence = match &entry.lacking {
            Some(known) if known.missing != missing => self.budget.total(),
            Some(known) if now >= known.again => 2 * known.silence,
            Some(_) => return,
            None => self.budget.total(),
        };
        let (ready, minimum) = (ready as usize, self.proposer.minimum);
        links.record(now, Occurrence::Lacking { ready, minimum, missing: missing.clone() });
        entry.lacking = Some(Lacking { missing, again: now + silence, silence });
    }

    /// Takes in that a peer is lost.
    pub(super) fn peer_lost(&mut self, now: Instant, links: &mut Links<S>, node: NodeId) {
        if self.healing.donor() == Some(node) && !mutant!(HealForever) {
            self.next_donor(now, links);
        }
        let Some(entry) = &mut self.entry else { return };
        let proposer = entry.attempt().map(|attempt| attempt.proposer);
        match &mut entry.phase {
            Phase::Reducing { .. } if proposer == Some(node) => {
                self.give_up(now, links, AbortReason::Lost, vec![node]);
            }
            Phase::Done { doubt, .. } => match doubt {
                Doubt::None(_) if proposer == Some(node) => self.inquire(now, links),
                Doubt::Asked(open, _) => {
                    open.remove(&node);
                    self.resolve(now, links);
                }
                Doubt::None(_) => {}
            },
            _ => {}
        }
    }

    pub(super) fn wake_member(&mut self, now: Instant, links: &mut Links<S>) {
        if self.healing.timeout() <= now {
            self.next_donor(now, links);
        }
        let Some(entry) = &mut self.entry else { return };
        let late = now >= entry.deadline;
        match &mut entry.phase {
            Phase::Ready | Phase::Reducing { .. } if late => {
                self.leave_attempt(links);
                self.abandon(now, links, AbandonReason::Late);
            }
            Phase::Reducing { proposal, direct, moved, report, fresh } if now >= *report => {
                *report = now + self.budget.report();
                let certificate = &proposal.certificate;
                let attempt = certificate.attempt;
                if core::mem::take(fresh) {
                    let missing = direct.awaited().into_iter();
                    let missing = missing.map(|place| certificate.members[place].node).collect();
                    let progress = Message::Progress { attempt, missing };
                    links.send(attempt.proposer, Post::urgent(progress.encode()));
                } else if now >= *moved + self.budget.progress() {
                    let inquire = Message::Inquire { attempt };
                    links.send(attempt.proposer, Post::urgent(inquire.encode()));
                }
            }
            Phase::Done { proposal, doubt: Doubt::None(until), .. } if now >= *until => {
                if self.proposer.is_running(proposal.certificate.attempt) {
                    // This node itself decides, and knows that others still move.
                    *until = now + self.budget.progress();
                } else {
                    self.inquire(now, links);
                }
            }
            Phase::Done { .. } => self.resolve(now, links),
            _ => {}
        }
    }
}
