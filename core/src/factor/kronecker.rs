//! The two Kronecker factors of every block.

use super::RunningMeans;
use crate::backend::Backend;
use crate::layer::Block;
use crate::matrix::Region;
use alloc::vec::Vec;

/// Running averages of `A` and `G` of every block of a network, in the layout of its statistics.
///
/// A block's two factors are accepted or refused together, so that they always describe the same batches.
pub struct KroneckerFactors<B: Backend> {
    blocks: Vec<Block>,
    means: RunningMeans<B>,
}

/// One factor: which block, which side, where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Number of the block.
    pub(crate) block: usize,
    /// `block` for A, `blocks + block` for G: its place in small vectors with one scalar per factor.
    pub(crate) slot: usize,
    /// Where it lies in the flat statistics.
    pub(crate) region: Region,
}

impl<B: Backend> KroneckerFactors<B> {
    /// Factors of `blocks` over statistics of `len` scalars, from zero.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(backend: &mut B, blocks: Vec<Block>, len: usize) -> Result<Self, B::Error> {
        let groups: Vec<Vec<Region>> = blocks.iter().map(|block| alloc::vec![block.a, block.g]).collect();
        Ok(Self { means: RunningMeans::new(backend, len, &groups)?, blocks })
    }

    /// The blocks, in order.
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

    /// All factors, in ascending order of their regions, as the backend wants its jobs.
    pub(crate) fn sides(&self) -> Vec<Side> {
        let count = self.blocks.len();
        let mut sides = Vec::with_capacity(2 * count);
        for (block, of) in self.blocks.iter().enumerate() {
            sides.push(Side { block, slot: block, region: of.a });
            sides.push(Side { block, slot: count + block, region: of.g });
        }
        sides.sort_by_key(|side| side.region.end());
        sides
    }
}
