//! The main job: nodes that train together over lossy links and drop out and come back.

use anyhow::{Context, Result, bail};
use clap::{Arg, CommandFactory, FromArgMatches, Parser};
use kronfleet_examples::checkpoint::{Disk, RunIdentity, Saved};
use kronfleet_examples::report::Folder;
use kronfleet_examples::run::{Fleet, Keeper, Keeping, Workshop, conclude, set_threads, stop_on_signal};
use kronfleet_examples::settings::{
    CheckpointSettings, Driver, JobSettings, OutputSettings, arguments, describe, given, refuse_idle,
};
use kronfleet_examples::sweep::{self, SweepSettings};
use kronfleet_lossy::fault::FaultSchedule;
use kronfleet_lossy::trace::{Recording, Trace};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::time::Instant;

/// Whether a setting of a recorded run is its trace's and not the command line's.
fn is_recorded(argument: &Arg) -> bool {
    !matches!(argument.get_long(), None | Some("threads" | "replay" | "trace"))
        && (argument.get_help_heading() != Some("Output") || argument.get_long() == Some("load"))
}

fn main() -> Result<()> {
    let mut words = std::env::args_os();
    if words.nth(1).is_some_and(|argument| argument == "sweep") {
        let program = std::iter::once("lossy sweep".into());
        return sweep::sweep(&SweepSettings::parse_from(program.chain(words)), &stop_on_signal()?);
    }
    let command = JobSettings::command();
    let matches = command.clone().get_matches_from(arguments(std::env::args_os())?);
    let mut settings = JobSettings::from_arg_matches(&matches)?;
    let mut text = describe(&command, &matches);
    let recording = match &settings.network.replay {
        None => {
            refuse_idle(&matches)?;
            None
        }
        Some(path) => {
            let recorded = command.get_arguments().filter(|argument| is_recorded(argument));
            if let Some(name) = recorded.filter_map(Arg::get_long).find(|name| given(&matches, name)) {
                bail!("--{name} has no effect with --replay, which repeats the run as it was recorded: leave it out");
            }
            let file = File::open(path).with_context(|| format!("cannot open the trace {}", path.display()))?;
            let recording = Recording::read(BufReader::new(file))?;
            let recorded = kronfleet_examples::settings::flags(&recording.options)?;
            let program = std::iter::once("lossy".into());
            let JobSettings { task, output, .. } = settings;
            settings = JobSettings::try_parse_from(program.chain(recorded))?;
            settings.task.threads = task.threads;
            settings.output = OutputSettings { load: settings.output.load, ..output };
            text.clone_from(&recording.options);
            Some(recording)
        }
    };
    if settings.network.driver == Driver::Threads && (recording.is_some() || settings.network.trace.is_some()) {
        bail!("real threads have no trace: leave out --trace and --replay, or use --driver virtual");
    }
    set_threads(settings.task.threads)?;
    let stop = stop_on_signal()?;
    let started = Instant::now();
    let JobSettings { task, averaging, kfac, optimiser, network, checkpoints, output } = &settings;
    let workshop = Workshop::open(task, kfac, optimiser, averaging.nodes, output.load.as_deref())?;
    let fleet = Fleet { workshop: &workshop, task, averaging, network, output, settings: &text, stop };
    let timeouts = averaging.budget()?.to_string();
    if !output.quiet {
        eprintln!("{timeouts}");
    }
    let keeping = keeping(checkpoints, || workshop.identity::<f32>(&text, averaging.nodes))?;
    let (faults, trace) = match (recording, &network.trace) {
        (Some(mut recording), _) => (std::mem::take(&mut recording.faults), Trace::compared(recording)),
        (None, Some(path)) => {
            let file = File::create(path).with_context(|| format!("cannot write the trace {}", path.display()))?;
            (fleet.faults()?, Trace::written(BufWriter::new(file), text.clone(), true))
        }
        (None, None) => {
            let reshaped = keeping.saved.as_ref().filter(|saved| saved.manifest.run.nodes != averaging.nodes);
            let origin = reshaped.map_or_else(String::new, |saved| format!("resumed {}\n", saved.manifest.trace));
            (fleet.faults()?, Trace::hashed(text.clone() + &origin))
        }
    };
    let outages = !faults.faults.is_empty();
    let (mut story, model) = fleet.run(faults, trace, keeping)?;
    if outages && !output.no_reference && !story.interrupted && story.failure.is_none() {
        let reference = fleet.run(FaultSchedule::default(), Trace::hashed(text.clone()), Keeping::default())?.0;
        story.interrupted = reference.interrupted;
        story.failure = reference.failure.map(|failure| format!("the run without outages: {failure}"));
        story.reference = reference.averaged;
    }
    story.timeouts = timeouts;
    story.seconds = started.elapsed().as_secs_f64();
    let folder = Folder::create(output.output.as_deref(), "lossy")?;
    conclude(&folder, &workshop, output, story, model)
}

/// Finds the checkpoint to go on from and opens the folder for new ones, before anything is computed.
fn keeping(settings: &CheckpointSettings, run: impl Fn() -> RunIdentity) -> Result<Keeping> {
    let CheckpointSettings { checkpoint, every, keep, resume } = settings;
    let saved = match resume {
        None => None,
        Some(place) => {
            let saved = Saved::find(&Disk, place, Some(&run()))?;
            eprintln!("going on from {}", saved.describe());
            Some(saved)
        }
    };
    let keeper = match checkpoint {
        None => None,
        Some(folder) => Some(Keeper::open(folder, (*every, *keep), resume.as_deref(), run())?),
    };
    Ok(Keeping { keeper, saved })
}
