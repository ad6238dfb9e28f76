//! Convolutions as products with patches, which are stored in half precision if [`Options::half`](crate::Options::half) says so.
//!
//! Patches are the largest that a convolutional network holds and what its products read most: an element of an image is in up
//! to as many as a kernel has taps. In half precision the scratch memory of a tile holds the patches of twice as many samples,
//! so a tile is half a batch, and the whole batch is unfolded into it at once. The gradient with respect to patches is stored
//! in single precision all the same, tile by tile: it is small where a network has learned, and half precision ends at 6·10⁻⁸.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::Stored;
use core::ops::Range;
use kronfleet_core::backend::{Backend, Convolution, Gemm, Map, MapJob, Outer, Statistic};
use kronfleet_core::matrix::Region;

/// Bytes of patches in one tile, at most.
const PATCHES: u64 = 64 << 20;

/// Samples that are unfolded together.
fn tiles(batch: usize, tile: usize) -> impl Iterator<Item = Range<usize>> {
    (0..batch).step_by(tile).map(move |first| first..(first + tile).min(batch))
}

impl Wgpu {
    /// How many samples' patches in single precision scratch memory holds.
    pub(crate) fn patch_tile(&self, shape: &Convolution, batch: usize) -> usize {
        let sample = 4 * (shape.patch_rows() * shape.output.positions()) as u64;
        let most = if self.device().half() { batch.div_ceil(2) } else { batch };
        ((self.limit().0 / 2).min(PATCHES) / sample.max(1)).clamp(1, most.max(1) as u64) as usize
    }

    /// How many samples' patches it holds as they are stored; how products with them, and of them alone, have to read them.
    fn stored_tile(&self, shape: &Convolution, batch: usize) -> (usize, bool, [Stored; 2]) {
        let tile = self.patch_tile(shape, batch);
        match self.device().half() {
            true => (2 * tile, true, [Stored::Second, Stored::Both]),
            false => (tile, false, [Stored::Full; 2]),
        }
    }

    pub(crate) fn run_convolution_forward(
        &mut self,
        shape: &Convolution,
        batch: usize,
        weights: (&Buffer, Region),
        [x, y, scratch]: [&Buffer; 3],
        mut statistic: Option<Statistic<'_, Self>>,
    ) -> Result<(), WgpuError> {
        let (tile, half, [second, both]) = self.stored_tile(shape, batch);
        for samples in tiles(batch, tile) {
            let columns = samples.len() * shape.output.positions();
            let patches = Region::matrix(0, shape.patch_rows(), columns);
            let target = Region::matrix(samples.start * shape.output.len(), shape.output.channels, columns);
            self.run_unfold(shape, samples, half, x, scratch)?;
            self.run_gemm(&[Gemm::product(weights.1, patches, target)], second, weights.0, scratch, y)?;
            if let Some(Statistic { target, region, scale }) = &mut statistic {
                let job = Outer { alpha: *scale, x: patches, beta: 1.0, c: *region };
                self.run_symmetric_product(&[job], both, scratch, target)?;
            }
        }
        Ok(())
    }

    pub(crate) fn run_convolution_backward(
        &mut self,
        shape: &Convolution,
        batch: usize,
        (weights, region): (&Buffer, Region),
        [x, dy, gradient, scratch]: [&Buffer; 4],
        dx: Option<&Buffer>,
        statistic: Option<Statistic<'_, Self>>,
    ) -> Result<(), WgpuError> {
        let (tile, half, [second, _]) = self.stored_tile(shape, batch);
        let cotangent = |samples: &Range<usize>| {
            let columns = samples.len() * shape.output.positions();
            (Region::matrix(samples.start * shape.output.len(), shape.output.channels, columns), columns)
        };
        let all = MapJob { x: region, y: region, out: region };
        self.run_map(Map::Fill(0.0), &[all], None, None, gradient)?;
        for samples in tiles(batch, tile) {
            let (cotangent, columns) = cotangent(&samples);
            self.run_unfold(shape, samples, half, x, scratch)?;
            let patches = Region::matrix(0, shape.patch_rows(), columns);
            let product = Gemm { alpha: 1.0, a: cotangent, b: patches.transposed(), beta: 1.0, c: region };
            self.run_gemm(&[product], second, dy, scratch, gradient)?;
        }
        if let Some(dx) = dx {
            let kernel = region.block(0, 0, region.rows, shape.patch_len());
            for samples in tiles(batch, self.patch_tile(shape, batch)) {
                let (cotangent, columns) = cotangent(&samples);
                let patches = Region::matrix(0, shape.patch_len(), columns);
                let product = Gemm::product(kernel.transposed(), cotangent, patches);
                self.run_gemm(&[product], Stored::Full, weights, dy, scratch)?;
                self.run_fold(shape, samples, scratch, dx)?;
            }
        }
        if let Some(Statistic { target, region, scale }) = statistic {
            let (all, _) = cotangent(&(0..batch));
            self.symmetric_product(&[Outer { alpha: scale, x: all, beta: 1.0, c: region }], dy, target)?;
        }
        Ok(())
    }
}
