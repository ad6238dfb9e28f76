//! Steps that a node shares with others of its site, while members come and go.
//!
//! An *epoch* begins with a committed round: whoever of the site is in its certificate is a member until the next, and the
//! division of work is a function of the members alone. So owners are known by layer and epoch, and nobody hands them out.
//! The round also brings what a newcomer lacks (parameters, the optimiser's state) and what owners leave behind (factors).
//!
//! Within an epoch the letters of a step are exchanged directly. A member that is lost, has gone on or has failed ends it:
//!
//! - The step under way is *abandoned without effect*. Survivors could not complete it: what is missing of it is either
//!   gradients of a batch that nobody else has seen, or directions by decompositions that nobody else has.
//! - The last letters of a step may have reached one member and not another, so that the one is a step ahead. Before they
//!   part, survivors tell each other how far they are (`Halt`), and whoever is ahead goes back by the step. Nobody can be ahead
//!   by two: that takes the gradients of all.
//! - Survivors then contribute to the round that begins the next epoch, and call (`Call`) whoever of the site is elsewhere.
//!
//! A node that was started again has nothing and counts as good as nothing in the round; one that was cut off from the majority of its
//! epoch counts next to nothing. Both take over what the others have: they are healed, not trusted. Only where nobody else
//! is left does the state of such a node go on.

mod epoch;
mod note;
mod parting;

pub use self::epoch::SharingReport;

pub(super) use self::epoch::Sharing;

use self::epoch::Epoch;
use self::note::{HEADER, Note};
use self::parting::ELSEWHERE;
use super::{Participant, State, Training, TrainingError};
use crate::cluster::{AbandonReason, Certificate, CertificateId, Liveness, Status};
use crate::error::ErrorKind;
use crate::mutant::mutant;
use crate::placement::{Letters, Mail};
use crate::policy::{PolicyInput, Request};
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes of a letter's message at most, so that a note has room for it.
const LONGEST: usize = (60 << 10) - HEADER;
/// Bytes of notes kept for an epoch that has not begun here.
const AHEAD: usize = 64 << 20;
/// What a node that no epoch has confirmed counts: as good as nothing beside those that count, everything without them.
const UNTRUSTED: f64 = 1e-9;
/// Iterations by which such nodes are told apart best: one of them more counts for more than [`FRESH`] from the first on.
const FAR: f64 = 1e4;
/// What a node counts that has only begun: nothing beside anybody who has come further. Where all have only begun they have
/// the same.
const FRESH: f64 = 1e-30;
/// What a member counts in a round that divides the work anew. Whoever counts exactly 1 is in the midst of its epoch.
const DIVIDING: f64 = 1.0 - 1e-6;

impl<T: Training<S>, S: Scalar> Participant<T, S> {
    /// Shares every step with the nodes of `site`, this one among them; to be called before the first.
    ///
    /// # Panics
    /// If the training does not share steps.
    #[track_caller]
    pub fn share(mut self, now: Instant, site: Vec<NodeId>) -> Self {
        assert!(self.training.as_ref().is_some_and(T::is_shared), "this training shares no steps");
        self.node.set_status(Status::Training);
        // In the order in which the node knows its peers.
        let site: BTreeSet<NodeId> = site.into_iter().collect();
        self.sharing = Some(Sharing::new(site.into_iter().collect()));
        self.settle(now);
        self
    }

    /// What was shared so far, if steps are shared.
    pub fn shared(&self) -> Option<SharingReport> {
        Some(self.sharing.as_ref()?.report)
    }

    /// The certificate and the members of the present epoch of shared steps.
    pub fn epoch(&self) -> Option<(CertificateId, Vec<NodeId>)> {
        let epoch = self.sharing.as_ref()?.epoch.as_ref()?;
        Some((epoch.certificate, epoch.members.iter().map(|(node, _)| *node).collect()))
    }

    /// Whether a step may begin or go on.
    pub(super) fn may_step(&self) -> bool {
        self.sharing.as_ref().is_none_or(|sharing| sharing.epoch.is_some())
    }

    /// Whether the next piece of work goes on with a step.
    pub(super) fn is_midway(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.midway)
    }

    /// What a contribution consists of where steps are shared.
    pub(super) fn shared_request(&self, request: &Request) -> Request {
        let Some(sharing) = &self.sharing else { return *request };
        let weight = match (self.iteration, sharing.trusted, sharing.forming) {
            (0, ..) => FRESH,
            (_, true, false) => 1.0,
            (_, true, true) => DIVIDING,
            // Of several such nodes, the one that has come furthest.
            (far, false, _) => UNTRUSTED * libm::pow(far as f64 / (far as f64 + FAR), 4.0),
        };
        // Of whoever is not trusted, nothing goes on as it is.
        Request { weight, running: true, factors: sharing.forming || !sharing.trusted, optimiser: true }
    }

    /// Sends what a step has to exchange; answers whether there was anything.
    pub(super) fn exchange(&mut self) -> bool {
        let (Some(sharing), Some(training)) = (&mut self.sharing, &mut self.training) else { return false };
        let Some(letters) = training.letters() else {
            sharing.midway = false;
            return false;
        };
        let Some(epoch) = &sharing.epoch else { return false };
        sharing.midway = true;
        sharing.stage += 1;
        let weights = vec![1.0; epoch.members.len()];
        match Mail::new(epoch.me, &weights, letters, LONGEST) {
            Ok(mail) => {
                sharing.mail = Some(mail);
                self.state = State::Exchanging;
                let early = core::mem::take(&mut sharing.early);
                for (member, stage, message) in early {
                    if sharing.take(member, stage, &message).is_err() {
                        let node = epoch_member(&sharing.epoch, member);
                        sharing.gone.extend(node);
                    }
                }
            }
            Err(_) => {
                let reason = format!(
                    "step {}: gradients or directions are not finite and were not sent; a smaller learning rate or more \
                     damping may help",
                    self.iteration
                );
                self.failure = Some(TrainingError { kind: ErrorKind::Numeric, reason });
            }
        }
        true
    }

    /// Takes in a note of another's shared steps; answers whether it is one.
    pub(super) fn told(&mut self, from: NodeId, bytes: &[u8]) -> bool {
        let (Some(sharing), Some((note, id, number, content))) = (&mut self.sharing, Note::read(bytes)) else {
            return false;
        };
        if !sharing.site.contains(&from) {
            return true;
        }
        let place = |epoch: &Epoch| epoch.members.iter().position(|(node, _)| *node == from);
        let here = sharing.epoch.as_ref().filter(|epoch| epoch.id == id).and_then(place);
        match (note, here) {
            (Note::Letter, Some(member)) => {
                if sharing.take(member, number, content).is_err() {
                    sharing.gone.insert(from);
                }
            }
            (Note::Halt, Some(_)) => {
                sharing.halts.insert(from, number);
            }
            (Note::Call, _) => {
                let member = sharing.epoch.as_ref().filter(|epoch| place(epoch).is_some());
                match member {
                    // It may have called before it became a member.
                    Some(epoch) if number < epoch.certificate.round.0 => {}
                    Some(_) => {
                        sharing.gone.insert(from);
                    }
                    None => {
                        sharing.callers.insert(from);
                    }
                }
            }
            (Note::Letter | Note::Halt, None) => {
                let kept: usize = sharing.ahead.iter().map(|(_, bytes)| bytes.len()).sum();
                if kept + bytes.len() <= AHEAD {
                    sharing.ahead.push_back((from, bytes.to_vec()));
                }
                if note == Note::Halt && number != ELSEWHERE {
                    self.node.tell(from, &Note::Halt.write(id, ELSEWHERE, &[]));
                }
            }
        }
        true
    }

    /// Goes on with what is shared; answers whether anything changed.
    pub(super) fn share_on(&mut self, now: Instant) -> bool {
        self.look_around();
        let Some(sharing) = &mut self.sharing else { return false };
        if self.failure.is_some() && !matches!(self.state, State::Finished | State::Leaving) {
            self.leave(now);
            return true;
        }
        if matches!(self.state, State::Finished | State::Leaving) {
            self.decline();
            return false;
        }
        if self.training.is_none() {
            return false;
        }
        let broken = !sharing.gone.is_empty() || !sharing.halts.is_empty();
        match self.state {
            State::Training if sharing.epoch.is_none() => self.form(now),
            State::Training if broken || (!sharing.midway && !sharing.callers.is_empty()) => self.halt(),
            State::Exchanging if broken => self.halt(),
            State::Paused if broken => {
                self.policy.handle(now, PolicyInput::Interrupted);
                self.state = State::Training;
            }
            State::Exchanging => return self.carry(),
            State::Halting => return self.part(now),
            State::Waiting => return self.answer_halts(now),
            _ => return false,
        }
        true
    }

    /// Notes which members are lost and who has come.
    fn look_around(&mut self) {
        let Some(sharing) = &mut self.sharing else { return };
        for peer in sharing.site.iter().filter_map(|&node| self.node.peer(node)) {
            if !peer.is_reachable() {
                sharing.met.remove(&peer.node);
                sharing.called.remove(&peer.node);
                sharing.callers.remove(&peer.node);
            }
            let Some(epoch) = &sharing.epoch else { continue };
            match epoch.members.iter().find(|(node, _)| *node == peer.node) {
                Some((_, incarnation)) => {
                    let elsewhere = peer.last.round > epoch.certificate.round;
                    if !peer.is_reachable() || peer.incarnation != *incarnation || elsewhere {
                        sharing.gone.insert(peer.node);
                    }
                }
                None => {
                    let waits = peer.liveness == Liveness::Up && peer.quarantine.is_none();
                    if waits && peer.status == Status::Training && sharing.met.insert(peer.node) {
                        sharing.callers.insert(peer.node);
                    }
                }
            }
        }
        match self.state {
            State::Waiting if sharing.forming => self.call(),
            State::Halting => self.say_halt(),
            _ => {}
        }
    }

    /// Sends messages; hands the letters back once they are answered.
    fn carry(&mut self) -> bool {
        let (Some(sharing), Some(training)) = (&mut self.sharing, &mut self.training) else { return false };
        let (Some(epoch), Some(mail)) = (&sharing.epoch, &mut sharing.mail) else { return false };
        while let Some((to, message)) = mail.poll() {
            sharing.report.bytes += message.len() as u64;
            self.node.tell(epoch.members[to].0, &Note::Letter.write(epoch.id, sharing.stage, &message));
        }
        if !mail.is_whole() {
            return false;
        }
        let letters: Letters<S> = sharing.mail.take().map(Mail::finish).unwrap_or_default();
        training.answer(letters);
        self.state = State::Training;
        true
    }

    /// Begins the epoch of a committed round that this node has adopted.
    pub(super) fn begin_epoch(&mut self, certificate: &Certificate) {
        let (Some(sharing), Some(training)) = (&mut self.sharing, &mut self.training) else { return };
        let counts = |member: &&crate::cluster::Member| member.weights.first().is_some_and(|weight| *weight > 0.0);
        let team: Vec<_> = certificate.members.iter().filter(|member| sharing.site.contains(&member.node)).collect();
        let own = self.node.id();
        let Some(me) = team.iter().position(|member| member.node == own) else { return };
        let most = |weight: f64, members: &[&crate::cluster::Member]| {
            let counted = members.iter().filter(|member| member.weights.first().is_some_and(|own| *own > weight));
            counted.map(|member| member.iteration).max()
        };
        let everybody: Vec<_> = certificate.members.iter().filter(counts).collect();
        let iteration = most(0.5, &team).or_else(|| most(0.0, &team)).or_else(|| most(0.0, &everybody));
        let iteration = iteration.unwrap_or_else(|| training.iteration());
        // A round with somebody in the midst of an epoch brings nothing of the factors, and changes nothing of whose they are:
        // whoever is of another one has to begin it with all others.
        let midst = |member: &&crate::cluster::Member| member.weights.first() == Some(&1.0);
        let divides = !team.iter().any(midst);
        let goes_on = team.iter().all(midst);
        let done = self.iteration >= self.schedule.iterations;
        let id = certificate.id();
        let members = team.iter().map(|member| (member.node, member.incarnation)).collect::<Vec<_>>();
        if divides {
            training.divide(members.len(), me, iteration);
        } else if !done
            && (!goes_on || sharing.epoch.as_ref().is_none_or(|epoch| epoch.members != members))
            && !mutant!(ShareAbandoned)
        {
            // Who was lost in it leaves work behind, and who has come has none.
            sharing.part_ways();
            return;
        }
        sharing.begin(Epoch { certificate: id, id: id.digest.0, members, me });
        let ahead = core::mem::take(&mut sharing.ahead);
        for (from, bytes) in ahead {
            if Note::read(&bytes).is_some_and(|(_, epoch, ..)| epoch == id.digest.0) {
                self.told(from, &bytes);
            }
        }
    }

    /// Contributes once more before it finishes: whoever comes back later is healed with the end, not with the beginning of
    /// the last epoch. Answers whether it did.
    pub(super) fn says_farewell(&mut self, now: Instant) -> bool {
        let Some(sharing) = &mut self.sharing else { return false };
        if sharing.epoch.is_none() || core::mem::replace(&mut sharing.farewell, true) {
            return false;
        }
        self.contribute(now, &Request::default());
        true
    }

    /// Goes on after a contribution that came to nothing.
    pub(super) fn go_on_without(&mut self, why: AbandonReason) {
        let (Some(sharing), Some(training)) = (&mut self.sharing, &mut self.training) else { return };
        if why == AbandonReason::NotFinite {
            let reason = format!(
                "step {}: the parameters are not finite; a smaller learning rate or more damping may help",
                self.iteration
            );
            self.failure.get_or_insert(TrainingError { kind: ErrorKind::Numeric, reason });
            return;
        }
        if why != AbandonReason::Alone || !sharing.forming {
            return;
        }
        let trusted = sharing.trusted;
        training.divide(1, 0, training.iteration());
        let members = vec![(self.node.id(), self.node.incarnation())];
        sharing.begin(Epoch { certificate: self.node.last(), id: 0, members, me: 0 });
        // Nobody has confirmed what it has.
        sharing.trusted = trusted;
    }

    /// Takes note that the training has what it was healed with: the next round is to confirm it.
    pub(super) fn healed(&mut self) {
        if let Some(sharing) = &mut self.sharing {
            (sharing.epoch, sharing.trusted) = (None, false);
        }
    }
}

fn epoch_member(epoch: &Option<Epoch>, member: usize) -> Option<NodeId> {
    Some(epoch.as_ref()?.members.get(member)?.0)
}
