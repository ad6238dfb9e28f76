//! Outer optimisers: what is done with an average, instead of taking it as the model.
//!
//! An average is as good as a step of a large learning rate in the direction `Δ = w − w̄` in which training has gone
//! since the last average `w`. Outer optimisers make a step of their own of it: with momentum (`FedAvgM`, Hsu, Qi & Brown
//! 2019, arXiv 1909.06335; `DiLoCo`, Douillard et al. 2023, arXiv 2311.08105) or with a rate for each parameter (`FedAdam`,
//! Reddi et al. 2020, arXiv 2003.00295).
//!
//! # For users
//! A policy that averages has an [`OuterOptimiser`] or none, such as [`Periodic`](crate::policy::Periodic). A
//! rate of 1 without momentum is plain averaging.
//!
//! # For implementers
//! There is no server that could keep `w` and the moments, and no node that is there in every round. They are therefore
//! part of what is averaged, as [segments](crate::cluster::Contribution) `outer/0` and so on: whoever takes part in a
//! round or is healed has them afterwards, equal to the bit on all nodes.
//!
//! - Momentum is linear, so that each node makes the step by itself, `w − ηv`, from its own `w`, and the mean of the
//!   results is the result of the mean: twice the values of plain averaging travel.
//! - Adam is not: `w` and both moments travel beside the model, and everybody makes the same step from their means: four
//!   times the values.
//! - Where contributors do not have the same `w`, because one was away or histories have parted, means of what each has are
//!   taken: `Δ` is then the mean of how far each has gone since *its* last average.
//! - A contribution that comes to nothing changes nothing here.

use crate::cluster::Contribution;
use crate::policy::words::{Saved, Words};
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// What is made of the mean way `Δ = w − w̄` that nodes have gone since the last average `w`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OuterOptimiser {
    /// `v ← βv + Δ`, then `w ← w − ηv`, or `w ← w − η(Δ + βv)` with Nesterov's momentum.
    Momentum {
        /// `η`.
        rate: f64,
        /// `β`.
        momentum: f64,
        /// Whether the momentum is Nesterov's.
        nesterov: bool,
    },
    /// `m ← β₁m − (1−β₁)Δ`, `v ← β₂v + (1−β₂)Δ²`, then `w ← w + η m/(√v + τ)`, all by element; `m` and `v` begin at 0.
    Adam {
        /// `η`, in the unit of parameters.
        rate: f64,
        /// `β₁`.
        momentum: f64,
        /// `β₂`.
        decay: f64,
        /// `τ`, in the unit of parameters.
        adaptivity: f64,
    },
}

impl OuterOptimiser {
    /// FedAvgM with the server's rate and momentum of arXiv 2405.20988.
    pub const FEDAVGM: Self = Self::Momentum { rate: 0.316, momentum: 0.9, nesterov: false };
    /// DiLoCo with the rate and momentum of arXiv 2311.08105.
    pub const DILOCO: Self = Self::Momentum { rate: 0.7, momentum: 0.9, nesterov: true };
    /// FedAdam with the constants of arXiv 2003.00295.
    pub const FEDADAM: Self = Self::Adam { rate: 0.1, momentum: 0.9, decay: 0.99, adaptivity: 1e-3 };

    /// The same with another rate.
    #[must_use]
    pub fn with_rate(self, rate: f64) -> Self {
        match self {
            Self::Momentum { momentum, nesterov, .. } => Self::Momentum { rate, momentum, nesterov },
            Self::Adam { momentum, decay, adaptivity, .. } => Self::Adam { rate, momentum, decay, adaptivity },
        }
    }

    /// The same with another momentum.
    #[must_use]
    pub fn with_momentum(self, momentum: f64) -> Self {
        match self {
            Self::Momentum { rate, nesterov, .. } => Self::Momentum { rate, momentum, nesterov },
            Self::Adam { rate, decay, adaptivity, .. } => Self::Adam { rate, momentum, decay, adaptivity },
        }
    }

    /// Whether the model is not the average but made of it: what is left untold of differences from averages would undo the steps.
    pub(crate) fn remakes(self) -> bool {
        matches!(self, Self::Adam { .. })
    }

    /// How many vectors as long as the model are kept beside `w`.
    fn moments(self) -> usize {
        match self {
            Self::Momentum { .. } => 1,
            Self::Adam { .. } => 2,
        }
    }
}

/// What one node keeps for an outer optimiser.
#[derive(Clone, Debug, PartialEq)]
pub struct Outer<S> {
    optimiser: OuterOptimiser,
    /// `w`: the model of the last average.
    base: Vec<S>,
    /// `v`, or `m` and `v`.
    moments: Vec<Vec<S>>,
    /// What training is to adopt, where it is not the average itself.
    made: Contribution<S>,
}

const SEGMENTS: [&str; 3] = ["outer/0", "outer/1", "outer/2"];

impl<S: Scalar> Outer<S> {
    /// Begins at these parameters, which all nodes should have.
    pub fn new(optimiser: OuterOptimiser, parameters: &[S]) -> Self {
        let moments = vec![vec![S::zero(); parameters.len()]; optimiser.moments()];
        Self { optimiser, base: parameters.to_vec(), moments, made: Contribution::default() }
    }

    /// The model of the last average.
    pub fn base(&self) -> &[S] {
        &self.base
    }

    /// Makes of what training contributes, parameters first, what is to be averaged.
    ///
    /// # Panics
    /// If there are other than the expected parameters.
    #[track_caller]
    pub fn contribute(&self, contribution: &mut Contribution<S>) {
        let Some(parameters) = contribution.segments_mut().first_mut() else {
            return;
        };
        let (len, weight) = (self.base.len(), parameters.weight);
        assert_eq!(parameters.values.len(), len, "parameters of a model with an outer optimiser");
        match self.optimiser {
            OuterOptimiser::Momentum { .. } => {
                let velocity = self.step_part(0..len, &mut parameters.values);
                contribution.segment(SEGMENTS[0], len, weight).copy_from_slice(&velocity);
            }
            OuterOptimiser::Adam { .. } => {
                for (name, values) in SEGMENTS.into_iter().zip(core::iter::once(&self.base).chain(&self.moments)) {
                    contribution.segment(name, len, weight).copy_from_slice(values);
                }
            }
        }
    }

    /// Makes of the values of a part of the model what is to be averaged; answers the momentum that is averaged with them.
    ///
    /// # Panics
    /// If the optimiser is not one with momentum.
    #[track_caller]
    pub(crate) fn step_part(&self, range: Range<usize>, values: &mut [S]) -> Vec<S> {
        let OuterOptimiser::Momentum { rate, momentum, nesterov } = self.optimiser else {
            panic!("parts of models are stepped with momentum, not by {:?}", self.optimiser)
        };
        let mut velocity = self.moments[0][range.clone()].to_vec();
        for ((x, v), base) in values.iter_mut().zip(&mut velocity).zip(&self.base[range]) {
            let way = base.wide() - x.wide();
            let moved = momentum * v.wide() + way;
            let step = if nesterov { way + momentum * moved } else { moved };
            *x = S::of(base.wide() - rate * step);
            *v = S::of(moved);
        }
        velocity
    }

    /// Keeps what contributions of a part have become together; without a momentum, that stays.
    pub(crate) fn conclude_part(&mut self, range: Range<usize>, values: &[S], velocity: &[S]) {
        if velocity.len() == range.len() {
            self.moments[0][range.clone()].copy_from_slice(velocity);
        }
        self.base[range].copy_from_slice(values);
    }

    /// Makes the step of what contributions have become together, and answers what training is to adopt.
    pub fn conclude<'a>(&'a mut self, average: &'a Contribution<S>) -> &'a Contribution<S> {
        let outer = |index: usize| average.find(SEGMENTS[index]).filter(|segment| segment.weight > 0.0);
        let Some(parameters) = average.segments().first().filter(|segment| segment.weight > 0.0) else {
            return average;
        };
        match self.optimiser {
            OuterOptimiser::Momentum { .. } => {
                let Some(velocity) = outer(0) else { return average };
                self.base.clone_from(&parameters.values);
                self.moments[0].clone_from(&velocity.values);
                average
            }
            OuterOptimiser::Adam { rate, momentum, decay, adaptivity } => {
                let (Some(base), Some(mean), Some(square)) = (outer(0), outer(1), outer(2)) else {
                    return average;
                };
                self.made.clone_from(average);
                let [means, squares] = &mut self.moments[..] else { unreachable!("Adam has two moments") };
                means.clone_from(&mean.values);
                squares.clone_from(&square.values);
                let made = &mut self.made.segments_mut()[0].values;
                for (((x, m), v), base) in made.iter_mut().zip(means).zip(squares).zip(&base.values) {
                    let way = x.wide() - base.wide();
                    *m = S::of(momentum * m.wide() + (1.0 - momentum) * way);
                    *v = S::of(decay * v.wide() + (1.0 - decay) * way * way);
                    *x = S::of(base.wide() + rate * m.wide() / (libm::sqrt(v.wide()) + adaptivity));
                }
                self.base.clone_from(made);
                &self.made
            }
        }
    }

    /// Puts everything but the optimiser into words.
    pub(crate) fn save(&self) -> Vec<u64> {
        let mut words = Words::default();
        words.values(&self.base);
        self.moments.iter().for_each(|moment| words.values(moment));
        words.0
    }

    /// What was [`save`](Self::save)d; `None` if it is not of such an optimiser.
    pub(crate) fn restore(optimiser: OuterOptimiser, words: &[u64]) -> Option<Self> {
        let mut words = Saved::new(words);
        let base: Vec<S> = words.values()?;
        let moments = (0..optimiser.moments()).map(|_| words.values()).collect::<Option<Vec<Vec<S>>>>()?;
        let fits = words.word().is_none() && moments.iter().all(|moment| moment.len() == base.len());
        fits.then_some(Self { optimiser, base, moments, made: Contribution::default() })
    }
}
