//! What is measured on a device, and on the CPU beside it.

use anyhow::{Error, Result, anyhow};
use kronfleet_conformance::partial::{Family, Partial};
use kronfleet_core::backend::{Backend, Counters, Extent, Gemm, Invert, Map, MapJob, Outer};
use kronfleet_core::layer::Block;
use kronfleet_core::matrix::Region;
use kronfleet_core::preconditioner::Form;
use kronfleet_examples::model::Model;
use kronfleet_examples::speed::{Curvature, Workload, algorithm_flops, trainer_on};
use kronfleet_faer::Faer;
use std::time::Instant;

/// How much is measured.
pub(crate) struct Effort {
    /// Edges of square products.
    products: &'static [usize],
    /// Rows and columns of activations whose factor is computed.
    factors: &'static [(usize, usize)],
    /// Rows of matrices that are inverted.
    inverses: &'static [usize],
    /// Networks and their batches.
    steps: &'static [Load],
    /// Steps of a period.
    period: u64,
    /// Seconds that one figure may take, of which the best repetition counts.
    seconds: f64,
    /// Seconds that one repetition, and a tenth of them that a step, may be expected to take by the rate of smaller ones; what
    /// takes longer is left out, or tried with a smaller batch.
    patience: f64,
    /// Whether the sizes are those that speed is judged by.
    pub(crate) is_full: bool,
}

impl Effort {
    /// Sizes that fill a GPU.
    pub(crate) const FULL: Self = Self {
        products: &[256, 512, 1024, 2048, 4096, 8192],
        factors: &[(401, 4096), (577, 8192), (1153, 8192)],
        inverses: &[128, 401, 577, 1153, 2305],
        steps: &[("lenet5", 64), ("resnet20", 128)],
        period: 10,
        seconds: 2.0,
        patience: 20.0,
        is_full: true,
    };
    /// Sizes that an emulation can be tried with.
    pub(crate) const QUICK: Self = Self {
        products: &[32, 96],
        factors: &[(26, 128)],
        inverses: &[26, 65],
        steps: &[("lenet5", 2), ("resnet20", 1)],
        period: 1,
        seconds: 0.1,
        patience: f64::INFINITY,
        is_full: false,
    };
}

/// One kind of operation at one size.
pub(crate) struct Rate {
    /// Its size, in words.
    pub(crate) size: String,
    /// Operations of one repetition.
    pub(crate) flops: f64,
    /// Of the best repetition.
    pub(crate) seconds: f64,
}

impl Rate {
    /// Operations per second.
    pub(crate) fn rate(&self) -> f64 {
        self.flops / self.seconds
    }
}

/// A network and its batch.
pub(crate) type Load = (&'static str, usize);

/// A K-FAC step of a network.
pub(crate) struct Step {
    pub(crate) load: Load,
    /// Per step, the mean over a whole period of refreshes.
    pub(crate) seconds: f64,
    /// Operations that the algorithm asks for per step.
    pub(crate) flops: f64,
    /// Launches, waits of the host, transfers and bytes transferred of a step without refresh.
    pub(crate) asks: [u64; 4],
    /// What a refresh of all inverses adds to that, where a period has one.
    pub(crate) refresh: Option<[u64; 4]>,
}

/// Everything measured on a device, or why not.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) products: Vec<Result<Rate>>,
    pub(crate) factors: Vec<Result<Rate>>,
    pub(crate) inverses: Vec<Result<Rate>>,
    pub(crate) steps: Vec<Result<Step>>,
    /// The same with patches in half precision, where there is that.
    pub(crate) half_steps: Vec<Result<Step>>,
    /// Steps of LeNet-5 with all overrides, without one family of them, without any.
    pub(crate) overrides: Vec<(String, Result<Step>)>,
}

/// Does something with ever larger sizes, given the operations of each, until one is expected to take too long.
fn series<T: Copy>(
    sizes: &[T],
    patience: f64,
    flops: impl Fn(T) -> f64,
    mut measure: impl FnMut(T) -> Result<Rate>,
) -> Vec<Result<Rate>> {
    let mut rate = f64::INFINITY;
    let one = |&size: &T| {
        let expected = flops(size) / rate;
        if expected > patience {
            return Err(anyhow!("{:.1e} operations are left out: {expected:.0} s each", flops(size)));
        }
        let measured = measure(size);
        rate = measured.as_ref().map_or(rate, Rate::rate);
        measured
    };
    sizes.iter().map(one).collect()
}

/// Measures everything, telling how far it has come. Steps are of the loads that the effort asks for, if `loads` names none,
/// with smaller batches where those would take too long.
pub(crate) fn measure<B, E>(make: &dyn Fn() -> Result<B, E>, effort: &Effort, loads: &[Load]) -> Figures
where
    B: Backend<Scalar = f32, Verdict: Send, Download: Send> + Send,
    E: Into<Error>,
{
    let make = || make().map_err(Into::into);
    let told = |what: &str| eprintln!("  {what}");
    let products = series(effort.products, effort.patience, cube, |n| {
        told(&format!("products of {n}"));
        product(make()?, n, effort.seconds)
    });
    let factors = series(
        effort.factors,
        effort.patience,
        |(n, k)| (n * n * k) as f64,
        |(n, k)| {
            told(&format!("factor of {n} from {k}"));
            factor(make()?, n, k, effort.seconds)
        },
    );
    let inverses = series(
        effort.inverses,
        effort.patience,
        |n| cube(n) / 2.0,
        |n| {
            told(&format!("inverse of {n}"));
            inverse(make()?, n, effort.seconds)
        },
    );
    let best = products.iter().flatten().map(Rate::rate).fold(0.0, f64::max);
    let steps = if loads.is_empty() { fitting_steps(&make, effort, best) } else { steps(&make, effort, loads) };
    Figures { products, factors, inverses, steps, ..Figures::default() }
}

/// Measures steps of these loads alone.
pub(crate) fn steps<B, E>(make: &dyn Fn() -> Result<B, E>, effort: &Effort, loads: &[Load]) -> Vec<Result<Step>>
where
    B: Backend<Scalar = f32, Verdict: Send, Download: Send> + Send,
    E: Into<Error>,
{
    let one = |&load: &Load| {
        eprintln!("  steps of {}, batch of {}", load.0, load.1);
        step(make().map_err(Into::into)?, load, effort.period)
    };
    loads.iter().map(one).collect()
}

/// Operations of a product of square matrices.
fn cube(n: usize) -> f64 {
    2.0 * (n as f64).powi(3)
}

/// Measures steps of ever larger networks where products come to this rate at best: batches are halved until a step is expected
/// to take no longer than it may, by the rate of the network before.
fn fitting_steps<B, E>(make: &dyn Fn() -> Result<B, E>, effort: &Effort, mut rate: f64) -> Vec<Result<Step>>
where
    B: Backend<Scalar = f32, Verdict: Send, Download: Send> + Send,
    E: Into<Error>,
{
    let curvature = curvature(effort.period);
    let mut measured = Vec::new();
    for &(name, batch) in effort.steps {
        let blocks = blocks(name, curvature);
        let fits = |batch: &usize| {
            let flops = blocks.as_ref().map_or(0.0, |blocks| algorithm_flops(blocks, *batch, Some(curvature)));
            *batch <= 1 || flops / rate <= effort.patience / 10.0
        };
        let batch = std::iter::successors(Some(batch), |batch| Some(batch / 2)).find(fits).unwrap_or(1);
        let now = steps(make, effort, &[(name, batch)]);
        rate = now.iter().flatten().map(|step| step.flops / step.seconds).fold(rate, f64::min);
        measured.extend(now);
    }
    measured
}

/// What a network's curvature consists of.
fn blocks(name: &str, curvature: Curvature) -> Result<Vec<Block>> {
    let model = Model::choose(name, input(name), 10)?;
    let workload = Workload { model, batch: 1, threads: 1, curvature: Some(curvature) };
    Ok(trainer_on(Faer::new(1), &workload)?.parts().1.blocks().to_vec())
}

fn input(name: &str) -> Extent {
    if name.starts_with("resnet") { Extent::new(3, 32, 32) } else { Extent::new(1, 28, 28) }
}

/// So many steps are measured one by one, none of them with a refresh.
fn curvature(period: u64) -> Curvature {
    Curvature { form: Form::Inverse, factor_every: 1, inverse_every: period.max(4), split_factors: 0 }
}

/// Measures what a step of LeNet-5 loses without overrides of provided methods.
pub(crate) fn overrides<B, E>(
    make: &dyn Fn() -> Result<B, E>,
    effort: &Effort,
    load: Load,
) -> Vec<(String, Result<Step>)>
where
    B: Backend<Scalar = f32, Verdict: Send, Download: Send> + Send,
    E: Into<Error>,
{
    let one = |what: String, without: &[Family]| {
        eprintln!("  steps of {}, overrides: {what}", load.0);
        let backend = make().map_err(Into::into).map(|backend| Partial::new(backend, without));
        (what, backend.and_then(|backend| step(backend, load, effort.period)))
    };
    let mut measured = vec![one("all".to_owned(), &[])];
    // Eigenproblems, normalisation and subsampled shortcuts are not in it.
    for family in [Family::Symmetric, Family::Invert, Family::Patches, Family::Pooling, Family::Loss] {
        measured.push(one(format!("without {family:?}"), &[family]));
    }
    measured.push(one("none".to_owned(), &Family::ALL));
    measured
}

/// The best of as many repetitions as there is time for, after one to warm up.
fn best(seconds: f64, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    once()?;
    let (started, mut best) = (Instant::now(), f64::INFINITY);
    loop {
        let begun = Instant::now();
        once()?;
        best = best.min(begun.elapsed().as_secs_f64());
        if started.elapsed().as_secs_f64() > seconds {
            return Ok(best);
        }
    }
}

fn failed<E: kronfleet_core::error::Error>(error: E) -> Error {
    anyhow!("{error}")
}

/// Numbers that are neither equal nor large.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|index| ((index * 7919 + 17) % 1009) as f32 / 1009.0 - 0.5).collect()
}

fn filled<B: Backend<Scalar = f32>>(backend: &mut B, len: usize) -> Result<B::Buffer> {
    let mut buffer = backend.allocate(len).map_err(failed)?;
    backend.upload(&numbers(len), &mut buffer, 0).map_err(failed)?;
    Ok(buffer)
}

fn product<B: Backend<Scalar = f32>>(mut backend: B, n: usize, seconds: f64) -> Result<Rate> {
    let (a, b) = (filled(&mut backend, n * n)?, filled(&mut backend, n * n)?);
    let mut c = backend.allocate(n * n).map_err(failed)?;
    let square = Region::matrix(0, n, n);
    let job = Gemm::product(square, square, square);
    let seconds = best(seconds, || {
        backend.gemm(&[job], &a, &b, &mut c).map_err(failed)?;
        backend.sync().map_err(failed)
    })?;
    Ok(Rate { size: format!("{n}×{n}×{n}"), flops: job.flops() as f64, seconds })
}

fn factor<B: Backend<Scalar = f32>>(mut backend: B, n: usize, k: usize, seconds: f64) -> Result<Rate> {
    let x = filled(&mut backend, n * k)?;
    let mut c = backend.allocate(n * n).map_err(failed)?;
    let (x_region, square) = (Region::matrix(0, n, k), Region::matrix(0, n, n));
    let job = Outer { alpha: 1.0 / k as f32, x: x_region, beta: 0.0, c: square };
    let seconds = best(seconds, || {
        backend.symmetric_product(&[job], &x, &mut c).map_err(failed)?;
        backend.sync().map_err(failed)
    })?;
    Ok(Rate { size: format!("{n} from {k}"), flops: job.flops() as f64, seconds })
}

/// A positive definite matrix's Cholesky factor and from it its inverse.
fn inverse<B: Backend<Scalar = f32>>(mut backend: B, n: usize, seconds: f64) -> Result<Rate> {
    let x = filled(&mut backend, n * n)?;
    let square = Region::matrix(0, n, n);
    let mut matrix = backend.allocate(n * n).map_err(failed)?;
    let (mut factor, mut out) = (backend.allocate(n * n).map_err(failed)?, backend.allocate(n * n).map_err(failed)?);
    let job = Outer { alpha: 1.0 / n as f32, x: square, beta: 0.0, c: square };
    backend.symmetric_product(&[job], &x, &mut matrix).map_err(failed)?;
    let identity = vec![0.1; n];
    let mut diagonal = backend.allocate(n).map_err(failed)?;
    backend.upload(&identity, &mut diagonal, 0).map_err(failed)?;
    let shift = MapJob::unary(Region::matrix(0, 1, n), square.diagonal());
    let add = Map::Axpby(1.0, 1.0);
    backend.map(add, &[shift], Some(&diagonal), None, &mut matrix).map_err(failed)?;
    let mut sound = [false];
    let seconds = best(seconds, || {
        backend.axpby(1.0, &matrix, 0.0, &mut factor, square).map_err(failed)?;
        let ticket = backend.cholesky(&[square], &mut factor).map_err(failed)?;
        backend.cholesky_invert(&[Invert { factor: square, out: square }], &factor, &mut out).map_err(failed)?;
        backend.verdict(ticket, &mut sound).map_err(failed)?;
        backend.sync().map_err(failed)
    })?;
    if !sound[0] {
        return Err(anyhow!("a positive definite matrix of {n} rows is said not to be one"));
    }
    Ok(Rate { size: n.to_string(), flops: (n as f64).powi(3), seconds })
}

fn step<B>(backend: B, load @ (name, batch): Load, period: u64) -> Result<Step>
where
    B: Backend<Scalar = f32, Verdict: Send, Download: Send> + Send,
{
    let curvature = curvature(period);
    let model = Model::choose(name, input(name), 10)?;
    let workload = Workload { model, batch, threads: 1, curvature: Some(curvature) };
    let mut trainer = trainer_on(backend, &workload)?;
    // Up to the first step after a refresh.
    trainer.step()?;
    trainer.step()?;
    let count = |counters: &Counters| {
        let Counters { launches, host_waits, transfers, uploaded, downloaded, .. } = *counters;
        [launches, host_waits, transfers, 4 * (uploaded + downloaded)]
    };
    let before = count(trainer.parts().0.counters());
    trainer.step()?;
    let after = count(trainer.parts().0.counters());
    let asks = [0, 1, 2, 3].map(|index| after[index] - before[index]);
    trainer.settle()?;
    let settled = count(trainer.parts().0.counters());
    let started = Instant::now();
    for _ in 0..period {
        trainer.step()?;
    }
    trainer.settle()?;
    let seconds = started.elapsed().as_secs_f64() / period as f64;
    let end = count(trainer.parts().0.counters());
    let more = |index: usize| (end[index] - settled[index]).saturating_sub(period * asks[index]);
    let refresh = (period >= curvature.inverse_every).then(|| [0, 1, 2, 3].map(more));
    let flops = algorithm_flops(trainer.parts().1.blocks(), batch, workload.curvature);
    Ok(Step { load, seconds, flops, asks, refresh })
}
