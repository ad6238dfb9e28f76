//! The largest values.

use super::{CompressError, Compressor, GapCode, Kept, Selection, check_finite, check_size};
use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// The `k` values of the largest magnitudes, of equal ones those with the lowest index; the others are 0.
///
/// Values stand first, then their indices as [`GapCode`] writes them.
#[derive(Clone, Debug)]
pub struct TopK {
    kept: Kept,
    selection: Selection,
    indices: Vec<u32>,
}

impl TopK {
    /// Keeps this fraction.
    pub fn new(kept: Kept) -> Self {
        Self { kept, selection: Selection::default(), indices: Vec::new() }
    }
}

impl<S: Scalar> Compressor<S> for TopK {
    fn name(&self) -> &'static str {
        "top-k"
    }

    fn sizes(&self, len: usize) -> RangeInclusive<usize> {
        let kept = self.kept.of(len);
        let indices = GapCode::new(len, kept).sizes();
        kept * S::BYTES + indices.start()..=kept * S::BYTES + indices.end()
    }

    fn encode(&mut self, values: &[S], _: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError> {
        let kept = self.kept.of(values.len());
        let chosen = self.selection.largest(values, kept)?;
        let start = target.len();
        target.resize(start + kept * S::BYTES, 0);
        for (slot, &index) in target[start..].chunks_exact_mut(S::BYTES).zip(chosen) {
            values[index as usize].write_le(slot);
        }
        GapCode::new(values.len(), kept).encode(chosen, target);
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], values: &mut [S]) -> Result<(), CompressError> {
        check_size(bytes, Compressor::<S>::sizes(self, values.len()))?;
        let kept = self.kept.of(values.len());
        let (coded, gaps) = bytes.split_at(kept * S::BYTES);
        GapCode::new(values.len(), kept).decode(gaps, &mut self.indices)?;
        values.fill(S::zero());
        for (slot, &index) in coded.chunks_exact(S::BYTES).zip(&self.indices) {
            values[index as usize] = S::read_le(slot);
        }
        check_finite(values)
    }

    fn contraction(&self, len: usize) -> f64 {
        self.kept.of(len) as f64 / len.max(1) as f64
    }
}
