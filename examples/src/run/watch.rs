//! Watching participants train: what they record is checked, counted, shown and judged.

use super::audit::Audit;
use super::display::Display;
use super::evaluation::{Evaluator, EvaluatorState, Judge, Model};
use super::story::{DeviceLoss, Kept, Metric, NodeStory, Story, Traffic};
use super::witness::Witness;
use anyhow::{Result, anyhow};
use kronfleet_conformance::invariants::Checker;
use kronfleet_core::cluster::{CertificateId, Incarnation, Occurrence, Record};
use kronfleet_core::participant::Participant;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A participant that really trains.
pub type Trained = Participant<Witness, f32>;

/// What a [`Watch`] goes on with; `C` is its checker, or a reference to it.
#[derive(Serialize, Deserialize)]
pub struct WatchState<C> {
    story: Story,
    evaluator: EvaluatorState,
    checker: C,
    finished: Vec<bool>,
    samples: Vec<u64>,
    iterations: Vec<u64>,
    starts: Vec<(Incarnation, u64)>,
    fresh: Vec<bool>,
    adopted: Audit,
}

/// Sees every node each time it has acted.
pub struct Watch<J> {
    /// What has been seen so far.
    pub story: Story,
    evaluator: Evaluator<J>,
    display: Display,
    checker: Checker,
    finished: Vec<bool>,
    /// Whether nodes wait where too few are left.
    waits: bool,
    /// The accuracy at which there is nothing more to be seen.
    stop_at: Option<f64>,
    /// Samples each node has trained on, and its iteration, as last seen.
    samples: Vec<u64>,
    iterations: Vec<u64>,
    /// Which start of each node that was, and the bytes its earlier starts sent.
    starts: Vec<(Incarnation, u64)>,
    /// Whether a node has made no step since it was started again.
    fresh: Vec<bool>,
    /// The weights that the first member of each commit had on its device after it.
    adopted: Audit,
    stop: Arc<AtomicBool>,
    failure: Option<anyhow::Error>,
}

impl<J: Judge> Watch<J> {
    /// Watches as many nodes as `story` has.
    ///
    /// `replay` is the command that repeats the run; a broken invariant is reported with it.
    pub fn new(
        story: Story,
        evaluator: Evaluator<J>,
        display: Display,
        stop: Arc<AtomicBool>,
        replay: impl Into<String>,
    ) -> Self {
        Self {
            finished: vec![false; story.nodes.len()],
            waits: false,
            stop_at: None,
            samples: vec![0; story.nodes.len()],
            iterations: vec![0; story.nodes.len()],
            starts: vec![(Incarnation(1), 0); story.nodes.len()],
            fresh: vec![false; story.nodes.len()],
            adopted: Audit::default(),
            story,
            evaluator,
            display,
            checker: Checker::new(replay),
            stop,
            failure: None,
        }
    }

    /// The same, of nodes that wait where too few are left, and say so.
    pub fn waiting(mut self, waits: bool) -> Self {
        self.waits = waits;
        self
    }

    /// The same, of a run that is over once its averaged model has this accuracy.
    pub fn stopping(mut self, at: Option<f64>) -> Self {
        self.stop_at = at;
        self
    }

    /// What it goes on with.
    pub fn state(&self) -> WatchState<&Checker> {
        WatchState {
            story: self.story.clone(),
            evaluator: self.evaluator.state(),
            checker: &self.checker,
            finished: self.finished.clone(),
            samples: self.samples.clone(),
            iterations: self.iterations.clone(),
            starts: self.starts.clone(),
            fresh: self.fresh.clone(),
            adopted: self.adopted.clone(),
        }
    }

    /// Goes on with what another watch over as many nodes has left, at the nodes as they are; `replay` is as in
    /// [`new`](Self::new).
    ///
    /// # Errors
    /// If it is of another number of nodes.
    pub fn resume<'a>(
        &mut self,
        state: WatchState<Checker>,
        nodes: impl Iterator<Item = &'a Trained>,
        replay: impl Into<String>,
    ) -> Result<()> {
        let WatchState { story, evaluator, checker, finished, samples, iterations, starts, fresh, adopted } = state;
        let lens = [story.nodes.len(), finished.len(), samples.len(), iterations.len(), starts.len(), fresh.len()];
        if lens.iter().any(|&len| len != self.finished.len()) {
            return Err(anyhow!("the checkpoint tells of {lens:?} nodes instead of {}", self.finished.len()));
        }
        let Story { title, settings, target, .. } = std::mem::take(&mut self.story);
        self.story = Story { title, settings, target, interrupted: false, kept: Kept::default(), ..story };
        self.checker = checker.resume(replay);
        nodes.for_each(|participant| self.checker.resumed(participant.node()));
        self.evaluator.resume(evaluator);
        self.display.resume(&iterations);
        (self.finished, self.samples, self.iterations) = (finished, samples, iterations);
        (self.starts, self.fresh, self.adopted) = (starts, fresh, adopted);
        Ok(())
    }

    /// Takes note that all nodes begin after so many iterations.
    pub fn begin_at(&mut self, iteration: u64) {
        self.iterations.fill(iteration);
        self.display.resume(&self.iterations);
    }

    /// How many nodes it watches.
    pub fn nodes(&self) -> u32 {
        self.finished.len() as u32
    }

    /// The iterations of the node that is furthest.
    pub fn furthest(&self) -> u64 {
        self.iterations.iter().copied().max().unwrap_or(0)
    }

    /// Whether a node has failed or an invariant is broken.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Whether there is nothing more to be seen: all nodes are finished, the accuracy to stop at is reached, the user wants
    /// to stop, or something failed.
    pub fn is_over(&self) -> bool {
        let last = self.evaluator.averaged.last();
        let reached = self.stop_at.zip(last).is_some_and(|(at, point)| point.accuracy >= at);
        self.has_failed() || self.story.interrupted || reached || self.finished.iter().all(|&finished| finished)
    }

    /// Tells the user something.
    pub fn say(&self, what: &str) {
        self.display.say(what);
    }

    /// Takes note of a node that has acted; `record` is shown everything it recorded. Breaks when all nodes are
    /// finished, when the user wants to stop, or on a failure.
    pub fn observe(
        &mut self,
        now: Instant,
        node: NodeId,
        participant: &mut Trained,
        online: bool,
        record: impl FnMut(&Record),
    ) -> ControlFlow<()> {
        if let Err(error) = self.try_observe(now, node, participant, online, record) {
            self.failure.get_or_insert(error);
        }
        self.story.interrupted |= self.stop.load(Ordering::Relaxed);
        if self.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn try_observe(
        &mut self,
        now: Instant,
        node: NodeId,
        participant: &mut Trained,
        online: bool,
        mut record: impl FnMut(&Record),
    ) -> Result<()> {
        let index = node.0 as usize;
        let story = &mut self.story.nodes[index];
        if let Some(contribution) = participant.training_mut().and_then(Witness::take) {
            self.checker.contribution(node, &contribution);
        }
        let (display, waits) = (&self.display, self.waits);
        let mut committed = None;
        self.checker.node(participant.node_mut(), |what| {
            record(what);
            match &what.what {
                Occurrence::Committed { certificate } => {
                    story.rounds += 1;
                    committed = Some(certificate.id());
                }
                // Nobody waits silently.
                Occurrence::Lacking { .. } if waits => display.say(&what.to_string()),
                Occurrence::Quarantined { .. } => display.say(&what.to_string()),
                _ => {}
            }
        })?;
        if let Some(certificate) = committed.filter(|_| participant.unites()) {
            self.audit(node, certificate, participant)?;
        }
        let story = &mut self.story.nodes[index];
        let (incarnation, sent_before) = &mut self.starts[index];
        if *incarnation != participant.node().incarnation() {
            // It crashed, and counts from 0 again.
            (*incarnation, *sent_before) = (participant.node().incarnation(), story.bytes_sent);
            self.samples[index] = 0;
            self.fresh[index] = true;
        }
        story.bytes_sent = *sent_before + participant.node().counters().total_sent().bytes;
        let finishes = participant.is_finished() && !self.finished[index];
        self.finished[index] = participant.is_finished();
        if let Some(failure) = participant.failure() {
            return Err(anyhow!("{node}: {failure}"));
        }
        // Samples tell a step from a healing, which moves the iteration, too.
        let samples = participant.node().samples().0;
        if samples > self.samples[index] {
            self.step(now, node, participant, online, samples - self.samples[index]);
            self.samples[index] = samples;
        }
        let shared = participant.shared();
        if let Some(witness) = participant.training_mut().filter(|_| finishes) {
            let last = witness.trainer.settle().map_err(|error| anyhow!("{node}: {error}"))?;
            self.loss(node, last.loss);
            let report = witness.trainer.report();
            let story = &mut self.story.nodes[index];
            story.statistics_refused = report.refused;
            story.decompositions = [report.retried, report.kept, report.identities];
            if let Some(shared) = shared {
                story.shared = [shared.epochs, shared.abandoned, shared.retracted, report.unpreconditioned];
            }
        }
        if let Some(loss) = participant.training_mut().and_then(|witness| witness.trainer.take_loss()) {
            let loss = DeviceLoss { node: node.0, iteration: loss.iteration, reason: loss.reason };
            self.display.say(&loss.to_string());
            self.story.devices_lost.push(loss);
        }
        if participant.is_waiting() {
            // Judged is what a node has once the averaging that was due at its iteration is over.
            return Ok(());
        }
        let (before, after) = (self.iterations[index], participant.iteration());
        // One that was set back is not judged twice.
        self.iterations[index] = before.max(after);
        // A node that was healed forward is judged by what it has where it has arrived.
        for iteration in before + 1..=after {
            if self.evaluator.wants(iteration) {
                self.judge(now, node, iteration, participant)?;
            }
        }
        Ok(())
    }

    /// Compares the weights that a node has on its device after a commit with those of the others that share in it.
    fn audit(&mut self, node: NodeId, certificate: CertificateId, participant: &mut Trained) -> Result<()> {
        let Some(witness) = participant.training_mut() else { return Ok(()) };
        let digest = witness.trainer.model().map_err(|error| anyhow!("{node}: {error}"))?.digest();
        self.story.audits += u64::from(self.adopted.compare(node, certificate, digest)?);
        Ok(())
    }

    /// Takes note of a step that was made.
    fn step(&mut self, now: Instant, node: NodeId, participant: &Trained, online: bool, samples: u64) {
        let iteration = participant.iteration();
        let loss = participant.last().unwrap_or_default().loss;
        // A trainer reads a step's loss at the next one; at its first it waits.
        if !std::mem::take(&mut self.fresh[node.0 as usize]) {
            self.loss(node, loss);
        }
        let story = &mut self.story.nodes[node.0 as usize];
        story.iterations += 1;
        story.offline += u64::from(!online);
        self.story.samples += samples;
        self.story.virtual_seconds = now.as_secs_f64();
        self.story.metrics.push(Metric { node: node.0, iteration, time: now.as_secs_f64(), loss, online });
        self.display.step(node.0, iteration, loss, online);
    }

    /// Takes note of the loss of a node's last step, if it made one.
    fn loss(&mut self, node: NodeId, loss: f64) {
        if let Some(metric) = self.story.metrics.iter_mut().rev().find(|metric| metric.node == node.0) {
            metric.loss = loss;
            self.story.nodes[node.0 as usize].loss = loss;
        }
    }

    /// Hands a node's model to the evaluation at an iteration.
    fn judge(&mut self, now: Instant, node: NodeId, iteration: u64, participant: &mut Trained) -> Result<()> {
        let Some(witness) = participant.training_mut() else { return Ok(()) };
        let Model { parameters, running } = witness.trainer.model().map_err(|error| anyhow!("{node}: {error}"))?;
        if let Some(point) = self.evaluator.take(node.0, iteration, parameters, running)? {
            self.display.accuracy(point.iteration, point.accuracy);
            let rounds = self.story.nodes.iter().map(|node| node.rounds).max().unwrap_or(0);
            let (bytes, seconds) = (self.story.bytes_sent(), now.as_secs_f64());
            self.story.traffic.push(Traffic { iteration: point.iteration, seconds, bytes, rounds });
            // Steps are over before the averaging that is due after them.
            self.story.virtual_seconds = seconds;
        }
        Ok(())
    }

    /// Ends the watch: the story, a failure or a broken invariant included, and the averaged parameters and running
    /// statistics last judged.
    pub fn end(mut self) -> (Story, Option<Model>) {
        self.display.finish();
        let story = &mut self.story;
        match self.checker.finish() {
            Ok(summary) => {
                story.rounds_committed = summary.commits;
                story.rounds_retried = summary.retried;
                story.samples_lost = summary.samples_lost;
                story.samples_uncommitted = summary.samples_uncommitted;
                story.invariants = format!("All safety invariants held over {summary}.");
            }
            Err(violation) => {
                self.failure.get_or_insert(violation.into());
            }
        }
        story.failure = self.failure.map(|failure| failure.to_string());
        story.averaged = Story::curve(&self.evaluator.averaged);
        story.own_mean = Story::curve(&self.evaluator.own_mean);
        for (node, accuracy) in &self.evaluator.own {
            story.nodes[*node as usize].accuracy = Some(*accuracy);
        }
        (self.story, self.evaluator.model)
    }
}

/// A story with nothing in it yet, of so many nodes.
pub fn blank(title: String, settings: String, seed: u64, nodes: u32, target: f64) -> Story {
    let nodes = vec![NodeStory::default(); nodes as usize];
    Story { title, settings, seed, nodes, target, ..Story::default() }
}
