//! Two-dimensional convolution as products with patches.

use crate::scalar::Scalar;
use core::ops::Range;

/// The shape of one sample of an activation: channels fastest, then width, then height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Channels.
    pub channels: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
}

impl Extent {
    /// The extent with these channels, this height and this width.
    pub const fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// A vector: one pixel of `channels` channels.
    pub const fn flat(channels: usize) -> Self {
        Self::new(channels, 1, 1)
    }

    /// Pixels.
    pub const fn positions(self) -> usize {
        self.height * self.width
    }

    /// Scalars.
    pub const fn len(self) -> usize {
        self.channels * self.positions()
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl core::fmt::Display for Extent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}×{}×{}", self.channels, self.height, self.width)
    }
}

/// The geometry of a convolution; pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// One input sample.
    pub input: Extent,
    /// One output sample.
    pub output: Extent,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Distance between neighbouring patches.
    pub stride: [usize; 2],
    /// Zeros on each side.
    pub padding: [usize; 2],
    /// Distance between neighbouring elements of a patch.
    pub dilation: [usize; 2],
    /// Whether a patch ends with a 1, so that the last column of the weights is the bias.
    pub bias: bool,
}

impl Convolution {
    /// Computes the output's extent; `None` where the dilated kernel is larger than the padded input, or a stride,
    /// dilation or kernel extent is 0.
    pub fn new(
        input: Extent,
        channels: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: [usize; 2],
        bias: bool,
    ) -> Option<Self> {
        let along = |extent: usize, axis: usize| {
            let reach = dilation[axis].checked_mul(kernel[axis].checked_sub(1)?)? + 1;
            let padded = extent + 2 * padding[axis];
            if dilation[axis] == 0 { None } else { Some(padded.checked_sub(reach)?.checked_div(stride[axis])? + 1) }
        };
        let output = Extent::new(channels, along(input.height, 0)?, along(input.width, 1)?);
        Some(Self { input, output, kernel, stride, padding, dilation, bias })
    }

    /// Elements of a patch without the bias: `channels · kernel height · kernel width`.
    pub const fn patch_len(&self) -> usize {
        self.input.channels * self.kernel[0] * self.kernel[1]
    }

    /// Elements of a patch, the bias's 1 included.
    pub const fn patch_rows(&self) -> usize {
        self.patch_len() + self.bias as usize
    }

    /// The input pixel that output pixel `(row, column)` sees at kernel element `(i, j)`, unless it is padding.
    #[inline]
    pub const fn source(&self, row: usize, column: usize, i: usize, j: usize) -> Option<(usize, usize)> {
        let y = row * self.stride[0] + i * self.dilation[0];
        let x = column * self.stride[1] + j * self.dilation[1];
        if y < self.padding[0] || x < self.padding[1] {
            return None;
        }
        let (y, x) = (y - self.padding[0], x - self.padding[1]);
        if y < self.input.height && x < self.input.width { Some((y, x)) } else { None }
    }
}

/// Writes patches; see [`Backend::unfold`](super::Backend::unfold).
///
/// # Panics
/// If a slice is too short.
pub fn unfold<S: Scalar>(shape: &Convolution, samples: Range<usize>, x: &[S], patches: &mut [S]) {
    let channels = shape.input.channels;
    let rows = shape.patch_rows();
    let mut next = 0;
    for sample in samples {
        let image = &x[sample * shape.input.len()..][..shape.input.len()];
        for row in 0..shape.output.height {
            for column in 0..shape.output.width {
                let patch = &mut patches[next..next + rows];
                next += rows;
                let mut element = 0;
                for i in 0..shape.kernel[0] {
                    for j in 0..shape.kernel[1] {
                        let target = &mut patch[element..element + channels];
                        element += channels;
                        match shape.source(row, column, i, j) {
                            Some((y, x)) => {
                                let at = (y * shape.input.width + x) * channels;
                                target.copy_from_slice(&image[at..at + channels]);
                            }
                            None => target.fill(S::of(0.0)),
                        }
                    }
                }
                if shape.bias {
                    patch[element] = S::of(1.0);
                }
            }
        }
    }
}

/// Sums patches back onto pixels; see [`Backend::fold`](super::Backend::fold).
///
/// # Panics
/// If a slice is too short.
pub fn fold<S: Scalar>(shape: &Convolution, samples: Range<usize>, patches: &[S], x: &mut [S]) {
    let channels = shape.input.channels;
    let rows = shape.patch_len();
    let mut next = 0;
    for sample in samples {
        let image = &mut x[sample * shape.input.len()..][..shape.input.len()];
        image.fill(S::of(0.0));
        for row in 0..shape.output.height {
            for column in 0..shape.output.width {
                let patch = &patches[next..next + rows];
                next += rows;
                for (element, source) in patch.chunks_exact(channels.max(1)).enumerate() {
                    let (i, j) = (element / shape.kernel[1], element % shape.kernel[1]);
                    if let Some((y, x)) = shape.source(row, column, i, j) {
                        let at = (y * shape.input.width + x) * channels;
                        for (target, &value) in image[at..at + channels].iter_mut().zip(source) {
                            *target += value;
                        }
                    }
                }
            }
        }
    }
}
