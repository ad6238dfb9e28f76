//! What an operation should give, and how far off a correct one may be.
//!
//! Every bound is the standard first-order one (Higham, *Accuracy and Stability of Numerical Algorithms*, §3.1): a sum
//! of n products, in any order, is off by at most about n·u·Σ|terms|. The unit roundoff u is half of ε; the
//! oracle, in double precision, is as inexact as the backend where that computes in double precision too; so n·ε
//! covers both, and a factor of 2 covers the terms of second order.

use core::fmt::Write;
use kronfleet_core::scalar::Scalar;

/// A number known up to an error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Near {
    /// What it should be.
    pub(crate) value: f64,
    /// How far off it may be.
    pub(crate) error: f64,
}

impl Near {
    /// Exactly `value`.
    pub(crate) fn exact(value: f64) -> Self {
        Self { value, error: 0.0 }
    }

    /// `value`, the result of `operations` roundings of intermediate results no larger than `magnitude` in total.
    pub(crate) fn rounded<S: Scalar>(value: f64, operations: usize, magnitude: f64) -> Self {
        Self { value, error: unit::<S>(operations) * magnitude + tiny::<S>(operations) }
    }

    /// Whether `seen` is near enough; not-a-number and infinities must be met exactly.
    pub(crate) fn admits(self, seen: f64) -> bool {
        if self.value.is_nan() {
            return seen.is_nan();
        }
        seen == self.value || (seen - self.value).abs() <= self.error
    }
}

/// The relative error of `operations` roundings.
pub(crate) fn unit<S: Scalar>(operations: usize) -> f64 {
    2.0 * (operations + 4) as f64 * S::EPSILON
}

/// What may be lost to underflow in `operations` roundings.
fn tiny<S: Scalar>(operations: usize) -> f64 {
    let least: S = num_traits::Float::min_positive_value();
    (operations + 4) as f64 * least.wide()
}

/// One buffer as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// What the operation calls it.
    pub(crate) name: &'static str,
    /// All of its content.
    pub(crate) content: Vec<Near>,
}

impl Expected {
    /// A buffer that holds exactly this, rounded once.
    pub(crate) fn unchanged<S: Scalar>(name: &'static str, content: &[f64]) -> Self {
        Self { name, content: content.iter().map(|&value| Near::exact(S::of(value).wide())).collect() }
    }

    /// Compares with what a backend gave.
    pub(crate) fn compare<S: Scalar>(&self, seen: &[S]) -> Result<(), String> {
        if self.content.len() != seen.len() {
            return Err(format!("`{}` has {} elements instead of {}", self.name, seen.len(), self.content.len()));
        }
        let wrong = |&(_, (near, seen)): &(usize, (&Near, &S))| !near.admits(seen.wide());
        let mut differing = self.content.iter().zip(seen).enumerate().filter(wrong);
        let Some((at, (near, value))) = differing.next() else {
            return Ok(());
        };
        let mut facts = format!("`{}`[{at}] is {value} instead of {} ± {:e}", self.name, near.value, near.error);
        let others = differing.count();
        if others > 0 {
            write!(facts, "; {others} more of {} differ", seen.len()).expect("strings can be written to");
        }
        Err(facts)
    }
}

/// Compares every buffer.
pub(crate) fn compare<S: Scalar>(expected: &[Expected], seen: &[Vec<S>]) -> Result<(), String> {
    assert_eq!(expected.len(), seen.len(), "as many buffers as expected");
    expected.iter().zip(seen).try_for_each(|(expected, seen)| expected.compare(seen))
}

/// Fails unless two runs gave the same bits.
pub(crate) fn same_bits<S: Scalar>(what: &str, one: &[Vec<S>], other: &[Vec<S>]) -> Result<(), String> {
    let bits = |value: &S| value.wide().to_bits();
    for (buffer, (one, other)) in one.iter().zip(other).enumerate() {
        if let Some(at) = one.iter().zip(other).position(|(one, other)| bits(one) != bits(other)) {
            return Err(format!("{what}: element {at} of output {buffer} is {} and {}", one[at], other[at]));
        }
    }
    Ok(())
}
