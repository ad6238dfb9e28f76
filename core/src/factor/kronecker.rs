//! The two Kronecker factors of every block.

use super::{Part, RunningMeans, parts};
use crate::backend::{Backend, Buffer as _, Map, MapJob};
use crate::layer::Block;
use crate::matrix::{Region, aligned};
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;

/// Running averages of `A` and `G` of every block of a network.
///
/// A block's two factors are accepted or refused together, so that they always describe the same batches.
///
/// Factors of more rows than a limit are taken for block-diagonal: what lies outside of their diagonal blocks is left out
/// of the batch's statistics, and nowhere kept. Where no factor is, running averages have the layout of the statistics.
pub struct KroneckerFactors<B: Backend> {
    blocks: Vec<Block>,
    means: RunningMeans<B>,
    /// Where the running averages are.
    layout: Layout,
    /// Where everything would be.
    all: Layout,
    /// Where the batch's statistics are once they are cut.
    fresh: Layout,
    /// Where the network was built to write A and G of every block, and scalars of such statistics.
    network: Vec<[Region; 2]>,
    statistics: usize,
    whole: Option<Whole<B>>,
}

/// Where the diagonal blocks of factors lie in a buffer that may hold only some of them; the others have no rows in it.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// By the network's blocks: those of A, those of G.
    pub(crate) blocks: Vec<[Vec<Side>; 2]>,
    /// Scalars.
    pub(crate) len: usize,
}

/// What passes write where factors are taken for block-diagonal, and how the blocks are cut out of it.
struct Whole<B: Backend> {
    statistics: B::Buffer,
    jobs: Vec<MapJob>,
}

/// A diagonal block of a factor, which is the whole factor as a rule: which block of the network, which side, where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Number of the network's block.
    pub(crate) block: usize,
    /// `block` for A, `blocks + block` for G: its factor's place in small vectors with one scalar per factor.
    pub(crate) slot: usize,
    /// Which of the factor's diagonal blocks it is.
    pub(crate) number: usize,
    /// Its place among all of them: that in small vectors with one scalar for each.
    pub(crate) index: usize,
    /// Rows of the diagonal blocks before it.
    pub(crate) start: usize,
    /// Which rows of the factor it has.
    pub(crate) part: Part,
    /// Where it lies in the running averages.
    pub(crate) region: Region,
}

impl<B: Backend> KroneckerFactors<B> {
    /// Factors of `blocks` over statistics of `len` scalars, from zero.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(backend: &mut B, blocks: Vec<Block>, len: usize) -> Result<Self, B::Error> {
        Self::split(backend, blocks, len, 0)
    }

    /// The same, factors of more than `limit` rows being taken for block-diagonal, with blocks of about so many rows at
    /// most; 0 takes none for it.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn split(backend: &mut B, blocks: Vec<Block>, len: usize, limit: usize) -> Result<Self, B::Error> {
        let all = vec![true; blocks.len()];
        Self::divided(backend, blocks, len, limit, [&all, &all])
    }

    /// The same with memory for the statistics of those blocks alone that are `made`, and for the running averages of those
    /// that are `kept`.
    pub(crate) fn divided(
        backend: &mut B,
        mut blocks: Vec<Block>,
        len: usize,
        limit: usize,
        [made, kept]: [&[bool]; 2],
    ) -> Result<Self, B::Error> {
        let all = Layout::new::<B::Scalar>(&blocks, len, limit);
        let layout = all.only::<B::Scalar>(|side| kept[side.block]);
        let network: Vec<[Region; 2]> = blocks.iter().map(|block| [block.a, block.g]).collect();
        let (fresh, whole) = statistics(backend, &mut blocks, &network, &all, (made, len))?;
        let means = RunningMeans::laid(backend, [fresh.len, layout.len], &groups(&fresh, &layout))?;
        Ok(Self { blocks, means, layout, all, fresh, network, statistics: len, whole })
    }

    /// Has memory for the statistics of other blocks, from zero; the running averages stay.
    pub(crate) fn lay_statistics(&mut self, backend: &mut B, made: &[bool]) -> Result<(), B::Error> {
        self.whole = None;
        let places = (made, self.statistics);
        (self.fresh, self.whole) = statistics(backend, &mut self.blocks, &self.network, &self.all, places)?;
        self.means.lay_statistics(backend, self.fresh.len, &groups(&self.fresh, &self.layout))
    }

    /// The blocks, in order; their regions are those of the statistics, without rows where none are made.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The running averages; group `i` is block `i`.
    pub fn means(&mut self) -> &mut RunningMeans<B> {
        &mut self.means
    }

    /// The running averages, to be read.
    pub fn running(&self) -> &RunningMeans<B> {
        &self.means
    }

    /// Sets the statistics of the coming batch to zero; never waits.
    ///
    /// # Errors
    /// If the device fails.
    pub fn open(&mut self, backend: &mut B) -> Result<(), B::Error> {
        match &mut self.whole {
            Some(whole) => {
                let all = Region::vector(0, whole.statistics.len());
                backend.fill(B::Scalar::of(0.0), all, &mut whole.statistics)
            }
            None => self.means.open(backend),
        }
    }

    /// Where passes add the statistics of the batch.
    pub fn statistics(&mut self) -> &mut B::Buffer {
        match &mut self.whole {
            Some(whole) => &mut whole.statistics,
            None => self.means.statistics(),
        }
    }

    /// Brings the statistics that the passes have left into the layout of the running averages, where
    /// [`means`](Self::means) have them; never waits.
    ///
    /// # Errors
    /// If the device fails.
    pub fn cut(&mut self, backend: &mut B) -> Result<(), B::Error> {
        let Some(whole) = &self.whole else { return Ok(()) };
        let copy = Map::Axpby(B::Scalar::of(1.0), B::Scalar::of(0.0));
        backend.map(copy, &whole.jobs, Some(&whole.statistics), None, self.means.statistics())
    }

    /// Waits for the running values, in the layout of the statistics, zeros outside of diagonal blocks, and their weights.
    ///
    /// # Errors
    /// If the device fails.
    pub fn save(&self, backend: &mut B) -> Result<[Vec<B::Scalar>; 2], B::Error> {
        let (values, weights) = (self.means.values(), self.means.weights());
        let found = [backend.fetch(values, 0..values.len())?, backend.fetch(weights, 0..weights.len())?];
        if self.is_plain() {
            return Ok(found);
        }
        let [values, weights] = found;
        let mut all = vec![B::Scalar::of(0.0); self.statistics];
        for side in self.layout.held() {
            let own = &values[side.region.offset..side.region.end()];
            side.put(own, self.network[side.block][side.of_g()], &mut all);
        }
        Ok([all, weights])
    }

    /// Goes on with what [`save`](Self::save) gave, whatever part of it these factors keep.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If a length does not fit.
    #[track_caller]
    pub fn restore(&mut self, backend: &mut B, [values, weights]: &[Vec<B::Scalar>; 2]) -> Result<(), B::Error> {
        assert_eq!(values.len(), self.statistics, "scalars of factors that were kept");
        assert_eq!(weights.len(), self.blocks.len(), "weights of factors that were kept");
        let is_plain = self.is_plain();
        let (of_values, of_weights) = self.means.estimate_mut();
        backend.upload(weights, of_weights, 0)?;
        if is_plain {
            return backend.upload(values, of_values, 0);
        }
        let mut own = vec![B::Scalar::of(0.0); of_values.len()];
        for side in self.layout.held() {
            let factor = self.network[side.block][side.of_g()];
            side.take(factor, values, &mut own[side.region.offset..side.region.end()]);
        }
        backend.upload(&own, of_values, 0)
    }

    /// Whether running averages lie as the network was built to write statistics.
    fn is_plain(&self) -> bool {
        let held = || self.layout.held();
        held().count() == 2 * self.blocks.len()
            && held().all(|side| side.region == self.network[side.block][side.of_g()])
            && self.means.values().len() == self.statistics
    }

    /// Where the passes are to add the statistics of a block: A, G; nothing if they are not made.
    pub(crate) fn places(&self, name: &str) -> Option<[Region; 2]> {
        let block = self.blocks.iter().find(|block| block.name == name)?;
        Some([block.a, block.g]).filter(|places| places.iter().all(|place| !place.is_empty()))
    }

    /// Where all diagonal blocks would lie.
    pub(crate) fn all(&self) -> &Layout {
        &self.all
    }

    /// Where the batch's statistics lie once they are [`cut`](Self::cut).
    pub(crate) fn fresh(&self) -> &Layout {
        &self.fresh
    }

    /// Where the running averages lie, by the network's blocks: those of A, those of G.
    pub(crate) fn layout(&self) -> &[[Vec<Side>; 2]] {
        &self.layout.blocks
    }

    /// Where the running average of a diagonal block lies.
    pub(crate) fn region(&self, side: &Side) -> Region {
        self.layout.blocks[side.block][side.of_g()][side.number].region
    }

    /// What [`RunningMeans::means_at`] takes to write the means of some diagonal blocks where a buffer has them.
    pub(crate) fn mean_jobs<'a>(&self, sides: impl Iterator<Item = &'a Side>) -> Vec<MapJob> {
        let job = |side: &Side| {
            let x = self.region(side);
            MapJob { x, y: Region::scalar(side.block, x.rows, x.columns), out: side.region }
        };
        let mut jobs: Vec<MapJob> = sides.map(job).collect();
        jobs.sort_by_key(|job| job.out.end());
        jobs
    }
}

/// Memory for the statistics of the blocks that are `made`, and their places in it, which become those of `blocks`. Where
/// factors are cut, passes write into memory of its own.
fn statistics<B: Backend>(
    backend: &mut B,
    blocks: &mut [Block],
    network: &[[Region; 2]],
    all: &Layout,
    (made, len): (&[bool], usize),
) -> Result<(Layout, Option<Whole<B>>), B::Error> {
    let fresh = all.only::<B::Scalar>(|side| made[side.block]);
    for (block, places) in blocks.iter_mut().zip(network) {
        [block.a, block.g] = *places;
    }
    // What passes write, uncut.
    let passes = Layout::new::<B::Scalar>(blocks, len, 0).only::<B::Scalar>(|side| made[side.block]);
    for (block, [a, g]) in blocks.iter_mut().zip(&passes.blocks) {
        (block.a, block.g) = (a[0].region, g[0].region);
    }
    let is_cut = all.blocks.iter().flatten().any(|sides| sides.len() > 1);
    if !is_cut {
        return Ok((fresh, None));
    }
    let mut jobs: Vec<MapJob> = fresh.held().flat_map(|side| cuts(&blocks[side.block], side)).collect();
    jobs.sort_by_key(|job| job.out.end());
    Ok((fresh, Some(Whole { statistics: backend.allocate(passes.len)?, jobs })))
}

/// For every block, where each of its diagonal blocks lies among the statistics and in the running averages.
fn groups(fresh: &Layout, kept: &Layout) -> Vec<Vec<[Region; 2]>> {
    let pairs = |(fresh, kept): (&[Vec<Side>; 2], &[Vec<Side>; 2])| {
        fresh.iter().flatten().zip(kept.iter().flatten()).map(|(fresh, kept)| [fresh.region, kept.region]).collect()
    };
    fresh.blocks.iter().zip(&kept.blocks).map(pairs).collect()
}

impl Layout {
    /// All diagonal blocks, where statistics of `len` scalars have them unless one is cut.
    fn new<S: Scalar>(blocks: &[Block], len: usize, limit: usize) -> Self {
        let (blocks, len) = lay_out::<S>(blocks, len, limit);
        Self { blocks, len }
    }

    /// Only those that are wanted, one after another; as it is if all are.
    pub(crate) fn only<S: Scalar>(&self, wanted: impl Fn(&Side) -> bool) -> Self {
        let mut kept = self.clone();
        if self.sides().iter().all(&wanted) {
            return kept;
        }
        let mut next = 0;
        for side in self.sides() {
            let rows = if wanted(&side) { side.part.rows() } else { 0 };
            let region = Region::matrix(if rows == 0 { 0 } else { next }, rows, rows);
            kept.blocks[side.block][side.of_g()][side.number].region = region;
            next = aligned::<S>(next + rows * rows);
        }
        kept.len = next;
        kept
    }

    /// All of them in ascending order, as the backend wants its jobs, those without rows too.
    pub(crate) fn sides(&self) -> Vec<Side> {
        let mut sides: Vec<Side> = self.blocks.iter().flatten().flatten().copied().collect();
        sides.sort_by_key(|side| side.index);
        sides
    }

    /// Those that have rows, in no order.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Side> {
        self.blocks.iter().flatten().flatten().filter(|side| !side.region.is_empty())
    }
}

/// Where the diagonal blocks of all factors lie, by the network's blocks, and in how many scalars: where statistics of
/// `len` scalars have them unless one is cut.
pub(crate) fn lay_out<S: Scalar>(blocks: &[Block], len: usize, limit: usize) -> (Vec<[Vec<Side>; 2]>, usize) {
    let count = blocks.len();
    let mut order: Vec<(usize, Region)> =
        blocks.iter().map(|block| block.a).chain(blocks.iter().map(|block| block.g)).enumerate().collect();
    order.sort_by_key(|(_, region)| region.end());
    let cut: Vec<Vec<Part>> = order
        .iter()
        .map(|&(slot, region)| parts(region.rows, if slot < count { blocks[slot].kernel } else { 1 }, limit))
        .collect();
    let is_cut = cut.iter().any(|parts| parts.len() > 1);
    let mut layout: Vec<[Vec<Side>; 2]> = (0..count).map(|_| [Vec::new(), Vec::new()]).collect();
    let (mut next, mut index) = (0, 0);
    for ((slot, of), parts) in order.into_iter().zip(cut) {
        let mut start = 0;
        for (number, part) in parts.into_iter().enumerate() {
            let region = if is_cut { Region::matrix(next, part.rows(), part.rows()) } else { of };
            let block = slot % count;
            layout[block][slot / count].push(Side { block, slot, number, index, start, part, region });
            (next, index) = (aligned::<S>(region.end()), index + 1);
            start += part.rows();
        }
    }
    (layout, if is_cut { next } else { len })
}

/// Copies of a diagonal block out of the statistics.
fn cuts(block: &Block, side: &Side) -> Vec<MapJob> {
    let factor = if side.slot == side.block { block.a } else { block.g };
    side.pieces(factor).map(|(from, to)| MapJob::unary(from, to)).collect()
}

impl Side {
    /// 0 of A, 1 of G.
    pub(crate) fn of_g(&self) -> usize {
        usize::from(self.slot != self.block)
    }

    /// Rectangles of its factor, which lies at `factor`, and where they are in its own region; all of it together.
    fn pieces(&self, factor: Region) -> impl Iterator<Item = (Region, Region)> {
        let (region, runs) = (self.region, self.part.runs());
        self.part.runs().flat_map(move |down| {
            runs.clone().map(move |across| {
                let from = factor.block(down.from, across.from, down.len, across.len);
                (from, region.block(down.at, across.at, down.len, across.len))
            })
        })
    }

    /// Puts its values into those of all factors.
    pub(crate) fn put<S: Copy>(&self, own: &[S], factor: Region, all: &mut [S]) {
        self.each(factor, |at, own_at| all[at] = own[own_at]);
    }

    /// Takes its values out of those of all factors.
    pub(crate) fn take<S: Copy>(&self, factor: Region, all: &[S], own: &mut [S]) {
        self.each(factor, |at, own_at| own[own_at] = all[at]);
    }

    fn each(&self, factor: Region, mut copy: impl FnMut(usize, usize)) {
        for (from, to) in self.pieces(factor) {
            for column in 0..from.columns {
                for row in 0..from.rows {
                    copy(from.index(row, column), to.index(row, column) - self.region.offset);
                }
            }
        }
    }
}
