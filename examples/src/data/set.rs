//! A data set in memory: one byte per pixel, one per label.

use kronfleet_core::seed::Seed;
use std::fmt;

/// The shape of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// 1 for grey images, 3 for colour.
    pub channels: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
}

impl Shape {
    /// Bytes of one image: `channels · height · width`.
    #[expect(clippy::len_without_is_empty, reason = "a data set has no empty images")]
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {} × {}", self.channels, self.height, self.width)
    }
}

/// Images and their labels.
///
/// Pixels lie as the layers read activations: channels fastest, then columns, rows, samples; the pixel of
/// sample `n`, row `h`, column `w`, channel `c` is at `((n·height + h)·width + w)·channels + c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSet {
    shape: Shape,
    classes: usize,
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl DataSet {
    /// Images of `shape` with one label each, below `classes`.
    ///
    /// # Panics
    /// If `pixels` are not exactly one image of `shape` per label, there is no sample, an image has no
    /// pixel, there are more than `u32::MAX` samples, or a label is not below `classes`.
    #[track_caller]
    pub fn new(shape: Shape, classes: usize, pixels: Vec<u8>, labels: Vec<u8>) -> Self {
        assert!(shape.len() > 0 && !labels.is_empty(), "{} images of {shape} are no data set", labels.len());
        assert!(u32::try_from(labels.len()).is_ok(), "{} samples cannot be numbered by a u32", labels.len());
        assert_eq!(
            pixels.len(),
            shape.len() * labels.len(),
            "{} pixels are not {} images of {shape}",
            pixels.len(),
            labels.len()
        );
        if let Some(label) = labels.iter().find(|&&label| usize::from(label) >= classes) {
            panic!("label {label} is not one of {classes} classes");
        }
        Self { shape, classes, pixels, labels }
    }

    /// The shape of one image.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Labels are below this number.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The number of samples.
    #[expect(clippy::len_without_is_empty, reason = "a data set has samples")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The label of each sample.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// All pixels, image after image.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels of one image.
    ///
    /// # Panics
    /// If there is no such sample.
    #[track_caller]
    pub fn image(&self, sample: u32) -> &[u8] {
        let sample = sample as usize;
        assert!(sample < self.len(), "sample {sample} of {} does not exist", self.len());
        &self.pixels[sample * self.shape.len()..][..self.shape.len()]
    }

    /// The numbers of `per_class` samples of each class, drawn by `seed`, in ascending order.
    ///
    /// A class with fewer samples gives all it has.
    pub fn stratified(&self, per_class: usize, seed: Seed) -> Vec<u32> {
        let mut chosen = Vec::new();
        for class in 0..self.classes {
            let mut members: Vec<u32> =
                (0..).zip(&self.labels).filter(|(_, label)| usize::from(**label) == class).map(|(n, _)| n).collect();
            seed.derive("class", class as u64).random().shuffle(&mut members);
            chosen.extend(members.iter().take(per_class));
        }
        chosen.sort_unstable();
        chosen
    }

    /// A data set of these samples, in this order.
    ///
    /// # Panics
    /// If `samples` is empty or names one that does not exist.
    #[track_caller]
    pub fn select(&self, samples: &[u32]) -> Self {
        let mut pixels = Vec::with_capacity(samples.len() * self.shape.len());
        let mut labels = Vec::with_capacity(samples.len());
        for &sample in samples {
            pixels.extend(self.image(sample));
            labels.push(self.labels[sample as usize]);
        }
        Self::new(self.shape, self.classes, pixels, labels)
    }
}
