//! What a participant goes on with, for checkpoints.

use super::sharing::Sharing;
use super::{Absence, Overlapping, Participant, Schedule, State, Summary, Training, TrainingError};
use crate::cluster::{Contribution, Node};
use crate::mutant::mutant;
use crate::outer::Outer;
use crate::policy::AveragingPolicy;
use crate::scalar::Scalar;
use crate::transport::NodeId;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What a [`Participant`] goes on with, its training apart; `N` is its cluster node, or a reference to it.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ParticipantState<N, S: Scalar> {
    pub(super) node: N,
    pub(super) policy: Vec<u64>,
    pub(super) state: State,
    pub(super) failure: Option<TrainingError>,
    pub(super) last: Option<Summary>,
    pub(super) iteration: u64,
    pub(super) peers: Vec<NodeId>,
    pub(super) outer: Option<Vec<u64>>,
    pub(super) overlapping: Vec<u64>,
    pub(super) absence: Vec<u64>,
    pub(super) sharing: Option<Sharing<S>>,
}

impl<T: Training<S>, S: Scalar> Participant<T, S> {
    /// Everything it goes on with but its training, for a checkpoint; between two calls of a driver.
    pub fn state(&self) -> ParticipantState<&Node<S>, S> {
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
            sharing: self.sharing.clone(),
        }
    }

    /// A participant that goes on from `state`; `training` is absent if a step of it was out.
    ///
    /// The policy and the schedule have the settings that the saved ones had.
    pub fn resume(
        state: ParticipantState<Node<S>, S>,
        training: Option<T>,
        mut policy: Box<dyn AveragingPolicy>,
        schedule: Schedule,
    ) -> Self {
        policy.restore(&state.policy);
        let ParticipantState {
            node,
            state,
            failure,
            last,
            iteration,
            peers,
            outer,
            overlapping,
            absence,
            mut sharing,
            ..
        } = state;
        let absence = Absence::restore(&absence);
        let overlapping = Overlapping::restore(&overlapping, node.contribution());
        let state = if mutant!(CheckpointForgets) && state == State::Waiting { State::Training } else { state };
        let observed = Contribution::default();
        let outer = policy.outer().zip(outer).and_then(|(optimiser, words)| Outer::restore(optimiser, &words));
        if let Some(sharing) = &mut sharing
            && mutant!(EarlyForgotten)
        {
            sharing.early.clear();
        }
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
}
