//! How sites and slow lines between them average.

use clap::{Args, ValueEnum};
use kronfleet_core::policy::{CycleOptions, HierarchicalOptions, Merge};
use kronfleet_core::transport::NodeId;

/// How sites and slow lines between them average.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Hierarchical averaging")]
pub struct HierarchicalSettings {
    /// Iterations of an epoch: all average after each, and look at whether the loss still falls
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub daso_epoch: u64,
    /// Epochs at the beginning in which all average after every iteration (published: 4 of about 90)
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(..1_000_000))]
    pub daso_warm_up: u64,
    /// Epochs at the end in which they do (published: 4)
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(..1_000_000))]
    pub daso_cool_down: u64,
    /// Iterations from one exchange of models to the next, to begin with; with the loss it becomes 2, 1, --daso-most, 4 and so on
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub daso_skip: u64,
    /// The same where the loss has not fallen even so and exchanges become rare again
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub daso_most: u64,
    /// Epochs in a row without progress after which exchanges become more frequent
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub daso_bad: u64,
    /// The share of the best loss that an epoch's has to be below to be progress
    #[arg(long, default_value_t = 0.95, value_name = "SHARE", value_parser = super::fraction_or_one)]
    pub daso_progress: f64,
    /// What becomes of a model that has gone on while models were under way
    #[arg(long, value_enum, default_value_t = MergeKind::Stale)]
    pub daso_merge: MergeKind,
}

/// What becomes of a model when a mean arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MergeKind {
    /// A mean of both (DASO): of many sites, little is left of the steps made meanwhile.
    Stale,
    /// The steps made meanwhile are added to what arrives (LASGD).
    Progress,
}

impl HierarchicalSettings {
    /// What they ask for, among these sites.
    pub fn options(&self, sites: Vec<Vec<NodeId>>) -> HierarchicalOptions {
        let mut options = HierarchicalOptions::new(sites, self.daso_epoch);
        options.cycle = CycleOptions {
            warm_up: self.daso_warm_up,
            cool_down: self.daso_cool_down,
            skip: self.daso_skip,
            most: self.daso_most,
            bad: self.daso_bad,
            progress: self.daso_progress,
            ..options.cycle
        };
        options.merge = match self.daso_merge {
            MergeKind::Stale => Merge::Stale,
            MergeKind::Progress => Merge::Progress,
        };
        options
    }
}
