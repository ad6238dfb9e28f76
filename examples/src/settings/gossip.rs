//! Who is whose neighbour, and what neighbours tell each other.

use super::graph::Graph;
use anyhow::{Result, anyhow};
use clap::Args;
use kronfleet_core::compress::{
    Blockwise, Compressor, Identity, Kept, Quantised, RandomK, Rounding, Short, Sign, TopK,
};
use kronfleet_core::gossip::{Mixing, Tuning, tune_at};
use std::str::FromStr;
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
    /// What is told of a difference: all (everything), top:SHARE (the largest values), random:SHARE (some values), sign,
    /// bf16, 8bit, or levels:N (N levels above 0, at random)
    #[arg(long, default_value = "top:0.1", value_name = "CODE")]
    pub compress: Code,
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
            tune_at(mixing, &mut *self.compress.compressor(), &tuning, len, MOST_VALUES)
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

/// How differences are told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Code {
    /// Everything.
    All,
    /// The largest values.
    Top(Kept),
    /// Some values.
    Random(Kept),
    /// Signs, and a magnitude.
    Sign,
    /// Fewer bits.
    Bf16,
    /// One of 255 levels.
    Blockwise,
    /// One of some levels, at random.
    Levels(u16),
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown =
            || format!("{text:?} is no code; use all, top:0.1, random:0.1, sign, bf16, 8bit or levels:7, for example");
        let kept = |share: &str| share.parse::<Kept>().map_err(|error| format!("{share:?} is {error}"));
        match text.split_once(':') {
            None => match text {
                "all" => Ok(Self::All),
                "sign" => Ok(Self::Sign),
                "bf16" => Ok(Self::Bf16),
                "8bit" => Ok(Self::Blockwise),
                _ => Err(unknown()),
            },
            Some(("top", share)) => kept(share).map(Self::Top),
            Some(("random", share)) => kept(share).map(Self::Random),
            Some(("levels", levels)) => {
                let levels = levels.parse().ok().filter(|levels| (1..=1 << 14).contains(levels));
                levels.map(Self::Levels).ok_or_else(|| format!("{text:?} has no number of levels from 1 to 16384"))
            }
            Some(_) => Err(unknown()),
        }
    }
}

impl Code {
    /// What compresses so, none of them such that differences could grow.
    pub fn compressor(self) -> Box<dyn Compressor<f32>> {
        match self {
            Self::All => Box::new(Identity),
            Self::Top(kept) => Box::new(TopK::new(kept)),
            Self::Random(kept) => Box::new(RandomK::contracting(kept)),
            Self::Sign => Box::new(Sign),
            Self::Bf16 => Box::new(Short::bf16(Rounding::Nearest)),
            Self::Blockwise => Box::new(Blockwise),
            Self::Levels(levels) => Box::new(Quantised::contracting(levels)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read() {
        let tenth: Kept = "0.1".parse().expect("a fraction");
        assert_eq!("top:0.1".parse(), Ok(Code::Top(tenth)));
        assert_eq!("levels:7".parse(), Ok(Code::Levels(7)));
        for text in ["top", "top:2", "levels:0", "zip", "zip:3"] {
            assert!(text.parse::<Code>().is_err(), "{text}");
        }
    }
}
