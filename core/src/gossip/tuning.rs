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

/// How far nodes are from agreeing, `Σ‖x − x̄‖² + Σ‖x − x̂‖²`, after each of some exchanges with CHOCO's step size `step`,
/// relative to what it was before; from normally distributed values, without training.
///
/// The theory (Koloskova, Stich & Jaggi 2019, theorem 2) has this fall by `1 − δ²ω/82` each time, for a much smaller step.
///
/// # Panics
/// As [`Consensus::new`] does.
#[track_caller]
pub fn agreement<S: Scalar>(
    mixing: &Mixing,
    step: f64,
    compressor: &mut dyn Compressor<S>,
    tuning: &Tuning,
) -> Vec<f64> {
    let nodes = || (0..mixing.nodes()).map(NodeId);
    let mut random = tuning.seed.derive("tuning", 0).random();
    let mut models: Vec<Vec<S>> =
        nodes().map(|_| (0..tuning.values).map(|_| S::of(random.normal())).collect()).collect();
    let mut states: Vec<Consensus<S>> =
        nodes().map(|node| Consensus::new(Rule::Choco { step }, mixing.row(node), tuning.values)).collect();
    let first = apart(&models, &states);
    let mut course = Vec::with_capacity(tuning.exchanges as usize);
    for _ in 0..tuning.exchanges {
        let mut messages = Vec::with_capacity(models.len());
        for (state, model) in states.iter_mut().zip(&models) {
            let mut message = Vec::new();
            if state.send(model, compressor, &mut random, &mut message).is_err() {
                // Values have left the range of numbers.
                course.resize(tuning.exchanges as usize, f64::INFINITY);
                return course;
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
    course
}

/// `Σ‖x − x̄‖² + Σ‖x − x̂‖²`.
fn apart<S: Scalar>(models: &[Vec<S>], states: &[Consensus<S>]) -> f64 {
    let len = models.first().map_or(0, Vec::len);
    let mut mean = vec![0.0; len];
    for model in models {
        mean.iter_mut().zip(model).for_each(|(mean, x)| *mean += x.wide() / models.len() as f64);
    }
    let square = |a: f64, b: f64| (a - b) * (a - b);
    let of = |(model, state): (&Vec<S>, &Consensus<S>)| {
        let to_mean: f64 = model.iter().zip(&mean).map(|(x, &mean)| square(x.wide(), mean)).sum();
        let to_copy: f64 = model.iter().zip(state.own()).map(|(x, copy)| square(x.wide(), copy.wide())).sum();
        to_mean + to_copy
    };
    models.iter().zip(states).map(of).sum()
}

/// CHOCO's step size with which nodes agree best after some exchanges.
///
/// # Panics
/// If no step size is to be tried.
#[track_caller]
pub fn tune<S: Scalar>(mixing: &Mixing, compressor: &mut dyn Compressor<S>, tuning: &Tuning) -> f64 {
    assert!(tuning.candidates > 0, "no step size is to be tried");
    let steps = (0..tuning.candidates).map(|index| libm::pow(10.0, -f64::from(index) / 5.0));
    let rated = steps.map(|step| {
        let last = agreement(mixing, step, compressor, tuning).pop().unwrap_or(1.0);
        (if last.is_finite() { last } else { f64::INFINITY }, step)
    });
    rated.min_by(|a, b| a.0.total_cmp(&b.0)).expect("some are tried").1
}

/// The step size that the theory asks for, `δ²ω/(16δ + δ² + 4β² + 2δβ² − 8δω)` with the spectral gap `δ`, the compressor's
/// contraction `ω` and `β = ‖I − W‖₂ ≤ 2` (Koloskova, Stich & Jaggi 2019, theorem 2).
pub fn theoretical(gap: f64, contraction: f64, beta: f64) -> f64 {
    let (d, w, b) = (gap, contraction, beta * beta);
    d * d * w / (16.0 * d + d * d + 4.0 * b + 2.0 * d * b - 8.0 * d * w)
}
