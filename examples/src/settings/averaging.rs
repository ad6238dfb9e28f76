//! Who trains, and how nodes stay together.

use anyhow::{Result, anyhow, bail};
use clap::{Args, ValueEnum};
use kronfleet_core::cluster::{Budget, Incarnation, Mode, Quarantine, RunId, Settings, Shortage};
use kronfleet_core::policy::{AveragingPolicy, Local, Missed, Periodic, Rejoin, Request};
use kronfleet_core::time::Duration;
use kronfleet_core::transport::NodeId;

/// How nodes stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Not at all: every node trains alone.
    Local,
    /// All that are online average their weights every so many iterations.
    Periodic,
    /// A baseline without any protocol: one model, each gradient the sum over the online nodes divided by the number of
    /// all nodes, as if those that are offline contributed zeros.
    Zeros,
}

/// Who trains, and how nodes stay together.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Averaging")]
pub struct AveragingSettings {
    /// How many nodes train
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub nodes: u32,
    /// How nodes stay together
    #[arg(long, value_enum, default_value_t = Policy::Periodic)]
    pub policy: Policy,
    /// Iterations between two averagings
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub interval: u64,
    /// After an averaging that a node missed: wait (for its next one) or retry (after every iteration)
    #[arg(long, default_value = "retry", value_name = "wait|retry", value_parser = missed)]
    pub missed: Missed,
    /// Average the Kronecker factors too
    #[arg(long)]
    pub average_factors: bool,
    /// Average the optimiser's state too
    #[arg(long)]
    pub average_optimiser: bool,
    /// Do not average the running statistics of normalisation layers
    #[arg(long)]
    pub local_statistics: bool,
    /// How a node that was away comes back: full (with what it has, however stale), progress (that counts less the more
    /// rounds it has missed) or heal (with the fleet's state; what it trained alone is lost)
    #[arg(long, default_value = "full", value_name = "full|progress|heal", value_parser = rejoin)]
    pub rejoin: Rejoin,
    /// Nodes that a round needs: with fewer online, nodes wait and say for whom. Without this, whoever finds nobody to
    /// average with trains on alone
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub min_members: Option<u32>,
    /// Let a node that was lost N times in short order sit out rounds when it comes back, for ever longer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub quarantine: Option<u32>,
    /// Which rounds may commit while nodes cannot reach each other: available (whoever can reach each other goes on, and
    /// histories that part merge later) or strict (one history: a majority of --nodes has to make each average durable,
    /// and without a majority nothing commits)
    #[arg(long, default_value = "available", value_name = "available|strict", value_parser = mode)]
    pub mode: Mode,
    /// How long a lost node may stall the others; every timeout is derived from it. On real threads it should be several
    /// times as long as a round's iterations of one node differ from another's
    #[arg(long, default_value = "50ms", value_name = "SPAN", value_parser = super::span)]
    pub stall_budget: Duration,
}

fn mode(text: &str) -> std::result::Result<Mode, String> {
    match text {
        "available" => Ok(Mode::Available),
        "strict" => Ok(Mode::Strict),
        _ => Err(format!("{text:?} is no mode; use available or strict")),
    }
}

fn missed(text: &str) -> std::result::Result<Missed, String> {
    match text {
        "wait" => Ok(Missed::Wait),
        "retry" => Ok(Missed::Retry),
        _ => Err(format!("{text:?} is nothing to do after a missed averaging; use wait or retry")),
    }
}

fn rejoin(text: &str) -> std::result::Result<Rejoin, String> {
    match text {
        "full" => Ok(Rejoin::FullWeight),
        "progress" => Ok(Rejoin::ByProgress),
        "heal" => Ok(Rejoin::HealFirst),
        _ => Err(format!("{text:?} is no way to come back; use full, progress or heal")),
    }
}

impl AveragingSettings {
    /// What all timeouts follow from.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn budget(&self) -> Result<Budget> {
        Budget::new(self.stall_budget).map_err(|error| anyhow!("--stall-budget: {error}"))
    }

    /// The cluster settings of one node.
    ///
    /// # Errors
    /// If they do not fit each other.
    pub fn cluster(&self, run: RunId, node: NodeId, incarnation: Incarnation) -> Result<Settings> {
        let budget = self.budget()?;
        let peers = (0..self.nodes).map(NodeId).collect();
        let mut settings = Settings::new(run, node, incarnation, peers, budget);
        settings.mode = self.mode;
        settings.quarantine = self.quarantine.map(Quarantine::after);
        if let Some(minimum) = self.min_members {
            if minimum > self.nodes {
                bail!("--min-members {minimum} can never be online: there are --nodes {}", self.nodes);
            }
            settings.minimum = minimum as usize;
            settings.shortage = Shortage::Wait;
        }
        Ok(settings)
    }

    /// The policy of one node.
    pub fn policy(&self) -> Box<dyn AveragingPolicy> {
        match self.policy {
            Policy::Local | Policy::Zeros => Box::new(Local),
            Policy::Periodic => {
                let request = Request {
                    running: !self.local_statistics,
                    factors: self.average_factors,
                    optimiser: self.average_optimiser,
                    ..Request::default()
                };
                let mut policy = Periodic::new(self.interval);
                policy.request = request;
                policy.rejoin = self.rejoin;
                policy.missed = self.missed;
                Box::new(policy)
            }
        }
    }
}
