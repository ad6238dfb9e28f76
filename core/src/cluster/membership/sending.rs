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

impl<S: Scalar> Links<S> {
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
        if link.full {
            return None;
        }
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

    pub(crate) fn postpone(&mut self) {
        if let Some((_, node, _)) = self.planned.take()
            && let Some(link) = self.links.get_mut(&node)
        {
            link.full = true;
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
