//! What a node's contribution to an average counts.

use clap::{Args, ValueEnum};
use kronfleet_core::transport::NodeId;
use std::sync::{Arc, OnceLock};

/// What a node's contribution to an average counts.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Averaging")]
pub struct WeightSettings {
    /// What a node's contribution to an average counts
    #[arg(long, value_enum, default_value_t = Weight::Equal)]
    pub weight: Weight,
    /// How many samples each node has.
    #[arg(skip)]
    shares: Arc<OnceLock<Vec<usize>>>,
}

/// What a node's contribution to an average counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Weight {
    /// As much as everybody else's.
    Equal,
    /// In proportion to the samples that are the node's share of the data (n_k/n of FedAvg and what came of it); shares differ
    /// in size with --partition dirichlet.
    Samples,
}

impl WeightSettings {
    /// Hears how many samples each node has, before the policies of nodes are made.
    pub fn learn(&self, shares: Vec<usize>) {
        // All of a run have the same data.
        let _ = self.shares.set(shares);
    }

    /// What contributions of a node count: 1 in the mean over all nodes, and 1 for every node as long as nobody has said what
    /// data there are.
    pub fn of(&self, node: NodeId) -> f64 {
        match (self.weight, self.shares.get()) {
            (Weight::Samples, Some(shares)) => {
                let all: usize = shares.iter().sum();
                shares[node.0 as usize] as f64 * shares.len() as f64 / all as f64
            }
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_count_what_they_have_and_one_in_the_mean() {
        for (weight, expected) in [(Weight::Equal, [1.0, 1.0, 1.0]), (Weight::Samples, [0.75, 0.25, 2.0])] {
            let settings = WeightSettings { weight, shares: Arc::default() };
            assert_eq!([0, 1, 2].map(|node| settings.of(NodeId(node))), [1.0; 3], "without data");
            settings.learn(vec![3, 1, 8]);
            assert_eq!([0, 1, 2].map(|node| settings.of(NodeId(node))), expected);
        }
    }
}
