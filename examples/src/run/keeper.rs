//! Writing checkpoints while a run goes on.

use super::evaluation::Judge;
use super::story::Kept;
use super::watch::{Trained, Watch};
use crate::checkpoint::{
    CheckpointError, Common, Disk, FLEET, FleetState, Manifest, NodeState, Numbers, Part, RunIdentity, SharedState,
    Storage, Store, TrainerState,
};
use anyhow::{Result, anyhow, bail};
use kronfleet_lossy::simulation::Simulation;
use std::path::Path;
use std::time::Instant;

/// Writes a checkpoint now and then. What goes wrong with one is said and costs nothing but that checkpoint.
pub struct Keeper<D = Disk> {
    store: Store<D>,
    run: RunIdentity,
    pace: Pace,
    /// What was written so far.
    pub kept: Kept,
}

/// When a checkpoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Iterations { every: u64, next: u64 },
    Events { every: u64, seen: u64 },
}

impl<D: Storage> Keeper<D> {
    /// A checkpoint in `store` whenever the furthest node has made `every` more iterations.
    ///
    /// # Panics
    /// If `every` is 0.
    pub fn new(store: Store<D>, run: RunIdentity, every: u64) -> Self {
        assert!(every > 0, "a checkpoint every 0 iterations leaves no time to train");
        Self { store, run, pace: Pace::Iterations { every, next: every }, kept: Kept::default() }
    }

    /// A checkpoint in `store` whenever `every` more events have happened, be it in the middle of a round.
    pub fn by_events(store: Store<D>, run: RunIdentity, every: u64) -> Self {
        Self { store, run, pace: Pace::Events { every, seen: 0 }, kept: Kept::default() }
    }

    /// Takes note of an event, after which the furthest node has made so many iterations; answers whether it is time.
    pub fn is_due(&mut self, furthest: u64) -> bool {
        match &mut self.pace {
            Pace::Iterations { next, .. } => furthest >= *next,
            Pace::Events { every, seen } => {
                *seen += 1;
                *seen >= *every
            }
        }
    }

    /// Takes note that no checkpoint is wanted of what has been done.
    pub fn go_on(&mut self, furthest: u64) {
        match &mut self.pace {
            Pace::Iterations { every, next } => *next = (furthest / *every + 1) * *every,
            Pace::Events { seen, .. } => *seen = 0,
        }
    }

    /// Writes one now, between two events of the run. A failure is told to the user and counted.
    pub fn keep<J>(&mut self, simulation: &mut Simulation<Trained>, watch: &Watch<J>)
    where
        J: Judge,
    {
        let started = Instant::now();
        self.go_on(watch.furthest());
        match self.write(simulation, watch) {
            Ok(bytes) => {
                self.kept.written += 1;
                self.kept.bytes = bytes;
            }
            Err(error) => {
                self.kept.failed += 1;
                let what = format!("no checkpoint at iteration {}: {error:#}; training goes on", watch.furthest());
                watch.say(&what);
                self.kept.failure = Some(what);
            }
        }
        self.kept.seconds += started.elapsed().as_secs_f64();
    }

    fn write<J>(&mut self, simulation: &mut Simulation<Trained>, watch: &Watch<J>) -> Result<u64>
    where
        J: Judge,
    {
        let snapshot = simulation.snapshot();
        let mut trainers = Vec::new();
        let mut steps = Vec::new();
        let mut layers = None;
        for mut part in simulation.parts() {
            let node = part.node;
            let step = part.task.as_ref().and_then(|task| task.result().cloned());
            if let Some(Err(error)) = step {
                bail!("{node} has failed: {error}");
            }
            let training = match (part.task.as_mut(), part.process.as_mut()) {
                (Some(task), _) => Some(task.training_mut()),
                (None, Some(process)) => process.training_mut(),
                (None, None) => None,
            };
            let trainer = &mut training.ok_or_else(|| anyhow!("{node} has crashed and is not back"))?.trainer;
            let (own, state) = trainer.save()?;
            layers.get_or_insert(own);
            trainers.push(state);
            steps.push(step);
        }
        let participants: Vec<_> = simulation.processes().map(|(_, process)| process).collect();
        let nodes = participants.iter().zip(&trainers).zip(steps).map(|((participant, trainer), step)| NodeState {
            participant: participant.state(),
            trainer: TrainerState::of(trainer),
            shared: SharedState::of(trainer),
            step,
        });
        let nodes = nodes.collect();
        let nodes_and_models = participants.iter().map(|participant| {
            let model = participant.outer().map(|outer| outer.base());
            (participant.node(), model)
        });
        let averages = participants.iter().any(|participant| participant.policy().averages());
        let common = Common::of(nodes_and_models, &trainers, averages);
        let manifest = Manifest {
            holds: common.describe(trainers.len()),
            common: common.iteration,
            committed: common.committed.clone(),
            frames: snapshot.frames(),
            ..Manifest::new(self.run.clone(), watch.furthest(), snapshot.now().as_nanos(), snapshot.trace().to_string())
        };
        let fleet = FleetState { simulation: snapshot, nodes, watch: watch.state() }.encode()?;
        let layers = layers.ok_or_else(|| anyhow!("there are no nodes"))?;
        let numbers = Numbers { layers, trainers, common };
        let fleet = std::iter::once(Ok::<Part, anyhow::Error>((FLEET.into(), fleet)));
        let (path, bytes) = self.store.write(manifest, numbers.parts().chain(fleet))?;
        self.kept.newest = Some(path.display().to_string());
        Ok(bytes)
    }
}

impl Keeper<Disk> {
    /// Opens `folder`, for at most `keep` checkpoints; `taken_up` is the folder that the run goes on from.
    ///
    /// # Errors
    /// If the folder cannot be written or holds checkpoints of another run.
    pub fn open(
        folder: &Path,
        (every, keep): (u64, u64),
        taken_up: Option<&Path>,
        run: RunIdentity,
    ) -> Result<Self, CheckpointError> {
        let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let inside = |taken_up: &Path| {
            let taken_up = place(taken_up);
            taken_up == place(folder) || taken_up.parent() == Some(&place(folder))
        };
        let store = Store::open(Disk, folder, keep as usize, taken_up.is_some_and(inside))?;
        Ok(Self::new(store, run, every))
    }
}
