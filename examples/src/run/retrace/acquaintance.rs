//! When a node met its peers in a recorded run.

use kronfleet_core::cluster::Incarnation;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;

/// A node met a start of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Introduction {
    pub(super) peer: NodeId,
    pub(super) incarnation: Incarnation,
    /// Since when both ran.
    pub(super) from: Instant,
    /// When they had heard each other.
    pub(super) at: Instant,
}

/// Whom a node knows, and whom it is yet to meet.
#[derive(Clone, Debug, Default)]
pub(super) struct Acquaintance {
    /// What is to come, the earliest last.
    coming: Vec<Introduction>,
}

impl Acquaintance {
    pub(super) fn new(mut introductions: Vec<Introduction>) -> Self {
        introductions.sort_by_key(|introduction| std::cmp::Reverse(introduction.at));
        Self { coming: introductions }
    }

    /// Whether what comes from this peer does not reach the node yet.
    pub(super) fn is_ahead(&self, now: Instant, peer: NodeId) -> bool {
        self.coming.iter().any(|coming| coming.peer == peer && coming.from <= now && now < coming.at)
    }

    /// When it meets the next.
    pub(super) fn next(&self) -> Instant {
        self.coming.last().map_or(Instant::FAR, |coming| coming.at)
    }

    /// A peer that it meets now, if there is one.
    pub(super) fn meet(&mut self, now: Instant) -> Option<NodeId> {
        (self.next() <= now).then(|| self.coming.pop()).flatten().map(|coming| coming.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_not_heard_between_its_start_and_its_introduction() {
        let at = Instant::from_nanos;
        let introduction = |peer, from, until| Introduction {
            peer: NodeId(peer),
            incarnation: Incarnation(1),
            from: at(from),
            at: at(until),
        };
        let mut known = Acquaintance::new(vec![introduction(1, 0, 5), introduction(2, 0, 3), introduction(1, 9, 12)]);
        assert!(
            known.is_ahead(at(0), NodeId(1)) && known.is_ahead(at(2), NodeId(2)) && !known.is_ahead(at(3), NodeId(2))
        );
        assert_eq!((known.next(), known.meet(at(2))), (at(3), None));
        assert_eq!([known.meet(at(5)), known.meet(at(5)), known.meet(at(5))], [Some(NodeId(2)), Some(NodeId(1)), None]);
        assert!(!known.is_ahead(at(6), NodeId(1)) && known.is_ahead(at(9), NodeId(1)));
        assert_eq!((known.meet(at(12)), known.next()), (Some(NodeId(1)), Instant::FAR));
    }
}
