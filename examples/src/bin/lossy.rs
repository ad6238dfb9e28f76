//! The main job: nodes that train together over lossy links and drop out and come back.

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, FromArgMatches, Parser};
use kronfleet_examples::report::Folder;
use kronfleet_examples::run::{Ending, Fleet, Workshop, set_threads, stop_on_signal};
use kronfleet_examples::settings::{
    AveragingSettings, BackendKind, Driver, KfacSettings, NetworkSettings, OptimiserSettings, OutputSettings,
    TaskSettings, arguments, describe,
};
use kronfleet_faer::Faer;
use kronfleet_lossy::fault::FaultSchedule;
use kronfleet_lossy::trace::{Recording, Trace};
use kronfleet_nalgebra::Nalgebra;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::time::Instant;

/// Train a network among nodes that go offline and come back, over simulated lossy links.
///
/// Without arguments: 8 nodes, LeNet-5, K-FAC, embedded Fashion-MNIST, every node offline 40 % of the time, weights
/// averaged every 5 iterations, in virtual time. The run folder holds metrics.csv, report.md and a plot.
#[derive(Parser)]
#[command(name = "lossy", version, args_override_self = true)]
struct Settings {
    #[command(flatten)]
    task: TaskSettings,
    #[command(flatten)]
    averaging: AveragingSettings,
    #[command(flatten)]
    kfac: KfacSettings,
    #[command(flatten)]
    optimiser: OptimiserSettings,
    #[command(flatten)]
    network: NetworkSettings,
    #[command(flatten)]
    output: OutputSettings,
}

fn main() -> Result<()> {
    let matches = Settings::command().get_matches_from(arguments(std::env::args_os())?);
    let mut settings = Settings::from_arg_matches(&matches)?;
    let mut text = describe(&Settings::command(), &matches);
    let recording = match &settings.network.replay {
        None => None,
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot open the trace {}", path.display()))?;
            let recording = Recording::read(BufReader::new(file))?;
            let recorded = kronfleet_examples::settings::flags(&recording.options)?;
            let program = std::iter::once("lossy".into());
            let recorded = Settings::try_parse_from(program.chain(recorded))?;
            settings = Settings { output: settings.output, ..recorded };
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
    let Settings { task, averaging, kfac, optimiser, network, output } = &settings;
    let workshop = Workshop::open(task, kfac, optimiser, averaging.nodes, output.load.as_deref())?;
    let fleet = Fleet { workshop: &workshop, task, averaging, network, output, settings: &text, stop };
    let train = |faults: FaultSchedule, trace: Trace| -> Result<Ending> {
        match task.backend {
            BackendKind::Faer => fleet.train(|| Faer::<f32>::new(1), faults, trace),
            BackendKind::Nalgebra => fleet.train(Nalgebra::<f32>::new, faults, trace),
        }
    };
    let (faults, trace) = match (recording, &network.trace) {
        (Some(mut recording), _) => (std::mem::take(&mut recording.faults), Trace::compared(recording)),
        (None, Some(path)) => {
            let file = File::create(path).with_context(|| format!("cannot write the trace {}", path.display()))?;
            (fleet.faults(), Trace::written(BufWriter::new(file), text.clone(), true))
        }
        (None, None) => (fleet.faults(), Trace::hashed(text.clone())),
    };
    let outages = !faults.faults.is_empty();
    let (mut story, model) = train(faults, trace)?;
    if outages && !output.no_reference && !story.interrupted && story.failure.is_none() {
        let reference = train(FaultSchedule::default(), Trace::hashed(text.clone()))?.0;
        story.interrupted = reference.interrupted;
        story.failure = reference.failure.map(|failure| format!("the run without outages: {failure}"));
        story.reference = reference.averaged;
    }
    story.seconds = started.elapsed().as_secs_f64();
    let folder = Folder::create(output.output.as_deref(), "lossy")?;
    story.write(&folder)?;
    if let (Some(path), Some(model)) = (&output.save, model) {
        workshop.save(path, &model)?;
    }
    if !output.quiet {
        println!("{}\n\n{}\n{}\n\nreport: {}", story.title, story.tables(), story.invariants, folder.path().display());
    }
    if output.json {
        println!("{}", story.json());
    }
    if let Some(failure) = story.failure {
        bail!("{failure}\nthe report up to that moment: {}", folder.path().display());
    }
    Ok(())
}
