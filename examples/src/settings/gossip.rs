//! Who is whose neighbour, and what neighbours tell each other.

use super::graph::Graph;
use anyhow::{Result, anyhow, bail};
use clap::Args;
use kronfleet_core::compress::{Code, Compressor, Kept};
use kronfleet_core::gossip::{AdaGossip, Mixing, Tuning, Unit, tune_at};
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
    /// What is told of a difference, between neighbours or, in rounds, from an average in common: all (everything), top:SHARE
    /// (the largest values), random:SHARE (some values), sign, bf16 or fp16 (with :stochastic rounded at random), 8bit,
    /// levels:N (N levels above 0, at random), or rank:R (of the values as a matrix). What is not told comes later. Without this, top:0.1 between neighbours and all in rounds
    #[arg(long, value_name = "CODE")]
    pub compress: Option<Code>,
    /// How far a model moves towards its neighbours: CHOCO's γ, a part of the way (without this, 0.4; with
    /// gossip:partial 1, and 0.5 with random:SHARE); AdaGossip's γ, in
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
    /// β of AdaGossip and of gossip:push-ada, what the old mean of the squares that a step is divided by counts beside the new
    /// ones: from 0 up to, but not including, 1 (without this, 0.999; of gossip:push-ada, 0.9)
    #[arg(long, value_name = "SHARE", value_parser = decay)]
    pub consensus_decay: Option<f64>,
    /// ε of AdaGossip and of gossip:push-ada, added to the root of the squares that a step is divided by: in the unit of
    /// parameters, or of errors with --consensus-step auto or measured
    #[arg(long, default_value_t = 1e-8, value_name = "SIZE", value_parser = super::positive)]
    pub consensus_epsilon: f64,
    /// Leave out AdaGossip's bias correction: squares are counted from 0, not divided by 1 - β^t, so that its first steps are
    /// longer
    #[arg(long)]
    pub no_consensus_correction: bool,
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

/// The weight of an old second moment.
fn decay(text: &str) -> Result<f64, String> {
    super::fraction(text).map_err(|error| format!("{error}; the published one is 0.999"))
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

    /// AdaGossip as asked for; `tuned` tries steps.
    ///
    /// # Errors
    /// If parameters would move beyond what neighbours have, or no step is found.
    pub fn ada(&self, tuned: impl FnOnce() -> Result<f64>) -> Result<AdaGossip> {
        let (step, unit) = match self.consensus_step {
            None => (0.01, Unit::Parameter),
            Some(ConsensusStep::Fixed(step)) => (step, Unit::Parameter),
            Some(ConsensusStep::Auto) => (tuned()?, Unit::Error),
            Some(ConsensusStep::Measured) => (1.0, Unit::Measured),
        };
        let usual = if unit == Unit::Measured { 1.0 } else { 0.4 };
        let cap = self.consensus_cap.unwrap_or(usual);
        if cap > 1.0 {
            bail!("--consensus-cap {} is a part of the way to the neighbours: give at most 1", super::shown(cap));
        }
        Ok(AdaGossip {
            decay: self.consensus_decay.unwrap_or(AdaGossip::default().decay),
            epsilon: self.consensus_epsilon,
            step,
            cap,
            correction: !self.no_consensus_correction,
            unit,
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::AveragingSettings;
    use clap::Parser;
    use kronfleet_core::cluster::{Incarnation, RunId};
    use kronfleet_core::transport::NodeId;

    #[derive(Debug, Parser)]
    struct Settings {
        #[command(flatten)]
        gossip: GossipSettings,
    }

    fn parse(given: &str) -> Result<GossipSettings, String> {
        let arguments = std::iter::once("program").chain(given.split_whitespace());
        Settings::try_parse_from(arguments).map(|settings| settings.gossip).map_err(|error| error.to_string())
    }

    fn ada(given: &str) -> Result<AdaGossip, String> {
        parse(given)?.ada(|| Ok(0.25)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_option_of_ada_gossip_is_reached() {
        let usual = AdaGossip { step: 0.01, cap: 0.4, ..AdaGossip::default() };
        assert_eq!(ada(""), Ok(usual));
        let published = AdaGossip::default();
        assert_eq!(ada("--consensus-step 1 --consensus-cap 1"), Ok(published));
        for (given, expected) in [
            ("--consensus-decay 0", AdaGossip { decay: 0.0, ..usual }),
            ("--consensus-epsilon 0.5", AdaGossip { epsilon: 0.5, ..usual }),
            ("--no-consensus-correction", AdaGossip { correction: false, ..usual }),
            ("--consensus-cap 0.1", AdaGossip { cap: 0.1, ..usual }),
            ("--consensus-step auto", AdaGossip { step: 0.25, unit: Unit::Error, ..usual }),
            ("--consensus-step measured", AdaGossip { step: 1.0, cap: 1.0, unit: Unit::Measured, ..usual }),
        ] {
            assert_eq!(ada(given), Ok(expected), "{given}");
        }
    }

    fn averaging(given: &str) -> AveragingSettings {
        #[derive(Parser)]
        struct Program {
            #[command(flatten)]
            averaging: AveragingSettings,
        }
        Program::parse_from(format!("program {given}").split_whitespace()).averaging
    }

    /// Why there is no policy, or no cluster, with these flags.
    fn refused(given: &str) -> String {
        let averaging = averaging(given);
        let cluster = averaging.cluster(RunId(0), NodeId(0), Incarnation(1)).map(drop);
        cluster
            .and_then(|()| averaging.policy(NodeId(0)).map(drop))
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn large_numbers_are_shown_in_few_digits() {
        for given in [
            "--policy gossip:choco --consensus-step 1e300",
            "--policy gossip:ada --consensus-cap 1e300",
            "--policy gossip:push --consensus-step 1e300",
            "--policy gossip:push-ada --consensus-cap 1e300",
        ] {
            let error = refused(given);
            assert!(error.contains(" 1e300") && error.contains("at most 1"), "{error}");
        }
    }

    #[test]
    fn ranks_that_save_nothing_are_refused_with_those_that_do() {
        for given in ["periodic --compress rank:31", "gossip:choco --compress rank:65"] {
            assert_eq!(refused(&format!("--policy {given}")), "");
        }
        let error = refused("--policy periodic --compress rank:32");
        assert!(error.contains("64 by 64") && error.contains("at most rank:31"), "{error}");
    }

    #[test]
    fn a_measured_step_with_little_told_is_warned_of() {
        for (given, warned) in [
            ("--policy gossip:ada --consensus-step measured --compress top:0.01", true),
            ("--policy gossip:ada --consensus-step measured --compress random:0.049", true),
            ("--policy gossip:ada --consensus-step measured --compress top:0.05", false),
            ("--policy gossip:ada --consensus-step measured --compress sign", false),
            ("--policy gossip:ada --consensus-step measured", false),
            ("--policy gossip:ada --compress top:0.01", false),
            ("--policy gossip:choco --compress top:0.01", false),
        ] {
            assert_eq!(averaging(given).caution().is_some(), warned, "{given}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_those_that_can() {
        for (given, remedy) in [
            ("--consensus-decay 1", "from 0 up to, but not including, 1; the published one is 0.999"),
            ("--consensus-decay=-0.1", "from 0 up to, but not including, 1; the published one is 0.999"),
            ("--consensus-decay NaN", "from 0 up to, but not including, 1; the published one is 0.999"),
            ("--consensus-epsilon 0", "not a number above 0"),
            ("--consensus-epsilon inf", "not a number above 0"),
            ("--consensus-cap 1.5", "give at most 1"),
            ("--consensus-step 0", "not a number above 0, nor auto, nor measured"),
        ] {
            let says = ada(given).expect_err(given);
            assert!(says.contains(remedy), "{given}: {says}");
        }
    }
}
