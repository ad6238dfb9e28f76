//! Matrix products.

use super::bound::{Expected, Near};
use super::case::{Case, match_oracle};
use super::data::{Canvas, Placed, extent, factor, fetch, placed, placed_whole};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Gemm, Outer};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use proptest::collection::vec;
use proptest::prelude::*;

/// `β = 0` overwrites the target, even if it holds NaN; `k = 0` leaves zeros then.
pub fn products_with_beta_zero_overwrite_nan<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let cases = products().prop_map(|mut product| {
        for job in &mut product.jobs {
            job.beta = 0.0;
            job.c.values.0.fill(f64::NAN);
        }
        product
    });
    check.hold(cases, |case| {
        let content = &case.run(&mut make())[0];
        match content.iter().position(|value| value.wide().is_nan()) {
            Some(at) => Err(format!("`c`[{at}] is still not a number")),
            None => Ok(()),
        }
    })
}

/// `c ← α·a·b + β·c`, for all transposes, blocks inside larger matrices and numbers of jobs; nothing else is written.
pub fn products_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, products())
}

/// Products of several jobs at once are those of the jobs one by one; whole numbers, so to the bit.
pub fn product_jobs_are_independent<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let job = (0..=17_usize, 0..=17_usize, 0..=17_usize).prop_flat_map(|(m, n, k)| {
        let scale = prop::sample::select(vec![-1.0, 0.0, 1.0, 2.0]);
        (scale.clone(), scale, placed_whole(m, k, true), placed_whole(k, n, true), placed_whole(m, n, false))
            .prop_map(|(alpha, beta, a, b, c)| ProductJob { alpha, beta, a, b, c })
    });
    let cases = vec(job, 2..5).prop_map(|jobs| Product { jobs, shared: false });
    check.hold(cases, |case| {
        // Zeros of both signs are equal.
        let numbers = |content: Vec<Vec<B::Scalar>>| {
            content.into_iter().map(|line| line.into_iter().map(|value| value + B::Scalar::of(0.0)).collect()).collect()
        };
        let together: Vec<Vec<_>> = numbers(case.run(&mut make()));
        let apart: Vec<Vec<_>> = numbers(case.calls(&mut make(), true));
        super::bound::same_bits("jobs together and one by one", &together, &apart)
    })
}

/// `c ← α·x·xᵀ + β·c` with both triangles; nothing else is written.
pub fn symmetric_products_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, symmetric_products())
}

/// A symmetric product of a symmetric target is symmetric to the bit.
pub fn symmetric_products_are_symmetric<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    check.hold(symmetric_products(), |case| {
        let (_, _, jobs) = case.layout::<B::Scalar>();
        let content = &case.run(&mut make())[0];
        for Outer { c, .. } in jobs {
            for column in 0..c.columns {
                for row in 0..column {
                    let (upper, lower) = (content[c.index(row, column)], content[c.index(column, row)]);
                    if upper.wide().to_bits() != lower.wide().to_bits() {
                        return Err(format!("({row}, {column}) is {upper}, ({column}, {row}) is {lower}"));
                    }
                }
            }
        }
        Ok(())
    })
}

#[derive(Clone, Debug)]
struct ProductJob {
    alpha: f64,
    beta: f64,
    a: Placed,
    b: Placed,
    c: Placed,
}

#[derive(Clone, Debug)]
pub(crate) struct Product {
    jobs: Vec<ProductJob>,
    /// Both operands in one buffer.
    shared: bool,
}

pub(crate) fn products() -> impl Strategy<Value = Product> + Clone {
    let job = (extent(), extent(), extent()).prop_flat_map(|(m, n, k)| {
        (factor(), factor(), placed(m, k, true), placed(k, n, true), placed(m, n, false))
            .prop_map(|(alpha, beta, a, b, c)| ProductJob { alpha, beta, a, b, c })
    });
    (vec(job, 1..4), any::<bool>()).prop_map(|(jobs, shared)| Product { jobs, shared })
}

impl Product {
    /// The three buffers and the jobs.
    fn layout<S: Scalar>(&self) -> (Canvas, Canvas, Canvas, Vec<Gemm<S>>) {
        let (mut left, mut right, mut target) = (Canvas::default(), Canvas::default(), Canvas::default());
        let jobs = self.jobs.iter().map(|job| Gemm {
            alpha: S::of(job.alpha),
            a: left.place(&job.a),
            b: if self.shared { left.place(&job.b) } else { right.place(&job.b) },
            beta: S::of(job.beta),
            c: target.place(&job.c),
        });
        let jobs = jobs.collect();
        (left, right, target, jobs)
    }

    fn calls<B: Backend>(&self, backend: &mut B, apart: bool) -> Vec<Vec<B::Scalar>> {
        let (left, right, target, jobs) = self.layout::<B::Scalar>();
        let (left, right, mut target) = (left.upload(backend), right.upload(backend), target.upload(backend));
        let right = if self.shared { &left } else { &right };
        for jobs in jobs.chunks(if apart { 1 } else { jobs.len() }) {
            super::data::done(backend.gemm(jobs, &left, right, &mut target));
        }
        vec![fetch(backend, &target)]
    }
}

impl Case for Product {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        self.calls(backend, false)
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let (_, _, target, jobs) = self.layout::<S>();
        let mut expected = Expected::unchanged::<S>("c", &target.content);
        for (job, Gemm { alpha, beta, c, .. }) in self.jobs.iter().zip(jobs) {
            accumulate::<S>(&job.a, |k, column| job.b.at::<S>(k, column), (alpha, beta), (&job.c, c), &mut expected);
        }
        vec![expected]
    }
}

/// `c ← α·a·b + β·c` by the definition.
fn accumulate<S: Scalar>(
    a: &Placed,
    b: impl Fn(usize, usize) -> f64,
    (alpha, beta): (S, S),
    (old, region): (&Placed, Region),
    expected: &mut Expected,
) {
    for column in 0..region.columns {
        for row in 0..region.rows {
            let terms = || (0..a.columns).map(|k| a.at::<S>(row, k) * b(k, column));
            let kept = if beta.wide() == 0.0 { 0.0 } else { beta.wide() * old.at::<S>(row, column) };
            let value = alpha.wide() * terms().sum::<f64>() + kept;
            let magnitude = alpha.wide().abs() * terms().map(f64::abs).sum::<f64>() + kept.abs();
            expected.content[region.index(row, column)] = Near::rounded::<S>(value, a.columns + 2, magnitude);
        }
    }
}

#[derive(Clone, Debug)]
struct SymmetricJob {
    alpha: f64,
    beta: f64,
    x: Placed,
    c: Placed,
}

/// Products of matrices with their transposes, added to symmetric targets.
#[derive(Clone, Debug)]
pub(crate) struct Symmetric {
    jobs: Vec<SymmetricJob>,
}

pub(crate) fn symmetric_products() -> impl Strategy<Value = Symmetric> + Clone {
    let job = (extent(), extent()).prop_flat_map(|(n, k)| {
        (factor(), factor(), placed(n, k, true), placed(n, n, false)).prop_map(move |(alpha, beta, x, mut c)| {
            for column in 0..n {
                for row in 0..column {
                    c.values.0[row + column * n] = c.values.0[column + row * n];
                }
            }
            SymmetricJob { alpha, beta, x, c }
        })
    });
    vec(job, 1..4).prop_map(|jobs| Symmetric { jobs })
}

impl Symmetric {
    fn layout<S: Scalar>(&self) -> (Canvas, Canvas, Vec<Outer<S>>) {
        let (mut source, mut target) = (Canvas::default(), Canvas::default());
        let jobs = self.jobs.iter().map(|job| Outer {
            alpha: S::of(job.alpha),
            x: source.place(&job.x),
            beta: S::of(job.beta),
            c: target.place(&job.c),
        });
        let jobs = jobs.collect();
        (source, target, jobs)
    }
}

impl Case for Symmetric {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let (source, target, jobs) = self.layout::<B::Scalar>();
        let (source, mut target) = (source.upload(backend), target.upload(backend));
        super::data::done(backend.symmetric_product(&jobs, &source, &mut target));
        vec![fetch(backend, &target)]
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let (_, target, jobs) = self.layout::<S>();
        let mut expected = Expected::unchanged::<S>("c", &target.content);
        for (job, Outer { alpha, beta, c, .. }) in self.jobs.iter().zip(jobs) {
            accumulate::<S>(&job.x, |k, column| job.x.at::<S>(column, k), (alpha, beta), (&job.c, c), &mut expected);
        }
        vec![expected]
    }
}
