//! A member that fell behind: it takes over the newest committed state from a donor.

use crate::cluster::certificate::{Certificate, CertificateId};
use crate::cluster::membership::Links;
use crate::cluster::node::Outcome;
use crate::cluster::record::{AbandonReason, Occurrence};
use crate::cluster::round::Rounds;
use crate::cluster::round::entry::Phase;
use crate::cluster::wire::Status;
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
            self.healing.start(donors);
            self.next_donor(now, links);
        }
    }

    pub(super) fn next_donor(&mut self, now: Instant, links: &mut Links<S>) {
        if self.healing.is_active() && !self.healing.ask_next(now, links) {
            self.abandon(now, links, AbandonReason::NoDonor);
        }
    }

    pub(super) fn heal_refused(&mut self, now: Instant, links: &mut Links<S>, from: NodeId) {
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
        if self.healing.donor() != Some(from) {
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
        if expected != found {
            links.record(now, Occurrence::HealRejected { donor, expected, found });
            self.next_donor(now, links);
            return;
        }
        let (certificate, state) = (Arc::new(certificate), Arc::new(state));
        let lost = (self.samples.0, self.samples.1);
        self.samples.0 = self.samples.1;
        links.counters.healed += 1;
        let healed = Occurrence::Healed { certificate: Arc::clone(&certificate), donor, lost };
        links.record(now, healed);
        self.adopt(links, &certificate, &state);
        self.forget_entry(now, links);
        self.outcomes.push_back(Outcome::Healed { certificate, state });
    }
}
