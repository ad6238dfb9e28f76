//! Products of vectors with patches, summed over positions: vectors fill the registers, elements are broadcast.

use crate::scalar::Real;
use pulp::{NullaryFnOnce, Simd, WithSimd};

/// Where the elements of a patch lie: runs of `len` elements at these distances from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs<'a> {
    pub(crate) offsets: &'a [usize],
    pub(crate) len: usize,
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
            let mut run = 0;
            // Short runs fill the registers together.
            if vectors == 1 && A::REGISTER_COUNT >= 32 && !self.runs.len.is_multiple_of(16) {
                let runs = self.runs.offsets.len();
                while run + 5 <= runs {
                    self.five(simd, top, run);
                    run += 5;
                }
                while run + 3 <= runs {
                    self.three(simd, top, run);
                    run += 3;
                }
            }
            for run in run..self.runs.offsets.len() {
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
            element += self.block::<A, V, N, 1>(simd, top, run, element);
        }
        while element + 4 <= self.runs.len {
            element += self.block::<A, V, 4, 1>(simd, top, run, element);
        }
        while element < self.runs.len {
            element += self.block::<A, V, 1, 1>(simd, top, run, element);
        }
    }

    /// Five runs, one vector.
    #[inline(always)]
    fn five<A: Simd>(&mut self, simd: A, top: usize, run: usize) {
        let mut element = 0;
        while element < self.runs.len {
            element += match self.runs.len - element {
                3.. => self.block::<A, 1, 3, 5>(simd, top, run, element),
                2 => self.block::<A, 1, 2, 5>(simd, top, run, element),
                _ => self.block::<A, 1, 1, 5>(simd, top, run, element),
            };
        }
    }

    /// Three runs, one vector.
    #[inline(always)]
    fn three<A: Simd>(&mut self, simd: A, top: usize, run: usize) {
        let mut element = 0;
        while element < self.runs.len {
            element += match self.runs.len - element {
                8.. => self.block::<A, 1, 8, 3>(simd, top, run, element),
                4.. => self.block::<A, 1, 4, 3>(simd, top, run, element),
                _ => self.block::<A, 1, 1, 3>(simd, top, run, element),
            };
        }
    }

    /// `V` vectors of rows times `N` elements of `R` runs. Returns `N`.
    #[inline(always)]
    fn block<A: Simd, const V: usize, const N: usize, const R: usize>(
        &mut self,
        simd: A,
        top: usize,
        run: usize,
        element: usize,
    ) -> usize {
        simd.vectorize(Block::<A, S, V, N, R> {
            simd,
            vectors: &self.vectors[top..],
            vector_starts: self.vector_starts,
            x: &self.x[element..],
            offsets: *self.runs.offsets[run..].first_chunk().expect("as many as asked for"),
            starts: self.starts,
            scale: self.scale,
            rows: self.rows,
            used: (self.rows - top).min(V * S::lanes::<A>()),
            len: self.runs.len,
            target: &mut self.target[(run * self.runs.len + element) * self.rows + top..],
        });
        N
    }
}

/// One block of sums: a function of its own, so that nothing else competes for registers.
struct Block<'a, A, S, const V: usize, const N: usize, const R: usize> {
    simd: A,
    vectors: &'a [S],
    vector_starts: &'a [usize],
    x: &'a [S],
    offsets: [usize; R],
    starts: &'a [usize],
    scale: S,
    rows: usize,
    used: usize,
    len: usize,
    target: &'a mut [S],
}

impl<A: Simd, S: Real, const V: usize, const N: usize, const R: usize> NullaryFnOnce for Block<'_, A, S, V, N, R> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, vectors, vector_starts, x, offsets, starts, scale, rows, used, len, target } = self;
        let lanes = S::lanes::<A>();
        let zero = S::splat(simd, S::of(0.0));
        let mut sums = [[[zero; V]; N]; R];
        for (&vector, &start) in vector_starts.iter().zip(starts) {
            let vector = S::vectors::<A>(&vectors[vector..][..V * lanes]);
            let vector: &[S::Vector<A>; V] = vector.first_chunk().expect("as many as asked for");
            let patch = &x[start..];
            for r in 0..R {
                let run: &[S; N] = patch[offsets[r]..].first_chunk().expect("a whole patch");
                for c in 0..N {
                    let value = S::splat(simd, run[c]);
                    for i in 0..V {
                        sums[r][c][i] = S::fused(simd, vector[i], value, sums[r][c][i]);
                    }
                }
            }
        }
        let scale = S::splat(simd, scale);
        for (sums, columns) in sums.iter().zip(target.chunks_mut(len * rows)) {
            for (sums, column) in sums.iter().zip(columns.chunks_mut(rows)) {
                for (target, &sum) in column[..used].chunks_mut(lanes).zip(sums) {
                    let old = S::partial(simd, target);
                    S::store(simd, target, S::fused(simd, sum, scale, old));
                }
            }
        }
    }
}
