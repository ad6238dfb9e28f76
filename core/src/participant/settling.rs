//! What a participant does about each event: its policy acts, and outcomes are taken in.

use super::{Participant, State, Training};
use crate::cluster::{AbandonReason, Certificate, Contribution, Node, Outcome};
use crate::policy::{AveragingPolicy, PolicyAction, PolicyInput, Request};
use crate::scalar::Scalar;
use crate::time::Instant;
use crate::transport::NodeId;
use alloc::vec::Vec;

impl<T: Training<S>, S: Scalar> Participant<T, S> {
    /// Lets the policy act and takes in outcomes, until neither has anything more.
    pub(super) fn settle(&mut self, now: Instant) {
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
    pub(super) fn withdraw(&mut self, now: Instant) {
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
            // Also where its own could not be read: all of it is replaced.
            segment.weight = 1.0;
            training.adopt(&self.observed, false);
        }
    }

    pub(super) fn contribute(&mut self, now: Instant, request: &Request) {
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
                        let made = self.outer.as_mut().map_or(&*average, |outer| outer.conclude(&average));
                        remake(&mut self.node, &certificate, made);
                        training.adopt(made, false);
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
                    None => {
                        let made = self.outer.as_mut().map_or(&*state, |outer| outer.conclude(&state));
                        remake(&mut self.node, &certificate, made);
                        training.adopt(made, true);
                    }
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

/// Says what differences are told from, as far as that is what has been made of an average.
fn remake<S: Scalar>(node: &mut Node<S>, certificate: &Certificate, made: &Contribution<S>) {
    if let Some(parameters) = made.segments().first().filter(|segment| segment.weight > 0.0) {
        node.remake(certificate, &parameters.values);
    }
}

/// The segment of a policy's numbers.
const NUMBERS: &str = "policy";

/// Adds what a policy has averaged with every contribution.
pub(super) fn put_numbers<S: Scalar>(
    policy: &dyn AveragingPolicy,
    request: &Request,
    contribution: &mut Contribution<S>,
) {
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
