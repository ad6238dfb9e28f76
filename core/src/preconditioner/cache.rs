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

/// One square matrix for every diagonal block of a factor that is decomposed or held here, twice.
///
/// `current` starts as the identity, so that what was never refreshed preconditions nothing.
pub(super) struct Cache<B: Backend> {
    pub(super) current: B::Buffer,
    pub(super) shadow: B::Buffer,
    /// The diagonal blocks that are decomposed here.
    pub(super) own: Vec<Side>,
    /// All of them, by the network's blocks: those of A, those of G; without rows where there is no memory for it.
    pub(super) layout: Vec<[Vec<Side>; 2]>,
    check_jobs: Vec<ReduceJob<B::Scalar>>,
    sums: B::Buffer,
    flags: B::Buffer,
    /// What [`check`](Self::check) found, by diagonal block.
    finite: Vec<B::Scalar>,
    failures: Vec<u32>,
}

impl<B: Backend> Cache<B> {
    /// Identities for `factors`.
    ///
    /// # Panics
    /// If a factor is not packed.
    pub(super) fn new(backend: &mut B, factors: &KroneckerFactors<B>, share: &Share) -> Result<Self, B::Error> {
        let own = |side: &Side| share.decomposes[side.block][side.of_g()][side.number];
        let layout = factors.all().only::<B::Scalar>(|side| share.holds[side.block] || own(side));
        let (count, sides) = (factors.blocks().len(), layout.sides());
        let held = || sides.iter().filter(|side| !side.region.is_empty());
        assert!(sides.iter().all(|side| side.region.is_packed()), "factors are packed matrices");
        let check_jobs = held().map(|side| ReduceJob::sum(side.region, Region::vector(side.index, 1))).collect();
        let diagonals = held().map(|side| side.region.diagonal());
        let jobs: Vec<MapJob> = diagonals.map(|diagonal| MapJob::unary(diagonal, diagonal)).collect();
        let mut current = backend.allocate(layout.len)?;
        backend.map(Map::Fill(B::Scalar::of(1.0)), &jobs, None, None, &mut current)?;
        Ok(Self {
            current,
            shadow: backend.allocate(layout.len)?,
            own: sides.iter().copied().filter(own).collect(),
            layout: layout.blocks,
            check_jobs,
            sums: backend.allocate(sides.len())?,
            flags: backend.allocate(sides.len())?,
            finite: alloc::vec![B::Scalar::of(0.0); sides.len()],
            failures: alloc::vec![0; count],
        })
    }

    /// Asks whether every matrix of the shadow is finite, and the `extra` sums too, which end up in the same places.
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

    /// Whether the matrix of a diagonal block was finite.
    pub(super) fn is_finite(&self, side: &Side) -> bool {
        self.finite[side.index] != B::Scalar::of(0.0)
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
            for side in held(&self.layout[block]) {
                backend.axpby(s(1.0), &self.current, s(0.0), &mut self.shadow, side.region)?;
            }
            return Ok(Kept::Previous);
        }
        report.identities += 1;
        self.leave_alone(backend, block)?;
        Ok(Kept::Identity)
    }

    /// Puts the identity into the shadow of `block`.
    pub(super) fn leave_alone(&mut self, backend: &mut B, block: usize) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        for side in held(&self.layout[block]) {
            backend.fill(s(0.0), side.region, &mut self.shadow)?;
            backend.fill(s(1.0), side.region.diagonal(), &mut self.shadow)?;
        }
        Ok(())
    }

    /// Puts what is current of every block into `blocks`: whole factors, zeros outside of diagonal blocks and in place of what
    /// is not held.
    pub(super) fn save(&self, backend: &mut B, blocks: &mut [BlockState<B::Scalar>]) -> Result<(), B::Error> {
        let all = backend.fetch(&self.current, 0..self.current.len())?;
        for ((block, &failures), layout) in blocks.iter_mut().zip(&self.failures).zip(&self.layout) {
            block.failures = failures;
            for (kept, sides) in block.decompositions.iter_mut().zip(layout) {
                let whole = whole(sides);
                *kept = alloc::vec![B::Scalar::of(0.0); whole.len()];
                for side in sides.iter().filter(|side| !side.region.is_empty()) {
                    side.put(&all[side.region.offset..side.region.end()], whole, kept);
                }
            }
        }
        Ok(())
    }

    /// Makes what `blocks` kept current.
    #[track_caller]
    pub(super) fn restore(&mut self, backend: &mut B, blocks: &[BlockState<B::Scalar>]) -> Result<(), B::Error> {
        let mut parts = Vec::new();
        for (block, layout) in blocks.iter().zip(&self.layout) {
            for (kept, sides) in block.decompositions.iter().zip(layout) {
                let whole = whole(sides);
                assert_eq!(kept.len(), whole.len(), "scalars kept for a factor of {} rows", whole.rows);
                for side in sides.iter().filter(|side| !side.region.is_empty()) {
                    let mut part = alloc::vec![B::Scalar::of(0.0); side.region.len()];
                    side.take(whole, kept, &mut part);
                    parts.push((side.region, part));
                }
            }
        }
        let parts = parts.iter().map(|(region, part)| (*region, part.as_slice()));
        state::upload(backend, &mut self.current, parts)?;
        self.failures = blocks.iter().map(|block| block.failures).collect();
        Ok(())
    }

    /// Makes the shadow current.
    pub(super) fn promote(&mut self) {
        core::mem::swap(&mut self.current, &mut self.shadow);
    }
}

/// Those that have rows.
fn held(sides: &[Vec<Side>; 2]) -> impl Iterator<Item = &Side> {
    sides.iter().flatten().filter(|side| !side.region.is_empty())
}

/// What [`Cache::fall_back`] fell back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Previous,
    Identity,
}

/// A factor by itself, packed.
fn whole(sides: &[Side]) -> Region {
    let rows = sides.iter().map(|side| side.part.rows()).sum();
    Region::matrix(0, rows, rows)
}

/// In which order the columns of a block are: those of the parameters, or one diagonal block of A after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Parameters,
    Parts,
}

/// The products `G·X·A` of all blocks, `X` and the result in the layout of the parameters, `A` and `G` in that of the
/// running averages: between the two products, columns are in the order of A's diagonal blocks.
#[derive(Debug)]
pub(super) struct Sandwich<S> {
    pub(super) left: Vec<Gemm<S>>,
    pub(super) right: Vec<Gemm<S>>,
}

impl<S: Scalar> Sandwich<S> {
    /// With G, A or both transposed, or neither; columns of `X` and of the result are in these orders.
    pub(super) fn new<'a>(
        blocks: impl Iterator<Item = (&'a Block, &'a [Vec<Side>; 2])>,
        transposed: [bool; 2],
        order: [Order; 2],
    ) -> Self {
        let turned = |region: Region, turn: bool| if turn { region.transposed() } else { region };
        let mut sandwich = Self { left: Vec::new(), right: Vec::new() };
        for (block, [of_a, of_g]) in blocks {
            let x = block.parameters;
            for side in of_a {
                let (rows, len) = (x.rows, side.region.rows);
                let strips = |order| strips(side, order);
                for (from, at, len) in strips(order[0]) {
                    for left in of_g {
                        let block = |column| x.block(left.start, column, left.region.rows, len);
                        let product = Gemm::product(turned(left.region, transposed[0]), block(from), block(at));
                        sandwich.left.push(product);
                    }
                }
                let between = x.block(0, side.start, rows, len);
                for (to, at, columns) in strips(order[1]) {
                    let a = turned(side.region, transposed[1]).block(0, at - side.start, len, columns);
                    sandwich.right.push(Gemm::product(between, a, x.block(0, to, rows, columns)));
                }
            }
        }
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

/// Neighbouring columns of a block that are neighbours in a diagonal block of A: where they are in this order, where in that
/// of the parts, and how many.
fn strips(side: &Side, order: Order) -> Vec<(usize, usize, usize)> {
    match order {
        Order::Parts => alloc::vec![(side.start, side.start, side.region.rows)],
        Order::Parameters => side.part.runs().map(|run| (run.from, side.start + run.at, run.len)).collect(),
    }
}
