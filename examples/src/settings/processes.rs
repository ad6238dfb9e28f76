//! Nodes in processes of their own.

use super::KillAt;
use clap::Args;
use kronfleet_core::time::Duration;
use std::path::PathBuf;

/// Nodes in processes of their own: what is done to them, and what a process is told by the one that started it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Processes")]
pub struct ProcessSettings {
    /// How many times a process is killed on the way, and started again
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub kills: u32,
    /// How long a killed process stays away
    #[arg(long, default_value = "1s", value_name = "SPAN", value_parser = super::span)]
    pub away: Duration,
    /// For so long, kill or start a process every half second to two seconds, two to all of them living at any time; then
    /// start all and let them train to the end
    #[arg(long, value_name = "SPAN", value_parser = super::span, conflicts_with_all = ["kills", "away"])]
    pub churn: Option<Duration>,
    /// Kill a node at a point of the protocol: 1.2:done:3 kills the second start of n1 when it records `done` for the third
    /// time, before anybody hears of it; may be given several times
    #[arg(long, value_name = "NODE.START:RECORD:COUNT")]
    pub kill_at: Vec<KillAt>,
    /// Where nodes keep what has to outlive them in strict mode; a run that finds it goes on from the last committed
    /// average, even if all processes were killed
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Which node this process is; told by the process that starts it
    #[arg(long, hide = true, requires = "session")]
    pub rank: Option<u32>,
    /// Which start of the node it is
    #[arg(long, hide = true, default_value_t = 1)]
    pub start: u64,
    /// What this run is called on this machine, apart from others that run at the same time
    #[arg(long, hide = true)]
    pub session: Option<String>,
    /// The folder of event logs
    #[arg(long, hide = true)]
    pub events: Option<PathBuf>,
    /// Whether it is the node's first start of this run
    #[arg(long, hide = true)]
    pub first: bool,
    /// Whether others are on other machines and may need this node when it is finished
    #[arg(long, hide = true)]
    pub elsewhere: bool,
}
