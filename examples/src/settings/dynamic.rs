//! How far models may drift apart before they are averaged, and when that is looked at.

use clap::Args;
use kronfleet_core::policy::Threshold;
use std::sync::{Arc, OnceLock};

/// The published guesses of `Θ` for each parameter, by the links between nodes (Theologitis et al. 2024, §3.4).
const GUESSES: [(&str, f64); 3] = [("slow", 4.91e-5), ("balanced", 3.89e-5), ("fast", 2.74e-5)];

/// How many checks there are at most from one average to the next where FDA-Opt tunes `Θ`.
const MOST: u32 = 10;

/// How far models may drift apart before they are averaged, and when that is looked at.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Averaging")]
pub struct DynamicSettings {
    /// How far apart models may be before they are averaged, as the variance over nodes of all parameters together: a number;
    /// a number and d, for each parameter (1e-4d); slow, balanced or fast, what is guessed for links that are so: 4.91e-5d,
    /// 3.89e-5d and 2.74e-5d, which are for Adam at 0.001. What is right grows with the learning rate (docs/dynamic.md). auto
    /// chooses it for five checks from one average to the next, ten at most; auto:N for half of N, N at most
    #[arg(long, default_value = "balanced", value_name = "VARIANCE|NUMBERd|slow|balanced|fast|auto", value_parser = theta)]
    pub theta: Threshold,
    /// Iterations between two checks of how far apart models are, or epoch: as many as a node has batches where
    /// samples are dealt out evenly
    /// [default: 1; epoch with --theta auto]
    #[arg(long, value_name = "N|epoch", value_parser = check_every)]
    pub check_every: Option<CheckEvery>,
    /// Iterations in which a node sees as many samples as it has.
    #[arg(skip)]
    epoch: Arc<OnceLock<u64>>,
}

/// When nodes look at how far apart models are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckEvery {
    /// Every so many iterations.
    Iterations(u64),
    /// Every local epoch.
    Epoch,
}

fn theta(text: &str) -> Result<Threshold, String> {
    if let Some((_, guess)) = GUESSES.iter().find(|(name, _)| *name == text) {
        return Ok(Threshold::PerParameter(*guess));
    }
    if let Some(rest) = text.strip_prefix("auto") {
        let most = rest.strip_prefix(':').map_or(rest.is_empty().then_some(MOST), |most| most.parse().ok());
        return match most {
            Some(most) if most > 0 => Ok(Threshold::Tuned { most }),
            _ => Err(format!("{text:?} is neither auto nor auto:N with a number of checks N of at least 1")),
        };
    }
    let number = |text: &str| super::not_negative(text).ok();
    match text.strip_suffix('d') {
        Some(each) => number(each).map(Threshold::PerParameter),
        None => number(text).map(Threshold::Fixed),
    }
    .ok_or_else(|| {
        format!(
            "{text:?} is not a number of at least 0, with or without a d behind it, nor slow, balanced, fast or auto"
        )
    })
}

fn check_every(text: &str) -> Result<CheckEvery, String> {
    match text {
        "epoch" => Ok(CheckEvery::Epoch),
        _ => match text.parse() {
            Ok(iterations) if iterations > 0 => Ok(CheckEvery::Iterations(iterations)),
            _ => Err(format!("{text:?} is not a number of iterations of at least 1, nor epoch")),
        },
    }
}

impl DynamicSettings {
    /// Hears how many iterations an epoch of one node has, before the policies of nodes are made.
    pub fn learn(&self, epoch: u64) {
        // All of a run have the same data.
        let _ = self.epoch.set(epoch.max(1));
    }

    /// Iterations from one check to the next; epochs have one as long as nobody has said what data there are.
    pub fn check_every(&self) -> u64 {
        let tuned = matches!(self.theta, Threshold::Tuned { .. });
        match self.check_every {
            Some(CheckEvery::Iterations(iterations)) => iterations,
            None if !tuned => 1,
            Some(CheckEvery::Epoch) | None => self.epoch.get().copied().unwrap_or(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        dynamic: DynamicSettings,
    }

    fn settings(flags: &str) -> Result<DynamicSettings, String> {
        let program = Program::try_parse_from(format!("program {flags}").split_whitespace());
        Ok(program.map_err(|error| error.to_string())?.dynamic)
    }

    #[test]
    fn thresholds_are_told_as_variances_by_parameter_by_links_or_left_to_be_tuned() {
        for (flags, expected) in [
            ("", Threshold::PerParameter(3.89e-5)),
            ("--theta balanced", Threshold::PerParameter(3.89e-5)),
            ("--theta slow", Threshold::PerParameter(4.91e-5)),
            ("--theta fast", Threshold::PerParameter(2.74e-5)),
            ("--theta 1e-4d", Threshold::PerParameter(1e-4)),
            ("--theta 3.03", Threshold::Fixed(3.03)),
            ("--theta 0", Threshold::Fixed(0.0)),
            ("--theta auto", Threshold::Tuned { most: 10 }),
            ("--theta auto:4", Threshold::Tuned { most: 4 }),
        ] {
            assert_eq!(settings(flags).map(|settings| settings.theta), Ok(expected), "{flags}");
        }
        for flags in ["--theta d", "--theta -1", "--theta nan", "--theta auto:0", "--theta auto:", "--theta automatic"]
        {
            let error = settings(flags).expect_err(flags);
            assert!(error.contains(flags.rsplit(' ').next().expect("a value")), "{flags}: {error}");
        }
    }

    #[test]
    fn a_tuned_threshold_is_checked_once_an_epoch_unless_it_is_said_otherwise() {
        for (flags, expected) in [
            ("", 1),
            ("--check-every 7", 7),
            ("--check-every epoch", 187),
            ("--theta auto", 187),
            ("--theta auto --check-every 5", 5),
        ] {
            let settings = settings(flags).expect(flags);
            assert_eq!(settings.check_every() == 1, !flags.ends_with('7') && !flags.ends_with('5'), "{flags}: no data");
            settings.learn(187);
            assert_eq!(settings.check_every(), expected, "{flags}");
        }
        assert!(settings("--check-every 0").is_err_and(|error| error.contains("nor epoch")));
    }
}
