//! Eight bits per value, relative to the largest of its block.

use super::{CompressError, Compressor, check_size};
use crate::scalar::Scalar;
use crate::seed::Random;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// A magnitude of 4096 values each, and a byte per value (Dettmers et al. 2022).
///
/// A byte's highest bit is the sign, the others name a level of a dynamic map: 0, 1, and `2ⁱ` levels evenly spread over
/// each decade from `10^(i−6)` up, for `i` of 1 to 6 from the lowest (they begin at 10⁻⁶). Values go to the nearest level.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blockwise;

/// Values of a block.
const BLOCK: usize = 4096;
/// Bytes of a block's scale.
const SCALE: usize = 4;
const LEVELS: usize = 128;

/// The levels, ascending.
static LEVEL: [f32; LEVELS] = levels();
/// A magnitude's highest bits tell its cell, and that all but whether it is above the one threshold that is within it: the
/// bits of this threshold, and the level below it. Bits of positive numbers compare like the numbers; as signed ones, for
/// which every processor has vectors.
static CELL: [(i32, u32); CELLS] = cells();
/// Values whose cells are found at once, before their levels are looked up one by one.
const ROW: usize = 64;

/// The bits of a single-precision number below which cells do not look.
const WITHIN: u32 = 17;
/// The cell that begins at 2⁻²⁰: what is below is below every threshold.
const FIRST: u32 = (127 - 20) << (23 - WITHIN);
const CELLS: usize = (20 << (23 - WITHIN)) + 1;

const fn levels() -> [f32; LEVELS] {
    let mut level = [0.0; LEVELS];
    let (mut next, mut decade, mut unit) = (1, 1, 1e-5_f64);
    while decade <= 6 {
        let count = 1 << decade;
        let mut place = 0;
        while place < count {
            // The middles of equal parts of [0.1, 1].
            let middle = 0.1 + 0.9 * (place as f64 + 0.5) / count as f64;
            level[next] = (unit * middle) as f32;
            next += 1;
            place += 1;
        }
        decade += 1;
        unit *= 10.0;
    }
    level[next] = 1.0;
    level
}

/// The least magnitude that goes to the level of the same index; the first goes to the next.
const fn thresholds() -> [f32; LEVELS + 1] {
    let level = levels();
    let mut threshold = [f32::INFINITY; LEVELS + 1];
    threshold[0] = 0.0;
    let mut index = 1;
    while index < LEVELS {
        threshold[index] = f32::midpoint(level[index - 1], level[index]);
        index += 1;
    }
    threshold
}

const fn cells() -> [(i32, u32); CELLS] {
    let threshold = thresholds();
    let mut cell = [(0, 0); CELLS];
    let (mut index, mut level) = (0, 0);
    while index < CELLS {
        let begin = f32::from_bits((FIRST + index as u32) << WITHIN);
        while threshold[level + 1] <= begin {
            level += 1;
        }
        cell[index] = (threshold[level + 1].to_bits() as i32, level as u32);
        index += 1;
    }
    cell
}

/// The bits of a number but its sign.
#[inline]
fn magnitude(bits: u32) -> i32 {
    (bits & 0x7fff_ffff) as i32
}

/// The bytes of some parts of a scale, of magnitudes of at most 1: each of the nearest level.
#[inline]
fn encode_row(parts: impl Iterator<Item = f32>, codes: &mut [u8]) {
    let (mut bits, mut cells) = ([0; ROW], [0; ROW]);
    for ((bits, cell), part) in bits.iter_mut().zip(&mut cells).zip(parts) {
        *bits = part.to_bits();
        *cell = ((magnitude(*bits) >> WITHIN) - FIRST as i32).max(0);
    }
    for ((code, &bits), &cell) in codes.iter_mut().zip(&bits).zip(&cells) {
        let (threshold, level) = CELL[(cell as usize).min(CELLS - 1)];
        let level = level + u32::from(magnitude(bits) >= threshold);
        // Nothing is less than nothing.
        let negative = bits >> 31 & u32::from(level > 0);
        *code = (level | negative << 7) as u8;
    }
}

impl<S: Scalar> Compressor<S> for Blockwise {
    fn name(&self) -> &'static str {
        "blockwise 8-bit"
    }

    fn sizes(&self, len: usize) -> RangeInclusive<usize> {
        let bytes = len + SCALE * len.div_ceil(BLOCK);
        bytes..=bytes
    }

    fn encode(&mut self, values: &[S], _: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError> {
        let start = target.len();
        target.reserve(*Compressor::<S>::sizes(self, values.len()).end());
        for (number, block) in values.chunks(BLOCK).enumerate() {
            let narrow = |value: &S| value.wide() as f32;
            // What is not finite comes last.
            let largest = block.iter().map(|value| magnitude(narrow(value).to_bits())).fold(0, i32::max);
            let scale = f32::from_bits(largest as u32);
            if !scale.is_finite() {
                let index = block.iter().position(|value| !narrow(value).is_finite()).unwrap_or(0);
                let (index, value) = (number * BLOCK + index, block[index].wide());
                target.truncate(start);
                return Err(match value.is_finite() {
                    true => CompressError::TooLarge { value },
                    false => CompressError::NotFinite { index, value },
                });
            }
            target.extend_from_slice(&scale.to_le_bytes());
            let codes = target.len();
            target.resize(codes + block.len(), 0);
            if scale == 0.0 {
                continue;
            }
            for (codes, row) in target[codes..].chunks_mut(ROW).zip(block.chunks(ROW)) {
                encode_row(row.iter().map(|value| narrow(value) / scale), codes);
            }
        }
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], values: &mut [S]) -> Result<(), CompressError> {
        check_size(bytes, Compressor::<S>::sizes(self, values.len()))?;
        for (block, part) in values.chunks_mut(BLOCK).zip(bytes.chunks(SCALE + BLOCK)) {
            let (head, codes) = part.split_at(SCALE);
            let scale = f32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            if !scale.is_finite() || scale.is_sign_negative() {
                return Err(CompressError::Field("scale"));
            }
            let mut nothing = false;
            for (value, code) in block.iter_mut().zip(codes) {
                let magnitude = LEVEL[usize::from(code & 0x7f)] * scale;
                nothing |= *code == 0x80;
                // Signs are as good as random: a branch would be taken wrongly every other time.
                *value = S::of(f64::from(f32::from_bits(magnitude.to_bits() | u32::from(code & 0x80) << 24)));
            }
            if nothing || (scale == 0.0 && codes.iter().any(|&code| code != 0)) {
                return Err(CompressError::Field("level"));
            }
        }
        Ok(())
    }

    fn contraction(&self, _: usize) -> f64 {
        // The most that 4095 values can lose beside one that is exact is 0.6 %, each being just above 0.01 of it.
        0.99
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_cell_has_more_than_one_threshold() {
        for cell in 0..CELLS as u32 - 1 {
            let [begin, end] = [0, 1].map(|next| f32::from_bits((FIRST + cell + next) << WITHIN));
            let within = thresholds().iter().filter(|&&threshold| begin < threshold && threshold < end).count();
            assert!(within <= 1, "{within} thresholds from {begin} to {end}");
        }
        assert!(LEVEL.is_sorted_by(|a, b| a < b) && LEVEL[LEVELS - 1] == 1.0);
        assert!(thresholds()[1] > f32::from_bits(FIRST << WITHIN));
    }

    proptest! {
        #[test]
        fn levels_are_nearest(magnitude in prop_oneof![0.0_f32..=1.0, 0.0_f32..1e-2, 0.0_f32..1e-5, Just(1.0)]) {
            let (mut code, mut negative) = ([0], [0]);
            encode_row([magnitude].into_iter(), &mut code);
            encode_row([-magnitude].into_iter(), &mut negative);
            let level = code[0];
            prop_assert_eq!(negative[0], if level == 0 { 0 } else { level | 0x80 });
            let found = LEVEL[usize::from(level)];
            let distance = |level: f32| (f64::from(level) - f64::from(magnitude)).abs();
            let least = LEVEL.iter().map(|&level| distance(level)).fold(f64::INFINITY, f64::min);
            // A threshold is rounded, once.
            prop_assert!(distance(found) <= least + f64::from(f32::EPSILON * magnitude));
        }
    }
}
