//! What a sweep will cost, from steps measured on this machine.

use super::grid::{Run, fleet};
use crate::run::{Judge, Workshop};
use crate::settings::{JobSettings, Policy};
use anyhow::{Result, anyhow};
use kronfleet_faer::Faer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

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
        let kind = format!("{:?} {:?} {} {kfac:?} {:?}", task.model, task.data, task.batch, optimiser.optimiser);
        let pace = match paces.get(&kind) {
            Some(&pace) => pace,
            None => {
                let pace = measure(&job)?;
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
    // The first step meets cold memory.
    trainer.step().map_err(|error| anyhow!("{error}"))?;
    let start = Instant::now();
    for _ in 0..STEPS {
        trainer.step().map_err(|error| anyhow!("{error}"))?;
    }
    trainer.settle().map_err(|error| anyhow!("{error}"))?;
    let step = start.elapsed().as_secs_f64() / f64::from(STEPS);
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

/// The estimate in words; `early` if runs may end before their last iteration.
pub(super) fn announce(costs: &[f64], jobs: usize, early: bool) -> String {
    let total: f64 = costs.iter().sum();
    let wall = total / jobs.min(costs.len()).max(1) as f64;
    format!(
        "estimated from measured steps and evaluations, exchanges left out: {:.0} s of one core for {} runs, about {} with \
         {jobs} at once{}",
        total,
        costs.len(),
        span(wall),
        if early { ", and less where runs end at an accuracy" } else { "" }
    )
}

/// Seconds as a person says them.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 100.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}
