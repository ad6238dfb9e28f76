//! The option-A shortcut.

use super::bound::Expected;
use super::case::{Case, match_oracle};
use super::data::{Values, done, fetch, upload, whole};
use super::patch::activation;
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::scalar::Scalar;
use proptest::prelude::*;

/// Every `stride`-th pixel with zero channels on both sides, written or added; and the adjoint, added. Whole numbers,
/// so exactly.
pub fn shortcuts_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, shortcuts())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    Write,
    Add,
    Adjoint,
}

/// One shortcut.
#[derive(Clone, Debug)]
pub(crate) struct Shortcut {
    direction: Direction,
    input: Extent,
    output: Extent,
    stride: usize,
    batch: usize,
    x: Values,
    y: Values,
}

pub(crate) fn shortcuts() -> impl Strategy<Value = Shortcut> + Clone {
    let direction = prop::sample::select(vec![Direction::Write, Direction::Add, Direction::Adjoint]);
    let shape = (1..=4_usize, 1..=7_usize, 1..=7_usize, 0..=5_usize, 1..=3_usize, 0..4_usize);
    (direction, shape).prop_flat_map(|(direction, (channels, height, width, more, stride, batch))| {
        let input = Extent::new(channels, height, width);
        let output = Extent::new(channels + more, height.div_ceil(stride), width.div_ceil(stride));
        (whole(batch * input.len()), whole(batch * output.len())).prop_map(move |(x, y)| Shortcut {
            direction,
            input,
            output,
            stride,
            batch,
            x,
            y,
        })
    })
}

impl Case for Shortcut {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let (mut x, mut y) = (upload(backend, &self.x.0), upload(backend, &self.y.0));
        let Self { direction, input, output, stride, batch, .. } = *self;
        if direction == Direction::Adjoint {
            done(backend.subsample_adjoint(input, output, stride, batch, &y, &mut x));
        } else {
            done(backend.subsample(input, output, stride, batch, direction == Direction::Add, &x, &mut y));
        }
        vec![fetch(backend, &x), fetch(backend, &y)]
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let (mut x, mut y) = (self.x.0.clone(), self.y.0.clone());
        if self.direction == Direction::Write {
            y.fill(0.0);
        }
        let front = (self.output.channels - self.input.channels) / 2;
        for sample in 0..self.batch {
            for row in (0..self.input.height).step_by(self.stride) {
                for column in (0..self.input.width).step_by(self.stride) {
                    for channel in 0..self.input.channels {
                        let at = activation(self.input, sample, (row, column), channel);
                        let place = (row / self.stride, column / self.stride);
                        let out = activation(self.output, sample, place, front + channel);
                        if self.direction == Direction::Adjoint {
                            x[at] += self.y.0[out];
                        } else {
                            y[out] += self.x.0[at];
                        }
                    }
                }
            }
        }
        vec![Expected::unchanged::<S>("x", &x), Expected::unchanged::<S>("y", &y)]
    }
}
