//! What happened in a run, and the report about it.

use super::evaluation::Point;
use super::retrace::Repetition;
use crate::report::{Align, Curve, Folder, Outage, Table, accuracy_over_iterations};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};

/// What one node did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStory {
    /// Test accuracy of its own model at the end.
    pub accuracy: Option<f64>,
    /// Iterations made.
    pub iterations: u64,
    /// Iterations made while it could not reach the others.
    pub offline: u64,
    /// Rounds it took part in.
    pub rounds: u64,
    /// Bytes it sent, counted by its node.
    pub bytes_sent: u64,
    /// Training loss of its last iteration.
    pub loss: f64,
    /// Statistics of single blocks that were refused because they were not finite.
    pub statistics_refused: u64,
    /// Decompositions of single blocks that were repeated in double precision, failed for good, or gave way to the
    /// identity.
    pub decompositions: [u64; 3],
    /// Of shared steps, since its last start: epochs, steps abandoned, steps taken back, and steps of single blocks that left
    /// their gradient as it was because their owner had no statistics yet.
    pub shared: [u64; 4],
}

/// One line of `metrics.csv`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Which node.
    pub node: u32,
    /// Its iteration, from 1.
    pub iteration: u64,
    /// When, in seconds of the run's own time.
    pub time: f64,
    /// Mean training loss of the batch.
    pub loss: f64,
    /// Whether it could be reached.
    pub online: bool,
}

/// Checkpoints that were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// How many.
    pub written: u64,
    /// How many could not be written.
    pub failed: u64,
    /// Bytes of the last one.
    pub bytes: u64,
    /// Seconds spent on all of them, failed ones included.
    pub seconds: f64,
    /// The newest.
    pub newest: Option<String>,
    /// Why the last one that failed did.
    pub failure: Option<String>,
}

/// When the averaged model was evaluated, and what had been exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// The iteration at which models were taken.
    pub iteration: u64,
    /// The run's own seconds.
    #[serde(default)]
    pub seconds: f64,
    /// Bytes that all nodes had sent.
    pub bytes: u64,
    /// Rounds that a node had taken part in, at most.
    pub rounds: u64,
}

/// A device that was lost; its node went on without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLoss {
    /// Which node.
    pub node: u32,
    /// The iterations behind it when that was noticed.
    pub iteration: u64,
    /// What the driver said.
    pub reason: String,
}

impl fmt::Display for DeviceLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, iteration, reason } = self;
        write!(
            f,
            "n{node} lost its device at iteration {iteration} and goes on with faer from its last committed weights: {reason}"
        )
    }
}

/// A time without a node's process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Death {
    /// Which node.
    pub node: u32,
    /// Its last iteration before.
    pub from: u64,
    /// Its first iteration afterwards; the same as `from` if there was none.
    pub to: u64,
    /// When it was killed, by the clock of event logs, if this program did so.
    pub killed: Option<u64>,
    /// After how many seconds the last of the others knew.
    pub noticed: Option<f64>,
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// What was run, in words.
    pub title: String,
    /// Every knob, one a line.
    pub settings: String,
    /// The seed.
    pub seed: u64,
    /// Whether it ended before its time, on the user's wish.
    pub interrupted: bool,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// Wall-clock seconds, evaluation included.
    pub seconds: f64,
    /// The run's own seconds: virtual time.
    pub virtual_seconds: f64,
    /// Hash of the trace, where there is one.
    pub trace_hash: Option<String>,
    /// Accuracy of the average of all nodes' models.
    pub averaged: Vec<(u64, f64)>,
    /// What had been exchanged at each of these evaluations, where anything is.
    pub traffic: Vec<Traffic>,
    /// Mean accuracy of the nodes' own models.
    pub own_mean: Vec<(u64, f64)>,
    /// The averaged model's accuracy in the run without outages.
    pub reference: Vec<(u64, f64)>,
    /// Per node.
    pub nodes: Vec<NodeStory>,
    /// Rounds committed, each counted once.
    pub rounds_committed: u64,
    /// Attempts that had to be repeated.
    pub rounds_retried: u64,
    /// Samples trained on.
    pub samples: u64,
    /// Samples trained on and given up: a node that was behind took over the others' state instead.
    pub samples_lost: u64,
    /// Samples of finished nodes that no committed average counts: trained on after their last round.
    pub samples_uncommitted: u64,
    /// The accuracy whose first reach is reported.
    pub target: f64,
    /// What the invariants' checker said.
    pub invariants: String,
    /// Where it went on from, in words, if it did.
    pub resumed: Option<String>,
    /// How often a member of a commit was seen to have, on its device, the weights that another one has.
    pub audits: u64,
    /// Devices that were lost on the way.
    pub devices_lost: Vec<DeviceLoss>,
    /// The checkpoints written since it was started or gone on with.
    #[serde(skip)]
    pub kept: Kept,
    /// Processes that were killed.
    #[serde(skip)]
    pub deaths: Vec<Death>,
    /// Digest of the averaged model last judged: its parameters and running statistics, to the bit.
    #[serde(skip)]
    pub weights: Option<String>,
    /// Every timeout, as derived from the one budget.
    #[serde(skip)]
    pub timeouts: String,
    /// How far event logs were repeated, if they were replayed.
    #[serde(skip)]
    pub repetition: Option<Repetition>,
    /// Lines of `events.log`: what nodes recorded, where that is kept.
    #[serde(skip)]
    pub events: String,
    /// Lines of `metrics.csv`.
    pub metrics: Vec<Metric>,
}

impl Story {
    /// Accuracy of the averaged model at the end.
    pub fn accuracy(&self) -> Option<f64> {
        self.averaged.last().map(|point| point.1)
    }

    /// The share of all iterations that nodes made offline.
    pub fn offline_fraction(&self) -> f64 {
        let offline: u64 = self.nodes.iter().map(|node| node.offline).sum();
        let all: u64 = self.nodes.iter().map(|node| node.iterations).sum();
        if all == 0 { 0.0 } else { offline as f64 / all as f64 }
    }

    /// Bytes sent by all nodes.
    pub fn bytes_sent(&self) -> u64 {
        self.nodes.iter().map(|node| node.bytes_sent).sum()
    }

    /// Decompositions repeated, failed and given up, of all nodes.
    fn decompositions(&self) -> [u64; 3] {
        let sum = |index: usize| self.nodes.iter().map(|node| node.decompositions[index]).sum();
        [sum(0), sum(1), sum(2)]
    }

    /// What came of shared steps, of all nodes.
    fn shared(&self) -> [u64; 4] {
        std::array::from_fn(|index| self.nodes.iter().map(|node| node.shared[index]).sum())
    }

    /// Mean and worst accuracy of the nodes' own models.
    pub fn own(&self) -> Option<(f64, f64)> {
        let own: Vec<f64> = self.nodes.iter().filter_map(|node| node.accuracy).collect();
        let worst = own.iter().copied().fold(f64::INFINITY, f64::min);
        (!own.is_empty()).then(|| (own.iter().sum::<f64>() / own.len() as f64, worst))
    }

    /// The longest time, in seconds, until all others knew that a process was killed.
    pub fn noticed(&self) -> Option<f64> {
        self.deaths.iter().filter_map(|death| death.noticed).reduce(f64::max)
    }

    /// The mean loss of some steps, in the order in which they were made.
    fn mean_loss(&self, steps: std::ops::Range<usize>) -> Option<f64> {
        let losses: Vec<f64> =
            self.metrics[steps].iter().map(|metric| metric.loss).filter(|loss| loss.is_finite()).collect();
        (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// Takes over evaluations.
    pub fn curve(points: &[Point]) -> Vec<(u64, f64)> {
        points.iter().map(|point| (point.iteration, point.accuracy)).collect()
    }

    /// The first evaluated iteration at which a curve has reached the target.
    pub fn reached(&self, curve: &[(u64, f64)]) -> Option<u64> {
        curve.iter().find(|point| point.1 >= self.target).map(|point| point.0)
    }

    /// What had been exchanged when the averaged model had first reached the target.
    pub fn traffic_to_target(&self) -> Option<Traffic> {
        let iteration = self.reached(&self.averaged)?;
        self.traffic.iter().find(|traffic| traffic.iteration == iteration).copied()
    }

    /// The line for machines.
    pub fn json(&self) -> String {
        let own = self.own();
        let [epochs, abandoned, retracted, unpreconditioned] = self.shared();
        let shared = serde_json::json!({
            "epochs": epochs,
            "abandoned": abandoned,
            "retracted": retracted,
            "unpreconditioned": unpreconditioned,
        });
        let mut line = serde_json::json!({
            "accuracy": self.accuracy(),
            "accuracy_own_mean": own.map(|own| own.0),
            "accuracy_own_worst": own.map(|own| own.1),
            "weights": self.weights,
            "accuracy_reference": self.reference.last().map(|point| point.1),
            "iterations_to_target": self.reached(&self.averaged),
            "iterations_to_target_reference": self.reached(&self.reference),
            "target": self.target,
            "loss_early": self.mean_loss(0..self.metrics.len().div_ceil(10)),
            "loss_late": self.mean_loss(self.metrics.len() - self.metrics.len().div_ceil(10)..self.metrics.len()),
            "seconds": self.seconds,
            "virtual_seconds": self.virtual_seconds,
            "trace_hash": self.trace_hash,
            "offline_fraction": self.offline_fraction(),
            "deaths": self.deaths.len(),
            "released_ms": self.noticed().map(|seconds| 1e3 * seconds),
            "devices_lost": self.devices_lost.len(),
            "rounds_committed": self.rounds_committed,
            "audits": self.audits,
            "rounds_retried": self.rounds_retried,
            "recorded_commits": self.repetition.as_ref().map(|repetition| repetition.recorded),
            "repeated_commits": self.repetition.as_ref().map(|repetition| repetition.met),
            "repeated_to_the_bit": self.repetition.as_ref().map(|repetition| repetition.equal),
            "first_difference": self.repetition.as_ref().and_then(|repetition| repetition.difference.as_deref()),
            "bytes_sent": self.bytes_sent(),
            "samples": self.samples,
            "samples_lost": self.samples_lost,
            "samples_uncommitted": self.samples_uncommitted,
            "statistics_refused": self.nodes.iter().map(|node| node.statistics_refused).sum::<u64>(),
            "decompositions_repeated": self.decompositions()[0],
            "decompositions_failed": self.decompositions()[1],
            "decompositions_given_up": self.decompositions()[2],
            "shared": shared,
            "seed": self.seed,
            "interrupted": self.interrupted,
            "resumed": self.resumed,
            "checkpoints": self.kept.written,
            "checkpoints_failed": self.kept.failed,
            "checkpoint_bytes": self.kept.bytes,
            "checkpoint_seconds": self.kept.seconds,
            "failure": self.failure,
        });
        let traffic = self.traffic_to_target();
        line["bytes_to_target"] = traffic.map(|traffic| traffic.bytes).into();
        line["seconds_to_target"] = traffic.map(|traffic| traffic.seconds).into();
        line["rounds_to_target"] = traffic.map(|traffic| traffic.rounds).into();
        line.to_string()
    }

    /// The tables shown at the end and in the report.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        let mut summary = Table::new(&[("what", Align::Left), ("value", Align::Right)]);
        let share = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.4}"));
        let own = self.own();
        let iterations = |curve: &[(u64, f64)]| match (self.reached(curve), curve.is_empty()) {
            (Some(iteration), _) => iteration.to_string(),
            (None, true) => "–".to_owned(),
            (None, false) => "not reached".to_owned(),
        };
        summary.row(["accuracy of the averaged model", &share(self.accuracy())]);
        summary.row(["own models, mean", &share(own.map(|own| own.0))]);
        summary.row(["own models, worst", &share(own.map(|own| own.1))]);
        summary.row(["iterations to accuracy ".to_owned() + &self.target.to_string(), iterations(&self.averaged)]);
        if let Some(Traffic { seconds, .. }) = self.traffic_to_target() {
            summary.row(["seconds until then, of the run's own", &format!("{seconds:.2}")]);
        }
        if !self.reference.is_empty() {
            summary.row(["the same without outages".to_owned(), iterations(&self.reference)]);
            summary.row(["last accuracy without outages", &share(self.reference.last().map(|point| point.1))]);
        }
        summary.row(["realised offline fraction", &format!("{:.3}", self.offline_fraction())]);
        if !self.deaths.is_empty() {
            summary.row(["processes killed", &self.deaths.len().to_string()]);
            let noticed = self.noticed().map_or("–".to_owned(), |seconds| format!("{:.1}", 1e3 * seconds));
            summary.row(["survivors knew within milliseconds", &noticed]);
        }
        if !self.devices_lost.is_empty() {
            summary.row(["devices lost", &self.devices_lost.len().to_string()]);
        }
        summary.row(["rounds committed", &self.rounds_committed.to_string()]);
        summary.row(["rounds retried", &self.rounds_retried.to_string()]);
        if let Some(Repetition { recorded, met, equal, .. }) = &self.repetition {
            summary.row(["averages recorded", &recorded.to_string()]);
            summary.row(["repeated with the same members", &met.to_string()]);
            summary.row(["the same to the bit", &equal.to_string()]);
        }
        summary.row(["bytes sent", &self.bytes_sent().to_string()]);
        summary.row(["samples", &self.samples.to_string()]);
        summary.row(["samples lost", &self.samples_lost.to_string()]);
        summary.row(["samples in no committed average", &self.samples_uncommitted.to_string()]);
        let refused: u64 = self.nodes.iter().map(|node| node.statistics_refused).sum();
        if refused > 0 {
            summary.row(["statistics refused, not finite", &refused.to_string()]);
        }
        let names = ["decompositions repeated", "decompositions failed", "decompositions given up"];
        for (name, count) in names.into_iter().zip(self.decompositions()).filter(|&(_, count)| count > 0) {
            summary.row([name, &count.to_string()]);
        }
        let names = [
            "epochs of shared steps",
            "shared steps abandoned",
            "shared steps taken back",
            "blocks left alone by owners without statistics",
        ];
        for (name, count) in names.into_iter().zip(self.shared()).filter(|&(_, count)| count > 0) {
            summary.row([name, &count.to_string()]);
        }
        summary.row(["seed", &self.seed.to_string()]);
        if let Some(hash) = &self.trace_hash {
            summary.row(["trace hash", hash]);
        }
        summary.row(["seconds", &format!("{:.1}", self.seconds)]);
        let Kept { written, failed, bytes, seconds, .. } = self.kept;
        if written + failed > 0 {
            summary.row(["checkpoints written", &written.to_string()]);
            summary.row(["checkpoints that failed", &failed.to_string()]);
            summary.row(["bytes of the last checkpoint", &bytes.to_string()]);
            summary.row(["seconds spent on checkpoints", &format!("{seconds:.2}")]);
        }
        let _ = writeln!(text, "{summary}");
        let mut nodes = Table::new(&[
            ("node", Align::Left),
            ("own accuracy", Align::Right),
            ("loss", Align::Right),
            ("iterations", Align::Right),
            ("offline", Align::Right),
            ("rounds", Align::Right),
            ("bytes sent", Align::Right),
        ]);
        for (index, node) in self.nodes.iter().enumerate() {
            let offline = node.offline as f64 / node.iterations.max(1) as f64;
            nodes.row([
                format!("n{index}"),
                share(node.accuracy),
                format!("{:.3}", node.loss),
                node.iterations.to_string(),
                format!("{offline:.3}"),
                node.rounds.to_string(),
                node.bytes_sent.to_string(),
            ]);
        }
        let _ = write!(text, "{nodes}");
        text
    }

    /// Writes `metrics.csv`, `report.md`, `result.json` and `accuracy.svg`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Folder) -> Result<()> {
        let mut metrics = String::from("node,iteration,time,loss,online\n");
        for metric in &self.metrics {
            let Metric { node, iteration, time, loss, online } = metric;
            let _ = writeln!(metrics, "{node},{iteration},{time},{loss},{online}");
        }
        folder.write("metrics.csv", &metrics)?;
        let mut evaluations = String::from("iteration,averaged,reference\n");
        for (iteration, accuracy) in &self.averaged {
            let reference = self.reference.iter().find(|point| point.0 == *iteration);
            let reference = reference.map_or(String::new(), |point| point.1.to_string());
            let _ = writeln!(evaluations, "{iteration},{accuracy},{reference}");
        }
        folder.write("evaluations.csv", &evaluations)?;
        if !self.events.is_empty() {
            folder.write("events.log", &self.events)?;
        }
        folder.write("accuracy.svg", &self.plot()?)?;
        folder.write("result.json", &(self.json() + "\n"))?;
        folder.write("report.md", &self.report())
    }

    fn plot(&self) -> Result<String> {
        let curve = |name: &str, points: &[(u64, f64)]| Curve {
            name: name.to_owned(),
            points: points.iter().map(|&(iteration, accuracy)| (iteration as f64, accuracy)).collect(),
        };
        let mut main = vec![curve("averaged model", &self.averaged)];
        if !self.reference.is_empty() {
            main.push(curve("without outages", &self.reference));
        }
        let mut away = outages(&self.metrics);
        let death = |death: &Death| Outage { node: death.node, from: death.from as f64, to: death.to as f64 };
        away.extend(self.deaths.iter().map(death));
        accuracy_over_iterations(&self.title, &main, self.nodes.len() as u32, &away, Some(self.target))
    }

    fn report(&self) -> String {
        let ended = match &self.failure {
            Some(failure) => format!("\n**Failed**: {failure}\nThe figures are those up to that moment.\n"),
            None if self.interrupted => "\nInterrupted: the figures are those up to that moment.\n".to_owned(),
            None => String::new(),
        };
        let resumed = self.resumed.as_ref().map_or_else(String::new, |resumed| format!("\nWent on from {resumed}.\n"));
        let kept = self.kept.failure.as_ref().map_or_else(String::new, |failure| format!("\n{failure}\n"));
        let lost: String = self.devices_lost.iter().map(|loss| format!("\n{loss}\n")).collect();
        let invariants = if self.invariants.is_empty() { String::new() } else { format!("\n{}\n", self.invariants) };
        let timeouts = if self.timeouts.is_empty() { String::new() } else { format!("\n{}\n", self.timeouts) };
        format!(
            "# {}\n{ended}{lost}{resumed}{kept}\n{}\n![accuracy over iterations](accuracy.svg)\n{invariants}\n## Settings\n\n```toml\n{}```\n{timeouts}",
            self.title,
            self.tables(),
            self.settings
        )
    }
}

/// Spans of iterations that a node made offline.
fn outages(metrics: &[Metric]) -> Vec<Outage> {
    let mut outages: Vec<Outage> = Vec::new();
    for metric in metrics.iter().filter(|metric| !metric.online) {
        let (node, to) = (metric.node, metric.iteration as f64);
        match outages.iter_mut().rev().find(|outage| outage.node == node) {
            Some(outage) if outage.to >= to - 1.0 => outage.to = to,
            _ => outages.push(Outage { node, from: to - 1.0, to }),
        }
    }
    outages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_offline_iterations_are_one_outage() {
        let metric = |node, iteration, online| Metric { node, iteration, time: 0.0, loss: 0.0, online };
        let metrics =
            [metric(0, 1, false), metric(1, 1, true), metric(0, 2, false), metric(0, 3, true), metric(0, 4, false)];
        let expected = [Outage { node: 0, from: 0.0, to: 2.0 }, Outage { node: 0, from: 3.0, to: 4.0 }];
        assert_eq!(outages(&metrics), expected);
    }

    #[test]
    fn early_and_late_losses_are_those_of_a_tenth() {
        let metric = |step: u32| Metric { node: 0, iteration: 1, time: 0.0, loss: f64::from(step), online: true };
        let story = Story { metrics: (0..20).map(metric).collect(), ..Story::default() };
        let json: serde_json::Value = serde_json::from_str(&story.json()).expect("JSON");
        assert_eq!((json["loss_early"].as_f64(), json["loss_late"].as_f64()), (Some(0.5), Some(18.5)));
        let nothing: serde_json::Value = serde_json::from_str(&Story::default().json()).expect("JSON");
        assert_eq!((&nothing["loss_early"], &nothing["loss_late"]), (&().into(), &().into()));
    }

    #[test]
    fn the_fraction_is_what_was_realised() {
        let node = |iterations, offline| NodeStory { iterations, offline, ..NodeStory::default() };
        let story = Story { nodes: vec![node(10, 4), node(10, 0)], ..Story::default() };
        assert!((story.offline_fraction() - 0.2).abs() < 1e-12);
    }
}
