//! What goes to whom next: frames are planned, written into the transport's memory, and counted.

use super::{Identity, Link, Links};
use crate::cluster::certificate::Incarnation;
use crate::cluster::outbox::Plan;
use crate::cluster::peer::Liveness;
use crate::cluster::wire::{self, Body, Frame, Header, Kind};
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;

#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Planned {
    /// This start of the peer.
    Refuse(Incarnation),
    Goodbye,
    Data(Plan),
    Acknowledge,
    Heartbeat,
}

/// What frames may be like, whoever they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Means {
    pub(super) max_frame: usize,
    /// This is a former self, which only refuses.
    pub(super) zombie: bool,
    /// This node leaves, and only says so.
    pub(super) leaving: bool,
}

impl Means {
    /// Whether no time makes this node speak.
    pub(super) fn says_nothing(self) -> bool {
        self.zombie || self.leaving
    }
}

impl<S: Scalar> Link<S> {
    /// The next frame for this peer, if there is one.
    pub(super) fn plan(&self, now: Instant, means: Means) -> Option<Planned> {
        if self.full {
            return None;
        }
        if let Some(start) = self.refuse {
            return Some(Planned::Refuse(start));
        }
        if means.zombie {
            return None;
        }
        if self.goodbyes > 0 {
            return Some(Planned::Goodbye);
        }
        if means.leaving || self.peer.liveness == Liveness::Left {
            return None;
        }
        if self.reachable() {
            let room = means.max_frame.saturating_sub(wire::HEADER + wire::SEGMENT);
            if let Some(plan) = self.outbox.plan(room) {
                return Some(Planned::Data(plan));
            }
            if self.inbox.due() <= now {
                return Some(Planned::Acknowledge);
            }
        }
        (self.beat <= now).then_some(Planned::Heartbeat)
    }
}

impl<S: Scalar> Links<S> {
    pub(crate) fn poll(&mut self, now: Instant, max_frame: usize) -> Option<(NodeId, usize)> {
        let means = Means { max_frame, zombie: self.zombie, leaving: self.leaving };
        // Peers take turns, so that a long message to one does not hold up the others.
        let link = self.links.next(self.cursor, now, means);
        self.planned = link.and_then(|link| Some((now, link.peer.node, link.plan(now, means)?)));
        let (_, node, planned) = self.planned?;
        let len = match planned {
            Planned::Refuse(_) => wire::HEADER + 8,
            Planned::Goodbye | Planned::Acknowledge => wire::HEADER,
            Planned::Heartbeat => wire::HEADER + 16,
            Planned::Data(Plan { len: 0, .. }) => wire::HEADER + 12,
            Planned::Data(plan) => wire::HEADER + wire::SEGMENT + plan.len as usize,
        };
        Some((node, len))
    }

    pub(crate) fn fill(&mut self, target: &mut [u8]) {
        let Some((now, node, planned)) = self.planned.take() else {
            return;
        };
        let status = self.status;
        let last = self.last;
        let Identity { run, node: from, incarnation } = self.identity;
        let Some(link) = self.links.get_mut(node) else {
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

    pub(crate) fn postpone(&mut self) {
        if let Some((_, node, _)) = self.planned.take()
            && let Some(link) = self.links.get_mut(node)
        {
            link.full = true;
        }
    }

    fn moved_on(&mut self, now: Instant, node: NodeId, planned: &Planned) {
        self.cursor = node;
        let heartbeat = self.budget.heartbeat();
        let Some(link) = self.links.get_mut(node) else {
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
