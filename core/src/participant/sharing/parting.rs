//! Giving an epoch of shared steps up, and forming the next.

use super::note::Note;
use crate::cluster::Status;
use crate::participant::{Participant, State, Training};
use crate::policy::Request;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::vec::Vec;

/// How far a node is that does not belong to the epoch that was asked about.
pub(super) const ELSEWHERE: u64 = u64::MAX;

impl<T: Training<S>, S: Scalar> Participant<T, S> {
    /// Tells members of the epoch that can be reached and were not told that this node has given it up.
    pub(super) fn say_halt(&mut self) {
        let (Some(sharing), Some(training)) = (&mut self.sharing, &self.training) else { return };
        let Some(epoch) = &sharing.epoch else { return };
        let member = |node: &NodeId| epoch.members.iter().any(|(member, _)| member == node);
        let reachable = self.node.peers().filter(|peer| peer.is_reachable()).map(|peer| peer.node).filter(member);
        let whom: Vec<NodeId> = reachable.filter(|node| sharing.called.insert(*node)).collect();
        let note = Note::Halt.write(epoch.id, training.iteration(), &[]);
        whom.into_iter().for_each(|node| self.node.tell(node, &note));
    }

    /// Calls everybody of the site that can be reached and was not called.
    pub(super) fn call(&mut self) {
        let Some(sharing) = &mut self.sharing else { return };
        let peers = sharing.site.iter().filter_map(|&node| self.node.peer(node));
        let reachable = peers.filter(|peer| peer.is_reachable());
        let called = &mut sharing.called;
        let whom: Vec<NodeId> = reachable.map(|peer| peer.node).filter(|node| called.insert(*node)).collect();
        let note = Note::Call.write(0, self.node.last().round.0, &[]);
        whom.into_iter().for_each(|node| self.node.tell(node, &note));
    }

    /// Contributes to the round that begins an epoch.
    pub(super) fn form(&mut self, now: Instant) {
        let Some(sharing) = &mut self.sharing else { return };
        sharing.epoch = None;
        sharing.forming = true;
        sharing.farewell = false;
        sharing.called.clear();
        self.state = State::Training;
        self.contribute(now, &Request::default());
        self.call();
    }

    /// Gives the epoch up and tells its members how far this node is.
    pub(super) fn halt(&mut self) {
        let (Some(sharing), Some(training)) = (&mut self.sharing, &mut self.training) else { return };
        let Some(epoch) = &sharing.epoch else { return };
        if sharing.midway {
            training.give_up();
            sharing.report.abandoned += u64::from(epoch.members.len() > 1);
        }
        (sharing.midway, sharing.mail) = (false, None);
        sharing.halts.insert(epoch.members[epoch.me].0, training.iteration());
        sharing.called.clear();
        self.state = State::Halting;
        self.say_halt();
    }

    /// Once every member that is there has said how far it is, goes back to where all are, and on to the next epoch.
    pub(super) fn part(&mut self, now: Instant) -> bool {
        let (Some(sharing), Some(training)) = (&mut self.sharing, &mut self.training) else { return false };
        let Some(epoch) = &sharing.epoch else { return false };
        let is_there = |node: NodeId| {
            self.node.peer(node).is_none_or(|peer| peer.is_reachable() && peer.status != Status::Finished)
        };
        let mut members = epoch.members.iter().map(|(node, _)| *node);
        if members.any(|node| !sharing.halts.contains_key(&node) && is_there(node)) {
            return false;
        }
        let survivors: Vec<NodeId> =
            sharing.halts.iter().filter(|(_, far)| **far != ELSEWHERE).map(|(node, _)| *node).collect();
        let all = epoch.members.len();
        let lowest = epoch.members.first().is_some_and(|(node, _)| survivors.contains(node));
        sharing.trusted &= 2 * survivors.len() > all || (2 * survivors.len() == all && lowest);
        let least = sharing.halts.values().copied().min().unwrap_or(ELSEWHERE);
        if training.iteration() > least {
            training.retract();
            sharing.report.retracted += 1;
            self.iteration = training.iteration();
        }
        self.form(now);
        true
    }

    /// Tells members of the epoch that ask how far this node is while it waits for the outcome of a round.
    pub(super) fn answer_halts(&mut self, now: Instant) -> bool {
        let (Some(sharing), Some(training)) = (&mut self.sharing, &mut self.training) else { return false };
        let Some(epoch) = sharing.epoch.as_ref().filter(|_| !sharing.forming && !sharing.halts.is_empty()) else {
            return false;
        };
        let own = training.iteration();
        let note = Note::Halt.write(epoch.id, own, &[]);
        let least = sharing.halts.values().copied().min().unwrap_or(own);
        sharing.halts.keys().for_each(|node| self.node.tell(*node, &note));
        sharing.halts.clear();
        if least < own {
            self.node.withdraw(now);
            training.retract();
            sharing.report.retracted += 1;
            self.iteration = training.iteration();
            self.form(now);
        }
        true
    }

    /// Tells whoever asks that this node takes no part any more.
    pub(super) fn decline(&mut self) {
        let Some(sharing) = &mut self.sharing else { return };
        let id = sharing.epoch.as_ref().map_or(0, |epoch| epoch.id);
        for (node, _) in core::mem::take(&mut sharing.halts) {
            self.node.tell(node, &Note::Halt.write(id, ELSEWHERE, &[]));
        }
    }
}
