//! Cholesky factors and what is done with them.

use super::bound::{Expected, Near, unit};
use super::data::{Canvas, POISON, Placed, Values, done, extent, fetch, placed, values};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Invert, Solve};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use proptest::collection::vec;
use proptest::prelude::*;

/// `L·Lᵀ = A` up to n·ε·|L|·|Lᵀ|, reading the lower triangle only; nothing outside the matrices is written.
pub fn cholesky_factors_multiply_back<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let matrix = extent().prop_flat_map(|n| placed(n, n, false)).prop_map(definite);
    check.hold(vec(matrix, 1..4), |matrices| {
        let mut backend = make();
        let (canvas, jobs) = layout(&matrices);
        let mut buffer = canvas.upload(&mut backend);
        let ticket = done(backend.cholesky(&jobs, &mut buffer));
        let mut sound = vec![false; jobs.len()];
        done(backend.verdict(ticket, &mut sound));
        if let Some(job) = sound.iter().position(|&sound| !sound) {
            return Err(format!("job {job} is positive definite and was reported not to be"));
        }
        let content = fetch(&mut backend, &buffer);
        untouched(&canvas, &jobs, &content)?;
        matrices.iter().zip(jobs).try_for_each(|(matrix, region)| factor_of(matrix, region, &content))
    })
}

/// An indefinite matrix, and one with a NaN, is reported; the other jobs of the call are sound, and so is later work.
pub fn failed_factorisations_are_reported_alone<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let matrix = (1..=33_usize).prop_flat_map(|n| (placed(n, n, false).prop_map(definite), spoiling(), 0..n));
    check.hold(vec(matrix, 2..5), |cases| {
        let mut backend = make();
        let matrices: Vec<Placed> = cases.iter().map(|(matrix, how, at)| spoil(matrix, *how, *at)).collect();
        let (canvas, jobs) = layout(&matrices);
        let mut buffer = canvas.upload(&mut backend);
        let ticket = done(backend.cholesky(&jobs, &mut buffer));
        // Later work is asked for before the verdict is known.
        let again = definite(Placed { values: Values(vec![1.0; 9]), rows: 3, columns: 3, ..matrices[0].clone() });
        let (later, later_jobs) = layout(std::slice::from_ref(&again));
        let mut later = later.upload(&mut backend);
        let later_ticket = done(backend.cholesky(&later_jobs, &mut later));
        let mut sound = vec![false; jobs.len()];
        done(backend.verdict(ticket, &mut sound));
        let content = fetch(&mut backend, &buffer);
        untouched(&canvas, &jobs, &content)?;
        for (job, (_, how, _)) in cases.iter().enumerate() {
            let expected = matches!(how, Spoiling::Not);
            if sound[job] != expected {
                return Err(format!("job {job} is reported {} but is {how:?} spoilt", sound[job]));
            }
            if expected {
                factor_of(&matrices[job], jobs[job], &content).map_err(|facts| format!("job {job}: {facts}"))?;
            }
        }
        let mut later_sound = [false];
        done(backend.verdict(later_ticket, &mut later_sound));
        if later_sound != [true] {
            return Err("a later factorisation is reported to have failed".into());
        }
        let content = fetch(&mut backend, &later);
        factor_of(&again, later_jobs[0], &content).map_err(|facts| format!("later work: {facts}"))
    })
}

/// `(L·Lᵀ)·x = b` up to n·ε·|L|·|Lᵀ|·|x|, reading the lower triangle only.
pub fn solutions_solve<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let job = (extent(), extent()).prop_flat_map(|(n, m)| (factor(n), placed(n, m, false)));
    check.hold(vec(job, 1..4), |cases| {
        let mut backend = make();
        let (mut factors, mut sides) = (Canvas::default(), Canvas::default());
        let place = |(l, b): &(Placed, Placed)| Solve { factor: factors.place(l), x: sides.place(b) };
        let jobs: Vec<Solve> = cases.iter().map(place).collect();
        let factors = factors.upload(&mut backend);
        let mut x = sides.upload(&mut backend);
        done(backend.cholesky_solve(&jobs, &factors, &mut x));
        let content = fetch(&mut backend, &x);
        untouched(&sides, &jobs.iter().map(|job| job.x).collect::<Vec<_>>(), &content)?;
        for ((l, b), Solve { x, .. }) in cases.iter().zip(jobs) {
            for column in 0..x.columns {
                let solution: Vec<f64> = (0..x.rows).map(|row| content[x.index(row, column)].wide()).collect();
                residual::<B::Scalar>(l, &solution, |row| b.at::<B::Scalar>(row, column), 1.0)?;
            }
        }
        Ok(())
    })
}

/// `(L·Lᵀ)·X = 1` up to n·ε·κ, with both triangles of `X` equal to the bit.
pub fn inverses_invert<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let job = extent().prop_flat_map(|n| (factor(n), placed(n, n, false)));
    check.hold(vec(job, 1..4), |cases| {
        let mut backend = make();
        let (mut factors, mut targets) = (Canvas::default(), Canvas::default());
        let place = |(l, out): &(Placed, Placed)| Invert { factor: factors.place(l), out: targets.place(out) };
        let jobs: Vec<Invert> = cases.iter().map(place).collect();
        let factors = factors.upload(&mut backend);
        let mut out = targets.upload(&mut backend);
        done(backend.cholesky_invert(&jobs, &factors, &mut out));
        let content = fetch(&mut backend, &out);
        untouched(&targets, &jobs.iter().map(|job| job.out).collect::<Vec<_>>(), &content)?;
        for ((l, _), Invert { out, .. }) in cases.iter().zip(jobs) {
            // Products with the inverse factor magnify an error by κ(L) more than substitution does.
            let condition = norm::<B::Scalar>(l) * inverse_norm::<B::Scalar>(l);
            for column in 0..out.columns {
                let inverse: Vec<f64> = (0..out.rows).map(|row| content[out.index(row, column)].wide()).collect();
                let unit_vector = |row| f64::from(u8::from(row == column));
                residual::<B::Scalar>(l, &inverse, unit_vector, condition)?;
                for row in 0..column {
                    let (upper, lower) = (content[out.index(row, column)], content[out.index(column, row)]);
                    if upper.wide().to_bits() != lower.wide().to_bits() {
                        return Err(format!("({row}, {column}) is {upper}, ({column}, {row}) is {lower}"));
                    }
                }
            }
        }
        Ok(())
    })
}

/// What makes a matrix have no Cholesky factor.
#[derive(Clone, Copy, Debug)]
enum Spoiling {
    Not,
    Negative,
    Nan,
}

fn spoiling() -> impl Strategy<Value = Spoiling> + Clone {
    prop::sample::select(vec![Spoiling::Not, Spoiling::Negative, Spoiling::Nan])
}

/// Makes diagonal element `at` negative or not a number.
fn spoil(matrix: &Placed, how: Spoiling, at: usize) -> Placed {
    let mut spoilt = matrix.clone();
    match how {
        Spoiling::Not => {}
        Spoiling::Negative => spoilt.values.0[at * (matrix.rows + 1)] = -1.0,
        // The last row of the lower triangle: only a late pivot sees it.
        Spoiling::Nan => spoilt.values.0[(at + 1) * matrix.rows - 1] = f64::NAN,
    }
    spoilt
}

/// `M·Mᵀ/n + 1/2` for the matrix `M` given: κ ≤ 8n + 1. The upper triangle is poisoned.
fn definite(matrix: Placed) -> Placed {
    let n = matrix.rows;
    let m = &matrix.values.0;
    let mut values = vec![POISON; n * n];
    for column in 0..n {
        for row in column..n {
            let product: f64 = (0..n).map(|k| m[row + k * n] * m[column + k * n]).sum();
            values[row + column * n] = product / n as f64 + f64::from(u8::from(row == column)) / 2.0;
        }
    }
    Placed { values: Values(values), ..matrix }
}

/// A factor with a diagonal of 1 to 2, small elsewhere, so that κ stays small; the upper triangle is poisoned.
fn factor(n: usize) -> impl Strategy<Value = Placed> + Clone {
    (placed(n, n, false), values(n)).prop_map(move |(mut l, diagonal)| {
        for column in 0..n {
            for row in 0..n {
                let value = &mut l.values.0[row + column * n];
                *value = match row.cmp(&column) {
                    core::cmp::Ordering::Less => POISON,
                    core::cmp::Ordering::Equal => 1.0 + diagonal.0[row].abs() / 2.0,
                    core::cmp::Ordering::Greater => *value / n as f64,
                };
            }
        }
        l
    })
}

fn layout(matrices: &[Placed]) -> (Canvas, Vec<Region>) {
    let mut canvas = Canvas::default();
    let jobs = matrices.iter().map(|matrix| canvas.place(matrix)).collect();
    (canvas, jobs)
}

/// Nothing outside the regions was written.
pub(crate) fn untouched<S: Scalar>(before: &Canvas, written: &[Region], after: &[S]) -> Result<(), String> {
    let mut expected = Expected::unchanged::<S>("matrices", &before.content);
    for region in written {
        for column in 0..region.columns {
            for row in 0..region.rows {
                expected.content[region.index(row, column)] = Near { value: 0.0, error: f64::INFINITY };
            }
        }
    }
    // What is judged elsewhere may even be NaN here.
    let after: Vec<S> = after
        .iter()
        .zip(&expected.content)
        .map(|(&value, near)| if near.error == f64::INFINITY { S::of(0.0) } else { value })
        .collect();
    expected.compare(&after)
}

/// `L·Lᵀ = A` (Higham, theorem 10.3).
fn factor_of<S: Scalar>(matrix: &Placed, region: Region, content: &[S]) -> Result<(), String> {
    let n = matrix.rows;
    let l = |row: usize, column: usize| content[region.index(row, column)].wide();
    for column in 0..n {
        for row in column..n {
            let terms = || (0..=column).map(|k| l(row, k) * l(column, k));
            let near = Near::rounded::<S>(matrix.at::<S>(row, column), n, terms().map(f64::abs).sum());
            let product: f64 = terms().sum();
            if !near.admits(product) {
                return Err(format!("(L·Lᵀ)({row}, {column}) is {product}, not {} ± {:e}", near.value, near.error));
            }
        }
    }
    Ok(())
}

/// `(L·Lᵀ)·x = b` (Higham, theorem 10.4), its error magnified by `condition`.
fn residual<S: Scalar>(l: &Placed, x: &[f64], b: impl Fn(usize) -> f64, condition: f64) -> Result<(), String> {
    let n = l.rows;
    let product = |absolute: bool| {
        let size = move |value: f64| if absolute { value.abs() } else { value };
        let inner: Vec<f64> = (0..n).map(|k| (k..n).map(|row| size(l.at::<S>(row, k)) * size(x[row])).sum()).collect();
        (0..n).map(move |row| (0..=row).map(|k| size(l.at::<S>(row, k)) * inner[k]).sum::<f64>())
    };
    for (row, (product, magnitude)) in product(false).zip(product(true)).enumerate() {
        let bound = unit::<S>(3 * n) * magnitude * condition;
        let off = (product - b(row)).abs();
        // Not `off > bound`: a NaN is neither greater nor less.
        let near = off <= bound;
        if !near {
            return Err(format!("row {row} of L·Lᵀ·x is {product}, not {} ± {bound:e}", b(row)));
        }
    }
    Ok(())
}

fn norm<S: Scalar>(l: &Placed) -> f64 {
    let lower = (0..l.columns).flat_map(|column| (column..l.rows).map(move |row| l.at::<S>(row, column).powi(2)));
    lower.sum::<f64>().sqrt()
}

/// The Frobenius norm of `L⁻¹`, by substitution.
fn inverse_norm<S: Scalar>(l: &Placed) -> f64 {
    let n = l.rows;
    let mut total = 0.0;
    for column in 0..n {
        let mut x = vec![0.0; n];
        for row in column..n {
            let known: f64 = (column..row).map(|k| l.at::<S>(row, k) * x[k]).sum();
            x[row] = (f64::from(u8::from(row == column)) - known) / l.at::<S>(row, row);
            total += x[row] * x[row];
        }
    }
    total.sqrt()
}
