//! Convolution, a few samples at a time, so that what one kernel reads the next one finds in cache.
//!
//! A share of the batch goes to each thread, with sums of its own, which are added in order of the shares: at a given
//! number of threads the same call gives the same bits.

mod autocorrelation;
mod backward;
mod forward;
mod geometry;
mod patches;
mod rows;

pub(crate) use backward::backward;
pub(crate) use forward::forward;
pub(crate) use patches::{fold, tile, unfold};

use crate::arena::Arenas;
use crate::parallel::{Piece, Pool};
use core::ops::Range;
use kronfleet_core::matrix::Region;

/// What a pass works with.
pub(crate) struct Means<'a, S> {
    pub(crate) pool: &'a Pool,
    pub(crate) arenas: &'a Arenas<S>,
    pub(crate) workspace: &'a mut Workspace<S>,
}

/// A symmetric matrix accumulated beside a pass.
pub(crate) struct Statistic<'a, S> {
    pub(crate) target: &'a mut [S],
    pub(crate) region: Region,
    pub(crate) scale: S,
}

/// Memory of one call that its threads share.
#[derive(Debug)]
pub(crate) struct Workspace<S> {
    /// Weights as the kernel wants them.
    packed: Vec<S>,
    /// Sums, one set for each share.
    sums: Vec<S>,
}

impl<S: Copy + Default> Workspace<S> {
    pub(crate) const fn new() -> Self {
        Self { packed: Vec::new(), sums: Vec::new() }
    }

    /// Packed weights of unspecified content and sums of 0.
    fn take(&mut self, packed: usize, sums: usize) -> (&mut [S], &mut [S]) {
        if self.packed.len() < packed {
            self.packed.resize(packed, S::default());
        }
        self.sums.clear();
        self.sums.resize(sums, S::default());
        (&mut self.packed[..packed], &mut self.sums)
    }
}

/// Most shares a batch is cut into.
const SHARES: usize = 64;

/// One thread's samples.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    first: usize,
    last: usize,
    /// Scalars written per sample.
    written: usize,
    /// Scalars of sums.
    sums: usize,
}

impl Share {
    fn samples(&self) -> Range<usize> {
        self.first..self.last
    }
}

impl Piece for Share {
    fn target(&self) -> Range<usize> {
        self.first * self.written..self.last * self.written
    }

    fn second(&self, index: usize) -> Range<usize> {
        index * self.sums..(index + 1) * self.sums
    }

    fn cost(&self) -> u64 {
        (self.last - self.first) as u64
    }
}

/// Equal shares of `batch` samples; none is empty.
fn shares(threads: usize, batch: usize, written: usize, sums: usize) -> ([Share; SHARES], usize) {
    let count = threads.min(SHARES).min(batch).max(1);
    let mut shares = [Share::default(); SHARES];
    for (index, share) in shares.iter_mut().enumerate().take(count) {
        *share = Share { first: index * batch / count, last: (index + 1) * batch / count, written, sums };
    }
    (shares, count)
}

/// Adds the sums of all later shares to those of the first.
fn gather_sums<S: Copy + core::ops::AddAssign>(sums: &mut [S], each: usize) -> &mut [S] {
    if each == 0 {
        return sums;
    }
    let (total, rest) = sums.split_at_mut(each);
    for share in rest.chunks_exact(each) {
        for (total, &value) in total.iter_mut().zip(share) {
            *total += value;
        }
    }
    total
}
