//! Two register-blocked kernels that read patches where they lie.
//!
//! In a padded image with channels fastest, a patch is a few contiguous runs (one per kernel row), at the same
//! distances from its start wherever it starts. So a convolution needs no copy of its patches: [`Gather`] multiplies
//! weights with patches, [`Correlate`] sums products of vectors with patches over positions. Thin matrices, which
//! libraries handle at half speed, run near the peak: all accumulators of a block stay in registers, and each step
//! is one vector load and one broadcast per fused multiply-add.

use crate::scalar::Real;
use pulp::{Simd, WithSimd};

/// Where the elements of a patch lie: runs of `len` elements at these distances from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs<'a> {
    pub(crate) offsets: &'a [usize],
    pub(crate) len: usize,
}

impl Runs<'_> {
    /// Elements of a patch.
    pub(crate) fn elements(&self) -> usize {
        self.offsets.len() * self.len
    }
}

/// Rows rounded up to whole vectors of any instruction set.
pub(crate) const fn padded(rows: usize) -> usize {
    rows.next_multiple_of(16)
}

/// Most rows of one block of weights.
const BLOCK: usize = 64;

/// Packs `weights(row, element)` for [`Gather`]: blocks of at most [`BLOCK`] rows; in a block the bias (or zeros), then
/// element by element, rows fastest and padded with zeros.
pub(crate) fn pack<S: Real>(
    rows: usize,
    elements: usize,
    weights: impl Fn(usize, usize) -> S,
    bias: impl Fn(usize) -> S,
    packed: &mut [S],
) {
    let mut rest = packed;
    for top in (0..rows).step_by(BLOCK) {
        let width = padded((rows - top).min(BLOCK));
        let (block, after) = rest.split_at_mut(width * (elements + 1));
        rest = after;
        for (column, target) in block.chunks_exact_mut(width).enumerate() {
            for (row, target) in target.iter_mut().enumerate() {
                *target = match column {
                    _ if top + row >= rows => S::of(0.0),
                    0 => bias(top + row),
                    _ => weights(top + row, column - 1),
                };
            }
        }
    }
}

/// Scalars [`pack`] writes.
pub(crate) const fn packed_len(rows: usize, elements: usize) -> usize {
    padded(rows) * (elements + 1)
}

/// `y[·, p] ← W · patch(p) + bias` for every position `p`.
pub(crate) struct Gather<'a, S> {
    /// As [`pack`] leaves them.
    pub(crate) weights: &'a [S],
    pub(crate) runs: Runs<'a>,
    /// The padded images.
    pub(crate) x: &'a [S],
    /// Where each patch starts.
    pub(crate) starts: &'a [usize],
    pub(crate) rows: usize,
    /// `rows × positions`.
    pub(crate) y: &'a mut [S],
}

impl<S: Real> WithSimd for Gather<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(mut self, simd: A) {
        let mut weights = self.weights;
        for top in (0..self.rows).step_by(BLOCK) {
            let rows = (self.rows - top).min(BLOCK);
            let width = padded(rows);
            let (block, rest) = weights.split_at(width * (self.runs.elements() + 1));
            weights = rest;
            let lanes = S::lanes::<A>();
            let mut done = 0;
            // Registers for at most four vectors of rows at a time; more run as several passes over a block.
            while done < rows {
                let vectors = (rows - done).div_ceil(lanes).min(4);
                let strip = Strip { block, width, skip: done / lanes, top: top + done, rows: rows - done };
                match (vectors, A::REGISTER_COUNT >= 32) {
                    (1, true) => self.strip::<A, 1, 16>(simd, strip),
                    (2, true) => self.strip::<A, 2, 12>(simd, strip),
                    (3, true) => self.strip::<A, 3, 8>(simd, strip),
                    (_, true) => self.strip::<A, 4, 6>(simd, strip),
                    (1, false) => self.strip::<A, 1, 8>(simd, strip),
                    (2, false) => self.strip::<A, 2, 6>(simd, strip),
                    (3, false) => self.strip::<A, 3, 4>(simd, strip),
                    (_, false) => self.strip::<A, 4, 2>(simd, strip),
                }
                done += vectors * lanes;
            }
        }
    }
}

/// Some vectors of rows of a block of packed weights.
#[derive(Clone, Copy)]
struct Strip<'a, S> {
    block: &'a [S],
    width: usize,
    skip: usize,
    top: usize,
    rows: usize,
}

impl<S: Real> Gather<'_, S> {
    #[inline(always)]
    fn strip<A: Simd, const V: usize, const N: usize>(&mut self, simd: A, strip: Strip<'_, S>) {
        let mut position = 0;
        let positions = self.starts.len();
        while position + N <= positions {
            self.tile::<A, V, N>(simd, strip, position);
            position += N;
        }
        while position + 4 <= positions {
            self.tile::<A, V, 4>(simd, strip, position);
            position += 4;
        }
        while position < positions {
            self.tile::<A, V, 1>(simd, strip, position);
            position += 1;
        }
    }

    #[inline(always)]
    fn tile<A: Simd, const V: usize, const N: usize>(&mut self, simd: A, strip: Strip<'_, S>, position: usize) {
        let per_element = strip.width / S::lanes::<A>();
        let weights = S::vectors::<A>(strip.block);
        let (bias, weights) = weights.split_at(per_element);
        let bias: [S::Vector<A>; V] = core::array::from_fn(|i| bias[strip.skip + i]);
        let starts: [usize; N] = core::array::from_fn(|c| self.starts[position + c]);
        let mut sums = [bias; N];
        let len = self.runs.len;
        for (&offset, weights) in self.runs.offsets.iter().zip(weights.chunks_exact((len * per_element).max(1))) {
            let runs: [&[S]; N] = core::array::from_fn(|c| &self.x[starts[c] + offset..][..len]);
            // In this order the compiler sees that no element lies past its run.
            for (element, weights) in (0..len).zip(weights.chunks_exact(per_element)) {
                let weights = &weights[strip.skip..][..V];
                let weights: [S::Vector<A>; V] = core::array::from_fn(|i| weights[i]);
                for c in 0..N {
                    let value = S::splat(simd, runs[c][element]);
                    for i in 0..V {
                        sums[c][i] = S::fused(simd, weights[i], value, sums[c][i]);
                    }
                }
            }
        }
        let lanes = S::lanes::<A>();
        for (c, sums) in sums.iter().enumerate() {
            let column = &mut self.y[(position + c) * self.rows + strip.top..];
            let column = &mut column[..strip.rows.min(V * lanes)];
            if column.len() == V * lanes {
                // Whole vectors need no masks.
                for (target, &sum) in S::vectors_mut::<A>(column).iter_mut().zip(sums) {
                    *target = sum;
                }
            } else {
                for (target, &sum) in column.chunks_mut(lanes).zip(sums) {
                    S::store(simd, target, sum);
                }
            }
        }
    }
}

/// `target[·, e] += scale · Σ_p vector(p) · patch(p)[e]` for every element `e`.
pub(crate) struct Correlate<'a, S> {
    /// Each a whole number of registers long; what is past `rows` is not used.
    pub(crate) vectors: &'a [S],
    pub(crate) rows: usize,
    /// Where each vector and each patch starts: as many of one as of the other.
    pub(crate) vector_starts: &'a [usize],
    pub(crate) x: &'a [S],
    pub(crate) starts: &'a [usize],
    pub(crate) runs: Runs<'a>,
    pub(crate) scale: S,
    /// `rows × elements`.
    pub(crate) target: &'a mut [S],
}

impl<S: Real> WithSimd for Correlate<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(mut self, simd: A) {
        let lanes = S::lanes::<A>();
        let mut top = 0;
        while top < self.rows {
            let vectors = (self.rows - top).div_ceil(lanes).min(4);
            for run in 0..self.runs.offsets.len() {
                match (vectors, A::REGISTER_COUNT >= 32) {
                    (1, true) => self.run::<A, 1, 16>(simd, top, run),
                    (2, true) => self.run::<A, 2, 8>(simd, top, run),
                    (3, true) => self.run::<A, 3, 8>(simd, top, run),
                    (_, true) => self.run::<A, 4, 4>(simd, top, run),
                    (1, false) => self.run::<A, 1, 8>(simd, top, run),
                    (2, false) => self.run::<A, 2, 4>(simd, top, run),
                    (3, false) => self.run::<A, 3, 4>(simd, top, run),
                    (_, false) => self.run::<A, 4, 2>(simd, top, run),
                }
            }
            top += vectors * lanes;
        }
    }
}

impl<S: Real> Correlate<'_, S> {
    #[inline(always)]
    fn run<A: Simd, const V: usize, const N: usize>(&mut self, simd: A, top: usize, run: usize) {
        let mut element = 0;
        while element + N <= self.runs.len {
            self.block::<A, V, N>(simd, top, run, element);
            element += N;
        }
        while element + 4 <= self.runs.len {
            self.block::<A, V, 4>(simd, top, run, element);
            element += 4;
        }
        while element < self.runs.len {
            self.block::<A, V, 1>(simd, top, run, element);
            element += 1;
        }
    }

    #[inline(always)]
    fn block<A: Simd, const V: usize, const N: usize>(&mut self, simd: A, top: usize, run: usize, element: usize) {
        let lanes = S::lanes::<A>();
        let offset = self.runs.offsets[run] + element;
        let zero = S::splat(simd, S::of(0.0));
        let mut sums = [[zero; V]; N];
        for (&vector, &start) in self.vector_starts.iter().zip(self.starts) {
            let vector = S::vectors::<A>(&self.vectors[vector + top..][..V * lanes]);
            let vector: [S::Vector<A>; V] = core::array::from_fn(|i| vector[i]);
            let patch: &[S; N] = self.x[start + offset..].first_chunk().expect("a whole patch");
            for c in 0..N {
                let value = S::splat(simd, patch[c]);
                for i in 0..V {
                    sums[c][i] = S::fused(simd, vector[i], value, sums[c][i]);
                }
            }
        }
        let scale = S::splat(simd, self.scale);
        let rows = (self.rows - top).min(V * lanes);
        for (c, sums) in sums.iter().enumerate() {
            let column = run * self.runs.len + element + c;
            let column = &mut self.target[column * self.rows + top..][..rows];
            if column.len() == V * lanes {
                for (target, &sum) in S::vectors_mut::<A>(column).iter_mut().zip(sums) {
                    *target = S::fused(simd, sum, scale, *target);
                }
            } else {
                for (target, &sum) in column.chunks_mut(lanes).zip(sums) {
                    let old = S::partial(simd, target);
                    S::store(simd, target, S::fused(simd, sum, scale, old));
                }
            }
        }
    }
}
