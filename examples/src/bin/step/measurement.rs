//! The measurement.

use allocation_counter::measure;
use kronfleet_core::backend::{Backend, Gemm};
use kronfleet_core::matrix::Region;
use kronfleet_core::trainer::Trainer;
use kronfleet_examples::speed::{Workload, algorithm_flops, trainer};
use kronfleet_faer::Faer;
use serde::Serialize;
use std::time::Instant;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measurement {
    /// The network's name.
    pub(crate) model: String,
    /// Scalars of all parameters.
    pub(crate) parameters: usize,
    /// Samples of a step.
    pub(crate) batch: usize,
    /// Threads of the backend.
    pub(crate) threads: usize,
    /// Steps of a period: the mean is over whole ones.
    pub(crate) period: u64,
    /// Milliseconds per step: the mean over all whole periods timed.
    pub(crate) milliseconds: f64,
    /// The mean over the best period: what a busy machine disturbs least.
    pub(crate) milliseconds_best: f64,
    /// Operations per step that the algorithm asks for, counted from the layers' shapes: see [`algorithm_flops`].
    pub(crate) flops: f64,
    /// 10⁹ operations per second of large products on as many threads: the best of those measured between periods.
    pub(crate) gemm_gflops: f64,
    /// `flops` per second of a step, divided by that: what is known as model FLOPs utilisation (Chowdhery et al.,
    /// *PaLM*, 2022, appendix B).
    pub(crate) efficiency: f64,
    /// Operations per step of products and decompositions really done, counted by the backend: fewer than `flops` where
    /// patches share their products or a gradient stays a product of thin matrices.
    pub(crate) flops_done: f64,
    /// `flops_done` per second of a step, divided by `gemm_gflops`: how busy the arithmetic is.
    pub(crate) efficiency_done: f64,
    /// Most bytes on the heap at once: backend, network, curvature, optimiser and one period of steps, beside what the
    /// products' library keeps for itself.
    pub(crate) peak_bytes: u64,
    /// Bytes the products' library reserved on this thread for its packed operands, once for the whole process;
    /// it touches only what its products need.
    pub(crate) library_bytes: u64,
    /// Heap allocations of a whole period after the first (this thread).
    pub(crate) allocations: u64,
    /// The loss after the last step.
    pub(crate) loss: f64,
}

/// Edge of the square matrices whose product states what the machine can do.
const EDGE: usize = 1024;

/// The rate of large products, to be measured again and again.
struct Products {
    backend: Faer<f32>,
    operands: [kronfleet_faer::Buffer<f32>; 3],
    best: f64,
}

impl Products {
    fn new(threads: usize) -> Self {
        let mut backend = Faer::new(threads);
        let mut buffer = |value: f32| {
            let mut buffer = backend.allocate(EDGE * EDGE).expect("memory for a few megabytes");
            let all = Region::vector(0, EDGE * EDGE);
            backend.fill(value, all, &mut buffer).expect("no device to fail");
            buffer
        };
        let operands = [buffer(0.5), buffer(0.25), buffer(0.0)];
        Self { backend, operands, best: 0.0 }
    }

    fn measure(&mut self) {
        let all = Region::matrix(0, EDGE, EDGE);
        let product = Gemm::product(all, all, all);
        let [a, b, c] = &mut self.operands;
        for _ in 0..3 {
            let start = Instant::now();
            self.backend.gemm(&[product], a, b, c).expect("no device to fail");
            let rate = product.flops() as f64 / start.elapsed().as_secs_f64() / 1e9;
            self.best = self.best.max(rate);
        }
    }
}

/// The smallest number of steps that is whole periods of both.
fn common_multiple(one: u64, other: u64) -> u64 {
    let (mut divisor, mut rest) = (one, other);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    one / divisor * other
}

/// Measures a workload: one period to warm up, then `periods` more.
///
/// # Errors
/// If the network cannot be built or a step fails.
pub(crate) fn step(workload: &Workload, periods: usize) -> anyhow::Result<Measurement> {
    let mut products = Products::new(workload.threads);
    // The library's own memory appears with a thread's first product; this thread makes small ones.
    let library = measure(|| {
        products.measure();
        Products::new(1).measure();
    });
    let library = library.bytes_max;
    let period =
        workload.curvature.map_or(10, |curvature| common_multiple(curvature.inverse_every, curvature.factor_every));
    let mut made = None;
    let peak = measure(|| made = Some(trainer(workload).and_then(|trainer| run(trainer, period))));
    let mut trainer = made.expect("measure calls its closure")?;
    let before = trainer.parts().0.counters().flops;
    let (mut best, mut total, mut allocations) = (f64::INFINITY, 0.0, 0);
    for _ in 0..periods {
        products.measure();
        let mut outcome = Ok(());
        let start = Instant::now();
        let counted = measure(|| {
            for _ in 0..period {
                if let Err(error) = trainer.step() {
                    outcome = Err(error);
                }
            }
        });
        let seconds = start.elapsed().as_secs_f64() / period as f64;
        outcome?;
        (best, total) = (best.min(seconds), total + seconds);
        allocations = counted.count_total;
    }
    products.measure();
    let mean = total / periods as f64;
    let steps = period * periods as u64;
    let done = (trainer.parts().0.counters().flops - before) as f64 / steps as f64;
    let flops = algorithm_flops(trainer.parts().1.blocks(), workload.batch, workload.curvature);
    let progress = trainer.settle()?;
    Ok(Measurement {
        model: workload.model.name.clone(),
        parameters: trainer.parts().1.parameters_len(),
        batch: workload.batch,
        threads: workload.threads,
        period,
        milliseconds: 1e3 * mean,
        milliseconds_best: 1e3 * best,
        flops,
        gemm_gflops: products.best,
        efficiency: flops / mean / 1e9 / products.best,
        flops_done: done,
        efficiency_done: done / mean / 1e9 / products.best,
        peak_bytes: peak.bytes_max,
        library_bytes: library,
        allocations,
        loss: progress.loss,
    })
}

fn run(mut trainer: Trainer<Faer<f32>>, steps: u64) -> anyhow::Result<Trainer<Faer<f32>>> {
    for _ in 0..steps {
        trainer.step()?;
    }
    Ok(trainer)
}
