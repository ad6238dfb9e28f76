//! Who is whose neighbour, and what neighbours tell each other.

use anyhow::{Result, bail};
use clap::Args;
use kronfleet_core::compress::{
    Blockwise, Compressor, Identity, Kept, Quantised, RandomK, Rounding, Short, Sign, TopK,
};
use kronfleet_core::gossip::{Directed, Mixing, Topology, Tuning, tune};
use std::fs;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

/// Who is whose neighbour, and what neighbours tell each other.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Gossip")]
pub struct GossipSettings {
    /// Who is whose neighbour: ring, torus (as square as --nodes allow) or torus:ROWSxCOLUMNS, hypercube, exponential,
    /// complete, dyck or social (32 nodes both), or a file with two nodes in each line; and for gossip:sgp and
    /// gossip:push, who gives to whom: one-peer (exponential, one at a time), directed-exponential or directed-ring
    #[arg(long, default_value = "ring", value_name = "GRAPH|FILE")]
    pub topology: Graph,
    /// What is told of a difference: all (everything), top:SHARE (the largest values), random:SHARE (some values), sign,
    /// bf16, 8bit, or levels:N (N levels above 0, at random)
    #[arg(long, default_value = "top:0.1", value_name = "CODE")]
    pub compress: Code,
    /// How far a model moves towards its neighbours: CHOCO's γ, a part of the way (without this, 0.4); AdaGossip's γ, in
    /// the unit of parameters (without this, 0.01); the part of its weight that a node of gossip:push gives (0.1);
    /// auto tries steps on the graph with the compressor before the run, and counts AdaGossip's in errors as observed
    #[arg(long, value_name = "STEP|auto", value_parser = consensus_step)]
    pub consensus_step: Option<ConsensusStep>,
    /// The largest part of the way that AdaGossip moves a parameter
    #[arg(long, default_value_t = 0.4, value_name = "PART", value_parser = super::positive)]
    pub consensus_cap: f64,
    /// What was found by trial, once for all nodes.
    #[arg(skip)]
    tuned: Arc<OnceLock<f64>>,
}

/// How far a model moves towards its neighbours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ConsensusStep {
    /// So far.
    Fixed(f64),
    /// As trials say.
    Auto,
}

fn consensus_step(text: &str) -> Result<ConsensusStep, String> {
    match text {
        "auto" => Ok(ConsensusStep::Auto),
        _ => super::positive(text).map(ConsensusStep::Fixed).map_err(|error| format!("{error}, nor auto")),
    }
}

impl GossipSettings {
    /// CHOCO's step with which nodes on this graph agree best, by trial; tried once.
    pub fn tuned(&self, mixing: &Mixing) -> f64 {
        *self.tuned.get_or_init(|| {
            // Large fleets tell as much with fewer values.
            let values = (8000 / mixing.nodes().max(1) as usize).clamp(20, 500);
            tune(mixing, &mut *self.compress.compressor(), &Tuning { values, ..Tuning::default() })
        })
    }
}

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
    /// Edges of a file, by its name.
    Edges(String, Vec<(u32, u32)>),
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
            _ => match text.strip_prefix("torus:") {
                Some(sides) => {
                    let sides = sides.split_once('x').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                    let sides = sides.filter(|&(rows, columns): &(u32, u32)| rows > 0 && columns > 0);
                    Self::Torus(Some(sides.ok_or_else(|| format!("{text:?} is no torus; write it as torus:4x8"))?))
                }
                None => edges(text)?,
            },
        })
    }
}

/// Reads edges from a file.
fn edges(name: &str) -> Result<Graph, String> {
    let text = fs::read_to_string(name).map_err(|error| {
        format!(
            "{name:?} is no graph that is known, nor a file that can be read ({error}); use ring, torus, hypercube, \
             exponential, complete, dyck, social or a file with two nodes in each line"
        )
    })?;
    let mut edges = vec![];
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let mut nodes = line.split_whitespace();
        match [nodes.next(), nodes.next(), nodes.next()] {
            [None, ..] => {}
            [Some(a), Some(b), None] => match (a.parse(), b.parse()) {
                (Ok(a), Ok(b)) if a != b => edges.push((a, b)),
                _ => return Err(format!("{name}:{number}: {line:?} is no edge between two nodes; write it as 0 1")),
            },
            _ => return Err(format!("{name}:{number}: {line:?} is no edge between two nodes; write it as 0 1")),
        }
    }
    Ok(Graph::Edges(name.into(), edges))
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
            Self::OneWay { .. } | Self::OneWayRing => {
                bail!(
                    "along the ways of this --topology nobody answers: use --policy gossip:sgp or gossip:push, or a graph \
                     such as exponential"
                )
            }
            Self::Edges(name, edges) => {
                if let Some((a, b)) = edges.iter().find(|&&(a, b)| a >= nodes || b >= nodes) {
                    bail!("{name} has the edge {a} {b}, but --nodes {nodes} are numbered from 0: give more nodes");
                }
                Topology::from_edges(nodes, edges.iter().copied())
            }
        };
        if !topology.is_connected() {
            bail!("not every node can be reached from every other along the edges of --topology: add some");
        }
        Ok(topology)
    }
}

impl Graph {
    /// Who gives to whom among so many nodes: both ways along every edge, where the graph is not a directed one.
    ///
    /// # Errors
    /// As [`topology`](Self::topology).
    pub fn directed(&self, nodes: u32) -> Result<Directed> {
        Ok(match self {
            Self::OneWay { one_peer: true } => Directed::one_peer(nodes),
            Self::OneWay { one_peer: false } => Directed::exponential(nodes),
            Self::OneWayRing => Directed::ring(nodes),
            _ => Directed::from(&self.topology(nodes)?),
        })
    }
}

/// How differences are told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Code {
    /// Everything.
    All,
    /// The largest values.
    Top(Kept),
    /// Some values.
    Random(Kept),
    /// Signs, and a magnitude.
    Sign,
    /// Fewer bits.
    Bf16,
    /// One of 255 levels.
    Blockwise,
    /// One of some levels, at random.
    Levels(u16),
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown =
            || format!("{text:?} is no code; use all, top:0.1, random:0.1, sign, bf16, 8bit or levels:7, for example");
        let kept = |share: &str| share.parse::<Kept>().map_err(|error| format!("{share:?} is {error}"));
        match text.split_once(':') {
            None => match text {
                "all" => Ok(Self::All),
                "sign" => Ok(Self::Sign),
                "bf16" => Ok(Self::Bf16),
                "8bit" => Ok(Self::Blockwise),
                _ => Err(unknown()),
            },
            Some(("top", share)) => kept(share).map(Self::Top),
            Some(("random", share)) => kept(share).map(Self::Random),
            Some(("levels", levels)) => {
                let levels = levels.parse().ok().filter(|levels| (1..=1 << 14).contains(levels));
                levels.map(Self::Levels).ok_or_else(|| format!("{text:?} has no number of levels from 1 to 16384"))
            }
            Some(_) => Err(unknown()),
        }
    }
}

impl Code {
    /// What compresses so, none of them such that differences could grow.
    pub fn compressor(self) -> Box<dyn Compressor<f32>> {
        match self {
            Self::All => Box::new(Identity),
            Self::Top(kept) => Box::new(TopK::new(kept)),
            Self::Random(kept) => Box::new(RandomK::contracting(kept)),
            Self::Sign => Box::new(Sign),
            Self::Bf16 => Box::new(Short::bf16(Rounding::Nearest)),
            Self::Blockwise => Box::new(Blockwise),
            Self::Levels(levels) => Box::new(Quantised::contracting(levels)),
        }
    }
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
        assert!("torus:0x4".parse::<Graph>().is_err());
        let one_way: Graph = "one-peer".parse().expect("a graph");
        assert_eq!(one_way.directed(8).expect("a graph of 8").phases(), 3);
        assert!(one_way.topology(8).expect_err("one way only").to_string().contains("gossip:sgp"));
        assert_eq!(
            "ring".parse::<Graph>().expect("a graph").directed(5).expect("both ways").receivers(0, 7).count(),
            2
        );
    }

    #[test]
    fn graphs_come_from_files() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("graph.txt");
        let name = file.to_str().expect("a name in UTF-8");
        fs::write(&file, "# three in a row\n0 1\n\n1 2 # the other\n")?;
        let graph: Graph = name.parse().expect("a graph");
        assert_eq!(graph.topology(3)?, Topology::from_edges(3, [(0, 1), (1, 2)]));
        assert!(graph.topology(4).expect_err("nobody knows 3").to_string().contains("add some"));
        assert!(graph.topology(2).expect_err("there is no 2").to_string().contains("1 2"));
        fs::write(&file, "0 1\n1\n")?;
        assert!(name.parse::<Graph>().expect_err("half an edge").contains(":2: \"1\""));
        assert!("nowhere".parse::<Graph>().expect_err("no file").contains("ring, torus"));
        Ok(())
    }

    #[test]
    fn codes_are_read() {
        let tenth: Kept = "0.1".parse().expect("a fraction");
        assert_eq!("top:0.1".parse(), Ok(Code::Top(tenth)));
        assert_eq!("levels:7".parse(), Ok(Code::Levels(7)));
        for text in ["top", "top:2", "levels:0", "zip", "zip:3"] {
            assert!(text.parse::<Code>().is_err(), "{text}");
        }
    }
}
