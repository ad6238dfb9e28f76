//! Who is there: one link per peer, with its detector and streams.
//!
//! A peer is [`Up`](Liveness::Up) when it is heard *and* its frames show that it hears this node; every
//! header says so. Any frame is a sign of life; heartbeats go out only when there is nothing else to say.
//! Towards peers that are not up they go on as probes at half the rate, so that whoever returns is noticed.

mod contact;
mod deadlines;
mod departure;
mod roster;
mod sending;

use crate::cluster::budget::Budget;
use crate::cluster::certificate::{CertificateId, Incarnation};
use crate::cluster::counters::Counters;
use crate::cluster::detector::Detector;
use crate::cluster::inbox::Inbox;
use crate::cluster::outbox::{Outbox, Post};
use crate::cluster::peer::{Liveness, Peer};
use crate::cluster::quarantine::{Losses, Quarantine};
use crate::cluster::record::{Loss, Occurrence, Record};
use crate::cluster::wire::{RunId, Status};
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use roster::Roster;

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
    /// The transport has no room for frames to it; whoever drives this node tries again.
    full: bool,
    /// The start of the peer that is to be refused.
    refuse: Option<Incarnation>,
    goodbyes: u8,
    /// The highest start of the peer that is known to have left; 0 if none.
    departed: Incarnation,
    strange: bool,
    zombie: bool,
    losses: Losses,
}

impl<S: Scalar> Link<S> {
    /// One to a peer that was never heard.
    fn new(node: NodeId, budget: Budget, largest: usize, now: Instant) -> Self {
        let peer = Peer {
            node,
            incarnation: Incarnation(0),
            liveness: Liveness::Unknown,
            status: Status::Observing,
            quarantine: None,
            last: CertificateId::default(),
        };
        Self {
            peer,
            detector: Detector::new(budget),
            outbox: Outbox::new(budget),
            inbox: Inbox::new(budget, largest),
            beat: now,
            full: false,
            refuse: None,
            goodbyes: 0,
            departed: Incarnation(0),
            strange: false,
            zombie: false,
            losses: Losses::default(),
        }
    }

    fn reachable(&self) -> bool {
        self.peer.is_reachable()
    }
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
    /// How many nodes this one waits for, itself included; none where it goes on without a round.
    pub(crate) waits_for: Option<usize>,
    pub(crate) counters: Counters,
    pub(crate) status: Status,
    pub(crate) last: CertificateId,
    pub(crate) records: VecDeque<Record>,
    pub(crate) changes: VecDeque<Change>,
    /// Messages to this node itself.
    pub(crate) own: VecDeque<Vec<u8>>,
    /// A later start of this node is known to somebody.
    pub(crate) zombie: bool,
    links: Roster<S>,
    cursor: NodeId,
    planned: Option<(Instant, NodeId, sending::Planned)>,
    leaving: bool,
}

impl<S: Scalar> Links<S> {
    pub(crate) fn new(identity: Identity, budget: Budget, peers: &[NodeId], largest: usize, now: Instant) -> Self {
        let others = peers.iter().filter(|peer| **peer != identity.node);
        let links = others.map(|&node| (node, Link::new(node, budget, largest, now)));
        Self {
            links: Roster::new(links.collect()),
            cursor: identity.node,
            identity,
            budget,
            quarantine: None,
            waits_for: None,
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

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> + Clone {
        self.links.iter().map(|link| &link.peer)
    }

    pub(crate) fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.links.get(node).map(|link| &link.peer)
    }

    /// The lowest peer that takes part.
    pub(crate) fn lowest(&self) -> Option<NodeId> {
        // They are in the order of their names.
        self.peers().find(|peer| peer.takes_part()).map(|peer| peer.node)
    }

    /// Whether frames to `node` may still arrive: it is up, suspected, or this node itself.
    pub(crate) fn is_reachable(&self, node: NodeId) -> bool {
        node == self.identity.node || self.links.get(node).is_some_and(Link::reachable)
    }

    /// Whether `node` sits out because it comes and goes all the time.
    pub(crate) fn is_quarantined(&self, node: NodeId) -> bool {
        self.links.get(node).is_some_and(|link| link.peer.quarantine.is_some())
    }

    /// The stream to `node` as it is now: a message sent earlier on another one may have been lost.
    pub(crate) fn stream(&self, node: NodeId) -> (Incarnation, u32) {
        self.links.get(node).map_or((self.identity.incarnation, 0), |link| (link.peer.incarnation, link.outbox.epoch()))
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
        } else if let Some(link) = self.links.get_mut(to)
            && link.reachable()
        {
            link.outbox.push(post);
            self.counters.messages_sent += 1;
        }
    }

    /// How many bulky messages wait for being sent to `node`.
    pub(crate) fn backlog(&self, node: NodeId) -> usize {
        self.links.get(node).map_or(0, |link| link.outbox.backlog())
    }

    /// Bytes of messages that are on their way to or from anybody.
    pub(crate) fn held(&self) -> usize {
        let own: usize = self.own.iter().map(Vec::len).sum();
        own + self.links.iter().map(|link| link.outbox.held() + link.inbox.held()).sum::<usize>()
    }

    /// To whom notes are not wholly sent, in the order of their ids.
    pub(crate) fn unsaid(&self) -> impl Iterator<Item = NodeId> {
        self.links.iter().filter(|link| link.outbox.has_notes()).map(|link| link.peer.node)
    }

    /// Gives up sending what belongs to attempts up to this one.
    pub(crate) fn cancel(&mut self, attempt: crate::cluster::certificate::Attempt) {
        for link in self.links.iter_mut() {
            link.outbox.cancel(attempt);
        }
    }

    /// Lets everybody hear this node's status soon.
    pub(crate) fn announce(&mut self, now: Instant) {
        for link in self.links.iter_mut() {
            link.beat = link.beat.min(now);
        }
    }

    /// Says goodbye to everybody, also to those that were never met: they may meet a former self later.
    pub(crate) fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            for link in self.links.iter_mut() {
                link.outbox.reset();
                if link.peer.liveness != Liveness::Left {
                    link.goodbyes = GOODBYES;
                }
            }
        }
    }

    pub(crate) fn has_left(&self) -> bool {
        self.leaving && self.links.iter().all(|link| link.goodbyes == 0)
    }

    /// Judges silences and finds frames to be sent again.
    pub(crate) fn wake(&mut self, now: Instant) {
        let mut silent = Vec::new();
        let mut readmitted = self.needed_all_the_same();
        for place in self.links.due(now) {
            let link = self.links.at_mut(place);
            let node = link.peer.node;
            link.full = false;
            link.outbox.wake(now);
            if link.peer.quarantine.is_some_and(|until| until <= now) {
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
            let sits_out = self.links.get_mut(peer).and_then(|link| link.peer.quarantine.take());
            if sits_out.is_some() {
                self.record(now, Occurrence::Readmitted { peer });
                self.changes.push_back(Change::Up(peer));
            }
        }
        for (peer, silence) in silent {
            match silence {
                Some(silent) => self.record(now, Occurrence::Suspect { peer, silent }),
                None => self.lose(now, peer, Loss::Silent),
            }
        }
    }

    /// Peers that sit out although this node waits, as too few others take part.
    fn needed_all_the_same(&self) -> Vec<NodeId> {
        let Some(enough) = self.waits_for.filter(|_| self.quarantine.is_some()) else { return Vec::new() };
        let averages = |status| matches!(status, Status::Training | Status::Healing);
        let able = self.peers().filter(|peer| peer.is_reachable() && averages(peer.status));
        let mut sitting: Vec<_> =
            able.clone().filter_map(|peer| peer.quarantine.map(|until| (until, peer.node))).collect();
        let taking = usize::from(averages(self.status)) + able.count() - sitting.len();
        sitting.sort_unstable();
        sitting.into_iter().take(enough.saturating_sub(taking)).map(|(_, node)| node).collect()
    }

    pub(crate) fn timeout(&self) -> Instant {
        // What is left to be said by a former self, or at the end, is said at once.
        if self.zombie || self.leaving { Instant::FAR } else { self.links.timeout() }
    }

    /// A number that changes whenever another set of peers trains and takes part.
    pub(crate) fn company(&mut self) -> u64 {
        self.links.company()
    }
}
