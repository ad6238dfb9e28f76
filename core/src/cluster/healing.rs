//! Bringing back a node that fell behind: it takes over the newest committed state from a donor.
//!
//! Donors keep their last committed state for this, as they have trained past it. It comes in pieces that may
//! arrive in any order; when a donor is lost or stands still, the next one goes on where it stopped if it has
//! the same certificate. The state counts only if it has the digest that the certificate states.

use crate::cluster::budget::Budget;
use crate::cluster::certificate::{Certificate, CertificateId};
use crate::cluster::contribution::Contribution;
use crate::cluster::membership::Links;
use crate::cluster::message::Message;
use crate::cluster::outbox::{Post, Rank, Tail};
use crate::cluster::record::Occurrence;
use crate::collective::{Piece, pieces};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// Values per piece.
const CHUNK: u32 = 4096;

/// See the [module](self).
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Healing<S> {
    budget: Budget,
    active: bool,
    donors: VecDeque<NodeId>,
    donor: Option<NodeId>,
    deadline: Instant,
    /// Which state; the default asks for the newest.
    wanted: CertificateId,
    state: Option<Incoming<S>>,
}

#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Incoming<S> {
    certificate: Certificate,
    id: CertificateId,
    pieces: Vec<Piece>,
    there: Vec<bool>,
    state: Contribution<S>,
}

impl<S: Scalar> Healing<S> {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            budget,
            active: false,
            donors: VecDeque::new(),
            donor: None,
            deadline: Instant::FAR,
            wanted: CertificateId::default(),
            state: None,
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    pub(super) fn donor(&self) -> Option<NodeId> {
        self.donor
    }

    pub(super) fn timeout(&self) -> Instant {
        if mutant!(HealForever) {
            return Instant::FAR;
        }
        self.deadline
    }

    /// Begins with these donors, to be asked in this order for the state called `wanted`; the default is the newest.
    pub(super) fn start(&mut self, wanted: CertificateId, donors: Vec<NodeId>) {
        *self = Self { active: true, donors: donors.into(), wanted, ..Self::new(self.budget) };
    }

    /// Ends; answers whether there was anything to end.
    pub(super) fn stop(&mut self) -> bool {
        let active = self.active;
        *self = Self::new(self.budget);
        active
    }

    /// Asks the next donor that can be reached; answers whether there was one.
    pub(super) fn ask_next(&mut self, now: Instant, links: &mut Links<S>) -> bool {
        while let Some(donor) = self.donors.pop_front() {
            if donor == links.identity.node || !links.is_reachable(donor) {
                continue;
            }
            self.donor = Some(donor);
            self.deadline = now + self.budget.progress();
            self.request(links);
            links.record(now, Occurrence::Healing { donor });
            return true;
        }
        self.donor = None;
        self.deadline = Instant::FAR;
        false
    }

    /// Asks the donor for what is missing; for an offer if nothing is there yet.
    pub(super) fn request(&self, links: &mut Links<S>) {
        let Some(donor) = self.donor else { return };
        let (have, from) = self.state.as_ref().map_or_else(Default::default, |incoming| {
            let there = incoming.there.iter().take_while(|there| **there).count();
            (incoming.id, there as u32)
        });
        let request = Message::HealRequest { wanted: self.wanted, have, from };
        links.send(donor, Post::urgent(request.encode()));
    }

    /// Offers a state to `to`; if it asks for this very state, sends it from piece `first` on.
    pub(super) fn donate(
        links: &mut Links<S>,
        to: NodeId,
        last: Option<(&Arc<Certificate>, &Arc<Contribution<S>>)>,
        have: CertificateId,
        first: u32,
    ) {
        let Some((certificate, state)) = last else {
            links.send(to, Post::urgent(Message::HealRefuse.encode()));
            return;
        };
        let id = certificate.id();
        let segments = state.segments();
        if have != id {
            let offer = Message::HealOffer {
                certificate: Certificate::clone(certificate),
                iteration: state.iteration,
                lengths: segments.iter().map(|s| s.values.len() as u32).collect(),
                weights: segments.iter().map(|segment| segment.weight).collect(),
                chunk: CHUNK,
            };
            links.send(to, Post::urgent(offer.encode()));
            return;
        }
        let lengths: Vec<u32> = segments.iter().map(|s| s.values.len() as u32).collect();
        let counts: Vec<bool> = segments.iter().map(|s| s.weight > 0.0).collect();
        let pieces = pieces(&lengths, &counts, CHUNK as usize);
        if links.backlog(to) > pieces.len() {
            // It asks again and again; what it asked for is on its way.
            return;
        }
        for (index, piece) in pieces.into_iter().enumerate().skip(first as usize) {
            let index = index as u32;
            let head = Message::HealPiece { certificate: id, index, values: &[] }.encode();
            let source = Arc::clone(state);
            let tail = Tail::Part { source, segment: piece.segment, range: piece.range };
            links.send(to, Post { head, tail, attempt: None, rank: Rank::Bulk });
        }
    }

    /// Takes in what the donor has; `own` has the shape that the state will have.
    pub(super) fn offered(
        &mut self,
        now: Instant,
        certificate: Certificate,
        iteration: u64,
        own: &Contribution<S>,
        weights: &[f64],
        chunk: u32,
    ) {
        self.deadline = now + self.budget.progress();
        let id = certificate.id();
        if self.state.as_ref().is_some_and(|incoming| incoming.id == id) {
            return;
        }
        // Whatever there was of an older state is of no use any more.
        let lengths: Vec<u32> = own.segments().iter().map(|s| s.values.len() as u32).collect();
        let counts: Vec<bool> = weights.iter().map(|&weight| weight > 0.0).collect();
        let mut state = own.clone();
        state.iteration = iteration;
        for (segment, &weight) in state.segments_mut().iter_mut().zip(weights) {
            segment.weight = weight;
        }
        let pieces = pieces(&lengths, &counts, chunk as usize);
        let there = vec![false; pieces.len()];
        self.state = Some(Incoming { certificate, id, pieces, there, state });
    }

    /// Takes in a piece; answers whether it fits.
    pub(super) fn piece(&mut self, now: Instant, certificate: CertificateId, index: u32, values: &[u8]) -> bool {
        let Some(incoming) = &mut self.state else { return false };
        let index = index as usize;
        let Some(Piece { segment, range }) = incoming.pieces.get(index).cloned() else {
            return false;
        };
        if incoming.id != certificate || range.len() * S::BYTES != values.len() {
            return false;
        }
        let target = &mut incoming.state.segments_mut()[segment].values[range];
        for (value, bytes) in target.iter_mut().zip(values.chunks_exact(S::BYTES)) {
            *value = S::read_le(bytes);
        }
        incoming.there[index] = true;
        self.deadline = now + self.budget.progress();
        true
    }

    /// The whole state and its donor, once it is there; the caller compares digests.
    pub(super) fn take_whole(&mut self) -> Option<(NodeId, Certificate, Contribution<S>)> {
        if !self.state.as_ref()?.there.iter().all(|there| *there) {
            return None;
        }
        let Incoming { certificate, state, .. } = self.state.take()?;
        Some((self.donor?, certificate, state))
    }
}
