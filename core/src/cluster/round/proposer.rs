//! What the lowest node that is up does for all: it collects who is ready, proposes, and decides.
//!
//! It need not contribute itself. It waits for everybody it sees training, but not for longer than the
//! budget allows from the first that is ready on; whoever was too slow is named in its records.

use crate::cluster::budget::Budget;
use crate::cluster::certificate::{Algorithm, Attempt, Certificate, Member, Round};
use crate::cluster::digest::Digest;
use crate::cluster::membership::Links;
use crate::cluster::message::{Message, Proposal, Ready};
use crate::cluster::mode::Mode;
use crate::cluster::node::Settings;
use crate::cluster::outbox::Post;
use crate::cluster::peer::{Liveness, Peer};
use crate::cluster::record::{AbandonReason, AbortReason, Occurrence};
use crate::cluster::rejoin::{Rejoin, Shortage};
use crate::cluster::round::recovery::Recovery;
use crate::cluster::round::running::Running;
use crate::cluster::round::selection::{Chain, Exclusion, Selection, parents};
use crate::cluster::round::telling::certified;
use crate::cluster::wire::Status;
use crate::collective::BLOCK;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

/// Values in a piece at least, so that small vectors do not become a frame per handful of values.
const SMALLEST_CHUNK: usize = 256;
/// Bytes of a message that are not values, at most, and of one value, at most.
const MESSAGE_HEAD: usize = 64;
const WIDEST_VALUE: usize = 8;

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Proposer {
    pub(super) budget: Budget,
    pub(super) mode: Mode,
    /// A majority of the configured world.
    pub(super) quorum: usize,
    /// How many nodes a round needs.
    pub(super) minimum: usize,
    shortage: Shortage,
    pub(super) rejoin: Rejoin,
    chunk: usize,
    pub(super) readies: BTreeMap<NodeId, Announced>,
    /// From when on the waiting for slow nodes counts.
    since: Option<Instant>,
    /// When to look again whether to wait any longer.
    pub(super) alarm: Instant,
    /// When to tell again whom everybody waits for.
    tell_again: Instant,
    pub(super) running: Option<Running>,
    /// In strict mode, what settles earlier attempts, and when the next one may begin.
    pub(super) recovery: Option<Recovery>,
    pub(super) recover_again: Instant,
    /// The highest sequence heard of or used.
    pub(super) sequence: u64,
    /// Who spoiled an attempt since the last commit and has not been ready since: nobody waits for it.
    pub(super) left_out: BTreeSet<NodeId>,
    /// Who was last asked to heal somebody.
    pub(super) donors: usize,
}

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Announced {
    pub(super) ready: Ready,
    at: Instant,
}

impl Proposer {
    /// One that has heard of attempts up to `sequence`.
    pub(super) fn new(settings: &Settings, sequence: u64) -> Self {
        let world = settings.peers.iter().filter(|peer| **peer != settings.node).count() + 1;
        let quorum = if mutant!(MinorityCommits) { 1 } else { world / 2 + 1 };
        let strict = settings.mode == Mode::Strict;
        Self {
            budget: settings.budget,
            mode: settings.mode,
            quorum,
            minimum: if strict { settings.minimum.max(quorum) } else { settings.minimum },
            shortage: settings.shortage,
            rejoin: settings.rejoin,
            // A piece must fit into a message, with some room for what stands before its values.
            chunk: settings.chunk.min((settings.largest_message - MESSAGE_HEAD) / WIDEST_VALUE),
            readies: BTreeMap::new(),
            since: None,
            alarm: Instant::FAR,
            tell_again: Instant::ORIGIN,
            running: None,
            recovery: None,
            recover_again: Instant::ORIGIN,
            sequence,
            left_out: BTreeSet::new(),
            donors: 0,
        }
    }

    /// How many nodes a round needs, if this node waits for them.
    pub(super) fn waits_for(&self) -> Option<usize> {
        (self.shortage == Shortage::Wait).then_some(self.minimum)
    }

    pub(super) fn is_running(&self, attempt: Attempt) -> bool {
        self.running.as_ref().is_some_and(|running| running.attempt() == attempt)
    }

    pub(super) fn timeout(&self) -> Instant {
        match &self.running {
            Some(running) => running.moved + self.budget.progress(),
            None => self.recovery_timeout().unwrap_or(self.alarm),
        }
    }

    /// Takes in that a node is ready; said twice, it is ready once.
    pub(super) fn ready<S: Scalar>(&mut self, now: Instant, links: &mut Links<S>, from: NodeId, mut ready: Ready) {
        let Member { node, incarnation, turn, .. } = ready.member;
        if node != from || links.stream(from).0 != incarnation {
            return;
        }
        if ready.member.weights.len() != ready.lengths.len() {
            return;
        }
        self.sequence = self.sequence.max(ready.heard.sequence);
        if links.is_quarantined(from) && !mutant!(QuarantineIgnored) {
            let abandon = Message::Abandon { turn, why: AbandonReason::Quarantined };
            links.send(from, Post::urgent(abandon.encode()));
            return;
        }
        if let Some(known) = self.readies.get(&from)
            && known.ready.member.turn > turn
        {
            return;
        }
        let left = self.running.as_ref().is_some_and(|running| {
            running
                .proposal
                .certificate
                .member(from)
                .is_some_and(|member| member.turn < turn || ready.released >= running.attempt())
        });
        let same = self.readies.get(&from).filter(|known| known.ready.member.turn == turn);
        if let Some(known) = same
            && mutant!(DoubleReady)
        {
            let said = ready.member.weights.iter_mut().zip(&known.ready.member.weights);
            said.for_each(|(weight, before)| *weight += before);
        }
        let at = same.map_or(now, |known| known.at);
        self.readies.insert(from, Announced { ready, at });
        self.left_out.remove(&from);
        self.since = self.readies.values().map(|known| known.at).min();
        if left {
            self.abort(now, links, AbortReason::Declined, vec![from]);
        }
    }

    pub(super) fn withdraw<S: Scalar>(&mut self, now: Instant, links: &mut Links<S>, from: NodeId, turn: u64) {
        if self.readies.get(&from).is_some_and(|known| known.ready.member.turn <= turn) {
            self.forget(from);
        }
        let member = self.running.as_ref().and_then(|running| running.proposal.certificate.member(from));
        if member.is_some_and(|member| member.turn <= turn) {
            self.abort(now, links, AbortReason::Declined, vec![from]);
        }
    }

    /// Takes in that these contributions are part of a committed average.
    pub(super) fn counted(&mut self, members: &[Member]) {
        self.left_out.clear();
        for member in members {
            let counted = |known: &Announced| {
                let Member { incarnation, turn, .. } = known.ready.member;
                (incarnation, turn) <= (member.incarnation, member.turn)
            };
            if self.readies.get(&member.node).is_some_and(counted) {
                self.forget(member.node);
            }
        }
    }

    pub(super) fn lost<S: Scalar>(&mut self, now: Instant, links: &mut Links<S>, node: NodeId) {
        self.forget(node);
        if self.running.as_ref().is_some_and(|running| running.has(node)) {
            self.abort(now, links, AbortReason::Lost, vec![node]);
        }
    }

    /// Proposes if it is time to; gives up an attempt that stands still.
    pub(super) fn act<S: Scalar>(&mut self, now: Instant, links: &mut Links<S>, chain: &Chain<'_>) {
        if let Some(running) = &self.running {
            if now >= running.moved + self.budget.progress() {
                let blamed = self.blamed();
                self.abort(now, links, AbortReason::Stuck, blamed);
            } else {
                return;
            }
        }
        if self.is_recovering(now) {
            return;
        }
        let own = links.identity.node;
        self.alarm = Instant::FAR;
        if links.lowest().is_some_and(|lowest| lowest < own) {
            // It hears of the same nodes; should it be lost, that calls again.
            return;
        }
        let Some(since) = self.since else { return };
        if self.mode == Mode::Strict && self.is_open() {
            self.recover(now, links);
            return;
        }
        let expected = links
            .peers()
            .filter(|peer| peer.takes_part() && peer.status == Status::Training)
            .map(|peer| peer.node)
            .chain((links.status == Status::Training).then_some(own));
        let waited_for = |node: &NodeId| !self.readies.contains_key(node) && !self.left_out.contains(node);
        let slow: Vec<NodeId> = expected.filter(waited_for).collect();
        let waited = now.since(since);
        let over = waited >= self.budget.ready();
        self.alarm = since + self.budget.ready();
        if !slow.is_empty() && !over {
            return;
        }
        let Selection { members, behind, excluded } = self.select(chain);
        let unfit = excluded.iter().any(|(_, how)| matches!(how, Exclusion::Abandon));
        for (node, how) in excluded {
            self.exclude(links, node, how);
        }
        let ready = members.len() - behind.len();
        if ready < self.minimum && unfit && self.shortage == Shortage::Wait {
            // It may be these whose values have the wrong shape; if they waited, nobody would ever know.
            for node in members {
                self.exclude(links, node, Exclusion::Abandon);
            }
            return;
        }
        if ready < self.minimum {
            if over && self.waits(links) {
                self.wait(now, links, ready);
            } else if over {
                self.lacking(now, links, ready);
            }
            return;
        }
        if !slow.is_empty() {
            links.record(now, Occurrence::Slow { nodes: slow, waited });
        }
        self.propose(now, links, chain, &members, &behind);
    }

    /// Whether to wait where too few are left: only as long as enough may still come.
    pub(super) fn waits<S: Scalar>(&self, links: &Links<S>) -> bool {
        // Whoever is not here may come back, but not to a run that is over for others.
        let over = links.status == Status::Finished || links.peers().any(|peer| peer.status == Status::Finished);
        let may_come = |peer: &&Peer| match peer.status {
            Status::Training | Status::Healing => !over || peer.is_reachable(),
            Status::Observing => !over && peer.liveness == Liveness::Unknown,
            Status::Finished => false,
        };
        let own = usize::from(matches!(links.status, Status::Training | Status::Healing));
        self.shortage == Shortage::Wait && links.peers().filter(may_come).count() + own >= self.minimum
    }

    /// Tells those that are ready whom they wait for, again and again.
    fn wait<S: Scalar>(&mut self, now: Instant, links: &mut Links<S>, ready: usize) {
        if now >= self.tell_again {
            self.tell_again = now + self.budget.progress();
            let lacking = Message::Lacking { ready: ready as u32, missing: self.missing(links) }.encode();
            for &node in self.readies.keys() {
                links.send(node, Post::urgent(lacking.clone()));
            }
        }
        self.alarm = self.tell_again;
    }

    /// Who is not ready, sorted.
    fn missing<S: Scalar>(&self, links: &Links<S>) -> Vec<NodeId> {
        let all = links.peers().map(|peer| peer.node).chain([links.identity.node]);
        all.filter(|node| !self.readies.contains_key(node)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn lacking<S: Scalar>(&mut self, now: Instant, links: &mut Links<S>, ready: usize) {
        let (missing, minimum) = (self.missing(links), self.minimum);
        links.record(now, Occurrence::Lacking { ready, minimum, missing });
        for (node, Announced { ready, .. }) in core::mem::take(&mut self.readies) {
            let abandon = Message::Abandon { turn: ready.member.turn, why: AbandonReason::TooFew };
            links.send(node, Post::urgent(abandon.encode()));
        }
        self.since = None;
    }

    fn propose<S: Scalar>(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        chain: &Chain<'_>,
        nodes: &[NodeId],
        behind: &BTreeSet<NodeId>,
    ) {
        let readies: Vec<&Ready> = nodes.iter().filter_map(|node| Some(&self.readies.get(node)?.ready)).collect();
        if readies.is_empty() {
            return;
        }
        let parents = parents(readies.iter().copied(), chain);
        let newest = parents.iter().map(|parent| parent.certificate.round).max();
        let readies: Vec<Ready> = readies.into_iter().cloned().collect();
        let attempt = self.next_attempt(links);
        let round = Round(newest.unwrap_or_default().0 + 1);
        let lengths = readies[0].lengths.clone();
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        let chunk = longest.div_ceil(nodes.len()).clamp(SMALLEST_CHUNK, self.chunk.max(SMALLEST_CHUNK));
        let members: Vec<Member> = readies.iter().map(|ready| ready.member.clone()).collect();
        let mut certificate = Certificate {
            attempt,
            round,
            algorithm: Algorithm::Direct,
            wire: certified::<S>(&readies[0].wire, &members, &parents),
            members,
            result: Digest::default(),
            parents,
        };
        for index in 0..certificate.members.len() {
            let member = &certificate.members[index];
            let missed = certificate.missed(member.parent);
            certificate.members[index] = match self.rejoin {
                Rejoin::HealFirst if behind.contains(&member.node) => member.healed(),
                Rejoin::ByProgress if missed > 0 => member.discounted(missed),
                _ => continue,
            };
        }
        let chunk = if certificate.is_coded() { BLOCK } else { chunk };
        let lineages = readies.iter().filter(|_| certificate.is_coded()).map(|ready| ready.lineage).collect();
        let proposal = Proposal { certificate, lengths, chunk: chunk as u32, lineages };
        links.counters.attempts += 1;
        links.record(now, Occurrence::Proposed { attempt, members: nodes.to_vec() });
        let propose = Message::Propose(proposal.clone()).encode();
        for &node in nodes {
            links.send(node, Post::urgent(propose.clone()));
        }
        self.running = Some(Running::new(proposal, now));
    }

    pub(super) fn next_attempt<S: Scalar>(&mut self, links: &Links<S>) -> Attempt {
        self.sequence += u64::from(!mutant!(SequenceReused));
        Attempt { sequence: self.sequence, proposer: links.identity.node, incarnation: links.identity.incarnation }
    }

    /// Who is ready, and what each said.
    pub(super) fn readies(&self) -> impl Iterator<Item = &Ready> {
        self.readies.values().map(|known| &known.ready)
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.readies.remove(&node);
        // The waiting of those that are left began when the first of them was ready.
        self.since = self.readies.values().map(|known| known.at).min();
    }
}
