//! What goes wrong in a run, as a small text file.
//!
//! A file is TOML: a list of faults, one per line, and a table that says what the run consists of. Times are spans since
//! the run began, nodes are `n0`, `n1`, …; whatever is left out of the table keeps its default.
//!
//! ```
//! use kronfleet_faults::schedule::Schedule;
//! let text = r#"
//! faults = [
//!   { crash = { node = "n1", at = "400ms", back = "900ms" } },
//!   { partition = { one = ["n0"], other = ["n1", "n2"], from = "1s", until = "2s" } },
//! ]
//!
//! [run]
//! seed = 7
//! nodes = 3
//! "#;
//! let schedule: Schedule = text.parse().unwrap();
//! assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
//! let error = text.replace("400ms", "400").parse::<Schedule>().unwrap_err().to_string();
//! assert!(error.contains("line 3") && error.contains("such as 250ms"), "{error}");
//! ```

mod check;
mod fault;

pub use check::ScheduleError;
pub use fault::{Damage, Decay, Fault, POINTS, Sickness};

use crate::text;
use kronfleet_core::compress::Code;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_lossy::link::LinkOptions;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use toml::Spanned;

/// A run and what goes wrong in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// What the file says about itself, such as the bug it found.
    pub note: String,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// What the run consists of.
    pub run: Run,
}

/// What a run consists of, apart from its faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Run {
    /// Everything random: links, targets, damage.
    pub seed: u64,
    /// Which rounds may commit while nodes cannot reach each other.
    pub mode: Mode,
    /// How many nodes, 1 to 32.
    pub nodes: u32,
    /// How many nodes a round needs.
    pub minimum: u32,
    /// When to average.
    pub policy: Policy,
    /// Iterations between averages, or from one check to the next.
    pub interval: u64,
    /// How a node that was away comes back.
    pub rejoin: Rejoin,
    /// Whether nodes wait where fewer are left than a round needs, instead of going on alone.
    pub wait: bool,
    /// Parameters of the model.
    pub values: u32,
    /// Values in a piece of a reduction at most.
    pub chunk: u32,
    /// What differences from the last average are told in.
    #[serde(with = "text::code")]
    pub told: Code,
    /// The time budget.
    #[serde(with = "text::span")]
    pub budget: Duration,
    /// How long a training step takes.
    #[serde(with = "text::span")]
    pub step: Duration,
    /// Losses after which a peer that comes and goes sits out; 0 for never.
    pub quarantine: u32,
    /// Whether the transport reports outages and crashes.
    pub reports: bool,
    /// How links behave.
    #[serde(with = "text::link")]
    pub link: LinkOptions,
}

/// Which rounds may commit while nodes cannot reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// All that find each other.
    Available,
    /// Those of a majority.
    Strict,
}

/// When to average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Every so many iterations.
    Periodic,
    /// When models have drifted apart at all, as notes about them say.
    Fda,
    /// Every so many iterations, and training goes on meanwhile.
    Lasgd,
}

/// How a node that was away comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rejoin {
    /// It counts like everybody else.
    FullWeight,
    /// It counts the less, the more rounds it has missed.
    ByProgress,
    /// It takes over the newest state before it contributes.
    HealFirst,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            seed: 0,
            mode: Mode::Available,
            nodes: 3,
            minimum: 2,
            policy: Policy::Periodic,
            interval: 4,
            rejoin: Rejoin::FullWeight,
            wait: false,
            values: 8,
            chunk: 16,
            told: Code::All,
            budget: Duration::from_secs(1),
            step: Duration::from_millis(20),
            quarantine: 0,
            reports: false,
            link: LinkOptions { latency: Duration::from_millis(1), max_frame: 1200, ..LinkOptions::default() },
        }
    }
}

/// A file, every fault with its place in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    note: String,
    #[serde(default)]
    faults: Vec<Spanned<Fault>>,
    #[serde(default)]
    run: Option<Spanned<Run>>,
}

impl Schedule {
    /// When the last fault is over, whatever restarts after it included.
    pub fn calm(&self) -> Instant {
        self.faults.iter().map(Fault::end).max().unwrap_or(Instant::ORIGIN)
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let line = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line(span.start));
            ScheduleError { line, reason: error.message().trim().to_string() }
        })?;
        let (place, run) = match file.run {
            Some(run) => (Some(line(run.span().start)), run.into_inner()),
            None => (None, Run::default()),
        };
        run.check().map_err(|reason| ScheduleError { line: place, reason })?;
        let mut faults = Vec::with_capacity(file.faults.len());
        for fault in file.faults {
            let place = line(fault.span().start);
            let fault = fault.into_inner();
            fault.check(&run).map_err(|reason| ScheduleError { line: Some(place), reason })?;
            faults.push(fault);
        }
        Ok(Self { note: file.note, faults, run })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |fault: &dyn erased::Value| fault.text();
        if !self.note.is_empty() {
            writeln!(f, "note = {}", value(&self.note))?;
        }
        writeln!(f, "faults = [")?;
        for fault in &self.faults {
            writeln!(f, "  {},", value(fault))?;
        }
        writeln!(f, "]\n\n[run]")?;
        write!(f, "{}", toml::to_string(&self.run).map_err(|_| fmt::Error)?)
    }
}

/// Values on one line each.
mod erased {
    use serde::Serialize;

    pub(super) trait Value {
        fn text(&self) -> String;
    }

    impl<T: Serialize> Value for T {
        fn text(&self) -> String {
            let mut text = String::new();
            let written = self.serialize(toml::ser::ValueSerializer::new(&mut text));
            written.map(|_| ()).expect("schedules consist of strings, numbers and tables");
            text
        }
    }
}
