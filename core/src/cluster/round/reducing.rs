//! An attempt in which values move, until this node holds the whole result.

use crate::cluster::certificate::Attempt;
use crate::cluster::membership::Links;
use crate::cluster::message::Message;
use crate::cluster::outbox::{Post, Rank, Tail};
use crate::cluster::record::Occurrence;
use crate::cluster::round::entry::{Doubt, Phase};
use crate::cluster::round::{Early, Rounds};
use crate::collective::{Fault, Load, Piece};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::sync::Arc;

impl<S: Scalar> Rounds<S> {
    /// Takes in a piece of a reduction.
    pub(super) fn piece(
        &mut self,
        now: Instant,
        links: &mut Links<S>,
        from: NodeId,
        attempt: Attempt,
        reduced: bool,
        index: u32,
        values: &[u8],
    ) {
        let Some(entry) = &mut self.entry else { return };
        if attempt > self.heard {
            // The proposal is still under way. Nobody sends more than the contribution's size twice over.
            let bytes = |early: &Early| early.values.len() + 64;
            let held: usize = self.early.iter().map(bytes).sum();
            let bound = (entry.contribution.values() * S::BYTES + 4096) * self.peers.max(1) * 2;
            if held + values.len() <= bound {
                let values = values.to_vec();
                self.early.push_back(Early { attempt, from, reduced, index, values });
            }
            return;
        }
        let Phase::Reducing { proposal, direct, moved, fresh, .. } = &mut entry.phase else {
            return;
        };
        let certificate = &proposal.certificate;
        if certificate.attempt != attempt && !mutant!(OldAttempt) {
            return;
        }
        let place = certificate.members.binary_search_by_key(&from, |member| member.node);
        let Ok(place) = place else { return };
        match direct.receive(place, reduced, index, values) {
            Ok(()) => {
                if mutant!(OwnerForged) && reduced {
                    let forged = Message::Piece { attempt, reduced, index, values }.encode();
                    for member in &certificate.members {
                        links.send(member.node, Post::urgent(forged.clone()));
                    }
                }
                *moved = now;
                *fresh = true;
                entry.deadline = now + self.budget.total();
                self.pump(now, links);
            }
            Err(Fault::Shape(_)) => links.counters.malformed += 1,
            Err(Fault::NotFinite(who)) => {
                let who = certificate.members[who].node;
                let failed = Message::Failed { attempt, who };
                links.send(attempt.proposer, Post::urgent(failed.encode()));
            }
        }
    }

    /// Sends what the reduction wants sent; says so when it is whole.
    pub(super) fn pump(&mut self, now: Instant, links: &mut Links<S>) {
        let Some(entry) = &mut self.entry else { return };
        let Phase::Reducing { proposal, direct, .. } = &mut entry.phase else { return };
        let attempt = proposal.certificate.attempt;
        while let Some(parcel) = direct.poll() {
            let (reduced, index) = (parcel.reduced, parcel.index);
            let head = |values: &[u8]| Message::Piece { attempt, reduced, index, values }.encode();
            let (head, tail) = match direct.load(&parcel) {
                Load::Own(Piece { segment, range }) => {
                    (head(&[]), Tail::Part { source: Arc::clone(&entry.contribution), segment, range })
                }
                Load::Made(values) => (head(&[]), Tail::Whole(values)),
                Load::Coded(bytes) => (head(&bytes), Tail::None),
            };
            let to = proposal.certificate.members[parcel.to].node;
            links.send(to, Post { head, tail, attempt: Some(attempt), rank: Rank::Bulk });
        }
        if !direct.is_whole() {
            return;
        }
        let Phase::Reducing { proposal, direct, .. } = core::mem::replace(&mut entry.phase, Phase::Ready) else {
            return;
        };
        let (mut average, lost) = direct.finish_telling();
        let iterations = proposal.certificate.members.iter().map(|member| member.iteration);
        average.iteration = iterations.max().unwrap_or(average.iteration);
        let result = average.digest();
        if let Some(telling) = &mut entry.telling {
            telling.concluded(result, lost);
        }
        let doubt = Doubt::None(now + self.budget.progress());
        entry.phase = Phase::Done { proposal, average: Arc::new(average), result, doubt };
        links.record(now, Occurrence::Done { attempt, result });
        // Everybody's Done is also a majority's promise.
        self.say_when_promised(now, links, attempt.proposer, &Message::Done { attempt, result });
        if mutant!(ApplyAtDone) {
            self.apply_unasked(now, links);
        }
    }
}
