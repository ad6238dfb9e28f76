//! The links to all peers, and which of them want to be seen to, and when.
//!
//! In a fleet where all know each other, a node hears a thousand others: what one frame costs must not depend on how many
//! there are. So the times of a link are looked at when it has changed, and only then. Whoever changes one does so by
//! [`get_mut`](Roster::get_mut), which takes note of it.

use super::Link;
use super::deadlines::Deadlines;
use super::sending::Means;
use crate::cluster::peer::Liveness;
use crate::cluster::wire::Status;
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Roster<S> {
    /// Sorted.
    nodes: Vec<NodeId>,
    /// In the same order.
    links: Vec<Link<S>>,
    agenda: Agenda,
}

/// Only the links are written: whoever reads them back finds out anew what follows from them.
#[cfg(feature = "serde")]
impl<S: serde::Serialize> serde::Serialize for Roster<S> {
    fn serialize<T: serde::Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.collect_map(self.nodes.iter().zip(&self.links))
    }
}

#[cfg(feature = "serde")]
impl<'de, S: serde::Deserialize<'de>> serde::Deserialize<'de> for Roster<S> {
    fn deserialize<T: serde::Deserializer<'de>>(deserializer: T) -> Result<Self, T::Error> {
        let links: BTreeMap<NodeId, Link<S>> = serde::Deserialize::deserialize(deserializer)?;
        Ok(Self::new(links))
    }
}

/// What follows from the links as they were when they were last looked at.
#[derive(Clone, Debug, Default)]
struct Agenda {
    /// When there is something to be judged or sent again.
    watched: Deadlines,
    /// When there is a frame to be sent because time has passed.
    spoken: Deadlines,
    /// Where there is a frame to be sent at once.
    ready: BTreeSet<usize>,
    /// Those to which the transport has no room.
    full: BTreeSet<usize>,
    /// Who trains and takes part.
    trains: Vec<bool>,
    /// Counts changes of that.
    company: u64,
    /// Those that have changed since.
    changed: Vec<usize>,
    is_changed: Vec<bool>,
    /// For whom frames were planned.
    means: Means,
}

impl Agenda {
    /// One for so many links, of which none was looked at.
    fn new(links: usize, company: u64, means: Means) -> Self {
        Self {
            watched: Deadlines::new(links),
            spoken: Deadlines::new(links),
            ready: BTreeSet::new(),
            full: BTreeSet::new(),
            trains: vec![false; links],
            company: company + 1,
            changed: (0..links).collect(),
            is_changed: vec![true; links],
            means,
        }
    }
}

impl<S> Roster<S> {
    /// The links to these peers.
    pub(super) fn new(links: BTreeMap<NodeId, Link<S>>) -> Self {
        let (nodes, links) = links.into_iter().unzip();
        Self { nodes, links, agenda: Agenda::default() }
    }
}

impl<S: Scalar> Roster<S> {
    fn place(&self, node: NodeId) -> Option<usize> {
        self.nodes.binary_search(&node).ok()
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Link<S>> {
        Some(&self.links[self.place(node)?])
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Link<S>> {
        let place = self.place(node)?;
        Some(self.at_mut(place))
    }

    /// The link at this place in the order of peers.
    pub(super) fn at_mut(&mut self, place: usize) -> &mut Link<S> {
        let Agenda { changed, is_changed, .. } = &mut self.agenda;
        // Where nothing was looked at yet, all will be.
        if let Some(is_changed) = is_changed.get_mut(place)
            && !core::mem::replace(is_changed, true)
        {
            changed.push(place);
        }
        &mut self.links[place]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link<S>> + Clone {
        self.links.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link<S>> {
        self.look_at_all();
        self.links.iter_mut()
    }

    /// All links have changed.
    fn look_at_all(&mut self) {
        let Agenda { company, means, .. } = self.agenda;
        self.agenda = Agenda::new(self.links.len(), company, means);
    }

    /// Looks at what has changed.
    fn look(&mut self) {
        if self.agenda.is_changed.len() != self.links.len() {
            self.look_at_all();
        }
        self.count_company();
        let Agenda { watched, spoken, ready, full, changed, is_changed, means, .. } = &mut self.agenda;
        for place in changed.drain(..) {
            is_changed[place] = false;
            let link = &self.links[place];
            watched.set(place, link.watched());
            spoken.set(place, if means.says_nothing() { Instant::FAR } else { link.spoken() });
            let is_ready = link.plan(Instant::ORIGIN, *means).is_some();
            for (set, is_there) in [(&mut *ready, is_ready), (&mut *full, link.full)] {
                if is_there {
                    set.insert(place);
                } else if !set.is_empty() {
                    set.remove(&place);
                }
            }
        }
    }

    fn count_company(&mut self) {
        let Agenda { trains, company, changed, .. } = &mut self.agenda;
        for &place in &*changed {
            let peer = &self.links[place].peer;
            let now = peer.takes_part() && peer.status == Status::Training;
            if core::mem::replace(&mut trains[place], now) != now {
                *company += 1;
            }
        }
    }

    /// A number that changes whenever another set of peers trains and takes part.
    pub(super) fn company(&mut self) -> u64 {
        if self.agenda.is_changed.len() != self.links.len() {
            self.look_at_all();
        }
        self.count_company();
        self.agenda.company
    }

    /// Where something is to be judged or sent again by `now`, or the transport had no room, in order.
    pub(super) fn due(&mut self, now: Instant) -> Vec<usize> {
        self.look();
        let Agenda { watched, full, .. } = &self.agenda;
        let mut places = Vec::new();
        let mut from = 0;
        while let Some(place) = watched.due(from, now) {
            places.push(place);
            from = place + 1;
        }
        if !full.is_empty() {
            places.extend(full);
            places.sort_unstable();
            places.dedup();
        }
        places
    }

    /// When something is to be judged or sent; [`Instant::FAR`] if never.
    pub(super) fn timeout(&self) -> Instant {
        let Agenda { watched, spoken, changed, is_changed, .. } = &self.agenda;
        if changed.is_empty() && is_changed.len() == self.links.len() {
            return watched.earliest().min(spoken.earliest());
        }
        self.links.iter().map(|link| link.watched().min(link.spoken())).min().unwrap_or(Instant::FAR)
    }

    /// The first link after that of `cursor`, round the circle, to whose peer there is a frame to be sent.
    pub(super) fn next(&mut self, cursor: NodeId, now: Instant, means: Means) -> Option<&Link<S>> {
        if self.agenda.means != means {
            self.agenda.means = means;
            self.look_at_all();
        }
        self.look();
        let after = self.nodes.partition_point(|node| *node <= cursor);
        let place = self.first(after, now).or_else(|| self.first(0, now))?;
        Some(&self.links[place])
    }

    fn first(&self, from: usize, now: Instant) -> Option<usize> {
        let ready = self.agenda.ready.range(from..).next().copied();
        let due = self.agenda.spoken.due(from, now);
        ready.into_iter().chain(due).min()
    }
}

impl<S: Scalar> Link<S> {
    /// When there is something to be judged, or a frame counts as lost.
    fn watched(&self) -> Instant {
        if self.peer.liveness == Liveness::Left {
            return Instant::FAR;
        }
        let sits_out = self.peer.quarantine.unwrap_or(Instant::FAR);
        if !self.reachable() {
            return sits_out;
        }
        let up = self.peer.liveness == Liveness::Up;
        let silence = if up { self.detector.suspect_at() } else { self.detector.down_at() };
        sits_out.min(silence).min(self.outbox.timeout())
    }

    /// When a heartbeat or an acknowledgement is due.
    fn spoken(&self) -> Instant {
        if self.full || self.peer.liveness == Liveness::Left {
            return Instant::FAR;
        }
        if self.reachable() { self.beat.min(self.inbox.due()) } else { self.beat }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::budget::Budget;
    use crate::cluster::certificate::Incarnation;
    use crate::cluster::outbox::Post;
    use crate::seed::{Random, Seed};
    use proptest::prelude::*;

    const NEVER: NodeId = NodeId(u32::MAX);

    /// Something that happens to one link.
    fn change(link: &mut Link<f32>, random: &mut Random) {
        let at = Instant::from_nanos(random.below(20));
        match random.below(10) {
            0 => link.beat = at,
            1 => link.full = true,
            2 => link.full = false,
            3 => {
                let all = [Liveness::Unknown, Liveness::Up, Liveness::Suspect, Liveness::Down, Liveness::Left];
                link.peer.liveness = all[random.below(5) as usize];
            }
            4 => link.refuse = random.chance(0.3).then_some(Incarnation(1)),
            5 => link.goodbyes = u8::from(random.chance(0.3)),
            6 => link.outbox.push(Post::note(vec![0; 40])),
            7 => {
                if let Some(plan) = link.outbox.plan(100) {
                    link.outbox.sent(at, &plan);
                }
            }
            8 => link.detector.hear(at),
            _ => {
                link.peer.quarantine = random.chance(0.5).then_some(at);
                link.peer.status = if random.chance(0.5) { Status::Training } else { Status::Finished };
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_looked_at_is_what_all_links_say(seed in 0_u64..u64::MAX, peers in 0_u32..40) {
            let mut random = Seed(seed).random();
            let new = |node| (NodeId(node), Link::<f32>::new(NodeId(node), Budget::default(), 1 << 16, Instant::FAR));
            let mut roster = Roster::new((0..peers).map(new).collect());
            let mut means = Means { max_frame: 1000, ..Means::default() };
            let (mut company, mut trained) = (0, None);
            for _ in 0..60 {
                for _ in 0..random.below(4) {
                    let node = NodeId(random.below(u64::from(peers) + 1) as u32);
                    if let Some(link) = roster.get_mut(node) {
                        change(link, &mut random);
                    }
                }
                // Nobody comes back from there.
                means.zombie |= random.chance(0.01);
                means.leaving |= random.chance(0.01);
                let now = Instant::from_nanos(random.below(20));
                let times = roster.iter().map(|link| link.watched().min(link.spoken()));
                let earliest = times.min().unwrap_or(Instant::FAR);
                if !means.says_nothing() {
                    prop_assert_eq!(roster.timeout(), earliest);
                }
                let due = roster.due(now);
                let to_be_seen = |place: &usize| due.contains(place);
                let all: Vec<_> = roster.iter().map(|link| link.watched() <= now || link.full).collect();
                prop_assert_eq!((0..all.len()).map(|place| to_be_seen(&place)).collect::<Vec<_>>(), all);
                prop_assert!(due.is_sorted());
                let cursor = if random.chance(0.1) { NEVER } else { NodeId(random.below(u64::from(peers) + 1) as u32) };
                let mut circle: Vec<_> = roster.iter().filter(|link| link.plan(now, means).is_some()).collect();
                circle.sort_by_key(|link| (link.peer.node <= cursor, link.peer.node));
                let first = circle.first().map(|link| link.peer.node);
                prop_assert_eq!(roster.next(cursor, now, means).map(|link| link.peer.node), first);
                if !means.says_nothing() {
                    prop_assert_eq!(roster.timeout(), earliest);
                }
                let trains = |link: &Link<f32>| link.peer.takes_part() && link.peer.status == Status::Training;
                let trainers: Vec<_> = roster.iter().filter(|link| trains(link)).map(|link| link.peer.node).collect();
                let counted = roster.company();
                prop_assert!(counted != company || trained.as_ref() == Some(&trainers));
                (company, trained) = (counted, Some(trainers));
            }
        }
    }
}
