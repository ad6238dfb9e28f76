//! The laws of [`Compressor`], and mutants that break them.
//!
//! # For users
//! ```
//! use kronfleet_conformance::{check::Check, compressor};
//! use kronfleet_core::compress::{Compressor, Sign};
//!
//! let make = || Box::new(Sign) as Box<dyn Compressor<f32>>;
//! for (name, law) in compressor::laws::<f32>() {
//!     law(&make, &Check { cases: 4, ..Check::default() }).unwrap_or_else(|broken| panic!("{name}: {broken}"));
//! }
//! ```
//!
//! # For implementers
//! Laws come in order: the first that does not hold is the place to look. [`Mutant`] is wrong on purpose, in every way
//! that [`Fault`] lists.

mod bytes;
mod loss;
mod mutant;
mod shape;

pub use bytes::{
    arbitrary_bytes_are_finite_values_or_errors, bytes_cut_or_grown_are_errors, what_is_not_finite_is_refused,
};
pub use loss::{
    Tell, contraction_is_as_promised, feedback_loses_nothing, telling_loses_nothing, unbiased_codes_have_no_bias,
};
pub use mutant::{Fault, Mutant};
pub use shape::{
    equal_calls_give_equal_bytes, sizes_are_exact, what_is_decoded_replaces_what_was_there, zeros_stay_zeros,
};

use crate::check::{Broken, Check};
use kronfleet_core::compress::Compressor;
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Random;
use proptest::prelude::*;

/// Makes a compressor under test.
pub type Make<'a, S> = &'a dyn Fn() -> Box<dyn Compressor<S>>;

/// A law: tried on compressors that `make` makes.
pub type Law<S> = fn(make: Make<'_, S>, check: &Check) -> Result<(), Broken>;

/// All laws with their names, in order.
pub fn laws<S: Scalar>() -> Vec<(&'static str, Law<S>)> {
    macro_rules! list {
        ($($law:ident)*) => { vec![$((stringify!($law), $law::<S> as Law<S>)),*] };
    }
    list! {
        sizes_are_exact
        what_is_decoded_replaces_what_was_there
        equal_calls_give_equal_bytes
        zeros_stay_zeros
        contraction_is_as_promised
        unbiased_codes_have_no_bias
        feedback_loses_nothing
        what_is_not_finite_is_refused
        bytes_cut_or_grown_are_errors
        arbitrary_bytes_are_finite_values_or_errors
    }
}

/// Values within the normal range of every code: 0, and magnitudes from 2⁻¹⁰ to 2¹⁰, some of them equal.
fn value<S: Scalar>() -> impl Strategy<Value = S> {
    let magnitude = prop_oneof![
        1 => Just(0.0),
        2 => (1_i32..=4).prop_map(f64::from),
        4 => (-10.0..10.0).prop_map(f64::exp2),
    ];
    (magnitude, any::<bool>()).prop_map(|(magnitude, negative)| S::of(if negative { -magnitude } else { magnitude }))
}

/// Short vectors, and some as long as a block of any code.
fn vector<S: Scalar>() -> impl Strategy<Value = Vec<S>> {
    let long = (proptest::collection::vec(value(), 1..20), 4094_usize..4100)
        .prop_map(|(some, len)| some.iter().copied().cycle().take(len).collect());
    prop_oneof![12 => short_vector(), 1 => long]
}

fn short_vector<S: Scalar>() -> impl Strategy<Value = Vec<S>> {
    proptest::collection::vec(value(), 0..40)
}

/// The bytes of `values`, which have any.
fn encoded<S: Scalar>(
    compressor: &mut dyn Compressor<S>,
    values: &[S],
    random: &mut Random,
) -> Result<Vec<u8>, String> {
    let mut bytes = vec![];
    compressor
        .encode(values, random, &mut bytes)
        .map_err(|error| format!("encoding {} values: {error}", values.len()))?;
    Ok(bytes)
}

/// What is read of `values`.
fn through<S: Scalar>(compressor: &mut dyn Compressor<S>, values: &[S], random: &mut Random) -> Result<Vec<S>, String> {
    let bytes = encoded(compressor, values, random)?;
    let mut decoded = vec![S::of(f64::NAN); values.len()];
    compressor.decode(&bytes, &mut decoded).map_err(|error| format!("decoding {} values: {error}", values.len()))?;
    Ok(decoded)
}
