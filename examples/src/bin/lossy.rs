//! The main job: nodes that train together over lossy links and drop out and come back.

use anyhow::{Context, Result, bail};
use clap::Parser;
use kronfleet_examples::run::{Again, Fleet, Keeping, Order, Workshop, conclude, prepare, set_threads, stop_on_signal};
use kronfleet_examples::settings::{Driver, JobSettings};
use kronfleet_examples::sweep::{self, SweepSettings};
use kronfleet_lossy::fault::FaultSchedule;
use kronfleet_lossy::trace::Trace;
use std::fs::File;
use std::io::BufWriter;
use std::time::Instant;

fn main() -> Result<()> {
    let mut words = std::env::args_os();
    if words.nth(1).is_some_and(|argument| argument == "sweep") {
        let program = std::iter::once("lossy sweep".into());
        return sweep::sweep(&SweepSettings::parse_from(program.chain(words)), &stop_on_signal()?).map(drop);
    }
    let Order { settings, text, again } = Order::of(std::env::args_os())?;
    if settings.network.driver == Driver::Threads && (again.is_some() || settings.network.trace.is_some()) {
        bail!("real threads have no trace: leave out --trace and --replay, or use --driver virtual");
    }
    set_threads(settings.task.threads)?;
    let stop = stop_on_signal()?;
    let started = Instant::now();
    let JobSettings { task, averaging, kfac, optimiser, network, checkpoints, output } = &settings;
    network.check(averaging).map_err(anyhow::Error::msg)?;
    for caution in network.caution(averaging.nodes).into_iter().chain(averaging.caution()) {
        eprintln!("{caution}");
    }
    let folder = prepare(output, "lossy")?;
    let workshop = Workshop::open(task, kfac, optimiser, averaging.nodes, output.load.as_deref())?;
    let workshop = workshop.sharing(&averaging.sharing)?.correcting(&averaging.drift);
    let fleet = Fleet { workshop: &workshop, task, averaging, network, output, settings: &text, stop };
    let timeouts = averaging.budget()?.to_string();
    if !output.quiet {
        eprintln!("{timeouts}");
    }
    let keeping = Keeping::open(checkpoints, || workshop.identity::<f32>(&text, averaging.nodes))?;
    if let (Some(saved), Some(_)) = (&keeping.saved, averaging.sharing.inner)
        && saved.manifest.run.nodes != averaging.nodes
    {
        let nodes = saved.manifest.run.nodes;
        bail!(
            "a run with --inner goes on with as many nodes as it had: give --nodes {nodes}, or begin from its --save by --load"
        );
    }
    let (faults, trace) = match (again, &network.trace) {
        (Some(Again::Events(_)), _) if averaging.sharing.inner.is_some() => {
            bail!("event logs say nothing of shared steps: a run with --inner cannot be replayed from them");
        }
        (Some(Again::Events(recorded)), _) => {
            folder.write("faults.txt", &recorded.faults.to_string())?;
            let (mut story, model) = fleet.retrace(&recorded)?;
            story.timeouts = timeouts;
            story.seconds = started.elapsed().as_secs_f64();
            return conclude(&folder, &workshop, output, story, model);
        }
        (Some(Again::Trace(mut recording)), _) => (std::mem::take(&mut recording.faults), Trace::compared(recording)),
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
    conclude(&folder, &workshop, output, story, model)
}
