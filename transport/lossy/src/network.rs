//! Who can reach whom, over which links, and what travelled: the model under both drivers.
//!
//! Links come into being when they are first used, so that thousands of nodes cost no more than what they
//! say to each other.

use crate::fault::{Change, Fault, FaultSchedule};
use crate::link::{Fate, Link, LinkOptions};
use crate::site::{Lines, Sites};
use kronfleet_core::seed::Seed;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

/// What connects the nodes of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkOptions {
    /// Derives the random stream of every link.
    pub seed: Seed,
    /// How many nodes there are: `n0` up to `nodes − 1`.
    pub nodes: u32,
    /// How every link behaves; with sites, those between them.
    pub link: LinkOptions,
    /// Nodes that are close to each other; without it, all are equally far.
    pub sites: Option<Sites>,
    /// What goes wrong, and when.
    pub faults: FaultSchedule,
    /// Whether outages and crashes are reported to the nodes as `Down` and `Up`.
    ///
    /// Without it, as on a datagram network, a silent peer is all a node notices.
    pub reports: bool,
}

impl NetworkOptions {
    /// `nodes` nodes, perfect links, no faults, no reports.
    pub fn new(nodes: u32, seed: Seed) -> Self {
        Self {
            seed,
            nodes,
            link: LinkOptions::default(),
            sites: None,
            faults: FaultSchedule::default(),
            reports: false,
        }
    }
}

/// What is cut and who is dead at one moment.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Connectivity {
    faults: FaultSchedule,
    /// Outages may overlap: a node is back when the last of its outages is over.
    outages: BTreeMap<NodeId, u32>,
    /// What is wrong with links now, by number.
    cuts: BTreeSet<usize>,
    dead: BTreeSet<NodeId>,
}

impl Connectivity {
    /// Everything connected, under this schedule.
    pub fn new(faults: FaultSchedule) -> Self {
        Self { faults, ..Self::default() }
    }

    /// Takes a change of the schedule into account; answers whose reachability changed, and to what.
    pub fn apply(&mut self, change: &Change) -> Option<(NodeId, bool)> {
        match *change {
            Change::Offline(node) => {
                let outages = self.outages.entry(node).or_insert(0);
                *outages += 1;
                (*outages == 1).then_some((node, false))
            }
            Change::Online(node) => {
                let outages = self.outages.get_mut(&node)?;
                *outages -= 1;
                if *outages > 0 {
                    return None;
                }
                self.outages.remove(&node);
                Some((node, true))
            }
            Change::Cut(number) => {
                self.cuts.insert(number);
                None
            }
            Change::Healed(number) => {
                self.cuts.remove(&number);
                None
            }
            Change::Crash(node) => self.dead.insert(node).then_some((node, false)),
            Change::Restart(node) => self.dead.remove(&node).then_some((node, true)),
        }
    }

    /// Whether the node is in an outage.
    pub fn offline(&self, node: NodeId) -> bool {
        self.outages.contains_key(&node)
    }

    /// Whether the node has crashed and not been started again.
    pub fn dead(&self, node: NodeId) -> bool {
        self.dead.contains(&node)
    }

    /// Whether frames from `from` reach `to`.
    pub fn connected(&self, from: NodeId, to: NodeId) -> bool {
        !self.dead(from) && self.carries(from, to)
    }

    /// Whether a frame under way from `from` still reaches `to`: a sender's death does not call it back.
    pub fn carries(&self, from: NodeId, to: NodeId) -> bool {
        !self.offline(from) && !self.offline(to) && !self.dead(to) && !self.cut(from, to)
    }

    fn cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.iter().any(|&number| match &self.faults.faults[number] {
            Fault::Cut { sources, targets, .. } => sources.contains(&from) && targets.contains(&to),
            _ => false,
        })
    }

    /// Whether the link from `from` to `to` takes no frames.
    fn clogged(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.iter().any(|&number| match &self.faults.faults[number] {
            Fault::Clog { sources, targets, .. } => sources.contains(&from) && targets.contains(&to),
            _ => false,
        })
    }

    /// How the link from `from` to `to` behaves, if not as usual.
    fn behaviour(&self, from: NodeId, to: NodeId) -> Option<&LinkOptions> {
        self.cuts.iter().rev().find_map(|&number| match &self.faults.faults[number] {
            Fault::Link { sources, targets, options, .. } if sources.contains(&from) && targets.contains(&to) => {
                Some(options)
            }
            _ => None,
        })
    }
}

/// What the links carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Traffic {
    /// Frames the links took.
    pub frames: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// Frames that arrived, copies included.
    pub delivered: u64,
    /// Frames lost by a link's own loss.
    pub lost: u64,
    /// Frames lost because of a cut, an outage or a dead receiver.
    pub cut: u64,
    /// Frames a link doubled.
    pub doubled: u64,
    /// Times a link was full.
    pub full: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.cut += other.cut;
        self.doubled += other.doubled;
        self.full += other.full;
    }
}

/// The links that have been used so far.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Links {
    seed: Seed,
    options: LinkOptions,
    lines: Option<Lines>,
    used: BTreeMap<(NodeId, NodeId), Link>,
}

impl Links {
    pub(crate) fn new(seed: Seed, options: LinkOptions, sites: Option<Sites>) -> Self {
        Self { seed, options, lines: sites.map(Lines::new), used: BTreeMap::new() }
    }

    pub(crate) fn options(&self) -> &LinkOptions {
        &self.options
    }

    pub(crate) fn offer(&mut self, network: &Connectivity, from: NodeId, to: NodeId, now: Instant, len: usize) -> Fate {
        if network.clogged(from, to) {
            return Fate::Full;
        }
        let seed = self.seed;
        let link = self.used.entry((from, to)).or_insert_with(|| Link::new(seed, from, to));
        let worse = network.behaviour(from, to);
        if let Some(inside) = self.lines.as_ref().and_then(|lines| lines.inside(from, to)) {
            return link.offer(worse.unwrap_or(inside), now, len);
        }
        let options = worse.unwrap_or(&self.options);
        match self.lines.as_mut().and_then(|lines| lines.outward(from)) {
            Some(line) => link.offer_on(line, options, now, len),
            None => link.offer(options, now, len),
        }
    }

    pub(crate) fn release(&mut self, from: NodeId, to: NodeId, len: usize) {
        let link = self.used.get_mut(&(from, to));
        link.expect("only frames that were offered are released").release(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);

    #[test]
    fn overlapping_outages_end_with_the_last() {
        let mut network = Connectivity::default();
        assert_eq!(network.apply(&Change::Offline(A)), Some((A, false)));
        assert_eq!(network.apply(&Change::Offline(A)), None);
        assert_eq!(network.apply(&Change::Online(A)), None);
        assert!(!network.connected(A, B) && !network.connected(B, A));
        assert_eq!(network.apply(&Change::Online(A)), Some((A, true)));
        assert!(network.connected(A, B) && network.connected(B, A));
    }

    #[test]
    fn a_cut_works_one_way() {
        let faults = FaultSchedule {
            faults: vec![Fault::Cut {
                sources: [A].into(),
                targets: [B].into(),
                from: Instant::ORIGIN,
                until: Instant::FAR,
            }],
        };
        let mut network = Connectivity::new(faults);
        network.apply(&Change::Cut(0));
        assert!(!network.connected(A, B) && network.connected(B, A));
        network.apply(&Change::Healed(0));
        assert!(network.connected(A, B));
    }

    #[test]
    fn a_link_behaves_worse_or_is_clogged_for_a_while() {
        let (sources, targets): (BTreeSet<_>, BTreeSet<_>) = ([A].into(), [B].into());
        let (from, until) = (Instant::ORIGIN, Instant::FAR);
        let options = LinkOptions { loss: 1.0, ..LinkOptions::default() };
        let faults = FaultSchedule {
            faults: vec![
                Fault::Clog { sources: sources.clone(), targets: targets.clone(), from, until },
                Fault::Link { sources, targets, options, from, until },
            ],
        };
        let mut network = Connectivity::new(faults);
        let mut links = Links::new(Seed(1), LinkOptions::default(), None);
        let mut offer = |network: &Connectivity, from, to| links.offer(network, from, to, Instant::ORIGIN, 9);
        network.apply(&Change::Cut(0));
        assert_eq!(offer(&network, A, B), Fate::Full);
        assert!(matches!(offer(&network, B, A), Fate::Arrives(..)));
        network.apply(&Change::Cut(1));
        network.apply(&Change::Healed(0));
        assert!(matches!(offer(&network, A, B), Fate::Lost(_)));
        network.apply(&Change::Healed(1));
        assert!(matches!(offer(&network, A, B), Fate::Arrives(..)));
    }
}
