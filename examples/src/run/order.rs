//! What the simulator is asked to do: settings, or a recording whose settings they are.

use super::retrace::Recorded;
use crate::settings::{JobSettings, OutputSettings, arguments, describe, flags, given, refuse_idle};
use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Parser};
use kronfleet_lossy::trace::Recording;
use std::ffi::OsString;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// What the simulator is asked to do.
pub struct Order {
    /// All settings; those of the recording, if there is one.
    pub settings: JobSettings,
    /// The settings that decide what happens, as text.
    pub text: String,
    /// The run to repeat.
    pub again: Option<Again>,
}

/// A run to repeat.
pub enum Again {
    /// A run of the simulator, from its trace.
    Trace(Recording),
    /// A run among real processes, from their event logs.
    Events(Recorded),
}

impl Order {
    /// What these arguments ask for, the program's name first; with `--help` and the like the program ends here.
    ///
    /// # Errors
    /// If a file cannot be read, or flags have no effect with the others.
    pub fn of(given: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let command = JobSettings::command();
        let matches = command.clone().get_matches_from(arguments(&command, given)?);
        let settings = JobSettings::from_arg_matches(&matches)?;
        let replay = settings.network.replay.clone();
        if let Some(path) = replay {
            return Self::recorded(settings, &path, &matches);
        }
        refuse_idle(&matches)?;
        Ok(Self { text: describe(&command, &matches), settings, again: None })
    }

    /// The run recorded in this file or folder, shown and kept as `asked` for.
    fn recorded(asked: JobSettings, path: &Path, matches: &ArgMatches) -> Result<Self> {
        let command = JobSettings::command();
        let recorded = command.get_arguments().filter(|argument| is_recorded(argument));
        if let Some(name) = recorded.filter_map(Arg::get_long).find(|name| given(matches, name)) {
            bail!("--{name} has no effect with --replay, which repeats the run as it was recorded: leave it out");
        }
        let (text, again) = if path.is_dir() {
            let recorded = Recorded::read(path)?;
            (recorded.settings.clone(), Again::Events(recorded))
        } else {
            let file = File::open(path).with_context(|| format!("cannot open the trace {}", path.display()))?;
            let recording = Recording::read(BufReader::new(file))?;
            (recording.options.clone(), Again::Trace(recording))
        };
        let program = std::iter::once("lossy".into());
        let mut settings = JobSettings::try_parse_from(program.chain(flags(&text)?))?;
        settings.task.threads = asked.task.threads;
        settings.output = OutputSettings { load: settings.output.load, ..asked.output };
        Ok(Self { settings, text, again: Some(again) })
    }
}

/// Whether a setting of a recorded run is its trace's and not the command line's.
fn is_recorded(argument: &Arg) -> bool {
    !matches!(argument.get_long(), None | Some("threads" | "replay" | "trace"))
        && (argument.get_help_heading() != Some("Output") || argument.get_long() == Some("load"))
}
