//! Who is whose neighbour, and who gives to whom.

use anyhow::{Result, bail};
use kronfleet_core::gossip::{Directed, Topology};
use kronfleet_core::seed::Seed;
use std::collections::BTreeSet;
use std::fs;
use std::str::FromStr;

/// Who is whose neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Graph {
    /// A circle.
    Ring,
    /// A grid whose rows and columns are circles; as square as it can be, unless it says how many there are.
    Torus(Option<(u32, u32)>),
    /// Numbers that differ in one bit.
    Hypercube,
    /// Distances on a circle that are powers of two.
    Exponential,
    /// Everybody.
    Complete,
    /// The Dyck graph.
    Dyck,
    /// Who was seen where.
    Social,
    /// Distances on a circle that are powers of two, one way: one after the other, or all at once.
    OneWay {
        /// One after the other.
        one_peer: bool,
    },
    /// A circle, one way.
    OneWayRing,
    /// Others drawn anew for every exchange.
    OneWayRandom {
        /// How many.
        receivers: u32,
        /// From what.
        seed: u64,
    },
    /// Edges of a file, by its name, for each of some phases.
    File(String, Vec<Vec<Edge>>),
}

/// A line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    ends: (u32, u32),
    one_way: bool,
}

impl FromStr for Graph {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "ring" => Self::Ring,
            "torus" => Self::Torus(None),
            "hypercube" => Self::Hypercube,
            "exponential" => Self::Exponential,
            "complete" => Self::Complete,
            "dyck" => Self::Dyck,
            "social" => Self::Social,
            "one-peer" => Self::OneWay { one_peer: true },
            "directed-exponential" => Self::OneWay { one_peer: false },
            "directed-ring" => Self::OneWayRing,
            _ => match (text.strip_prefix("torus:"), text.strip_prefix("directed-random:")) {
                (_, Some(numbers)) => {
                    let (receivers, seed) = numbers.split_once(':').unwrap_or((numbers, "0"));
                    let unknown = || format!("{text:?} does not say how many others; write it as directed-random:2");
                    let receivers =
                        receivers.parse().ok().filter(|&receivers: &u32| receivers > 0).ok_or_else(unknown)?;
                    let seed = seed.parse().map_err(|_| {
                        format!("{seed:?} in {text:?} is no seed; write it as directed-random:{receivers}:7")
                    })?;
                    Self::OneWayRandom { receivers, seed }
                }
                (Some(sides), _) => {
                    let sides = sides.split_once('x').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                    let sides = sides.filter(|&(rows, columns): &(u32, u32)| rows > 0 && columns > 0);
                    Self::Torus(Some(sides.ok_or_else(|| format!("{text:?} is no torus; write it as torus:4x8"))?))
                }
                (None, None) => edges(text)?,
            },
        })
    }
}

/// Reads edges from a file.
fn edges(name: &str) -> Result<Graph, String> {
    let text = fs::read_to_string(name).map_err(|error| {
        format!(
            "{name:?} is no graph that is known, nor a file that can be read ({error}); use ring, torus, hypercube, \
             exponential, complete, dyck, social, one-peer, directed-exponential, directed-ring, directed-random:2 or a \
             file with two nodes in each line"
        )
    })?;
    let mut phases = vec![vec![]];
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = || {
            format!(
                "{name}:{number}: {line:?} is no edge between two nodes; write it as 0 1, or 0 -> 1 for one way; --- \
                 begins what comes next in turn"
            )
        };
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let (a, b, one_way) = match words[..] {
            [] => continue,
            ["---"] => {
                phases.push(vec![]);
                continue;
            }
            [a, b] => (a, b, false),
            [a, "->", b] => (a, b, true),
            _ => return Err(wrong()),
        };
        match (a.parse(), b.parse()) {
            (Ok(a), Ok(b)) if a != b => phases.last_mut().expect("one at least").push(Edge { ends: (a, b), one_way }),
            _ => return Err(wrong()),
        }
    }
    Ok(Graph::File(name.into(), phases))
}

impl Graph {
    /// The graph of so many nodes.
    ///
    /// # Errors
    /// If there is none, or not everybody can be reached.
    pub fn topology(&self, nodes: u32) -> Result<Topology> {
        let topology = match self {
            Self::Ring => Topology::ring(nodes),
            Self::Torus(None) => {
                let rows = (1..=nodes).filter(|&rows| rows * rows <= nodes && nodes.is_multiple_of(rows)).max();
                let rows = rows.unwrap_or(1);
                Topology::torus(rows, nodes / rows)
            }
            Self::Torus(Some((rows, columns))) => {
                if u64::from(*rows) * u64::from(*columns) != u64::from(nodes) {
                    bail!(
                        "--topology torus:{rows}x{columns} has other than --nodes {nodes}: let the product be {nodes}"
                    );
                }
                Topology::torus(*rows, *columns)
            }
            Self::Hypercube => {
                if !nodes.is_power_of_two() {
                    bail!("--topology hypercube has a power of two of nodes, not --nodes {nodes}");
                }
                Topology::hypercube(nodes.ilog2())
            }
            Self::Exponential => Topology::exponential(nodes),
            Self::Complete => Topology::complete(nodes),
            Self::Dyck | Self::Social if nodes != 32 => {
                bail!(
                    "the graphs dyck and social have 32 nodes: give --nodes 32 instead of {nodes}, or another --topology"
                )
            }
            Self::Dyck => Topology::dyck(),
            Self::Social => Topology::social(),
            Self::File(name, phases) if !is_one_way(phases) => {
                check(name, phases, nodes)?;
                Topology::from_edges(nodes, phases.iter().flatten().map(|edge| edge.ends))
            }
            Self::OneWay { .. } | Self::OneWayRing | Self::OneWayRandom { .. } | Self::File(..) => {
                bail!(
                    "along the ways of this --topology nobody answers: use --policy gossip:sgp, gossip:push or \
                     gossip:push-ada, or a graph such as exponential"
                )
            }
        };
        if let Some(node) = unreached(nodes, |node| topology.neighbours(node).collect()) {
            bail!("{}: no way leads from node 0 to node {node} along its edges: add some", self.name());
        }
        Ok(topology)
    }
}

impl Graph {
    /// Who gives to whom among so many nodes: both ways along every edge, where the graph is not a directed one.
    ///
    /// # Errors
    /// If there is no such graph, or not everybody is reached in time.
    pub fn directed(&self, nodes: u32) -> Result<Directed> {
        let graph = match self {
            Self::OneWay { one_peer: true } => Directed::one_peer(nodes),
            Self::OneWay { one_peer: false } => Directed::exponential(nodes),
            Self::OneWayRing => Directed::ring(nodes),
            &Self::OneWayRandom { receivers, .. } if receivers >= nodes => {
                bail!("--topology directed-random:{receivers} asks for more than the others of --nodes {nodes}")
            }
            &Self::OneWayRandom { receivers, seed } => Directed::random(nodes, receivers, Seed(seed).derive("ways", 0)),
            Self::File(name, phases) if is_one_way(phases) => {
                check(name, phases, nodes)?;
                let ways = |edge: &Edge| {
                    let (a, b) = edge.ends;
                    [Some((a, b)), (!edge.one_way).then_some((b, a))].into_iter().flatten()
                };
                Directed::from_edges(nodes, phases.iter().map(|phase| phase.iter().flat_map(ways).collect::<Vec<_>>()))
            }
            _ => Directed::from(&self.topology(nodes)?),
        };
        if !graph.is_connected() {
            let turns = || 0..graph.phases().unwrap_or(1);
            let ahead = unreached(nodes, |node| turns().flat_map(|turn| graph.receivers(node, turn)).collect());
            let back = unreached(nodes, |node| turns().flat_map(|turn| graph.senders(node, turn)).collect());
            let (from, to) = ahead.map_or((back.unwrap_or_default(), 0), |node| (0, node));
            bail!("{}: what node {from} gives never reaches node {to}: add some ways", self.name());
        }
        Ok(graph)
    }

    /// The file that it is from, if it is from one.
    fn name(&self) -> &str {
        if let Self::File(name, _) = self { name } else { "--topology" }
    }
}

/// A node to which no way leads from node 0, with the next ones of each.
fn unreached(nodes: u32, next: impl Fn(u32) -> Vec<u32>) -> Option<u32> {
    let mut open: Vec<u32> = (0..nodes).take(1).collect();
    let mut reached: BTreeSet<u32> = open.iter().copied().collect();
    while let Some(node) = open.pop() {
        open.extend(next(node).into_iter().filter(|&other| reached.insert(other)));
    }
    (0..nodes).find(|node| !reached.contains(node))
}

/// Whether edges are not all both ways and always.
fn is_one_way(phases: &[Vec<Edge>]) -> bool {
    phases.len() > 1 || phases.iter().flatten().any(|edge| edge.one_way)
}

fn check(name: &str, phases: &[Vec<Edge>], nodes: u32) -> Result<()> {
    let outside = |&&Edge { ends: (a, b), .. }: &&Edge| a >= nodes || b >= nodes;
    if let Some(Edge { ends: (a, b), .. }) = phases.iter().flatten().find(outside) {
        bail!("{name} has the edge {a} {b}, but --nodes {nodes} are numbered from 0: give more nodes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_have_as_many_nodes_as_there_are() {
        for (text, nodes, edges) in
            [("ring", 16, 16), ("torus", 12, 24), ("torus:2x8", 16, 24), ("complete", 5, 10), ("dyck", 32, 48)]
        {
            let topology = text.parse::<Graph>().expect(text).topology(nodes).expect(text);
            let degrees: usize = (0..nodes).map(|node| topology.neighbours(node).len()).sum();
            assert_eq!((topology.nodes(), degrees), (nodes, 2 * edges), "{text}");
        }
        for (text, nodes, words) in
            [("hypercube", 12, "a power of two"), ("dyck", 8, "--nodes 32"), ("torus:4x8", 16, "let the product be 16")]
        {
            let error = text.parse::<Graph>().expect(text).topology(nodes).expect_err(text).to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!("torus:0x4".parse::<Graph>().is_err() && "directed-random:0".parse::<Graph>().is_err());
        let error = "directed-random:2:x".parse::<Graph>().expect_err("no seed");
        assert!(error.contains("\"x\"") && error.contains("no seed"), "{error}");
        let drawn: Graph = "directed-random:2:7".parse().expect("a graph");
        let (graph, other) = (drawn.directed(8).expect("a graph"), "directed-random:2:8".parse::<Graph>());
        assert!((0..4).all(|exchange| graph.receivers(3, exchange).len() == 2));
        assert!(other.expect("a graph").directed(8).expect("a graph") != graph);
        assert!(drawn.directed(2).expect_err("one other").to_string().contains("--nodes 2"));
        let one_way: Graph = "one-peer".parse().expect("a graph");
        assert_eq!(one_way.directed(8).expect("a graph of 8").phases(), Some(3));
        assert!(one_way.topology(8).expect_err("one way only").to_string().contains("gossip:sgp"));
        assert_eq!("ring".parse::<Graph>().expect("a graph").directed(5).expect("both ways").receivers(0, 7).len(), 2);
    }

    #[test]
    fn graphs_come_from_files() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("graph.txt");
        let name = file.to_str().expect("a name in UTF-8");
        fs::write(&file, "# three in a row\n0 1\n\n1 2 # the other\n")?;
        let graph: Graph = name.parse().expect("a graph");
        assert_eq!(graph.topology(3)?, Topology::from_edges(3, [(0, 1), (1, 2)]));
        let error = graph.topology(5).expect_err("nobody knows 3").to_string();
        assert!(error.contains(name) && error.contains("from node 0 to node 3"), "{error}");
        assert!(graph.topology(2).expect_err("there is no 2").to_string().contains("1 2"));
        fs::write(&file, "0 1\n1\n")?;
        assert!(name.parse::<Graph>().expect_err("half an edge").contains(":2: \"1\""));
        fs::write(&file, "0 -> 1\n1 -> 2\n---\n2 0\n")?;
        let graph: Graph = name.parse().expect("a directed graph");
        let directed = graph.directed(3)?;
        assert_eq!(directed, Directed::from_edges(3, [vec![(0, 1), (1, 2)], vec![(2, 0), (0, 2)]]));
        assert!(graph.topology(3).expect_err("one way only").to_string().contains("gossip:sgp"));
        assert!(graph.directed(2).expect_err("there is no 2").to_string().contains("1 2"));
        fs::write(&file, "0 -> 1\n2 -> 1\n")?;
        let graph: Graph = name.parse().expect("a directed graph");
        let error = graph.directed(3).expect_err("0 gives to 1 alone").to_string();
        assert!(error.contains(name) && error.contains("what node 0 gives never reaches node 2"), "{error}");
        fs::write(&file, "0 -> 1\n0 -> 2\n---\n1 2\n")?;
        let graph: Graph = name.parse().expect("a directed graph");
        let error = graph.directed(3).expect_err("nobody gives to 0").to_string();
        assert!(error.contains(name) && error.contains("what node 1 gives never reaches node 0"), "{error}");
        fs::write(&file, "---\n")?;
        let graph: Graph = name.parse().expect("a graph of nothing");
        let error = graph.directed(2).expect_err("nobody gives anything").to_string();
        assert!(error.contains(name) && error.contains("what node 0 gives never reaches node 1"), "{error}");
        assert!("nowhere".parse::<Graph>().expect_err("no file").contains("ring, torus"));
        Ok(())
    }
}
