//! Who tells whom, where that need not be mutual nor always the same.

use super::topology::Topology;
use crate::seed::Seed;
use crate::transport::NodeId;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// Directed graphs of nodes `0..n`, without loops: some that take turns, so that exchange `k` is along the edges of phase
/// `k` modulo their number, or one that is drawn anew for every exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directed {
    nodes: u32,
    ways: Ways,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ways {
    /// For each phase, the receivers of each node.
    Turns(Vec<Vec<BTreeSet<u32>>>),
    /// Every node has so many receivers.
    Drawn { receivers: u32, seed: Seed },
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
        Self { nodes, ways: Ways::Turns(phases) }
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
        let turns = Self::one_peer(nodes);
        let all = |node| turns.ever(node).into_iter().map(move |to| (node, to));
        Self::from_edges(nodes, [(0..nodes).flat_map(all).collect::<Vec<_>>()])
    }

    /// A circle that is gone round one way.
    pub fn ring(nodes: u32) -> Self {
        let edges = (0..nodes).map(|node| (node, (node + 1) % nodes)).filter(|(from, to)| from != to);
        Self::from_edges(nodes, [edges])
    }

    /// So many receivers of every node, drawn anew for every exchange: of any two nodes, each is as likely as another.
    ///
    /// Whoever needs to know draws the same graph, in `O(n · receivers)`.
    ///
    /// # Panics
    /// If there are not so many others.
    #[track_caller]
    pub fn random(nodes: u32, receivers: u32, seed: Seed) -> Self {
        assert!(receivers < nodes.max(1), "{receivers} receivers of each of {nodes} nodes, which have fewer others");
        Self { nodes, ways: Ways::Drawn { receivers, seed } }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    /// How many phases there are; `None` if every exchange has another graph.
    pub fn phases(&self) -> Option<u64> {
        match &self.ways {
            Ways::Turns(phases) => Some(phases.len() as u64),
            Ways::Drawn { .. } => None,
        }
    }

    /// To whom a node sends in exchange `k`.
    ///
    /// # Panics
    /// If there is no such node.
    #[track_caller]
    pub fn receivers(&self, node: u32, exchange: u64) -> BTreeSet<u32> {
        assert!(node < self.nodes, "there is no node {node} among {}", self.nodes);
        match &self.ways {
            Ways::Turns(phases) => phases[(exchange % phases.len() as u64) as usize][node as usize].clone(),
            &Ways::Drawn { receivers, seed } => {
                let mut random = seed.derive("exchange", exchange).derive("receivers of", u64::from(node)).random();
                let mut drawn = BTreeSet::new();
                while drawn.len() < receivers as usize {
                    let other = random.below(u64::from(self.nodes) - 1) as u32;
                    drawn.insert(if other < node { other } else { other + 1 });
                }
                drawn
            }
        }
    }

    /// Who sends to a node in exchange `k`.
    pub fn senders(&self, node: u32, exchange: u64) -> BTreeSet<u32> {
        let sends = |from: &u32| match &self.ways {
            Ways::Turns(phases) => phases[(exchange % phases.len() as u64) as usize][*from as usize].contains(&node),
            Ways::Drawn { .. } => *from != node && self.receivers(*from, exchange).contains(&node),
        };
        (0..self.nodes).filter(sends).collect()
    }

    /// The place of a node.
    ///
    /// # Panics
    /// If there is no such node.
    #[track_caller]
    pub fn place(&self, node: NodeId) -> Place {
        let ids = |nodes: BTreeSet<u32>| nodes.into_iter().map(NodeId).collect::<Vec<_>>();
        let of = |exchange| (ids(self.receivers(node.0, exchange)), ids(self.senders(node.0, exchange)));
        Place(match &self.ways {
            Ways::Turns(phases) => Ends::Turns((0..phases.len() as u64).map(of).collect()),
            Ways::Drawn { .. } => Ends::Drawn(node, self.clone()),
        })
    }

    /// Whether what anybody has reaches everybody in time; where graphs are drawn, with probability 1.
    pub fn is_connected(&self) -> bool {
        let Ways::Turns(_) = &self.ways else {
            return self.nodes < 2 || !self.receivers(0, 0).is_empty();
        };
        let ahead: Vec<BTreeSet<u32>> = (0..self.nodes).map(|node| self.ever(node)).collect();
        let mut back = vec![BTreeSet::new(); ahead.len()];
        for (from, to) in (0..).zip(&ahead).flat_map(|(from, receivers)| receivers.iter().map(move |&to| (from, to))) {
            back[to as usize].insert(from);
        }
        let reaches_all = |next: &[BTreeSet<u32>]| {
            let (mut reached, mut open) = (BTreeSet::from([0]), vec![0_u32]);
            while let Some(node) = open.pop() {
                open.extend(next[node as usize].iter().filter(|&&other| reached.insert(other)));
            }
            reached.len() == next.len()
        };
        ahead.is_empty() || (reaches_all(&ahead) && reaches_all(&back))
    }

    /// To whom a node ever sends.
    fn ever(&self, node: u32) -> BTreeSet<u32> {
        match &self.ways {
            Ways::Turns(phases) => phases.iter().flat_map(|phase| phase[node as usize].iter().copied()).collect(),
            Ways::Drawn { .. } => (0..self.nodes).filter(|&other| other != node).collect(),
        }
    }
}

impl From<&Topology> for Directed {
    /// Both ways along every edge, always.
    fn from(topology: &Topology) -> Self {
        let phase = (0..topology.nodes()).map(|node| topology.neighbours(node).collect()).collect();
        Self { nodes: topology.nodes(), ways: Ways::Turns(vec![phase]) }
    }
}

/// To whom one node sends, and who sends to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Ends);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ends {
    /// Receivers and senders, for each phase: asked in every exchange, looked for once.
    Turns(Vec<(Vec<NodeId>, Vec<NodeId>)>),
    Drawn(NodeId, Directed),
}

impl Place {
    /// To whom it sends in exchange `k`, and who sends to it, both ascending.
    pub fn at(&self, exchange: u64) -> (Vec<NodeId>, Vec<NodeId>) {
        match &self.0 {
            Ends::Turns(phases) => phases[(exchange % phases.len() as u64) as usize].clone(),
            Ends::Drawn(node, graph) => {
                let ids = |nodes: BTreeSet<u32>| nodes.into_iter().map(NodeId).collect();
                (ids(graph.receivers(node.0, exchange)), ids(graph.senders(node.0, exchange)))
            }
        }
    }

    /// Whether it sends to a node in exchange `k`.
    pub(crate) fn sends(&self, to: NodeId, exchange: u64) -> bool {
        match &self.0 {
            Ends::Turns(phases) => phases[(exchange % phases.len() as u64) as usize].0.contains(&to),
            Ends::Drawn(node, graph) => graph.receivers(node.0, exchange).contains(&to.0),
        }
    }

    /// To whom it may ever send.
    pub fn receivers(&self) -> BTreeSet<NodeId> {
        self.ever(|(receivers, _)| receivers)
    }

    /// Who may ever send to it.
    pub fn senders(&self) -> BTreeSet<NodeId> {
        self.ever(|(_, senders)| senders)
    }

    fn ever(&self, which: impl Fn(&(Vec<NodeId>, Vec<NodeId>)) -> &Vec<NodeId>) -> BTreeSet<NodeId> {
        match &self.0 {
            Ends::Turns(phases) => phases.iter().flat_map(|phase| which(phase).iter().copied()).collect(),
            Ends::Drawn(node, graph) => (0..graph.nodes()).map(NodeId).filter(|other| other != node).collect(),
        }
    }
}
