//! A few levels per value, at random and without bias.

use super::bits::{BitReader, BitWriter};
use super::{CompressError, Compressor, check_finite, check_size};
use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// QSGD (Alistarh et al. 2017): `C(x) = sign(x)·‖x‖₂/s · ⌊s·|x|/‖x‖₂ + ξ⌋` with `ξ` uniform in `[0, 1)`.
///
/// A value takes `⌈log₂(2s + 1)⌉` bits. As it is, it has no bias and `E‖C(x) − x‖² ≤ (τ − 1)‖x‖²` with
/// `τ = 1 + min(d/s², √d/s)`; divided by τ it contracts with `ω = 1/τ` (Koloskova et al. 2019) and is too short.
#[derive(Clone, Copy, Debug)]
pub struct Quantised {
    levels: u16,
    contracting: bool,
}

impl Quantised {
    /// `levels` levels besides 0, of either sign; without bias.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn unbiased(levels: u16) -> Self {
        assert!(levels > 0, "a quantisation needs a level besides 0");
        Self { levels, contracting: false }
    }

    /// The same, divided so that it contracts.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn contracting(levels: u16) -> Self {
        Self { contracting: true, ..Self::unbiased(levels) }
    }

    fn bits(self) -> u32 {
        // The least number of bits that tell 2s + 1 symbols apart.
        (2 * u32::from(self.levels)).ilog2() + 1
    }

    fn divisor(self, len: usize) -> f64 {
        let (count, levels) = (len as f64, f64::from(self.levels));
        1.0 + (count / (levels * levels)).min(libm::sqrt(count) / levels)
    }
}

/// The Euclidean norm, without a square that is too large or too small.
fn norm<S: Scalar>(values: &[S]) -> f64 {
    let largest = values.iter().map(|value| libm::fabs(value.wide())).fold(0.0, f64::max);
    if largest == 0.0 {
        return 0.0;
    }
    let squares = values.iter().map(|value| {
        let part = value.wide() / largest;
        part * part
    });
    largest * libm::sqrt(squares.sum())
}

impl<S: Scalar> Compressor<S> for Quantised {
    fn name(&self) -> &'static str {
        if self.contracting { "contracting qsgd" } else { "qsgd" }
    }

    fn sizes(&self, len: usize) -> RangeInclusive<usize> {
        let bytes = if len == 0 { 0 } else { S::BYTES + (len * self.bits() as usize).div_ceil(8) };
        bytes..=bytes
    }

    fn encode(&mut self, values: &[S], random: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError> {
        check_finite(values)?;
        if values.is_empty() {
            return Ok(());
        }
        let norm = S::of(norm(values));
        if !norm.is_finite() {
            return Err(CompressError::TooLarge { value: norm.wide() });
        }
        let start = target.len();
        target.resize(start + S::BYTES, 0);
        norm.write_le(&mut target[start..]);
        let (levels, bits) = (u32::from(self.levels), self.bits());
        let mut writer = BitWriter::new(target);
        for value in values {
            let value = value.wide();
            let part = if norm > S::zero() { libm::fabs(value) / norm.wide() } else { 0.0 };
            // Of the one value of a vector, the rounded norm may be a little less.
            let level = ((f64::from(levels) * part + random.uniform()) as u32).min(levels);
            writer.push(if value < 0.0 { levels - level } else { levels + level }, bits);
        }
        writer.end();
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], values: &mut [S]) -> Result<(), CompressError> {
        check_size(bytes, Compressor::<S>::sizes(self, values.len()))?;
        if values.is_empty() {
            return Ok(());
        }
        let (norm, codes) = bytes.split_at(S::BYTES);
        let norm = S::read_le(norm);
        if !norm.is_finite() || norm.wide().is_sign_negative() {
            return Err(CompressError::Field("norm"));
        }
        let divisor = if self.contracting { self.divisor(values.len()) } else { 1.0 };
        let unit = norm.wide() / (f64::from(self.levels) * divisor);
        let (levels, bits) = (i32::from(self.levels), self.bits());
        // Zeros have no other level.
        let most = if norm > S::zero() { levels } else { 0 };
        let mut reader = BitReader::new(codes);
        for value in values {
            let level = reader.take(bits)? as i32 - levels;
            if level.abs() > most {
                return Err(CompressError::Field("level"));
            }
            *value = S::of(unit * f64::from(level));
        }
        reader.end()
    }

    fn contraction(&self, len: usize) -> f64 {
        let divisor = self.divisor(len);
        // Without bias, the error is the variance.
        if self.contracting { 1.0 / divisor } else { (2.0 - divisor).max(0.0) }
    }

    fn is_unbiased(&self) -> bool {
        !self.contracting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use alloc::vec;

    #[test]
    fn zeros_are_said_in_one_way() {
        for mut code in [Quantised::unbiased(3), Quantised::contracting(3)] {
            let (mut bytes, mut read) = (vec![], [1.0_f32; 5]);
            code.encode(&[0.0_f32; 5], &mut Seed(1).random(), &mut bytes).expect("finite");
            assert_eq!(code.decode(&bytes, &mut read), Ok(()));
            assert!(read.iter().all(|value| value.to_bits() == 0));
            // Every sign and level, and the sign of the norm.
            for bit in (31..32).chain(32..47) {
                let mut wrong = bytes.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(matches!(code.decode(&wrong, &mut read), Err(CompressError::Field(_))), "bit {bit}");
            }
        }
    }
}
