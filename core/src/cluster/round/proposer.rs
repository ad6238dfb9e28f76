//! What the lowest node that is up does for all: it collects who is ready, proposes, and decides.
//!
//! It need not contribute itself. It waits for everybody it sees training, but not for longer than the
//! budget allows from the first that is ready on; whoever was too slow is named in its records.

use crate::cluster::budget::Budget;
use crate::cluster::certificate::{Algorithm, Attempt, Certificate, CertificateId, Member, Parent, Round};
use crate::cluster::digest::Digest;
use crate::cluster::membership::Links;
use crate::cluster::message::{Message, Proposal, Ready};
use crate::cluster::mode::Mode;
use crate::cluster::node::Settings;
use crate::cluster::outbox::Post;
use crate::cluster::peer::{Liveness, Peer};
use crate::cluster::record::{AbandonReason, AbortReason, Occurrence};
use crate::cluster::rejoin::{Rejoin, Shortage};
use crate::cluster::round::recovery::{Acceptance, Recovery};
use crate::cluster::wire::Status;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
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
    mode: Mode,
    /// A majority of the configured world.
    pub(super) quorum: usize,
    /// How many nodes a round needs.
    pub(super) minimum: usize,
    shortage: Shortage,
    rejoin: Rejoin,
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
    sequence: u64,
    /// Who spoiled an attempt since the last commit and has not been ready since: nobody waits for it.
    left_out: BTreeSet<NodeId>,
    /// Who was last asked to heal somebody.
    donors: usize,
}

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Announced {
    pub(super) ready: Ready,
    at: Instant,
}

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Running {
    proposal: Proposal,
    done: BTreeMap<NodeId, Digest>,
    pub(super) moved: Instant,
    /// In strict mode, what all members are done with, and who has accepted it.
    pub(super) accepting: Option<Acceptance>,
    missing: BTreeMap<NodeId, Vec<NodeId>>,
}

impl Running {
    pub(super) fn attempt(&self) -> Attempt {
        self.proposal.certificate.attempt
    }

    fn has(&self, node: NodeId) -> bool {
        self.proposal.certificate.member(node).is_some()
    }
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
        if links.is_quarantined(from) {
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
        if votes.len() > 1 {
            // Where as many hold one as the other, nobody can tell which is right.
            let most = votes.values().copied().max();
            let tied = votes.values().filter(|&&votes| Some(votes) == most).count() > 1;
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
        let is_lower = |peer: &Peer| peer.takes_part() && peer.node < own;
        if links.peers().any(is_lower) {
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

    /// Who takes part: nodes of one shape that reach each other.
    ///
    /// Those that are to be healed first count nothing in the round and take its result; if that leaves too
    /// few for a round, they are healed by one of the others.
    fn select(&self, chain: &Chain<'_>) -> Selection {
        let mut fits: Vec<&Ready> = Vec::new();
        let mut excluded = Vec::new();
        for Announced { ready, .. } in self.readies.values() {
            let node = ready.member.node;
            let suits = fits.iter().all(|other| {
                ready.lengths == other.lengths
                    && ready.wire == other.wire
                    && !ready.unreachable.contains(&other.member.node)
                    && !other.unreachable.contains(&node)
            });
            if suits {
                fits.push(ready);
            } else {
                excluded.push((node, Exclusion::Abandon));
            }
        }
        let mut members: Vec<NodeId> = fits.iter().map(|ready| ready.member.node).collect();
        let mut behind = BTreeSet::new();
        if self.rejoin == Rejoin::HealFirst {
            let parents = parents(fits.iter().copied(), chain);
            let is_behind = |ready: &&&Ready| is_stale(&parents, ready.member.parent);
            behind = fits.iter().filter(is_behind).map(|ready| ready.member.node).collect();
        }
        if members.len() - behind.len() < self.minimum {
            members.retain(|node| !behind.contains(node));
            for node in core::mem::take(&mut behind) {
                excluded.push((node, Exclusion::Heal(members.clone())));
            }
        }
        Selection { members, behind, excluded }
    }

    fn exclude<S: Scalar>(&mut self, links: &mut Links<S>, node: NodeId, how: Exclusion) {
        let Some(Announced { ready, .. }) = self.readies.get(&node) else { return };
        let message = match how {
            Exclusion::Abandon => {
                let (turn, why) = (ready.member.turn, AbandonReason::Excluded);
                Message::Abandon { turn, why }
            }
            Exclusion::Heal(mut donors) => {
                // Joiners are spread over the donors.
                let first = self.donors % donors.len().max(1);
                donors.rotate_left(first);
                self.donors += 1;
                Message::Heal { newest: links.last, donors }
            }
        };
        links.send(node, Post::urgent(message.encode()));
        self.forget(node);
    }

    /// Whether to wait where too few are left: only as long as enough may still come.
    pub(super) fn waits<S: Scalar>(&self, links: &Links<S>) -> bool {
        let may_come = |peer: &&Peer| match peer.status {
            Status::Training | Status::Healing => true,
            Status::Observing => peer.liveness == Liveness::Unknown,
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
        let mut certificate = Certificate {
            attempt,
            round,
            members: readies.iter().map(|ready| ready.member.clone()).collect(),
            algorithm: Algorithm::Direct,
            wire: String::from(S::NAME),
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
        let proposal = Proposal { certificate, lengths, chunk: chunk as u32 };
        links.counters.attempts += 1;
        links.record(now, Occurrence::Proposed { attempt, members: nodes.to_vec() });
        let propose = Message::Propose(proposal.clone()).encode();
        for &node in nodes {
            links.send(node, Post::urgent(propose.clone()));
        }
        self.running =
            Some(Running { proposal, done: BTreeMap::new(), moved: now, missing: BTreeMap::new(), accepting: None });
    }

    /// Who is to be left out of the next attempt, as this one stands still: whom most members wait for, or
    /// else whoever has not said anything.
    fn blamed(&self) -> Vec<NodeId> {
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

    pub(super) fn next_attempt<S: Scalar>(&mut self, links: &Links<S>) -> Attempt {
        self.sequence += u64::from(!mutant!(SequenceReused));
        Attempt { sequence: self.sequence, proposer: links.identity.node, incarnation: links.identity.incarnation }
    }

    /// Who is ready, and what each said.
    pub(super) fn readies(&self) -> impl Iterator<Item = &Ready> {
        self.readies.values().map(|known| &known.ready)
    }

    /// Gives the running attempt up and tells all its members.
    fn abort<S: Scalar>(&mut self, now: Instant, links: &mut Links<S>, why: AbortReason, mut who: Vec<NodeId>) {
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

    pub(super) fn forget(&mut self, node: NodeId) {
        self.readies.remove(&node);
        // The waiting of those that are left began when the first of them was ready.
        self.since = self.readies.values().map(|known| known.at).min();
    }
}

/// What the proposer knows of its own history; it tells about the others' where it is one of them.
pub(super) struct Chain<'a> {
    pub(super) mode: Mode,
    pub(super) last: CertificateId,
    pub(super) ancestors: &'a BTreeSet<CertificateId>,
}

struct Selection {
    members: Vec<NodeId>,
    /// Those of the members that count nothing.
    behind: BTreeSet<NodeId>,
    excluded: Vec<(NodeId, Exclusion)>,
}

#[derive(Clone, Debug)]
enum Exclusion {
    /// It goes on without a round.
    Abandon,
    /// It is healed by one of these.
    Heal(Vec<NodeId>),
}

/// The last certificates of these nodes, and which of them others of these descend from.
fn parents<'a>(readies: impl Iterator<Item = &'a Ready> + Clone, chain: &Chain<'_>) -> Vec<Parent> {
    let heads: BTreeSet<CertificateId> = readies.clone().map(|ready| ready.member.parent).collect();
    let ancestors: BTreeSet<CertificateId> = readies.flat_map(|ready| ready.ancestors.iter().copied()).collect();
    let heads_contain_own = heads.contains(&chain.last);
    // In strict mode there is one history: whoever is not at its end is behind.
    let end = heads.last().map(|newest| newest.round).filter(|_| chain.mode == Mode::Strict);
    let started = heads.iter().any(|head| head.round > Round(0));
    heads
        .into_iter()
        .map(|certificate| Parent {
            certificate,
            stale: mutant!(StaleInvented)
                || ancestors.contains(&certificate)
                || Some(certificate.round) < end
                || (heads_contain_own && chain.ancestors.contains(&certificate))
                || (started && certificate == CertificateId::default()),
        })
        .collect()
}

fn is_stale(parents: &[Parent], certificate: CertificateId) -> bool {
    parents.iter().any(|parent| parent.certificate == certificate && parent.stale)
}
