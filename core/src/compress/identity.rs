//! Nothing lost.

use super::{CompressError, Compressor, check_finite, check_size};
use crate::collective::Encoding;
use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Values as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl<S: Scalar> Compressor<S> for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn sizes(&self, len: usize) -> RangeInclusive<usize> {
        len * S::BYTES..=len * S::BYTES
    }

    fn encode(&mut self, values: &[S], _: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError> {
        check_finite(values)?;
        let start = target.len();
        target.resize(start + values.len() * S::BYTES, 0);
        Encoding::Full.write(values, &mut target[start..]);
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], values: &mut [S]) -> Result<(), CompressError> {
        check_size(bytes, Compressor::<S>::sizes(self, values.len()))?;
        Encoding::Full.read(bytes, values);
        check_finite(values)
    }

    fn contraction(&self, _: usize) -> f64 {
        1.0
    }

    fn is_unbiased(&self) -> bool {
        true
    }
}
