//! How sure sketches of drifts are.

use anyhow::{Result, anyhow};
use clap::Args;
use kronfleet_core::policy::{Confidence, Drifts, Gauge, SketchError};

/// How sure sketches of drifts are.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Averaging")]
pub struct SketchSettings {
    /// How sure a sketch is that models are not further apart than it says: 0.95, 0.99 or 0.999
    #[arg(long, default_value = "0.95", value_name = "SHARE", value_parser = confidence)]
    pub confidence: Confidence,
    /// Of which drifts a sketch is so sure: spread (over many more parameters than it has columns, as where dense layers are
    /// trained) or any (proven, but nodes average more often)
    #[arg(long, default_value = "spread", value_name = "spread|any", value_parser = drifts)]
    pub drifts: Drifts,
    /// Columns of a sketch; at least 16 with --drifts spread
    #[arg(long, default_value_t = 250, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2500))]
    pub columns: u32,
}

fn confidence(text: &str) -> std::result::Result<Confidence, String> {
    match text {
        "0.95" => Ok(Confidence::Usual),
        "0.99" => Ok(Confidence::High),
        "0.999" => Ok(Confidence::Highest),
        _ => Err(format!("{text:?} is no confidence of sketches that is known; use 0.95, 0.99 or 0.999")),
    }
}

fn drifts(text: &str) -> std::result::Result<Drifts, String> {
    match text {
        "spread" => Ok(Drifts::Spread),
        "any" => Ok(Drifts::Any),
        _ => Err(format!("{text:?} are no drifts; use spread or any")),
    }
}

impl SketchSettings {
    /// What nodes tell of their drift, with sketches of 5 rows.
    ///
    /// # Errors
    /// If such sketches cannot be as sure as is asked for.
    pub fn gauge(&self) -> Result<Gauge> {
        let Self { confidence, drifts, columns } = *self;
        let gauge = Gauge::Sketch { rows: 5, columns: columns as usize, confidence, drifts };
        gauge.check().map_err(|error| match error {
            SketchError::Few(_) => anyhow!("--columns {columns}: {error} (--drifts any)"),
            _ => anyhow!("--columns {columns}: {error}"),
        })?;
        Ok(gauge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        sketch: SketchSettings,
    }

    fn gauge(flags: &str) -> Result<Gauge, String> {
        let program = Program::try_parse_from(format!("program {flags}").split_whitespace());
        program.map_err(|error| error.to_string())?.sketch.gauge().map_err(|error| error.to_string())
    }

    #[test]
    fn sketches_that_cannot_be_as_sure_as_is_asked_for_are_refused_by_name() {
        for (flags, says) in [
            ("--columns 15", &["--columns 15", "at least 16", "--drifts any"][..]),
            ("--columns 9 --confidence 0.999 --drifts spread", &["--columns 9", "at least 16", "--drifts any"]),
            ("--columns 0", &["--columns", "1..=2500"]),
            ("--columns 2501", &["--columns", "1..=2500"]),
            ("--confidence 0.9", &["0.9", "use 0.95, 0.99 or 0.999"]),
            ("--drifts all", &["all", "use spread or any"]),
        ] {
            let error = gauge(flags).expect_err(flags);
            assert!(says.iter().all(|says| error.contains(says)), "{flags}: {error}");
        }
        let all = |columns, confidence, drifts| Ok(Gauge::Sketch { rows: 5, columns, confidence, drifts });
        assert_eq!(gauge(""), all(250, Confidence::Usual, Drifts::Spread));
        assert_eq!(gauge("--columns 16 --confidence 0.99"), all(16, Confidence::High, Drifts::Spread));
        assert_eq!(gauge("--columns 1 --drifts any"), all(1, Confidence::Usual, Drifts::Any));
        assert_eq!(gauge("--columns 2500"), all(2500, Confidence::Usual, Drifts::Spread));
    }
}
