//! Maximum and mean pooling.

use super::convolution::{Convolution, Extent};
use crate::scalar::Scalar;

/// What a pooling window gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// The largest element; padding never wins.
    Maximum,
    /// The mean over the whole window, padding counted as zeros.
    Mean,
}

/// The geometry of a pooling layer; pairs are (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pooling {
    /// Maximum or mean.
    pub pool: Pool,
    /// Windows, as those of a convolution without bias that keeps the channels.
    pub windows: Convolution,
}

impl Pooling {
    /// Computes the output's extent; `None` where the window does not fit or padding exceeds half of it.
    pub fn new(pool: Pool, input: Extent, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Option<Self> {
        let fits = (0..2).all(|axis| 2 * padding[axis] <= kernel[axis]);
        let windows = Convolution::new(input, input.channels, kernel, stride, padding, [1, 1], false)?;
        fits.then_some(Self { pool, windows })
    }

    /// The mean over all pixels of each channel.
    ///
    /// `None` for an empty input.
    pub fn global(input: Extent) -> Option<Self> {
        let window = [input.height, input.width];
        Self::new(Pool::Mean, input, window, [1, 1], [0, 0])
    }

    fn share<S: Scalar>(&self) -> S {
        S::of(1.0 / (self.windows.kernel[0] * self.windows.kernel[1]) as f64)
    }

    /// Calls `visit(output index, input index)` for every element of every window, in window order.
    fn each(&self, batch: usize, mut visit: impl FnMut(usize, usize)) {
        let (w, channels) = (&self.windows, self.windows.input.channels);
        for sample in 0..batch {
            for row in 0..w.output.height {
                for column in 0..w.output.width {
                    let out = ((sample * w.output.height + row) * w.output.width + column) * channels;
                    for i in 0..w.kernel[0] {
                        for j in 0..w.kernel[1] {
                            if let Some((y, x)) = w.source(row, column, i, j) {
                                let at = ((sample * w.input.height + y) * w.input.width + x) * channels;
                                for channel in 0..channels {
                                    visit(out + channel, at + channel);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// See [`Backend::pool_forward`](super::Backend::pool_forward).
///
/// # Panics
/// If a slice is too short.
pub fn pool_forward<S: Scalar>(shape: &Pooling, batch: usize, x: &[S], y: &mut [S]) {
    let y = &mut y[..batch * shape.windows.output.len()];
    match shape.pool {
        Pool::Maximum => {
            y.fill(S::neg_infinity());
            // A NaN wins, so that it is seen.
            shape.each(batch, |out, at| {
                if x[at] > y[out] || x[at].is_nan() {
                    y[out] = x[at];
                }
            });
        }
        Pool::Mean => {
            y.fill(S::of(0.0));
            let share = shape.share::<S>();
            shape.each(batch, |out, at| y[out] += x[at] * share);
        }
    }
}

/// See [`Backend::pool_backward`](super::Backend::pool_backward).
///
/// # Panics
/// If a slice is too short.
pub fn pool_backward<S: Scalar>(shape: &Pooling, batch: usize, x: &[S], dy: &[S], dx: &mut [S]) {
    let w = &shape.windows;
    dx[..batch * w.input.len()].fill(S::of(0.0));
    if shape.pool == Pool::Mean {
        let share = shape.share::<S>();
        return shape.each(batch, |out, at| dx[at] += dy[out] * share);
    }
    let channels = w.input.channels;
    for sample in 0..batch {
        for row in 0..w.output.height {
            for column in 0..w.output.width {
                let out = ((sample * w.output.height + row) * w.output.width + column) * channels;
                for channel in 0..channels {
                    let mut best: Option<usize> = None;
                    for i in 0..w.kernel[0] {
                        for j in 0..w.kernel[1] {
                            if let Some((y, column)) = w.source(row, column, i, j) {
                                let at = ((sample * w.input.height + y) * w.input.width + column) * channels + channel;
                                if best.is_none_or(|best| x[at] > x[best] || x[at].is_nan()) {
                                    best = Some(at);
                                }
                            }
                        }
                    }
                    if let Some(best) = best {
                        dx[best] += dy[out + channel];
                    }
                }
            }
        }
    }
}
