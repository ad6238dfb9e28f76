//! Nodes that are close to each other, and one line from each group of them to all others.
//!
//! # For users
//! [`Sites`] makes a network of two speeds: links within a site behave as [`inside`](Sites::inside) says, each pair on a link
//! of its own. What a site sends to others goes over one line, as the network's own link options say: its frames follow each
//! other, whoever of the site sends them. What comes in does not wait for other things that come in.
//!
//! # For implementers
//! A frame alone on its way takes `latency + bytes/bandwidth`; one that finds the line busy waits until what was offered
//! before it has been put on the line.

use crate::link::LinkOptions;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use std::collections::BTreeMap;

/// Groups of nodes that are close to each other.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Sites {
    /// Who is where. A node of no group is a site by itself.
    pub groups: Vec<Vec<NodeId>>,
    /// How links within a site behave, but for the longest frame, which is the same for a whole run.
    pub inside: LinkOptions,
}

/// The lines that sites have to others.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Lines {
    inside: LinkOptions,
    /// The site of every node that is in a group.
    sites: BTreeMap<NodeId, usize>,
    /// When everything that a site has sent to others so far has been put on its line.
    busy_until: Vec<Instant>,
}

impl Lines {
    pub(crate) fn new(sites: Sites) -> Self {
        let members = |(site, group): (usize, Vec<NodeId>)| group.into_iter().map(move |node| (node, site));
        let busy_until = vec![Instant::ORIGIN; sites.groups.len()];
        Self {
            inside: sites.inside,
            sites: sites.groups.into_iter().enumerate().flat_map(members).collect(),
            busy_until,
        }
    }

    /// How the link between two nodes behaves if they are of one site.
    pub(crate) fn inside(&self, from: NodeId, to: NodeId) -> Option<&LinkOptions> {
        let site = self.sites.get(&from);
        (site.is_some() && site == self.sites.get(&to)).then_some(&self.inside)
    }

    /// The line by which this node's site reaches others.
    pub(crate) fn outward(&mut self, from: NodeId) -> Option<&mut Instant> {
        self.busy_until.get_mut(*self.sites.get(&from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Fate;
    use crate::network::{Connectivity, Links};
    use kronfleet_core::seed::Seed;
    use kronfleet_core::time::Duration;
    use proptest::prelude::*;

    const NODES: u32 = 5;

    /// Sites n0 n1, n2 n3, and n4 in no group.
    fn links(inside: LinkOptions, between: LinkOptions) -> Links {
        let groups = vec![vec![NodeId(0), NodeId(1)], vec![NodeId(2), NodeId(3)]];
        Links::new(Seed(1), between, Some(Sites { groups, inside }))
    }

    fn site(node: u32) -> u32 {
        node / 2
    }

    fn any_link() -> impl Strategy<Value = LinkOptions> {
        (1_u64..1_000_000, 0_u64..5_000_000).prop_map(|(bandwidth, latency)| LinkOptions {
            bandwidth: Some(bandwidth),
            latency: Duration::from_nanos(latency),
            capacity: usize::MAX / 2,
            ..LinkOptions::default()
        })
    }

    fn arrives(links: &mut Links, (from, to): (u32, u32), now: Instant, len: usize) -> Instant {
        match links.offer(&Connectivity::default(), NodeId(from), NodeId(to), now, len) {
            Fate::Arrives(at, None) => at,
            other => panic!("a faultless link that is not full gives {other:?}"),
        }
    }

    /// `bytes/bandwidth`, rounded up to nanoseconds.
    fn serialised(link: &LinkOptions, len: usize) -> Duration {
        let bandwidth = u128::from(link.bandwidth.expect("drawn"));
        Duration::from_nanos((len as u128 * 1_000_000_000).div_ceil(bandwidth) as u64)
    }

    proptest! {
        #[test]
        fn a_frame_alone_takes_latency_and_bytes_by_bandwidth(
            (inside, between) in (any_link(), any_link()),
            from in 0..NODES,
            away in 1..NODES,
            len in 1_usize..60_000,
        ) {
            let to = (from + away) % NODES;
            let mut links = links(inside.clone(), between.clone());
            let link = if site(from) == site(to) { inside } else { between };
            let expected = Instant::ORIGIN + link.latency + serialised(&link, len);
            prop_assert_eq!(arrives(&mut links, (from, to), Instant::ORIGIN, len), expected);
        }

        #[test]
        fn frames_of_a_site_to_others_follow_each_other_and_all_else_goes_its_own_way(
            (inside, between) in (any_link(), any_link()),
            frames in proptest::collection::vec((0..NODES, 1..NODES, 1_usize..60_000, 0_u64..1_000_000), 1..40),
        ) {
            let mut links = links(inside.clone(), between.clone());
            let (mut now, mut free) = (Instant::ORIGIN, BTreeMap::new());
            for (from, away, len, later) in frames {
                now += Duration::from_nanos(later);
                let to = (from + away) % NODES;
                let is_near = site(from) == site(to);
                // n4 has links of its own to everybody.
                let (line, link) = match (is_near, from) {
                    (true, _) | (_, 4) => ((from, to), if is_near { &inside } else { &between }),
                    (false, _) => ((site(from), u32::MAX), &between),
                };
                let free = free.entry(line).or_insert(Instant::ORIGIN);
                *free = now.max(*free) + serialised(link, len);
                prop_assert_eq!(arrives(&mut links, (from, to), now, len), *free + link.latency);
            }
        }
    }
}
