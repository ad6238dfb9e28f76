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

mod layers;
mod overlap;
mod sharing;

pub use self::layers::Clock;
pub use self::sharing::SharingReport;

use self::layers::{Absence, Limit};
use self::overlap::Overlapping;
use self::sharing::Sharing;
use crate::cluster::{AbandonReason, Contribution, Node, Outcome, Persisted, Settings, Status};
use crate::error::ErrorKind;
use crate::mutant::mutant;
use crate::outer::Outer;
use crate::placement::Letters;
use crate::policy::{AveragingPolicy, PolicyAction, PolicyInput, Request};
use crate::process::{Process, Task, Work};
use crate::scalar::Scalar;
use crate::storage::Write;
use crate::time::{Duration, Instant};
use crate::transport::{Event, NodeId};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// What one training step did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Summary {
    /// How many training samples it used.
    pub samples: u64,
    /// The mean loss over them.
    pub loss: f64,
    /// Of how many layers it has no gradient, because it had to end early: the first ones, which are as they were.
    pub missing: u32,
}

/// Why training cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TrainingError {
    /// What can be done about it.
    pub kind: ErrorKind,
    /// What happened.
    pub reason: String,
}

impl fmt::Display for TrainingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl core::error::Error for TrainingError {}

/// One node's training, as a participant drives it.
pub trait Training<S: Scalar>: Send {
    /// How many steps have been made, those of an adopted state included.
    fn iteration(&self) -> u64;

    /// Makes one step. This is the heavy call.
    ///
    /// # Errors
    /// If training cannot go on; the participant then leaves.
    fn step(&mut self) -> Result<Summary, TrainingError>;

    /// Makes one step as far as there is time: `goes_on` is told which share of it is done and says whether it goes on. What was
    /// not reached stays as it was, [`Summary::missing`] says how much; all of the model, if the step is to be made `whole`.
    ///
    /// Unless implemented, the step is made as a whole, and all of it is missing if it has taken too long.
    ///
    /// # Errors
    /// If training cannot go on; the participant then leaves.
    fn step_while(&mut self, goes_on: &mut dyn FnMut(f64) -> bool, whole: bool) -> Result<Summary, TrainingError> {
        let _ = whole;
        let summary = self.step()?;
        Ok(if goes_on(1.0) { summary } else { Summary { missing: u32::MAX, ..summary } })
    }

    /// The layers that [`step_while`](Self::step_while) reaches one after another, the last first: ranges of the parameters that
    /// together are all of them, in ascending order. None stand for one that is everything.
    fn layers(&self) -> Vec<Range<usize>> {
        Vec::new()
    }

    /// Puts what is to be averaged into the empty `contribution`: parameters and batch statistics with
    /// weight `request.weight`, and what else `request` names.
    ///
    /// The segments' names, order and lengths must be the same on all nodes for the same request.
    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<S>);

    /// Puts the model's parameters into the first segment of the empty `contribution`, to be looked at; with a weight of 0 if
    /// they cannot be read.
    fn show(&mut self, contribution: &mut Contribution<S>) {
        let request = Request { running: false, ..Request::default() };
        self.contribute(&request, contribution);
    }

    /// Hears what goes into the round: what it has contributed, as an outer optimiser may have changed it.
    fn contributed(&mut self, contribution: &Contribution<S>) {
        let _ = contribution;
    }

    /// Takes over the segments of `average` that have a weight above 0; keeps its own for the others.
    ///
    /// `healed` says that the average replaces a state that had fallen behind; the iteration count and
    /// everything derived from it are then taken from `average.iteration`.
    fn adopt(&mut self, average: &Contribution<S>, healed: bool);

    /// Whether others have a part in every step.
    ///
    /// Then [`step`](Self::step) may stop before the end of a step with [`letters`](Self::letters); when they are exchanged
    /// and [`answer`](Self::answer)ed, the next call goes on.
    fn is_shared(&self) -> bool {
        false
    }

    /// What has to be exchanged before the step goes on; nothing if the last call of [`step`](Self::step) has ended one.
    fn letters(&mut self) -> Option<Letters<S>> {
        None
    }

    /// Takes the letters back as they were answered.
    fn answer(&mut self, letters: Letters<S>) {
        let _ = letters;
    }

    /// Gives up the step under way, without effect.
    fn give_up(&mut self) {}

    /// Goes back to what was before the last step; once after each.
    fn retract(&mut self) {}

    /// Whether, since the last call, it has gone back to an earlier state on its own account, as where a device is lost.
    fn take_replaced(&mut self) -> bool {
        false
    }

    /// Divides the work of shared steps anew, among so many members of which this is number `me`, and goes on from
    /// `iteration`.
    fn divide(&mut self, members: usize, me: usize, iteration: u64) {
        let _ = (members, me, iteration);
    }
}

/// How long a participant trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Until [`Training::iteration`] reaches this.
    pub iterations: u64,
    /// What [`Work::begin`] says a step takes, unless it has to end earlier.
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

/// What a [`Participant`] goes on with, its training apart; `N` is its cluster node, or a reference to it.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ParticipantState<N> {
    node: N,
    policy: Vec<u64>,
    state: State,
    failure: Option<TrainingError>,
    last: Option<Summary>,
    iteration: u64,
    peers: Vec<NodeId>,
    outer: Option<Vec<u64>>,
    overlapping: Vec<u64>,
    absence: Vec<u64>,
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
        participant.policy.handle(now, PolicyInput::Began { iterations: schedule.iterations });
        participant.settle(now);
        participant
    }

    /// Everything it goes on with but its training, for a checkpoint; between two calls of a driver.
    pub fn state(&self) -> ParticipantState<&Node<S>> {
        ParticipantState {
            node: &self.node,
            policy: self.policy.save(),
            state: self.state,
            failure: self.failure.clone(),
            last: self.last,
            iteration: self.iteration,
            peers: self.peers.clone(),
            outer: self.outer.as_ref().map(Outer::save),
            overlapping: self.overlapping.save(),
            absence: self.absence.save(),
        }
    }

    /// A participant that goes on from `state`; `training` is absent if a step of it was out.
    ///
    /// The policy and the schedule have the settings that the saved ones had.
    pub fn resume(
        state: ParticipantState<Node<S>>,
        training: Option<T>,
        mut policy: Box<dyn AveragingPolicy>,
        schedule: Schedule,
    ) -> Self {
        policy.restore(&state.policy);
        let ParticipantState { node, state, failure, last, iteration, peers, outer, overlapping, absence, .. } = state;
        let absence = Absence::restore(&absence);
        let overlapping = Overlapping::restore(&overlapping, node.contribution());
        let state = if mutant!(CheckpointForgets) && state == State::Waiting { State::Training } else { state };
        let observed = Contribution::default();
        let outer = policy.outer().zip(outer).and_then(|(optimiser, words)| Outer::restore(optimiser, &words));
        let sharing = None;
        Self {
            node,
            training,
            policy,
            schedule,
            state,
            failure,
            last,
            iteration,
            observed,
            peers,
            company: None,
            sharing,
            outer,
            overlapping,
            absence,
            clock: None,
        }
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

    /// Lets the policy act and takes in outcomes, until neither has anything more.
    fn settle(&mut self, now: Instant) {
        self.give_up_lost(now);
        loop {
            while let Some(action) = self.policy.poll() {
                self.act(now, action);
            }
            if let Some((from, bytes)) = self.node.poll_note() {
                if self.told(from, &bytes) {
                    continue;
                }
                self.policy.handle(now, PolicyInput::Told { from, bytes: &bytes });
            } else if self.state == State::Paused && self.meets_others() {
                self.policy.handle(now, PolicyInput::Peers(&self.peers));
            } else if self.takes_outcomes()
                && let Some(outcome) = self.node.poll_outcome()
            {
                if self.state == State::Waiting || self.overlapping.flight.is_some() {
                    self.state = State::Training;
                    self.take(now, outcome);
                }
            } else if !self.waits_for_outcome() && !self.share_on(now) && !self.finish_if_done(now) {
                break;
            }
        }
    }

    /// Takes note of the peers that train and can be reached; answers whether they are others than those known.
    fn meets_others(&mut self) -> bool {
        let company = Some(self.node.company());
        if core::mem::replace(&mut self.company, company) == company
            || self.node.trainers().eq(self.peers.iter().copied())
        {
            return false;
        }
        self.peers = self.node.trainers().collect();
        true
    }

    fn act(&mut self, now: Instant, action: PolicyAction) {
        match action {
            PolicyAction::Contribute(request) => self.contribute(now, &request),
            PolicyAction::Offer(request, overlap) => self.offer(now, &request, overlap),
            PolicyAction::Withdraw => self.withdraw(now),
            PolicyAction::Observe => self.observe(now),
            PolicyAction::Adopt(parameters) => self.adopt(&parameters),
            PolicyAction::Tell { to, bytes } => self.node.tell(to, &bytes),
            PolicyAction::Pause if self.state == State::Training => self.state = State::Paused,
            PolicyAction::Proceed if self.state == State::Paused => self.state = State::Training,
            PolicyAction::Pause | PolicyAction::Proceed => {}
        }
    }

    /// Gives up what is under way, unless its outcome is there already.
    fn withdraw(&mut self, now: Instant) {
        if self.node.contribution().is_none() {
            return;
        }
        self.node.withdraw(now);
        self.overlapping.flight = None;
        if self.state == State::Waiting {
            self.state = State::Training;
        }
    }

    /// Shows the policy what training holds; nothing if it cannot be read, which the next step reports.
    fn observe(&mut self, now: Instant) {
        let Some(training) = &mut self.training else {
            return;
        };
        self.observed.clear();
        training.show(&mut self.observed);
        self.notice_replacement(now);
        self.meets_others();
        let unsaid: Vec<NodeId> = self.node.unsaid().collect();
        self.policy.handle(now, PolicyInput::Unsaid(&unsaid));
        if let Some(segment) = self.observed.segments().first().filter(|segment| segment.weight > 0.0) {
            let parameters = S::view(&segment.values);
            self.policy.handle(now, PolicyInput::Observed { parameters, peers: &self.peers });
        }
    }

    /// Gives training the parameters that the policy has made; of another model than its own, as a restored one can have,
    /// nothing.
    fn adopt(&mut self, parameters: &[f64]) {
        let Some(training) = &mut self.training else {
            return;
        };
        self.observed.clear();
        training.show(&mut self.observed);
        if let Some(segment) = self.observed.segments_mut().first_mut() {
            let [expected, given] = [segment.values.len(), parameters.len()];
            if expected != given {
                return;
            }
            for (target, &value) in segment.values.iter_mut().zip(parameters) {
                *target = S::of(value);
            }
            training.adopt(&self.observed, false);
        }
    }

    fn contribute(&mut self, now: Instant, request: &Request) {
        if !matches!(self.state, State::Training | State::Paused) {
            return;
        }
        let request = self.shared_request(request);
        let Some(training) = &mut self.training else {
            return;
        };
        let mut contribution = self.node.spare();
        contribution.clear();
        if self.policy.deadline().is_some() {
            self.contribute_layers(&request, &mut contribution);
        } else {
            training.contribute(&request, &mut contribution);
        }
        let Some(training) = &mut self.training else { return };
        contribution.iteration = self.iteration;
        if let Some(outer) = &self.outer {
            outer.contribute(&mut contribution);
        }
        put_numbers(&*self.policy, &request, &mut contribution);
        training.contributed(&contribution);
        self.state = State::Waiting;
        self.node.contribute(now, contribution);
    }

    fn take(&mut self, now: Instant, outcome: Outcome<S>) {
        let flight = self.overlapping.flight.take();
        let Some(training) = &mut self.training else {
            return;
        };
        match outcome {
            Outcome::Committed { certificate, average } => {
                match flight {
                    Some(flight) => self.land(&average, &flight, false),
                    None if self.policy.deadline().is_some() => self.adopt_layers(&average, false),
                    None => {
                        training.adopt(self.outer.as_mut().map_or(&*average, |outer| outer.conclude(&average)), false)
                    }
                }
                self.begin_epoch(&certificate);
                self.give_numbers(now, &average);
                self.policy.handle(now, PolicyInput::Committed(&certificate));
            }
            Outcome::Healed { certificate, state } => {
                match flight {
                    Some(flight) => self.land(&state, &flight, true),
                    None if self.policy.deadline().is_some() => self.adopt_layers(&state, true),
                    None => training.adopt(self.outer.as_mut().map_or(&*state, |outer| outer.conclude(&state)), true),
                }
                self.healed();
                self.give_numbers(now, &state);
                self.policy.handle(now, PolicyInput::Healed(&certificate));
            }
            Outcome::Abandoned(why) => {
                self.policy.handle(now, PolicyInput::Abandoned(why));
                if why == AbandonReason::Zombie {
                    self.state = State::Leaving;
                } else {
                    self.go_on_without(why);
                }
            }
        }
        self.iteration = self.training.as_ref().map_or(self.iteration, T::iteration);
    }
}

/// The segment of a policy's numbers.
const NUMBERS: &str = "policy";

/// Adds what a policy has averaged with every contribution.
fn put_numbers<S: Scalar>(policy: &dyn AveragingPolicy, request: &Request, contribution: &mut Contribution<S>) {
    let numbers = policy.numbers();
    if !numbers.is_empty() {
        let target = contribution.segment(NUMBERS, numbers.len(), request.weight);
        target.iter_mut().zip(numbers).for_each(|(target, number)| *target = S::of(number));
    }
}

impl<T: Training<S>, S: Scalar> Participant<T, S> {
    /// Tells the policy what became of its numbers.
    fn give_numbers(&mut self, now: Instant, average: &Contribution<S>) {
        if let Some(numbers) = average.find(NUMBERS).filter(|segment| segment.weight > 0.0) {
            let numbers: Vec<f64> = numbers.values.iter().map(|value| value.wide()).collect();
            self.policy.handle(now, PolicyInput::Averaged(&numbers));
        }
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

impl<T: Training<S> + 'static, S: Scalar> Work for Participant<T, S> {
    type Task = Step<T>;

    fn begin(&mut self) -> Option<(Duration, Step<T>)> {
        if self.state != State::Training || !self.may_step() {
            return None;
        }
        let takes = if self.is_midway() { Duration::ZERO } else { self.schedule.step };
        let (takes, limit) = self.limit(takes);
        let training = self.training.take()?;
        Some((takes, Step { training, make: layers::make, limit, result: None }))
    }

    fn complete(&mut self, now: Instant, step: Step<T>) {
        let Step { training, result, .. } = step;
        let iteration = training.iteration();
        self.training = Some(training);
        match result {
            Some(Ok(_)) if self.state == State::Training && self.exchange() => self.settle(now),
            Some(Ok(summary)) => {
                self.iteration = iteration;
                self.last = Some(summary);
                self.node.count_samples(summary.samples);
                self.notice_replacement(now);
                if self.state == State::Training {
                    let input = PolicyInput::Stepped { iteration, summary: &summary };
                    self.policy.handle(now, input);
                    self.settle(now);
                }
            }
            Some(Err(error)) => {
                self.failure = Some(error);
                self.leave(now);
            }
            None => {}
        }
    }
}

/// One training step, on its way through whoever computes it; it owns the training meanwhile.
#[derive(Debug)]
pub struct Step<T> {
    training: T,
    make: fn(&mut T, Option<&Limit>) -> Result<Summary, TrainingError>,
    limit: Option<Limit>,
    result: Option<Result<Summary, TrainingError>>,
}

impl<T> Step<T> {
    /// A step that goes on from a checkpoint: made already if there is a `result`, which then came with `training`.
    pub fn resume<S: Scalar>(training: T, result: Option<Result<Summary, TrainingError>>) -> Self
    where
        T: Training<S>,
    {
        Self { training, make: layers::make, limit: None, result }
    }

    /// The training, to be saved.
    pub fn training_mut(&mut self) -> &mut T {
        &mut self.training
    }

    /// What the step gave, once it is made.
    pub fn result(&self) -> Option<&Result<Summary, TrainingError>> {
        self.result.as_ref()
    }
}

impl<T: Send + 'static> Task for Step<T> {
    fn perform(&mut self) {
        if self.result.is_none() {
            self.result = Some((self.make)(&mut self.training, self.limit.as_ref()));
        }
    }
}

#[cfg(test)]
mod tests;
