//! What is pushed from node to node.

use crate::policy::words::{Saved, Words};
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;

/// Weighted values, and what those of each tensor weigh.
#[derive(Clone, Debug, PartialEq)]
pub struct Mass {
    /// `x`, or a part of it: the values of all tensors, one after the other.
    pub values: Vec<f64>,
    /// `w`, or a part of it: one for each tensor.
    pub weights: Vec<f64>,
}

impl Mass {
    pub(super) fn nothing(len: usize, tensors: usize) -> Self {
        Self { values: vec![0.0; len], weights: vec![0.0; tensors] }
    }

    /// `self += factor · weights · (values; 1)`, tensor by tensor, of which there are as many values as `lengths` says.
    pub(super) fn add<S: Scalar>(&mut self, lengths: &[usize], factor: f64, weights: &[f64], values: &[S]) {
        let mut start = 0;
        for ((&len, sum), weight) in lengths.iter().zip(&mut self.weights).zip(weights) {
            let share = factor * weight;
            *sum += share;
            let tensor = start..start + len;
            for (sum, value) in self.values[tensor.clone()].iter_mut().zip(&values[tensor]) {
                *sum += share * value.wide();
            }
            start += len;
        }
    }

    /// With what `after` is more than `before`.
    pub(super) fn with_difference(&self, after: &Self, before: &Self) -> Self {
        let sums = |sums: &[f64], after: &[f64], before: &[f64]| {
            sums.iter().zip(after).zip(before).map(|((sum, after), before)| sum + (after - before)).collect()
        };
        Self {
            weights: sums(&self.weights, &after.weights, &before.weights),
            values: sums(&self.values, &after.values, &before.values),
        }
    }

    /// Whether these are numbers, and no weight is below 0.
    pub(super) fn is_sound(&self) -> bool {
        let is_weight = |weight: &f64| *weight >= 0.0 && weight.is_finite();
        self.weights.iter().all(is_weight) && self.values.iter().all(|value| value.is_finite())
    }

    /// Puts `x/w` into `z`.
    pub(super) fn divide<S: Scalar>(&self, lengths: &[usize], z: &mut [S]) {
        let mut start = 0;
        for (&len, weight) in lengths.iter().zip(&self.weights) {
            let tensor = start..start + len;
            for (z, x) in z[tensor.clone()].iter_mut().zip(&self.values[tensor]) {
                *z = S::of(x / weight);
            }
            start += len;
        }
    }

    pub(super) fn save(&self, words: &mut Words) {
        words.values(&self.weights);
        words.values(&self.values);
    }

    /// What was [`save`](Self::save)d; `None` if it is of another size.
    pub(super) fn restore(words: &mut Saved<'_>, len: usize, tensors: usize) -> Option<Self> {
        let (weights, values): (Vec<f64>, Vec<f64>) = (words.values()?, words.values()?);
        (weights.len() == tensors && values.len() == len).then_some(Self { values, weights })
    }
}
