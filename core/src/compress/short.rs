//! Half the bits.

use super::{CompressError, Compressor, check_finite, check_size};
use crate::collective::Encoding;
use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// How numbers between two that can be said are said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// As the nearest, ties to even.
    #[default]
    Nearest,
    /// As either, at random so that the mean is right.
    Stochastic,
}

/// Values of 16 bits.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    encoding: Encoding,
    rounding: Rounding,
}

impl Short {
    /// 8 significant bits and the range of single precision (bfloat16).
    pub const fn bf16(rounding: Rounding) -> Self {
        Self { encoding: Encoding::Bf16, rounding }
    }

    /// 11 significant bits, up to 65504 (IEEE 754 binary16).
    pub const fn f16(rounding: Rounding) -> Self {
        Self { encoding: Encoding::F16, rounding }
    }

    /// Significant bits, and the exponent of the least positive number.
    fn precision(self) -> (i32, i32) {
        if self.encoding == Encoding::Bf16 { (8, -133) } else { (11, -24) }
    }
}

/// One of the two numbers of so many significant bits around `value`, at random so that the mean is `value`.
fn stochastic(value: f64, (bits, least): (i32, i32), random: &mut Random) -> f64 {
    if value == 0.0 {
        return value;
    }
    let exponent = (libm::ilogb(value) + 1 - bits).max(least);
    let units = libm::ldexp(libm::fabs(value), -exponent);
    let floor = libm::floor(units);
    let units = if random.uniform() < units - floor { floor + 1.0 } else { floor };
    libm::copysign(libm::ldexp(units, exponent), value)
}

impl<S: Scalar> Compressor<S> for Short {
    fn name(&self) -> &'static str {
        match (self.encoding, self.rounding) {
            (Encoding::Bf16, Rounding::Nearest) => "bf16",
            (Encoding::Bf16, Rounding::Stochastic) => "stochastic bf16",
            (_, Rounding::Nearest) => "f16",
            (_, Rounding::Stochastic) => "stochastic f16",
        }
    }

    fn sizes(&self, len: usize) -> RangeInclusive<usize> {
        2 * len..=2 * len
    }

    fn encode(&mut self, values: &[S], random: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError> {
        check_finite(values)?;
        let start = target.len();
        target.resize(start + 2 * values.len(), 0);
        let written = &mut target[start..];
        match self.rounding {
            Rounding::Nearest => self.encoding.write(values, written),
            Rounding::Stochastic => {
                let precision = self.precision();
                for (bytes, value) in written.chunks_exact_mut(2).zip(values) {
                    self.encoding.write(&[stochastic(value.wide(), precision, random)], bytes);
                }
            }
        }
        // All ones in the exponent: what was rounded up beyond the largest number.
        let infinite = if self.encoding == Encoding::Bf16 { 0x7f80 } else { 0x7c00 };
        let too_large = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]) & infinite == infinite;
        // A fold without a way out is several values at a time.
        if written.chunks_exact(2).fold(false, |found, bytes| found | too_large(bytes)) {
            let index = written.chunks_exact(2).position(too_large).unwrap_or(0);
            target.truncate(start);
            return Err(CompressError::TooLarge { value: values[index].wide() });
        }
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], values: &mut [S]) -> Result<(), CompressError> {
        check_size(bytes, Compressor::<S>::sizes(self, values.len()))?;
        if self.encoding.read(bytes, values) { Ok(()) } else { check_finite(values) }
    }

    fn contraction(&self, _: usize) -> f64 {
        // Nearest is off by half a unit at most; stochastic has a variance of a quarter of a unit's square at most.
        1.0 - self.encoding.error() * self.encoding.error()
    }

    fn is_unbiased(&self) -> bool {
        self.rounding == Rounding::Stochastic
    }
}
