//! Products of shifted lines, summed over positions: positions fill the registers.
//!
//! For few channels, where neither the outputs nor a run of a patch would.

use super::MARGIN;
use crate::scalar::Real;
use pulp::{NullaryFnOnce, Simd, WithSimd};

/// Lines of planes, each read at several distances from its start.
#[derive(Clone, Copy)]
pub(crate) struct Shifted<'a, S> {
    /// Followed by [`MARGIN`] finite numbers: lines are read in whole vectors.
    pub(crate) planes: &'a [S],
    /// Where each line starts.
    pub(crate) lines: &'a [usize],
    pub(crate) taps: &'a [usize],
}

/// `target[b, a] += Σ left(line)[a] · right(line)[b]`, over all positions of all lines.
pub(crate) struct Along<'a, S> {
    pub(crate) left: Shifted<'a, S>,
    /// As many lines as `left` has.
    pub(crate) right: Shifted<'a, S>,
    /// Positions in a line.
    pub(crate) width: usize,
    /// `right taps × left taps`.
    pub(crate) target: &'a mut [S],
}

impl<S: Real> WithSimd for Along<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<A: Simd>(mut self, simd: A) {
        let many = A::REGISTER_COUNT >= 32;
        let mut first = 0;
        while first < self.left.taps.len() {
            first += match (self.left.taps.len() - first, many) {
                (6.., true) => self.strip::<A, 6>(simd, first),
                (5, true) => self.strip::<A, 5>(simd, first),
                (4, true) => self.strip::<A, 4>(simd, first),
                (2.., _) => self.strip::<A, 2>(simd, first),
                _ => self.strip::<A, 1>(simd, first),
            };
        }
    }
}

impl<S: Real> Along<'_, S> {
    /// Products of `M` left taps. Returns `M`.
    #[inline(always)]
    fn strip<A: Simd, const M: usize>(&mut self, simd: A, first: usize) -> usize {
        let many = A::REGISTER_COUNT >= 32;
        let mut second = 0;
        while second < self.right.taps.len() {
            second += match self.right.taps.len() - second {
                5.. if many && M < 6 => self.block::<A, M, 5>(simd, first, second),
                4.. if M < 6 => self.block::<A, M, 4>(simd, first, second),
                3.. if M == 6 => self.block::<A, M, 3>(simd, first, second),
                2.. => self.block::<A, M, 2>(simd, first, second),
                _ => self.block::<A, M, 1>(simd, first, second),
            };
        }
        M
    }

    #[inline(always)]
    fn block<A: Simd, const M: usize, const N: usize>(&mut self, simd: A, first: usize, second: usize) -> usize {
        // Whatever a tap costs once is shared by two vectors.
        if self.width.div_ceil(S::lanes::<A>()) % 2 == 0 {
            self.vectors::<A, M, N, 2>(simd, first, second);
        } else {
            self.vectors::<A, M, N, 1>(simd, first, second);
        }
        N
    }

    #[inline(always)]
    fn vectors<A: Simd, const M: usize, const N: usize, const W: usize>(
        &mut self,
        simd: A,
        first: usize,
        second: usize,
    ) {
        let (left, right, rows) = (self.left, self.right, self.right.taps.len());
        simd.vectorize(Block::<A, S, M, N, W> {
            simd,
            left: Shifted { taps: &left.taps[first..], ..left },
            right: Shifted { taps: &right.taps[second..], ..right },
            width: self.width,
            target: &mut self.target[first * rows + second..],
            rows,
        });
    }
}

/// One block of sums, over `W` vectors of a line at a time: a function of its own, so that nothing else competes for
/// registers.
struct Block<'a, A, S, const M: usize, const N: usize, const W: usize> {
    simd: A,
    left: Shifted<'a, S>,
    right: Shifted<'a, S>,
    width: usize,
    target: &'a mut [S],
    rows: usize,
}

impl<A: Simd, S: Real, const M: usize, const N: usize, const W: usize> NullaryFnOnce for Block<'_, A, S, M, N, W> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, left, right, width, target, rows } = self;
        let lanes = S::lanes::<A>();
        let zero = S::splat(simd, S::of(0.0));
        // The last vector of a line may reach past its end.
        let mut last = [S::of(1.0); MARGIN];
        last[(width - 1) % lanes + 1..].fill(S::of(0.0));
        let (last, all) = (S::vectors::<A>(&last)[0], S::splat(simd, S::of(1.0)));
        let left_taps: [usize; M] = *left.taps.first_chunk().expect("as many as asked for");
        let right_taps: [usize; N] = *right.taps.first_chunk().expect("as many as asked for");
        let mut sums = [[zero; N]; M];
        // Loops rather than `map`: closures would be functions without this instruction set.
        for (&a, &b) in left.lines.iter().zip(right.lines) {
            let (a, b) = (&left.planes[a..], &right.planes[b..]);
            for at in (0..width).step_by(W * lanes) {
                // Without a branch for the last vector, the values stay in registers.
                let used = if at + W * lanes > width { last } else { all };
                let mut lefts: [&[S::Vector<A>]; M] = [&[]; M];
                let mut rights: [&[S::Vector<A>]; N] = [&[]; N];
                for m in 0..M {
                    lefts[m] = S::vectors::<A>(&a[left_taps[m] + at..][..W * lanes]);
                }
                for n in 0..N {
                    rights[n] = S::vectors::<A>(&b[right_taps[n] + at..][..W * lanes]);
                }
                for w in 0..W {
                    let mut values = [zero; M];
                    for m in 0..M {
                        values[m] = lefts[m][w];
                        if w + 1 == W {
                            values[m] = S::fused(simd, values[m], used, zero);
                        }
                    }
                    for n in 0..N {
                        for m in 0..M {
                            sums[m][n] = S::fused(simd, values[m], rights[n][w], sums[m][n]);
                        }
                    }
                }
            }
        }
        for (sums, column) in sums.iter().zip(target.chunks_mut(rows)) {
            for (target, &sum) in column.iter_mut().zip(sums) {
                let mut each = [S::of(0.0); MARGIN];
                S::store(simd, &mut each[..lanes], sum);
                for &value in &each[..lanes] {
                    *target += value;
                }
            }
        }
    }
}
