//! What is made of averages.

use clap::{Args, ValueEnum};
use kronfleet_core::outer::OuterOptimiser;

/// What is made of averages.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Averaging")]
pub struct OuterSettings {
    /// Make a step of every average that --policy makes, instead of taking it as the model (sites that share steps have
    /// --outer instead, by which they average)
    #[arg(long, value_enum, default_value_t = OuterKind::None)]
    pub outer_optimiser: OuterKind,
    /// The rate of that step: for fedavgm (without this, 0.316) and diloco (0.7) a part of the way that models have gone
    /// in the mean, 1 for all of it; for fedadam (0.1) in the unit of parameters
    #[arg(long, value_name = "RATE", value_parser = super::single)]
    pub outer_rate: Option<f64>,
    /// Its momentum (without this, 0.9)
    #[arg(long, value_name = "MOMENTUM", value_parser = super::fraction)]
    pub outer_momentum: Option<f64>,
}

/// How steps of averages are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OuterKind {
    /// Not at all: averages are models.
    #[default]
    None,
    /// With momentum; twice the values are averaged.
    Fedavgm,
    /// By Adam; four times the values are averaged.
    Fedadam,
    /// With Nesterov's momentum; twice the values are averaged.
    Diloco,
}

impl OuterSettings {
    /// What they ask for.
    pub fn optimiser(&self) -> Option<OuterOptimiser> {
        let mut optimiser = match self.outer_optimiser {
            OuterKind::None => return None,
            OuterKind::Fedavgm => OuterOptimiser::FEDAVGM,
            OuterKind::Fedadam => OuterOptimiser::FEDADAM,
            OuterKind::Diloco => OuterOptimiser::DILOCO,
        };
        if let Some(rate) = self.outer_rate {
            optimiser = optimiser.with_rate(rate);
        }
        if let Some(momentum) = self.outer_momentum {
            optimiser = optimiser.with_momentum(momentum);
        }
        Some(optimiser)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        outer: OuterSettings,
    }

    #[test]
    fn rates_beyond_what_models_can_hold_are_refused_by_name() {
        let rate = |rate: &str| {
            let flags = ["program", "--outer-optimiser", "diloco", "--outer-rate", rate];
            Program::try_parse_from(flags).map(|program| program.outer.outer_rate).map_err(|error| error.to_string())
        };
        assert_eq!(rate("0.7"), Ok(Some(0.7)));
        let error = rate("1e300").expect_err("beyond single precision");
        assert!(error.contains("--outer-rate") && error.contains("up to 3.4028235e38"), "{error}");
    }
}
