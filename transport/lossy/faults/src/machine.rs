//! A machine on which a node runs, and what goes wrong inside it.
//!
//! Towards the simulator it is one process. Inside there is the life of a node, which ends when it is killed and begins
//! anew, and at times a second one beside it: a former self that was frozen and came back. The machine hands frames and
//! wakes on, by its own clock, and keeps what happens while it is stopped.

mod clock;
mod damage;
mod disk;

use crate::schedule::{self, Damage, Decay, Fault, Policy, Run, Sickness};
use crate::training::{ITERATIONS, Mood, Quadratic, Witness};
use clock::Clock;
use disk::Disk;
use kronfleet_core::cluster::{
    Budget, Incarnation, Mode, Node, Occurrence, Persisted, Quarantine, Record, RunId, Settings, Shortage,
};
use kronfleet_core::participant::{Participant, Schedule, Step};
use kronfleet_core::policy::{
    Asynchronous, AveragingPolicy, Dynamic, DynamicOptions, Gauge, Periodic, Rejoin, Threshold,
};
use kronfleet_core::process::{Process, Task, Work};
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Frames that wait for a process that is stopped, at most; a socket holds no more either.
const WAITING: usize = 256;

/// See the [module](self).
pub(crate) struct Machine {
    node: NodeId,
    run: Arc<Run>,
    budget: Budget,
    clock: Clock,
    witness: Witness,
    /// When training is told that it is over.
    enough: Instant,
    restores: bool,
    random: Random,
    mood: Arc<Mutex<Mood>>,
    starts: u64,
    /// The start that has done its iterations before the run is over.
    early: Option<u64>,
    life: Option<Life>,
    ghost: Option<Ghost>,
    /// When a life that has ended is followed by another.
    back: Option<Instant>,
    deeds: VecDeque<(Instant, Deed)>,
    kills: Vec<Kill>,
    disk: Disk,
    /// What the machine itself found to be wrong.
    broken: Option<&'static str>,
    /// Frames until the life ends, and how long until the next begins.
    dying: Option<(u32, Option<Duration>)>,
    windows: Windows,
    waiting: VecDeque<Letter>,
    echoes: Vec<(Instant, NodeId, Vec<u8>)>,
    finished: Option<Piece>,
    /// Whether the ghost named the frame that is to be filled.
    ghostly: bool,
    now: Instant,
}

struct Life {
    number: u64,
    participant: Participant<Quadratic, f32>,
}

struct Ghost {
    life: Life,
    wakes: Instant,
}

/// What waits for a process that is stopped.
enum Letter {
    Frame(NodeId, Vec<u8>),
    Report(NodeId, bool),
}

/// What happens to a machine at a time.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Ghost(Instant),
    Leave(Option<Instant>),
    Finish,
    Decay(Decay),
    Restore,
    /// Kills that have not happened are off.
    Spare,
}

#[derive(Clone, Debug)]
struct Kill {
    on: String,
    left: u32,
    frames: u32,
    back: Option<Duration>,
    until: Instant,
}

/// What is wrong from one time to another.
#[derive(Clone, Debug, Default)]
struct Windows {
    pause: Vec<(Instant, Instant)>,
    slow: Vec<(Instant, Instant, f64)>,
    damage: Vec<(Instant, Instant, Damage, f64)>,
    echo: Vec<(Instant, Instant, Duration, f64)>,
    sick: Vec<(Instant, Instant, Sickness)>,
}

fn within(now: Instant, from: Instant, until: Instant) -> bool {
    from <= now && now < until
}

/// What all machines of a run share.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) run: Arc<Run>,
    pub(crate) faults: Arc<[Fault]>,
    pub(crate) witness: Witness,
    /// When training is told that it is over.
    pub(crate) enough: Instant,
    /// Whether processes that are to be restored from a checkpoint are.
    pub(crate) restores: bool,
}

impl Machine {
    /// A machine that is switched on at `now`.
    pub(crate) fn new(fleet: &Fleet, node: NodeId, now: Instant) -> Self {
        let run = Arc::clone(&fleet.run);
        let mut machine = Self {
            node,
            budget: Budget::new(run.budget).expect("a schedule's budget is checked when it is read"),
            clock: Clock::new(&fleet.faults, node),
            witness: fleet.witness.clone(),
            enough: fleet.enough,
            restores: fleet.restores,
            random: Seed(run.seed).derive("machine", node.0.into()).random(),
            run,
            mood: Arc::default(),
            starts: 0,
            early: None,
            life: None,
            ghost: None,
            back: None,
            deeds: VecDeque::new(),
            kills: Vec::new(),
            disk: Disk::default(),
            broken: None,
            dying: None,
            windows: Windows::default(),
            waiting: VecDeque::new(),
            echoes: Vec::new(),
            finished: None,
            ghostly: false,
            now,
        };
        for fault in fleet.faults.iter().filter(|fault| fault.node() == Some(node)) {
            machine.plan(fault);
        }
        machine.deeds.make_contiguous().sort_by_key(|&(at, _)| at);
        machine.begin_life(now);
        machine
    }

    fn plan(&mut self, fault: &Fault) {
        let windows = &mut self.windows;
        match *fault {
            Fault::Pause { from, until, .. } => windows.pause.push((from, until)),
            Fault::Slow { factor, from, until, .. } => windows.slow.push((from, until, factor)),
            Fault::Damage { how, share, from, until, .. } => windows.damage.push((from, until, how, share)),
            Fault::Echo { share, after, from, until, .. } => windows.echo.push((from, until, after, share)),
            Fault::Sick { with, from, until, .. } => windows.sick.push((from, until, with)),
            Fault::Disk { takes, from, until, .. } => self.disk.troubles.push((from, until, takes)),
            Fault::Decay { how, at, .. } => self.deeds.push_back((at, Deed::Decay(how))),
            Fault::Restore { at, .. } => self.deeds.push_back((at, Deed::Restore)),
            Fault::Ghost { from, until, .. } => self.deeds.push_back((from, Deed::Ghost(until))),
            Fault::Leave { at, back, .. } => self.deeds.push_back((at, Deed::Leave(back))),
            Fault::Finish { at, .. } => self.deeds.push_back((at, Deed::Finish)),
            Fault::Kill { ref on, nth, frames, back, until, .. } => {
                self.kills.push(Kill { on: on.clone(), left: nth, frames, back, until });
                self.deeds.push_back((until, Deed::Spare));
            }
            // The simulator and the clock see to these.
            _ => {}
        }
    }

    /// Switches the machine on again after a crash.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.waiting.clear();
        self.echoes.clear();
        self.finished = None;
        self.ghost = None;
        self.back = None;
        self.disk.crash(&mut self.random);
        for &(_, deed) in self.deeds.iter().filter(|&&(at, _)| at < now) {
            if let Deed::Decay(how) = deed {
                self.disk.decay(how, &mut self.random);
            }
        }
        self.deeds.retain(|&(at, deed)| at >= now || matches!(deed, Deed::Spare));
        self.begin_life(now);
    }

    fn begin_life(&mut self, now: Instant) {
        self.starts += 1;
        self.dying = None;
        self.life = None;
        let peers = (0..self.run.nodes).map(NodeId).collect();
        let run = RunId(self.run.seed);
        let mut settings = Settings::new(run, self.node, Incarnation(self.starts), peers, self.budget);
        settings.minimum = self.run.minimum as usize;
        settings.chunk = self.run.chunk as usize;
        settings.code = self.run.told;
        settings.shortage = if self.run.wait { Shortage::Wait } else { Shortage::GoOn };
        let training = Quadratic::new(&self.run, self.node, Arc::clone(&self.mood), self.witness.clone());
        settings.mode = match self.run.mode {
            schedule::Mode::Available => Mode::Available,
            schedule::Mode::Strict => Mode::Strict,
        };
        settings.quarantine = (self.run.quarantine > 0).then(|| Quarantine::after(self.run.quarantine));
        let persisted = match Persisted::read(&mut self.disk) {
            Ok(_) if self.disk.is_decayed() => {
                self.broken = Some("storage that was damaged is read as if it were not");
                return;
            }
            Ok(persisted) => persisted,
            // Whoever runs it has to restore what was there; nobody does here.
            Err(_) if self.disk.is_decayed() => return,
            Err(_) => {
                self.broken = Some("storage that was not damaged cannot be read");
                return;
            }
        };
        let shown = self.clock.shows(now);
        let participant =
            Participant::recover(settings, shown, persisted, training, policy(&self.run), plan(&self.run));
        self.life = Some(Life { number: self.starts, participant });
    }

    fn end_life(&mut self, now: Instant, back: Option<Duration>) {
        self.disk.crash(&mut self.random);
        let ended = self.life.take().map(|life| life.number);
        self.dying = None;
        self.finished.take_if(|piece| Some(piece.life) == ended);
        self.back = back.map(|span| now + span);
    }

    /// The nodes that run on it, the eldest first.
    pub(crate) fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node<f32>> {
        let ghost = self.ghost.as_mut().map(|ghost| &mut ghost.life).into_iter();
        ghost.chain(&mut self.life).map(|life| life.participant.node_mut())
    }

    /// Whether somebody waits for a record to kill the process at.
    pub(crate) fn heeds(&self) -> bool {
        !self.kills.is_empty()
    }

    /// Takes note of what the node just recorded.
    pub(crate) fn heed(&mut self, now: Instant, record: &Record) {
        if record.incarnation != Incarnation(self.starts) {
            return;
        }
        let text = record.what.to_string();
        let word = text.split(' ').next().unwrap_or_default();
        for kill in self.kills.iter_mut().filter(|kill| kill.on == word && kill.left > 0) {
            kill.left -= 1;
            if kill.left == 0 && self.dying.is_none() {
                self.dying = Some((kill.frames, kill.back));
            }
        }
        if let Some((0, back)) = self.dying {
            self.end_life(now, back);
        }
    }

    /// What the machine itself found to be wrong.
    pub(crate) fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    /// Takes in what the node wants written; a former self finds its disk taken.
    fn store(&mut self, now: Instant) {
        let shown = self.clock.shows(now);
        if let Some(life) = &mut self.life {
            while let Some(write) = life.participant.poll_write() {
                self.disk.ask(now, write);
            }
            while let Some((ticket, durable)) = self.disk.done(now) {
                life.participant.written(shown, ticket, durable);
                while let Some(write) = life.participant.poll_write() {
                    self.disk.ask(now, write);
                }
            }
        }
        if let Some(ghost) = &mut self.ghost {
            while let Some(write) = ghost.life.participant.poll_write() {
                ghost.life.participant.written(shown, write.ticket, false);
            }
        }
    }

    /// Whether a node runs on it that has not been told to leave.
    pub(crate) fn is_live(&self) -> bool {
        self.life.is_some() && self.back.is_none()
    }

    /// Whether its node has not done its iterations; whoever is healed by one that has, has done them, too.
    pub(crate) fn trains(&self) -> bool {
        self.early != Some(self.starts) && self.life.as_ref().is_some_and(|life| !life.participant.is_finished())
    }

    /// Whether nothing is left to be done for its node.
    pub(crate) fn is_over(&self) -> bool {
        match &self.life {
            Some(life) => life.participant.is_over(),
            None => self.back.is_none(),
        }
    }

    /// The node's life, if it has one.
    pub(crate) fn participant(&self) -> Option<&Participant<Quadratic, f32>> {
        self.life.as_ref().map(|life| &life.participant)
    }

    /// A former self that has been awake since some time and does not know yet that it is one.
    pub(crate) fn unaware(&self) -> Option<Instant> {
        let ghost = self.ghost.as_ref()?;
        let told = ghost.life.participant.node().is_zombie() || ghost.life.participant.is_over();
        (!told).then_some(ghost.wakes)
    }

    fn paused(&self, now: Instant) -> Option<Instant> {
        let pauses = self.windows.pause.iter().filter(|&&(from, until)| within(now, from, until));
        pauses.map(|&(_, until)| until).max()
    }

    /// Brings what training must know up to date.
    fn tell(&mut self, now: Instant) {
        self.now = now;
        let sick = self.windows.sick.iter().find(|&&(from, until, _)| within(now, from, until));
        let mood = Mood {
            sickness: sick.map(|&(.., with)| with),
            enough: now >= self.enough || self.early == Some(self.starts),
        };
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    fn receive(&mut self, now: Instant, from: NodeId, bytes: &[u8]) {
        for &(begins, ends, after, share) in &self.windows.echo {
            if within(now, begins, ends) && self.random.chance(share) {
                self.echoes.push((now + after, from, bytes.to_vec()));
            }
        }
        let damages = self.windows.damage.iter().filter(|&&(begins, ends, ..)| within(now, begins, ends));
        for &(.., how, share) in damages {
            if self.random.chance(share) {
                let mut bytes = bytes.to_vec();
                damage::damage(&mut bytes, how, &mut self.random);
                self.hand_on(now, from, &bytes);
                return;
            }
        }
        self.hand_on(now, from, bytes);
    }

    fn hand_on(&mut self, now: Instant, from: NodeId, bytes: &[u8]) {
        let shown = self.clock.shows(now);
        if let Some(life) = &mut self.life {
            life.participant.handle(shown, Event::Frame { from, bytes });
        }
        if let Some(ghost) = self.ghost.as_mut().filter(|ghost| ghost.wakes <= now) {
            ghost.life.participant.handle(shown, Event::Frame { from, bytes });
        }
    }

    fn report(&mut self, now: Instant, peer: NodeId, up: bool) {
        let shown = self.clock.shows(now);
        if let Some(life) = &mut self.life {
            life.participant.handle(shown, if up { Event::Up(peer) } else { Event::Down(peer) });
        }
    }

    fn act(&mut self, now: Instant, deed: Deed) {
        match deed {
            Deed::Ghost(wakes) => {
                if let Some(life) = self.life.take() {
                    self.disk.crash(&mut self.random);
                    self.ghost = Some(Ghost { life, wakes });
                    self.begin_life(now);
                }
            }
            Deed::Leave(back) => {
                if let Some(life) = &mut self.life {
                    life.participant.leave(self.clock.shows(now));
                    // Never, but it is not live either.
                    self.back = Some(back.unwrap_or(Instant::FAR));
                }
            }
            Deed::Finish => self.early = self.life.as_ref().map(|life| life.number),
            Deed::Decay(how) => self.disk.decay(how, &mut self.random),
            Deed::Restore => {
                if let Some(life) = self.life.as_mut().filter(|_| self.restores) {
                    life.participant = restored(&life.participant, &self.run);
                }
            }
            Deed::Spare => {
                self.kills.retain(|kill| kill.until > now);
                if let Some((_, back)) = self.dying {
                    self.end_life(now, back);
                }
            }
        }
    }

    fn hand_back(&mut self, now: Instant, piece: Piece) {
        let shown = self.clock.shows(now);
        let ghost = self.ghost.as_mut().map(|ghost| &mut ghost.life);
        for life in self.life.iter_mut().chain(ghost) {
            if life.number == piece.life {
                life.participant.complete(shown, piece.step);
                return;
            }
        }
    }
}

impl Process for Machine {
    fn handle(&mut self, now: Instant, event: Event<'_>) {
        self.tell(now);
        if self.paused(now).is_some() {
            if self.waiting.len() < WAITING {
                self.waiting.push_back(match event {
                    Event::Frame { from, bytes } => Letter::Frame(from, bytes.to_vec()),
                    Event::Up(peer) => Letter::Report(peer, true),
                    Event::Down(peer) => Letter::Report(peer, false),
                });
            }
            return;
        }
        match event {
            Event::Frame { from, bytes } => self.receive(now, from, bytes),
            Event::Up(peer) => self.report(now, peer, true),
            Event::Down(peer) => self.report(now, peer, false),
        }
    }

    fn wake(&mut self, now: Instant) {
        self.tell(now);
        if self.paused(now).is_some() {
            return;
        }
        while let Some(letter) = self.waiting.pop_front() {
            match letter {
                Letter::Frame(from, bytes) => self.receive(now, from, &bytes),
                Letter::Report(peer, up) => self.report(now, peer, up),
            }
        }
        while let Some(&(at, deed)) = self.deeds.front()
            && at <= now
        {
            self.deeds.pop_front();
            self.act(now, deed);
        }
        if self.back.is_some_and(|back| back <= now) {
            self.back = None;
            self.disk.crash(&mut self.random);
            self.begin_life(now);
        }
        let (due, later) = std::mem::take(&mut self.echoes).into_iter().partition(|&(at, ..)| at <= now);
        self.echoes = later;
        let due: Vec<(Instant, NodeId, Vec<u8>)> = due;
        for (_, from, bytes) in due {
            self.hand_on(now, from, &bytes);
        }
        if let Some(piece) = self.finished.take() {
            self.hand_back(now, piece);
        }
        let shown = self.clock.shows(now);
        if let Some(life) = &mut self.life {
            life.participant.wake(shown);
        }
        if let Some(ghost) = self.ghost.as_mut().filter(|ghost| ghost.wakes <= now) {
            ghost.life.participant.wake(shown);
        }
        self.store(now);
    }

    fn timeout(&self) -> Instant {
        if let Some(until) = self.paused(self.now) {
            return until;
        }
        let mut earliest = self.back.unwrap_or(Instant::FAR);
        if let Some(life) = &self.life {
            earliest = earliest.min(self.clock.time(life.participant.timeout())).min(self.disk.due());
        }
        if let Some(ghost) = &self.ghost {
            earliest = earliest.min(self.clock.time(ghost.life.participant.timeout()).max(ghost.wakes));
        }
        if let Some(&(at, _)) = self.deeds.front() {
            earliest = earliest.min(at);
        }
        self.echoes.iter().map(|&(at, ..)| at).fold(earliest, Instant::min)
    }

    fn poll(&mut self, now: Instant, max_frame: usize) -> Option<(NodeId, usize)> {
        if self.paused(now).is_some() {
            return None;
        }
        if let Some((0, back)) = self.dying {
            self.end_life(now, back);
        }
        let shown = self.clock.shows(now);
        self.ghostly = false;
        if let Some(life) = &mut self.life
            && let Some(planned) = life.participant.poll(shown, max_frame)
        {
            return Some(planned);
        }
        let ghost = self.ghost.as_mut().filter(|ghost| ghost.wakes <= now)?;
        self.ghostly = true;
        ghost.life.participant.poll(shown, max_frame)
    }

    fn fill(&mut self, target: &mut [u8]) {
        if self.ghostly {
            if let Some(ghost) = &mut self.ghost {
                ghost.life.participant.fill(target);
            }
        } else if let Some(life) = &mut self.life {
            life.participant.fill(target);
            self.witness.sends(self.node, target);
            if let Some((frames, _)) = &mut self.dying {
                *frames -= 1;
            }
        }
    }

    fn discard(&mut self) {
        if self.ghostly {
            if let Some(ghost) = &mut self.ghost {
                ghost.life.participant.discard();
            }
        } else if let Some(life) = &mut self.life {
            life.participant.discard();
        }
    }

    fn postpone(&mut self) {
        if self.ghostly {
            if let Some(ghost) = &mut self.ghost {
                ghost.life.participant.postpone();
            }
        } else if let Some(life) = &mut self.life {
            life.participant.postpone();
        }
    }
}

impl Work for Machine {
    type Task = Piece;

    fn begin(&mut self) -> Option<(Duration, Piece)> {
        if self.paused(self.now).is_some() {
            return None;
        }
        let slow = self.windows.slow.iter().filter(|&&(from, until, _)| within(self.now, from, until));
        let factor: f64 = slow.map(|&(.., factor)| factor).product();
        // A former self trains on, too, where its successor leaves it the processor.
        let ghost = self.ghost.as_mut().filter(|ghost| ghost.wakes <= self.now).map(|ghost| &mut ghost.life);
        let mut lives = self.life.iter_mut().chain(ghost);
        let (number, (duration, step)) = lives.find_map(|life| Some((life.number, life.participant.begin()?)))?;
        let duration = if factor == 1.0 { duration } else { duration.mul_f64(factor) };
        Some((duration, Piece { life: number, step }))
    }

    fn complete(&mut self, now: Instant, piece: Piece) {
        self.tell(now);
        if self.paused(now).is_some() {
            self.finished = Some(piece);
        } else {
            self.hand_back(now, piece);
        }
    }
}

/// When to average.
fn policy(run: &Run) -> Box<dyn AveragingPolicy> {
    let rejoin = match run.rejoin {
        schedule::Rejoin::FullWeight => Rejoin::FullWeight,
        schedule::Rejoin::ByProgress => Rejoin::ByProgress,
        schedule::Rejoin::HealFirst => Rejoin::HealFirst,
    };
    match run.policy {
        Policy::Periodic => {
            let mut policy = Periodic::new(run.interval);
            policy.rejoin = rejoin;
            Box::new(policy)
        }
        Policy::Fda => {
            let gauge = if run.seed.is_multiple_of(3) { Gauge::Naive } else { Gauge::Linear };
            // Nodes with targets of their own are always further apart.
            let mut options = DynamicOptions::new(gauge, Threshold::Fixed(1e-9));
            let budget = Budget::new(run.budget).expect("a schedule's budget is checked when it is read");
            (options.check_every, options.rejoin) = (run.interval, rejoin);
            (options.patience, options.ready) = (patience(run), budget.ready());
            Box::new(Dynamic::new(options))
        }
        Policy::Lasgd => {
            let mut policy = Asynchronous::new(run.interval);
            policy.rejoin = rejoin;
            Box::new(policy)
        }
    }
}

/// How long a check waits for the states of others.
pub(crate) fn patience(run: &Run) -> Duration {
    run.budget / 8
}

/// For how long to train.
fn plan(run: &Run) -> Schedule {
    Schedule { iterations: ITERATIONS, step: run.step }
}

/// What a checkpoint of this participant gives back.
fn restored(participant: &Participant<Quadratic, f32>, run: &Run) -> Participant<Quadratic, f32> {
    let bytes = postcard::to_allocvec(&participant.state()).expect("a participant's state can be written");
    let state = postcard::from_bytes(&bytes).expect("what was written can be read");
    Participant::resume(state, participant.training().cloned(), policy(run), plan(run))
}

/// A step of one of a machine's lives.
pub(crate) struct Piece {
    life: u64,
    step: Step<Quadratic>,
}

impl Task for Piece {
    fn perform(&mut self) {
        self.step.perform();
    }
}

/// Whether a record says that a node holds something new that others agreed on.
pub(crate) fn is_progress(record: &Record) -> bool {
    matches!(record.what, Occurrence::Committed { .. } | Occurrence::Healed { .. })
}
