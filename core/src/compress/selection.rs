//! The largest magnitudes of a vector, in linear time.

use super::{CompressError, check_finite, count};
use crate::scalar::Scalar;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Finds the largest magnitudes; keeps its memory for the next time.
///
/// Positive numbers are ordered like their bits. Magnitudes are counted by their highest bits, which tells the bucket
/// that the smallest chosen one is in; what is above is chosen, what is in it is looked at closely.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    buckets: Vec<u32>,
    above: Vec<u32>,
    within: Vec<u32>,
    ranked: Vec<(u64, Reverse<u32>)>,
    chosen: Vec<u32>,
}

/// Below this, every value is looked at closely: the buckets would take longer.
const FEW: usize = 4096;
/// The exponent and the three highest bits of the significand, in double precision.
const BUCKET: u32 = 49;
const BUCKETS: usize = 1 << (63 - BUCKET);

/// The bits of a magnitude.
fn key<S: Scalar>(value: S) -> u64 {
    value.wide().to_bits() & (u64::MAX >> 1)
}

fn bucket<S: Scalar>(value: S) -> usize {
    (key(value) >> BUCKET) as usize
}

impl Selection {
    /// The indices of the `kept` largest magnitudes, ascending; of equal ones, those with the lowest index.
    ///
    /// # Errors
    /// If a value is not finite.
    ///
    /// # Panics
    /// If there are fewer than `kept` values or more than `u32::MAX`.
    #[track_caller]
    pub fn largest<S: Scalar>(&mut self, values: &[S], kept: usize) -> Result<&[u32], CompressError> {
        assert!(kept <= values.len(), "{kept} of {} values cannot be kept", values.len());
        let len = count(values.len());
        let Self { buckets, above, within, ranked, chosen } = self;
        chosen.clear();
        if values.len() < FEW {
            check_finite(values)?;
            above.clear();
            within.clear();
            within.extend(0..len);
        } else {
            let limit = limiting_bucket(values, kept, buckets)?;
            let higher: u32 = buckets[limit + 1..].iter().sum();
            // One place more than is needed: every index is written down, and kept by moving on.
            above.resize(higher as usize + 1, 0);
            within.resize(buckets[limit] as usize + 1, 0);
            let (mut in_above, mut in_within) = (0, 0);
            for (index, &value) in (0..).zip(values) {
                let bucket = bucket(value);
                above[in_above] = index;
                in_above += usize::from(bucket > limit);
                within[in_within] = index;
                in_within += usize::from(bucket == limit);
            }
            above.truncate(in_above);
            within.truncate(in_within);
        }
        let missing = kept - above.len();
        if missing < within.len() {
            ranked.clear();
            ranked.extend(within.iter().map(|&index| (key(values[index as usize]), Reverse(index))));
            if missing == 0 {
                within.clear();
            } else {
                let (_, last, _) = ranked.select_nth_unstable_by(missing - 1, |a, b| b.cmp(a));
                let last = *last;
                within.retain(|&index| (key(values[index as usize]), Reverse(index)) >= last);
            }
        }
        merge(above, within, chosen);
        Ok(chosen)
    }
}

/// Counts magnitudes by bucket, and answers which bucket the `kept`-th largest is in.
fn limiting_bucket<S: Scalar>(values: &[S], kept: usize, buckets: &mut Vec<u32>) -> Result<usize, CompressError> {
    buckets.clear();
    // Two tables: equal buckets in a row need not wait for each other.
    buckets.resize(2 * BUCKETS, 0);
    let (even, odd) = buckets.split_at_mut(BUCKETS);
    let pairs = values.chunks_exact(2);
    for &value in pairs.remainder() {
        even[bucket(value)] += 1;
    }
    for pair in pairs {
        even[bucket(pair[0])] += 1;
        odd[bucket(pair[1])] += 1;
    }
    for (even, odd) in even.iter_mut().zip(odd) {
        *even += *odd;
    }
    buckets.truncate(BUCKETS);
    if buckets[(f64::INFINITY.to_bits() >> BUCKET) as usize..].iter().any(|&count| count > 0) {
        check_finite(values)?;
    }
    let mut left = kept;
    let reached = buckets.iter().rposition(|&count| {
        let here = left <= count as usize;
        left = left.saturating_sub(count as usize);
        here
    });
    Ok(reached.unwrap_or(0))
}

/// Two ascending lists as one.
fn merge(a: &[u32], b: &[u32], merged: &mut Vec<u32>) {
    merged.reserve(a.len() + b.len());
    let mut rest = a;
    for &index in b {
        let before = rest.iter().take_while(|&&other| other < index).count();
        merged.extend_from_slice(&rest[..before]);
        merged.push(index);
        rest = &rest[before..];
    }
    merged.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    /// The definition: sort by magnitude, then by index.
    fn sorted<S: Scalar>(values: &[S], kept: usize) -> Vec<u32> {
        let mut indices: Vec<u32> = (0..values.len() as u32).collect();
        indices.sort_by_key(|&index| (Reverse(key(values[index as usize])), index));
        indices.truncate(kept);
        indices.sort_unstable();
        indices
    }

    /// Lists around the size from which buckets are used, with many equal magnitudes.
    fn values() -> impl Strategy<Value = Vec<f32>> {
        let value = prop_oneof![
            (-8_i32..=8).prop_map(|value| value as f32),
            -1e-3_f32..1e-3,
            any::<f32>().prop_filter("finite", |value| value.is_finite()),
        ];
        let some = proptest::collection::vec(value, 0..60);
        (some, prop_oneof![Just(1_usize), Just(150), Just(400)]).prop_map(|(some, times)| vec![some; times].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_largest_are_chosen(values in values(), part in 0.0..=1.0, wide in any::<bool>()) {
            let kept = (values.len() as f64 * part) as usize;
            let mut selection = Selection::default();
            for kept in [kept, kept / 10] {
                let chosen = if wide {
                    let values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
                    selection.largest(&values, kept).map(<[u32]>::to_vec)
                } else {
                    selection.largest(&values, kept).map(<[u32]>::to_vec)
                };
                prop_assert_eq!(chosen, Ok(sorted(&values, kept)));
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_named() {
        for len in [1, FEW - 1, FEW, FEW + 1] {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = vec![1.0; len];
                values[len / 2] = value;
                let refused = Selection::default().largest(&values, 1).map(<[u32]>::to_vec);
                assert!(matches!(refused, Err(CompressError::NotFinite { index, .. }) if index == len / 2));
            }
        }
    }
}
