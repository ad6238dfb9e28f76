//! Numbers as they stand on the wire: in full, or in half the bits.

use crate::scalar::Scalar;

/// How values stand on the wire, little-endian.
///
/// Sums are formed in full precision; what travels, and what everybody keeps of a result, is rounded to the nearest
/// number of the encoding, ties to even.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Encoding {
    /// As they are.
    #[default]
    Full,
    /// 8 significant bits, the range of single precision (bfloat16).
    Bf16,
    /// 11 significant bits, up to 65504 (IEEE 754 binary16).
    F16,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Full, Self::Bf16, Self::F16];

    /// Bytes of one value.
    pub fn bytes<S: Scalar>(self) -> usize {
        match self {
            Self::Full => S::BYTES,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The largest relative error of a value within the encoding's normal range.
    pub fn error(self) -> f64 {
        match self {
            Self::Full => 0.0,
            Self::Bf16 => 1.0 / 256.0,
            Self::F16 => 1.0 / 2048.0,
        }
    }

    /// Writes values.
    ///
    /// # Panics
    /// If `target` does not have as many bytes as they take.
    #[track_caller]
    pub fn write<S: Scalar>(self, values: &[S], target: &mut [u8]) {
        assert_eq!(target.len(), values.len() * self.bytes::<S>(), "bytes of {} values", values.len());
        match self {
            Self::Full => {
                for (target, value) in target.chunks_exact_mut(S::BYTES).zip(values) {
                    value.write_le(target);
                }
            }
            Self::Bf16 => {
                for (target, value) in target.chunks_exact_mut(2).zip(values) {
                    target.copy_from_slice(&bf16(*value).to_le_bytes());
                }
            }
            Self::F16 => {
                for (target, value) in target.chunks_exact_mut(2).zip(values) {
                    target.copy_from_slice(&to_f16(value.wide()).to_le_bytes());
                }
            }
        }
    }

    /// Reads values; answers whether all are finite.
    ///
    /// # Panics
    /// If `source` does not have as many bytes as they take.
    #[track_caller]
    pub fn read<S: Scalar>(self, source: &[u8], values: &mut [S]) -> bool {
        assert_eq!(source.len(), values.len() * self.bytes::<S>(), "bytes of {} values", values.len());
        let mut finite = true;
        match self {
            Self::Full => {
                for (value, bytes) in values.iter_mut().zip(source.chunks_exact(S::BYTES)) {
                    *value = S::read_le(bytes);
                    finite &= value.is_finite();
                }
            }
            Self::Bf16 | Self::F16 => {
                for (value, bytes) in values.iter_mut().zip(source.chunks_exact(2)) {
                    *value = self.short(bytes);
                    finite &= value.is_finite();
                }
            }
        }
        finite
    }

    /// The value that these two bytes are.
    fn short<S: Scalar>(self, bytes: &[u8]) -> S {
        let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
        S::of(if self == Self::Bf16 { f64::from(f32::from_bits(u32::from(bits) << 16)) } else { from_f16(bits) })
    }

    /// The first value of `bytes`.
    pub(super) fn read_one<S: Scalar>(self, bytes: &[u8]) -> S {
        if self == Self::Full { S::read_le(bytes) } else { self.short(bytes) }
    }

    /// Rounds values to what others read of them; answers whether all are finite then.
    pub fn round<S: Scalar>(self, values: &mut [S]) -> bool {
        let mut finite = true;
        for value in values {
            *value = match self {
                Self::Full => *value,
                Self::Bf16 => S::of(f64::from(f32::from_bits(u32::from(bf16(*value)) << 16))),
                Self::F16 => S::of(from_f16(to_f16(value.wide()))),
            };
            finite &= value.is_finite();
        }
        finite
    }
}

/// The nearest number with `bits` significant ones, of which none is below `least`; ties to even.
///
/// Adding and subtracting a number 2⁵³⁻ᵇⁱᵗˢ times as large lets the processor round at the right place.
fn nearest(value: f64, bits: u32, least: i32) -> f64 {
    if !value.is_finite() || value == 0.0 {
        return value;
    }
    let exponent = (libm::ilogb(value) + 1 - bits as i32).max(least);
    // 1.5 · 2⁵² units of 2^exponent.
    let anchor = libm::ldexp(1.5, exponent + 52);
    let rounded = (libm::fabs(value) + anchor) - anchor;
    libm::copysign(rounded, value)
}

/// A number as bfloat16: of single precision by a carry into the upper half, which processors do for many at a time.
fn bf16<S: Scalar>(value: S) -> u16 {
    if S::BYTES > 4 {
        return to_bf16(value.wide());
    }
    let value = value.wide() as f32;
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // A payload in the lower half must not make infinity of what is no number.
    (if value.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
}

fn to_bf16(value: f64) -> u16 {
    // Numbers of single precision end at 2⁻¹⁴⁹, of which this encoding has those from 2⁻¹³³ on.
    let rounded = nearest(value, 8, -133) as f32;
    let bits = (rounded.to_bits() >> 16) as u16;
    // A payload in the lower half must not make infinity of what is no number.
    if rounded.is_nan() { bits | 0x40 } else { bits }
}

fn to_f16(value: f64) -> u16 {
    let sign = u16::from(value.is_sign_negative()) << 15;
    if value.is_nan() {
        return sign | 0x7e00;
    }
    let rounded = libm::fabs(nearest(value, 11, -24));
    if rounded > 65504.0 {
        return sign | 0x7c00;
    }
    if rounded < 1.0 / 16384.0 {
        return sign | (rounded * 16_777_216.0) as u16;
    }
    let exponent = libm::ilogb(rounded);
    let fraction = (libm::ldexp(rounded, 10 - exponent) as u16) & 0x3ff;
    sign | ((exponent + 15) as u16) << 10 | fraction
}

fn from_f16(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3ff);
    let value = match i32::from(bits >> 10 & 0x1f) {
        0 => fraction / 16_777_216.0,
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => libm::ldexp(1024.0 + fraction, exponent - 25),
    };
    if bits >> 15 == 1 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use alloc::vec;
    use alloc::vec::Vec;

    fn value(encoding: Encoding, bits: u16) -> f64 {
        encoding.short::<f64>(&bits.to_le_bytes())
    }

    #[test]
    fn every_short_number_stands_for_itself() {
        for encoding in [Encoding::Bf16, Encoding::F16] {
            for bits in 0..=u16::MAX {
                let value = value(encoding, bits);
                let mut written = [0; 2];
                encoding.write(&[value], &mut written);
                if value.is_nan() {
                    assert!(super::tests::value(encoding, u16::from_le_bytes(written)).is_nan());
                } else {
                    assert_eq!(u16::from_le_bytes(written), bits, "{value}");
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_nearest() {
        let mut random = Seed(5).random();
        for encoding in [Encoding::Bf16, Encoding::F16] {
            let positive: Vec<f64> = (0..0x7f80).map(|bits| value(encoding, bits)).collect();
            let finite: Vec<f64> = positive.into_iter().filter(|value| value.is_finite()).collect();
            let largest = *finite.last().expect("many");
            for _ in 0..20_000 {
                let at = random.below(finite.len() as u64 - 1) as usize;
                let (low, high) = (finite[at], finite[at + 1]);
                let middle = f64::midpoint(low, high);
                // Often exactly between two, where the even one wins.
                let exact = if random.chance(0.3) { middle } else { low + random.uniform() * (high - low) };
                let even = if at.is_multiple_of(2) { low } else { high };
                let expected = if exact == middle {
                    even
                } else if exact < middle {
                    low
                } else {
                    high
                };
                for sign in [1.0, -1.0] {
                    let mut rounded = [sign * exact];
                    assert!(encoding.round(&mut rounded));
                    assert_eq!(rounded, [sign * expected], "{encoding:?} of {exact:e}");
                    assert!((expected - exact).abs() <= (encoding.error() * exact).max(high - low));
                }
            }
            let mut beyond = [largest * 1.01];
            assert!(!encoding.round(&mut beyond) && beyond[0] == f64::INFINITY);
        }
    }

    #[test]
    fn single_precision_is_rounded_like_double() {
        let mut random = Seed(7).random();
        let corners = [0.0, -0.0, f32::MAX, f32::MIN_POSITIVE, 1e-45, 3.389e38, f32::INFINITY, f32::NAN];
        for value in (0..100_000).map(|_| f32::from_bits(random.bits() as u32)).chain(corners) {
            assert_eq!(bf16(value), bf16(f64::from(value)), "{value:e}");
        }
    }

    #[test]
    fn what_is_read_is_what_was_rounded() {
        let mut random = Seed(6).random();
        for encoding in Encoding::ALL {
            let values: Vec<f32> = (0..100).map(|_| random.normal() as f32).collect();
            let mut bytes = vec![0; 100 * encoding.bytes::<f32>()];
            encoding.write(&values, &mut bytes);
            let (mut read, mut rounded) = (vec![0.0_f32; 100], values.clone());
            assert!(encoding.read(&bytes, &mut read) && encoding.round(&mut rounded));
            assert_eq!(read, rounded);
        }
    }
}
