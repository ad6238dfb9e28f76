//! What a frame says of its sender: which start of it that is, whether it hears this node, whether it is up.

use super::Links;
use crate::cluster::certificate::Incarnation;
use crate::cluster::detector::Detector;
use crate::cluster::inbox::Arrival;
use crate::cluster::membership::Change;
use crate::cluster::peer::Liveness;
use crate::cluster::record::{Loss, Occurrence};
use crate::cluster::wire::{self, Body, Frame, Header, Kind};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::borrow::Cow;

impl<S: Scalar> Links<S> {
    /// Takes in a frame; answers with the message it completes.
    pub(crate) fn receive<'a>(&mut self, now: Instant, from: NodeId, bytes: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let frame = match wire::decode(bytes) {
            Ok(frame) => frame,
            Err(wire::WireError::Version { .. }) => {
                self.stranger(now, from);
                return None;
            }
            Err(_) => {
                self.counters.malformed += 1;
                return None;
            }
        };
        let Frame { header, body } = frame;
        if header.run != self.identity.run {
            self.stranger(now, from);
            return None;
        }
        if header.from != from || header.to != self.identity.node || self.links.get(from).is_none() {
            self.counters.refused += 1;
            return None;
        }
        if !self.admit(now, &header) {
            self.counters.refused += 1;
            return None;
        }
        self.counters.received[header.kind as usize].count(bytes.len());
        if let Body::Refuse { known } = body {
            self.refused(now, from, &header, known);
            return None;
        }
        let link = self.links.get_mut(from).expect("checked above");
        if header.incarnation <= link.departed {
            return None;
        }
        if header.kind == Kind::Goodbye {
            link.peer.status = header.status;
            self.lose(now, from, Loss::Left);
            return None;
        }
        link.detector.hear(now);
        link.peer.status = header.status;
        if let Body::Heartbeat { last } = body {
            link.peer.last = last;
        }
        if header.to_incarnation != self.identity.incarnation {
            // It has not heard this start yet. It lives, but what it says was meant for an earlier one.
            link.beat = link.beat.min(now);
            return None;
        }
        self.judge_contact(now, from, header.heard);
        let link = self.links.get_mut(from).expect("checked above");
        link.outbox.acknowledge(now, header.acknowledged, Duration::from_micros(u64::from(header.heard)));
        let arrival = match body {
            Body::Segment { place, offset, total, data, .. } => link.inbox.segment(now, place, offset, total, data),
            Body::Cancel { place } => link.inbox.cancel(now, place),
            _ => return None,
        };
        match arrival {
            Arrival::Message(message) => {
                self.counters.messages_received += 1;
                return Some(message);
            }
            Arrival::Doubled => self.counters.doubled += 1,
            Arrival::Overflow => self.counters.overflowed += 1,
            Arrival::Taken => {}
        }
        None
    }

    fn stranger(&mut self, now: Instant, from: NodeId) {
        self.counters.refused += 1;
        if let Some(link) = self.links.get_mut(from)
            && !core::mem::replace(&mut link.strange, true)
        {
            self.record(now, Occurrence::Stranger { peer: from });
        }
    }

    /// Compares incarnations: refuses an earlier start, takes over a later one.
    fn admit(&mut self, now: Instant, header: &Header) -> bool {
        let from = header.from;
        let link = self.links.get_mut(from).expect("the caller has checked it");
        let known = link.peer.incarnation;
        if header.incarnation < known && !mutant!(ZombieAccepted) {
            // A refusal is not answered by another: two former selves of two nodes would never come to an end.
            if header.kind != Kind::Refuse {
                link.refuse = Some(header.incarnation);
            }
            if !core::mem::replace(&mut link.zombie, true) {
                let incarnation = header.incarnation;
                self.record(now, Occurrence::ZombieRefused { peer: from, incarnation, known });
            }
            return false;
        }
        if header.incarnation > known || (mutant!(ZombieAccepted) && header.incarnation < known) {
            if known != Incarnation(0) {
                if link.reachable() {
                    self.lose(now, from, Loss::Replaced);
                }
                let link = self.links.get_mut(from).expect("still there");
                link.outbox.reset();
            }
            let budget = self.budget;
            let link = self.links.get_mut(from).expect("still there");
            if !mutant!(IncarnationKept) {
                link.inbox = link.inbox.anew();
            }
            link.detector = Detector::new(budget);
            link.peer.incarnation = header.incarnation;
            link.peer.liveness = Liveness::Unknown;
            link.zombie = false;
            link.goodbyes = 0;
            link.beat = now;
        }
        true
    }

    fn refused(&mut self, now: Instant, from: NodeId, header: &Header, known: Incarnation) {
        let about_this_start = header.to_incarnation == self.identity.incarnation;
        if about_this_start && known > self.identity.incarnation && !self.zombie {
            self.zombie = true;
            self.record(now, Occurrence::Refused { by: from, known });
        }
    }

    /// Judges by what the peer says it has heard whether frames reach it.
    fn judge_contact(&mut self, now: Instant, from: NodeId, heard: u32) {
        let link = self.links.get_mut(from).expect("the caller has checked it");
        let silence = Duration::from_micros(u64::from(heard));
        match link.peer.liveness {
            Liveness::Up | Liveness::Suspect if silence > self.budget.down() => {
                self.lose(now, from, Loss::Deaf);
            }
            Liveness::Suspect => link.peer.liveness = Liveness::Up,
            Liveness::Unknown | Liveness::Down if silence <= self.budget.suspect() => {
                link.peer.liveness = Liveness::Up;
                link.beat = now;
                let incarnation = link.peer.incarnation;
                let losses = link.losses;
                let cool_down = self.quarantine.and_then(|rule| losses.cool_down(self.budget, rule));
                link.peer.quarantine = cool_down.map(|cool_down| now + cool_down);
                self.record(now, Occurrence::Up { peer: from, incarnation });
                if let Some(cool_down) = cool_down {
                    self.record(now, Occurrence::Quarantined { peer: from, losses: losses.count, cool_down });
                }
                self.changes.push_back(Change::Up(from));
                self.tell_departures(from);
            }
            _ => {}
        }
    }

    pub(super) fn lose(&mut self, now: Instant, node: NodeId, why: Loss) {
        let Some(link) = self.links.get_mut(node) else {
            return;
        };
        let was = link.peer.liveness;
        let left = why == Loss::Left && !mutant!(GoodbyeForgotten);
        if left {
            link.departed = link.peer.incarnation;
        }
        link.peer.liveness = match was {
            // Both may have started anew and hear of each other's former starts only; one of them has to speak first.
            Liveness::Unknown if left => was,
            _ if left => Liveness::Left,
            _ => Liveness::Down,
        };
        if !matches!(was, Liveness::Up | Liveness::Suspect) {
            return;
        }
        link.outbox.reset();
        link.peer.quarantine = None;
        if let Some(rule) = self.quarantine
            && why != Loss::Left
        {
            link.losses.note(now, self.budget, rule);
        }
        self.record(now, Occurrence::Down { peer: node, why });
        self.changes.push_back(Change::Down(node));
    }

    /// Takes in the transport's own news.
    pub(crate) fn report(&mut self, now: Instant, node: NodeId, up: bool) {
        if let Some(link) = self.links.get_mut(node) {
            if up {
                link.beat = link.beat.min(now);
            } else if link.reachable() {
                self.lose(now, node, Loss::Reported);
            }
        }
    }
}
