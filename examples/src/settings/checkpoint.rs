//! Going on after an interruption.

use clap::Args;
use std::path::PathBuf;

/// Going on after an interruption.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Checkpoints")]
pub struct CheckpointSettings {
    /// Write checkpoints into this folder; the last one is written when the run ends or is interrupted
    #[arg(long, value_name = "DIR", conflicts_with = "replay")]
    pub checkpoint: Option<PathBuf>,
    /// Iterations between two checkpoints, of the node that is furthest
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub every: u64,
    /// How many checkpoints to keep, the newest
    #[arg(long, default_value_t = 3, value_name = "K", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub keep: u64,
    /// Go on from the newest checkpoint in this folder, or from this very checkpoint: to the byte with the same
    /// settings, from the newest average with another number of --nodes
    #[arg(long, value_name = "DIR", conflicts_with_all = ["replay", "trace", "load"])]
    pub resume: Option<PathBuf>,
}
