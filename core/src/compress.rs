//! Compressors: vectors in fewer bytes, and what that costs.
//!
//! # For users
//! | compressor | bytes for `d` values of `b` bytes | loses |
//! |---|---|---|
//! | [`Identity`] | `d·b` | nothing |
//! | [`Short`] | `2·d` | all but 8 or 11 significant bits, to the nearest or at random |
//! | [`Blockwise`] | `d + 4·⌈d/4096⌉` | all but one of 255 levels per value, relative to its block's largest |
//! | [`Quantised`] | `b + ⌈d·⌈log₂(2s+1)⌉/8⌉` | all but one of `2s + 1` levels, at random and without bias |
//! | [`Sign`] | `b + ⌈d/8⌉` | all but signs and the mean magnitude |
//! | [`TopK`] | `k·b` and the indices, within 5 % of their entropy | all but the `k` largest |
//! | [`RandomK`] | `8 + k·b` | all but `k` at random |
//! | [`LowRank`] | `r·2√d·b`, about | all but rank `r` of the vector as a matrix |
//!
//! ```
//! use kronfleet_core::compress::{Compressor, Kept, TopK};
//! use kronfleet_core::seed::Seed;
//!
//! let values = [0.1_f32, -3.0, 0.2, 2.0];
//! let mut compressor = TopK::new("0.5".parse::<Kept>().unwrap());
//! let mut bytes = Vec::new();
//! compressor.encode(&values, &mut Seed(1).random(), &mut bytes).unwrap();
//! assert_eq!(bytes.len(), 2 * 4 + 1);
//! let mut decoded = [9.0_f32; 4];
//! compressor.decode(&bytes, &mut decoded).unwrap();
//! assert_eq!(decoded, [0.0, -3.0, 0.0, 2.0]);
//! ```
//!
//! What a compressor loses is not lost for good where it is added to what is [told](tell) next. [`Code`] names them, for
//! settings and for rounds that average compressed differences.
//!
//! # For implementers
//! Implement [`Compressor`] and hand it to `kronfleet_conformance::compressor`: it holds it against every law below.
//! Both ends know how many values there are; it does not travel. Whoever applies his own message to a copy that others
//! keep too must apply it as decoded, as others do.

mod bits;
mod blockwise;
mod code;
mod error;
mod feedback;
mod gaps;
mod identity;
mod kept;
mod low_rank;
mod quantised;
mod random;
mod selection;
mod short;
mod sign;
mod top;

pub use blockwise::Blockwise;
pub use code::Code;
pub use error::CompressError;
pub use feedback::tell;
pub use gaps::{GapCode, IndexError};
pub use identity::Identity;
pub use kept::{Kept, ParseKeptError};
pub use low_rank::LowRank;
pub use quantised::Quantised;
pub use random::RandomK;
pub use selection::Selection;
pub use short::{Rounding, Short};
pub use sign::Sign;
pub use top::TopK;

use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// A lossy code for vectors of real numbers.
///
/// - What is decoded has as many values as what was encoded, and all are finite.
/// - `C(0) = 0`, and no values take no bytes.
/// - The bytes are as many as [`sizes`](Self::sizes) says, to the byte.
/// - Values that are no numbers or infinite are refused, and so is every sequence of bytes that no values have.
/// - Equal values and equal random numbers give equal bytes, on every machine.
pub trait Compressor<S: Scalar>: Send {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// How many bytes `len` values take, at least and at most; most compressors leave no choice.
    fn sizes(&self, len: usize) -> RangeInclusive<usize>;

    /// Appends the bytes of `values` to `target`; compressors that are deterministic leave `random` alone.
    ///
    /// # Errors
    /// If a value is not finite, or too large for the code; `target` is then as it was.
    ///
    /// # Panics
    /// If there are more than `u32::MAX` values.
    fn encode(&mut self, values: &[S], random: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError>;

    /// Overwrites `values` with what `bytes` say.
    ///
    /// # Errors
    /// If `bytes` are not what so many values are encoded as; `values` then mean nothing.
    ///
    /// # Panics
    /// If there are more than `u32::MAX` values.
    fn decode(&mut self, bytes: &[u8], values: &mut [S]) -> Result<(), CompressError>;

    /// The largest known ω with `E‖C(x) − x‖² ≤ (1 − ω)‖x‖²` for all `x` of `len` values within the code's normal range;
    /// 0 if there is none.
    fn contraction(&self, len: usize) -> f64;

    /// Whether `E C(x) = x`.
    fn is_unbiased(&self) -> bool {
        false
    }
}

/// Finds the first value that is not finite.
fn check_finite<S: Scalar>(values: &[S]) -> Result<(), CompressError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(CompressError::NotFinite { index, value: values[index].wide() }),
    }
}

/// Finds out whether `bytes` are as many as they may be.
fn check_size(bytes: &[u8], sizes: RangeInclusive<usize>) -> Result<(), CompressError> {
    let found = bytes.len();
    if found < *sizes.start() {
        Err(CompressError::Truncated { found, least: *sizes.start() })
    } else if found > *sizes.end() {
        Err(CompressError::Oversized { found, most: *sizes.end() })
    } else {
        Ok(())
    }
}

/// `len` as the codes count it.
#[track_caller]
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or_else(|_| panic!("{len} values are more than the {} that codes count", u32::MAX))
}
