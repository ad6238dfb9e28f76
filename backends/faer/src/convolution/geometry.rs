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

    /// Elements of a run.
    pub(crate) fn run_len(&self) -> usize {
        if self.dilation[1] == 1 { self.kernel[1] * self.image.channels } else { self.image.channels }
    }

    /// The runs of a patch, in a table of [`run_count`](Self::run_count) entries.
    pub(crate) fn runs<'a>(&self, offsets: &'a mut [usize]) -> Runs<'a> {
        let channels = self.image.channels;
        let per_row = self.run_count() / self.kernel[0];
        for (index, offset) in offsets.iter_mut().enumerate() {
            let (i, j) = (index / per_row, index % per_row);
            *offset = i * self.dilation[0] * self.row_len() + j * self.dilation[1] * channels;
        }
        Runs { offsets, len: self.run_len() }
    }

    /// Where the patches of a tile start, position by position.
    pub(crate) fn starts(&self, starts: &mut [usize]) {
        let (lines, step) = (self.positions[0].max(1), self.step());
        for (index, starts) in starts.chunks_mut(self.positions[1].max(1)).enumerate() {
            let line = self.line(index / lines, index % lines);
            for (column, start) in starts.iter_mut().enumerate() {
                *start = line + column * step;
            }
        }
    }

    /// The window of two neighbouring positions, where neighbouring positions see neighbouring pixels: each kernel row a
    /// pixel longer. The stride stays that of a position.
    pub(crate) fn pair(&self) -> Option<Self> {
        let [rows, columns] = self.positions;
        let pairs = self.stride[1] == 1 && self.dilation[1] == 1 && columns % 2 == 0;
        let kernel = [self.kernel[0], self.kernel[1] + 1];
        pairs.then_some(Self { kernel, positions: [rows, columns / 2], ..*self })
    }

    /// From one patch of a line of positions to the next.
    pub(crate) fn step(&self) -> usize {
        self.stride[1] * self.image.channels
    }

    fn line(&self, sample: usize, row: usize) -> usize {
        sample * self.padded_len() + row * self.stride[0] * self.row_len()
    }

    /// Where each line of positions of a tile starts.
    pub(crate) fn lines(&self, lines: &mut [usize]) {
        let rows = self.positions[0].max(1);
        for (index, line) in lines.iter_mut().enumerate() {
            *line = self.line(index / rows, index % rows);
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

    /// Columns of the padded image that lie a stride apart, in one line of the planes: room for the last patch, too.
    fn phase_len(&self) -> usize {
        let last = (self.kernel[1] - 1) * self.dilation[1] / self.stride[1] + self.positions[1];
        (self.image.width + 2 * self.padding[1]).div_ceil(self.stride[1]).max(last)
    }

    /// One row of all planes.
    pub(crate) fn plane_row_len(&self) -> usize {
        self.image.channels * self.stride[1] * self.phase_len()
    }

    /// Scalars of a sample's planes.
    ///
    /// Planes hold what a padded image does, with columns fastest: by row, by channel, by column modulo the stride. So
    /// patches of neighbouring positions start next to each other.
    pub(crate) fn planes_len(&self) -> usize {
        (self.image.height + 2 * self.padding[0]) * self.plane_row_len()
    }

    /// How far each element of a patch lies from its start in the planes, in the order of patches.
    pub(crate) fn taps(&self, taps: &mut [usize]) {
        let channels = self.image.channels;
        for (element, tap) in taps.iter_mut().enumerate() {
            let (kernel, channel) = (element / channels, element % channels);
            let (down, right) =
                (kernel / self.kernel[1] * self.dilation[0], kernel % self.kernel[1] * self.dilation[1]);
            let (phase, shift) = (right % self.stride[1], right / self.stride[1]);
            *tap = down * self.plane_row_len() + (channel * self.stride[1] + phase) * self.phase_len() + shift;
        }
    }

    /// Where each line of positions of a tile starts in the planes.
    pub(crate) fn plane_starts(&self, starts: &mut [usize]) {
        let lines = self.positions[0].max(1);
        for (index, start) in starts.iter_mut().enumerate() {
            let (sample, row) = (index / lines, index % lines);
            *start = sample * self.planes_len() + row * self.stride[0] * self.plane_row_len();
        }
    }

    /// Copies `samples` of `x` into planes.
    pub(crate) fn spread<S: Real>(&self, samples: Range<usize>, x: &[S], planes: &mut [S]) {
        let zero = S::of(0.0);
        let (row_len, line) = (self.plane_row_len(), self.phase_len());
        let (channels, [stride, padding]) = (self.image.channels, [self.stride[1], self.padding[1]]);
        if self.image.is_empty() {
            return planes.fill(zero);
        }
        let images = x[samples.start * self.image.len()..samples.end * self.image.len()].chunks_exact(self.image.len());
        for (image, planes) in images.zip(planes.chunks_exact_mut(self.planes_len())) {
            let (top, rest) = planes.split_at_mut(self.padding[0] * row_len);
            let (middle, bottom) = rest.split_at_mut(self.image.height * row_len);
            top.fill(zero);
            bottom.fill(zero);
            let rows = image.chunks_exact(self.image.width * channels);
            for (row, target) in rows.zip(middle.chunks_exact_mut(row_len)) {
                for phase in 0..stride {
                    // Columns phase, phase + stride, … of the padded image, of which the first `skip` are padding.
                    let skip = padding.saturating_sub(phase).div_ceil(stride);
                    let first = phase + skip * stride - padding;
                    let count = self.image.width.saturating_sub(first).div_ceil(stride);
                    for line in target[phase * line..].chunks_mut(stride * line).map(|lines| &mut lines[..line]) {
                        line[..skip].fill(zero);
                        line[skip + count..].fill(zero);
                    }
                    let pixels = row.get(first * channels..).unwrap_or_default();
                    let lines = &mut target[phase * line + skip..];
                    transpose([channels, count], pixels, channels * stride, lines, stride * line);
                }
            }
        }
    }
}

/// `target[row · target_step + column] ← source[column · source_step + row]`.
fn transpose<S: Real>(
    [rows, columns]: [usize; 2],
    source: &[S],
    source_step: usize,
    target: &mut [S],
    target_step: usize,
) {
    const EDGE: usize = 4;
    if source_step == 1 {
        return target[..columns].copy_from_slice(&source[..columns]);
    }
    let whole = [rows - rows % EDGE, columns - columns % EDGE];
    for left in (0..whole[1]).step_by(EDGE) {
        for top in (0..whole[0]).step_by(EDGE) {
            let block: [&[S; EDGE]; EDGE] = core::array::from_fn(|column| {
                source[(left + column) * source_step + top..].first_chunk().expect("a whole block")
            });
            for row in 0..EDGE {
                let line = [block[0][row], block[1][row], block[2][row], block[3][row]];
                target[(top + row) * target_step + left..][..EDGE].copy_from_slice(&line);
            }
        }
    }
    let mut copy = |row: usize, column: usize| target[row * target_step + column] = source[column * source_step + row];
    for row in 0..rows {
        for column in if row < whole[0] { whole[1]..columns } else { 0..columns } {
            copy(row, column);
        }
    }
}
