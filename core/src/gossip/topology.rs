//! Who is whose neighbour.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// An undirected graph of nodes `0..n`, without loops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    neighbours: Vec<BTreeSet<u32>>,
}

impl Topology {
    /// The graph with these edges, each given once or twice, in either direction.
    ///
    /// # Panics
    /// If an edge leads to a node that there is not, or from a node to itself.
    #[track_caller]
    pub fn from_edges(nodes: u32, edges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut neighbours = vec![BTreeSet::new(); nodes as usize];
        for (a, b) in edges {
            assert!(a < nodes && b < nodes && a != b, "{a}–{b} is no edge between two of {nodes} nodes");
            neighbours[a as usize].insert(b);
            neighbours[b as usize].insert(a);
        }
        Self { neighbours }
    }

    /// Edges from each node to those that `others` names, which may be itself.
    fn from_each<I: IntoIterator<Item = u32>>(nodes: u32, others: impl Fn(u32) -> I) -> Self {
        let edges = (0..nodes).flat_map(|node| others(node).into_iter().map(move |other| (node, other)));
        Self::from_edges(nodes, edges.filter(|(a, b)| a != b))
    }

    /// A circle.
    pub fn ring(nodes: u32) -> Self {
        Self::from_each(nodes, |node| [(node + 1) % nodes])
    }

    /// A grid whose rows and columns are circles.
    pub fn torus(rows: u32, columns: u32) -> Self {
        Self::from_each(rows * columns, |node| {
            let (row, column) = (node / columns, node % columns);
            [row * columns + (column + 1) % columns, (row + 1) % rows * columns + column]
        })
    }

    /// Everybody whose number differs in one of `dimensions` bits.
    pub fn hypercube(dimensions: u32) -> Self {
        Self::from_each(1 << dimensions, |node| (0..dimensions).map(move |bit| node ^ (1 << bit)))
    }

    /// Everybody at a distance of a power of two on a circle.
    pub fn exponential(nodes: u32) -> Self {
        let powers = (0..32).map(|power| 1_u64 << power).take_while(move |&power| power < u64::from(nodes));
        Self::from_each(nodes, |node| {
            powers.clone().map(move |power| ((u64::from(node) + power) % u64::from(nodes)) as u32)
        })
    }

    /// Everybody with everybody.
    pub fn complete(nodes: u32) -> Self {
        Self::from_each(nodes, |node| 0..node)
    }

    /// The Dyck graph: 32 nodes with three neighbours each, no circle shorter than six.
    pub fn dyck() -> Self {
        // In the notation of Lederberg, Coxeter and Frucht: a circle, and from each node a chord of this length.
        const CHORDS: [i32; 4] = [5, -5, 13, -13];
        Self::from_each(32, |node| [(node + 1) % 32, (node as i32 + CHORDS[node as usize % 4]).rem_euclid(32) as u32])
    }

    /// Who of 18 women (nodes 0 to 17) was seen at which of 14 events (nodes 18 to 31), Natchez 1936 (Davis, Gardner &
    /// Gardner 1941): the social network on which gossip is measured.
    pub fn social() -> Self {
        const EVENTS: [&[u32]; 18] = [
            &[1, 2, 3, 4, 5, 6, 8, 9],
            &[1, 2, 3, 5, 6, 7, 8],
            &[2, 3, 4, 5, 6, 7, 8, 9],
            &[1, 3, 4, 5, 6, 7, 8],
            &[3, 4, 5, 7],
            &[3, 5, 6, 8],
            &[5, 6, 7, 8],
            &[6, 8, 9],
            &[5, 7, 8, 9],
            &[7, 8, 9, 12],
            &[8, 9, 10, 12],
            &[8, 9, 10, 12, 13, 14],
            &[7, 8, 9, 10, 12, 13, 14],
            &[6, 7, 9, 10, 11, 12, 13, 14],
            &[7, 8, 10, 11, 12],
            &[8, 9],
            &[9, 11],
            &[9, 11],
        ];
        let events = |woman: u32| EVENTS.get(woman as usize).copied().unwrap_or_default();
        Self::from_each(32, |woman| events(woman).iter().map(|event| 17 + event))
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> u32 {
        self.neighbours.len() as u32
    }

    /// The neighbours of a node, ascending.
    ///
    /// # Panics
    /// If there is no such node.
    #[track_caller]
    pub fn neighbours(&self, node: u32) -> impl ExactSizeIterator<Item = u32> + Clone {
        self.neighbours[node as usize].iter().copied()
    }

    /// Whether there is a way from everybody to everybody.
    pub fn is_connected(&self) -> bool {
        let (mut reached, mut open) = (BTreeSet::from([0]), vec![0_u32]);
        while let Some(node) = open.pop() {
            let Some(neighbours) = self.neighbours.get(node as usize) else { return true };
            open.extend(neighbours.iter().filter(|&&other| reached.insert(other)));
        }
        reached.len() == self.neighbours.len()
    }
}
