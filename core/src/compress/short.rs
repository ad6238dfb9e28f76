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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use alloc::vec;

    #[test]
    fn a_quarter_of_a_step_is_rounded_up_one_time_in_four() {
        const DRAWS: usize = 20_000;
        let mut random = Seed(5).random();
        for (code, bits) in [(Short::bf16 as fn(Rounding) -> Short, 8), (Short::f16, 11)] {
            let step = libm::ldexp(1.0, 1 - bits);
            for (part, sign) in [(0.25, 1.0), (0.75, 1.0), (0.25, -1.0), (0.0, 1.0)] {
                let up = |rounding, random: &mut Random| {
                    let (mut code, mut bytes, mut read) = (code(rounding), vec![], vec![0.0; DRAWS]);
                    code.encode(&vec![sign * (1.0 + part * step); DRAWS], random, &mut bytes).expect("finite");
                    code.decode(&bytes, &mut read).expect("as encoded");
                    assert!(read.iter().all(|value| [sign, sign * (1.0 + step)].contains(value)));
                    read.iter().filter(|value| **value != sign).count() as f64
                };
                let expected = DRAWS as f64 * part;
                // Six standard deviations.
                let margin = 6.0 * libm::sqrt(expected * (1.0 - part));
                let found = up(Rounding::Stochastic, &mut random);
                assert!((found - expected).abs() <= margin, "{found} of {DRAWS} are rounded up, not {part} of them");
                // The nearest of two is always the same.
                let nearest = up(Rounding::Nearest, &mut random);
                assert_eq!((nearest - expected).abs() <= margin, part == 0.0, "{nearest}");
            }
        }
    }
}
