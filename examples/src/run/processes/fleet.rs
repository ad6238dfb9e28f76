//! The process that starts the nodes' processes, kills some of them, and tells the user.

use super::claim::{SUPERSEDED, Superseded};
use super::command::Launcher;
use super::message::Message;
use crate::run::audit::Audit;
use crate::run::display::Display;
use crate::run::evaluation::{Evaluator, Judge};
use crate::run::events::{self, Entry};
use crate::run::lossy::Ending;
use crate::run::story::{Death, DeviceLoss, Metric, Story, Traffic};
use anyhow::{Context, Result, anyhow, bail};
use kronfleet_core::cluster::Occurrence;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::Duration;
use kronfleet_core::transport::NodeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::ops::Range;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

/// How long processes may take to leave before they are killed.
const FAREWELL: Duration = Duration::from_secs(5);

/// How often the user's wish to stop is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Processes about to be started.
pub struct Fleet {
    /// How many nodes there are.
    pub nodes: u32,
    /// Which of them are started here; the others are somebody else's, and only these are told about.
    pub ranks: Range<u32>,
    /// The number of each one's first start.
    pub first_start: u64,
    /// Iterations of each.
    pub iterations: u64,
    /// How many of them are killed on the way.
    pub kills: u32,
    /// How long a killed one stays away.
    pub away: Duration,
    /// Whether a killed one is started again; if not, the run ends.
    pub restarts: bool,
    /// For how long they come and go, two of them staying at least.
    pub churn: Option<Duration>,
    /// What the run is called on this machine.
    pub session: String,
    /// The folder of event logs.
    pub events: PathBuf,
    /// What every process is started with, besides who it is.
    pub arguments: Vec<OsString>,
    /// What starts this program as one of them.
    pub launcher: Launcher,
    /// What the random choice of the killed is derived from.
    pub seed: Seed,
    /// Raised when the user wants to stop.
    pub stop: Arc<AtomicBool>,
}

/// What a start of a node said, or that it has ended (`None`).
type News = (u32, u64, Option<Result<Message>>);

/// One node, through all its starts.
struct Node {
    start: u64,
    /// Its process, if it runs.
    child: Option<Child>,
    /// When it is started again.
    due: Option<Instant>,
    /// Whether it has joined the others.
    joined: bool,
    iteration: u64,
    finished: bool,
    /// Which of the story's deaths it has to come back from.
    death: Option<usize>,
    /// When it was killed, until that is noticed.
    killed: Option<u64>,
    /// Bytes sent in earlier starts, and in this one.
    bytes: (u64, u64),
}

impl Fleet {
    /// Starts all processes and stays with them until all nodes are finished, the user wants to stop, or something fails.
    ///
    /// # Errors
    /// If a process cannot be started, or with [`Superseded`] if a later start, not of this fleet, has taken the place of
    /// one: then nothing is to be written. What else fails later is the story's [`failure`](Story::failure), so that the
    /// report is written all the same.
    pub fn train<J: Judge>(&self, story: Story, evaluator: Evaluator<J>, display: Display) -> Result<Ending> {
        let (said, news) = channel();
        let mut watch = Watch {
            fleet: self,
            nodes: Vec::new(),
            said,
            story,
            evaluator,
            display,
            random: self.seed.derive("kills", 0).random(),
            kills: 0,
            audit: Audit::default(),
            began: Instant::now(),
            next: Instant::now(),
        };
        for rank in 0..self.nodes {
            let start = self.first_start;
            let elsewhere = !self.ranks.contains(&rank);
            let child = if elsewhere { None } else { Some(watch.start(rank, start)?) };
            let (due, death, killed) = (None, None, None);
            // Nobody here waits for nodes of others.
            let (joined, finished) = (elsewhere, elsewhere);
            watch.nodes.push(Node { start, child, due, joined, iteration: 0, finished, death, killed, bytes: (0, 0) });
        }
        match watch.stay(&news) {
            Err(error) if error.is::<Superseded>() => {
                watch.end(None);
                Err(error)
            }
            stayed => Ok(watch.end(stayed.err())),
        }
    }
}

/// A fleet that runs. Dropping it kills what still runs.
struct Watch<'a, J> {
    fleet: &'a Fleet,
    nodes: Vec<Node>,
    said: Sender<News>,
    story: Story,
    evaluator: Evaluator<J>,
    display: Display,
    random: Random,
    kills: u32,
    audit: Audit,
    began: Instant,
    /// When the next process comes or goes, if they do.
    next: Instant,
}

impl<J: Judge> Watch<'_, J> {
    /// Starts the process of a node.
    fn start(&self, rank: u32, start: u64) -> Result<Child> {
        let program = std::env::current_exe().context("cannot find this program to start it again")?;
        let mut child = (self.fleet.launcher)(rank, &program)
            .args(&self.fleet.arguments)
            .args([format!("--rank={rank}"), format!("--start={start}"), format!("--session={}", self.fleet.session)])
            .args(["--events".as_ref(), self.fleet.events.as_os_str()])
            .args((start == self.fleet.first_start).then_some("--first"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the process the user sees; that one tells the others.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {} for n{rank}", program.display()))?;
        let output = child.stdout.take().expect("it was asked for");
        let said = self.said.clone();
        thread::spawn(move || listen(output, rank, start, &said));
        Ok(child)
    }

    /// Stays with the processes until all are finished.
    fn stay(&mut self, news: &Receiver<News>) -> Result<()> {
        loop {
            match news.recv_timeout(GLANCE) {
                Ok((rank, start, Some(message))) => self.take(rank, start, message?)?,
                Ok((rank, start, None)) => self.ended(rank, start)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the watch holds a sender itself"),
            }
            self.story.interrupted |= self.fleet.stop.load(Ordering::Relaxed);
            if self.story.interrupted {
                return Ok(());
            }
            if self.nodes.iter().all(|node| node.finished) {
                return Ok(());
            }
            self.kill_if_due()?;
            self.churn_if_due()?;
            self.restart_if_due()?;
        }
    }

    /// Takes note of what a process said.
    fn take(&mut self, rank: u32, start: u64, message: Message) -> Result<()> {
        let now = self.began.elapsed();
        let node = &mut self.nodes[rank as usize];
        let current = node.start == start;
        match message {
            Message::Joined => {
                node.joined = true;
                self.begin_if_complete();
            }
            Message::Step { iteration, loss, samples, bytes_sent } => {
                let loss = loss.unwrap_or(f64::NAN);
                if current {
                    node.iteration = iteration;
                    if let Some(death) = node.death.take() {
                        self.story.deaths[death].to = iteration;
                    }
                }
                node.bytes.1 = bytes_sent;
                let time = now.as_secs_f64();
                let told = &mut self.story.nodes[rank as usize];
                told.iterations += 1;
                told.loss = loss;
                told.bytes_sent = node.bytes.0 + node.bytes.1;
                self.story.samples += samples;
                self.story.virtual_seconds = time;
                self.story.metrics.push(Metric { node: rank, iteration, time, loss, online: true });
                self.display.step(rank, iteration, loss, true);
            }
            Message::Model { iteration, parameters, running } => {
                let [parameters, running] = [parameters, running].map(|bits| bits.into_iter().map(f32::from_bits));
                let point = self.evaluator.take(rank, iteration, parameters.collect(), running.collect())?;
                if let Some(point) = point {
                    self.display.accuracy(point.iteration, point.accuracy);
                    let (bytes, seconds) = (self.story.bytes_sent(), now.as_secs_f64());
                    // Rounds are counted from event logs, at the end.
                    self.story.traffic.push(Traffic { iteration: point.iteration, seconds, bytes, rounds: 0 });
                }
            }
            Message::Adopted { certificate, weights } => {
                self.story.audits += u64::from(self.audit.compare(NodeId(rank), certificate, weights)?);
            }
            Message::Lost { iteration, reason } => {
                let loss = DeviceLoss { node: rank, iteration, reason };
                self.display.say(&loss.to_string());
                self.story.devices_lost.push(loss);
            }
            Message::Waiting { text } => self.display.say(&text),
            Message::Warned { text } => self.display.say(&format!("n{rank}: {text}")),
            Message::Finished => node.finished |= current,
            Message::Superseded { reason } => return Err(Superseded { reason: format!("n{rank}: {reason}") }.into()),
            Message::Failed { reason } => bail!("n{rank}: {reason}"),
        }
        Ok(())
    }

    /// Lets nodes train once all have joined for the first time; whoever comes back trains at once.
    ///
    /// Otherwise who starts a moment late would have fallen behind before it began.
    fn begin_if_complete(&mut self) {
        if self.nodes.len() < self.fleet.nodes as usize || self.nodes.iter().any(|node| !node.joined) {
            return;
        }
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            // One that is gone meanwhile is noticed at the end of its output; for the others, twice is as good as once.
            let _ = child.stdin.as_mut().map(|orders| orders.write_all(b"\n"));
        }
    }

    /// Takes note that a process has ended; one that was killed, by whomever, is started again.
    fn ended(&mut self, rank: u32, start: u64) -> Result<()> {
        let node = &mut self.nodes[rank as usize];
        let Some(mut child) = node.child.take().filter(|_| node.start == start) else { return Ok(()) };
        let status = child.wait().with_context(|| format!("cannot learn how the process of n{rank} ended"))?;
        if status.success() {
            // Somebody has told it to leave, and it has.
            self.story.interrupted = true;
            return Ok(());
        }
        if status.code() == Some(i32::from(SUPERSEDED)) {
            let reason = format!("a later start of n{rank} than {start} is there; its own message says more");
            return Err(Superseded { reason }.into());
        }
        if status.signal().is_none() {
            bail!("the process of n{rank} has ended before its time, with {status}; its own message says why");
        }
        if !self.fleet.restarts {
            bail!(
                "the process of n{rank} was killed ({status}), and this transport takes nobody back: start the run again"
            );
        }
        self.bury(rank);
        Ok(())
    }

    /// Takes note of a node's death.
    fn bury(&mut self, rank: u32) {
        let node = &mut self.nodes[rank as usize];
        // Where they come and go, chance says when it is back.
        node.due = self.fleet.churn.is_none().then(|| Instant::now() + self.fleet.away);
        node.bytes = (node.bytes.0 + node.bytes.1, 0);
        node.death = Some(self.story.deaths.len());
        node.finished = false;
        let (from, killed) = (node.iteration, node.killed.take());
        self.story.deaths.push(Death { node: rank, from, to: from, killed, noticed: None });
        self.display.gone(rank);
    }

    /// Kills a process if the fleet has come far enough for the next kill.
    fn kill_if_due(&mut self) -> Result<()> {
        let Fleet { kills, iterations, .. } = *self.fleet;
        let done: u64 = self.nodes.iter().map(|node| node.iteration).sum();
        let all = self.fleet.ranks.len() as u64 * iterations;
        let due = self.kills < kills && done * u64::from(kills + 1) >= all * u64::from(self.kills + 1);
        let here = || self.fleet.ranks.clone().map(|rank| rank as usize);
        let complete = here().all(|rank| self.nodes[rank].child.is_some() && self.nodes[rank].death.is_none());
        if !due || !complete {
            return Ok(());
        }
        let training: Vec<usize> = here().filter(|&rank| !self.nodes[rank].finished).collect();
        let Some(&rank) = training.get(self.random.below(training.len().max(1) as u64) as usize) else {
            return Ok(());
        };
        self.kills += 1;
        self.nodes[rank].killed = Some(events::clock());
        let child = self.nodes[rank].child.as_mut().expect("all are there");
        // What follows is what follows any death: the end of its output is noticed.
        child.kill().with_context(|| format!("cannot kill the process of n{rank}"))
    }

    /// Kills a process or starts one that is away, if it is time; starts all of them once that is over.
    ///
    /// The rates are those under which hivemind and its like were found wanting: 60 % joins and 40 % kills, every half
    /// second to two seconds.
    fn churn_if_due(&mut self) -> Result<()> {
        let now = Instant::now();
        let Some(span) = self.fleet.churn.filter(|_| self.nodes.iter().all(|node| node.joined)) else { return Ok(()) };
        let here = || self.fleet.ranks.clone().map(|rank| rank as usize);
        let away: Vec<usize> = here().filter(|&rank| self.nodes[rank].child.is_none()).collect();
        if self.began.elapsed() >= span || self.nodes.iter().any(|node| node.finished) {
            // A kill after the first has finished would leave somebody without those that could help.
            for rank in away {
                self.nodes[rank].due.get_or_insert(now);
            }
            return Ok(());
        }
        if now < self.next {
            return Ok(());
        }
        self.next = now + Duration::from_millis(500 + self.random.below(1501));
        let alive: Vec<usize> = here().filter(|&rank| self.nodes[rank].child.is_some()).collect();
        if away.is_empty() || (alive.len() > 2 && self.random.chance(0.4)) {
            let rank = alive[self.random.below(alive.len() as u64) as usize];
            self.nodes[rank].killed = Some(events::clock());
            let child = self.nodes[rank].child.as_mut().expect("it is alive");
            return child.kill().with_context(|| format!("cannot kill the process of n{rank}"));
        }
        self.nodes[away[self.random.below(away.len() as u64) as usize]].due = Some(now);
        Ok(())
    }

    fn restart_if_due(&mut self) -> Result<()> {
        for rank in 0..self.nodes.len() {
            let node = &mut self.nodes[rank];
            if node.due.is_some_and(|due| due <= Instant::now()) {
                node.due = None;
                node.start += 1;
                let start = node.start;
                self.nodes[rank].child = Some(self.start(rank as u32, start)?);
            }
        }
        Ok(())
    }

    /// Lets all processes leave, and tells what happened.
    fn end(mut self, mut failure: Option<anyhow::Error>) -> Ending {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                drop(child.stdin.take());
            }
        }
        let deadline = Instant::now() + FAREWELL;
        for rank in 0..self.nodes.len() {
            let Some(child) = self.nodes[rank].child.take() else { continue };
            if let Err(error) = part(child, rank, deadline) {
                failure.get_or_insert(error);
            }
        }
        self.display.finish();
        if let Err(error) = self.judge() {
            failure.get_or_insert(error);
        }
        let story = &mut self.story;
        story.failure = failure.map(|failure| format!("{failure:#}"));
        story.averaged = Story::curve(&self.evaluator.averaged);
        story.own_mean = Story::curve(&self.evaluator.own_mean);
        for (node, accuracy) in &self.evaluator.own {
            story.nodes[*node as usize].accuracy = Some(*accuracy);
        }
        (std::mem::take(&mut self.story), self.evaluator.model.take())
    }

    /// Reads what the nodes recorded, and checks every safety invariant on it if that is all there is.
    fn judge(&mut self) -> Result<()> {
        let (story, folder) = (&mut self.story, &self.fleet.events);
        let entries = events::collect(folder)?;
        for entry in &entries {
            let _ = writeln!(story.events, "{}", entry.record);
            if let Occurrence::Committed { .. } = entry.record.what {
                story.nodes[entry.record.node.0 as usize].rounds += 1;
            }
        }
        for death in &mut story.deaths {
            death.noticed = death.killed.and_then(|killed| noticed(&entries, death.node, killed));
        }
        if self.fleet.ranks.len() < self.nodes.len() {
            story.invariants = "Not checked: event logs of other nodes are elsewhere.".to_owned();
            story.rounds_committed = story.nodes.iter().map(|node| node.rounds).max().unwrap_or(0);
            return Ok(());
        }
        let summary = events::check(&entries, &folder.display().to_string())?;
        story.rounds_committed = summary.commits;
        story.rounds_retried = summary.retried;
        story.samples_lost = summary.samples_lost;
        story.samples_uncommitted = summary.samples_uncommitted;
        story.invariants = format!("All safety invariants held over {summary}.");
        Ok(())
    }
}

impl<J> Drop for Watch<'_, J> {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How long after this moment the last of the others that survived recorded that the node was down, in seconds.
fn noticed(entries: &[Entry], dead: u32, killed: u64) -> Option<f64> {
    let mut first = BTreeMap::new();
    for Entry { clock, record } in entries.iter().filter(|entry| entry.clock > killed) {
        match record.what {
            // What is recorded from now on is about its next life.
            Occurrence::Started if record.node == NodeId(dead) => break,
            // It has died meanwhile, too.
            Occurrence::Started => drop(first.remove(&record.node)),
            Occurrence::Down { peer, .. } if peer == NodeId(dead) => drop(first.entry(record.node).or_insert(*clock)),
            _ => {}
        }
    }
    first.into_values().max().map(|last| (last - killed) as f64 / 1e9)
}

/// Passes on what a process says, and at last that it has ended.
fn listen(output: ChildStdout, rank: u32, start: u64, said: &Sender<News>) {
    for line in BufReader::new(output).split(b'\n') {
        let Ok(line) = line else { break };
        // A killed process's last line may be cut short; it is of no use then, and the end follows.
        let Ok(text) = std::str::from_utf8(&line) else { break };
        let message = Message::parse(text);
        let cut = message.is_err() && !text.ends_with('}');
        if cut || said.send((rank, start, Some(message))).is_err() {
            break;
        }
    }
    let _ = said.send((rank, start, None));
}

/// Waits until a process has left; kills it if it has not by the deadline.
fn part(mut child: Child, rank: usize, deadline: Instant) -> Result<()> {
    let mut status: Option<ExitStatus> = None;
    while status.is_none() && Instant::now() < deadline {
        status = child.try_wait().with_context(|| format!("cannot learn how the process of n{rank} ended"))?;
        if status.is_none() {
            thread::sleep(Duration::from_millis(2));
        }
    }
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(anyhow!("the process of n{rank} ended with {status}; its own message says why")),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(anyhow!("the process of n{rank} did not leave within {FAREWELL:?} and was killed"))
        }
    }
}
