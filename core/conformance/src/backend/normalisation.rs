//! Batch normalisation and EvoNorm-S0.
//!
//! Errors: with `e_μ` the error of a mean over n elements, a variance is off by `(n + c)·ε·var + e_μ²`, and what is
//! divided by its root by half of that in relation; gradients by the sums of the magnitudes of their terms.

use super::bound::{Expected, Near, unit};
use super::case::{Case, match_oracle};
use super::data::{POISON, Values, done, fetch, upload, values};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, BatchNorm, EvoNorm};
use kronfleet_core::scalar::Scalar;
use proptest::prelude::*;

/// Training mode: output, saved and running statistics, with parameters inside larger buffers.
pub fn batch_norm_matches_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, batch_norms(Pass::Forward))
}

/// Evaluation mode uses the running statistics and changes nothing.
pub fn batch_norm_evaluation_matches_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, batch_norms(Pass::Evaluate))
}

/// Gradients with respect to scale, shift and input.
pub fn batch_norm_gradients_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, batch_norms(Pass::Backward))
}

/// EvoNorm-S0 normalises by the variance of each group of each sample.
pub fn evo_norm_matches_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, evo_norms(Pass::Forward))
}

/// Gradients with respect to scale, shift, v and input.
pub fn evo_norm_gradients_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, evo_norms(Pass::Backward))
}

/// Which of the operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pass {
    Forward,
    Evaluate,
    Backward,
}

impl Pass {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Forward, Self::Evaluate, Self::Backward];
}

/// One batch normalisation.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pass: Pass,
    channels: usize,
    columns: usize,
    /// Where the parameters, and their gradients, begin.
    at: usize,
    /// `[γ; β]`.
    parameters: Values,
    /// `[mean; variance]`: the running ones.
    running: Values,
    x: Values,
    dy: Values,
}

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

pub(crate) fn batch_norms(pass: Pass) -> impl Strategy<Value = Batch> + Clone {
    (1..=9_usize, 0..=70_usize, 0..5_usize).prop_flat_map(move |(channels, columns, at)| {
        let len = channels * columns;
        (values(2 * channels), values(2 * channels), values(len), values(len)).prop_map(
            move |(parameters, mut running, x, dy)| {
                running.0[channels..].iter_mut().for_each(|variance| *variance = variance.abs() + 0.1);
                Batch { pass, channels, columns, at, parameters, running, x, dy }
            },
        )
    })
}

/// `values` behind `at` poisoned elements.
fn shifted(at: usize, values: &[f64]) -> Vec<f64> {
    let mut content = vec![POISON; at];
    content.extend(values);
    content
}

/// Mean, biased variance, their errors, and the relative error of `1/√(variance + ε)`.
struct Moments {
    mean: f64,
    variance: f64,
    mean_error: f64,
    variance_error: f64,
    scale: f64,
    scale_error: f64,
}

fn moments<S: Scalar>(values: &[f64], epsilon: f64) -> Moments {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n as f64;
    let mean_error = unit::<S>(n) * values.iter().map(|value| value.abs()).sum::<f64>() / n as f64;
    let variance_error = unit::<S>(n + 4) * variance + 2.0 * mean_error * mean_error;
    let scale = 1.0 / (variance + epsilon).sqrt();
    let scale_error = variance_error / (variance + epsilon) + unit::<S>(4);
    Moments { mean, variance, mean_error, variance_error, scale, scale_error }
}

impl Batch {
    fn shape<S: Scalar>(&self) -> BatchNorm<S> {
        BatchNorm { channels: self.channels, epsilon: S::of(EPSILON), momentum: S::of(MOMENTUM) }
    }

    fn line<S: Scalar>(&self, values: &Values, channel: usize) -> Vec<f64> {
        let line = values.0.iter().skip(channel).step_by(self.channels);
        line.map(|&value| S::of(value).wide()).collect()
    }

    /// `[mean; 1/√(var + ε)]` of this batch, as an earlier forward pass would have saved them.
    fn saved<S: Scalar>(&self) -> Vec<f64> {
        let of = |channel| moments::<S>(&self.line::<S>(&self.x, channel), EPSILON);
        let means = (0..self.channels).map(|channel| of(channel).mean);
        let scales = (0..self.channels).map(|channel| of(channel).scale);
        let saved = means.chain(scales).map(|value| S::of(value).wide()).collect();
        if self.columns == 0 { vec![1.0; 2 * self.channels] } else { saved }
    }
}

impl Case for Batch {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let (shape, columns, at) = (self.shape(), self.columns, self.at);
        let parameters = upload(backend, &shifted(at, &self.parameters.0));
        let mut running = upload(backend, &shifted(at, &self.running.0));
        let x = upload(backend, &self.x.0);
        let mut out = upload(backend, &vec![POISON; self.x.0.len()]);
        match self.pass {
            Pass::Forward => {
                let mut saved = upload(backend, &vec![POISON; 2 * self.channels]);
                let (parameters, running_at) = ((&parameters, at), (&mut running, at));
                done(backend.batch_norm_forward(&shape, columns, parameters, &x, &mut out, &mut saved, running_at));
                vec![fetch(backend, &out), fetch(backend, &saved), fetch(backend, &running)]
            }
            Pass::Evaluate => {
                done(backend.batch_norm_evaluate(&shape, columns, (&parameters, at), (&running, at), &x, &mut out));
                vec![fetch(backend, &out), fetch(backend, &running)]
            }
            Pass::Backward => {
                let saved = self.saved::<B::Scalar>();
                let (saved, dy) = (upload(backend, &saved), upload(backend, &self.dy.0));
                let mut gradient = upload(backend, &vec![POISON; at + 2 * self.channels]);
                let parameters = (&parameters, at);
                done(backend.batch_norm_backward(
                    &shape,
                    columns,
                    parameters,
                    &x,
                    &saved,
                    &dy,
                    &mut gradient,
                    &mut out,
                ));
                vec![fetch(backend, &out), fetch(backend, &gradient)]
            }
        }
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        match self.pass {
            Pass::Forward => self.expected_forward::<S>(),
            Pass::Evaluate => self.expected_evaluation::<S>(),
            Pass::Backward => self.expected_backward::<S>(),
        }
    }
}

impl Batch {
    fn parameter<S: Scalar>(&self, at: usize) -> f64 {
        S::of(self.parameters.0[at]).wide()
    }

    fn expected_forward<S: Scalar>(&self) -> Vec<Expected> {
        let (channels, columns) = (self.channels, self.columns);
        let epsilon = S::of(EPSILON).wide();
        let momentum = S::of(MOMENTUM).wide();
        let mut y = Expected::unchanged::<S>("y", &vec![POISON; self.x.0.len()]);
        let mut saved = Expected::unchanged::<S>("saved", &vec![POISON; 2 * channels]);
        let mut running = Expected::unchanged::<S>("running", &shifted(self.at, &self.running.0));
        for channel in 0..if columns == 0 { 0 } else { channels } {
            let line = self.line::<S>(&self.x, channel);
            let m = moments::<S>(&line, epsilon);
            let (gain, shift) = (self.parameter::<S>(channel), self.parameter::<S>(channels + channel));
            for (column, &x) in line.iter().enumerate() {
                let normal = (x - m.mean) * m.scale;
                let error =
                    m.scale * (m.mean_error + unit::<S>(2) * (x.abs() + m.mean.abs())) + normal.abs() * m.scale_error;
                let value = normal * gain + shift;
                let error = error * gain.abs() + unit::<S>(2) * ((normal * gain).abs() + shift.abs());
                y.content[channel + column * channels] = Near { value, error };
            }
            saved.content[channel] = Near { value: m.mean, error: m.mean_error + unit::<S>(1) * m.mean.abs() };
            saved.content[channels + channel] = Near { value: m.scale, error: m.scale * m.scale_error };
            let bessel = columns as f64 / (columns.max(2) - 1) as f64;
            let blend = |at: usize, new: f64, error: f64| {
                let old = (1.0 - momentum) * S::of(self.running.0[at]).wide();
                let value = old + momentum * new;
                Near { value, error: momentum * error + unit::<S>(4) * (old.abs() + momentum * new.abs()) }
            };
            running.content[self.at + channel] = blend(channel, m.mean, m.mean_error);
            running.content[self.at + channels + channel] =
                blend(channels + channel, m.variance * bessel, m.variance_error * bessel);
        }
        vec![y, saved, running]
    }

    fn expected_evaluation<S: Scalar>(&self) -> Vec<Expected> {
        let channels = self.channels;
        let running = |at: usize| S::of(self.running.0[at]).wide();
        let near = |(at, &x): (usize, &f64)| {
            let channel = at % channels;
            let (gain, shift) = (self.parameter::<S>(channel), self.parameter::<S>(channels + channel));
            let scale = 1.0 / (running(channels + channel) + S::of(EPSILON).wide()).sqrt();
            let (x, mean) = (S::of(x).wide(), running(channel));
            let size = (x.abs() + mean.abs()) * scale * gain.abs() + shift.abs();
            Near::rounded::<S>((x - mean) * scale * gain + shift, 8, size)
        };
        let y = Expected { name: "y", content: self.x.0.iter().enumerate().map(near).collect() };
        vec![y, Expected::unchanged::<S>("running", &shifted(self.at, &self.running.0))]
    }

    fn expected_backward<S: Scalar>(&self) -> Vec<Expected> {
        let (channels, n) = (self.channels, self.columns as f64);
        let saved = self.saved::<S>();
        let mut dx = Expected::unchanged::<S>("dx", &vec![POISON; self.x.0.len()]);
        let mut gradient = Expected::unchanged::<S>("gradient", &vec![POISON; self.at + 2 * channels]);
        for channel in 0..if self.columns == 0 { 0 } else { channels } {
            let (x, dy) = (self.line::<S>(&self.x, channel), self.line::<S>(&self.dy, channel));
            let (mean, scale) = (saved[channel], saved[channels + channel]);
            // The difference x − mean loses what x and mean have in common.
            let normal: Vec<f64> = x.iter().map(|x| (x - mean) * scale).collect();
            let large: Vec<f64> = x.iter().map(|x| (x.abs() + mean.abs()) * scale).collect();
            let inner = |one: &[f64], other: &[f64]| -> f64 { one.iter().zip(other).map(|(a, b)| a * b).sum() };
            let absolute: Vec<f64> = dy.iter().map(|dy| dy.abs()).collect();
            let (of_scale, of_shift) = (inner(&dy, &normal), dy.iter().sum::<f64>());
            let (scale_size, shift_size) = (inner(&absolute, &large), absolute.iter().sum::<f64>());
            let roundings = self.columns + 8;
            gradient.content[self.at + channel] = Near::rounded::<S>(of_scale, roundings, scale_size);
            gradient.content[self.at + channels + channel] = Near::rounded::<S>(of_shift, roundings, shift_size);
            let gain = self.parameter::<S>(channel);
            for column in 0..self.columns {
                let value = gain * scale * (dy[column] - of_shift / n - normal[column] * of_scale / n);
                let size = absolute[column] + shift_size / n + large[column] * scale_size / n;
                dx.content[channel + column * channels] =
                    Near::rounded::<S>(value, roundings + 4, (gain * scale).abs() * size);
            }
        }
        vec![dx, gradient]
    }
}

/// One EvoNorm-S0.
#[derive(Clone, Debug)]
pub(crate) struct Evo {
    pass: Pass,
    groups: usize,
    /// Channels in a group.
    width: usize,
    positions: usize,
    batch: usize,
    at: usize,
    /// `[γ; β; v]`.
    parameters: Values,
    x: Values,
    dy: Values,
}

pub(crate) fn evo_norms(pass: Pass) -> impl Strategy<Value = Evo> + Clone {
    (1..=3_usize, 1..=4_usize, 1..=9_usize, 0..4_usize, 0..5_usize).prop_flat_map(
        move |(groups, width, positions, batch, at)| {
            let channels = groups * width;
            let len = channels * positions * batch;
            (values(3 * channels), values(len), values(len)).prop_map(move |(parameters, x, dy)| Evo {
                pass,
                groups,
                width,
                positions,
                batch,
                at,
                parameters,
                x,
                dy,
            })
        },
    )
}

/// ε of EvoNorm: large enough that one pixel's variance of 0 does not magnify errors beyond the bound.
const EVO_EPSILON: f64 = 1e-3;

impl Evo {
    fn channels(&self) -> usize {
        self.groups * self.width
    }

    fn parameter<S: Scalar>(&self, kind: usize, channel: usize) -> f64 {
        S::of(self.parameters.0[kind * self.channels() + channel]).wide()
    }

    /// Indices of all elements of one group of one sample.
    fn group(&self, sample: usize, group: usize) -> Vec<usize> {
        let channels = self.channels();
        let channel_range = group * self.width..(group + 1) * self.width;
        (0..self.positions)
            .flat_map(|position| channel_range.clone().map(move |channel| (position, channel)))
            .map(|(position, channel)| channel + channels * (position + self.positions * sample))
            .collect()
    }
}

impl Case for Evo {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let shape = EvoNorm {
            channels: self.channels(),
            positions: self.positions,
            groups: self.groups,
            epsilon: B::Scalar::of(EVO_EPSILON),
        };
        let parameters = upload(backend, &shifted(self.at, &self.parameters.0));
        let x = upload(backend, &self.x.0);
        let mut out = upload(backend, &vec![POISON; self.x.0.len()]);
        let parameters = (&parameters, self.at);
        if self.pass == Pass::Forward {
            done(backend.evo_norm_forward(&shape, self.batch, parameters, &x, &mut out));
            return vec![fetch(backend, &out)];
        }
        let dy = upload(backend, &self.dy.0);
        let mut gradient = upload(backend, &vec![POISON; self.at + 3 * self.channels()]);
        done(backend.evo_norm_backward(&shape, self.batch, parameters, &x, &dy, &mut gradient, &mut out));
        vec![fetch(backend, &out), fetch(backend, &gradient)]
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let channels = self.channels();
        let epsilon = S::of(EVO_EPSILON).wide();
        let read = |values: &Values, at: usize| S::of(values.0[at]).wide();
        let mut out = Expected::unchanged::<S>(if self.pass == Pass::Forward { "y" } else { "dx" }, &self.x.0);
        let mut sums = vec![(0.0, 0.0); 3 * channels];
        for (sample, group) in (0..self.batch).flat_map(|sample| (0..self.groups).map(move |group| (sample, group))) {
            let elements = self.group(sample, group);
            let values: Vec<f64> = elements.iter().map(|&at| read(&self.x, at)).collect();
            let m = moments::<S>(&values, epsilon);
            // Relative error of everything divided by the root of the variance, and of a sigmoid.
            let relative = m.scale_error + unit::<S>(16);
            let mut through = (0.0, 0.0);
            for (&at, &x) in elements.iter().zip(&values) {
                let channel = at % channels;
                let (gain, shift) = (self.parameter::<S>(0, channel), self.parameter::<S>(1, channel));
                let v = self.parameter::<S>(2, channel);
                let s = 1.0 / (1.0 + (-v * x).exp());
                let lift = x * s * m.scale;
                if self.pass == Pass::Forward {
                    let value = lift * gain + shift;
                    let error = (lift * gain).abs() * relative + unit::<S>(2) * shift.abs();
                    out.content[at] = Near { value, error };
                    continue;
                }
                let dy = read(&self.dy, at);
                let slope = s * (1.0 - s);
                for (kind, term) in [dy * lift, dy, dy * gain * m.scale * x * x * slope].into_iter().enumerate() {
                    let (sum, size) = &mut sums[kind * channels + channel];
                    *sum += term;
                    *size += term.abs() * (relative / unit::<S>(16)).max(1.0);
                }
                let term = dy * gain * x * s;
                through = (through.0 + term, through.1 + term.abs());
                let direct = dy * gain * m.scale * (s + x * v * slope);
                let size = (dy * gain * m.scale).abs() * (s + (x * v).abs() * slope);
                out.content[at] = Near { value: direct, error: size * relative };
            }
            if self.pass == Pass::Forward {
                continue;
            }
            let n = elements.len() as f64;
            let cubed = m.scale.powi(3) / n;
            let roundings = unit::<S>(elements.len() + 8) + 3.0 * relative;
            for (&at, &x) in elements.iter().zip(&values) {
                let near = &mut out.content[at];
                near.value -= cubed * (x - m.mean) * through.0;
                let lost = m.mean_error + unit::<S>(2) * (x.abs() + m.mean.abs());
                near.error += cubed * through.1 * ((x - m.mean).abs() * roundings + lost)
                    + unit::<S>(2) * (near.value.abs() + cubed * (x - m.mean).abs() * through.1);
            }
        }
        if self.pass == Pass::Forward {
            return vec![out];
        }
        let mut gradient = Expected::unchanged::<S>("gradient", &vec![POISON; self.at + 3 * channels]);
        let roundings = self.batch * self.positions + 16;
        for (at, &(sum, size)) in sums.iter().enumerate() {
            gradient.content[self.at + at] = Near::rounded::<S>(sum, roundings, size);
        }
        vec![out, gradient]
    }
}
