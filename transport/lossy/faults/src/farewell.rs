//! Whether those that come later learn who has left.
//!
//! A node that meets a start of another tells it which starts of whom it knows to have left. What was said well before the
//! end of a run has been heard by its end, if both are still there and up for each other.

use kronfleet_core::cluster::{Incarnation, Liveness, Node, Occurrence, Peer, Record};
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use std::collections::BTreeMap;

/// A start of a node.
type Start = (NodeId, Incarnation);

/// What nodes know of those that have left, and whom they have met since.
#[derive(Default)]
pub(crate) struct Farewells {
    /// Which start a node has known to have left, and since when.
    known: BTreeMap<(Start, NodeId), (Incarnation, Instant)>,
    /// When a node last met another.
    met: BTreeMap<(Start, Start), Instant>,
}

impl Farewells {
    /// Takes in what a node has recorded at `now`.
    pub(crate) fn record(&mut self, now: Instant, record: &Record) {
        if let Occurrence::Up { peer, incarnation } = record.what {
            self.met.insert(((record.node, record.incarnation), (peer, incarnation)), now);
        }
    }

    /// Takes in what a node knows at `now`.
    pub(crate) fn look(&mut self, now: Instant, node: &Node<f32>) {
        for peer in node.peers().filter(|peer| peer.liveness == Liveness::Left) {
            let known =
                self.known.entry(((node.id(), node.incarnation()), peer.node)).or_insert((peer.incarnation, now));
            if known.0 < peer.incarnation {
                *known = (peer.incarnation, now);
            }
        }
    }

    /// Somebody that was met by one of these `nodes`, the meeting not later than `until`, and does not know who has left.
    pub(crate) fn untold(&self, until: Instant, nodes: &[&Node<f32>]) -> Option<String> {
        let find = |(id, incarnation): Start| {
            nodes.iter().copied().find(|node| node.id() == id && node.incarnation() == incarnation)
        };
        let sees = |node: &Node<f32>, other: NodeId| -> Option<Peer> {
            node.peers().find(|peer| peer.node == other && peer.liveness == Liveness::Up).cloned()
        };
        for (&(teller, gone), &(start, since)) in &self.known {
            let Some(knows) = find(teller) else { continue };
            let meetings = self.met.range((teller, (NodeId(0), Incarnation(0)))..);
            for (&(_, listener), &at) in meetings.take_while(|((by, _), _)| *by == teller) {
                let Some(hears) = find(listener).filter(|_| at > since && at <= until) else { continue };
                let contact = sees(knows, listener.0).is_some() && sees(hears, teller.0).is_some();
                let knowledge = hears.peers().find(|peer| peer.node == gone);
                if contact && knowledge.is_some_and(|peer| peer.incarnation < start) {
                    let (teller, listener) = (teller.0, listener.0);
                    return Some(format!(
                        "{listener} was met at {at} by {teller}, but never told that {gone} {start} has left"
                    ));
                }
            }
        }
        None
    }
}
