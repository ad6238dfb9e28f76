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
    sides: Vec<Side>,
    /// By block: A, G.
    layout: Vec<[Vec<Side>; 2]>,
    /// Scalars of the statistics that passes write.
    statistics: usize,
    whole: Option<Whole<B>>,
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
        let (layout, own) = lay_out::<B::Scalar>(&blocks, len, limit);
        let mut sides: Vec<Side> = layout.iter().flatten().flatten().copied().collect();
        sides.sort_by_key(|side| side.index);
        let groups: Vec<Vec<Region>> =
            layout.iter().map(|of| of.iter().flatten().map(|side| side.region).collect()).collect();
        let whole = if sides.len() > 2 * blocks.len() {
            let mut jobs: Vec<MapJob> = sides.iter().flat_map(|side| cuts(&blocks[side.block], side)).collect();
            jobs.sort_by_key(|job| job.out.end());
            Some(Whole { statistics: backend.allocate(len)?, jobs })
        } else {
            None
        };
        Ok(Self { means: RunningMeans::new(backend, own, &groups)?, blocks, sides, layout, statistics: len, whole })
    }

    /// The blocks, in order; their regions are those of the statistics.
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
        if self.whole.is_none() {
            return Ok(found);
        }
        let [values, weights] = found;
        let mut all = vec![B::Scalar::of(0.0); self.statistics];
        for side in &self.sides {
            let own = &values[side.region.offset..side.region.end()];
            side.put(own, self.factor(side), &mut all);
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
        let (of_values, of_weights) = self.means.estimate_mut();
        backend.upload(weights, of_weights, 0)?;
        if self.whole.is_none() {
            return backend.upload(values, of_values, 0);
        }
        let mut own = vec![B::Scalar::of(0.0); of_values.len()];
        for side in &self.sides {
            side.take(factor(&self.blocks, side), values, &mut own[side.region.offset..side.region.end()]);
        }
        backend.upload(&own, of_values, 0)
    }

    /// Scalars of the running averages.
    pub(crate) fn len(&self) -> usize {
        self.means.values().len()
    }

    /// All diagonal blocks, in ascending order of their regions, as the backend wants its jobs.
    pub(crate) fn sides(&self) -> &[Side] {
        &self.sides
    }

    /// The same by the network's blocks: those of A, those of G.
    pub(crate) fn layout(&self) -> &[[Vec<Side>; 2]] {
        &self.layout
    }

    /// The factor that a diagonal block is of, in the statistics.
    fn factor(&self, side: &Side) -> Region {
        factor(&self.blocks, side)
    }
}

fn factor(blocks: &[Block], side: &Side) -> Region {
    let block = &blocks[side.block];
    if side.slot == side.block { block.a } else { block.g }
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
