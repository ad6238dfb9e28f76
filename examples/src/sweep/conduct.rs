//! Runs side by side, and what has been done is kept.

use super::build::build;
use super::estimate::span;
use super::files;
use super::grid::{Run, fleet};
use super::ledger::{Ledger, Outcome};
use crate::report::Folder;
use crate::run::{Keeping, Workshop};
use crate::settings::JobSettings;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kronfleet_lossy::trace::Trace;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// What the threads share.
struct Hall<'a> {
    ledger: &'a mut Ledger,
    next: usize,
    done: usize,
    /// Estimated seconds of what is done.
    cost: f64,
    failure: Option<anyhow::Error>,
}

/// Runs all of `runs`, `jobs` at once, one thread each, and writes the ledger after each; one that fails keeps no other from
/// running. Ends early when `stop` is raised: a run under way is given up, what is done stays.
pub(super) fn conduct(
    runs: &[Run],
    costs: &[f64],
    jobs: usize,
    ledger: &mut Ledger,
    folder: &Folder,
    stop: &Arc<AtomicBool>,
) -> Result<()> {
    let total: f64 = costs.iter().sum();
    let bar = ProgressBar::with_draw_target(Some((1000.0 * total) as u64), ProgressDrawTarget::stderr_with_hz(4));
    let style = ProgressStyle::with_template("{bar:32} {percent:>3} % {msg}").expect("a constant template");
    bar.set_style(style.progress_chars("█▌ "));
    let started = Instant::now();
    let hall = Mutex::new(Hall { ledger, next: 0, done: 0, cost: 0.0, failure: None });
    let locked = "no thread panics while it holds this lock";
    let build = build();
    let work = || {
        loop {
            let index = {
                let mut hall = hall.lock().expect(locked);
                if stop.load(Ordering::Relaxed) || hall.failure.is_some() || hall.next >= runs.len() {
                    return;
                }
                hall.next += 1;
                hall.next - 1
            };
            let run = &runs[index];
            // As they are now: whoever changes them later has another run.
            let files = files::digest(run);
            let outcome = perform(run, stop);
            let mut hall = hall.lock().expect(locked);
            let outcome = match outcome {
                Ok(Some(outcome)) => outcome,
                Ok(None) => return,
                Err(error) => Outcome { failure: Some(format!("{error:#}")), ..Outcome::default() },
            };
            let outcome = Outcome { files, build: Some(build.clone()), ..outcome };
            if let Some(failure) = &outcome.failure {
                bar.suspend(|| eprintln!("seed {} {} failed: {failure}", run.seed, run.name()));
            }
            let accuracy = outcome.accuracy.map_or("–".to_owned(), |accuracy| format!("{accuracy:.4}"));
            hall.ledger.add(run.clone(), outcome);
            if let Err(error) = hall.ledger.write(folder) {
                hall.failure.get_or_insert(error);
                return;
            }
            hall.done += 1;
            hall.cost += costs[index];
            let elapsed = started.elapsed().as_secs_f64();
            // The machine may be busier than when steps were timed: what is done says how much.
            let left = elapsed * (total - hall.cost).max(0.0) / hall.cost.max(f64::MIN_POSITIVE);
            let message = format!("{} of {} runs, about {} left", hall.done, runs.len(), span(left));
            if bar.is_hidden() {
                eprintln!("{message}; seed {} {}: {accuracy}", run.seed, run.name());
            }
            bar.set_position((1000.0 * hall.cost) as u64);
            bar.set_message(message);
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, runs.len()) {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
    match hall.into_inner().expect(locked).failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// One run, on one thread; `None` if it was interrupted.
fn perform(run: &Run, stop: &Arc<AtomicBool>) -> Result<Option<Outcome>> {
    let job = run.job()?;
    let JobSettings { task, averaging, kfac, optimiser, .. } = &job;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().context("cannot start a thread")?;
    let started = Instant::now();
    pool.install(|| {
        let worked = processor_seconds();
        let workshop = Workshop::open(task, kfac, optimiser, averaging.nodes, None)?.sharing(&averaging.sharing)?;
        let workshop = workshop.correcting(&averaging.drift);
        let text = run.name();
        let fleet = fleet(&job, &workshop, &text, Arc::clone(stop));
        let (mut story, _) = fleet.run(fleet.faults()?, Trace::hashed(text.clone()), Keeping::default())?;
        if story.interrupted {
            return Ok(None);
        }
        story.seconds = started.elapsed().as_secs_f64();
        let processor_seconds = Some(processor_seconds() - worked);
        Ok(Some(Outcome { processor_seconds, ..Outcome::of(&story, task.iterations) }))
    })
}

/// What this thread has had of a processor.
fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}
