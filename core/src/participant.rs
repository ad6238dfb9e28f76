//! A training node: training, averaging policy and cluster node in one state machine.
//!
//! A [`Participant`] is a [`Process`] towards the network and [`Work`] towards whoever computes. It trains
//! until its policy wants a round, contributes, waits for the outcome, adopts it and trains on; when it has
//! done its iterations it goes on answering others until all are finished.
//!
//! # For users
//! A driver takes each step out with [`Work::begin`], performs it on any thread and gives it back with
//! [`Work::complete`]; frames are answered meanwhile.
//!
//! # For implementers
//! [`Training`] is what a trainer implements; it never hears of frames or peers.
//!
//! [`Work`]: crate::process::Work
//! [`Work::begin`]: crate::process::Work::begin
//! [`Work::complete`]: crate::process::Work::complete

mod layers;
mod overlap;
mod saved;
mod settling;
mod sharing;
mod training;
mod work;

pub use self::layers::Clock;
pub use self::saved::ParticipantState;
pub use self::sharing::SharingReport;
pub use self::training::{Summary, Training, TrainingError};
pub use self::work::Step;

use self::layers::Absence;
use self::overlap::Overlapping;
use self::sharing::Sharing;
use crate::cluster::{Contribution, Node, Persisted, Settings, Status};
use crate::outer::{Outer, OuterOptimiser};
use crate::policy::{AveragingPolicy, PolicyInput};
use crate::process::Process;
use crate::scalar::Scalar;
use crate::storage::Write;
use crate::time::{Duration, Instant};
use crate::transport::{Event, NodeId};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// How long a participant trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Until [`Training::iteration`] reaches this.
    pub iterations: u64,
    /// What [`Work::begin`](crate::process::Work::begin) says a step takes, unless it has to end earlier.
    pub step: Duration,
}

/// A training node.
pub struct Participant<T, S: Scalar> {
    node: Node<S>,
    training: Option<T>,
    policy: Box<dyn AveragingPolicy>,
    schedule: Schedule,
    state: State,
    failure: Option<TrainingError>,
    last: Option<Summary>,
    iteration: u64,
    /// Parameters for the policy to look at, or made by it.
    observed: Contribution<S>,
    /// The peers that the policy knows of, while the node pauses.
    peers: Vec<NodeId>,
    /// The node's number for them; none where they may be others.
    company: Option<u64>,
    sharing: Option<Sharing<S>>,
    /// What makes steps of averages, if the policy wants that.
    outer: Option<Outer<S>>,
    overlapping: Overlapping<S>,
    absence: Absence<S>,
    clock: Option<Clock>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum State {
    Training,
    /// The policy thinks.
    Paused,
    Waiting,
    Finished,
    Leaving,
    /// Letters of a shared step are under way.
    Exchanging,
    /// A shared step was given up; the others say how far they are.
    Halting,
}

impl<T: Training<S>, S: Scalar> Participant<T, S> {
    /// A participant that begins at `now` for the first time, or that has nothing to remember.
    pub fn new(
        settings: Settings,
        now: Instant,
        training: T,
        policy: Box<dyn AveragingPolicy>,
        schedule: Schedule,
    ) -> Self {
        Self::recover(settings, now, Persisted::default(), training, policy, schedule)
    }

    /// A participant that begins at `now` with what an earlier start of it has made durable.
    ///
    /// # Panics
    /// As [`Node::recover`] does.
    #[track_caller]
    pub fn recover(
        mut settings: Settings,
        now: Instant,
        persisted: Persisted<S>,
        training: T,
        policy: Box<dyn AveragingPolicy>,
        schedule: Schedule,
    ) -> Self {
        settings.rejoin = policy.rejoin();
        settings.remade = policy.outer().is_some_and(OuterOptimiser::remakes);
        let mut node = Node::recover(settings, now, persisted);
        node.set_status(if policy.averages() { Status::Training } else { Status::Observing });
        let iteration = training.iteration();
        let mut participant = Self {
            node,
            training: Some(training),
            policy,
            schedule,
            state: State::Training,
            failure: None,
            last: None,
            iteration,
            observed: Contribution::default(),
            peers: Vec::new(),
            company: None,
            sharing: None,
            outer: None,
            overlapping: Overlapping::default(),
            absence: Absence::default(),
            clock: None,
        };
        participant.begin_outer();
        let (iterations, incarnation) = (schedule.iterations, participant.node.incarnation());
        participant.policy.handle(now, PolicyInput::Began { iterations, incarnation });
        participant.settle(now);
        participant
    }

    /// The cluster node: its records, counters, view and last certificate.
    pub fn node(&self) -> &Node<S> {
        &self.node
    }

    /// The cluster node, to take records from it.
    pub fn node_mut(&mut self) -> &mut Node<S> {
        &mut self.node
    }

    /// The training; `None` while a step is under way.
    pub fn training(&self) -> Option<&T> {
        self.training.as_ref()
    }

    /// The training, to look into its model; `None` while a step is under way.
    pub fn training_mut(&mut self) -> Option<&mut T> {
        self.training.as_mut()
    }

    /// The policy.
    pub fn policy(&self) -> &dyn AveragingPolicy {
        &*self.policy
    }

    /// What the outer optimiser keeps, if there is one.
    pub fn outer(&self) -> Option<&Outer<S>> {
        self.outer.as_ref()
    }

    /// Whether all members of a committed round have one model right after it, by its policy.
    pub fn unites(&self) -> bool {
        self.policy.unites()
    }

    /// Iterations done, as of the last completed step.
    pub fn iteration(&self) -> u64 {
        self.iteration
    }

    /// What the last completed step did.
    pub fn last(&self) -> Option<Summary> {
        self.last
    }

    /// Whether all iterations are done.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished | State::Leaving)
    }

    /// Whether it waits for others: for the outcome of a round, or for what its policy wants to know of them.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting | State::Paused | State::Exchanging | State::Halting)
    }

    /// Why training stopped before its time, if it did.
    pub fn failure(&self) -> Option<&TrainingError> {
        self.failure.as_ref()
    }

    /// Whether nothing is left to be done: this node is finished and so is everybody it can reach, or it
    /// was told to leave and has said goodbye.
    pub fn is_over(&self) -> bool {
        match self.state {
            State::Training | State::Paused | State::Waiting | State::Exchanging | State::Halting => false,
            State::Finished => self.node.nobody_needs_this_node(),
            State::Leaving => self.node.has_left(),
        }
    }

    /// Gives up a round that is under way and says goodbye; frames still have to be sent after that.
    pub fn leave(&mut self, now: Instant) {
        self.state = State::Leaving;
        self.overlapping = Overlapping::default();
        self.node.leave(now);
    }

    /// Answers whether anything changed.
    fn finish_if_done(&mut self, now: Instant) -> bool {
        let flying = self.overlapping.flight.is_some();
        if self.state != State::Training || flying || self.iteration < self.schedule.iterations {
            return false;
        }
        if !self.says_farewell(now) {
            self.state = State::Finished;
            self.node.finish(now, self.iteration);
        }
        true
    }

    /// What training begins with is what its first average is compared with.
    fn begin_outer(&mut self) {
        let (Some(optimiser), Some(training)) = (self.policy.outer(), &mut self.training) else {
            return;
        };
        self.observed.clear();
        training.show(&mut self.observed);
        self.outer = self.observed.segments().first().map(|segment| Outer::new(optimiser, &segment.values));
    }
}

impl<T: Training<S>, S: Scalar> Process for Participant<T, S> {
    fn handle(&mut self, now: Instant, event: Event<'_>) {
        self.node.handle(now, event);
        self.settle(now);
    }

    fn wake(&mut self, now: Instant) {
        self.node.wake(now);
        self.policy.wake(now);
        self.settle(now);
    }

    fn timeout(&self) -> Instant {
        self.node.timeout().min(self.policy.timeout())
    }

    fn patience(&self) -> Duration {
        self.node.patience()
    }

    fn poll(&mut self, now: Instant, max_frame: usize) -> Option<(NodeId, usize)> {
        self.node.poll(now, max_frame)
    }

    fn fill(&mut self, target: &mut [u8]) {
        self.node.fill(target);
    }

    fn discard(&mut self) {
        self.node.discard();
    }

    fn postpone(&mut self) {
        self.node.postpone();
    }

    fn poll_write(&mut self) -> Option<Write> {
        self.node.poll_write()
    }

    fn written(&mut self, now: Instant, ticket: u64, durable: bool) {
        self.node.written(now, ticket, durable);
        self.settle(now);
    }
}

#[cfg(test)]
mod tests;
