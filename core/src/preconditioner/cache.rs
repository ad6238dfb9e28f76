//! Decompositions in two copies: the current one, and the shadow that a refresh fills.

use super::Report;
use super::division::Share;
use super::state::{self, BlockState};
use crate::backend::{Backend, Buffer as _, Gemm, Map, MapJob, ReduceJob};
use crate::factor::KroneckerFactors;
use crate::factor::Side;
use crate::layer::Block;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec::Vec;

/// How many refreshes of a block may fail in a row before it is given the identity.
const PATIENCE: u32 = 3;

/// Jobs that add to sums, and what they read.
type Sums<'a, B> = (&'a <B as Backend>::Buffer, &'a [ReduceJob<<B as Backend>::Scalar>]);

/// One square matrix for every factor, in the layout of the statistics, twice.
///
/// `current` starts as the identity, so that what was never refreshed preconditions nothing.
pub(super) struct Cache<B: Backend> {
    pub(super) current: B::Buffer,
    pub(super) shadow: B::Buffer,
    /// The factors that are decomposed here.
    pub(super) own: Vec<Side>,
    /// Both factors of a block: A, G.
    pub(super) pairs: Vec<[Region; 2]>,
    check_jobs: Vec<ReduceJob<B::Scalar>>,
    sums: B::Buffer,
    flags: B::Buffer,
    /// What [`check`](Self::check) found, by slot.
    finite: Vec<B::Scalar>,
    failures: Vec<u32>,
}

impl<B: Backend> Cache<B> {
    /// Identities for `factors`, over statistics of `len` scalars.
    ///
    /// # Panics
    /// If a factor is not packed.
    pub(super) fn new(
        backend: &mut B,
        factors: &KroneckerFactors<B>,
        len: usize,
        share: &Share,
    ) -> Result<Self, B::Error> {
        let sides = factors.sides();
        let count = factors.blocks().len();
        assert!(sides.iter().all(|side| side.region.is_packed()), "factors are packed matrices");
        let mut check_jobs: Vec<_> =
            sides.iter().map(|side| ReduceJob::sum(side.region, Region::vector(side.slot, 1))).collect();
        check_jobs.sort_by_key(|job| job.out.offset);
        let diagonals = sides.iter().map(|side| side.region.diagonal());
        let jobs: Vec<MapJob> = diagonals.map(|diagonal| MapJob::unary(diagonal, diagonal)).collect();
        let mut current = backend.allocate(len)?;
        backend.map(Map::Fill(B::Scalar::of(1.0)), &jobs, None, None, &mut current)?;
        Ok(Self {
            current,
            shadow: backend.allocate(len)?,
            pairs: factors.blocks().iter().map(|block| [block.a, block.g]).collect(),
            own: sides.iter().copied().filter(|side| share.decomposes[side.block][side.slot / count]).collect(),
            check_jobs,
            sums: backend.allocate(2 * count)?,
            flags: backend.allocate(2 * count)?,
            finite: alloc::vec![B::Scalar::of(0.0); 2 * count],
            failures: alloc::vec![0; count],
        })
    }

    /// Asks whether every matrix of the shadow is finite, and the `extra` sums too, which end up in the same slots.
    pub(super) fn check(&mut self, backend: &mut B, extra: Option<Sums<'_, B>>) -> Result<B::Download, B::Error> {
        let all = Region::vector(0, self.flags.len());
        backend.reduce(&self.check_jobs, &self.shadow, None, &mut self.sums)?;
        if let Some((buffer, jobs)) = extra {
            backend.reduce(jobs, buffer, None, &mut self.sums)?;
        }
        backend.map(Map::Finite, &[MapJob::unary(all, all)], Some(&self.sums), None, &mut self.flags)?;
        backend.download(&self.flags, 0..all.rows)
    }

    /// Waits for the answer of [`check`](Self::check).
    pub(super) fn finish(&mut self, backend: &mut B, ticket: B::Download) -> Result<(), B::Error> {
        backend.finish(ticket, &mut self.finite)
    }

    /// Whether the matrix in `slot` was finite.
    pub(super) fn is_finite(&self, slot: usize) -> bool {
        self.finite[slot] != B::Scalar::of(0.0)
    }

    /// Notes that the refresh of `block` succeeded.
    pub(super) fn succeeded(&mut self, block: usize) {
        self.failures[block] = 0;
    }

    /// Puts what there was, or after too many failures the identity, into the shadow of `block`; tells which.
    pub(super) fn fall_back(&mut self, backend: &mut B, block: usize, report: &mut Report) -> Result<Kept, B::Error> {
        let s = B::Scalar::of;
        self.failures[block] += 1;
        if self.failures[block] < PATIENCE {
            report.kept += 1;
            for region in self.pairs[block] {
                backend.axpby(s(1.0), &self.current, s(0.0), &mut self.shadow, region)?;
            }
            return Ok(Kept::Previous);
        }
        report.identities += 1;
        for region in self.pairs[block] {
            backend.fill(s(0.0), region, &mut self.shadow)?;
            backend.fill(s(1.0), region.diagonal(), &mut self.shadow)?;
        }
        Ok(Kept::Identity)
    }

    /// Puts what is current of every block into `blocks`.
    pub(super) fn save(&self, backend: &mut B, blocks: &mut [BlockState<B::Scalar>]) -> Result<(), B::Error> {
        let parts = state::fetch(backend, &self.current, self.pairs.iter().flatten().copied())?;
        let mut parts = parts.into_iter();
        for (block, &failures) in blocks.iter_mut().zip(&self.failures) {
            block.failures = failures;
            block.decompositions = core::array::from_fn(|_| parts.next().expect("two parts of every block"));
        }
        Ok(())
    }

    /// Makes what `blocks` kept current.
    #[track_caller]
    pub(super) fn restore(&mut self, backend: &mut B, blocks: &[BlockState<B::Scalar>]) -> Result<(), B::Error> {
        let regions = self.pairs.iter().flatten().copied();
        let parts = blocks.iter().flat_map(|block| &block.decompositions).map(Vec::as_slice);
        state::upload(backend, &mut self.current, regions.zip(parts))?;
        self.failures = blocks.iter().map(|block| block.failures).collect();
        Ok(())
    }

    /// Makes the shadow current.
    pub(super) fn promote(&mut self) {
        core::mem::swap(&mut self.current, &mut self.shadow);
    }
}

/// What [`Cache::fall_back`] fell back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Previous,
    Identity,
}

/// The products `G·X·A` of all blocks, `X` and the result in the layout of the parameters, `A` and `G` in that of the
/// statistics.
#[derive(Debug)]
pub(super) struct Sandwich<S> {
    pub(super) left: Vec<Gemm<S>>,
    pub(super) right: Vec<Gemm<S>>,
}

impl<S: Scalar> Sandwich<S> {
    /// With both factors transposed, or neither.
    pub(super) fn new<'a>(blocks: impl Iterator<Item = &'a Block> + Clone, transposed: [bool; 2]) -> Self {
        let turned = |region: Region, turn: bool| if turn { region.transposed() } else { region };
        let left = |block: &Block| Gemm::product(turned(block.g, transposed[0]), block.parameters, block.parameters);
        let right = |block: &Block| Gemm::product(block.parameters, turned(block.a, transposed[1]), block.parameters);
        let mut sandwich = Self { left: blocks.clone().map(left).collect(), right: blocks.map(right).collect() };
        sandwich.left.sort_by_key(|job| job.c.end());
        sandwich.right.sort_by_key(|job| job.c.end());
        sandwich
    }

    /// `out ← G·x·A`; `scratch` has the layout of `x`.
    pub(super) fn apply<B: Backend<Scalar = S>>(
        &self,
        backend: &mut B,
        factors: &B::Buffer,
        x: &B::Buffer,
        scratch: &mut B::Buffer,
        out: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        backend.gemm(&self.left, factors, x, scratch)?;
        backend.gemm(&self.right, scratch, factors, out)
    }
}
