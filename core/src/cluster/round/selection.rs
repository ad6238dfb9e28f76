//! Who takes part in the next attempt, and what becomes of the others that are ready.

use crate::cluster::certificate::{CertificateId, Parent, Round};
use crate::cluster::membership::Links;
use crate::cluster::message::{Message, Ready};
use crate::cluster::mode::Mode;
use crate::cluster::outbox::Post;
use crate::cluster::record::AbandonReason;
use crate::cluster::rejoin::Rejoin;
use crate::cluster::round::proposer::{Announced, Proposer};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::transport::NodeId;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// What the proposer knows of its own history; it tells about the others' where it is one of them.
pub(super) struct Chain<'a> {
    pub(super) mode: Mode,
    pub(super) last: CertificateId,
    pub(super) ancestors: &'a BTreeSet<CertificateId>,
}

pub(super) struct Selection {
    pub(super) members: Vec<NodeId>,
    /// Those of the members that count nothing.
    pub(super) behind: BTreeSet<NodeId>,
    pub(super) excluded: Vec<(NodeId, Exclusion)>,
}

#[derive(Clone, Debug)]
pub(super) enum Exclusion {
    /// It goes on without a round.
    Abandon,
    /// It is healed by one of these.
    Heal(Vec<NodeId>),
}

impl Proposer {
    /// Who takes part: nodes of one shape that reach each other.
    ///
    /// Those that are to be healed first count nothing in the round and take its result; if that leaves too
    /// few for a round, they are healed by one of the others.
    pub(super) fn select(&self, chain: &Chain<'_>) -> Selection {
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

    pub(super) fn exclude<S: Scalar>(&mut self, links: &mut Links<S>, node: NodeId, how: Exclusion) {
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
}

/// The last certificates of these nodes, and which of them others of these descend from.
pub(super) fn parents<'a>(readies: impl Iterator<Item = &'a Ready> + Clone, chain: &Chain<'_>) -> Vec<Parent> {
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
