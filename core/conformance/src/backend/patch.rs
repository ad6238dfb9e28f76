//! Patches of images, and images of patches.

use super::bound::{Expected, Near};
use super::case::{Case, match_oracle};
use super::data::{POISON, Values, done, fetch, upload, values, whole};
use crate::check::{Broken, Check};
use core::ops::Range;
use kronfleet_core::backend::{Backend, Convolution, Extent};
use kronfleet_core::scalar::Scalar;
use proptest::prelude::*;

/// `unfold` copies every pixel to every patch that sees it, with zeros for padding and a 1 for the bias, for strides,
/// paddings and dilations that differ by axis and any range of samples.
pub fn unfolding_matches_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, unfoldings())
}

/// `fold` adds every patch element to the pixel it came from and leaves other samples alone.
pub fn folding_matches_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, foldings())
}

/// `⟨unfold(x), p⟩ = ⟨x, fold(p)⟩`; whole numbers, so exactly.
pub fn unfold_and_fold_are_adjoint<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let cases = (geometry(), 1..3_usize).prop_flat_map(|(shape, batch)| {
        let shape = Convolution { bias: false, ..shape };
        let patches = batch * shape.output.positions() * shape.patch_len();
        (Just(shape), Just(batch), whole(batch * shape.input.len()), whole(patches))
    });
    check.hold(cases, |(shape, batch, x, patches)| {
        let mut backend = make();
        let image = upload(&mut backend, &x.0);
        let mut unfolded = upload(&mut backend, &vec![POISON; patches.0.len()]);
        done(backend.unfold(&shape, 0..batch, &image, &mut unfolded));
        let cotangent = upload(&mut backend, &patches.0);
        let mut folded = upload(&mut backend, &vec![POISON; x.0.len()]);
        done(backend.fold(&shape, 0..batch, &cotangent, &mut folded));
        let inner = |one: &[B::Scalar], other: &Values| -> f64 {
            one.iter().zip(&other.0).map(|(one, other)| one.wide() * other).sum()
        };
        let left = inner(&fetch(&mut backend, &unfolded), &patches);
        let right = inner(&fetch(&mut backend, &folded), &x);
        if left == right { Ok(()) } else { Err(format!("⟨unfold(x), p⟩ = {left}, ⟨x, fold(p)⟩ = {right}")) }
    })
}

/// A convolution whose kernel fits; everything differs by axis.
pub(crate) fn geometry() -> impl Strategy<Value = Convolution> + Clone {
    let axis = || (1..=8_usize, 1..=4_usize, 1..=3_usize, 0..=2_usize, 1..=3_usize);
    (1..=5_usize, 1..=5_usize, axis(), axis(), any::<bool>()).prop_map(|(channels, out, vertical, horizontal, bias)| {
        // A kernel that does not fit is made smaller.
        let fit = |(extent, kernel, stride, padding, dilation): (usize, usize, usize, usize, usize)| {
            (extent, kernel.min((extent + 2 * padding - 1) / dilation + 1), stride, padding, dilation)
        };
        let (v, h) = (fit(vertical), fit(horizontal));
        let input = Extent::new(channels, v.0, h.0);
        Convolution::new(input, out, [v.1, h.1], [v.2, h.2], [v.3, h.3], [v.4, h.4], bias)
            .expect("the kernel was made to fit")
    })
}

/// The pixel that kernel element `(i, j)` of the patch at `(row, column)` covers, if it is not padding.
pub(crate) fn pixel(
    shape: &Convolution,
    (row, column): (usize, usize),
    (i, j): (usize, usize),
) -> Option<(usize, usize)> {
    let along = |at: usize, element: usize, axis: usize, extent: usize| {
        let place = (at * shape.stride[axis] + element * shape.dilation[axis]) as isize;
        usize::try_from(place - shape.padding[axis] as isize).ok().filter(|&place| place < extent)
    };
    Some((along(row, i, 0, shape.input.height)?, along(column, j, 1, shape.input.width)?))
}

/// Calls `visit(patch, element, channel, pixel)` for all elements of the patches of one sample.
pub(crate) fn elements(shape: &Convolution, mut visit: impl FnMut(usize, usize, usize, Option<(usize, usize)>)) {
    for patch in 0..shape.output.positions() {
        let place = (patch / shape.output.width, patch % shape.output.width);
        for i in 0..shape.kernel[0] {
            for j in 0..shape.kernel[1] {
                for channel in 0..shape.input.channels {
                    let element = (i * shape.kernel[1] + j) * shape.input.channels + channel;
                    visit(patch, element, channel, pixel(shape, place, (i, j)));
                }
            }
        }
    }
}

/// Index of a channel of a pixel of a sample.
pub(crate) fn activation(extent: Extent, sample: usize, (row, column): (usize, usize), channel: usize) -> usize {
    channel + extent.channels * (column + extent.width * (row + extent.height * sample))
}

/// One call of `unfold`.
#[derive(Clone, Debug)]
pub(crate) struct Unfolding {
    shape: Convolution,
    samples: Range<usize>,
    x: Values,
}

fn samples() -> impl Strategy<Value = (usize, Range<usize>)> + Clone {
    (0..4_usize, 0..4_usize, 0..4_usize).prop_map(|(a, b, more)| (a.max(b) + more, a.min(b)..a.max(b)))
}

pub(crate) fn unfoldings() -> impl Strategy<Value = Unfolding> + Clone {
    (geometry(), samples()).prop_flat_map(|(shape, (batch, samples))| {
        values(batch * shape.input.len()).prop_map(move |x| Unfolding { shape, samples: samples.clone(), x })
    })
}

impl Case for Unfolding {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let x = upload(backend, &self.x.0);
        let len = self.samples.len() * self.shape.output.positions() * self.shape.patch_rows();
        let mut patches = upload(backend, &vec![POISON; len + 3]);
        done(backend.unfold(&self.shape, self.samples.clone(), &x, &mut patches));
        vec![fetch(backend, &patches)]
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let (shape, rows) = (&self.shape, self.shape.patch_rows());
        let positions = shape.output.positions();
        let mut patches = vec![POISON; self.samples.len() * positions * rows + 3];
        for (number, sample) in self.samples.clone().enumerate() {
            elements(shape, |patch, element, channel, pixel| {
                let value = pixel.map_or(0.0, |pixel| self.x.0[activation(shape.input, sample, pixel, channel)]);
                patches[element + rows * (patch + positions * number)] = value;
            });
            for patch in 0..if shape.bias { positions } else { 0 } {
                patches[rows - 1 + rows * (patch + positions * number)] = 1.0;
            }
        }
        vec![Expected::unchanged::<S>("patches", &patches)]
    }
}

/// One call of `fold`.
#[derive(Clone, Debug)]
pub(crate) struct Folding {
    shape: Convolution,
    batch: usize,
    samples: Range<usize>,
    patches: Values,
}

pub(crate) fn foldings() -> impl Strategy<Value = Folding> + Clone {
    (geometry(), samples()).prop_flat_map(|(shape, (batch, samples))| {
        let len = samples.len() * shape.output.positions() * shape.patch_len();
        values(len).prop_map(move |patches| Folding { shape, batch, samples: samples.clone(), patches })
    })
}

impl Case for Folding {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let patches = upload(backend, &self.patches.0);
        let mut x = upload(backend, &vec![POISON; self.batch * self.shape.input.len()]);
        done(backend.fold(&self.shape, self.samples.clone(), &patches, &mut x));
        vec![fetch(backend, &x)]
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let (shape, rows) = (&self.shape, self.shape.patch_len());
        let mut expected = Expected::unchanged::<S>("x", &vec![POISON; self.batch * shape.input.len()]);
        for (number, sample) in self.samples.clone().enumerate() {
            let mut terms = vec![vec![]; shape.input.len()];
            elements(shape, |patch, element, channel, pixel| {
                if let Some(pixel) = pixel {
                    let at = element + rows * (patch + shape.output.positions() * number);
                    terms[activation(shape.input, 0, pixel, channel)].push(S::of(self.patches.0[at]).wide());
                }
            });
            for (at, terms) in terms.iter().enumerate() {
                let size = terms.iter().map(|term| term.abs()).sum();
                expected.content[sample * shape.input.len() + at] =
                    Near::rounded::<S>(terms.iter().sum(), terms.len(), size);
            }
        }
        vec![expected]
    }
}
