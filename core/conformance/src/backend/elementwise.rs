//! Element-wise operations.

use super::bound::{Expected, Near};
use super::case::{Case, match_oracle};
use super::data::{Canvas, Placed, Values, done, extent, factor, fetch, placed, upload, values};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Map, MapJob};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use proptest::collection::vec;
use proptest::prelude::*;

/// Every [`Map`] over whole, transposed and repeated operands, with zeros, infinities and NaN among them; a missing
/// operand reads as 0, and nothing else is written.
pub fn maps_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    // Every operation is to come up several times.
    let check = Check { cases: check.cases.saturating_mul(8), ..*check };
    match_oracle(make, &check, elementwise())
}

/// `fill`, `axpby` and the diagonal's `map` give what they say; `β = 0` overwrites NaN.
pub fn vector_updates_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, updates())
}

/// How an operand fills the shape.
#[derive(Clone, Copy, Debug)]
enum Spread {
    Whole,
    Column,
    Row,
    Scalar,
    Missing,
}

#[derive(Clone, Debug)]
struct MapCaseJob {
    x: Placed,
    y: Placed,
    out: Placed,
}

/// One element-wise operation.
#[derive(Clone, Debug)]
pub(crate) struct Elementwise {
    /// Which of [`Map::samples`].
    operation: usize,
    x: Spread,
    y: Spread,
    jobs: Vec<MapCaseJob>,
}

fn elementwise() -> impl Strategy<Value = Elementwise> {
    let spread = || {
        use Spread::{Column, Missing, Row, Scalar, Whole};
        prop::sample::select(vec![Whole, Whole, Whole, Column, Row, Scalar, Missing])
    };
    (0..Map::<f64>::samples().len(), spread(), spread()).prop_flat_map(|(operation, x, y)| {
        let job = (extent(), extent()).prop_flat_map(move |(rows, columns)| {
            let operand = |spread| {
                let (rows, columns) = match spread {
                    Spread::Whole => (rows, columns),
                    Spread::Column => (rows, 1),
                    Spread::Row => (1, columns),
                    Spread::Scalar | Spread::Missing => (1, 1),
                };
                (placed(rows, columns, true), special(rows * columns))
                    .prop_map(|(placed, values)| Placed { values, ..placed })
            };
            let out = (placed(rows, columns, true), special(rows * columns));
            (operand(x), operand(y), out).prop_map(|(x, y, (out, values))| MapCaseJob {
                x,
                y,
                out: Placed { values, ..out },
            })
        });
        vec(job, 1..3).prop_map(move |jobs| Elementwise { operation, x, y, jobs })
    })
}

/// Numbers with some on which operations behave differently.
fn special(len: usize) -> impl Strategy<Value = Values> {
    let odd = prop::sample::select(vec![0.0, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    vec(prop_oneof![9 => -2.0..2.0, 1 => odd], len).prop_map(Values)
}

/// The region of an operand, repeated to `rows × columns`.
fn spread(region: Region, spread: Spread, rows: usize, columns: usize) -> Region {
    let (row_step, column_step) = match spread {
        Spread::Whole => (region.row_step, region.column_step),
        Spread::Column => (region.row_step, 0),
        Spread::Row => (0, region.column_step),
        Spread::Scalar | Spread::Missing => (0, 0),
    };
    Region { offset: region.offset, rows, columns, row_step, column_step }
}

fn element<S: Scalar>(operand: &Placed, spread: Spread, row: usize, column: usize) -> f64 {
    match spread {
        Spread::Whole => operand.at::<S>(row, column),
        Spread::Column => operand.at::<S>(row, 0),
        Spread::Row => operand.at::<S>(0, column),
        Spread::Scalar => operand.at::<S>(0, 0),
        Spread::Missing => 0.0,
    }
}

impl Elementwise {
    fn layout(&self) -> (Canvas, Canvas, Canvas, Vec<MapJob>) {
        let (mut first, mut second, mut target) = (Canvas::default(), Canvas::default(), Canvas::default());
        let jobs = self.jobs.iter().map(|job| {
            let (rows, columns) = (job.out.rows, job.out.columns);
            MapJob {
                x: spread(first.place(&job.x), self.x, rows, columns),
                y: spread(second.place(&job.y), self.y, rows, columns),
                out: target.place(&job.out),
            }
        });
        let jobs = jobs.collect();
        (first, second, target, jobs)
    }
}

impl Case for Elementwise {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let (x, y, out, jobs) = self.layout();
        let (x, y, mut out) = (x.upload(backend), y.upload(backend), out.upload(backend));
        let x = (!matches!(self.x, Spread::Missing)).then_some(&x);
        let y = (!matches!(self.y, Spread::Missing)).then_some(&y);
        done(backend.map(Map::samples()[self.operation], &jobs, x, y, &mut out));
        vec![fetch(backend, &out)]
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let (_, _, target, jobs) = self.layout();
        let mut expected = Expected::unchanged::<S>("out", &target.content);
        let operation = Map::<S>::samples()[self.operation];
        for (job, MapJob { out, .. }) in self.jobs.iter().zip(jobs) {
            for column in 0..out.columns {
                for row in 0..out.rows {
                    let x = element::<S>(&job.x, self.x, row, column);
                    let y = element::<S>(&job.y, self.y, row, column);
                    let z = job.out.at::<S>(row, column);
                    expected.content[out.index(row, column)] = oracle(operation, x, y, z);
                }
            }
        }
        vec![expected]
    }
}

/// What the documentation of [`Map`] says, in double precision.
fn oracle<S: Scalar>(operation: Map<S>, x: f64, y: f64, z: f64) -> Near {
    // Quotients, roots and tanh of a device may be off by a few units: 8 roundings cover them.
    let near = |value: f64| Near::rounded::<S>(value, 8, value.abs());
    let sum = |one: f64, other: f64| Near::rounded::<S>(one + other, 4, one.abs() + other.abs());
    let weighted = |factor: S, value: f64| if factor.wide() == 0.0 { 0.0 } else { factor.wide() * value };
    let positive = |value: f64| if value > 0.0 { value } else { 0.0 };
    match operation {
        Map::Fill(value) => Near::exact(value.wide()),
        Map::Axpby(alpha, beta) => sum(alpha.wide() * x, weighted(beta, z)),
        Map::Sum(alpha, beta) => sum(alpha.wide() * x, beta.wide() * y),
        Map::MultiplyAdd(alpha, beta) => sum(alpha.wide() * x * y, weighted(beta, z)),
        Map::Divide => near(x / y),
        Map::Reciprocal => near(1.0 / x),
        Map::Sqrt => near(x.sqrt()),
        Map::Maximum(alpha, beta) => {
            let (one, other) = (alpha.wide() * x, beta.wide() * y);
            near(if one.is_nan() || other > one { other } else { one })
        }
        Map::Relu => Near::exact(if x.is_nan() { x } else { positive(x) }),
        Map::ReluGradient => Near::exact(if y > 0.0 { x } else { 0.0 }),
        Map::Tanh => near(x.tanh()),
        Map::TanhGradient => Near::rounded::<S>(x * (1.0 - y * y), 8, x.abs() * (1.0 + y * y)),
        Map::DivideByProduct(damping) => near(z / (positive(x) * positive(y) + damping.wide())),
        Map::DivideDamped(damping) => {
            // The sum may cancel; what is lost there is divided by.
            let divisor = x + damping.wide();
            let lost = (x.abs() + damping.wide()) / divisor.abs();
            let value = z / divisor;
            Near::rounded::<S>(value, 8, value.abs() * (1.0 + lost))
        }
        Map::Balance => {
            let ratio = (x / y).sqrt();
            near(if ratio > 0.0 && ratio.is_finite() { ratio } else { 1.0 })
        }
        Map::KlScale(kappa) => near(if x == 0.0 { 1.0 } else { (kappa.wide() / x.abs()).sqrt().min(1.0) }),
        Map::Finite => Near::exact(if x.is_finite() { 1.0 } else { 0.0 }),
        Map::Blend(_) if y == 0.0 => Near::exact(z),
        Map::Blend(old) => sum(weighted(old, z), (1.0 - old.wide()) * x),
        Map::Moment(old) => sum(weighted(old, z), (1.0 - old.wide()) * x * x),
        Map::AdamDirection(first, second, epsilon) => {
            near(first.wide() * x / ((second.wide() * y).sqrt() + epsilon.wide()))
        }
        Map::Select => Near::exact(if y == 0.0 { z } else { x }),
        unknown => panic!("the laws do not know {unknown:?} yet: add it to the oracle"),
    }
}

/// One of the short forms of `map`.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    alpha: f64,
    /// Of the old content; none for `fill`.
    beta: Option<f64>,
    x: Values,
    target: Placed,
}

pub(crate) fn updates() -> impl Strategy<Value = Update> + Clone {
    (extent(), extent()).prop_flat_map(|(rows, columns)| {
        let target = placed(rows, columns, true);
        // As long as the buffer at its longest.
        let len = 8 + (rows + 4) * (columns + 4);
        (factor(), prop::option::of(factor()), values(len), target, any::<bool>()).prop_map(
            |(alpha, beta, x, mut target, spoilt)| {
                if spoilt && beta.unwrap_or(0.0) == 0.0 {
                    target.values.0.fill(f64::NAN);
                }
                Update { alpha, beta, x, target }
            },
        )
    })
}

impl Update {
    fn layout(&self) -> (Canvas, Region) {
        let mut canvas = Canvas::default();
        let region = canvas.place(&self.target);
        (canvas, region)
    }
}

impl Case for Update {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let (canvas, region) = self.layout();
        let mut target = canvas.upload(backend);
        let x = upload(backend, &self.x.0);
        let alpha = B::Scalar::of(self.alpha);
        done(match self.beta {
            Some(beta) => backend.axpby(alpha, &x, B::Scalar::of(beta), &mut target, region),
            None => backend.fill(alpha, region, &mut target),
        });
        vec![fetch(backend, &target)]
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let (canvas, region) = self.layout();
        let mut expected = Expected::unchanged::<S>("out", &canvas.content);
        for column in 0..region.columns {
            for row in 0..region.rows {
                let at = region.index(row, column);
                let alpha = S::of(self.alpha);
                expected.content[at] = match self.beta {
                    Some(beta) => {
                        let x = S::of(self.x.0[at]).wide();
                        oracle(Map::Axpby(alpha, S::of(beta)), x, 0.0, self.target.at::<S>(row, column))
                    }
                    None => Near::exact(alpha.wide()),
                };
            }
        }
        vec![expected]
    }
}
