//! Every knob of a trainer: flags with help, also readable from a TOML file.
//!
//! The file's keys are the flags' names (`learning-rate = 0.05`); a flag on the command line wins. Values are checked
//! when they are read, so that a run never starts with a setting it cannot keep.

mod averaging;
mod checkpoint;
mod division;
mod drift;
mod dynamic;
mod faults;
mod file;
mod gossip;
mod graph;
mod hierarchical;
mod idle;
mod job;
mod kfac;
mod kill;
mod layerwise;
mod line;
mod network;
mod optimisation;
mod outer;
mod output;
mod pace;
mod processes;
mod requirement;
mod sharing;
mod sketch;
mod streaming;
mod task;
mod tcp;
mod weight;

pub use averaging::{AveragingSettings, Policy};
pub use checkpoint::CheckpointSettings;
pub use division::Division;
pub use drift::DriftSettings;
pub use dynamic::{CheckEvery, DynamicSettings};
pub use faults::{LinkCut, LinkPartition};
pub use file::{arguments, describe, flags};
pub use gossip::{ConsensusStep, GossipSettings};
pub use graph::Graph;
pub use hierarchical::{HierarchicalSettings, MergeKind};
pub use idle::{given, refuse_idle, why_idle};
pub use job::JobSettings;
pub use kfac::{Fisher, Form, KfacSettings, Method};
pub use kill::KillAt;
pub use layerwise::LayerwiseSettings;
pub use line::Line;
pub use network::{Driver, NetworkSettings, OutageKind};
pub use optimisation::{Optimiser, OptimiserSettings, ScheduleKind};
pub use outer::{OuterKind, OuterSettings};
pub use output::OutputSettings;
pub use processes::ProcessSettings;
pub use requirement::Requirement;
pub use sharing::{Balance, Inner, Outer, SharingSettings};
pub use sketch::SketchSettings;
pub use streaming::StreamingSettings;
pub use task::{BackendKind, InitialisationKind, TaskSettings};
pub use tcp::TcpSettings;
pub use weight::{Weight, WeightSettings};

use kronfleet_core::time::Duration;
use kronfleet_lossy::fault::parse_duration;

/// A number above 0, for clap.
///
/// # Errors
/// If it is none.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err(format!("{text:?} is not a number above 0")),
    }
}

/// The same in single precision, which is that of models.
///
/// # Errors
/// If it is none, or infinite there.
pub fn single(text: &str) -> Result<f64, String> {
    positive(text).and_then(|value| {
        let is_single = value <= f64::from(f32::MAX);
        if is_single { Ok(value) } else { Err(format!("models have numbers up to {:e}, not {text}", f32::MAX)) }
    })
}

/// A number as a user would write it: with a power of ten where it would have many zeros.
pub fn shown(value: f64) -> String {
    let is_short = value == 0.0 || (1e-5..1e7).contains(&value.abs());
    if is_short { value.to_string() } else { format!("{value:e}") }
}

/// A number of at least 0, for clap.
///
/// # Errors
/// If it is none.
pub fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err(format!("{text:?} is not a number of at least 0")),
    }
}

/// A number from 0 to 1, 1 excluded, for clap.
///
/// # Errors
/// If it is none.
pub fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err(format!("{text:?} is not a number from 0 up to, but not including, 1")),
    }
}

/// A number from 0 to 1, both included, for clap.
///
/// # Errors
/// If it is none.
pub fn fraction_or_one(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err(format!("{text:?} is not a number from 0 to 1")),
    }
}

/// A span of time such as `10ms`, `1.5s` or `200us`, for clap.
///
/// # Errors
/// If it is none.
pub fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is not a span of time; write it as 10ms, 1.5s or 200us"))
}

/// A number of threads: each has memory of its own, so that a slip of the finger could take all there is.
pub fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number: &usize| number <= MOST_THREADS);
    number.ok_or_else(|| format!("{text:?} is not a number of threads from 0 to {MOST_THREADS}"))
}

/// The most threads that can be asked for.
const MOST_THREADS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    #[command(args_override_self = true)]
    struct Settings {
        #[command(flatten)]
        kfac: KfacSettings,
        #[command(flatten)]
        optimiser: OptimiserSettings,
        #[command(flatten)]
        network: NetworkSettings,
    }

    #[test]
    fn lists_of_the_file_are_lists() -> anyhow::Result<()> {
        let text =
            "skip-layer = [\"a\", \"b\"]\nmilestones = [3, 5]\nlink-partition = [\"1s..2s:0|1\", \"3s..4s:0|1\"]";
        let program = std::iter::once("program".into());
        let settings = Settings::try_parse_from(program.chain(flags(text)?))?;
        assert_eq!(settings.kfac.skip_layer, ["a", "b"]);
        assert_eq!(settings.optimiser.milestones, [3, 5]);
        assert_eq!(settings.network.link_partition.len(), 2);
        Ok(())
    }

    #[test]
    fn spans_have_units() {
        assert_eq!(span("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(span("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(span("10").is_err() && span("-1s").is_err() && span("fast").is_err());
    }

    #[test]
    fn numbers_are_checked() {
        assert_eq!(fraction("0.4"), Ok(0.4));
        assert!(fraction("1").is_err() && fraction("-0.1").is_err() && fraction("NaN").is_err());
        assert!(threads("256") == Ok(256) && threads("257").is_err() && threads("-1").is_err());
        assert!(positive("0").is_err() && positive("inf").is_err() && positive("1e-3").is_ok());
        assert!(single("1e38") == Ok(1e38) && single("1e39").is_err() && single("0").is_err());
        assert_eq!([0.0, 0.4, -1.5, 1e300, 2.5e-7].map(shown), ["0", "0.4", "-1.5", "1e300", "2.5e-7"]);
    }
}
