//! One in-order queue: programs of many calls on the same buffers.

use super::bound::same_bits;
use super::data::{Values, done, fetch, upload, values, whole};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{
    Backend, Convolution, Eigen, Extent, Gemm, Map, MapJob, Outer, ReduceJob, Solve, Statistic,
};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use proptest::collection::vec;
use proptest::prelude::*;

/// Calls act as if done in order, and tickets finished at the end show what was there in between. Whole numbers, so
/// to the bit.
pub fn calls_act_in_order<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let cases = (1..=8_usize).prop_flat_map(|n| {
        let place = || 0..BUFFERS;
        let step = prop_oneof![
            (place(), -3..=3_i32).prop_map(|(k, value)| Exact::Fill(k, value.into())),
            (place(), place(), any::<bool>()).prop_map(|(a, k, minus)| Exact::Add(a, k, minus)),
            (place(), place(), place()).prop_map(|(a, b, k)| Exact::Mask(a, b, k)),
            (place(), whole(n * n)).prop_map(|(k, values)| Exact::Upload(k, values)),
            place().prop_map(Exact::Download),
        ];
        (Just(n), [whole(n * n), whole(n * n), whole(n * n)], vec(step, 1..20))
    });
    check.hold(cases, |(n, start, steps)| {
        let mut backend = make();
        let mut buffers = start.each_ref().map(|values| upload(&mut backend, &values.0));
        let mut content = start.map(|values| values.0);
        let mut scratch = upload(&mut backend, &vec![0.0; n * n]);
        let square = Region::matrix(0, n, n);
        let mut tickets = vec![];
        for step in &steps {
            step.interpret(n, &mut content);
            step.call(&mut backend, square, &mut buffers, &mut scratch);
            if let Exact::Download(k) = *step {
                tickets.push((content[k].clone(), done(backend.download(&buffers[k], 0..n * n))));
            }
        }
        for (number, (expected, ticket)) in tickets.into_iter().rev().enumerate() {
            let mut seen = vec![B::Scalar::of(0.0); n * n];
            done(backend.finish(ticket, &mut seen));
            same_whole(&format!("ticket {number} from the last"), &expected, &seen)?;
        }
        for (number, (expected, buffer)) in content.iter().zip(&buffers).enumerate() {
            same_whole(&format!("buffer {number}"), expected, &fetch(&mut backend, buffer))?;
        }
        Ok(())
    })
}

/// Inserting `sync` anywhere changes no bit.
pub fn synchronising_changes_no_bit<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    check.hold(programs(), |program| {
        let (with, without) = (program.run(&mut make(), true), program.run(&mut make(), false));
        same_bits("with and without sync", &with, &without)
    })
}

/// The same calls give the same bits: on another backend and again on the same one.
pub fn reruns_are_bit_identical<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    check.hold(programs(), |program| {
        let mut backend = make();
        let first = program.run(&mut backend, false);
        same_bits("the first and the second run on one backend", &first, &program.run(&mut backend, false))?;
        same_bits("runs on two backends", &first, &program.run(&mut make(), false))
    })
}

const BUFFERS: usize = 3;

/// A call whose result is exact in any order of summation.
#[derive(Clone, Debug)]
enum Exact {
    Fill(usize, f64),
    /// `k ← a ± k`.
    Add(usize, usize, bool),
    /// `k ← a` where `a·b > 0`, else 0.
    Mask(usize, usize, usize),
    Upload(usize, Values),
    Download(usize),
}

impl Exact {
    /// The call's meaning on plain numbers.
    fn interpret(&self, n: usize, content: &mut [Vec<f64>; BUFFERS]) {
        match self {
            Self::Fill(k, value) => content[*k].fill(*value),
            Self::Add(a, k, minus) if a != k => {
                let sign = if *minus { -1.0 } else { 1.0 };
                let sums = content[*a].iter().zip(&content[*k]).map(|(a, k)| a + sign * k).collect();
                content[*k] = sums;
            }
            Self::Mask(a, b, k) if a != k => {
                let product = |row: usize, column: usize| -> f64 {
                    (0..n).map(|i| content[*a][row + i * n] * content[*b][i + column * n]).sum()
                };
                let masked = (0..n * n).map(|at| if product(at % n, at / n) > 0.0 { content[*a][at] } else { 0.0 });
                content[*k] = masked.collect();
            }
            Self::Upload(k, values) => content[*k].clone_from(&values.0),
            Self::Add(..) | Self::Mask(..) | Self::Download(_) => {}
        }
    }

    fn call<B: Backend>(
        &self,
        backend: &mut B,
        square: Region,
        buffers: &mut [B::Buffer; BUFFERS],
        scratch: &mut B::Buffer,
    ) {
        let one = B::Scalar::of(1.0);
        match self {
            Self::Fill(k, value) => done(backend.fill(B::Scalar::of(*value), square, &mut buffers[*k])),
            Self::Add(a, k, minus) if a != k => {
                let [a, k] = buffers.get_disjoint_mut([*a, *k]).expect("two different buffers");
                done(backend.axpby(one, a, B::Scalar::of(if *minus { -1.0 } else { 1.0 }), k, square));
            }
            Self::Mask(a, b, k) if a != k => {
                done(backend.gemm(&[Gemm::product(square, square, square)], &buffers[*a], &buffers[*b], scratch));
                let [a, k] = buffers.get_disjoint_mut([*a, *k]).expect("two different buffers");
                let job = MapJob { x: square, y: square, out: square };
                done(backend.map(Map::ReluGradient, &[job], Some(a), Some(scratch), k));
            }
            Self::Upload(k, values) => {
                let content: Vec<B::Scalar> = values.0.iter().map(|&value| B::Scalar::of(value)).collect();
                done(backend.upload(&content, &mut buffers[*k], 0));
            }
            Self::Add(..) | Self::Mask(..) | Self::Download(_) => {}
        }
    }
}

fn same_whole<S: Scalar>(what: &str, expected: &[f64], seen: &[S]) -> Result<(), String> {
    match expected.iter().zip(seen).position(|(expected, seen)| *expected != seen.wide()) {
        Some(at) => Err(format!("{what}: element {at} is {} instead of {}", seen[at], expected[at])),
        None => Ok(()),
    }
}

/// A call that rounds.
#[derive(Clone, Copy, Debug)]
enum Rounding {
    Product,
    Symmetric,
    RowSums,
    Solve,
    Eigen,
    Convolve,
}

/// Calls `(what, a, b, k)` from buffers `a` and `b` into `k`.
#[derive(Clone, Debug)]
struct Program {
    n: usize,
    start: [Values; BUFFERS],
    steps: Vec<(Rounding, usize, usize, usize)>,
}

fn programs() -> impl Strategy<Value = Program> {
    use Rounding::{Convolve, Eigen, Product, RowSums, Solve, Symmetric};
    let what = prop::sample::select(vec![Product, Symmetric, RowSums, Solve, Eigen, Convolve]);
    let steps = vec((what, 0..BUFFERS, 0..BUFFERS, 0..BUFFERS), 1..12);
    (3..=19_usize, steps).prop_flat_map(|(n, steps)| {
        [values(n * n), values(n * n), values(n * n)].prop_map(move |start| Program { n, start, steps: steps.clone() })
    })
}

impl Program {
    fn run<B: Backend>(&self, backend: &mut B, synchronise: bool) -> Vec<Vec<B::Scalar>> {
        let n = self.n;
        let mut bench = Bench::new(backend, n);
        let mut buffers = self.start.each_ref().map(|values| upload(bench.backend, &values.0));
        for &(what, a, b, k) in &self.steps {
            bench.step(what, &buffers[a], &buffers[b]);
            if synchronise {
                done(bench.backend.sync());
            }
            // Whatever came out is brought back to numbers between -1 and 1.
            let square = Region::matrix(0, n, n);
            done(bench.backend.map(
                Map::Tanh,
                &[MapJob::unary(square, square)],
                Some(&bench.result),
                None,
                &mut buffers[k],
            ));
            if synchronise {
                done(bench.backend.sync());
            }
        }
        buffers.iter().map(|buffer| fetch(bench.backend, buffer)).collect()
    }
}

/// A backend with room for intermediate results.
struct Bench<'a, B: Backend> {
    backend: &'a mut B,
    shape: Convolution,
    result: B::Buffer,
    matrix: B::Buffer,
    values: B::Buffer,
    scratch: B::Buffer,
}

impl<'a, B: Backend> Bench<'a, B> {
    fn new(backend: &'a mut B, n: usize) -> Self {
        let shape = Convolution::new(Extent::new(1, n, n), 1, [3, 3], [1, 1], [1, 1], [1, 1], false)
            .expect("a kernel of 3 with padding fits everywhere");
        let mut room = |len| done(backend.allocate(len));
        let (result, matrix, values) = (room(n * n), room(n * n), room(n));
        let scratch = backend.convolution_scratch(&shape, 1);
        let scratch = done(backend.allocate(scratch));
        Self { backend, shape, result, matrix, values, scratch }
    }

    fn step(&mut self, what: Rounding, a: &B::Buffer, b: &B::Buffer) {
        let n = self.shape.input.height;
        let square = Region::matrix(0, n, n);
        let (zero, one) = (B::Scalar::of(0.0), B::Scalar::of(1.0));
        let outer = Outer { alpha: B::Scalar::of(1.0 / n as f64), x: square, beta: zero, c: square };
        let backend = &mut *self.backend;
        match what {
            Rounding::Product => {
                let job = Gemm::product(square, square.transposed(), square);
                done(backend.gemm(&[job], a, b, &mut self.result));
            }
            Rounding::Symmetric => done(backend.symmetric_product(&[outer], a, &mut self.result)),
            Rounding::RowSums => {
                let job = ReduceJob { y: square, ..ReduceJob::sum(square, Region::vector(0, n)) };
                done(backend.reduce(&[job], a, Some(b), &mut self.values));
                let job = MapJob::unary(Region::repeated_column(0, n, n), square);
                done(backend.map(Map::Axpby(one, zero), &[job], Some(&self.values), None, &mut self.result));
            }
            Rounding::Solve => {
                done(backend.symmetric_product(&[outer], a, &mut self.matrix));
                let diagonal = square.diagonal();
                done(backend.fill(one, diagonal.block(0, 0, 1, 0), &mut self.matrix));
                done(backend.fill(B::Scalar::of(n as f64), diagonal, &mut self.matrix));
                let ticket = done(backend.cholesky(&[square], &mut self.matrix));
                done(backend.axpby(one, b, zero, &mut self.result, square));
                done(backend.cholesky_solve(&[Solve { factor: square, x: square }], &self.matrix, &mut self.result));
                done(backend.verdict(ticket, &mut [false]));
            }
            Rounding::Eigen => {
                done(backend.symmetric_product(&[outer], a, &mut self.result));
                let job = Eigen { matrix: square, values: Region::vector(0, n) };
                done(backend.symmetric_eigen(&[job], &mut self.result, &mut self.values));
            }
            Rounding::Convolve => {
                let kernel = Region::matrix(0, 1, 9);
                let statistic = (n * n >= 81).then_some(Statistic {
                    target: &mut self.matrix,
                    region: Region::matrix(0, 9, 9),
                    scale: one,
                });
                let (shape, scratch) = (&self.shape, &mut self.scratch);
                done(backend.convolution_forward(shape, 1, (a, kernel), b, &mut self.result, statistic, scratch));
            }
        }
    }
}
