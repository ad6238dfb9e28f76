//! Weights times patches.

use super::padded;
use crate::scalar::Real;
use core::ops::Range;
use pulp::{NullaryFnOnce, Simd, WithSimd};

/// Most rows of one block of weights.
const BLOCK: usize = 64;
/// Bytes of weights used at a time: they stay in the first-level cache beside the pixels.
const WEIGHTS: usize = 24 << 10;

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
    /// How far each element of a patch lies from its start.
    pub(crate) taps: &'a [usize],
    /// The planes: patches of neighbouring positions in a line start `step` apart.
    pub(crate) x: &'a [S],
    /// One, or two where all rows fit one vector.
    pub(crate) step: usize,
    /// Where the first patch of each line of positions starts.
    pub(crate) starts: &'a [usize],
    /// Positions in a line.
    pub(crate) width: usize,
    pub(crate) rows: usize,
    /// `rows × positions`.
    pub(crate) y: &'a mut [S],
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

/// Positions handled together: as few blocks as `most` allows, of equal size, since the last may overlap the one
/// before.
fn together(width: usize, sizes: &[usize]) -> usize {
    let need = width.div_ceil(width.div_ceil(sizes[0]).max(1));
    let fits = sizes.iter().copied().filter(|&size| size <= width);
    fits.clone().rfind(|&size| size >= need).or(fits.max()).unwrap_or(1)
}

impl<S: Real> WithSimd for Gather<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(mut self, simd: A) {
        if self.width == 0 {
            return;
        }
        let (mut weights, lanes) = (self.weights, S::lanes::<A>());
        for top in (0..self.rows).step_by(BLOCK) {
            let rows = (self.rows - top).min(BLOCK);
            let width = padded(rows);
            let (block, rest) = weights.split_at(width * (self.taps.len() + 1));
            weights = rest;
            let mut done = 0;
            // Registers for at most four vectors of rows at a time; more run as several passes over a block.
            while done < rows {
                let vectors = (rows - done).div_ceil(lanes).min(4);
                let strip = Strip { block, width, skip: done / lanes, top: top + done, rows: rows - done };
                self.strip(simd, vectors, strip);
                done += vectors * lanes;
            }
        }
    }
}

impl<S: Real> Gather<'_, S> {
    #[inline(always)]
    fn strip<A: Simd>(&mut self, simd: A, vectors: usize, strip: Strip<'_, S>) {
        let many = A::REGISTER_COUNT >= 32;
        let sizes: &[usize] = match (vectors, many) {
            (1, true) => &[16, 14, 12, 10, 8, 4, 1],
            (2, true) => &[12, 10, 8, 4, 1],
            (3, true) => &[8, 4, 1],
            (_, true) => &[6, 4, 1],
            (1, false) => &[8, 4, 1],
            (2, false) => &[6, 4, 1],
            (3, false) => &[4, 1],
            (_, false) => &[2, 1],
        };
        let size = together(self.width, sizes);
        if self.step == 2 {
            assert_eq!(vectors, 1, "patches two apart are for a single vector of rows");
            return match (size, many) {
                (16, true) => self.sweep::<A, 1, 16, 2>(simd, strip),
                (14, true) => self.sweep::<A, 1, 14, 2>(simd, strip),
                (12, true) => self.sweep::<A, 1, 12, 2>(simd, strip),
                (10, true) => self.sweep::<A, 1, 10, 2>(simd, strip),
                (8, _) => self.sweep::<A, 1, 8, 2>(simd, strip),
                (4, _) => self.sweep::<A, 1, 4, 2>(simd, strip),
                _ => self.sweep::<A, 1, 1, 2>(simd, strip),
            };
        }
        match (vectors, size, many) {
            (1, 16, true) => self.sweep::<A, 1, 16, 1>(simd, strip),
            (1, 14, true) => self.sweep::<A, 1, 14, 1>(simd, strip),
            (1, 12, true) => self.sweep::<A, 1, 12, 1>(simd, strip),
            (1, 10, true) => self.sweep::<A, 1, 10, 1>(simd, strip),
            (1, 8, _) => self.sweep::<A, 1, 8, 1>(simd, strip),
            (1, 4, _) => self.sweep::<A, 1, 4, 1>(simd, strip),
            (1, ..) => self.sweep::<A, 1, 1, 1>(simd, strip),
            (2, 12, true) => self.sweep::<A, 2, 12, 1>(simd, strip),
            (2, 10, true) => self.sweep::<A, 2, 10, 1>(simd, strip),
            (2, 8, true) => self.sweep::<A, 2, 8, 1>(simd, strip),
            (2, 6, false) => self.sweep::<A, 2, 6, 1>(simd, strip),
            (2, 4, _) => self.sweep::<A, 2, 4, 1>(simd, strip),
            (2, ..) => self.sweep::<A, 2, 1, 1>(simd, strip),
            (3, 8, true) => self.sweep::<A, 3, 8, 1>(simd, strip),
            (3, 4, _) => self.sweep::<A, 3, 4, 1>(simd, strip),
            (3, ..) => self.sweep::<A, 3, 1, 1>(simd, strip),
            (_, 6, true) => self.sweep::<A, 4, 6, 1>(simd, strip),
            (_, 4, true) => self.sweep::<A, 4, 4, 1>(simd, strip),
            (_, 2, false) => self.sweep::<A, 4, 2, 1>(simd, strip),
            _ => self.sweep::<A, 4, 1, 1>(simd, strip),
        }
    }

    /// All positions, a block of elements at a time.
    #[inline(always)]
    fn sweep<A: Simd, const V: usize, const N: usize, const K: usize>(&mut self, simd: A, strip: Strip<'_, S>) {
        let Gather { taps, x, starts, width, rows, .. } = *self;
        simd.vectorize(Sweep::<A, S, V, N, K> { simd, strip, taps, x, starts, width, rows, y: self.y });
    }
}

/// All positions for one strip, `V` vectors times `N` positions at a time, whose patches start `K` apart: a function of
/// its own, so that nothing else competes for registers.
struct Sweep<'a, A, S, const V: usize, const N: usize, const K: usize> {
    simd: A,
    strip: Strip<'a, S>,
    taps: &'a [usize],
    x: &'a [S],
    starts: &'a [usize],
    width: usize,
    rows: usize,
    y: &'a mut [S],
}

impl<A: Simd, S: Real, const V: usize, const N: usize, const K: usize> NullaryFnOnce for Sweep<'_, A, S, V, N, K> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let (elements, step) = (self.taps.len(), (WEIGHTS / S::BYTES / self.strip.width).max(1));
        let mut first = 0;
        loop {
            let last = (first + step).min(elements);
            for (line, &start) in self.starts.iter().enumerate() {
                let mut position = 0;
                while position < self.width {
                    let at = position.min(self.width - N);
                    self.tile(line * self.width + at, start + K * at, position - at, first..last);
                    position += N;
                }
            }
            first = last;
            if first >= elements {
                return;
            }
        }
    }
}

impl<A: Simd, S: Real, const V: usize, const N: usize, const K: usize> Sweep<'_, A, S, V, N, K> {
    /// Some elements of the patches of `N` neighbouring positions, the first of which starts at `start`; the first
    /// `known` of them are left as they are.
    #[inline(always)]
    fn tile(&mut self, position: usize, start: usize, known: usize, elements: Range<usize>) {
        let Self { simd, strip, rows, .. } = *self;
        let lanes = S::lanes::<A>();
        let per_element = strip.width / lanes;
        let (bias, weights) = S::vectors::<A>(strip.block).split_at(per_element);
        let bias: [S::Vector<A>; V] = *bias[strip.skip..].first_chunk().expect("a bias for every row");
        let mut sums = [bias; N];
        // All rows at once and for the last time: what whole vectors leave past a column, the next column overwrites.
        let spill = rows <= V * lanes && elements.end == self.taps.len() && elements.start == 0;
        let columns = &mut self.y[position * rows..];
        let used = strip.rows.min(V * lanes);
        if elements.start > 0 {
            for (sums, column) in sums.iter_mut().zip(columns.chunks_exact(rows).take(N)) {
                let column = &column[strip.top..][..used];
                for (sum, source) in sums.iter_mut().zip(column.chunks(lanes)) {
                    *sum = S::partial(simd, source);
                }
            }
        }
        let x = &self.x[start..];
        let weights = &weights[elements.start * per_element..elements.end * per_element];
        for (&tap, weights) in self.taps[elements].iter().zip(weights.chunks_exact(per_element)) {
            let values = &x[tap..][..K * (N - 1) + 1];
            let weights: &[S::Vector<A>; V] = weights[strip.skip..].first_chunk().expect("weights for every row");
            for c in 0..N {
                let value = S::splat(simd, values[K * c]);
                for i in 0..V {
                    sums[c][i] = S::fused(simd, weights[i], value, sums[c][i]);
                }
            }
        }
        for (c, sums) in sums.iter().enumerate().skip(known) {
            let column = &mut columns[c * rows + strip.top..];
            match column.get_mut(..V * lanes) {
                // Whole vectors need no masks.
                Some(column) if spill || used == V * lanes => {
                    for (target, &sum) in S::vectors_mut::<A>(column).iter_mut().zip(sums) {
                        *target = sum;
                    }
                }
                _ => {
                    for (target, &sum) in column[..used].chunks_mut(lanes).zip(sums) {
                        S::store(simd, target, sum);
                    }
                }
            }
        }
    }
}
