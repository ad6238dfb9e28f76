//! What a plan costs: operations and memory counted, times by the figures of a machine.

use super::Traffic;
use crate::preconditioner::Form;

/// What one step is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// How factors are decomposed.
    pub form: Form,
    /// Samples of each member's batch.
    pub batch: usize,
    /// What does it.
    pub machine: Machine,
}

/// How fast a member and its link are.
///
/// Only ratios of costs decide who owns what; the figures decide what [`Decomposers::Cheaper`](super::Decomposers)
/// finds cheaper, and the times.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Machine {
    /// Operations per second of large products: statistics and directions.
    pub products: f64,
    /// Operations per second of forward and backward pass.
    pub passes: f64,
    /// Operations per second of decompositions.
    pub decompositions: f64,
    /// Bytes per second of a link, in each direction.
    pub bandwidth: f64,
    /// Seconds that a message takes besides.
    pub latency: f64,
    /// Bytes of a value on the wire.
    pub value: f64,
}

impl Default for Machine {
    /// One core of 100 GFLOP/s for products and passes and a quarter of that for decompositions, behind 10 GbE, in f32.
    fn default() -> Self {
        Self { products: 1e11, passes: 1e11, decompositions: 2.5e10, bandwidth: 1.25e9, latency: 20e-6, value: 4.0 }
    }
}

impl Machine {
    /// Seconds until everything has arrived: the busiest link, and the longest chain of messages. What travels in one
    /// phase is taken to be fused into few messages that are under way together.
    pub fn seconds(&self, traffic: &Traffic, members: usize) -> f64 {
        let busiest = (0..members).map(|member| traffic.load(member)).fold(0.0, f64::max);
        busiest * self.value / self.bandwidth + f64::from(traffic.hops()) * self.latency
    }
}

/// What one member does and holds for one update: statistics, decompositions and their application.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Operations that make its statistics.
    pub statistics: f64,
    /// Operations of its decompositions.
    pub decompositions: f64,
    /// How many factors it decomposes.
    pub decomposed: usize,
    /// Operations that turn gradients into directions.
    pub directions: f64,
    /// Values it keeps: running averages and decompositions.
    pub values: usize,
}

/// Seconds of one update, statistics, decompositions and directions included; everybody waits for the slowest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seconds {
    /// Making statistics.
    pub statistics: f64,
    /// Averaging them, as far as nothing else is done meanwhile: where a placement has them averaged during the passes, all
    /// that the passes last is taken to be used. Diagonal blocks are averaged after the passes.
    pub statistics_exchange: f64,
    /// Decomposing.
    pub decompositions: f64,
    /// Handing decompositions out.
    pub decompositions_exchange: f64,
    /// Computing directions.
    pub directions: f64,
    /// Handing them out.
    pub directions_exchange: f64,
}

impl Seconds {
    /// Seconds of computing.
    pub fn computation(&self) -> f64 {
        self.statistics + self.decompositions + self.directions
    }

    /// Seconds of waiting for others.
    pub fn communication(&self) -> f64 {
        self.statistics_exchange + self.decompositions_exchange + self.directions_exchange
    }

    /// All of them.
    pub fn total(&self) -> f64 {
        self.computation() + self.communication()
    }
}
