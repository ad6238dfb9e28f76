//! What it costs, while nobody dies, that anybody may: training with committed rounds, against the bare collective.

use crate::group::Group;
use crate::member::Message;
use crate::place::{End, RUN, Training};
use anyhow::{Context, Result, anyhow};
use clap::Parser;
use kronfleet_core::cluster::{Budget, Contribution, Incarnation, Liveness, Settings};
use kronfleet_core::participant::{Participant, Schedule, Training as _};
use kronfleet_core::policy::{Periodic, Request};
use kronfleet_core::process::{Work, drive};
use kronfleet_core::time::Duration;
use kronfleet_core::trainer::Trainer;
use kronfleet_core::transport::NodeId;
use kronfleet_examples::run::{Workbench, Workshop, set_threads};
use kronfleet_examples::settings::{KfacSettings, OptimiserSettings, TaskSettings};
use kronfleet_faer::Faer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The settings of a trainer that is started without arguments.
#[derive(Parser)]
struct Usual {
    #[command(flatten)]
    task: TaskSettings,
    #[command(flatten)]
    kfac: KfacSettings,
    #[command(flatten)]
    optimiser: OptimiserSettings,
}

/// Iterations before the clock starts: everything is allocated, and the first inverses are made.
const WARM_UP: u64 = 20;

/// One node's training, timed.
pub(crate) fn train(
    end: &mut End,
    nodes: u32,
    training: Training,
    over: &AtomicBool,
    tell: &mut dyn FnMut(Message) -> Result<()>,
) -> Result<()> {
    let Usual { task, kfac, optimiser } = Usual::parse_from(["allreduce"]);
    // Every process has a core, if the machine has as many.
    set_threads(1)?;
    let workshop = Workshop::open(&task, &kfac, &optimiser, nodes, None)?;
    let trainer = workshop.trainer(Faer::<f32>::new(1), end.transport.local().0)?;
    if training.committed {
        return committed(end, nodes, training, trainer, over, tell);
    }
    tell(Message::Training(bare(end, nodes, training, trainer)?))?;
    tell(Message::Done)
}

/// Seconds of an iteration with the bare collective: steps and averages on one thread, and who is lost ends it all.
fn bare(end: &mut End, nodes: u32, training: Training, mut trainer: Trainer<Faer<f32>>) -> Result<f64> {
    let mut group = Group::new(&mut *end.transport, nodes);
    let mut reduction = None;
    // Until everybody is there.
    group.barrier()?;
    let mut start = Instant::now();
    for iteration in 1..=WARM_UP + training.iterations {
        trainer.step()?;
        if iteration % training.interval == 0 {
            let mut own = Contribution::default();
            trainer.contribute(&Request::default(), &mut own);
            own.iteration = iteration;
            let own = Arc::new(own);
            let reduction = match &mut reduction {
                Some(reduction) => reduction,
                none => none.insert(group.prepare(&own)?),
            };
            group.reduce(reduction, &own)?;
            trainer.adopt(reduction.result(), false);
        }
        if iteration == WARM_UP {
            group.barrier()?;
            start = Instant::now();
        }
    }
    let seconds = start.elapsed().as_secs_f64() / training.iterations as f64;
    group.barrier()?;
    Ok(seconds)
}

/// The same with committed rounds, as a trainer's node does it.
fn committed(
    end: &mut End,
    nodes: u32,
    training: Training,
    trainer: Trainer<Faer<f32>>,
    over: &AtomicBool,
    tell: &mut dyn FnMut(Message) -> Result<()>,
) -> Result<()> {
    let budget = Budget::new(Duration::from_secs(5)).context("five seconds are a budget")?;
    let (local, peers) = (end.transport.local(), (0..nodes).map(NodeId).collect());
    let settings = Settings { minimum: nodes as usize, ..Settings::new(RUN, local, Incarnation(1), peers, budget) };
    let schedule = Schedule { iterations: WARM_UP + training.iterations, step: Duration::ZERO };
    let policy = Box::new(Periodic::new(training.interval));
    let mut participant = Participant::new(settings, end.transport.now(), trainer, policy, schedule);
    let wake = &*end.wake;
    let mut met = false;
    let mut start = None;
    let mut seconds = None;
    let mut outcome = Ok(());
    std::thread::scope(|scope| {
        let mut bench = Workbench::new(scope, budget, wake);
        drive(&mut participant, &mut *end.transport, Duration::from_millis(1), |participant, now| {
            if let Some((now, task)) = bench.result(now) {
                participant.complete(now, task);
            }
            if let Some(failure) = participant.failure() {
                outcome = Err(anyhow!("{failure}"));
            }
            // An average was due at the end of the warm-up, so that everybody begins together.
            let warm = participant.iteration() >= WARM_UP && !participant.is_waiting();
            if start.is_none() && warm {
                start = Some(Instant::now());
            }
            if let Some(start) = start.filter(|_| participant.is_finished() && seconds.is_none()) {
                let taken = start.elapsed().as_secs_f64() / training.iterations as f64;
                seconds = Some(taken);
                outcome = tell(Message::Training(taken)).and_then(|()| tell(Message::Done));
            }
            met = met || participant.node().peers().all(|peer| peer.liveness == Liveness::Up);
            if met
                && !bench.is_busy()
                && let Some((_, task)) = participant.begin()
            {
                bench.begin(task);
            }
            outcome.is_err() || over.load(Ordering::Acquire)
        })
    })?;
    outcome
}
