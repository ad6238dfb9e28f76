//! One random call of an operation, and what it should give.

use super::bound::{Expected, compare};
use crate::check::{Broken, Check};
use core::fmt::Debug;
use kronfleet_core::backend::Backend;
use kronfleet_core::scalar::Scalar;
use proptest::strategy::Strategy;

/// One random call of an operation.
pub(crate) trait Case: Debug {
    /// Calls it on buffers of its own; the whole content of every buffer written.
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>>;

    /// What [`run`](Self::run) should give with scalars `S`, by the naive oracle.
    fn expected<S: Scalar>(&self) -> Vec<Expected>;
}

/// The operation gives what the oracle gives.
pub(crate) fn match_oracle<B: Backend, T: Strategy>(make: &dyn Fn() -> B, check: &Check, cases: T) -> Result<(), Broken>
where
    T::Value: Case,
{
    check.hold(cases, |case| compare(&case.expected::<B::Scalar>(), &case.run(&mut make())))
}
