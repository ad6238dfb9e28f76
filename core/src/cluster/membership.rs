//! Who is there: one link per peer, with its detector and streams.
//!
//! A peer is [`Up`](Liveness::Up) when it is heard *and* its frames show that it hears this node; every
//! header says so. Any frame is a sign of life; heartbeats go out only when there is nothing else to say.
//! Towards peers that are not up they go on as probes at half the rate, so that whoever returns is noticed.

use crate::cluster::budget::Budget;
use crate::cluster::certificate::{CertificateId, Incarnation};
use crate::cluster::counters::Counters;
use crate::cluster::detector::Detector;
use crate::cluster::inbox::{Arrival, Inbox};
use crate::cluster::outbox::{Outbox, Plan, Post};
use crate::cluster::peer::{Liveness, Peer};
use crate::cluster::quarantine::{Losses, Quarantine};
use crate::cluster::record::{Loss, Occurrence, Record};
use crate::cluster::wire::{self, Body, Frame, Header, Kind, RunId, Status};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// What happened to a peer, for those who decide what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Change {
    Up(NodeId),
    Down(NodeId),
}

/// Records kept for whoever takes them.
const RECORDS: usize = 1 << 16;
/// How many goodbyes each peer is sent, as any of them may be lost.
const GOODBYES: u8 = 3;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Link<S> {
    peer: Peer,
    detector: Detector,
    outbox: Outbox<S>,
    inbox: Inbox,
    beat: Instant,
    /// The start of the peer that is to be refused.
    refuse: Option<Incarnation>,
    goodbyes: u8,
    strange: bool,
    zombie: bool,
    losses: Losses,
}

impl<S: Scalar> Link<S> {
    fn reachable(&self) -> bool {
        matches!(self.peer.liveness, Liveness::Up | Liveness::Suspect)
    }
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Planned {
    /// This start of the peer.
    Refuse(Incarnation),
    Goodbye,
    Data(Plan),
    Acknowledge,
    Heartbeat,
}

/// Who this node is towards others.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Identity {
    pub(crate) run: RunId,
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
}

/// All links of a node, and its records and counters.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Links<S> {
    pub(crate) identity: Identity,
    pub(crate) budget: Budget,
    pub(crate) quarantine: Option<Quarantine>,
    pub(crate) counters: Counters,
    pub(crate) status: Status,
    pub(crate) last: CertificateId,
    pub(crate) records: VecDeque<Record>,
    pub(crate) changes: VecDeque<Change>,
    /// Messages to this node itself.
    pub(crate) own: VecDeque<Vec<u8>>,
    /// A later start of this node is known to somebody.
    pub(crate) zombie: bool,
    links: BTreeMap<NodeId, Link<S>>,
    cursor: NodeId,
    planned: Option<(Instant, NodeId, Planned)>,
    leaving: bool,
}

impl<S: Scalar> Links<S> {
    pub(crate) fn new(identity: Identity, budget: Budget, peers: &[NodeId], largest: usize, now: Instant) -> Self {
        let links = peers.iter().filter(|peer| **peer != identity.node).map(|&node| {
            let peer = Peer {
                node,
                incarnation: Incarnation(0),
                liveness: Liveness::Unknown,
                status: Status::Observing,
                quarantine: None,
                last: CertificateId::default(),
            };
            let link = Link {
                peer,
                detector: Detector::new(budget),
                outbox: Outbox::new(budget),
                inbox: Inbox::new(budget, largest),
                beat: now,
                refuse: None,
                goodbyes: 0,
                strange: false,
                zombie: false,
                losses: Losses::default(),
            };
            (node, link)
        });
        Self {
            links: links.collect(),
            cursor: identity.node,
            identity,
            budget,
            quarantine: None,
            counters: Counters::default(),
            status: Status::Observing,
            last: CertificateId::default(),
            records: VecDeque::new(),
            changes: VecDeque::new(),
            own: VecDeque::new(),
            zombie: false,
            planned: None,
            leaving: false,
        }
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.links.values().map(|link| &link.peer)
    }

    /// Whether frames to `node` may still arrive: it is up, suspected, or this node itself.
    pub(crate) fn is_reachable(&self, node: NodeId) -> bool {
        node == self.identity.node || self.links.get(&node).is_some_and(Link::reachable)
    }

    /// Whether `node` sits out because it comes and goes all the time.
    pub(crate) fn is_quarantined(&self, node: NodeId) -> bool {
        self.links.get(&node).is_some_and(|link| link.peer.quarantine.is_some())
    }

    /// The stream to `node` as it is now: a message sent earlier on another one may have been lost.
    pub(crate) fn stream(&self, node: NodeId) -> (Incarnation, u32) {
        self.links
            .get(&node)
            .map_or((self.identity.incarnation, 0), |link| (link.peer.incarnation, link.outbox.epoch()))
    }

    pub(crate) fn record(&mut self, at: Instant, what: Occurrence) {
        let Identity { node, incarnation, .. } = self.identity;
        if self.records.len() == RECORDS {
            self.records.pop_front();
            self.counters.records_dropped += 1;
        }
        self.records.push_back(Record { at, node, incarnation, what });
    }

    /// Sends a message; to a peer that cannot be reached it is dropped.
    pub(crate) fn send(&mut self, to: NodeId, post: Post<S>) {
        if to == self.identity.node {
            self.own.push_back(post.head);
        } else if let Some(link) = self.links.get_mut(&to)
            && link.reachable()
        {
            link.outbox.push(post);
            self.counters.messages_sent += 1;
        }
    }

    /// How many bulky messages wait for being sent to `node`.
    pub(crate) fn backlog(&self, node: NodeId) -> usize {
        self.links.get(&node).map_or(0, |link| link.outbox.backlog())
    }

    /// Gives up sending what belongs to attempts up to this one.
    pub(crate) fn cancel(&mut self, attempt: crate::cluster::certificate::Attempt) {
        for link in self.links.values_mut() {
            link.outbox.cancel(attempt);
        }
    }

    /// Lets everybody hear this node's status soon.
    pub(crate) fn announce(&mut self, now: Instant) {
        for link in self.links.values_mut() {
            link.beat = link.beat.min(now);
        }
    }

    /// Says goodbye to everybody who was met.
    pub(crate) fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            for link in self.links.values_mut() {
                link.outbox.reset();
                if link.peer.incarnation != Incarnation(0) && link.peer.liveness != Liveness::Left {
                    link.goodbyes = GOODBYES;
                }
            }
        }
    }

    pub(crate) fn has_left(&self) -> bool {
        self.leaving && self.links.values().all(|link| link.goodbyes == 0)
    }

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
        if header.from != from || header.to != self.identity.node || !self.links.contains_key(&from) {
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
        let link = self.links.get_mut(&from).expect("checked above");
        if link.peer.liveness == Liveness::Left {
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
        let link = self.links.get_mut(&from).expect("checked above");
        link.outbox.acknowledge(now, header.acknowledged);
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
        if let Some(link) = self.links.get_mut(&from)
            && !core::mem::replace(&mut link.strange, true)
        {
            self.record(now, Occurrence::Stranger { peer: from });
        }
    }

    /// Compares incarnations: refuses an earlier start, takes over a later one.
    fn admit(&mut self, now: Instant, header: &Header) -> bool {
        let from = header.from;
        let link = self.links.get_mut(&from).expect("the caller has checked it");
        let known = link.peer.incarnation;
        if header.incarnation < known && !mutant!(ZombieAccepted) {
            link.refuse = Some(header.incarnation);
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
                let link = self.links.get_mut(&from).expect("still there");
                link.outbox.reset();
            }
            let budget = self.budget;
            let link = self.links.get_mut(&from).expect("still there");
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
        let link = self.links.get_mut(&from).expect("the caller has checked it");
        let silence = core::time::Duration::from_micros(u64::from(heard));
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
            }
            _ => {}
        }
    }

    fn lose(&mut self, now: Instant, node: NodeId, why: Loss) {
        let Some(link) = self.links.get_mut(&node) else {
            return;
        };
        let was = link.peer.liveness;
        link.peer.liveness = if why == Loss::Left { Liveness::Left } else { Liveness::Down };
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
        if let Some(link) = self.links.get_mut(&node) {
            if up {
                link.beat = link.beat.min(now);
            } else if link.reachable() {
                self.lose(now, node, Loss::Reported);
            }
        }
    }

    /// Judges silences and finds frames to be sent again.
    pub(crate) fn wake(&mut self, now: Instant) {
        let mut silent = Vec::new();
        let mut readmitted = Vec::new();
        for (&node, link) in &mut self.links {
            link.outbox.wake(now);
            if link.peer.quarantine.is_some_and(|until| until <= now) {
                link.peer.quarantine = None;
                readmitted.push(node);
            }
            if !link.reachable() {
                continue;
            }
            if now >= link.detector.down_at() {
                silent.push((node, None));
            } else if link.peer.liveness == Liveness::Up && now >= link.detector.suspect_at() {
                link.peer.liveness = Liveness::Suspect;
                let heard = link.detector.heard().unwrap_or(now);
                silent.push((node, Some(now.since(heard))));
            }
        }
        for peer in readmitted {
            self.record(now, Occurrence::Readmitted { peer });
            self.changes.push_back(Change::Up(peer));
        }
        for (peer, silence) in silent {
            match silence {
                Some(silent) => self.record(now, Occurrence::Suspect { peer, silent }),
                None => self.lose(now, peer, Loss::Silent),
            }
        }
    }

    pub(crate) fn timeout(&self) -> Instant {
        let mut earliest = Instant::FAR;
        if self.zombie || self.leaving {
            // What is left to be said is said at once.
            return earliest;
        }
        for link in self.links.values() {
            if link.peer.liveness == Liveness::Left {
                continue;
            }
            earliest = earliest.min(link.beat);
            earliest = earliest.min(link.peer.quarantine.unwrap_or(Instant::FAR));
            if link.reachable() {
                let silence = if link.peer.liveness == Liveness::Up {
                    link.detector.suspect_at()
                } else {
                    link.detector.down_at()
                };
                earliest = earliest.min(silence).min(link.inbox.due()).min(link.outbox.timeout());
            }
        }
        earliest
    }

    pub(crate) fn poll(&mut self, now: Instant, max_frame: usize) -> Option<(NodeId, usize)> {
        self.planned = None;
        // Peers take turns, so that a long message to one does not hold up the others.
        let after = self.links.range((core::ops::Bound::Excluded(self.cursor), core::ops::Bound::Unbounded));
        let before = self.links.range(..=self.cursor);
        for (&node, link) in after.chain(before) {
            if let Some(planned) = self.plan(now, link, max_frame) {
                let len = match planned {
                    Planned::Refuse(_) => wire::HEADER + 8,
                    Planned::Goodbye | Planned::Acknowledge => wire::HEADER,
                    Planned::Heartbeat => wire::HEADER + 16,
                    Planned::Data(Plan { len: 0, .. }) => wire::HEADER + 12,
                    Planned::Data(plan) => wire::HEADER + wire::SEGMENT + plan.len as usize,
                };
                self.planned = Some((now, node, planned));
                return Some((node, len));
            }
        }
        None
    }

    fn plan(&self, now: Instant, link: &Link<S>, max_frame: usize) -> Option<Planned> {
        if let Some(start) = link.refuse {
            return Some(Planned::Refuse(start));
        }
        if self.zombie {
            return None;
        }
        if link.goodbyes > 0 {
            return Some(Planned::Goodbye);
        }
        if self.leaving || link.peer.liveness == Liveness::Left {
            return None;
        }
        if link.reachable() {
            if let Some(plan) = link.outbox.plan(max_frame - wire::HEADER - wire::SEGMENT) {
                return Some(Planned::Data(plan));
            }
            if link.inbox.due() <= now {
                return Some(Planned::Acknowledge);
            }
        }
        (link.beat <= now).then_some(Planned::Heartbeat)
    }

    pub(crate) fn fill(&mut self, target: &mut [u8]) {
        let Some((now, node, planned)) = self.planned.take() else {
            return;
        };
        let status = self.status;
        let last = self.last;
        let Identity { run, node: from, incarnation } = self.identity;
        let Some(link) = self.links.get_mut(&node) else {
            return;
        };
        let heard = link
            .detector
            .heard()
            .map_or(u32::MAX, |heard| u32::try_from(now.since(heard).as_micros()).unwrap_or(u32::MAX - 1));
        let (kind, body, len) = match planned {
            Planned::Refuse(_) => (Kind::Refuse, Body::Refuse { known: link.peer.incarnation }, 0),
            Planned::Goodbye => (Kind::Goodbye, Body::Goodbye, 0),
            Planned::Acknowledge => (Kind::Acknowledge, Body::Acknowledge, 0),
            Planned::Heartbeat => (Kind::Heartbeat, Body::Heartbeat { last }, 0),
            Planned::Data(Plan { len: 0, place, .. }) => (Kind::Cancel, Body::Cancel { place }, 0),
            Planned::Data(Plan { place, offset, len, total, attempt, .. }) => {
                (Kind::Segment, Body::Segment { place, offset, total, attempt, data: &[] }, len)
            }
        };
        let to_incarnation = match planned {
            // The zombie believes only what names it.
            Planned::Refuse(start) => start,
            _ => link.peer.incarnation,
        };
        let header = Header {
            kind,
            status,
            run,
            from,
            to: node,
            incarnation,
            to_incarnation,
            heard,
            acknowledged: link.inbox.acknowledged(),
        };
        let outbox = &link.outbox;
        wire::encode_with(&Frame { header, body }, len as usize, target, |place| {
            if let Planned::Data(plan) = &planned {
                outbox.write(plan, place);
            }
        });
        self.counters.sent[kind as usize].count(target.len());
        if let Planned::Data(Plan { again: true, .. }) = planned {
            self.counters.retransmitted.count(target.len());
        }
        self.moved_on(now, node, &planned);
    }

    pub(crate) fn discard(&mut self) {
        if let Some((now, node, planned)) = self.planned.take() {
            self.moved_on(now, node, &planned);
        }
    }

    fn moved_on(&mut self, now: Instant, node: NodeId, planned: &Planned) {
        self.cursor = node;
        let heartbeat = self.budget.heartbeat();
        let Some(link) = self.links.get_mut(&node) else {
            return;
        };
        match planned {
            Planned::Refuse(_) => {
                link.refuse = None;
                return;
            }
            Planned::Goodbye => link.goodbyes -= 1,
            Planned::Data(plan) => link.outbox.sent(now, plan),
            Planned::Acknowledge | Planned::Heartbeat => {}
        }
        link.inbox.told();
        link.beat = now + if link.reachable() { heartbeat } else { 2 * heartbeat };
    }
}
