//! Products of vectors with patches, summed over positions: elements of a patch fill the registers, vectors are
//! broadcast.

use crate::scalar::Real;
use pulp::{NullaryFnOnce, Simd, WithSimd};

/// Lines of positions: at each line's start and from there on at equal steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines<'a> {
    /// Where each line starts.
    pub(crate) starts: &'a [usize],
    /// From one position to the next.
    pub(crate) step: usize,
}

/// `target[e, o] += Σ_p x(p)[e] · vector(p)[o]` for the elements `e` of a run and all `o`.
pub(crate) struct Runwise<'a, S> {
    /// Followed by [`MARGIN`](super::MARGIN) numbers, whatever they are: runs are read in whole vectors.
    pub(crate) x: &'a [S],
    /// The runs, one at each position.
    pub(crate) runs: Lines<'a>,
    /// Elements of a run.
    pub(crate) len: usize,
    pub(crate) vectors: &'a [S],
    /// One at each position: as many lines as `runs` has.
    pub(crate) others: Lines<'a>,
    /// Elements of a vector.
    pub(crate) rows: usize,
    /// Positions in a line.
    pub(crate) width: usize,
    /// `len × rows`, its columns `stride` apart.
    pub(crate) target: &'a mut [S],
    pub(crate) stride: usize,
}

impl<S: Real> WithSimd for Runwise<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(mut self, simd: A) {
        if self.width == 0 {
            return;
        }
        let lanes = S::lanes::<A>();
        let many = A::REGISTER_COUNT >= 32;
        let mut from = 0;
        while from < self.len {
            let vectors = match (self.len - from).div_ceil(lanes) {
                // Two and two rather than three and one.
                4 if !many => 2,
                left => left.min(if many { 4 } else { 2 }),
            };
            match vectors {
                1 => self.strip::<A, 1>(simd, from),
                2 => self.strip::<A, 2>(simd, from),
                3 => self.strip::<A, 3>(simd, from),
                _ => self.strip::<A, 4>(simd, from),
            }
            from += vectors * lanes;
        }
    }
}

impl<S: Real> Runwise<'_, S> {
    #[inline(always)]
    fn strip<A: Simd, const V: usize>(&mut self, simd: A, from: usize) {
        let many = A::REGISTER_COUNT >= 32;
        let mut row = 0;
        while row < self.rows {
            let left = self.rows - row;
            let count = match (V, many) {
                (1, true) if left >= 16 => self.block::<A, V, 16>(simd, from, row),
                (1, true) if left >= 12 => self.block::<A, V, 12>(simd, from, row),
                (1 | 2, true) if left >= 8 => self.block::<A, V, 8>(simd, from, row),
                (3 | 4, true) if left >= 6 => self.block::<A, V, 6>(simd, from, row),
                (1 | 2, true) if left >= 6 => self.block::<A, V, 6>(simd, from, row),
                (1, false) if left >= 8 => self.block::<A, V, 8>(simd, from, row),
                _ if left >= 4 => self.block::<A, V, 4>(simd, from, row),
                _ if left >= 2 => self.block::<A, V, 2>(simd, from, row),
                _ => self.block::<A, V, 1>(simd, from, row),
            };
            row += count;
        }
    }

    /// `V` vectors of elements times `N` rows. Returns `N`.
    #[inline(always)]
    fn block<A: Simd, const V: usize, const N: usize>(&mut self, simd: A, from: usize, row: usize) -> usize {
        let used = (self.len - from).min(V * S::lanes::<A>());
        simd.vectorize(Block::<A, S, V, N> {
            simd,
            x: &self.x[from..],
            runs: self.runs,
            vectors: &self.vectors[row..],
            others: self.others,
            width: self.width,
            target: &mut self.target[row * self.stride + from..],
            stride: self.stride,
            used,
        });
        N
    }
}

/// One block of sums: a function of its own, so that nothing else competes for registers.
struct Block<'a, A, S, const V: usize, const N: usize> {
    simd: A,
    x: &'a [S],
    runs: Lines<'a>,
    vectors: &'a [S],
    others: Lines<'a>,
    width: usize,
    target: &'a mut [S],
    stride: usize,
    used: usize,
}

impl<A: Simd, S: Real, const V: usize, const N: usize> NullaryFnOnce for Block<'_, A, S, V, N> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, x, runs, vectors, others, width, target, stride, used } = self;
        let lanes = S::lanes::<A>();
        let zero = S::splat(simd, S::of(0.0));
        let mut sums = [[zero; V]; N];
        let span = |step: usize, len: usize| (width - 1) * step + len;
        for (&run, &other) in runs.starts.iter().zip(others.starts) {
            let runs = x[run..][..span(runs.step, V * lanes)].windows(V * lanes).step_by(runs.step);
            let others = vectors[other..][..span(others.step, N)].windows(N).step_by(others.step);
            for (run, other) in runs.zip(others) {
                let run: &[S::Vector<A>; V] = S::vectors::<A>(run).first_chunk().expect("as many as asked for");
                let other: &[S; N] = other.first_chunk().expect("as many as asked for");
                for c in 0..N {
                    let value = S::splat(simd, other[c]);
                    for i in 0..V {
                        sums[c][i] = S::fused(simd, run[i], value, sums[c][i]);
                    }
                }
            }
        }
        for (sums, column) in sums.iter().zip(target.chunks_mut(stride)) {
            for (target, &sum) in column[..used].chunks_mut(lanes).zip(sums) {
                let old = S::partial(simd, target);
                S::store(simd, target, <S as Real>::add(simd, old, sum));
            }
        }
    }
}
