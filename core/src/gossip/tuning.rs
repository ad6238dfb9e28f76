//! Consensus step sizes by trial.

use super::consensus::{Consensus, Rule};
use super::mixing::Mixing;
use crate::compress::Compressor;
use crate::scalar::Scalar;
use crate::seed::Seed;
use crate::transport::NodeId;
use alloc::vec;
use alloc::vec::Vec;

/// How step sizes are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Values of each node.
    pub values: usize,
    /// Exchanges of each trial.
    pub exchanges: u32,
    /// Step sizes tried, from 1 downwards, each `10^(-1/5)` of the one before.
    pub candidates: u32,
    /// What values are drawn from.
    pub seed: Seed,
}

impl Default for Tuning {
    /// 500 values, 100 exchanges, eleven step sizes from 1 to .01.
    fn default() -> Self {
        Self { values: 500, exchanges: 100, candidates: 11, seed: Seed(0) }
    }
}

/// How nodes come to agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// `Σ‖x − x̄‖² + Σ‖x − x̂‖²` after each exchange, relative to what it was before the first.
    pub course: Vec<f64>,
    /// How far the mean has gone, `Σ‖x̄ − x̄₀‖²` relative to the same: 0 but for rounding with CHOCO. What nodes agree on is
    /// not the mean of what they had if it has.
    pub moved: f64,
    /// What the compressor has kept of the last differences, as [measured](Consensus::contraction), on average over nodes.
    pub contraction: f64,
}

impl Agreement {
    /// The last of the course; 1 without any exchange.
    pub fn last(&self) -> f64 {
        self.course.last().copied().unwrap_or(1.0)
    }
}

/// How nodes come to agree by a rule, from normally distributed values, without training.
///
/// The theory (Koloskova, Stich & Jaggi 2019, theorem 2) has the course of CHOCO fall by `1 − δ²ω/82` each time, for a much
/// smaller step than are used.
///
/// # Panics
/// As [`Consensus::new`] does.
#[track_caller]
pub fn agreement<S: Scalar>(
    mixing: &Mixing,
    rule: Rule,
    compressor: &mut dyn Compressor<S>,
    tuning: &Tuning,
) -> Agreement {
    let nodes = || (0..mixing.nodes()).map(NodeId);
    let mut random = tuning.seed.derive("tuning", 0).random();
    let mut models: Vec<Vec<S>> =
        nodes().map(|_| (0..tuning.values).map(|_| S::of(random.normal())).collect()).collect();
    let mut states: Vec<Consensus<S>> =
        nodes().map(|node| Consensus::new(rule, mixing.row(node), tuning.values)).collect();
    let (first, before) = (apart(&models, &states), mean(&models));
    let mut course = Vec::with_capacity(tuning.exchanges as usize);
    for _ in 0..tuning.exchanges {
        let mut messages = Vec::with_capacity(models.len());
        for (state, model) in states.iter_mut().zip(&models) {
            let mut message = Vec::new();
            if state.send(model, compressor, &mut random, &mut message).is_err() {
                // Values have left the range of numbers.
                course.resize(tuning.exchanges as usize, f64::INFINITY);
                return Agreement { course, moved: f64::INFINITY, contraction: f64::NAN };
            }
            messages.push(message);
        }
        for (to, (state, model)) in nodes().zip(states.iter_mut().zip(&mut models)) {
            for from in mixing.row(to).others.keys() {
                let taken = state.receive(*from, &messages[from.0 as usize], compressor);
                taken.expect("a message that was made a moment ago");
            }
            state.mix(model);
        }
        course.push(apart(&models, &states) / first);
    }
    let moved =
        before.iter().zip(mean(&models)).map(|(before, after)| (before - after) * (before - after)).sum::<f64>();
    let kept: f64 = states.iter().map(|state| state.contraction().unwrap_or(1.0)).sum();
    let count = models.len() as f64;
    Agreement { course, moved: moved * count / first, contraction: kept / count }
}

/// `x̄`.
fn mean<S: Scalar>(models: &[Vec<S>]) -> Vec<f64> {
    let mut mean = vec![0.0; models.first().map_or(0, Vec::len)];
    for model in models {
        mean.iter_mut().zip(model).for_each(|(mean, x)| *mean += x.wide() / models.len() as f64);
    }
    mean
}

/// `Σ‖x − x̄‖² + Σ‖x − x̂‖²`.
fn apart<S: Scalar>(models: &[Vec<S>], states: &[Consensus<S>]) -> f64 {
    let mean = mean(models);
    let square = |a: f64, b: f64| (a - b) * (a - b);
    let of = |(model, state): (&Vec<S>, &Consensus<S>)| {
        let to_mean: f64 = model.iter().zip(&mean).map(|(x, &mean)| square(x.wide(), mean)).sum();
        let to_copy: f64 = model.iter().zip(state.own()).map(|(x, copy)| square(x.wide(), copy.wide())).sum();
        to_mean + to_copy
    };
    models.iter().zip(states).map(of).sum()
}

/// CHOCO's step size with which nodes agree best after some exchanges; `None` if they are further apart than before with
/// every one that is tried.
///
/// # Panics
/// If no step size is to be tried.
#[track_caller]
pub fn tune<S: Scalar>(mixing: &Mixing, compressor: &mut dyn Compressor<S>, tuning: &Tuning) -> Option<f64> {
    assert!(tuning.candidates > 0, "no step size is to be tried");
    let steps = (0..tuning.candidates).map(|index| libm::pow(10.0, -f64::from(index) / 5.0));
    let rated = steps.map(|step| (agreement(mixing, Rule::Choco { step }, compressor, tuning).last(), step));
    // Not a number is no agreement.
    let agreed = rated.filter(|(last, _)| *last < 1.0);
    agreed.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, step)| step)
}

/// The same for models of `len` values, whatever [`Tuning::values`] says, telling and taking at most some `most` values in
/// all trials together.
///
/// Where models of so many nodes are longer than that allows, shorter ones are tried, and the step is made smaller by as
/// much as the compressor keeps less of a long one: the theory's step is in proportion to what is kept.
///
/// # Panics
/// As [`tune`] does.
#[track_caller]
pub fn tune_at<S: Scalar>(
    mixing: &Mixing,
    compressor: &mut dyn Compressor<S>,
    tuning: &Tuning,
    len: usize,
    most: u64,
) -> Option<f64> {
    let edges: usize = (0..mixing.nodes()).map(|node| 2 + mixing.row(NodeId(node)).others.len()).sum();
    let told = edges as u64 * u64::from(tuning.exchanges) * u64::from(tuning.candidates);
    let values = len.min((most / told.max(1)).max(16) as usize);
    let step = tune(mixing, compressor, &Tuning { values, ..*tuning })?;
    if values == len {
        return Some(step);
    }
    let kept = kept(compressor, len, tuning.seed)? / kept(compressor, values, tuning.seed)?;
    Some(step * kept.clamp(0.0, 1.0))
}

/// What a compressor keeps of normally distributed values, `1 − ‖x − C(x)‖²/‖x‖²`: its contraction, as measured once.
/// `None` if it keeps nothing.
pub fn kept<S: Scalar>(compressor: &mut dyn Compressor<S>, len: usize, seed: Seed) -> Option<f64> {
    let mut random = seed.derive("kept", len as u64).random();
    let values: Vec<S> = (0..len).map(|_| S::of(random.normal())).collect();
    let (mut message, mut read) = (Vec::new(), vec![S::zero(); len]);
    compressor.encode(&values, &mut random, &mut message).ok()?;
    compressor.decode(&message, &mut read).ok()?;
    let square = |value: f64| value * value;
    let lost: f64 = values.iter().zip(&read).map(|(x, read)| square(x.wide() - read.wide())).sum();
    let kept = 1.0 - lost / values.iter().map(|x| square(x.wide())).sum::<f64>();
    (kept > 0.0).then_some(kept)
}

/// The step size that the theory asks for, `δ²ω/(16δ + δ² + 4β² + 2δβ² − 8δω)` with the spectral gap `δ`, the compressor's
/// contraction `ω` and `β = ‖I − W‖₂ ≤ 2` (Koloskova, Stich & Jaggi 2019, theorem 2).
pub fn theoretical(gap: f64, contraction: f64, beta: f64) -> f64 {
    let (d, w, b) = (gap, contraction, beta * beta);
    d * d * w / (16.0 * d + d * d + 4.0 * b + 2.0 * d * b - 8.0 * d * w)
}
