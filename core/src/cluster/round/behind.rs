//! A member that fell behind: it takes over the newest committed state from a donor.

use crate::cluster::certificate::{Certificate, CertificateId};
use crate::cluster::healing::Healing;
use crate::cluster::membership::Links;
use crate::cluster::record::{AbandonReason, Occurrence};
use crate::cluster::round::Rounds;
use crate::cluster::round::entry::Phase;
use crate::cluster::wire::Status;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::sync::Arc;
use alloc::vec::Vec;

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
        let fits = certificate.wire == S::NAME
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
