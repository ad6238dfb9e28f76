//! A node's process: trains, and reports to the process that started it.

use super::claim::{Claim, Guarded, Superseded};
use super::message::Message;
use super::warnings::warn_by;
use crate::run::backends::Backends;
use crate::run::clock::clock;
use crate::run::evaluation::{Agenda, Model};
use crate::run::events::EventLog;
use crate::run::survivor::Survivor;
use crate::run::workbench::Workbench;
use crate::run::workshop::Workshop;
use crate::settings::{AveragingSettings, KillAt, TaskSettings};
use anyhow::{Context, Result, anyhow};
use kronfleet_core::cluster::{Budget, Incarnation, Liveness, Occurrence, Persisted, RunId};
use kronfleet_core::error::ErrorKind;
use kronfleet_core::participant::{Participant, Schedule};
use kronfleet_core::process::{Work, drive_with};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::storage::{NoStorage, Storage};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use kronfleet_lossy::storage::Directory;
use rustix::process::{Signal, getpid, kill_process};
use std::cell::Cell;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// How long a node sleeps at most before it looks around: the grain of a full link's next attempt.
const IDLE: Duration = Duration::from_millis(1);

/// How long a node that was told to leave tries to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long a node that has just been started for the first time waits for the others before it says that it is there.
const MEETING: Duration = Duration::from_secs(5);

/// Messages that may wait for the process they go to; beyond that, this one waits.
const WAITING: usize = 4096;

/// Which node of which run a process is: all that a transport has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The run.
    pub run: RunId,
    /// What the run is called on this machine, apart from others that run at the same time.
    pub session: String,
    /// How many nodes there are.
    pub nodes: u32,
    /// Which of them this is.
    pub node: NodeId,
    /// Which start of it: 1 for the first.
    pub incarnation: Incarnation,
    /// What its timeouts follow from.
    pub budget: Budget,
}

/// A node's end of a transport.
pub struct Connection {
    /// What carries the frames.
    pub transport: Box<dyn Transport>,
    /// Makes a waiting [`recv`](Transport::recv) come back early, if the transport can; called from other threads.
    pub wake: Box<dyn Fn() + Send + Sync>,
}

/// What a node is to do.
pub struct Job<'a> {
    /// Model and data.
    pub workshop: &'a Workshop,
    /// How long to train.
    pub task: &'a TaskSettings,
    /// With whom.
    pub averaging: &'a AveragingSettings,
    /// When its model is reported.
    pub agenda: Agenda,
    /// The folder of event logs.
    pub events: &'a Path,
    /// Where it keeps what has to outlive it, in strict mode.
    pub state: Option<&'a Path>,
    /// Which node it is.
    pub place: &'a Place,
    /// Whether it waits for the others before it says that it is there.
    pub first: bool,
    /// Whether it is finished only once nobody needs it any more.
    pub apart: bool,
    /// Where it is to kill itself.
    pub kill_at: Vec<KillAt>,
}

/// The type of a node's participant.
type Trained = Participant<Survivor, f32>;

impl Job<'_> {
    /// Trains the node, reporting to standard output.
    ///
    /// Training begins when something is written to standard input. The node leaves when that ends, or on Ctrl-C or
    /// SIGTERM.
    ///
    /// # Errors
    /// If the node cannot be made or the transport fails. A failure of the training is reported instead.
    pub fn serve(&self, backends: &Backends, open: &dyn Fn(&Place) -> Result<Connection>) -> Result<()> {
        let averaging = self.averaging;
        let mut place = self.place.clone();
        let kept = self.recall(&mut place)?;
        // Made before the node can be reached: the others do not wait for it meanwhile.
        let mut trainer = backends.trainer(self.workshop, place.node.0)?;
        averaging.check_statistics(trainer.model()?.running.len())?;
        self.workshop.inform(averaging)?;
        let settings = averaging.cluster(place.run, place.node, place.incarnation)?;
        let (messages, waiting) = sync_channel(WAITING);
        let messages = Arc::new(messages);
        warn_by(&messages);
        // Real steps take the time they take.
        let schedule = Schedule { iterations: self.task.iterations, step: Duration::ZERO };
        // Not claimed before the transport has this place: whoever is refused there takes nothing from anybody.
        let Connection { mut transport, wake } = open(&place)?;
        let claim = Rc::new(Claim::make(self.events, &place.node.to_string(), place.incarnation.0)?);
        let log = EventLog::create(self.events, place.node, place.incarnation)?;
        let (mut storage, persisted) = guard(kept, &claim)?;
        let wake: Arc<dyn Fn() + Send + Sync> = wake.into();
        let now = transport.now();
        let mut participant =
            Participant::recover(settings, now, persisted, trainer, averaging.policy(place.node)?, schedule);
        participant = averaging.shared(participant, now, place.node).by(clock());

        let orders = Arc::<Orders>::default();
        orders.obey(&wake)?;
        let writer = thread::spawn(move || write(&waiting));
        let mut report = Report {
            messages,
            claim,
            log,
            samples: 0,
            iteration: 0,
            agenda: self.agenda,
            waits: averaging.min_members.is_some(),
            meeting: Some(if self.first { now + MEETING } else { now }),
            apart: self.apart,
            kill_at: self.kill_at.clone(),
            finished: false,
        };
        let lived = live(&mut participant, &mut *transport, &mut *storage, &wake, &orders, |participant, now| {
            report.observe(participant, now)
        });
        match &lived {
            Ok(()) => {}
            Err(error) if error.is::<Superseded>() => report.say(Message::Superseded { reason: error.to_string() }),
            Err(error) => report.say(Message::Failed { reason: format!("{error:#}") }),
        }
        drop(report);
        // Only a panic of its own could be lost here, and it has been printed.
        let _ = writer.join();
        lived
    }

    /// Opens what the node keeps, if it keeps anything; this start is numbered after what is found there.
    fn recall(&self, place: &mut Place) -> Result<Option<Kept>> {
        let Some(folder) = self.state else { return Ok(None) };
        let folder = folder.join(place.node.to_string());
        let opened = Directory::open(&folder).with_context(|| format!("cannot make {}", folder.display()));
        let mut kept = Kept { directory: opened?, folder };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        place.incarnation = kept.read::<f32>()?.next_incarnation(since_epoch);
        Ok(Some(kept))
    }
}

/// Where a node keeps what has to outlive it.
struct Kept {
    directory: Directory,
    folder: PathBuf,
}

impl Kept {
    fn read<S: Scalar>(&mut self) -> Result<Persisted<S>> {
        Persisted::read(&mut self.directory).with_context(|| format!("the state in {}", self.folder.display()))
    }
}

/// What the node writes to as long as it is the latest start, and what it goes on with.
///
/// Read only now that no former start can write any more.
fn guard<S: Scalar>(kept: Option<Kept>, claim: &Rc<Claim>) -> Result<(Box<dyn Storage>, Persisted<S>)> {
    let Some(mut kept) = kept else { return Ok((Box::new(NoStorage), Persisted::default())) };
    let persisted = kept.read()?;
    Ok((Box::new(Guarded { storage: kept.directory, claim: Rc::clone(claim) }), persisted))
}

/// What the process at the other end of standard input wants.
#[derive(Debug, Default)]
struct Orders {
    /// Training may begin: it has written something.
    begin: AtomicBool,
    /// This process is to leave: that one has closed its end, or is gone, or there was a signal.
    leave: AtomicBool,
}

impl Orders {
    /// Takes orders until the last.
    fn obey(self: &Arc<Self>, wake: &Arc<dyn Fn() + Send + Sync>) -> Result<()> {
        let (orders, awake) = (Arc::clone(self), Arc::clone(wake));
        // Some launchers send signals to all processes, not only to the first.
        ctrlc::set_handler(move || {
            orders.leave.store(true, Ordering::Release);
            awake();
        })
        .context("cannot listen for Ctrl-C")?;
        let (orders, awake) = (Arc::clone(self), Arc::clone(wake));
        // It waits as long as the process lives, and ends with it.
        thread::spawn(move || {
            let mut order = [0];
            while std::io::stdin().lock().read(&mut order).is_ok_and(|read| read > 0) {
                orders.begin.store(true, Ordering::Release);
                awake();
            }
            orders.leave.store(true, Ordering::Release);
            awake();
        });
        Ok(())
    }
}

/// Writes messages as they come, so that a slow reader does not hold up the node.
fn write(messages: &Receiver<Message>) {
    let mut output = std::io::stdout().lock();
    for message in messages {
        if output.write_all(message.line().as_bytes()).and_then(|()| output.flush()).is_err() {
            // Nobody reads any more; standard input has ended, too.
            return;
        }
    }
}

/// Drives a process on this thread and performs its work, until it was told to stop and has left.
///
/// What happened is observed before anybody can hear of it.
fn live(
    participant: &mut Trained,
    transport: &mut dyn Transport,
    storage: &mut dyn Storage,
    wake: &Arc<dyn Fn() + Send + Sync>,
    orders: &Orders,
    mut observe: impl FnMut(&mut Trained, Instant) -> Result<()>,
) -> Result<()> {
    let mut leaving = None;
    let mut failure = Ok(());
    let silent = Cell::new(false);
    let transport = &mut Silenced { transport, silent: &silent };
    let wake = &**wake;
    thread::scope(|scope| {
        let mut bench = Workbench::new(scope, participant.node().budget(), wake);
        drive_with(participant, transport, storage, IDLE, |participant, mut now| {
            if let Some((then, task)) = bench.result(now) {
                now = then;
                participant.complete(now, task);
            }
            if leaving.is_none() && orders.leave.load(Ordering::Acquire) {
                leaving = Some(now + GOODBYE);
                participant.leave(now);
            }
            if let Err(error) = observe(participant, now) {
                failure = Err(error);
                silent.set(true);
                return true;
            }
            if let Some(deadline) = leaving {
                return now >= deadline || participant.is_over();
            }
            if !bench.is_busy()
                && orders.begin.load(Ordering::Acquire)
                && let Some((_, task)) = participant.begin()
            {
                bench.begin(task);
            }
            false
        })
    })
    .map_err(|error| match error.kind {
        ErrorKind::Superseded => anyhow!(Superseded { reason: error.to_string() }),
        _ => error.into(),
    })?;
    failure
}

/// A transport that a node which has failed cannot say anything by: nobody hears of what could not be recorded.
struct Silenced<'a> {
    transport: &'a mut dyn Transport,
    silent: &'a Cell<bool>,
}

impl Transport for Silenced<'_> {
    fn local(&self) -> NodeId {
        self.transport.local()
    }

    fn max_frame(&self) -> usize {
        self.transport.max_frame()
    }

    fn now(&self) -> Instant {
        self.transport.now()
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        if self.silent.get() {
            let reason = "this node has failed and says nothing more".to_owned();
            return Err(TransportError { kind: ErrorKind::Unreachable, peer: Some(to), reason });
        }
        self.transport.send(to, len, fill)
    }

    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        self.transport.recv(deadline, sink)
    }
}

/// What was reported so far.
struct Report {
    messages: Arc<SyncSender<Message>>,
    claim: Rc<Claim>,
    log: EventLog,
    samples: u64,
    iteration: u64,
    agenda: Agenda,
    /// Whether nodes wait where too few are left.
    waits: bool,
    /// How long the others are waited for, until it has said that it is there.
    meeting: Option<Instant>,
    apart: bool,
    kill_at: Vec<KillAt>,
    finished: bool,
}

impl Report {
    fn say(&self, message: Message) {
        // Nobody listens any more: standard input ends, too, and this process with it.
        let _ = self.messages.send(message);
    }

    fn observe(&mut self, participant: &mut Trained, now: Instant) -> Result<()> {
        let mut committed = None;
        while let Some(record) = participant.node_mut().poll_record() {
            match &record.what {
                // Nobody waits silently.
                Occurrence::Lacking { .. } if self.waits => self.say(Message::Waiting { text: record.to_string() }),
                Occurrence::Quarantined { .. } => self.say(Message::Waiting { text: record.to_string() }),
                Occurrence::Committed { certificate } => committed = Some(certificate.id()),
                _ => {}
            }
            let what = record.what.to_string();
            let refused = match record.what {
                Occurrence::Refused { by, known } => Some((by, known, record.node, record.incarnation)),
                _ => None,
            };
            let (claim, log) = (&self.claim, &mut self.log);
            claim.write(|| log.write(record))?;
            if let Some((by, known, node, own)) = refused {
                let reason = format!(
                    "{by} knows a later start of {node}, {known}, which has taken the place of this one, {own}"
                );
                return Err(Superseded { reason }.into());
            }
            if self.kill_at.iter_mut().any(|at| at.is_met(&what)) {
                kill_process(getpid(), Signal::KILL).context("cannot kill this process")?;
            }
        }
        if let Some(failure) = participant.failure() {
            return Err(anyhow!("{failure}"));
        }
        let united = committed.filter(|_| participant.unites());
        if let (Some(certificate), Some(trainer)) = (united, participant.training_mut()) {
            let weights = trainer.model()?.digest();
            self.say(Message::Adopted { certificate, weights });
        }
        if let Some(deadline) = self.meeting
            && (now >= deadline || participant.node().peers().all(|peer| peer.liveness == Liveness::Up))
        {
            self.meeting = None;
            self.say(Message::Joined);
        }
        // Samples tell a step from a healing, which moves the iteration, too.
        let samples = participant.node().samples().0;
        if samples > self.samples {
            let loss = participant.last().map(|last| last.loss).filter(|loss| loss.is_finite());
            self.say(Message::Step {
                iteration: participant.iteration(),
                loss,
                samples: samples - self.samples,
                bytes_sent: participant.node().counters().total_sent().bytes,
            });
            self.samples = samples;
        }
        if let Some(loss) = participant.training_mut().and_then(Survivor::take_loss) {
            self.say(Message::Lost { iteration: loss.iteration, reason: loss.reason });
        }
        if participant.is_waiting() {
            // Judged is what a node has once the averaging that was due at its iteration is over.
            return Ok(());
        }
        // A node that was healed forward is judged by what it has where it has arrived.
        for iteration in self.iteration + 1..=participant.iteration() {
            if self.agenda.may_want(iteration) {
                self.model(iteration, participant)?;
            }
        }
        self.iteration = participant.iteration();
        let finished = if self.apart { participant.is_over() } else { participant.is_finished() };
        if finished && !self.finished {
            self.finished = true;
            self.say(Message::Finished);
        }
        Ok(())
    }

    fn model(&mut self, iteration: u64, participant: &mut Trained) -> Result<()> {
        let Some(trainer) = participant.training_mut() else { return Ok(()) };
        let Model { parameters, running } = trainer.model()?;
        let [parameters, running] = [parameters, running].map(|values| values.into_iter().map(f32::to_bits).collect());
        self.say(Message::Model { iteration, parameters, running });
        Ok(())
    }
}
