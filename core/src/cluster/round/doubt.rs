//! A member that holds a result and has lost its proposer: it asks the others before it gives up.

use crate::cluster::certificate::{Attempt, Certificate};
use crate::cluster::membership::Links;
use crate::cluster::message::{Message, Verdict};
use crate::cluster::outbox::Post;
use crate::cluster::record::AbortReason;
use crate::cluster::round::Rounds;
use crate::cluster::round::entry::{Doubt, Entry, Phase};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::BTreeSet;
use alloc::vec;

impl<S: Scalar> Rounds<S> {
    /// Takes in what a member knows of the attempt this one is in doubt about.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        attempt: Attempt,
        verdict: Verdict,
    ) {
        if self.entry.as_ref().and_then(Entry::attempt) != Some(attempt) && !mutant!(CommitTwice) {
            return;
        }
        if let Verdict::Committed(certificate) = verdict {
            if certificate.attempt == attempt {
                self.commit(now, links, certificate);
            }
            return;
        }
        let Some(entry) = &mut self.entry else { return };
        match &mut entry.phase {
            Phase::Reducing { .. } if from == attempt.proposer && verdict == Verdict::Unknown => {
                self.give_up(now, links, AbortReason::Lost, vec![from]);
            }
            Phase::Done { doubt, .. } => {
                if from == attempt.proposer && verdict == Verdict::Pending {
                    *doubt = Doubt::None(now + self.budget.progress());
                } else if let Doubt::Asked(open, _) = doubt {
                    open.remove(&from);
                    self.resolve(now, links);
                }
            }
            _ => {}
        }
    }

    /// Asks everybody who may know whether the attempt was committed.
    pub(super) fn inquire(&mut self, now: Instant, links: &mut Links<S>) {
        let Some(entry) = &mut self.entry else { return };
        let Phase::Done { proposal, doubt, .. } = &mut entry.phase else { return };
        let Certificate { attempt, members, .. } = &proposal.certificate;
        let own = links.identity.node;
        let members = members.iter().map(|member| member.node).chain([attempt.proposer]);
        let open: BTreeSet<NodeId> = members.filter(|&node| node != own && links.is_reachable(node)).collect();
        let inquire = Message::Inquire { attempt: *attempt }.encode();
        for &node in &open {
            links.send(node, Post::urgent(inquire.clone()));
        }
        *doubt = Doubt::Asked(open, now + self.budget.inquiry());
        self.resolve(now, links);
    }

    /// Gives a doubtful attempt up once nobody is left who could know of its commit.
    pub(super) fn resolve(&mut self, now: Instant, links: &mut Links<S>) {
        let Some(entry) = &self.entry else { return };
        let Phase::Done { proposal, doubt: Doubt::Asked(open, until), .. } = &entry.phase else {
            return;
        };
        if open.is_empty() || now >= *until {
            if mutant!(DoubtApplies) {
                self.apply_unasked(now, links);
                return;
            }
            let proposer = proposal.certificate.attempt.proposer;
            self.give_up(now, links, AbortReason::InDoubt, vec![proposer]);
        }
    }
}
