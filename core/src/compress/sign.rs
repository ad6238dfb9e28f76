//! One bit per value.

use super::{CompressError, Compressor, check_finite, check_size};
use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Signs, scaled by the mean magnitude: `C(x) = ‖x‖₁/d · sign(x)` (Karimireddy et al. 2019).
///
/// It contracts with `ω = ‖x‖₁²/(d·‖x‖₂²)`, which is 1 where all magnitudes are equal and `1/d` where all but one
/// are 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sign;

impl<S: Scalar> Compressor<S> for Sign {
    fn name(&self) -> &'static str {
        "sign"
    }

    fn sizes(&self, len: usize) -> RangeInclusive<usize> {
        let bytes = if len == 0 { 0 } else { S::BYTES + len.div_ceil(8) };
        bytes..=bytes
    }

    fn encode(&mut self, values: &[S], _: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError> {
        check_finite(values)?;
        if values.is_empty() {
            return Ok(());
        }
        // Divided first, as the sum of the largest numbers is none.
        let count = values.len() as f64;
        let scale = S::of(values.iter().map(|value| libm::fabs(value.wide()) / count).sum());
        let start = target.len();
        target.resize(start + S::BYTES, 0);
        scale.write_le(&mut target[start..]);
        target.extend(values.chunks(8).map(|eight| {
            // A mean that is rounded to 0 has no sign.
            let bit = |(place, value): (usize, &S)| u8::from(value.wide() < 0.0 && scale > S::zero()) << place;
            eight.iter().enumerate().map(bit).fold(0, |byte, bit| byte | bit)
        }));
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], values: &mut [S]) -> Result<(), CompressError> {
        check_size(bytes, Compressor::<S>::sizes(self, values.len()))?;
        if values.is_empty() {
            return Ok(());
        }
        let (scale, signs) = bytes.split_at(S::BYTES);
        let scale = S::read_le(scale);
        if !scale.is_finite() || scale.wide().is_sign_negative() {
            return Err(CompressError::Field("mean magnitude"));
        }
        if scale == S::zero() && signs.iter().any(|&eight| eight != 0) {
            return Err(CompressError::Field("signs of zeros"));
        }
        for (eight, byte) in values.chunks_mut(8).zip(signs) {
            for (place, value) in eight.iter_mut().enumerate() {
                *value = if byte >> place & 1 == 1 { -scale } else { scale };
            }
        }
        let used = (values.len() - 1) % 8 + 1;
        let padding = signs.last().is_some_and(|last| u32::from(*last) >> used != 0);
        if padding { Err(CompressError::Field("padding")) } else { Ok(()) }
    }

    fn contraction(&self, len: usize) -> f64 {
        1.0 / len.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use alloc::vec;

    #[test]
    fn zeros_are_said_in_one_way() {
        // The mean of the second is too small for a number.
        for values in [[0.0_f32; 5], [0.0, -1e-45, 0.0, 0.0, 0.0]] {
            let (mut bytes, mut read) = (vec![], [1.0_f32; 5]);
            Sign.encode(&values, &mut Seed(1).random(), &mut bytes).expect("finite");
            assert_eq!(Sign.decode(&bytes, &mut read), Ok(()));
            assert!(read.iter().all(|value| value.to_bits() == 0), "{read:?}");
            // The sign of the mean magnitude, and those of values.
            for bit in 31..37 {
                let mut wrong = bytes.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(matches!(Sign.decode(&wrong, &mut read), Err(CompressError::Field(_))), "bit {bit}");
            }
        }
    }
}
