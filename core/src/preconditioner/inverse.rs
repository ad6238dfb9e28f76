//! The inverse form: factored Tikhonov damping and Cholesky.

use super::cache::{Cache, Kept, Order, Sandwich};
use super::dense;
use super::division::Share;
use super::low_rank::{LowRank, is_worthwhile};
use super::{BlockState, Captures, Report};
use crate::backend::{Backend, Gemm, Invert, Map, MapJob, ReduceJob};
use crate::factor::{KroneckerFactors, Layout, Side};
use crate::layer::Block;
use crate::matrix::Region;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;

/// The least damping, relative to a factor's mean diagonal element.
const FLOOR: f64 = 1e-7;

/// What the damping of a block is multiplied with when its decomposition failed.
const RAISE: f64 = 10.0;

/// `(A + π√λ)⁻¹` and `(G + √λ/π)⁻¹` of every block.
pub(super) struct Inverse<B: Backend> {
    cache: Cache<B>,
    /// Damped means, then their Cholesky factors: both of every block of which anything is decomposed here, as the damping
    /// of one depends on the other.
    work: B::Buffer,
    mean_jobs: Vec<MapJob>,
    /// Mean diagonal elements, by slot.
    diagonals: B::Buffer,
    /// π of every block.
    balances: B::Buffer,
    /// π and 1/π, times the raise, by slot.
    shares: B::Buffer,
    /// √ of what a block's damping is raised by after failures.
    raises: B::Buffer,
    raised: Vec<B::Scalar>,
    /// What is added to diagonals, by slot.
    dampings: B::Buffer,
    /// By the diagonal blocks' numbers within their factors, as sums go on from one to the next.
    trace_jobs: Vec<Vec<ReduceJob<B::Scalar>>>,
    shift_jobs: Vec<MapJob>,
    cholesky_jobs: Vec<Region>,
    invert_jobs: Vec<Invert>,
    pending: Option<(B::Verdict, B::Download)>,
    sound: Vec<bool>,
    all: Sandwich<B::Scalar>,
    /// The blocks that are not applied in low rank under the present plan.
    dense: Sandwich<B::Scalar>,
    plan: Vec<bool>,
    low_rank: LowRank<B>,
}

impl<B: Backend> Inverse<B> {
    pub(super) fn new(backend: &mut B, factors: &KroneckerFactors<B>, share: &Share) -> Result<Self, B::Error> {
        let cache = Cache::new(backend, factors, share)?;
        let blocks = factors.blocks();
        let count = blocks.len();
        let decomposed = |block: usize| share.decomposes[block].iter().flatten().any(|decomposes| *decomposes);
        let work = factors.all().only::<B::Scalar>(|side| decomposed(side.block));
        let at = |side: &Side| work.blocks[side.block][side.of_g()][side.number].region;
        let own = &cache.own;
        let sandwich = || {
            let held = share.held(blocks.iter().zip(&cache.layout));
            Sandwich::new(held, [false; 2], [Order::Parameters; 2])
        };
        let shift = |side: &Side| MapJob::unary(Region::scalar(side.slot, 1, side.region.rows), at(side).diagonal());
        let mut raises = backend.allocate(count)?;
        let raised = vec![B::Scalar::of(1.0); count];
        backend.upload(&raised, &mut raises, 0)?;
        Ok(Self {
            work: backend.allocate(work.len)?,
            mean_jobs: factors.mean_jobs(work.held()),
            trace_jobs: traces::<B>(&work),
            diagonals: backend.allocate(2 * count)?,
            balances: backend.allocate(count)?,
            shares: backend.allocate(2 * count)?,
            raises,
            raised,
            dampings: backend.allocate(2 * count)?,
            shift_jobs: own.iter().map(shift).collect(),
            cholesky_jobs: own.iter().map(at).collect(),
            invert_jobs: own.iter().map(|side| Invert { factor: at(side), out: side.region }).collect(),
            pending: None,
            sound: vec![false; own.len()],
            all: sandwich(),
            dense: sandwich(),
            plan: vec![false; count],
            low_rank: LowRank::new(),
            cache,
        })
    }

    /// Begins a refresh at damping λ; never waits.
    pub(super) fn refresh(
        &mut self,
        backend: &mut B,
        factors: &mut KroneckerFactors<B>,
        damping: f64,
    ) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        let count = self.raised.len();
        let (first, second) = (Region::vector(0, count), Region::vector(count, count));
        let both = Region::vector(0, 2 * count);
        factors.means().means_at(backend, &self.mean_jobs, &mut self.work)?;
        for jobs in &self.trace_jobs {
            backend.reduce(jobs, &self.work, None, &mut self.diagonals)?;
        }
        let balance = [MapJob { x: first, y: second, out: first }];
        backend.map(Map::Balance, &balance, Some(&self.diagonals), Some(&self.diagonals), &mut self.balances)?;
        let of_a = [MapJob { x: first, y: first, out: first }];
        let of_g = [MapJob { x: first, y: first, out: second }];
        let product = Map::MultiplyAdd(s(1.0), s(0.0));
        backend.map(product, &of_a, Some(&self.balances), Some(&self.raises), &mut self.shares)?;
        backend.map(Map::Divide, &of_g, Some(&self.raises), Some(&self.balances), &mut self.shares)?;
        let floored = Map::Maximum(s(libm::sqrt(damping)), s(FLOOR));
        let jobs = [MapJob { x: both, y: both, out: both }];
        backend.map(floored, &jobs, Some(&self.shares), Some(&self.diagonals), &mut self.dampings)?;
        let shift = Map::Axpby(s(1.0), s(1.0));
        backend.map(shift, &self.shift_jobs, Some(&self.dampings), None, &mut self.work)?;
        let verdict = backend.cholesky(&self.cholesky_jobs, &mut self.work)?;
        backend.cholesky_invert(&self.invert_jobs, &self.work, &mut self.cache.shadow)?;
        let finite = self.cache.check(backend, None)?;
        self.pending = Some((verdict, finite));
        Ok(())
    }

    /// Waits for the refresh that was begun and mends what failed; answers whether there was one, to be
    /// [`promote`](Self::promote)d.
    pub(super) fn settle(
        &mut self,
        backend: &mut B,
        factors: &KroneckerFactors<B>,
        report: &mut Report,
    ) -> Result<bool, B::Error> {
        let Some((verdict, finite)) = self.pending.take() else { return Ok(false) };
        backend.verdict(verdict, &mut self.sound)?;
        self.cache.finish(backend, finite)?;
        let mut changed = false;
        for block in 0..self.raised.len() {
            let before = self.raised[block];
            if self.mend(backend, factors, block, report)? {
                self.cache.succeeded(block);
                self.raised[block] = B::Scalar::of(f64::max(1.0, before.wide() / libm::sqrt(RAISE)));
            } else {
                let kept = self.cache.fall_back(backend, block, report)?;
                let raise = if kept == Kept::Previous { libm::sqrt(RAISE) } else { 1.0 };
                self.raised[block] = B::Scalar::of(before.wide() * raise);
            }
            changed |= self.raised[block] != before;
        }
        if changed {
            backend.upload(&self.raised, &mut self.raises, 0)?;
        }
        Ok(true)
    }

    /// The refreshed inverses, and where they lie.
    pub(super) fn refreshed(&mut self) -> (&mut B::Buffer, &[[Vec<Side>; 2]]) {
        (&mut self.cache.shadow, &self.cache.layout)
    }

    /// Puts what leaves a block's gradient as it is in their place.
    pub(super) fn leave_alone(&mut self, backend: &mut B, block: usize) -> Result<(), B::Error> {
        self.cache.leave_alone(backend, block)
    }

    /// Makes them current.
    pub(super) fn promote(&mut self) {
        self.cache.promote();
    }

    /// Makes sure of both inverses of `block` in the shadow, by a second try in double precision where needed.
    fn mend(
        &mut self,
        backend: &mut B,
        factors: &KroneckerFactors<B>,
        block: usize,
        report: &mut Report,
    ) -> Result<bool, B::Error> {
        let mut retried = false;
        for job in 0..self.cache.own.len() {
            let side = self.cache.own[job];
            if side.block != block || (self.sound[job] && self.cache.is_finite(&side)) {
                continue;
            }
            let means = factors.running();
            let region = side.region;
            let kept = factors.region(&side);
            let values = backend.fetch(means.values(), kept.offset..kept.end())?;
            let weight = backend.fetch(means.weights(), block..block + 1)?[0].wide().max(1e-30);
            let damping = backend.fetch(&self.dampings, side.slot..side.slot + 1)?[0].wide();
            let mut matrix: Vec<f64> = values.iter().map(|value| value.wide() / weight).collect();
            for at in 0..region.rows {
                matrix[at + at * region.rows] += damping;
            }
            let inverse = dense::invert(region.rows, &matrix);
            let inverse: Option<Vec<B::Scalar>> =
                inverse.map(|inverse| inverse.into_iter().map(B::Scalar::of).collect());
            match inverse {
                // It has to fit the device's range too.
                Some(inverse) if inverse.iter().all(|value| num_traits::Float::is_finite(*value)) => {
                    backend.upload(&inverse, &mut self.cache.shadow, region.offset)?;
                    retried = true;
                }
                _ => return Ok(false),
            }
        }
        report.retried += u64::from(retried);
        Ok(true)
    }

    /// `v ← (G + …)⁻¹ ∇ (A + …)⁻¹` in every block.
    ///
    /// `passes` names captures by the numbers of `members`.
    pub(super) fn apply(
        &mut self,
        backend: &mut B,
        blocks: &[Block],
        members: &[usize],
        passes: Option<&dyn Captures<B>>,
        gradient: &B::Buffer,
        scratch: &mut B::Buffer,
        v: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let Some(passes) = passes else {
            return self.all.apply(backend, &self.cache.current, gradient, scratch, v);
        };
        self.arrange(blocks, members, passes);
        self.dense.apply(backend, &self.cache.current, gradient, scratch, v)?;
        let planned = blocks.iter().zip(&self.cache.layout).zip(members).zip(&self.plan);
        for (((block, layout), &member), _) in planned.filter(|(_, low_rank)| **low_rank) {
            let capture = passes.capture(member).expect("a planned capture exists");
            let inverses = (&self.cache.current, layout.each_ref().map(|sides| sides[0].region));
            self.low_rank.apply(backend, inverses, block.parameters, &capture, passes.batch(), v)?;
        }
        Ok(())
    }

    /// Puts what is in use into `blocks`; nothing is pending.
    pub(super) fn save(&self, backend: &mut B, blocks: &mut [BlockState<B::Scalar>]) -> Result<(), B::Error> {
        for (block, &raised) in blocks.iter_mut().zip(&self.raised) {
            block.raised = raised;
        }
        self.cache.save(backend, blocks)
    }

    /// Goes on with what `blocks` kept.
    #[track_caller]
    pub(super) fn restore(&mut self, backend: &mut B, blocks: &[BlockState<B::Scalar>]) -> Result<(), B::Error> {
        self.pending = None;
        for (raised, block) in self.raised.iter_mut().zip(blocks) {
            *raised = block.raised;
        }
        backend.upload(&self.raised, &mut self.raises, 0)?;
        self.cache.restore(backend, blocks)
    }

    /// Decides, for this batch, which blocks are applied in low rank.
    fn arrange(&mut self, blocks: &[Block], members: &[usize], passes: &dyn Captures<B>) {
        let mut changed = false;
        let blocks_of = || blocks.iter().zip(&self.cache.layout);
        for (((block, layout), &member), planned) in blocks_of().zip(members).zip(&mut self.plan) {
            let capture = passes.capture(member);
            let is_whole = layout.iter().all(|sides| sides.len() == 1);
            let wanted =
                capture.filter(|_| is_whole).is_some_and(|capture| is_worthwhile(block, capture.kind, passes.batch()));
            changed |= *planned != wanted;
            *planned = wanted;
        }
        if changed {
            let stays = |job: &&Gemm<B::Scalar>| {
                let mut of = blocks.iter().zip(&self.plan);
                !of.any(|(block, &low_rank)| low_rank && block.parameters == job.c)
            };
            self.dense.left.clear();
            self.dense.left.extend(self.all.left.iter().filter(stays));
            self.dense.right.clear();
            self.dense.right.extend(self.all.right.iter().filter(stays));
        }
    }
}

/// Mean diagonal elements of whole factors.
fn traces<B: Backend>(work: &Layout) -> Vec<Vec<ReduceJob<B::Scalar>>> {
    let mut jobs = Vec::new();
    for sides in work.blocks.iter().flatten() {
        let sides = if mutant!(PartTraced) { &sides[..1] } else { &sides[..] };
        let rows: usize = sides.iter().map(|side| side.region.rows).sum();
        if rows == 0 {
            continue;
        }
        for side in sides {
            let alpha = B::Scalar::of(1.0 / rows.max(1) as f64);
            let beta = B::Scalar::of(if side.number == 0 { 0.0 } else { 1.0 });
            let job = ReduceJob { alpha, beta, ..ReduceJob::sum(side.region.diagonal(), Region::vector(side.slot, 1)) };
            if jobs.len() == side.number {
                jobs.push(Vec::new());
            }
            jobs[side.number].push(job);
        }
    }
    for jobs in &mut jobs {
        jobs.sort_by_key(|job: &ReduceJob<B::Scalar>| job.out.offset);
    }
    jobs
}
