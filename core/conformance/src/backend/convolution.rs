//! Convolutions against their definition, without patches.

use super::bound::{Expected, Near};
use super::case::{Case, match_oracle};
use super::data::{Canvas, POISON, Placed, Values, done, fetch, placed, upload, values};
use super::patch::{activation, geometry, pixel};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Convolution, Statistic};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use proptest::prelude::*;

/// `y` is the convolution of `x`, and the statistic grows by `scale · Σ patch · patchᵀ`; nothing else is written.
pub fn convolutions_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, convolutions())
}

/// Gradients with respect to weights and input, and `scale · Σ dy · dyᵀ`, are what the definition gives.
pub fn convolution_gradients_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, gradients())
}

/// One convolution, forwards or backwards.
#[derive(Clone, Debug)]
pub(crate) struct Convolving {
    backward: bool,
    shape: Convolution,
    batch: usize,
    weights: Placed,
    x: Values,
    dy: Values,
    /// Whether `dx` is asked for.
    through: bool,
    /// Scale, and what is there already.
    statistic: Option<(f64, Placed)>,
}

pub(crate) fn convolutions() -> impl Strategy<Value = Convolving> + Clone {
    convolving(false)
}

pub(crate) fn gradients() -> impl Strategy<Value = Convolving> + Clone {
    convolving(true)
}

fn convolving(backward: bool) -> impl Strategy<Value = Convolving> + Clone {
    (geometry(), 0..5_usize).prop_flat_map(move |(shape, batch)| {
        let n = if backward { shape.output.channels } else { shape.patch_rows() };
        let weights = placed(shape.output.channels, shape.patch_rows(), false);
        let statistic = (0.1..1.0, placed(n, n, false)).prop_map(move |(scale, mut old)| {
            for column in 0..n {
                for row in 0..column {
                    old.values.0[row + column * n] = old.values.0[column + row * n];
                }
            }
            (scale, old)
        });
        let (x, dy) = (values(batch * shape.input.len()), values(batch * shape.output.len()));
        (weights, x, dy, any::<bool>(), prop::option::of(statistic)).prop_map(
            move |(weights, x, dy, through, statistic)| {
                // Parameters are packed: a block of curvature is one matrix.
                let weights = Placed { between: 0, ..weights };
                Convolving { backward, shape, batch, weights, x, dy, through, statistic }
            },
        )
    })
}

impl Convolving {
    fn statistic(&self) -> (Canvas, Option<(f64, Region)>) {
        let mut canvas = Canvas::default();
        let job = self.statistic.as_ref().map(|(scale, old)| (*scale, canvas.place(old)));
        (canvas, job)
    }

    /// Calls `visit(output index, weight row, weight column, input index)` for every product of the definition.
    fn products(&self, mut visit: impl FnMut(usize, usize, usize, usize)) {
        let shape = &self.shape;
        for sample in 0..self.batch {
            for position in 0..shape.output.positions() {
                let place = (position / shape.output.width, position % shape.output.width);
                for out in 0..shape.output.channels {
                    for (i, j) in (0..shape.kernel[0]).flat_map(|i| (0..shape.kernel[1]).map(move |j| (i, j))) {
                        let Some(pixel) = pixel(shape, place, (i, j)) else { continue };
                        for channel in 0..shape.input.channels {
                            let column = (i * shape.kernel[1] + j) * shape.input.channels + channel;
                            let y = activation(shape.output, sample, place, out);
                            visit(y, out, column, activation(shape.input, sample, pixel, channel));
                        }
                    }
                }
            }
        }
    }
}

/// Sums of products with the sums of their magnitudes.
struct Sums(Vec<(usize, f64, f64)>);

impl Sums {
    fn new(len: usize) -> Self {
        Self(vec![(0, 0.0, 0.0); len])
    }

    fn add(&mut self, at: usize, term: f64) {
        let (count, sum, size) = &mut self.0[at];
        *count += 1;
        *sum += term;
        *size += term.abs();
    }

    fn near<S: Scalar>(&self, more: usize) -> impl Iterator<Item = Near> + '_ {
        self.0.iter().map(move |&(count, sum, size)| Near::rounded::<S>(sum, count + more, size))
    }
}

impl Case for Convolving {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let (mut parameters, (statistic, job)) = (Canvas::default(), self.statistic());
        let region = parameters.place(&self.weights);
        let mut gradient = upload(backend, &vec![POISON; parameters.content.len()]);
        let weights = parameters.upload(backend);
        let mut target = statistic.upload(backend);
        let x = upload(backend, &self.x.0);
        let mut scratch = upload(backend, &vec![POISON; backend.convolution_scratch(&self.shape, self.batch)]);
        let statistic =
            job.map(|(scale, region)| Statistic { target: &mut target, region, scale: B::Scalar::of(scale) });
        let weights = (&weights, region);
        if self.backward {
            let dy = upload(backend, &self.dy.0);
            let mut dx = upload(backend, &vec![POISON; self.x.0.len()]);
            let wanted = self.through.then_some(&mut dx);
            let (shape, batch) = (&self.shape, self.batch);
            done(backend.convolution_backward(
                shape,
                batch,
                weights,
                &x,
                &dy,
                &mut gradient,
                wanted,
                statistic,
                &mut scratch,
            ));
            vec![fetch(backend, &gradient), fetch(backend, &dx), fetch(backend, &target)]
        } else {
            let mut y = upload(backend, &vec![POISON; self.dy.0.len()]);
            done(backend.convolution_forward(&self.shape, self.batch, weights, &x, &mut y, statistic, &mut scratch));
            vec![fetch(backend, &y), fetch(backend, &target)]
        }
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        if self.backward { self.expected_backward::<S>() } else { self.expected_forward::<S>() }
    }
}

impl Convolving {
    fn expected_forward<S: Scalar>(&self) -> Vec<Expected> {
        let x = |at: usize| S::of(self.x.0[at]).wide();
        let mut y = Sums::new(self.dy.0.len());
        self.products(|target, out, column, source| y.add(target, self.weights.at::<S>(out, column) * x(source)));
        if self.shape.bias {
            let bias = self.shape.patch_len();
            for at in 0..self.dy.0.len() {
                y.add(at, self.weights.at::<S>(at % self.shape.output.channels, bias));
            }
        }
        let y = Expected { name: "y", content: y.near::<S>(0).collect() };
        vec![y, self.expected_statistic::<S>(&self.patches::<S>(), self.shape.patch_rows())]
    }

    /// All patches by the definition, one after the other.
    fn patches<S: Scalar>(&self) -> Vec<f64> {
        let (shape, rows) = (&self.shape, self.shape.patch_rows());
        let mut patches = vec![0.0; self.batch * shape.output.positions() * rows];
        self.products(|target, _, column, source| {
            patches[target / shape.output.channels * rows + column] = S::of(self.x.0[source]).wide();
        });
        if shape.bias {
            patches.chunks_exact_mut(rows).for_each(|patch| patch[rows - 1] = 1.0);
        }
        patches
    }

    /// `old + scale · Σ v·vᵀ` over the vectors of `rows` elements in `vectors`.
    fn expected_statistic<S: Scalar>(&self, vectors: &[f64], rows: usize) -> Expected {
        let (canvas, job) = self.statistic();
        let mut expected = Expected::unchanged::<S>("statistic", &canvas.content);
        let (Some((scale, region)), Some((_, old))) = (job, &self.statistic) else { return expected };
        let scale = S::of(scale).wide();
        for column in 0..rows {
            for row in 0..rows {
                let terms = || vectors.chunks_exact(rows).map(|v| v[row] * v[column]);
                let old = old.at::<S>(row, column);
                let size = scale * terms().map(f64::abs).sum::<f64>() + old.abs();
                expected.content[region.index(row, column)] =
                    Near::rounded::<S>(scale * terms().sum::<f64>() + old, vectors.len() / rows + self.batch, size);
            }
        }
        expected
    }

    fn expected_backward<S: Scalar>(&self) -> Vec<Expected> {
        let shape = &self.shape;
        let mut parameters = Canvas::default();
        let region = parameters.place(&self.weights);
        let (x, dy) = (|at: usize| S::of(self.x.0[at]).wide(), |at: usize| S::of(self.dy.0[at]).wide());
        let (mut of_weights, mut of_x) = (Sums::new(region.len()), Sums::new(self.x.0.len()));
        self.products(|target, out, column, source| {
            of_weights.add(out + column * region.rows, dy(target) * x(source));
            of_x.add(source, dy(target) * self.weights.at::<S>(out, column));
        });
        if shape.bias {
            for at in 0..self.dy.0.len() {
                of_weights.add(at % shape.output.channels + shape.patch_len() * region.rows, dy(at));
            }
        }
        let poison = vec![POISON; parameters.content.len()];
        let mut gradient = Expected::unchanged::<S>("gradient", &poison);
        for (at, near) in of_weights.near::<S>(self.batch).enumerate() {
            gradient.content[region.index(at % region.rows, at / region.rows)] = near;
        }
        let dx = if self.through {
            Expected { name: "dx", content: of_x.near::<S>(0).collect() }
        } else {
            Expected::unchanged::<S>("dx", &vec![POISON; self.x.0.len()])
        };
        let cotangents: Vec<f64> = (0..self.dy.0.len()).map(dy).collect();
        vec![gradient, dx, self.expected_statistic::<S>(&cotangents, shape.output.channels)]
    }
}
