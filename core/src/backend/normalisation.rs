//! Batch normalisation and EvoNorm-S0.

use crate::scalar::Scalar;

/// Batch normalisation (Ioffe & Szegedy 2015).
///
/// Layout: parameters and gradients `[γ; β]`, saved `[mean; 1/√(var + ε)]`, running `[mean; var]`, each of
/// `2·channels` scalars; activations `channels × columns`. The running variance is the unbiased one, as PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm<S> {
    /// Channels.
    pub channels: usize,
    /// ε.
    pub epsilon: S,
    /// Weight of the *new* statistics in the running ones (PyTorch's `momentum`, 0.1 by default).
    pub momentum: S,
}

/// EvoNorm-S0 (Liu et al. 2020): `y = x·σ(v·x) / √(var_group(x) + ε) · γ + β`, the variance (biased) over the pixels and
/// channels of one group of one sample.
///
/// Layout: parameters and gradients `[γ; β; v]`, `3·channels` scalars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvoNorm<S> {
    /// Channels.
    pub channels: usize,
    /// Pixels per sample.
    pub positions: usize,
    /// Groups; divides `channels`.
    pub groups: usize,
    /// ε.
    pub epsilon: S,
}

/// See [`Backend::batch_norm_forward`](super::Backend::batch_norm_forward). Sums in double precision.
///
/// # Panics
/// If a slice is too short.
pub fn batch_norm_forward<S: Scalar>(
    shape: &BatchNorm<S>,
    columns: usize,
    parameters: &[S],
    x: &[S],
    y: &mut [S],
    saved: &mut [S],
    running: &mut [S],
) {
    let channels = shape.channels;
    if columns == 0 {
        return;
    }
    for channel in 0..channels {
        let line = || x[channel..].iter().step_by(channels).take(columns).map(|value| value.wide());
        let mean = line().sum::<f64>() / columns as f64;
        let variance = line().map(|value| (value - mean) * (value - mean)).sum::<f64>() / columns as f64;
        let scale = 1.0 / libm::sqrt(variance + shape.epsilon.wide());
        saved[channel] = S::of(mean);
        saved[channels + channel] = S::of(scale);
        let momentum = shape.momentum.wide();
        let unbiased = variance * columns as f64 / (columns.max(2) - 1) as f64;
        let blend = |old: S, new: f64| S::of((1.0 - momentum) * old.wide() + momentum * new);
        running[channel] = blend(running[channel], mean);
        running[channels + channel] = blend(running[channels + channel], unbiased);
    }
    normalise(channels, columns, parameters, saved, x, y);
}

/// See [`Backend::batch_norm_evaluate`](super::Backend::batch_norm_evaluate).
///
/// # Panics
/// If a slice is too short.
pub fn batch_norm_evaluate<S: Scalar>(
    shape: &BatchNorm<S>,
    columns: usize,
    parameters: &[S],
    running: &[S],
    x: &[S],
    y: &mut [S],
) {
    let channels = shape.channels;
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)).take(columns) {
        for channel in 0..channels {
            let scale = (running[channels + channel] + shape.epsilon).sqrt();
            let normal = (x[channel] - running[channel]) / scale;
            y[channel] = normal * parameters[channel] + parameters[channels + channel];
        }
    }
}

fn normalise<S: Scalar>(channels: usize, columns: usize, parameters: &[S], saved: &[S], x: &[S], y: &mut [S]) {
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)).take(columns) {
        for channel in 0..channels {
            let normal = (x[channel] - saved[channel]) * saved[channels + channel];
            y[channel] = normal * parameters[channel] + parameters[channels + channel];
        }
    }
}

/// See [`Backend::batch_norm_backward`](super::Backend::batch_norm_backward). Sums in double precision.
///
/// # Panics
/// If a slice is too short.
pub fn batch_norm_backward<S: Scalar>(
    shape: &BatchNorm<S>,
    columns: usize,
    parameters: &[S],
    x: &[S],
    saved: &[S],
    dy: &[S],
    gradient: &mut [S],
    dx: &mut [S],
) {
    let channels = shape.channels;
    if columns == 0 {
        return;
    }
    for channel in 0..channels {
        let (mean, scale) = (saved[channel], saved[channels + channel]);
        let (mut of_scale, mut of_shift) = (0.0, 0.0);
        for column in 0..columns {
            let at = channel + column * channels;
            of_scale += (dy[at] * (x[at] - mean) * scale).wide();
            of_shift += dy[at].wide();
        }
        gradient[channel] = S::of(of_scale);
        gradient[channels + channel] = S::of(of_shift);
        let (slope, level) = (S::of(of_scale / columns as f64), S::of(of_shift / columns as f64));
        for column in 0..columns {
            let at = channel + column * channels;
            let normal = (x[at] - mean) * scale;
            dx[at] = parameters[channel] * scale * (dy[at] - level - normal * slope);
        }
    }
}

fn sigmoid<S: Scalar>(x: S) -> S {
    S::of(1.0) / (S::of(1.0) + (-x).exp())
}

/// Mean and variance of one group of one sample, in double precision.
fn group_moments<S: Scalar>(shape: &EvoNorm<S>, group: usize, image: &[S]) -> (f64, f64) {
    let width = shape.channels / shape.groups;
    let count = (width * shape.positions) as f64;
    let values = || {
        image
            .chunks_exact(shape.channels)
            .flat_map(|pixel| pixel[group * width..(group + 1) * width].iter().map(|value| value.wide()))
    };
    let mean = values().sum::<f64>() / count;
    let variance = values().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
    (mean, variance)
}

/// See [`Backend::evo_norm_forward`](super::Backend::evo_norm_forward).
///
/// # Panics
/// If a slice is too short.
pub fn evo_norm_forward<S: Scalar>(shape: &EvoNorm<S>, batch: usize, parameters: &[S], x: &[S], y: &mut [S]) {
    let (channels, len) = (shape.channels, shape.channels * shape.positions);
    let width = channels / shape.groups;
    for sample in 0..batch {
        let image = &x[sample * len..][..len];
        let target = &mut y[sample * len..][..len];
        for group in 0..shape.groups {
            let (_, variance) = group_moments(shape, group, image);
            let scale = S::of(1.0 / libm::sqrt(variance + shape.epsilon.wide()));
            for position in 0..shape.positions {
                for channel in group * width..(group + 1) * width {
                    let at = position * channels + channel;
                    let (gain, shift, v) =
                        (parameters[channel], parameters[channels + channel], parameters[2 * channels + channel]);
                    target[at] = image[at] * sigmoid(v * image[at]) * scale * gain + shift;
                }
            }
        }
    }
}

/// See [`Backend::evo_norm_backward`](super::Backend::evo_norm_backward). Sums in double precision.
///
/// With `s = σ(v·x)`, `r = 1/√(var + ε)`, `u = dy·γ`: `dγ = Σ dy·x·s·r`, `dβ = Σ dy`, `dv = Σ u·r·x²·s(1−s)`, and
/// `dx = u·r·(s + x·v·s(1−s)) − r³·(x − mean)/count · Σ_group u·x·s`.
///
/// # Panics
/// If a slice is too short.
pub fn evo_norm_backward<S: Scalar>(
    shape: &EvoNorm<S>,
    batch: usize,
    parameters: &[S],
    x: &[S],
    dy: &[S],
    gradient: &mut [S],
    dx: &mut [S],
) {
    let (channels, len) = (shape.channels, shape.channels * shape.positions);
    let width = channels / shape.groups;
    let one = S::of(1.0);
    gradient[..3 * channels].fill(S::of(0.0));
    for sample in 0..batch {
        let image = &x[sample * len..][..len];
        let cotangent = &dy[sample * len..][..len];
        let target = &mut dx[sample * len..][..len];
        for group in 0..shape.groups {
            let (mean, variance) = group_moments(shape, group, image);
            let scale = 1.0 / libm::sqrt(variance + shape.epsilon.wide());
            let r = S::of(scale);
            let mut through_variance = 0.0;
            for position in 0..shape.positions {
                for channel in group * width..(group + 1) * width {
                    let at = position * channels + channel;
                    let (gain, v) = (parameters[channel], parameters[2 * channels + channel]);
                    let (value, dy) = (image[at], cotangent[at]);
                    let s = sigmoid(v * value);
                    let u = dy * gain;
                    gradient[channel] += dy * value * s * r;
                    gradient[channels + channel] += dy;
                    gradient[2 * channels + channel] += u * r * value * value * s * (one - s);
                    through_variance += (u * value * s).wide();
                    target[at] = u * r * (s + value * v * s * (one - s));
                }
            }
            let count = (width * shape.positions) as f64;
            let slope = S::of(scale * scale * scale * through_variance / count);
            for position in 0..shape.positions {
                for channel in group * width..(group + 1) * width {
                    let at = position * channels + channel;
                    target[at] -= slope * (image[at] - S::of(mean));
                }
            }
        }
    }
}
