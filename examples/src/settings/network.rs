//! The simulated network: links, outages, traces.

use super::averaging::AveragingSettings;
use super::division::Division;
use super::faults::{LinkCut, LinkPartition, NodeCrash};
use super::line::Line;
use super::pace::SlowNodes;
use clap::{Args, ValueEnum};
use kronfleet_core::time::Duration;
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::fault::FaultSchedule;
use kronfleet_lossy::link::LinkOptions;
use kronfleet_lossy::outage::{OfflineCap, OutageModel, OutageOptions};
use kronfleet_lossy::site::Sites;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What drives the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// Virtual time: one seed gives one run, byte for byte.
    Virtual,
    /// Real threads and real time.
    Threads,
}

/// When nodes go offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutageKind {
    /// Never.
    None,
    /// Whenever a node has been offline for less than its share of the time.
    TimeFraction,
    /// With this probability at each averaging.
    Bernoulli,
}

/// The simulated network: links, outages, traces.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkSettings {
    /// What drives the nodes
    #[arg(long, value_enum, default_value_t = Driver::Virtual)]
    pub driver: Driver,
    /// When nodes go offline
    #[arg(long, value_enum, default_value_t = OutageKind::TimeFraction)]
    pub outages: OutageKind,
    /// The share of the time a node is offline (bernoulli: the probability per averaging)
    #[arg(long, default_value = "0.4", value_name = "SHARE", value_parser = super::fraction)]
    pub offline_fraction: f64,
    /// The longest outage, in iterations; on real threads, of --step-duration each by the clock
    #[arg(long, default_value_t = 9, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_duration: u64,
    /// How many nodes may be offline at once: a number, P/2, or P-1
    #[arg(long, default_value = "P/2", value_name = "CAP")]
    pub max_offline: OfflineCap,
    /// How long a training step takes in virtual time. On real threads a step takes the time it takes; outages begin and
    /// end by the clock, as if steps took this long
    #[arg(long, default_value = "100ms", value_name = "SPAN", value_parser = super::span)]
    pub step_duration: Duration,
    /// Nodes whose steps take so many times as long: 4x:6,7; may be given several times. In virtual time; on real threads a
    /// step takes the time it takes
    #[arg(long, value_name = "TIMESx:NODES")]
    pub slow_nodes: Vec<SlowNodes>,
    /// Nodes are told of outages by the network at once, instead of having to notice them
    #[arg(long)]
    pub reports: bool,
    /// Share of frames lost
    #[arg(long, default_value = "0", value_name = "SHARE", value_parser = super::fraction)]
    pub loss: f64,
    /// Share of frames delivered twice
    #[arg(long, default_value = "0", value_name = "SHARE", value_parser = super::fraction)]
    pub duplicate: f64,
    /// Share of frames held back so that later ones overtake them
    #[arg(long, default_value = "0", value_name = "SHARE", value_parser = super::fraction)]
    pub reorder: f64,
    /// How long a frame travels
    #[arg(long, default_value = "200us", value_name = "SPAN", value_parser = super::span)]
    pub latency: Duration,
    /// How much longer or shorter a frame may travel
    #[arg(long, default_value = "0ms", value_name = "SPAN", value_parser = super::span)]
    pub jitter: Duration,
    /// Bytes per second of each link; without it there is no bound
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub bandwidth: Option<u64>,
    /// How fast links within a site are, as what they carry and how long a frame travels: 300Gb/s:5us (bits) or 40GB/s:5us
    /// (bytes). Each node has a link of its own to each other of its site; how many sites there are is --sites
    #[arg(long, value_name = "SPEED[:SPAN]", requires = "slow_link", conflicts_with_all = ["bandwidth", "latency"])]
    pub fast_link: Option<Line>,
    /// How fast the line of each site to all others is: what its nodes send there goes over it one frame after another
    #[arg(long, value_name = "SPEED[:SPAN]", requires = "fast_link", conflicts_with_all = ["bandwidth", "latency"])]
    pub slow_link: Option<Line>,
    /// Groups of nodes do not hear each other for a time: 20s..30s:0,1|2,3; may be given several times
    #[arg(long, value_name = "WHEN:NODES|NODES")]
    pub link_partition: Vec<LinkPartition>,
    /// Nodes are not heard by others for a time, but hear them: 20s..30s:0,1>2,3; may be given several times
    #[arg(long, value_name = "WHEN:NODES>NODES")]
    pub link_cut: Vec<LinkCut>,
    /// Nodes die and are started again with nothing in memory: 20s..30s:3,4; may be given several times
    #[arg(long, value_name = "WHEN:NODES")]
    pub crash: Vec<NodeCrash>,
    /// Record the run in this file: its options, its faults and every frame
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Repeat a recorded run: a trace, and check that it is the same to the byte; or the run folder of `shm` or `tcp`, whose
    /// event logs tell what went wrong and when, and say how far it is the same
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    pub replay: Option<PathBuf>,
}

impl NetworkSettings {
    /// How the links behave; with sites, those between them.
    pub fn link(&self) -> LinkOptions {
        let link = LinkOptions {
            loss: self.loss,
            duplicate: self.duplicate,
            reorder: self.reorder,
            latency: self.latency,
            jitter: self.jitter,
            bandwidth: self.bandwidth,
            ..LinkOptions::default()
        };
        self.slow_link.map_or(link.clone(), |line| line.link(link))
    }

    /// The sites that so many nodes are divided into, and their links, if these are faster.
    pub fn sites(&self, nodes: u32, division: &Division) -> Option<Sites> {
        let inside = self.fast_link?.link(self.link());
        Some(Sites { groups: division.groups(nodes), inside })
    }

    /// How long a step of `node` takes in virtual time.
    pub fn step_of(&self, node: NodeId) -> Duration {
        let usual = self.step_duration;
        self.slow_nodes.iter().find_map(|slow| slow.step(node, usual)).unwrap_or(usual)
    }

    /// Adds partitions, cuts and crashes to what goes wrong among so many nodes.
    ///
    /// # Errors
    /// If one names a node that there is not.
    pub fn extend(&self, schedule: &mut FaultSchedule, nodes: u32) -> Result<(), String> {
        for partition in &self.link_partition {
            check("link-partition", partition.nodes(), nodes)?;
            partition.extend(schedule);
        }
        for cut in &self.link_cut {
            check("link-cut", cut.nodes(), nodes)?;
            cut.extend(schedule);
        }
        for crash in &self.crash {
            check("crash", crash.nodes(), nodes)?;
            crash.extend(schedule);
        }
        Ok(())
    }

    /// Whether rounds and exchanges can ever come to an end on such links.
    ///
    /// # Errors
    /// If not, with the remedy.
    pub fn check(&self, averaging: &AveragingSettings) -> Result<(), String> {
        let travels = self.slow_link.map_or(self.latency, |line| line.latency);
        let travels = self.fast_link.map_or(travels, |line| travels.max(line.latency));
        let (longest, budget) = (travels + self.jitter, averaging.stall_budget);
        if (averaging.policy.averages() || averaging.policy.gossips()) && longest >= budget {
            return Err(format!(
                "frames that travel {longest:?} cannot keep a --stall-budget of {budget:?}: give several times as much, or \
                 less --latency and --jitter"
            ));
        }
        let nodes = averaging.nodes;
        if self.fast_link.is_some() {
            averaging.sharing.sites.check(nodes)?;
        }
        if self.step_duration == Duration::ZERO {
            return Err("--step-duration 0 leaves no time for outages: give some, such as 100ms".to_owned());
        }
        if let OfflineCap::Nodes(cap) = self.max_offline
            && cap > nodes
        {
            return Err(format!("--max-offline {cap} of --nodes {nodes}: give at most {nodes}, or P/2 or P-1"));
        }
        self.check_paces(nodes)
    }

    fn check_paces(&self, nodes: u32) -> Result<(), String> {
        if !self.slow_nodes.is_empty() && self.driver == Driver::Threads {
            return Err(
                "on real threads steps take the time they take: leave out --slow-nodes, or use --driver virtual"
                    .to_owned(),
            );
        }
        let mut named = BTreeSet::new();
        for slow in &self.slow_nodes {
            check("slow-nodes", slow.nodes(), nodes)?;
            if let Some(node) = slow.nodes().find(|&node| !named.insert(node)) {
                return Err(format!("--slow-nodes names {node} twice: say once how slow it is"));
            }
        }
        Ok(())
    }

    /// What the outages that are asked for cannot be among so many nodes, in words.
    pub fn caution(&self, nodes: u32) -> Option<String> {
        let options = self.outage_options();
        let OutageModel::TimeFraction { fraction, .. } = options.model else { return None };
        let (cap, attainable) = (options.max_concurrent_offline, options.attainable(nodes));
        (fraction > attainable + 1e-9).then(|| {
            format!(
                "of {nodes} nodes at most {} offline at once (--max-offline {cap}), outages of at most {} iterations: \
                 an offline fraction of {fraction} cannot be realised, {attainable:.2} at most; the tables show what was",
                cap.of(nodes),
                self.max_duration,
            )
        })
    }

    /// What outages there are.
    pub fn outage_options(&self) -> OutageOptions {
        let (fraction, max_duration) = (self.offline_fraction, self.max_duration);
        let model = match self.outages {
            OutageKind::TimeFraction if fraction > 0.0 => OutageModel::TimeFraction { fraction, max_duration },
            OutageKind::Bernoulli if fraction > 0.0 => OutageModel::Bernoulli { probability: fraction, max_duration },
            _ => OutageModel::None,
        };
        OutageOptions { model, max_concurrent_offline: self.max_offline }
    }
}

fn check(flag: &str, mut named: impl Iterator<Item = NodeId>, nodes: u32) -> Result<(), String> {
    match named.find(|node| node.0 >= nodes) {
        Some(node) => Err(format!("--{flag} names {node}, but the nodes are n0 to n{}", nodes - 1)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        network: NetworkSettings,
        #[command(flatten)]
        averaging: AveragingSettings,
    }

    #[test]
    fn no_more_nodes_are_offline_than_there_are() {
        let checked = |cap: &str| {
            let program = Program::parse_from(["program", "--nodes", "4", "--max-offline", cap]);
            program.network.check(&program.averaging)
        };
        assert_eq!(["4", "0", "P-9", "P/1"].map(checked), [const { Ok(()) }; 4]);
        let error = checked("9").expect_err("there are four");
        assert!(error.contains("--max-offline 9") && error.contains("at most 4"), "{error}");
    }
}
