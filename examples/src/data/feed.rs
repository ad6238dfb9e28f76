//! From bytes of a data set to normalised activations in the caller's memory.

use crate::data::augmentation::{Augmentation, View};
use crate::data::normalisation::Normalisation;
use crate::data::set::{DataSet, Shape};
use kronfleet_core::scalar::Scalar;

/// Writes batches of one shape of image: normalised, augmented if wanted.
///
/// The pixels of a batch form a column-major activation matrix of `channels` rows and
/// `samples · height · width` columns: channels fastest, then columns of the image, rows, samples. Read as
/// `(channels · height · width) × samples`, the same memory is the input of a dense layer.
#[derive(Clone, Debug)]
pub struct Feed<S> {
    shape: Shape,
    /// `scale · byte + shift`, for each byte of one row of an image: repeated over the row, so that images of
    /// any number of channels are filled by one loop over contiguous memory.
    scale: Vec<S>,
    shift: Vec<S>,
    augmentation: Option<Augmentation>,
}

impl<S: Scalar> Feed<S> {
    /// A feed of images of the shape of `set`, normalised to `(pixel − mean) / deviation`.
    ///
    /// # Panics
    /// If `normalisation` has another number of channels than `set`.
    #[track_caller]
    pub fn new(set: &DataSet, normalisation: &Normalisation, augmentation: Option<Augmentation>) -> Self {
        let shape = set.shape();
        let Normalisation { mean, deviation } = normalisation;
        assert!(
            mean.len() == shape.channels && deviation.len() == shape.channels,
            "{} means and {} deviations for images of {shape}",
            mean.len(),
            deviation.len()
        );
        let scale = deviation.iter().map(|deviation| S::of(1.0 / (255.0 * deviation)));
        let shift = mean.iter().zip(deviation).map(|(mean, deviation)| S::of(-mean / deviation));
        let row = shape.width * shape.channels;
        Self { shape, scale: scale.cycle().take(row).collect(), shift: shift.cycle().take(row).collect(), augmentation }
    }

    /// Writes the images of `samples` to `pixels` and their classes to `labels`.
    ///
    /// `draw` is the number of the first sample's draw, as [`Sampler::draw`](crate::data::sampler::Sampler::draw)
    /// returned it; only augmentation depends on it. Nothing is allocated.
    ///
    /// # Panics
    /// If `pixels` or `labels` have not exactly the size of the batch, `set` has images of another shape, or
    /// a sample does not exist.
    #[track_caller]
    pub fn fill(&self, set: &DataSet, samples: &[u32], draw: u64, pixels: &mut [S], labels: &mut [u32]) {
        let shape = self.shape;
        assert_eq!(set.shape(), shape, "images of {} for a feed of {shape}", set.shape());
        assert!(
            pixels.len() == samples.len() * shape.len() && labels.len() == samples.len(),
            "room for {} pixels and {} labels, but {} samples of {shape}",
            pixels.len(),
            labels.len(),
            samples.len()
        );
        let targets = pixels.chunks_exact_mut(shape.len()).zip(labels);
        for ((&sample, draw), (target, label)) in samples.iter().zip(draw..).zip(targets) {
            let image = set.image(sample);
            *label = u32::from(set.labels()[sample as usize]);
            match &self.augmentation {
                None => self.write(image, target),
                Some(augmentation) => self.write_view(image, augmentation.view(draw), target),
            }
        }
    }

    fn write(&self, image: &[u8], target: &mut [S]) {
        let row = self.scale.len();
        for (target, source) in target.chunks_exact_mut(row).zip(image.chunks_exact(row)) {
            self.write_row(source, target);
        }
    }

    fn write_row(&self, source: &[u8], target: &mut [S]) {
        let coefficients = self.scale.iter().zip(&self.shift);
        for ((target, &byte), (&scale, &shift)) in target.iter_mut().zip(source).zip(coefficients) {
            *target = scale * S::of(f64::from(byte)) + shift;
        }
    }

    fn write_view(&self, image: &[u8], view: View, target: &mut [S]) {
        let (channels, row) = (self.shape.channels, self.scale.len());
        let columns = view.columns(self.shape);
        let source_start = columns.start.saturating_add_signed(view.right) * channels;
        let (start, end) = (columns.start * channels, columns.end * channels);
        for (h, target) in target.chunks_exact_mut(row).enumerate() {
            // Outside of the image all is black, and a black pixel is `shift`.
            let Some(source_row) = view.row(h, self.shape).filter(|_| !columns.is_empty()) else {
                target.copy_from_slice(&self.shift);
                continue;
            };
            target[..start].copy_from_slice(&self.shift[..start]);
            self.write_row(&image[source_row * row + source_start..][..end - start], &mut target[start..end]);
            target[end..].copy_from_slice(&self.shift[end..]);
            if view.mirrored {
                target.reverse();
                target.chunks_exact_mut(channels).for_each(<[S]>::reverse);
            }
        }
    }
}
