//! Strict mode, as the proposer sees it: asking for acceptance, and settling what a lost proposer left open.
//!
//! The argument for its correctness stands in `strict`.

use crate::cluster::certificate::{Attempt, Certificate, CertificateId};
use crate::cluster::membership::Links;
use crate::cluster::message::Message;
use crate::cluster::outbox::Post;
use crate::cluster::record::Occurrence;
use crate::cluster::round::proposer::Proposer;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// An attempt whose only purpose is to settle what others left open.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Recovery {
    attempt: Attempt,
    promises: BTreeMap<NodeId, Promise>,
    finishing: Option<Acceptance>,
    moved: Instant,
}

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Promise {
    decided: CertificateId,
    accepted: Option<(Attempt, Certificate)>,
}

/// A certificate on its way to being committed, and who has accepted it.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Acceptance {
    pub(super) certificate: Certificate,
    pub(super) by: BTreeSet<NodeId>,
}

impl Acceptance {
    pub(super) fn new(certificate: Certificate) -> Self {
        Self { certificate, by: BTreeSet::new() }
    }
}

impl Proposer {
    /// When a recovery is given up unless something moves.
    pub(super) fn recovery_timeout(&self) -> Option<Instant> {
        self.recovery.as_ref().map(|recovery| recovery.moved + self.budget.progress())
    }

    /// Whether somebody that is ready has accepted what nobody that is ready knows to be decided.
    pub(super) fn is_open(&self) -> bool {
        let newest = self.readies().map(|ready| ready.member.parent.round).max().unwrap_or_default();
        self.readies().any(|ready| ready.accepted.round > newest)
    }

    /// Asks everybody for a promise, and for what they have accepted.
    pub(super) fn recover<S: Scalar>(&mut self, now: Instant, links: &mut Links<S>) {
        let own = links.identity.node;
        let reachable: Vec<NodeId> =
            links.peers().map(|peer| peer.node).filter(|&node| links.is_reachable(node)).chain([own]).collect();
        self.alarm = now + self.budget.report();
        if now < self.recover_again {
            self.alarm = self.recover_again;
            return;
        }
        self.recover_again = now + self.budget.inquiry();
        if reachable.len() < self.quorum {
            let missing = links.peers().map(|peer| peer.node).filter(|&node| !links.is_reachable(node)).collect();
            let (ready, minimum) = (reachable.len(), self.quorum);
            links.record(now, Occurrence::Lacking { ready, minimum, missing });
            return;
        }
        let attempt = self.next_attempt(links);
        links.record(now, Occurrence::Recovering { attempt });
        let prepare = Message::Prepare { attempt }.encode();
        for node in reachable {
            links.send(node, Post::urgent(prepare.clone()));
        }
        self.recovery = Some(Recovery { attempt, promises: BTreeMap::new(), finishing: None, moved: now });
    }

    /// Takes in a promise; with a majority of them, finishes the highest accepted certificate, if there is one.
    pub(super) fn promised<S: Scalar>(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        attempt: Attempt,
        decided: CertificateId,
        accepted: Option<(Attempt, Certificate)>,
    ) {
        let quorum = self.quorum;
        let Some(recovery) = self.recovery.as_mut().filter(|recovery| recovery.attempt == attempt) else { return };
        recovery.moved = now;
        recovery.promises.insert(from, Promise { decided, accepted });
        if let Some(finishing) = &recovery.finishing {
            let accept = recovery.accept(&finishing.certificate);
            links.send(from, Post::urgent(accept));
            return;
        }
        // Those that wait for this are heard, too: else what they have accepted would be found open again and again.
        let open = self.readies.values().filter(|known| known.ready.accepted != CertificateId::default());
        let all = open.map(|known| known.ready.member.node).all(|node| recovery.promises.contains_key(&node));
        if recovery.promises.len() < quorum || !all {
            return;
        }
        let decided = recovery.promises.values().map(|promise| promise.decided).max().unwrap_or_default();
        let highest = recovery.promises.values().filter_map(|promise| promise.accepted.as_ref());
        let highest = highest.max_by_key(|(attempt, certificate)| (certificate.round, *attempt));
        match highest {
            Some((_, certificate)) if certificate.round > decided.round && !mutant!(RecoveryForgets) => {
                let certificate = certificate.clone();
                let accept = recovery.accept(&certificate);
                for &node in recovery.promises.keys() {
                    links.send(node, Post::urgent(accept.clone()));
                }
                recovery.finishing = Some(Acceptance::new(certificate));
            }
            _ => self.nothing_open(links, decided),
        }
    }

    /// All that a majority has accepted is decided; lets everybody know who does not, and brings them there.
    fn nothing_open<S: Scalar>(&mut self, links: &mut Links<S>, decided: CertificateId) {
        let Some(Recovery { promises, .. }) = self.recovery.take() else { return };
        let news = Message::Decided { certificate: decided }.encode();
        let holders = |id: CertificateId| -> Vec<NodeId> {
            let known = |promise: &Promise| promise.decided == id;
            promises.iter().filter(|(_, promise)| known(promise)).map(|(&node, _)| node).collect()
        };
        let heal = Message::Heal { newest: decided, donors: holders(decided) }.encode();
        for (&node, promise) in promises.iter().filter(|(_, promise)| promise.decided.round < decided.round) {
            let holds = promise.accepted.as_ref().is_some_and(|(_, certificate)| certificate.id() == decided);
            links.send(node, Post::urgent(news.clone()));
            if !holds {
                links.send(node, Post::urgent(heal.clone()));
            }
            self.forget(node);
        }
    }

    /// Takes in that a node has made a certificate and its result durable; with a majority of them, it is committed.
    pub(super) fn accepted<S: Scalar>(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        attempt: Attempt,
    ) -> Option<Arc<Certificate>> {
        let quorum = self.quorum;
        if let Some(running) = self.running.as_mut().filter(|running| running.attempt() == attempt) {
            running.moved = now;
            let accepting = running.accepting.as_mut()?;
            accepting.by.insert(from);
            if accepting.by.len() < quorum {
                return None;
            }
            let certificate = self.running.take()?.accepting?.certificate;
            return Some(self.committed(links, certificate, &BTreeSet::new()));
        }
        let recovery = self.recovery.as_mut().filter(|recovery| recovery.attempt == attempt)?;
        recovery.moved = now;
        let finishing = recovery.finishing.as_mut()?;
        finishing.by.insert(from);
        if finishing.by.len() < quorum {
            return None;
        }
        let Recovery { promises, finishing, .. } = self.recovery.take()?;
        let others = promises.into_keys().collect();
        Some(self.committed(links, finishing?.certificate, &others))
    }

    /// Tells the members, and `others`, that a certificate is committed.
    pub(super) fn committed<S: Scalar>(
        &mut self,
        links: &mut Links<S>,
        certificate: Certificate,
        others: &BTreeSet<NodeId>,
    ) -> Arc<Certificate> {
        self.counted(&certificate.members);
        let commit = Message::Commit { certificate: certificate.clone() }.encode();
        let members = certificate.members.iter().map(|member| member.node);
        for node in members.chain(others.iter().copied()).collect::<BTreeSet<_>>() {
            links.send(node, Post::urgent(commit.clone()));
        }
        Arc::new(certificate)
    }

    /// Gives up a recovery that stands still or was refused; the next one has a higher attempt.
    pub(super) fn stop_recovery(&mut self, attempt: Attempt) {
        if self.recovery.as_ref().is_some_and(|recovery| recovery.attempt == attempt) {
            self.recovery = None;
        }
    }

    /// Whether a recovery is under way; one that stands still is given up.
    pub(super) fn is_recovering(&mut self, now: Instant) -> bool {
        if self.recovery_timeout().is_some_and(|timeout| now >= timeout) {
            self.recovery = None;
        }
        self.recovery.is_some()
    }
}

impl Recovery {
    /// The wish that this certificate be accepted.
    fn accept(&self, certificate: &Certificate) -> Vec<u8> {
        let holds =
            |promise: &Promise| promise.accepted.as_ref().is_some_and(|(_, other)| other.id() == certificate.id());
        let holders = self.promises.iter().filter(|(_, promise)| holds(promise)).map(|(&node, _)| node).collect();
        Message::Accept { attempt: self.attempt, certificate: certificate.clone(), holders }.encode()
    }
}
