//! Who is whose neighbour, and what neighbours tell each other.

use super::graph::Graph;
use anyhow::{Result, anyhow};
use clap::Args;
use kronfleet_core::compress::{Code, Compressor, Kept};
use kronfleet_core::gossip::{Mixing, Tuning, tune_at};
use std::sync::{Arc, OnceLock};

/// Who is whose neighbour, and what neighbours tell each other.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Gossip")]
pub struct GossipSettings {
    /// Who is whose neighbour: ring, torus (as square as --nodes allow) or torus:ROWSxCOLUMNS, hypercube, exponential,
    /// complete, dyck or social (32 nodes both), or a file with two nodes in each line; and for gossip:sgp, gossip:push
    /// and gossip:push-ada, who gives to whom: one-peer (exponential, one at a time), directed-exponential, directed-ring,
    /// directed-random:N (N others, drawn anew for every exchange; directed-random:N:SEED), or a file with lines such as
    /// `0 -> 1`, and `---` between what takes turns
    #[arg(long, default_value = "ring", value_name = "GRAPH|FILE")]
    pub topology: Graph,
    /// What is told of a difference, between neighbours or, in rounds, from the last average: all (everything), top:SHARE
    /// (the largest values), random:SHARE (some values), sign, bf16, 8bit, levels:N (N levels above 0, at random), or rank:R
    /// (of the values as a matrix). What is not told comes later. Without this, top:0.1 between neighbours and all in rounds
    #[arg(long, value_name = "CODE")]
    pub compress: Option<Code>,
    /// How far a model moves towards its neighbours: CHOCO's γ, a part of the way (without this, 0.4); AdaGossip's γ, in
    /// the unit of parameters (without this, 0.01; of gossip:push-ada, 0.001); the part of its weight that a node of
    /// gossip:push gives (0.1);
    /// auto tries steps on the graph with the compressor before the run, and counts AdaGossip's in errors as observed;
    /// measured, for gossip:ada, has each node follow what it sees its compressor keep and the errors that it observes, with
    /// nothing tried before
    #[arg(long, value_name = "STEP|auto|measured", value_parser = consensus_step)]
    pub consensus_step: Option<ConsensusStep>,
    /// The largest part of the way that AdaGossip moves a parameter (without this, 0.4; with --consensus-step
    /// measured, 1), or of its weight that a node of
    /// gossip:push-ada gives (0.2)
    #[arg(long, value_name = "PART", value_parser = super::positive)]
    pub consensus_cap: Option<f64>,
    /// What was found by trial, once for all nodes.
    #[arg(skip)]
    tuned: Arc<OnceLock<Option<f64>>>,
    /// How many values each tensor of the model has.
    #[arg(skip)]
    tensors: Arc<OnceLock<Vec<usize>>>,
}

/// How far a model moves towards its neighbours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ConsensusStep {
    /// So far.
    Fixed(f64),
    /// As trials say.
    Auto,
    /// As nodes measure while they train.
    Measured,
}

fn consensus_step(text: &str) -> Result<ConsensusStep, String> {
    match text {
        "auto" => Ok(ConsensusStep::Auto),
        "measured" => Ok(ConsensusStep::Measured),
        _ => {
            super::positive(text).map(ConsensusStep::Fixed).map_err(|error| format!("{error}, nor auto, nor measured"))
        }
    }
}

impl GossipSettings {
    /// What compresses what neighbours tell each other.
    pub fn compressor(&self) -> Box<dyn Compressor<f32>> {
        self.code().compressor()
    }

    /// The same by name.
    pub fn code(&self) -> Code {
        self.compress.unwrap_or_else(|| Code::Top(Kept::per_million(100_000)))
    }

    /// Hears how many values each tensor of the model has, before the policies of nodes are made.
    pub fn learn(&self, tensors: Vec<usize>) {
        // All of a run have the same model.
        let _ = self.tensors.set(tensors);
    }

    /// How many values each tensor of the model has; none if that was not said.
    pub fn tensors(&self) -> &[usize] {
        self.tensors.get().map_or(&[], Vec::as_slice)
    }

    /// CHOCO's step with which nodes on this graph agree best, by trial with vectors as long as the model; tried once.
    ///
    /// # Errors
    /// If they do not agree with any.
    pub fn tuned(&self, mixing: &Mixing) -> Result<f64> {
        let tuning = Tuning::default();
        let step = *self.tuned.get_or_init(|| {
            let len = self.tensors().iter().sum();
            let len = if len == 0 { tuning.values } else { len };
            tune_at(mixing, &mut *self.compressor(), &tuning, len, MOST_VALUES)
        });
        step.ok_or_else(|| {
            anyhow!(
                "--consensus-step auto: with none of {} steps from 1 downwards do nodes on this --topology agree better after \
                 {} exchanges: give a small number, or tell more with --compress",
                tuning.candidates,
                tuning.exchanges
            )
        })
    }
}

/// Values that trials tell and take at most, all together: some seconds.
const MOST_VALUES: u64 = 3_000_000_000;
