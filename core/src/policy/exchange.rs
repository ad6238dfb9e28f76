//! What policies have in common that exchange messages with neighbours after every so many iterations.

mod message;
mod note;

pub(super) use message::{Assembled, Assembly, Message, check_length, digest, say};
pub(super) use note::{Family, Note};

use super::{PolicyAction, PolicyInput};
use crate::cluster::Incarnation;
use crate::compress::Compressor;
use crate::scalar::{Scalar, Values};
use crate::seed::{Random, Seed};
use crate::time::{Duration, Instant};
use crate::transport::NodeId;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// When a node exchanges and how it is told, whatever is exchanged.
pub(super) struct Turns<S: Scalar> {
    interval: u64,
    patience: Duration,
    seed: Seed,
    pub(super) compressor: Box<dyn Compressor<S>>,
    pub(super) actions: VecDeque<PolicyAction>,
    /// What is to be observed is to be exchanged.
    due: bool,
}

impl<S: Scalar> Turns<S> {
    /// # Panics
    /// If `interval` is 0.
    #[track_caller]
    pub(super) fn new(interval: u64, patience: Duration, seed: Seed, compressor: Box<dyn Compressor<S>>) -> Self {
        assert!(interval > 0, "0 iterations from one exchange to the next leave no time to train");
        Self { interval, patience, seed, compressor, actions: VecDeque::new(), due: false }
    }

    /// Whether what was observed is to be exchanged; once.
    pub(super) fn take_due(&mut self) -> bool {
        core::mem::take(&mut self.due)
    }

    /// What the compressor draws from for a message.
    pub(super) fn random(&self, number: u64) -> Random {
        self.seed.derive("message", number).random()
    }

    /// Pauses until others have spoken; answers until when at most.
    pub(super) fn pause(&mut self, now: Instant) -> Instant {
        self.actions.push_back(PolicyAction::Pause);
        now + self.patience
    }

    /// Trains on, with this model if it is one.
    pub(super) fn proceed(&mut self, model: Option<&[S]>) {
        if let Some(model) = model.filter(|model| model.iter().all(|value| value.is_finite())) {
            self.actions.push_back(PolicyAction::Adopt(model.iter().map(|value| value.wide()).collect()));
        }
        self.actions.push_back(PolicyAction::Proceed);
    }

    /// Forgets what was to be done, before a state is read.
    pub(super) fn reset(&mut self) {
        self.actions.clear();
        self.due = false;
    }
}

/// A policy whose node exchanges messages with neighbours, and waits for theirs until a deadline.
pub(super) trait Exchange<S: Scalar> {
    /// Whose notes it takes.
    const FAMILY: Family;

    fn turns(&mut self) -> &mut Turns<S>;

    /// This start of the node begins.
    fn began(&mut self, incarnation: Incarnation) {
        let _ = incarnation;
    }

    /// Training has this model, as observed before the first step or for an exchange.
    fn observed(&mut self, now: Instant, model: Vec<S>, peers: &[NodeId]);

    /// An exchange is due, of this number by iterations.
    fn count(&mut self, exchange: u64) {
        let _ = exchange;
    }

    fn told(&mut self, from: NodeId, note: Note<'_>);

    /// Until when it waits; [`Instant::FAR`] if it does not.
    fn until(&self) -> Instant;

    /// Goes on with what there is.
    fn end(&mut self);

    /// Takes in what happened.
    fn take(&mut self, now: Instant, input: PolicyInput<'_>) {
        match input {
            PolicyInput::Began { incarnation, .. } => {
                self.began(incarnation);
                self.turns().actions.push_back(PolicyAction::Observe);
            }
            PolicyInput::Stepped { iteration, .. } => {
                let interval = self.turns().interval;
                if iteration.is_multiple_of(interval) {
                    self.count(iteration / interval);
                    let turns = self.turns();
                    turns.due = true;
                    turns.actions.push_back(PolicyAction::Observe);
                }
            }
            PolicyInput::Observed { parameters, peers } => self.observed(now, values(parameters), peers),
            // Others are said by policies of another kind.
            PolicyInput::Told { from, bytes } => {
                if let Some(note) = Note::decode(bytes, Self::FAMILY) {
                    self.told(from, note);
                }
            }
            // Who has finished and who was lost look the same, and what they have said last may still be on its way: the
            // deadline is near enough.
            PolicyInput::Peers(_) => {}
            // Nothing is committed where nobody contributes.
            PolicyInput::Committed(_)
            | PolicyInput::Healed(_)
            | PolicyInput::Abandoned(_)
            | PolicyInput::Averaged(_)
            | PolicyInput::Interrupted
            | PolicyInput::Replaced
            | PolicyInput::Unsaid(_) => {}
        }
    }

    /// Ends what has waited for long enough.
    fn wake_up(&mut self, now: Instant) {
        if self.until() <= now {
            self.end();
        }
    }
}

fn values<S: Scalar>(parameters: Values<'_>) -> Vec<S> {
    let mut values = Vec::with_capacity(parameters.len());
    parameters.for_each(|_, value| values.push(S::of(value)));
    values
}
