//! Which values were chosen, in as few bits as that takes: the gaps between their indices, Golomb–Rice coded.
//!
//! Choosing `k` of `d` at random has an entropy of `H(k/d)·d/k` bits per chosen one: 4.69 for a tenth, 8.08 for a
//! hundredth. Gaps are then geometrically distributed, and a Rice code (Rice & Plaunt 1971, a Golomb code whose
//! parameter is a power of two) with the best parameter takes at most 5 % more; where more than half are chosen, the
//! others are coded.

use super::CompressError;
use super::bits::{BitReader, BitWriter};
use super::count;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Indices that cannot be encoded are a bug; bytes that are no indices give this.
pub type IndexError = CompressError;

/// The code of so many ascending indices below a bound, known at both ends.
///
/// ```
/// use kronfleet_core::compress::GapCode;
/// let code = GapCode::new(1000, 3);
/// let mut bytes = Vec::new();
/// code.encode(&[17, 400, 999], &mut bytes);
/// assert!(code.sizes().contains(&bytes.len()));
/// let mut indices = Vec::new();
/// code.decode(&bytes, &mut indices).unwrap();
/// assert_eq!(indices, [17, 400, 999]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapCode {
    bound: u32,
    chosen: u32,
    /// Whether the indices that were not chosen are coded.
    others: bool,
    /// A gap's lowest bits, which are written as they are.
    low: u32,
}

impl GapCode {
    /// The code of `chosen` of the indices below `bound`.
    ///
    /// # Panics
    /// If `chosen` exceeds `bound`, or `bound` is above `u32::MAX`.
    #[track_caller]
    pub fn new(bound: usize, chosen: usize) -> Self {
        assert!(chosen <= bound, "{chosen} of {bound} indices cannot be chosen");
        let (bound, chosen) = (count(bound), chosen as u32);
        let others = chosen > bound / 2;
        let coded = if others { bound - chosen } else { chosen };
        let mut low = 0;
        if coded > 0 {
            // The probability that a gap goes on: one more low bit pays as long as 2^low steps are more likely than not
            // to be exceeded, or, to the point, with a probability above 1/φ (Kiely 2004).
            let mut onwards = f64::from(bound - coded) / f64::from(bound);
            while onwards > 0.618_033_988_749_894_9 {
                onwards *= onwards;
                low += 1;
            }
        }
        Self { bound, chosen, others, low }
    }

    fn coded(&self) -> u32 {
        if self.others { self.bound - self.chosen } else { self.chosen }
    }

    /// How many bytes the indices take, at least and at most.
    pub fn sizes(&self) -> RangeInclusive<usize> {
        let coded = u64::from(self.coded());
        let least = coded * u64::from(self.low + 1);
        // All gaps together are at most what is left of the indices.
        let most = if coded == 0 { 0 } else { least + (u64::from(self.bound - self.coded()) >> self.low) };
        least.div_ceil(8) as usize..=most.div_ceil(8) as usize
    }

    /// Appends the code of `indices`.
    ///
    /// # Panics
    /// If they are not ascending, not below the bound or not as many as the code is for.
    #[track_caller]
    pub fn encode(&self, indices: &[u32], target: &mut Vec<u8>) {
        assert_eq!(indices.len(), self.chosen as usize, "indices that this code is for");
        assert!(indices.is_sorted_by(|a, b| a < b), "indices ascend");
        assert!(indices.last().is_none_or(|&last| last < self.bound), "indices below {}", self.bound);
        let mut writer = BitWriter::new(target);
        let mask = (1_u32 << self.low) - 1;
        let mut next = 0;
        let mut put = |index: u32| {
            let gap = index - next;
            writer.push_unary(gap >> self.low);
            writer.push(gap & mask, self.low);
            next = index + 1;
        };
        if self.others {
            let mut from = 0;
            for &index in indices {
                (from..index).for_each(&mut put);
                from = index + 1;
            }
            (from..self.bound).for_each(&mut put);
        } else {
            indices.iter().copied().for_each(&mut put);
        }
        writer.end();
    }

    /// Overwrites `indices` with those that `bytes` say, ascending.
    ///
    /// # Errors
    /// If `bytes` are not the code of so many indices below the bound.
    pub fn decode(&self, bytes: &[u8], indices: &mut Vec<u32>) -> Result<(), IndexError> {
        indices.clear();
        let sizes = self.sizes();
        super::check_size(bytes, sizes)?;
        indices.reserve(self.chosen as usize);
        let mut reader = BitReader::new(bytes);
        let mut next = 0;
        for _ in 0..self.coded() {
            let high = u64::from(reader.take_unary()?) << self.low;
            let index = u64::from(next) + (high | u64::from(reader.take(self.low)?));
            if index >= u64::from(self.bound) {
                return Err(CompressError::Field("index"));
            }
            let index = index as u32;
            if self.others {
                indices.extend(next..index);
            } else {
                indices.push(index);
            }
            next = index + 1;
        }
        if self.others {
            indices.extend(next..self.bound);
        }
        reader.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use alloc::vec;
    use proptest::prelude::*;

    fn choice() -> impl Strategy<Value = (usize, Vec<u32>)> {
        proptest::collection::vec(prop_oneof![3 => Just(false), 1 => Just(true), 1 => any::<bool>()], 0..200).prop_map(
            |chosen| {
                let indices = (0_u32..).zip(&chosen).filter(|(_, chosen)| **chosen).map(|(index, _)| index).collect();
                (chosen.len(), indices)
            },
        )
    }

    proptest! {
        #[test]
        fn indices_come_back((bound, indices) in choice()) {
            let code = GapCode::new(bound, indices.len());
            let mut bytes = vec![];
            code.encode(&indices, &mut bytes);
            prop_assert!(code.sizes().contains(&bytes.len()), "{} bytes, not {:?}", bytes.len(), code.sizes());
            let mut decoded = vec![7];
            prop_assert_eq!(code.decode(&bytes, &mut decoded), Ok(()));
            prop_assert_eq!(decoded, indices);
        }

        #[test]
        fn bytes_that_are_no_indices_are_errors((bound, indices) in choice(), extra in any::<u8>()) {
            let code = GapCode::new(bound, indices.len());
            let mut bytes = vec![];
            code.encode(&indices, &mut bytes);
            let mut decoded = vec![];
            for len in 0..bytes.len() {
                prop_assert!(code.decode(&bytes[..len], &mut decoded).is_err());
            }
            bytes.push(extra);
            prop_assert!(code.decode(&bytes, &mut decoded).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_ascending_indices_or_errors(
            bytes in proptest::collection::vec(any::<u8>(), 0..40), bound in 0_usize..300, part in 0.0..=1.0,
        ) {
            let chosen = (bound as f64 * part) as usize;
            let code = GapCode::new(bound, chosen);
            let mut decoded = vec![];
            if code.decode(&bytes, &mut decoded).is_ok() {
                prop_assert_eq!(decoded.len(), chosen);
                prop_assert!(decoded.is_sorted_by(|a, b| a < b));
                let mut again = vec![];
                code.encode(&decoded, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn sizes_are_within_five_percent_of_the_entropy() {
        let bound = 200_000;
        let mut random = Seed(3).random();
        for chosen in [200, 2_000, 5_000, 20_000, 30_000, 50_000, 76_000, 100_000, 140_000, 180_000, 198_000] {
            let mut left = chosen;
            let choose = |index: &u32| {
                let taken = random.below(u64::from(bound - index)) < u64::from(left);
                left -= u32::from(taken);
                taken
            };
            let indices: Vec<u32> = (0..bound).filter(choose).collect();
            let mut bytes = vec![];
            GapCode::new(bound as usize, chosen as usize).encode(&indices, &mut bytes);
            let part = f64::from(chosen) / f64::from(bound);
            let entropy = -part * libm::log2(part) - (1.0 - part) * libm::log2(1.0 - part);
            let ratio = 8.0 * bytes.len() as f64 / (f64::from(bound) * entropy);
            assert!((0.98..1.05).contains(&ratio), "{chosen} of {bound}: {ratio} of the entropy");
        }
    }
}
