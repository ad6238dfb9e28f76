//! A member that fell behind: it takes over the newest committed state from a donor.

use crate::cluster::certificate::{Certificate, CertificateId};
use crate::cluster::healing::Healing;
use crate::cluster::membership::Links;
use crate::cluster::message::Message;
use crate::cluster::outbox::Post;
use crate::cluster::peer::Peer;
use crate::cluster::record::{AbandonReason, Occurrence};
use crate::cluster::rejoin::Rejoin;
use crate::cluster::round::entry::Phase;
use crate::cluster::round::{Rounds, is_of_type};
use crate::cluster::wire::Status;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

impl<S: Scalar> Rounds<S> {
    /// The proposer says that this node is behind and who can help.
    pub(super) fn told_to_heal(&mut self, now: Instant, links: &mut Links<S>, donors: Vec<NodeId>) {
        let Some(entry) = &mut self.entry else { return };
        if matches!(entry.phase, Phase::Ready) && !donors.is_empty() {
            entry.phase = Phase::Healing;
            links.status = Status::Healing;
            links.announce(now);
            self.healing.start(CertificateId::default(), donors);
            self.next_donor(now, links);
        }
    }

    /// Turns to peers that have done their iterations where nobody else can help this node on; answers whether it did.
    ///
    /// They contribute no more, so no round brings this node to where they are unless enough of those that still train are
    /// there as well. Without anything committed it would begin a history of its own beside theirs, if not alone then
    /// with others like it; and whoever is to be healed first waits for a round in vain once it has no company.
    pub(super) fn heal_from_finished(&mut self, now: Instant, links: &mut Links<S>, company: bool) -> bool {
        let nothing = links.last == CertificateId::default();
        if !nothing && (company || self.proposer.rejoin != Rejoin::HealFirst) {
            return false;
        }
        let trains = |peer: &&Peer| matches!(peer.status, Status::Training | Status::Healing);
        let reachable = links.peers().filter(|peer| peer.is_reachable());
        let holders = reachable.clone().filter(|peer| peer.last.round > links.last.round);
        let enough = reachable.filter(trains).count() + 1 >= self.proposer.minimum;
        if enough && holders.clone().any(|peer| trains(&peer)) {
            return false;
        }
        let own = links.identity.node;
        let finished = holders.filter(|peer| peer.status == Status::Finished);
        // The newest first; several that come back turn to different ones.
        let order = |peer: &Peer| (Reverse(peer.last), peer.node < own, peer.node);
        let donors: BTreeSet<_> = finished.map(order).collect();
        if donors.is_empty() || mutant!(LateAlone) {
            return false;
        }
        if let Some(entry) = &mut self.entry
            && let Some((proposer, _)) = entry.told.take()
        {
            let withdraw = Message::Withdraw { turn: entry.member.turn };
            links.send(proposer, Post::urgent(withdraw.encode()));
        }
        self.told_to_heal(now, links, donors.into_iter().map(|(.., node)| node).collect());
        true
    }

    pub(super) fn next_donor(&mut self, now: Instant, links: &mut Links<S>) {
        if self.healing.is_active() && !self.healing.ask_next(now, links) {
            self.abandon(now, links, AbandonReason::NoDonor);
        }
    }

    /// Gives what a node that is behind, or is to accept a certificate, asks for.
    pub(super) fn heal_requested(
        &self,
        links: &mut Links<S>,
        from: NodeId,
        wanted: CertificateId,
        have: CertificateId,
        first: u32,
    ) {
        let last = self.last.as_ref().map(|(certificate, state)| (certificate, state));
        let decided =
            self.votes.copy(self.votes.decided).filter(|(certificate, _)| certificate.round > links.last.round);
        let state = if wanted == CertificateId::default() { decided.or(last) } else { self.copy(wanted) };
        Healing::donate(links, from, state, have, first);
    }

    pub(super) fn heal_refused(&mut self, now: Instant, links: &mut Links<S>, from: NodeId) {
        if self.fetches_from(from) {
            self.next_holder(now, links);
        }
        if self.healing.donor() == Some(from) {
            self.next_donor(now, links);
        }
    }

    pub(super) fn heal_offered(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        certificate: Certificate,
        iteration: u64,
        lengths: &[u32],
        weights: &[f64],
        chunk: u32,
    ) {
        if self.fetch_offered(now, links, from, &certificate, iteration, lengths, weights, chunk)
            || self.healing.donor() != Some(from)
        {
            return;
        }
        let Some(entry) = &self.entry else { return };
        let segments = entry.contribution.segments();
        let fits = is_of_type::<S>(&certificate.wire)
            && certificate.round > links.last.round
            && chunk > 0
            && lengths.len() == segments.len()
            && weights.len() == segments.len()
            && lengths.iter().zip(segments).all(|(&len, s)| len as usize == s.values.len());
        if !fits {
            self.next_donor(now, links);
            return;
        }
        let own = Arc::clone(&entry.contribution);
        self.healing.offered(now, certificate, iteration, &own, weights, chunk);
        self.healing.request(links);
        self.heal_if_whole(now, links);
    }

    pub(super) fn heal_piece(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        certificate: CertificateId,
        index: u32,
        values: &[u8],
    ) {
        if self.fetch_piece(now, links, from, certificate, index, values) {
            return;
        }
        if self.healing.donor() == Some(from) {
            if !self.healing.piece(now, certificate, index, values) {
                links.counters.malformed += 1;
            }
            self.heal_if_whole(now, links);
        }
    }

    fn heal_if_whole(&mut self, now: Instant, links: &mut Links<S>) {
        let Some((donor, certificate, state)) = self.healing.take_whole() else { return };
        let (expected, found) = (certificate.result, state.digest());
        if expected != found && !mutant!(HealUnchecked) {
            links.record(now, Occurrence::HealRejected { donor, expected, found });
            self.next_donor(now, links);
            return;
        }
        self.take_over(now, links, Arc::new(certificate), Arc::new(state), donor);
    }
}
