//! Pooling.

use super::bound::{Expected, Near};
use super::case::{Case, match_oracle};
use super::data::{POISON, Values, done, fetch, upload, values, whole};
use super::patch::{activation, geometry, pixel};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Pool, Pooling};
use kronfleet_core::scalar::Scalar;
use proptest::prelude::*;

/// Maxima and means over windows, also of negative numbers only; padding never is a maximum and counts as 0 in a mean.
pub fn pooling_matches_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, poolings())
}

/// The gradient goes to the first of equal maxima, or evenly to all; windows that overlap add up.
pub fn pooling_gradients_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, pooling_gradients())
}

/// One call, forwards or backwards.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    backward: bool,
    shape: Pooling,
    batch: usize,
    x: Values,
    dy: Values,
}

pub(crate) fn poolings() -> impl Strategy<Value = Windows> + Clone {
    windows(false)
}

pub(crate) fn pooling_gradients() -> impl Strategy<Value = Windows> + Clone {
    windows(true)
}

fn windows(backward: bool) -> impl Strategy<Value = Windows> + Clone {
    let pool = prop::sample::select(vec![Pool::Maximum, Pool::Mean]);
    (pool, geometry(), 0..4_usize, any::<bool>()).prop_flat_map(move |(pool, shape, batch, negative)| {
        let at_most_half = [0, 1].map(|axis| shape.padding[axis].min(shape.kernel[axis] / 2));
        let kernel = [shape.kernel[0].min(shape.input.height), shape.kernel[1].min(shape.input.width)];
        let padding = [at_most_half[0].min(kernel[0] / 2), at_most_half[1].min(kernel[1] / 2)];
        let shape = Pooling::new(pool, shape.input, kernel, shape.stride, padding).expect("the window fits");
        let (len, out) = (batch * shape.windows.input.len(), batch * shape.windows.output.len());
        // Whole numbers have many equals.
        (prop_oneof![values(len).boxed(), whole(len).boxed()], values(out)).prop_map(move |(mut x, dy)| {
            if negative {
                x.0.iter_mut().for_each(|x| *x -= 4.0);
            }
            Windows { backward, shape, batch, x, dy }
        })
    })
}

impl Windows {
    /// Calls `visit(output index, input indices of its window)`.
    fn each(&self, mut visit: impl FnMut(usize, &[usize])) {
        let w = &self.shape.windows;
        for sample in 0..self.batch {
            for position in 0..w.output.positions() {
                let place = (position / w.output.width, position % w.output.width);
                for channel in 0..w.input.channels {
                    let elements = (0..w.kernel[0]).flat_map(|i| (0..w.kernel[1]).map(move |j| (i, j)));
                    let window: Vec<usize> = elements
                        .filter_map(|element| pixel(w, place, element))
                        .map(|pixel| activation(w.input, sample, pixel, channel))
                        .collect();
                    visit(activation(w.output, sample, place, channel), &window);
                }
            }
        }
    }

    /// Pixels in a window, padding included.
    fn size(&self) -> usize {
        self.shape.windows.kernel[0] * self.shape.windows.kernel[1]
    }
}

impl Case for Windows {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        if self.backward {
            // A mean's gradient does not depend on what was averaged: the layer hands over whatever buffer is at hand.
            let read = if self.shape.pool == Pool::Maximum { self.x.0.len() } else { self.x.0.len().min(1) };
            let x = upload(backend, &self.x.0[..read]);
            let dy = upload(backend, &self.dy.0);
            let mut dx = upload(backend, &vec![POISON; self.x.0.len()]);
            done(backend.pool_backward(&self.shape, self.batch, &x, &dy, &mut dx));
            vec![fetch(backend, &dx)]
        } else {
            let x = upload(backend, &self.x.0);
            let mut y = upload(backend, &vec![POISON; self.dy.0.len()]);
            done(backend.pool_forward(&self.shape, self.batch, &x, &mut y));
            vec![fetch(backend, &y)]
        }
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let x = |at: usize| S::of(self.x.0[at]).wide();
        if !self.backward {
            let mut y = vec![Near::exact(0.0); self.dy.0.len()];
            self.each(|out, window| {
                y[out] = match self.shape.pool {
                    Pool::Maximum => Near::exact(window.iter().map(|&at| x(at)).fold(f64::NEG_INFINITY, f64::max)),
                    Pool::Mean => {
                        let size: f64 = window.iter().map(|&at| x(at).abs()).sum();
                        let sum: f64 = window.iter().map(|&at| x(at)).sum();
                        let count = self.size() as f64;
                        Near::rounded::<S>(sum / count, window.len() + 2, size / count)
                    }
                };
            });
            return vec![Expected { name: "y", content: y }];
        }
        let mut terms = vec![vec![]; self.x.0.len()];
        self.each(|out, window| {
            let dy = S::of(self.dy.0[out]).wide();
            match self.shape.pool {
                Pool::Maximum => {
                    let first = window.iter().copied().reduce(|best, at| if x(at) > x(best) { at } else { best });
                    if let Some(first) = first {
                        terms[first].push(dy);
                    }
                }
                Pool::Mean => window.iter().for_each(|&at| terms[at].push(dy / self.size() as f64)),
            }
        });
        let near = |terms: &Vec<f64>| {
            let size = terms.iter().map(|term| term.abs()).sum();
            Near::rounded::<S>(terms.iter().sum(), terms.len() + 2, size)
        };
        vec![Expected { name: "dx", content: terms.iter().map(near).collect() }]
    }
}
