//! Sums.

use super::bound::{Expected, Near};
use super::case::{Case, match_oracle};
use super::data::{Canvas, Placed, done, extent, factor, fetch, placed};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, ReduceJob};
use kronfleet_core::scalar::Scalar;
use proptest::collection::vec;
use proptest::prelude::*;

/// `out ← α·Σ x⊙y + β·out` over rows, columns, both or neither; `β = 0` overwrites NaN; nothing else is written.
pub fn reductions_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, reductions())
}

#[derive(Clone, Debug)]
struct SumJob {
    alpha: f64,
    beta: f64,
    x: Placed,
    y: Placed,
    out: Placed,
}

/// What the elements are multiplied with before they are summed.
#[derive(Clone, Copy, Debug)]
enum Other {
    Nothing,
    Another,
    Itself,
}

/// One call with several sums.
#[derive(Clone, Debug)]
pub(crate) struct Reduction {
    other: Other,
    jobs: Vec<SumJob>,
}

fn reductions() -> impl Strategy<Value = Reduction> {
    let job = (extent(), extent(), any::<bool>(), any::<bool>()).prop_flat_map(|(rows, columns, down, across)| {
        let out = placed(if down { 1 } else { rows }, if across { 1 } else { columns }, true);
        let sources = (placed(rows, columns, true), placed(rows, columns, true));
        (factor(), factor(), sources, out, any::<bool>()).prop_map(|(alpha, beta, (x, y), mut out, spoilt)| {
            if spoilt && beta == 0.0 {
                out.values.0.fill(f64::NAN);
            }
            SumJob { alpha, beta, x, y, out }
        })
    });
    let other = prop::sample::select(vec![Other::Nothing, Other::Another, Other::Itself]);
    (other, vec(job, 1..3)).prop_map(|(other, jobs)| Reduction { other, jobs })
}

impl Reduction {
    fn layout<S: Scalar>(&self) -> (Canvas, Canvas, Canvas, Vec<ReduceJob<S>>) {
        let (mut first, mut second, mut target) = (Canvas::default(), Canvas::default(), Canvas::default());
        let jobs = self.jobs.iter().map(|job| {
            let (x, y) = (first.place(&job.x), second.place(&job.y));
            ReduceJob {
                alpha: S::of(job.alpha),
                x,
                y: if matches!(self.other, Other::Another) { y } else { x },
                beta: S::of(job.beta),
                out: target.place(&job.out),
            }
        });
        let jobs = jobs.collect();
        (first, second, target, jobs)
    }
}

impl Case for Reduction {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let (x, y, out, jobs) = self.layout();
        let (x, y, mut out) = (x.upload(backend), y.upload(backend), out.upload(backend));
        let other = match self.other {
            Other::Nothing => None,
            Other::Another => Some(&y),
            Other::Itself => Some(&x),
        };
        done(backend.reduce(&jobs, &x, other, &mut out));
        vec![fetch(backend, &out)]
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let (_, _, target, jobs) = self.layout::<S>();
        let mut expected = Expected::unchanged::<S>("out", &target.content);
        for (job, ReduceJob { alpha, beta, x, out, .. }) in self.jobs.iter().zip(jobs) {
            let mut terms = vec![vec![]; out.len()];
            for column in 0..x.columns {
                for row in 0..x.rows {
                    let value = job.x.at::<S>(row, column);
                    let factor = match self.other {
                        Other::Nothing => 1.0,
                        Other::Another => job.y.at::<S>(row, column),
                        Other::Itself => value,
                    };
                    let (to_row, to_column) = (row.min(out.rows - 1), column.min(out.columns - 1));
                    terms[to_row + to_column * out.rows].push(value * factor);
                }
            }
            for (at, terms) in terms.iter().enumerate() {
                let (row, column) = (at % out.rows, at / out.rows);
                let kept = if beta.wide() == 0.0 { 0.0 } else { beta.wide() * job.out.at::<S>(row, column) };
                let value = alpha.wide() * terms.iter().sum::<f64>() + kept;
                let size = alpha.wide().abs() * terms.iter().map(|term| term.abs()).sum::<f64>() + kept.abs();
                expected.content[out.index(row, column)] = Near::rounded::<S>(value, terms.len() + 3, size);
            }
        }
        vec![expected]
    }
}
