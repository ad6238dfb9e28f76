//! Who tells whom, where that need not be mutual nor always the same.

use super::topology::Topology;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// Directed graphs of nodes `0..n`, without loops, that take turns: exchange `k` is along the edges of phase `k` modulo
/// their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directed {
    phases: Vec<Vec<BTreeSet<u32>>>,
}

impl Directed {
    /// Phases with these edges, each from a sender to a receiver.
    ///
    /// # Panics
    /// If there is no phase, or an edge leads from or to a node that there is not, or from a node to itself.
    #[track_caller]
    pub fn from_edges<E: IntoIterator<Item = (u32, u32)>>(nodes: u32, phases: impl IntoIterator<Item = E>) -> Self {
        let phase = |edges: E| {
            let mut receivers = vec![BTreeSet::new(); nodes as usize];
            for (from, to) in edges {
                assert!(
                    from < nodes && to < nodes && from != to,
                    "{from}→{to} is no edge between two of {nodes} nodes"
                );
                receivers[from as usize].insert(to);
            }
            receivers
        };
        let phases: Vec<_> = phases.into_iter().map(phase).collect();
        assert!(!phases.is_empty(), "a directed graph without any phase");
        Self { phases }
    }

    /// One receiver at a time, at distances 1, 2, 4 and so on along a circle (Assran et al. 2018, arXiv 1811.10792, and
    /// Ying et al. 2021, arXiv 2110.13363): all means are exact after `log₂ n` exchanges if `n` is a power of two.
    pub fn one_peer(nodes: u32) -> Self {
        let along = |distance: u32| (0..nodes).map(move |node| (node, (node + distance) % nodes));
        let distances = (0..32).map(|power| 1_u32 << power).take_while(|&distance| distance < nodes);
        let phases: Vec<Vec<_>> = distances.map(|distance| along(distance).collect()).collect();
        if phases.is_empty() { Self::from_edges(nodes, [vec![]]) } else { Self::from_edges(nodes, phases) }
    }

    /// All of those receivers at once, always.
    pub fn exponential(nodes: u32) -> Self {
        let phases = Self::one_peer(nodes).phases;
        let all = |node: usize| phases.iter().flat_map(|phase| phase[node].iter().copied()).collect();
        Self { phases: vec![(0..nodes as usize).map(all).collect()] }
    }

    /// A circle that is gone round one way.
    pub fn ring(nodes: u32) -> Self {
        let edges = (0..nodes).map(|node| (node, (node + 1) % nodes)).filter(|(from, to)| from != to);
        Self::from_edges(nodes, [edges])
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> u32 {
        self.phases[0].len() as u32
    }

    /// How many phases there are.
    pub fn phases(&self) -> u64 {
        self.phases.len() as u64
    }

    /// To whom a node sends in exchange `k`, ascending.
    ///
    /// # Panics
    /// If there is no such node.
    #[track_caller]
    pub fn receivers(&self, node: u32, exchange: u64) -> impl Iterator<Item = u32> + Clone {
        self.phase(exchange)[node as usize].iter().copied()
    }

    /// Who sends to a node in exchange `k`, ascending.
    pub fn senders(&self, node: u32, exchange: u64) -> impl Iterator<Item = u32> + Clone {
        let sends = move |(_, receivers): &(u32, &BTreeSet<u32>)| receivers.contains(&node);
        (0..).zip(self.phase(exchange)).filter(sends).map(|(from, _)| from)
    }

    /// Whether what anybody has reaches everybody in time.
    pub fn is_connected(&self) -> bool {
        let all: Vec<BTreeSet<u32>> = (0..self.nodes() as usize)
            .map(|node| self.phases.iter().flat_map(|phase| phase[node].iter().copied()).collect())
            .collect();
        let reaches_all = |next: &dyn Fn(u32) -> Vec<u32>| {
            let (mut reached, mut open) = (BTreeSet::from([0]), vec![0]);
            while let Some(node) = open.pop() {
                open.extend(next(node).into_iter().filter(|&other| reached.insert(other)));
            }
            reached.len() == all.len()
        };
        let back = |node: u32| (0..).zip(&all).filter(|(_, to)| to.contains(&node)).map(|(from, _)| from).collect();
        all.is_empty() || (reaches_all(&|node| all[node as usize].iter().copied().collect()) && reaches_all(&back))
    }

    fn phase(&self, exchange: u64) -> &[BTreeSet<u32>] {
        &self.phases[(exchange % self.phases()) as usize]
    }
}

impl From<&Topology> for Directed {
    /// Both ways along every edge, always.
    fn from(topology: &Topology) -> Self {
        Self { phases: vec![(0..topology.nodes()).map(|node| topology.neighbours(node).collect()).collect()] }
    }
}
