//! What a participant trains.

use crate::cluster::Contribution;
use crate::error::ErrorKind;
use crate::placement::Letters;
use crate::policy::Request;
use crate::scalar::Scalar;
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
