//! The main job: all groups of settings together.

use super::{
    AveragingSettings, CheckpointSettings, KfacSettings, NetworkSettings, OptimiserSettings, OutputSettings,
    TaskSettings,
};
use clap::Parser;

/// Train a network among nodes that go offline and come back, over simulated lossy links.
///
/// Without arguments: 8 nodes, LeNet-5, K-FAC, embedded Fashion-MNIST, every node offline 40 % of the time, weights
/// averaged every 5 iterations, in virtual time. The run folder holds metrics.csv, report.md and a plot.
#[derive(Clone, Debug, Parser)]
#[command(name = "lossy", version, args_override_self = true)]
#[command(after_help = "lossy sweep --help: grids of such runs, with tables and heat maps")]
pub struct JobSettings {
    /// What is trained.
    #[command(flatten)]
    pub task: TaskSettings,
    /// Who trains, and how nodes stay together.
    #[command(flatten)]
    pub averaging: AveragingSettings,
    /// How curvature is used.
    #[command(flatten)]
    pub kfac: KfacSettings,
    /// The base optimiser.
    #[command(flatten)]
    pub optimiser: OptimiserSettings,
    /// The simulated network.
    #[command(flatten)]
    pub network: NetworkSettings,
    /// Going on after an interruption.
    #[command(flatten)]
    pub checkpoints: CheckpointSettings,
    /// What is shown and kept.
    #[command(flatten)]
    pub output: OutputSettings,
}
