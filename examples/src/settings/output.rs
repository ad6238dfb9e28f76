//! What a run shows and keeps.

use super::requirement::Requirement;
use clap::Args;
use std::path::PathBuf;

/// What a run shows and keeps.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputSettings {
    /// Read settings from a TOML file whose keys are the names of these flags
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder for metrics.csv, report.md and plots [default: runs/KIND-TIME]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Iterations between two evaluations of the averaged model
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub evaluate_every: u64,
    /// Iterations between two evaluations of every node's own model, too; without it they are judged at the end alone
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub evaluate_own_every: Option<u64>,
    /// Once the target accuracy is reached, evaluate only at every fifth of those iterations
    #[arg(long)]
    pub evaluate_sparsely: bool,
    /// The test accuracy whose first reach is reported
    #[arg(long, default_value = "0.85", value_name = "SHARE", value_parser = super::fraction)]
    pub target_accuracy: f64,
    /// End the run at the first evaluation of the averaged model with this test accuracy, which may be another than the
    /// target; what happened until then is reported. Of runs on lossy links and `--policy zeros`
    #[arg(long, value_name = "SHARE", value_parser = super::fraction)]
    pub stop_at_accuracy: Option<f64>,
    /// Do not repeat the run without outages for comparison
    #[arg(long)]
    pub no_reference: bool,
    /// Save the averaged model as safetensors, readable by PyTorch by name
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Start from the weights in this safetensors file
    #[arg(long, value_name = "FILE")]
    pub load: Option<PathBuf>,
    /// Fail unless a figure of the result, by its key in the line of JSON, is as demanded: accuracy>=0.86; may be given
    /// several times
    #[arg(long, value_name = "KEY>=NUMBER")]
    pub require: Vec<Requirement>,
    /// End with one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Show neither progress nor tables: the run folder has everything, and --json its line
    #[arg(long, short)]
    pub quiet: bool,
}
