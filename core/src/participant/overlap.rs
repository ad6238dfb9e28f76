//! Contributions that training does not wait for.
//!
//! While one is under way the node makes steps as ever. Its outcome stays with the cluster node until it is to be taken in,
//! between two steps; it is then made one with a model that has gone on.
//!
//! Where a part of the model is contributed, the parts are segments `parameters/0` and so on, of which those of others count
//! nothing and do not travel. All segments are always there, so that nodes whose turns differ can be in one round. A node
//! that is healed by such a round is given the parts that were in it; its others count next to nothing until the first
//! averages of them, which it takes as they are. After the last step all parts are contributed.

use super::settling::put_numbers;
use super::{Participant, State, Training};
use crate::cluster::{AbandonReason, Contribution, Segment};
use crate::outer::Outer;
use crate::policy::words::{Saved, Words};
use crate::policy::{Blend, Overlap, PolicyInput, Request, part};
use crate::scalar::Scalar;
use crate::time::Instant;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

/// What a part counts of a node that has no business to have an opinion on it.
pub(super) const DOUBTED: f64 = 1e-9;

/// A contribution under way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flight<S> {
    pub(super) overlap: Overlap,
    /// The iteration at which it began.
    begun: u64,
    /// The model at that time; empty where nobody asks, where it could not be read, or where training does not go on from it.
    snapshot: Vec<S>,
}

/// What of contributions under way is remembered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Overlapping<S> {
    pub(super) flight: Option<Flight<S>>,
    /// Parts of the model in which this node is behind.
    pub(super) doubted: BTreeSet<u32>,
    /// Parts on which none but those who are behind had anything to say in the last round.
    pub(super) wanted: BTreeSet<u32>,
    /// What was remembered could not be read.
    lost: bool,
}

impl<S> Default for Overlapping<S> {
    fn default() -> Self {
        Self { flight: None, doubted: BTreeSet::new(), wanted: BTreeSet::new(), lost: false }
    }
}

impl<S: Scalar> Overlapping<S> {
    /// Puts it into words.
    pub(super) fn save(&self) -> Vec<u64> {
        let mut words = Words::default();
        for parts in [&self.doubted, &self.wanted] {
            words.0.push(parts.len() as u64);
            words.0.extend(parts.iter().map(|&part| u64::from(part)));
        }
        words.optional(self.flight.as_ref(), |words, Flight { overlap, begun, snapshot }| {
            let (kind, own) = match overlap.blend {
                Blend::Progress => (0, 0.0),
                Blend::Share(own) => (1, own),
            };
            let part = [overlap.part.0, overlap.part.1].map(u64::from);
            words.0.extend([overlap.delay, overlap.most, part[0], part[1], kind, own.to_bits(), *begun]);
            words.values(snapshot);
        });
        words.0
    }

    /// What was [`save`](Self::save)d while this was contributed, if anything had no outcome; if it is not that, what was under
    /// way is lost.
    pub(super) fn restore(words: &[u64], contributed: Option<&Contribution<S>>) -> Self {
        let mut words = Saved::new(words);
        let read = Self::read(&mut words).filter(|read| words.word().is_none() && read.fits(contributed));
        read.unwrap_or_else(|| Self { lost: true, ..Self::default() })
    }

    fn fits(&self, contributed: Option<&Contribution<S>>) -> bool {
        let Some(Flight { overlap: Overlap { part: (number, parts), .. }, snapshot, .. }) = &self.flight else {
            return true;
        };
        let model = contributed.and_then(|contribution| contribution.segments().first());
        let of_model = |snapshot: &Vec<S>| model.is_none_or(|model| model.values.len() == snapshot.len());
        number < parts && (snapshot.is_empty() || of_model(snapshot))
    }

    fn read(words: &mut Saved<'_>) -> Option<Self> {
        let number = |words: &mut Saved<'_>| u32::try_from(words.word()?).ok();
        let doubted = (0..words.count()?).map(|_| number(words)).collect::<Option<_>>()?;
        let wanted = (0..words.count()?).map(|_| number(words)).collect::<Option<_>>()?;
        let flight = if words.flag()? {
            let (delay, most) = (words.word()?, words.word()?);
            let part = (number(words)?, number(words)?);
            let shares = words.flag()?;
            let own = f64::from_bits(words.word()?);
            let blend = if shares { Blend::Share(own) } else { Blend::Progress };
            let begun = words.word()?;
            Some(Flight { overlap: Overlap { delay, most, part, blend }, begun, snapshot: words.values()? })
        } else {
            None
        };
        Some(Self { flight, doubted, wanted, lost: false })
    }
}

impl<T: Training<S>, S: Scalar> Participant<T, S> {
    /// Contributes what training holds now, and goes on.
    pub(super) fn offer(&mut self, now: Instant, request: &Request, overlap: Overlap) {
        if self.state != State::Training || self.overlapping.flight.is_some() {
            return;
        }
        let Some(training) = &mut self.training else { return };
        let mut contribution = self.node.spare();
        contribution.clear();
        let (number, parts) = overlap.part;
        let mut snapshot = Vec::new();
        if parts > 1 {
            self.observed.clear();
            training.contribute(request, &mut self.observed);
            // Whoever is healed after the others' last step is given what counts in it, and nothing later.
            let last = self.iteration >= self.schedule.iterations;
            let doubted = &self.overlapping.doubted;
            let counts = |other: u32| match doubted.contains(&other) {
                _ if other != number && !last => 0.0,
                true => DOUBTED,
                false => 1.0,
            };
            divide(&self.observed, parts, counts, self.outer.as_ref(), &mut contribution);
        } else {
            training.contribute(request, &mut contribution);
            let model = contribution.segments().first().filter(|model| measures(model));
            if let (Blend::Progress, Some(model)) = (overlap.blend, model) {
                snapshot.clone_from(&model.values);
            }
            if let Some(outer) = &self.outer {
                outer.contribute(&mut contribution);
            }
        }
        contribution.iteration = self.iteration;
        put_numbers(&*self.policy, request, &mut contribution);
        training.contributed(&contribution);
        self.overlapping.flight = Some(Flight { overlap, begun: self.iteration, snapshot });
        self.node.contribute(now, contribution);
    }

    /// Gives up what was under way if it was lost with a checkpoint, so that the policy may begin again.
    pub(super) fn give_up_lost(&mut self, now: Instant) {
        if core::mem::take(&mut self.overlapping.lost) {
            self.withdraw(now);
            self.policy.handle(now, PolicyInput::Abandoned(AbandonReason::Late));
        }
    }

    /// Takes in that training has gone back to an earlier state by itself: what it was when it contributed is no measure any
    /// more of what it has done since.
    pub(super) fn notice_replacement(&mut self, now: Instant) {
        if self.training.as_mut().is_some_and(T::take_replaced) {
            if let Some(flight) = &mut self.overlapping.flight {
                flight.snapshot.clear();
            }
            self.policy.handle(now, PolicyInput::Replaced);
        }
    }

    /// Whether an outcome would be taken in now.
    pub(super) fn takes_outcomes(&self) -> bool {
        let Some(Flight { overlap, begun, .. }) = &self.overlapping.flight else { return true };
        let since = self.iteration.saturating_sub(*begun);
        let done = self.iteration >= self.schedule.iterations;
        self.training.is_some() && (since >= overlap.delay || done)
    }

    /// Waits for the outcome of what is under way if no further step is to be made without it; answers whether it begins to.
    pub(super) fn waits_for_outcome(&mut self) -> bool {
        let Some(Flight { overlap, begun, .. }) = &self.overlapping.flight else { return false };
        let since = self.iteration.saturating_sub(*begun);
        let waits = since >= overlap.most || self.iteration >= self.schedule.iterations;
        if !waits || self.state != State::Training || self.training.is_none() {
            return false;
        }
        self.state = State::Waiting;
        true
    }

    /// Makes the model one with an average of what was under way. `healed` is the state of others in its place.
    pub(super) fn land(&mut self, average: &Contribution<S>, flight: &Flight<S>, healed: bool) {
        let Some(training) = &mut self.training else { return };
        let Overlap { part: (_, parts), blend, .. } = flight.overlap;
        let whole = parts == 1;
        let of_model = average.segments().get(..parts as usize).unwrap_or_default();
        let len = of_model.iter().map(|segment| segment.values.len()).sum();
        let fits = |(number, segment): (u32, &Segment<S>)| part(len, number, parts).len() == segment.values.len();
        if of_model.is_empty() || !(0..parts).zip(of_model).all(fits) {
            // Of a checkpoint of something else.
            return;
        }
        if let (false, Some(outer)) = (whole, &mut self.outer) {
            for (number, segment) in (0..parts).zip(average.segments()).filter(|(_, segment)| segment.weight > 0.0) {
                let range = part(outer.base().len(), number, parts);
                outer.conclude_part(range, &segment.values, velocity(average, number));
            }
        }
        let made = match &mut self.outer {
            Some(outer) if whole => outer.conclude(average),
            _ => average,
        };
        if healed && whole {
            training.adopt(made, true);
            return;
        }
        if healed {
            self.overlapping.doubted = (0..parts).collect();
        }
        self.observed.clear();
        training.show(&mut self.observed);
        let lost = training.take_replaced();
        // What cannot be read must not be written back; the next step says why.
        let Some(model) = self.observed.segments_mut().first_mut().filter(|model| model.weight > 0.0) else { return };
        let (name, mut model) = (core::mem::take(&mut model.name), core::mem::take(&mut model.values));
        let came = || (0..parts).zip(made.segments()).filter(|(_, segment)| segment.weight > 0.0);
        let mut weight = 0.0;
        for (number, segment) in came() {
            weight = segment.weight;
            let lacked = self.overlapping.doubted.contains(&number);
            let blend = if healed || lacked || lost { Blend::Share(0.0) } else { blend };
            for (place, &made) in part(model.len(), number, parts).zip(&segment.values) {
                let x = model[place].wide();
                let then = flight.snapshot.get(place).map_or(x, |then| then.wide());
                model[place] = S::of(blend.of(x, then, made.wide()));
            }
        }
        // Read as no numbers, it may be sound all the same; the next average brings what this one would have.
        if !model.iter().all(|value| value.is_finite()) {
            return;
        }
        for (number, _) in came() {
            self.overlapping.doubted.remove(&number);
        }
        let mut landed = Contribution::default();
        landed.iteration = average.iteration;
        landed.segment(&name, model.len(), weight).copy_from_slice(&model);
        for segment in &made.segments()[parts as usize..] {
            landed.segment(&segment.name, segment.values.len(), segment.weight).copy_from_slice(&segment.values);
        }
        training.adopt(&landed, healed);
    }
}

/// Whether a model that was read is one, and not what a device shows that cannot be read.
fn measures<S: Scalar>(model: &Segment<S>) -> bool {
    model.weight > 0.0 && model.values.iter().all(|value| value.is_finite())
}

/// Puts the parts of a model, each of which `counts` so much, and everything else into `target`.
fn divide<S: Scalar>(
    source: &Contribution<S>,
    parts: u32,
    counts: impl Fn(u32) -> f64,
    outer: Option<&Outer<S>>,
    target: &mut Contribution<S>,
) {
    let [model, rest @ ..] = source.segments() else { return };
    let weigh = |number: u32| model.weight * counts(number);
    for number in 0..parts {
        let range = part(model.values.len(), number, parts);
        let name = format!("parameters/{number}");
        target.segment(&name, range.len(), weigh(number)).copy_from_slice(&model.values[range]);
    }
    for segment in rest {
        target.segment(&segment.name, segment.values.len(), segment.weight).copy_from_slice(&segment.values);
    }
    let Some(outer) = outer else { return };
    for number in 0..parts {
        let range = part(model.values.len(), number, parts);
        let weight = weigh(number);
        let moved = if weight > 0.0 {
            outer.step_part(range, &mut target.segments_mut()[number as usize].values)
        } else {
            vec![S::zero(); range.len()]
        };
        target.segment(&format!("outer/{number}"), moved.len(), weight).copy_from_slice(&moved);
    }
}

/// What the outer optimiser's momentum of a part has become.
fn velocity<S: Scalar>(average: &Contribution<S>, number: u32) -> &[S] {
    let segment = average.find(&format!("outer/{number}")).filter(|segment| segment.weight > 0.0);
    segment.map_or(&[], |segment| &segment.values)
}
