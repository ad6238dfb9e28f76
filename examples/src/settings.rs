//! Every knob of a trainer: flags with help, also readable from a TOML file.
//!
//! The file's keys are the flags' names (`learning-rate = 0.05`); a flag on the command line wins. Values are checked
//! when they are read, so that a run never starts with a setting it cannot keep.

mod averaging;
mod checkpoint;
mod file;
mod job;
mod kfac;
mod network;
mod optimisation;
mod output;
mod task;

pub use averaging::{AveragingSettings, Policy};
pub use checkpoint::CheckpointSettings;
pub use file::{arguments, describe, flags};
pub use job::JobSettings;
pub use kfac::{Fisher, Form, KfacSettings, Method};
pub use network::{Driver, NetworkSettings, OutageKind};
pub use optimisation::{Optimiser, OptimiserSettings, ScheduleKind};
pub use output::OutputSettings;
pub use task::{BackendKind, TaskSettings};

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

/// A span of time such as `10ms`, `1.5s` or `200us`, for clap.
///
/// # Errors
/// If it is none.
pub fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is not a span of time; write it as 10ms, 1.5s or 200us"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(positive("0").is_err() && positive("inf").is_err() && positive("1e-3").is_ok());
    }
}
