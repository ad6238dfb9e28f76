//! Some values at random.

use super::{CompressError, Compressor, Kept, check_finite, check_size, count};
use crate::scalar::Scalar;
use crate::seed::{Random, Seed};
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// `k` values at random places; the seed of the places travels instead of them.
#[derive(Clone, Copy, Debug)]
pub struct RandomK {
    kept: Kept,
    scaled: bool,
}

impl RandomK {
    /// The values as they are, the others 0: it contracts with `ω = k/d`.
    pub const fn contracting(kept: Kept) -> Self {
        Self { kept, scaled: false }
    }

    /// The values times `d/k`: it has no bias, and a variance of `(d/k − 1)‖x‖²`.
    pub const fn unbiased(kept: Kept) -> Self {
        Self { kept, scaled: true }
    }

    fn scale(self, len: usize) -> f64 {
        if self.scaled { len as f64 / self.kept.of(len) as f64 } else { 1.0 }
    }
}

/// Bytes of the seed.
const SEED: usize = 8;

/// Calls `take` with `chosen` of the indices below `bound`, ascending, all choices being equally likely (Knuth's
/// selection sampling).
fn choose(seed: u64, bound: u32, chosen: usize, mut take: impl FnMut(usize)) {
    let mut random = Seed(seed).derive("random-k", 0).random();
    let mut left = chosen as u64;
    for index in 0..bound {
        if left == 0 {
            return;
        }
        if random.below(u64::from(bound - index)) < left {
            left -= 1;
            take(index as usize);
        }
    }
}

impl<S: Scalar> Compressor<S> for RandomK {
    fn name(&self) -> &'static str {
        if self.scaled { "unbiased random-k" } else { "random-k" }
    }

    fn sizes(&self, len: usize) -> RangeInclusive<usize> {
        let bytes = if len == 0 { 0 } else { SEED + self.kept.of(len) * S::BYTES };
        bytes..=bytes
    }

    fn encode(&mut self, values: &[S], random: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError> {
        check_finite(values)?;
        if values.is_empty() {
            return Ok(());
        }
        let seed = random.bits();
        let start = target.len();
        target.extend_from_slice(&seed.to_le_bytes());
        target.resize(start + *Compressor::<S>::sizes(self, values.len()).end(), 0);
        let scale = S::of(self.scale(values.len()));
        let mut slots = target[start + SEED..].chunks_exact_mut(S::BYTES);
        let mut too_large = None;
        choose(seed, count(values.len()), self.kept.of(values.len()), |index| {
            let value = values[index] * scale;
            if !value.is_finite() {
                too_large = Some(values[index].wide());
            }
            value.write_le(slots.next().expect("a slot for each that is chosen"));
        });
        match too_large {
            None => Ok(()),
            Some(value) => {
                target.truncate(start);
                Err(CompressError::TooLarge { value })
            }
        }
    }

    fn decode(&mut self, bytes: &[u8], values: &mut [S]) -> Result<(), CompressError> {
        check_size(bytes, Compressor::<S>::sizes(self, values.len()))?;
        let Some((seed, coded)) = bytes.split_first_chunk() else { return Ok(()) };
        values.fill(S::zero());
        let mut slots = coded.chunks_exact(S::BYTES);
        choose(u64::from_le_bytes(*seed), count(values.len()), self.kept.of(values.len()), |index| {
            values[index] = S::read_le(slots.next().expect("a slot for each that is chosen"));
        });
        check_finite(values)
    }

    fn contraction(&self, len: usize) -> f64 {
        let kept = self.kept.of(len) as f64 / len.max(1) as f64;
        // Without bias, the error is the variance.
        if self.scaled && len > 0 { (2.0 - 1.0 / kept).max(0.0) } else { kept }
    }

    fn is_unbiased(&self) -> bool {
        self.scaled
    }
}
