//! What a sweep will cost, from steps measured on this machine.

use super::grid::{Run, fleet};
use crate::run::{Judge, Workshop};
use crate::settings::{JobSettings, Policy};
use anyhow::{Context, Result};
use kronfleet_faer::Faer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

/// Steps that are timed: one period of decompositions and a little more, as they come in training.
const STEPS: u32 = 12;

/// An evaluation of so many seconds is not made twice to know it better.
const LONG: f64 = 1.0;

/// What a kind of run needs on one core, in seconds.
#[derive(Clone, Copy, Debug)]
struct Pace {
    step: f64,
    evaluation: f64,
}

/// For every run the seconds it will need on one core: its step time, measured, by its steps, and evaluations. Takes a
/// dozen steps and an evaluation or two per kind of run.
pub(super) fn costs(runs: &[Run]) -> Result<Vec<f64>> {
    let mut paces: BTreeMap<String, Pace> = BTreeMap::new();
    let mut costs = Vec::with_capacity(runs.len());
    for run in runs {
        let job = run.job()?;
        let JobSettings { task, kfac, optimiser, averaging, network, output, .. } = &job;
        let kind = format!(
            "{:?} {:?} {} {} {kfac:?} {:?}",
            task.model, task.data, task.batch, task.micro_batches, optimiser.optimiser
        );
        let pace = match paces.get(&kind) {
            Some(&pace) => pace,
            None => {
                let pace = measure(&job).with_context(|| run.name())?;
                paces.insert(kind, pace);
                pace
            }
        };
        let share = if averaging.policy == Policy::Zeros {
            1.0 - network.outage_options().attainable(averaging.nodes).min(network.offline_fraction)
        } else {
            1.0
        };
        let nodes = f64::from(averaging.nodes);
        // Sparse evaluation leaves about a half.
        let thin = if output.evaluate_sparsely { 0.5 } else { 1.0 };
        let averaged = thin * (task.iterations / output.evaluate_every) as f64;
        let own = output.evaluate_own_every.map_or(0.0, |every| thin * (task.iterations / every) as f64) + 1.0;
        let own = if averaging.policy == Policy::Zeros { 0.0 } else { own * nodes };
        costs.push(share * nodes * task.iterations as f64 * pace.step + (averaged + own) * pace.evaluation);
    }
    Ok(costs)
}

fn measure(job: &JobSettings) -> Result<Pace> {
    let JobSettings { task, averaging, kfac, optimiser, .. } = job;
    let workshop = Workshop::open(task, kfac, optimiser, averaging.nodes, None)?;
    let fleet = fleet(job, &workshop, "", Arc::new(AtomicBool::new(false)));
    let mut trainer = fleet.workshop.trainer(Faer::<f32>::new(1), 0)?;
    // The first step meets cold memory, and counts where no other can be made: a run may fail without keeping others from
    // running.
    let cold = Instant::now();
    let mut able = trainer.step().is_ok();
    let cold = cold.elapsed().as_secs_f64();
    let (mut steps, start) = (0_u32, Instant::now());
    while able && steps < STEPS {
        able = trainer.step().is_ok();
        steps += 1;
    }
    let settled = trainer.settle();
    let step = if steps == 0 || settled.is_err() { cold } else { start.elapsed().as_secs_f64() / f64::from(steps) };
    let (_, network) = trainer.parts();
    let (parameters, running) = (vec![0.0; network.parameters_len()], vec![0.0; network.running_len()]);
    let mut judge = workshop.judge(vec![Faer::<f32>::new(1)])?;
    let mut evaluate = || -> Result<f64> {
        let start = Instant::now();
        judge.accuracy(&parameters, &running)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let mut evaluation = evaluate()?;
    if evaluation < LONG {
        // The first one meets cold memory, too.
        evaluation = evaluate()?;
    }
    Ok(Pace { step, evaluation })
}

/// Steps of one batch of timings.
const BATCH: u32 = 20;

/// Batches of steps, of which the fastest counts: whatever else the machine does makes steps slower and none faster.
const BATCHES: u32 = 9;

/// How long a step of a run takes on one core of this machine, without others.
///
/// # Errors
/// If it cannot be made.
pub fn step(run: &Run) -> Result<Duration> {
    let job = run.job()?;
    let JobSettings { task, averaging, kfac, optimiser, .. } = &job;
    let workshop = Workshop::open(task, kfac, optimiser, averaging.nodes, None)?;
    let fleet = fleet(&job, &workshop, "", Arc::new(AtomicBool::new(false)));
    let mut trainer = fleet.workshop.trainer(Faer::<f32>::new(1), 0)?;
    let mut best = Duration::MAX;
    for _ in 0..BATCHES {
        let start = Instant::now();
        for _ in 0..BATCH {
            trainer.step()?;
        }
        trainer.settle()?;
        best = best.min(start.elapsed() / BATCH);
    }
    Ok(best)
}

/// The estimate in words; `early` if runs may end before their last iteration.
pub(super) fn announce(costs: &[f64], jobs: usize, early: bool) -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!(
        "estimated from measured steps and evaluations, exchanges left out: {:.0} s of one core for {} runs, about {} with \
         {jobs} at once{}",
        costs.iter().sum::<f64>(),
        costs.len(),
        span(wall(costs, jobs, cores)),
        if early { ", and less where runs end at an accuracy" } else { "" }
    )
}

/// Seconds by the clock: more runs at once than there are cores end no sooner, and none before the longest.
fn wall(costs: &[f64], jobs: usize, cores: usize) -> f64 {
    let total: f64 = costs.iter().sum();
    let longest = costs.iter().copied().fold(0.0, f64::max);
    longest.max(total / jobs.min(cores).min(costs.len()).max(1) as f64)
}

/// Seconds as a person says them.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 100.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_bounded_by_cores_runs_and_the_longest_run() {
        assert_eq!(wall(&[10.0; 8], 8, 2), 40.0);
        assert_eq!(wall(&[10.0; 8], 1, 2), 80.0);
        assert_eq!(wall(&[10.0; 2], 8, 8), 10.0);
        assert_eq!(wall(&[30.0, 1.0, 1.0], 4, 4), 30.0);
    }
}
