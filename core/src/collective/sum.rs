//! Weighted means of values that lie in memory or as they came.

use crate::collective::Encoding;
use crate::scalar::Scalar;

/// One member's values, and what they count.
pub(super) struct Term<'a, S> {
    /// Whose they are, or by whom they were passed.
    pub(super) member: usize,
    pub(super) weight: f64,
    pub(super) values: Values<'a, S>,
}

/// Values.
#[derive(Clone, Copy)]
pub(super) enum Values<'a, S> {
    /// In memory.
    Here(&'a [S]),
    /// As they stand on the wire.
    Came(&'a [u8], Encoding),
}

impl<S: Scalar> Values<'_, S> {
    /// The largest in size; infinite if one is not finite.
    pub(super) fn largest(self) -> f64 {
        let larger = |largest: f64, value: S| {
            let size = libm::fabs(value.wide());
            if size.is_finite() { largest.max(size) } else { f64::INFINITY }
        };
        match self {
            Self::Here(values) => values.iter().copied().fold(0.0, larger),
            Self::Came(bytes, encoding) => {
                bytes.chunks_exact(encoding.bytes::<S>()).map(|bytes| encoding.read_one(bytes)).fold(0.0, larger)
            }
        }
    }
}

/// `target = Σ w_i x_i / total`, summed in this order in double precision and rounded once; answers whether all is finite.
pub(super) fn mean<S: Scalar>(terms: &[Term<'_, S>], total: f64, target: &mut [S]) -> bool {
    if let [a, b] = terms
        && is_middle(a.weight, b.weight, total)
        && S::BYTES == 4
    {
        let finite = match (a.values, b.values) {
            (Values::Here(here), Values::Came(came, Encoding::Full))
            | (Values::Came(came, Encoding::Full), Values::Here(here)) => middle(here, came, target),
            _ => false,
        };
        if finite {
            return true;
        }
    }
    // A block of partial sums stays in the nearest cache while all terms pass over it.
    const BLOCK: usize = 512;
    let mut finite = true;
    let mut sums = [0.0_f64; BLOCK];
    for (block, target) in target.chunks_mut(BLOCK).enumerate() {
        let (start, end) = (block * BLOCK, block * BLOCK + target.len());
        let sums = &mut sums[..target.len()];
        sums.fill(0.0);
        for Term { weight, values, .. } in terms {
            match *values {
                Values::Here(values) => {
                    for (sum, value) in sums.iter_mut().zip(&values[start..end]) {
                        *sum += weight * value.wide();
                    }
                }
                Values::Came(bytes, Encoding::Full) => {
                    let bytes = &bytes[start * S::BYTES..end * S::BYTES];
                    for (sum, bytes) in sums.iter_mut().zip(bytes.chunks_exact(S::BYTES)) {
                        *sum += weight * S::read_le(bytes).wide();
                    }
                }
                Values::Came(bytes, encoding) => {
                    for (sum, bytes) in sums.iter_mut().zip(bytes[2 * start..2 * end].chunks_exact(2)) {
                        *sum += weight * encoding.read_one::<S>(bytes).wide();
                    }
                }
            }
        }
        for (target, sum) in target.iter_mut().zip(sums) {
            *target = S::of(*sum / total);
            finite &= target.is_finite();
        }
    }
    finite
}

/// Whether the mean of two values in single precision is half their sum in single precision, to the bit.
///
/// Let both weights be w, of at most 28 significant bits. In double precision `w a` and `w b` are exact, and
/// `fl(fl(w a + w b) / 2 w)` is `m = (a + b)/2` up to a relative error of 2⁻⁵². If m lies in the middle between two numbers
/// of single precision, it has 25 bits, all steps are exact, and rounding ends at the even one. If not, it lies at least
/// 2⁻⁴⁹ m from there, for b has 24 bits only; so `m` and the quotient round to the same number. And `a + b`, rounded to
/// single precision, is twice the rounded m: halving is exact unless m has fewer bits than usual, being that small, and then
/// the sum was exact. Only where `a + b` overflows is there a difference, which is found by its not being finite.
fn is_middle(a: f64, b: f64, total: f64) -> bool {
    // The 25 last of 53 bits are 0; far from where products over- or underflow.
    a == b && total == a + b && a.to_bits().trailing_zeros() >= 25 && (1e-100..1e100).contains(&a)
}

/// `target = (here + came) / 2`; answers whether all is finite.
fn middle<S: Scalar>(here: &[S], came: &[u8], target: &mut [S]) -> bool {
    let half = S::of(0.5);
    let mut wrong = false;
    let sources = here.iter().zip(came.chunks_exact(S::BYTES));
    for (target, (here, came)) in target.iter_mut().zip(sources) {
        let value = (*here + S::read_le(came)) * half;
        *target = value;
        wrong |= !value.is_finite();
    }
    !wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use alloc::vec;
    use alloc::vec::Vec;

    /// Numbers that are near each other, far apart, tiny, huge and of few bits.
    fn wild(random: &mut crate::seed::Random) -> f32 {
        loop {
            let mut bits = random.bits() as u32;
            match random.below(5) {
                0 => bits &= 0xffff_0000,
                1 => bits &= 0x807f_ffff,
                2 => bits = (bits & 0x807f_ffff) | (100 + random.below(50) as u32) << 23,
                3 => bits = (bits & 0x8000_0007) | (0x3f80_0000 - 4),
                _ => {}
            }
            let value = f32::from_bits(bits);
            if value.is_finite() {
                return value;
            }
        }
    }

    #[test]
    fn half_the_sum_is_the_mean_to_the_bit() {
        let mut random = Seed(3).random();
        for _ in 0..2000 {
            let weight = [1.0, 0.5, 3.0, 640.0, f64::from((1 << 28) - 1), 49_999.0][random.below(6) as usize];
            assert!(is_middle(weight, weight, 2.0 * weight));
            let a: Vec<f32> = (0..50).map(|_| wild(&mut random)).collect();
            // Often half a unit away from a, or nearly.
            let b: Vec<f32> = a
                .iter()
                .map(|a| match random.below(3) {
                    0 => a * f32::from_bits(0x3380_0000 + random.below(5) as u32 - 2),
                    1 => -a * (1.0 + f32::EPSILON * random.below(4) as f32),
                    _ => wild(&mut random),
                })
                .collect();
            let came: Vec<u8> = b.iter().flat_map(|value| value.to_le_bytes()).collect();
            let terms = [
                Term { member: 0, weight, values: Values::Here(&a) },
                Term { member: 1, weight, values: Values::Came(&came, Encoding::Full) },
            ];
            let mut found = vec![0.0; 50];
            let finite = mean(&terms, 2.0 * weight, &mut found);
            assert_eq!(finite, b.iter().all(|value| value.is_finite()));
            for ((a, b), found) in a.iter().zip(&b).zip(found).filter(|((_, b), _)| b.is_finite()) {
                let expected = ((weight * f64::from(*a) + weight * f64::from(*b)) / (2.0 * weight)) as f32;
                assert_eq!(found.to_bits(), expected.to_bits(), "{a:e}, {b:e} with {weight}");
            }
        }
    }

    #[test]
    fn weights_with_too_many_bits_are_not_taken_for_equal_ones() {
        for weight in [f64::from((1_u32 << 29) - 1), 0.1, 1e200, 0.0] {
            assert!(!is_middle(weight, weight, 2.0 * weight));
        }
        assert!(!is_middle(1.0, 2.0, 3.0) && !is_middle(1.0, 1.0, 3.0));
    }
}
