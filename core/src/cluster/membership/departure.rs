//! Who has left, and that it stays so: a goodbye outlasts the former selves of whoever said it.
//!
//! A process that stood still while a later start of its node came and left may come back. Whoever knows that the later
//! start has left refuses it, as any former self. Those that came too late to hear that goodbye are told of it as soon as
//! they are met, and tell those that they have met; otherwise they would take the former self for the node, and wait for
//! it. The highest start that has left is what is remembered of a node, so that it does not matter in which order, how
//! often, and from whom it is heard.

use super::Links;
use crate::cluster::certificate::Incarnation;
use crate::cluster::message::Message;
use crate::cluster::outbox::Post;
use crate::cluster::record::Loss;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::vec::Vec;

impl<S: Scalar> Links<S> {
    /// Tells a peer that has just been met who has left.
    pub(super) fn tell_departures(&mut self, to: NodeId) {
        let left = self.links.iter().filter(|link| link.departed > Incarnation(0) && link.peer.node != to);
        let starts: Vec<_> = left.map(|link| (link.peer.node, link.departed)).collect();
        if !starts.is_empty() && !mutant!(DepartureUntold) {
            self.send(to, Post::urgent(Message::Departed { starts }.encode()));
        }
    }

    /// Takes in which starts of whom have left, and tells everybody else what of it is new.
    pub(crate) fn learn_departures(&mut self, now: Instant, from: NodeId, starts: &[(NodeId, Incarnation)]) {
        let news: Vec<_> = starts.iter().copied().filter(|&(node, start)| self.has_gone(now, node, start)).collect();
        if news.is_empty() {
            return;
        }
        let message = Message::Departed { starts: news }.encode();
        let others: Vec<_> = self.peers().map(|peer| peer.node).filter(|node| *node != from).collect();
        for node in others {
            self.send(node, Post::urgent(message.clone()));
        }
    }

    /// Takes in that this start of a peer has left; answers whether that is news.
    fn has_gone(&mut self, now: Instant, node: NodeId, start: Incarnation) -> bool {
        let Some(link) = self.links.get_mut(node) else { return false };
        if start <= link.departed {
            return false;
        }
        link.departed = start;
        if start < link.peer.incarnation {
            return true;
        }
        if start > link.peer.incarnation {
            if link.reachable() {
                self.lose(now, node, Loss::Replaced);
            }
            let link = self.links.get_mut(node).expect("still there");
            link.outbox.reset();
            link.inbox = link.inbox.anew();
            link.peer.incarnation = start;
            link.zombie = false;
        }
        self.lose(now, node, Loss::Left);
        true
    }
}
