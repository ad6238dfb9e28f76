//! Random crops and mirror images, the usual augmentation of small colour images.
//!
//! Source: K. He et al., *Deep Residual Learning for Image Recognition*, 2016, §4.2.

use crate::data::set::Shape;
use kronfleet_core::seed::Seed;
use std::ops::Range;

/// A random crop of the image padded by black pixels, mirrored with probability ½.
///
/// What happens to a sample depends only on `seed` and the number of its draw, so a restored
/// [`Sampler`](crate::data::sampler::Sampler) sees the same images again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augmentation {
    /// Black pixels added on each side before the image is cropped to its own size again.
    pub padding: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
    /// From where crops and mirror images are drawn.
    pub seed: Seed,
}

impl Augmentation {
    /// Padding 4 and mirror images.
    pub fn new(seed: Seed) -> Self {
        Self { padding: 4, flip: true, seed }
    }

    /// What happens to the sample of draw number `draw`.
    pub fn view(&self, draw: u64) -> View {
        let mut random = self.seed.derive("augmentation", draw).random();
        let choices = 2 * self.padding as u64 + 1;
        let mut shift = || random.below(choices) as isize - self.padding as isize;
        View { down: shift(), right: shift(), mirrored: self.flip && random.chance(0.5) }
    }
}

/// How an image is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Output row `h` shows row `h + down` of the image, black outside.
    pub down: isize,
    /// Output column `w` shows column `w + right` of the image before mirroring, black outside.
    pub right: isize,
    /// Whether the output is mirrored left to right.
    pub mirrored: bool,
}

impl View {
    /// The row of the image at output row `row`; `None` outside.
    pub fn row(&self, row: usize, shape: Shape) -> Option<usize> {
        row.checked_add_signed(self.down).filter(|&row| row < shape.height)
    }

    /// The output columns before mirroring that lie inside the image; those of the image begin at
    /// `start + right`. Empty if there are none.
    pub fn columns(&self, shape: Shape) -> Range<usize> {
        let left = self.right.saturating_neg();
        let [start, end] = [0, shape.width].map(|column| column.saturating_add_signed(left).min(shape.width));
        start..end.max(start)
    }
}
