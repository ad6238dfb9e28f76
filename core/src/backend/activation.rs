//! The option-A shortcut: a strided, zero-padded identity.

use super::convolution::Extent;
use crate::scalar::Scalar;

/// Calls `visit(output index, input index, channels)` for every pixel that is carried over.
fn each(input: Extent, output: Extent, stride: usize, batch: usize, mut visit: impl FnMut(usize, usize, usize)) {
    let front = (output.channels - input.channels) / 2;
    for sample in 0..batch {
        for row in 0..output.height {
            for column in 0..output.width {
                let out = ((sample * output.height + row) * output.width + column) * output.channels + front;
                let at = ((sample * input.height + row * stride) * input.width + column * stride) * input.channels;
                visit(out, at, input.channels);
            }
        }
    }
}

/// See [`Backend::subsample`](super::Backend::subsample).
///
/// # Panics
/// If a slice is too short, or the output has fewer channels than the input.
pub fn subsample<S: Scalar>(
    input: Extent,
    output: Extent,
    stride: usize,
    batch: usize,
    accumulate: bool,
    x: &[S],
    y: &mut [S],
) {
    if !accumulate {
        y[..batch * output.len()].fill(S::of(0.0));
    }
    each(input, output, stride, batch, |out, at, channels| {
        for (target, &value) in y[out..out + channels].iter_mut().zip(&x[at..at + channels]) {
            *target += value;
        }
    });
}

/// See [`Backend::subsample_adjoint`](super::Backend::subsample_adjoint).
///
/// # Panics
/// If a slice is too short, or the output has fewer channels than the input.
pub fn subsample_adjoint<S: Scalar>(
    input: Extent,
    output: Extent,
    stride: usize,
    batch: usize,
    dy: &[S],
    dx: &mut [S],
) {
    each(input, output, stride, batch, |out, at, channels| {
        for (target, &value) in dx[at..at + channels].iter_mut().zip(&dy[out..out + channels]) {
            *target += value;
        }
    });
}
