//! Images with zeros around them, and where patches lie in them.

use crate::kernel::Runs;
use crate::scalar::Real;
use core::ops::Range;
use kronfleet_core::backend::Extent;

/// Bytes of padded images in a tile: small enough to stay in cache beside what is computed from them.
const TILE: usize = 192 << 10;

/// A sliding window over images padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) image: Extent,
    pub(crate) padding: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Rows and columns of positions.
    pub(crate) positions: [usize; 2],
}

impl Window {
    /// Scalars in a row of a padded image.
    pub(crate) fn row_len(&self) -> usize {
        (self.image.width + 2 * self.padding[1]) * self.image.channels
    }

    /// Scalars in a padded image.
    pub(crate) fn padded_len(&self) -> usize {
        (self.image.height + 2 * self.padding[0]) * self.row_len()
    }

    pub(crate) fn count(&self) -> usize {
        self.positions[0] * self.positions[1]
    }

    /// Samples whose padded images stay in cache.
    pub(crate) fn tile<S: Real>(&self) -> usize {
        (TILE / S::BYTES / self.padded_len().max(1)).max(1)
    }

    /// Runs in a patch: neighbouring elements of a kernel row are neighbours in memory unless dilated.
    pub(crate) fn run_count(&self) -> usize {
        self.kernel[0] * if self.dilation[1] == 1 { 1 } else { self.kernel[1] }
    }

    /// The runs of a patch, in a table of [`run_count`](Self::run_count) entries.
    pub(crate) fn runs<'a>(&self, offsets: &'a mut [usize]) -> Runs<'a> {
        let channels = self.image.channels;
        let per_row = self.run_count() / self.kernel[0];
        for (index, offset) in offsets.iter_mut().enumerate() {
            let (i, j) = (index / per_row, index % per_row);
            *offset = i * self.dilation[0] * self.row_len() + j * self.dilation[1] * channels;
        }
        Runs { offsets, len: if per_row == 1 { self.kernel[1] * channels } else { channels } }
    }

    /// Where the patches of a tile start, position by position.
    pub(crate) fn starts(&self, starts: &mut [usize]) {
        let count = self.count().max(1);
        for (sample, starts) in starts.chunks_mut(count).enumerate() {
            for (position, start) in starts.iter_mut().enumerate() {
                let (row, column) = (position / self.positions[1], position % self.positions[1]);
                let at = row * self.stride[0] * self.row_len() + column * self.stride[1] * self.image.channels;
                *start = sample * self.padded_len() + at;
            }
        }
    }

    /// Copies `samples` of `x` between zeros.
    pub(crate) fn pad<S: Real>(&self, samples: Range<usize>, x: &[S], padded: &mut [S]) {
        let zero = S::of(0.0);
        let (row_len, inner) = (self.row_len(), self.image.width * self.image.channels);
        let side = self.padding[1] * self.image.channels;
        let border = self.padding[0] * row_len;
        if self.image.is_empty() {
            return padded.fill(zero);
        }
        let images = x[samples.start * self.image.len()..samples.end * self.image.len()].chunks_exact(self.image.len());
        for (image, padded) in images.zip(padded.chunks_exact_mut(self.padded_len())) {
            let (top, rest) = padded.split_at_mut(border);
            let (middle, bottom) = rest.split_at_mut(self.image.height * row_len);
            top.fill(zero);
            bottom.fill(zero);
            for (row, target) in image.chunks_exact(inner).zip(middle.chunks_exact_mut(row_len)) {
                target[..side].fill(zero);
                target[side..side + inner].copy_from_slice(row);
                target[side + inner..].fill(zero);
            }
        }
    }
}
