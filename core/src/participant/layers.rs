//! Contributions of as many layers as there was time for.
//!
//! The parameters are contributed as segments `parameters/0` and so on, one for each layer in the order of the forward pass, of
//! which those count that the step has a gradient of. A layer that counts nothing does not travel, and one that nobody has is
//! left as it is. A node that is healed keeps of its own what the round that heals it lacks. It contributes that with a weight
//! next to nothing, by which the others see that it is wanted: of a layer that nobody else has reached they do not take it, and
//! contribute what they have in the next round.

use super::overlap::{DOUBTED, Overlapping};
use super::{Participant, Summary, Training, TrainingError};
use crate::cluster::Contribution;
use crate::collective::differences::CERTAIN;
use crate::policy::words::{Saved, Words};
use crate::policy::{Deadline, Late, Request};
use crate::scalar::Scalar;
use crate::time::{Duration, Instant};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// The segment of how many layers are missing, which counts whatever is: a round in which nobody has anything is a round.
const MISSING: &str = "missing";

/// What time it is, asked by whoever makes a step.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// When a step has to end.
pub(super) struct Limit {
    end: End,
    late: Late,
}

enum End {
    /// After this share of it.
    Share(f64),
    /// By the clock.
    Time(Instant, Clock),
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            End::Share(share) => write!(f, "after {share} of the step"),
            End::Time(at, _) => write!(f, "at {at}"),
        }
    }
}

/// Makes a step, within the limit if there is one.
pub(super) fn make<T: Training<S>, S: Scalar>(
    training: &mut T,
    limit: Option<&Limit>,
) -> Result<Summary, TrainingError> {
    let Some(Limit { end, late }) = limit else { return training.step() };
    let mut goes_on = |done: f64| match end {
        End::Share(share) => done <= *share,
        End::Time(at, clock) => clock() <= *at,
    };
    training.step_while(&mut goes_on, *late == Late::Nothing)
}

/// The segment of how often nobody has contributed a layer: rounds, then those without each layer, which count as much as there
/// are rounds. So all who are in one make steps as much longer, also who is new or was away.
const ABSENCE: &str = "absence";

/// How often nobody has contributed a layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Absence<S> {
    rounds: u64,
    /// For each layer, the rounds in which nobody has.
    absent: Vec<u64>,
    /// The model as the last of them left it.
    base: Vec<S>,
    /// The iteration at which that was.
    at: u64,
}

/// How many times as long steps become at most.
const LONGEST: f64 = 10.0;

impl<S: Scalar> Absence<S> {
    /// `1/(1 − p)`, `p` being the share of rounds without the layer; 1 where there has been none with it.
    fn factor(&self, layer: usize) -> f64 {
        let absent = self.absent.get(layer).copied().unwrap_or(0);
        let present = self.rounds.saturating_sub(absent);
        if present == 0 { 1.0 } else { (self.rounds as f64 / present as f64).min(LONGEST) }
    }

    /// The model before the step that led to `iteration`, if that was the one of the last round: the steps of who was
    /// in none since are its own, and not those of a fleet that lacked a layer.
    fn base(&self, iteration: u64) -> Option<&[S]> {
        (!self.base.is_empty() && iteration.checked_sub(1) == Some(self.at)).then_some(&self.base)
    }

    /// Puts in what is counted so far of so many layers.
    fn contribute(&self, layers: usize, weight: f64, contribution: &mut Contribution<S>) {
        let target = contribution.segment(ABSENCE, 1 + layers, weight * self.rounds as f64);
        let absent = self.absent.iter().copied().chain(core::iter::repeat(0));
        for (target, count) in target.iter_mut().zip(core::iter::once(self.rounds).chain(absent)) {
            *target = S::of(count as f64);
        }
    }

    /// Takes over what members of a round have counted before it.
    fn adopt(&mut self, average: &Contribution<S>) {
        let Some(segment) = average.find(ABSENCE).filter(|segment| segment.weight > 0.0) else { return };
        let mut counts = segment.values.iter().map(|count| libm::round(count.wide()) as u64);
        self.rounds = counts.next().unwrap_or(0);
        self.absent.clear();
        self.absent.extend(counts);
    }

    /// Takes in a round with these weights of layers, and the model that it left.
    fn count(&mut self, weights: impl Iterator<Item = f64>, model: &[S]) {
        self.rounds = self.rounds.saturating_add(1);
        for (layer, weight) in weights.enumerate() {
            if layer == self.absent.len() {
                self.absent.push(0);
            }
            // Where only those were who have just been healed, nobody else has taken it.
            self.absent[layer] = self.absent[layer].saturating_add(u64::from(weight < CERTAIN));
        }
        self.base.clear();
        self.base.extend_from_slice(model);
    }

    /// Puts it into words.
    pub(super) fn save(&self) -> Vec<u64> {
        let mut words = Words::default();
        words.0.extend([self.rounds, self.absent.len() as u64]);
        words.0.extend(&self.absent);
        words.values(&self.base);
        words.0.push(self.at);
        words.0
    }

    /// What was [`save`](Self::save)d; nothing counted if it is not that.
    pub(super) fn restore(words: &[u64]) -> Self {
        Self::read(&mut Saved::new(words)).unwrap_or_default()
    }

    fn read(words: &mut Saved<'_>) -> Option<Self> {
        let rounds = words.word()?;
        let absent = (0..words.count()?).map(|_| words.word()).collect::<Option<_>>()?;
        Some(Self { rounds, absent, base: words.values()?, at: words.word()? })
    }
}

/// The layers of a model with so many parameters.
fn layers<T: Training<S>, S: Scalar>(training: &T, len: usize) -> Vec<Range<usize>> {
    let layers = training.layers();
    if layers.is_empty() { core::iter::once(0..len).collect() } else { layers }
}

impl<T: Training<S>, S: Scalar> Participant<T, S> {
    /// The same participant among others in real time, where [`Schedule::step`](super::Schedule::step) says nothing: how far a
    /// step has come by a [`deadline`](crate::policy::AveragingPolicy::deadline) is asked of this clock while it is made.
    #[must_use]
    pub fn by(self, clock: Clock) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// How long the next step takes, of which `takes` is the usual, and when it has to end.
    pub(super) fn limit(&self, takes: Duration) -> (Duration, Option<Limit>) {
        let Some(Deadline { within, late, .. }) = self.policy.deadline() else { return (takes, None) };
        match &self.clock {
            Some(clock) => (takes, Some(Limit { end: End::Time(clock() + within, clock.clone()), late })),
            None if takes <= within => (takes, None),
            None => (within, Some(Limit { end: End::Share(within.as_secs_f64() / takes.as_secs_f64()), late })),
        }
    }

    /// Puts the layers that the last step has reached, and everything else, into `contribution`.
    pub(super) fn contribute_layers(&mut self, request: &Request, contribution: &mut Contribution<S>) {
        let Some(training) = &mut self.training else { return };
        self.observed.clear();
        training.contribute(request, &mut self.observed);
        let [model, rest @ ..] = self.observed.segments() else { return };
        let layers = layers(training, model.values.len());
        let missing = self.last.map_or(0, |last| last.missing as usize);
        let base = self.absence.base(training.iteration());
        for (number, range) in layers.iter().enumerate() {
            let layer = number as u32;
            let wanted = self.overlapping.wanted.contains(&layer);
            let share = match self.overlapping.doubted.contains(&layer) {
                // The others know, and bring theirs.
                true if wanted => 0.0,
                true => DOUBTED,
                false if number < missing && !wanted => 0.0,
                false => 1.0,
            };
            let weight = share * model.weight;
            let target = contribution.segment(&format!("parameters/{number}"), range.len(), weight);
            target.copy_from_slice(&model.values[range.clone()]);
            let factor = self.absence.factor(number);
            if let Some(base) = base.and_then(|base| base.get(range.clone())).filter(|_| factor > 1.0) {
                for (x, base) in target.iter_mut().zip(base) {
                    *x = S::of(base.wide() + factor * (x.wide() - base.wide()));
                }
            }
        }
        // Who has no gradient at all has nothing to say.
        let counts = if missing < layers.len() { 1.0 } else { 0.0 };
        for segment in rest {
            let target = contribution.segment(&segment.name, segment.values.len(), counts * segment.weight);
            target.copy_from_slice(&segment.values);
        }
        let missing = S::of(missing.min(layers.len()) as f64);
        contribution.segment(MISSING, 1, request.weight).fill(missing);
        if self.policy.deadline().is_some_and(|deadline| deadline.unbiased) {
            self.absence.contribute(layers.len(), request.weight, contribution);
        }
    }

    /// Takes over the layers that somebody has contributed.
    pub(super) fn adopt_layers(&mut self, average: &Contribution<S>, healed: bool) {
        let Some(training) = &mut self.training else { return };
        self.observed.clear();
        training.show(&mut self.observed);
        // What cannot be read must not be written back; the next step says why.
        let Some(model) = self.observed.segments().first().filter(|model| model.weight > 0.0) else { return };
        let layers = layers(training, model.values.len());
        if healed {
            self.overlapping.doubted = (0..layers.len() as u32).collect();
        }
        let mut landed = Contribution::default();
        landed.iteration = average.iteration;
        let came = average.segments().iter().take(layers.len()).any(|segment| segment.weight > 0.0);
        let target = landed.segment(&model.name, model.values.len(), f64::from(u8::from(came)));
        target.copy_from_slice(&model.values);
        let of_layers = || (0..).zip(average.segments().iter().take(layers.len()));
        let Overlapping { doubted, wanted, .. } = &mut self.overlapping;
        for (range, (number, segment)) in layers.iter().zip(of_layers()) {
            if segment.weight >= CERTAIN || (segment.weight > 0.0 && doubted.contains(&number)) {
                target[range.clone()].copy_from_slice(&segment.values);
            }
        }
        // Read as no numbers, it may be sound all the same; the next average brings what this one would have.
        if !target.iter().all(|value| value.is_finite()) {
            return;
        }
        wanted.clear();
        for (number, segment) in of_layers() {
            if segment.weight >= CERTAIN {
                doubted.remove(&number);
            } else if segment.weight > 0.0 {
                wanted.insert(number);
            }
        }
        if self.policy.deadline().is_some_and(|deadline| deadline.unbiased) {
            let weights = average.segments().iter().take(layers.len()).map(|segment| segment.weight);
            self.absence.adopt(average);
            self.absence.count(weights, target);
        }
        for segment in average.segments().iter().skip(layers.len()) {
            landed.segment(&segment.name, segment.values.len(), segment.weight).copy_from_slice(&segment.values);
        }
        // A round without anything leaves everything as it is, also what a lost device is replaced with.
        if came || healed {
            training.adopt(&landed, healed);
        }
        self.absence.at = training.iteration();
    }
}
