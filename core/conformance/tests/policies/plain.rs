//! Gossip as it is written down, one line of the papers after the other, and with one of them misread.

use crate::gossip::Node;
use kronfleet_core::compress::Compressor;
use kronfleet_core::gossip::{AdaGossip, Row, Rule, Unit, bearable};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Random;
use kronfleet_core::transport::NodeId;
use std::collections::BTreeMap;

/// What is misread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slip {
    /// Nothing.
    None,
    /// A node's own copy is of what it wanted to tell, not of what was read.
    Untold,
    /// `e = s − x̂`: a node's own copy is no part of what it mixes.
    SelfForgotten,
    /// The first of its neighbours is left out, whose weight nobody gets.
    NeighbourForgotten,
    /// Where a step meets its cap, it is a little longer.
    CapExceeded,
    /// `e` is added whole, whatever the step.
    StepIgnored,
    /// `ṽ = v`.
    NeverCorrected,
    /// `ṽ = v/(1 − βᵗ)`, asked for or not.
    AlwaysCorrected,
    /// `ṽ = v/(1 − βᵗ⁻¹)`.
    CountedFromNone,
    /// `v ← ṽ`: what is corrected is kept.
    CorrectionKept,
    /// `v ← (1 − β)v + βe²`.
    WeightsSwapped,
    /// `v ← βv + e²`.
    NewWhole,
    /// `v ← βv + (1 − β)|e|`.
    Absolute,
    /// `Γ` is that of the errors before these.
    Late,
    /// `Γ = γ/(ṽ + ε)`.
    NoRoot,
    /// `Γ = γ/√(ṽ + ε)`.
    EpsilonWithin,
    /// `Γ = γ/√ṽ`.
    NoEpsilon,
    /// `Γ = γ/(√ṽ + ε)`, however large.
    NoCap,
    /// It is moves that are no longer than the cap, not steps.
    MovesCapped,
    /// `√ṽ` is the mean over parameters.
    OneForAll,
    /// Where `γ` is counted in errors, `ε` is still counted in parameters.
    EpsilonUnscaled,
    /// The mean of `√ṽ` is what `γ` is counted in.
    MeanOfRoots,
    /// Two nodes alone bear what those of larger graphs do.
    PairForgotten,
}

/// All that there are.
pub(crate) const SLIPS: [Slip; 22] = [
    Slip::Untold,
    Slip::SelfForgotten,
    Slip::NeighbourForgotten,
    Slip::CapExceeded,
    Slip::StepIgnored,
    Slip::NeverCorrected,
    Slip::AlwaysCorrected,
    Slip::CountedFromNone,
    Slip::CorrectionKept,
    Slip::WeightsSwapped,
    Slip::NewWhole,
    Slip::Absolute,
    Slip::Late,
    Slip::NoRoot,
    Slip::EpsilonWithin,
    Slip::NoEpsilon,
    Slip::NoCap,
    Slip::MovesCapped,
    Slip::OneForAll,
    Slip::EpsilonUnscaled,
    Slip::MeanOfRoots,
    Slip::PairForgotten,
];

/// One node: `x̂`, the weighted sum `s` of its neighbours' copies, and `v`, in double precision.
pub(crate) struct Plain<S> {
    rule: Rule,
    row: Row,
    slip: Slip,
    own: Vec<S>,
    others: BTreeMap<NodeId, Vec<S>>,
    sum: Vec<f64>,
    moment: Vec<f64>,
    exchanges: i32,
    /// What the compressor has kept of each difference, the last one last.
    kept: Vec<f64>,
}

impl<S: Scalar> Plain<S> {
    pub(crate) fn new(rule: Rule, row: &Row, len: usize, slip: Slip) -> Self {
        let others = row.others.keys().map(|&other| (other, vec![S::zero(); len])).collect();
        let (sum, moment) = (vec![0.0; len], vec![0.0; len]);
        Self {
            rule,
            row: row.clone(),
            slip,
            own: vec![S::zero(); len],
            others,
            sum,
            moment,
            exchanges: 0,
            kept: vec![],
        }
    }

    /// `x̂ += q`, where `q` is what everybody reads.
    pub(crate) fn told(&mut self, model: &[S], message: &[u8], compressor: &mut dyn Compressor<S>) {
        let mut read = vec![S::zero(); model.len()];
        compressor.decode(message, &mut read).expect("what was encoded");
        let square = |value: S| value.wide() * value.wide();
        let differences = || model.iter().zip(&self.own).map(|(&x, &copy)| x - copy);
        let whole: f64 = differences().map(square).sum();
        let lost: f64 = differences().zip(&read).map(|(difference, &read)| square(difference - read)).sum();
        if (lost / whole).is_finite() {
            self.kept.push((1.0 - lost / whole).clamp(0.0, 1.0));
        }
        for ((copy, q), &x) in self.own.iter_mut().zip(read).zip(model) {
            *copy = if self.slip == Slip::Untold { x } else { *copy + q };
        }
    }

    /// `ω`: each difference counts nine tenths of the next.
    fn contraction(&self) -> f64 {
        let weights = (0..self.kept.len() as i32).rev().map(|age| 0.9_f64.powi(age));
        let sum: f64 = self.kept.iter().zip(weights.clone()).map(|(kept, weight)| weight * kept).sum();
        if self.kept.is_empty() { 1.0 } else { sum / weights.sum::<f64>() }
    }

    /// `Γ` of every parameter.
    fn steps(&mut self, errors: &[f64]) -> Vec<f64> {
        let AdaGossip { decay, epsilon, step, cap, correction, unit } = match self.rule {
            Rule::Choco { step } => {
                let step = if self.slip == Slip::StepIgnored { 1.0 } else { step };
                return vec![step; errors.len()];
            }
            Rule::Ada(ada) => ada,
            Rule::Partial { .. } => unreachable!("it has a plain form of its own"),
        };
        self.exchanges += 1;
        let before = self.moment.clone();
        for (moment, error) in self.moment.iter_mut().zip(errors) {
            *moment = match self.slip {
                Slip::WeightsSwapped => (1.0 - decay) * *moment + decay * error * error,
                Slip::NewWhole => decay * *moment + error * error,
                Slip::Absolute => decay * *moment + (1.0 - decay) * error.abs(),
                _ => decay * *moment + (1.0 - decay) * error * error,
            };
        }
        let corrected = 1.0 - decay.powi(self.exchanges);
        let divisor = match self.slip {
            Slip::NeverCorrected => 1.0,
            Slip::AlwaysCorrected => corrected,
            Slip::CountedFromNone if correction => 1.0 - decay.powi(self.exchanges - 1),
            _ if correction => corrected,
            _ => 1.0,
        };
        let used = if self.slip == Slip::Late { &before } else { &self.moment };
        let mut second: Vec<f64> = used.iter().map(|moment| moment / divisor).collect();
        if self.slip == Slip::CorrectionKept {
            self.moment.clone_from(&second);
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let ordinary = match self.slip {
            Slip::MeanOfRoots => mean(&second.iter().map(|moment| moment.sqrt()).collect::<Vec<_>>()),
            _ => mean(&second).sqrt(),
        };
        if self.slip == Slip::OneForAll {
            let all = mean(&second);
            second.fill(all);
        }
        // What γ and ε are counted in, and the largest step that is borne.
        let (size, most) = match unit {
            Unit::Parameter => (1.0, 1.0),
            Unit::Error => (ordinary, 1.0),
            Unit::Measured if self.slip == Slip::PairForgotten => (ordinary, unpaired(&self.row, self.contraction())),
            Unit::Measured => (ordinary, bearable(&self.row, self.contraction())),
        };
        let cap = if unit == Unit::Measured { cap.min(step.min(1.0) * most) } else { cap };
        let gamma = step * most * size;
        let epsilon = if self.slip == Slip::EpsilonUnscaled { epsilon } else { epsilon * size };
        let step = |(second, error): (f64, &f64)| {
            let step = match self.slip {
                Slip::NoRoot => gamma / (second + epsilon),
                Slip::EpsilonWithin => gamma / (second + epsilon).sqrt(),
                Slip::NoEpsilon => gamma / second.sqrt(),
                Slip::StepIgnored => return 1.0,
                _ => gamma / (second.sqrt() + epsilon),
            };
            match self.slip {
                // Without errors there is no quotient, and no move either.
                Slip::NoCap => {
                    if error.abs() > 0.0 {
                        step
                    } else {
                        0.0
                    }
                }
                Slip::MovesCapped => step.min(cap / error.abs().max(f64::MIN_POSITIVE)),
                Slip::CapExceeded => step.min(1.01 * cap),
                _ => step.min(cap),
            }
        };
        second.into_iter().zip(errors).map(step).collect()
    }
}

/// `r/(a + √(a² + (a² + s)r))`, whoever the neighbours are.
fn unpaired(row: &Row, kept: f64) -> f64 {
    let (given, squares) = row.others.values().fold((0.0, 0.0), |(a, s), weight| (a + weight, s + weight * weight));
    let ratio = kept / (1.0 - kept);
    (ratio / (given + (given * given + (given * given + squares) * ratio).sqrt())).min(1.0)
}

impl<S: Scalar> Node<S> for Plain<S> {
    fn send(&mut self, model: &[S], compressor: &mut dyn Compressor<S>, random: &mut Random, message: &mut Vec<u8>) {
        let difference: Vec<S> = model.iter().zip(&self.own).map(|(&x, &copy)| x - copy).collect();
        compressor.encode(&difference, random, message).expect("finite models");
        self.told(model, message, compressor);
    }

    fn receive(&mut self, from: NodeId, message: &[u8], compressor: &mut dyn Compressor<S>) {
        let (Some(copy), Some(&weight)) = (self.others.get_mut(&from), self.row.others.get(&from)) else {
            return;
        };
        let is_left_out = self.slip == Slip::NeighbourForgotten && self.row.others.keys().next() == Some(&from);
        let mut read = vec![S::zero(); copy.len()];
        compressor.decode(message, &mut read).expect("what was encoded");
        for ((copy, sum), q) in copy.iter_mut().zip(&mut self.sum).zip(read) {
            *copy += q;
            *sum += if is_left_out { 0.0 } else { weight * q.wide() };
        }
    }

    fn mix(&mut self, model: &mut [S]) {
        let own = if self.slip == Slip::SelfForgotten { 0.0 } else { self.row.own };
        let error = |(sum, copy): (&f64, &S)| sum + (own - 1.0) * copy.wide();
        let errors: Vec<f64> = self.sum.iter().zip(&self.own).map(error).collect();
        let steps = self.steps(&errors);
        for ((x, error), step) in model.iter_mut().zip(errors).zip(steps) {
            *x = S::of(x.wide() + step * error);
        }
    }

    fn own(&self) -> &[S] {
        &self.own
    }

    fn other(&self, node: NodeId) -> Option<&[S]> {
        self.others.get(&node).map(Vec::as_slice)
    }
}
