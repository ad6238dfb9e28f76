//! How fast the kernels are, on the shapes that training meets.
//!
//! ```text
//! cargo bench -p kronfleet-faer                    # everything, in about a minute
//! cargo bench -p kronfleet-faer -- cholesky        # whatever has this in its name
//! cargo bench -p kronfleet-faer -- --quick         # a first impression
//! ```
//!
//! # What the figures mean
//! - One thread and `f32`; the backend is warm, so arenas have grown and nothing is allocated.
//! - `time` is for one call, its operands in memory; between calls nothing is evicted from the caches on purpose.
//! - `thrpt` in `Gelem/s` is GFLOP/s: an element is one floating-point operation as the backend's own counters have it.
//!   They count what the chosen method does. Where a method needs fewer operations (sums of shifted pixels in place of
//!   patches), time falls while the rate need not rise: between methods compare times.
//! - Factorisations count what the textbook needs: n³/3 for Cholesky, 2n³/3 for the inverse from its factor, 14n³/3 for
//!   all eigenvalues and eigenvectors.
//! - `gemm/square/1024×1024×1024` is the machine's own rate, that of a large product: read the other rates as shares
//!   of it.
//!
//! Shapes are `m×n×k` for a product of `m×k` and `k×n`, `n×k` for `x·xᵀ` of an `n×k` matrix, and for a convolution
//! `channels×height×width`, input to output. The networks are an MLP 784-512-512-10 at batch 128, LeNet-5 at batch 64,
//! and ResNet-20 at batch 32.

use core::hint::black_box;
use core::time::Duration;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use kronfleet_core::backend::{Backend, Buffer as _, Convolution, Eigen, Extent, Gemm, Invert, Outer, Statistic};
use kronfleet_core::matrix::Region;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_faer::{Buffer, Faer};
use std::time::Instant;

fn main() {
    // Arguments come last, so that they win.
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .nresamples(10_000)
        .configure_from_args();
    gemm(&mut criterion);
    symmetric_product(&mut criterion);
    cholesky(&mut criterion);
    eigen(&mut criterion);
    convolution(&mut criterion);
    criterion.final_summary();
}

/// A backend and a source of numbers.
struct Bench {
    backend: Faer<f32>,
    random: Random,
}

impl Bench {
    fn new() -> Self {
        Self { backend: Faer::new(1), random: Seed(1).random() }
    }

    fn zeros(&mut self, len: usize) -> Buffer<f32> {
        self.backend.allocate(len).expect("benchmarks are small")
    }

    /// Numbers in −1..1.
    fn noise(&mut self, len: usize) -> Buffer<f32> {
        let content: Vec<f32> = (0..len).map(|_| 2.0 * self.random.uniform() as f32 - 1.0).collect();
        self.buffer(&content)
    }

    fn buffer(&mut self, content: &[f32]) -> Buffer<f32> {
        let mut buffer = self.zeros(content.len());
        self.backend.upload(content, &mut buffer, 0).expect("the host has no links to break");
        buffer
    }

    /// A damped factor: `x·xᵀ/k + 0.01·I` with `k = 2n` columns of noise.
    ///
    /// Of full rank and without equal eigenvalues, so that divide and conquer finds nothing to skip.
    fn factor(&mut self, n: usize) -> Vec<f32> {
        let (wide, square) = (Region::matrix(0, n, 2 * n), Region::matrix(0, n, n));
        let x = self.noise(wide.end());
        let mut factor = self.zeros(square.end());
        self.backend.fill(0.01, square.diagonal(), &mut factor).expect("the host does not fail");
        let job = Outer { alpha: 1.0 / wide.columns as f32, x: wide, beta: 1.0, c: square };
        self.backend.symmetric_product(&[job], &x, &mut factor).expect("the host does not fail");
        self.backend.fetch(&factor, 0..square.end()).expect("the host does not fail")
    }

    /// Times `run` on `output`, which `prepare` restores before every call, off the clock.
    fn time<T>(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: BenchmarkId,
        output: &mut T,
        prepare: impl Fn(&mut Faer<f32>, &mut T),
        mut run: impl FnMut(&mut Faer<f32>, &mut T),
    ) {
        let backend = &mut self.backend;
        prepare(backend, output);
        let before = backend.counters().flops;
        run(backend, output);
        group.throughput(Throughput::Elements(backend.counters().flops - before));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    prepare(backend, output);
                    let start = Instant::now();
                    run(backend, output);
                    total += start.elapsed();
                }
                total
            });
        });
    }
}

/// For outputs whose old values do not matter.
fn overwritten<T>(_: &mut Faer<f32>, _: &mut T) {}

/// Products of dense layers, of convolutions over a batch of patches, and of the preconditioner.
fn gemm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemm");
    let mut bench = Bench::new();
    let shapes = [
        ("square", [1024, 1024, 1024]),
        ("mlp fc1", [512, 128, 784]),
        ("mlp fc2", [512, 128, 512]),
        ("mlp fc3", [10, 128, 512]),
        ("mlp fc1 preconditioned", [512, 785, 785]),
        ("lenet5 conv1", [6, 64 * 28 * 28, 26]),
        ("lenet5 conv2", [16, 64 * 10 * 10, 151]),
        ("lenet5 fc1", [120, 64, 400]),
        ("lenet5 fc2", [84, 64, 120]),
        ("lenet5 fc3", [10, 64, 84]),
        ("resnet20 stage 1", [16, 32 * 32 * 32, 144]),
        ("resnet20 stage 2", [32, 32 * 16 * 16, 288]),
        ("resnet20 stage 3", [64, 32 * 8 * 8, 576]),
    ];
    for (name, [m, n, k]) in shapes {
        let job = Gemm::product(Region::matrix(0, m, k), Region::matrix(0, k, n), Region::matrix(0, m, n));
        product(&mut bench, &mut group, name, job);
    }
    // A dense layer's gradient, `dy·xᵀ`, and its input's cotangent, `Wᵀ·dy`, at the sizes of the first one.
    let (weights, x, y) = (Region::matrix(0, 512, 784), Region::matrix(0, 784, 128), Region::matrix(0, 512, 128));
    product(&mut bench, &mut group, "mlp fc1 gradient", Gemm::product(y, x.transposed(), weights));
    product(&mut bench, &mut group, "mlp fc1 cotangent", Gemm::product(weights.transposed(), y, x));
    group.finish();
}

fn product(bench: &mut Bench, group: &mut BenchmarkGroup<'_, WallTime>, name: &str, job: Gemm<f32>) {
    let (a, b) = (bench.noise(job.a.end()), bench.noise(job.b.end()));
    let mut c = bench.zeros(job.c.end());
    let name = BenchmarkId::new(name, format!("{}×{}×{}", job.c.rows, job.c.columns, job.a.columns));
    bench.time(group, name, &mut c, overwritten, |backend, c| {
        backend.gemm(&[job], black_box(&a), black_box(&b), c).expect("the host does not fail");
    });
}

/// Statistics of dense layers' inputs, bias included, and of one batch of a last-stage convolution's patches.
fn symmetric_product(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("symmetric product");
    let mut bench = Bench::new();
    let shapes = [
        ("mlp fc1", [785, 128]),
        ("mlp fc2", [513, 128]),
        ("lenet5 fc1", [401, 64]),
        ("resnet20 stage 3", [577, 32 * 8 * 8]),
    ];
    for (name, [n, k]) in shapes {
        let job = Outer { alpha: 1.0, x: Region::matrix(0, n, k), beta: 0.0, c: Region::matrix(0, n, n) };
        let x = bench.noise(job.x.end());
        let mut c = bench.zeros(job.c.end());
        let name = BenchmarkId::new(name, format!("{n}×{k}"));
        bench.time(&mut group, name, &mut c, overwritten, |backend, c| {
            backend.symmetric_product(&[job], black_box(&x), c).expect("the host does not fail");
        });
    }
    group.finish();
}

/// A damped factor to its inverse: factorisation, verdict and inversion.
fn cholesky(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cholesky and inverse");
    let mut bench = Bench::new();
    for n in [151, 401, 577, 785] {
        let square = Region::matrix(0, n, n);
        let original = bench.factor(n);
        let mut factor = bench.zeros(square.end());
        let mut inverse = bench.zeros(square.end());
        // Factors replace their matrix, which has to come back.
        let prepare = |backend: &mut Faer<f32>, factor: &mut Buffer<f32>| {
            backend.upload(&original, factor, 0).expect("the host does not fail");
        };
        bench.time(&mut group, BenchmarkId::from_parameter(n), &mut factor, prepare, |backend, factor| {
            let ticket = backend.cholesky(&[square], factor).expect("the host does not fail");
            let mut sound = [false];
            backend.verdict(ticket, &mut sound).expect("the host does not fail");
            assert!(sound[0], "a damped factor is positive definite");
            backend.cholesky_invert(&[Invert { factor: square, out: square }], factor, &mut inverse).expect("as above");
        });
    }
    group.finish();
}

/// All eigenvalues and eigenvectors of a damped factor.
fn eigen(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("symmetric eigen");
    let mut bench = Bench::new();
    for n in [151, 401] {
        let job = Eigen { matrix: Region::matrix(0, n, n), values: Region::vector(0, n) };
        let original = bench.factor(n);
        let mut matrix = bench.zeros(job.matrix.end());
        let mut values = bench.zeros(n);
        // Eigenvectors replace their matrix, which has to come back.
        let prepare = |backend: &mut Faer<f32>, matrix: &mut Buffer<f32>| {
            backend.upload(&original, matrix, 0).expect("the host does not fail");
        };
        bench.time(&mut group, BenchmarkId::from_parameter(n), &mut matrix, prepare, |backend, matrix| {
            backend.symmetric_eigen(&[job], matrix, &mut values).expect("the host does not fail");
        });
    }
    group.finish();
}

/// A layer to time: `first` layers have no use for the cotangent of their input.
struct Layer {
    name: &'static str,
    shape: Convolution,
    batch: usize,
    first: bool,
}

fn layers() -> [Layer; 5] {
    let lenet5 = |input, outputs, padding| {
        Convolution::new(input, outputs, [5, 5], [1, 1], [padding, padding], [1, 1], true).expect("5×5 fits")
    };
    let resnet20 = |channels, extent| {
        let input = Extent::new(channels, extent, extent);
        Convolution::new(input, channels, [3, 3], [1, 1], [1, 1], [1, 1], false).expect("3×3 fits")
    };
    let layer = |name, shape, batch, first| Layer { name, shape, batch, first };
    [
        layer("lenet5 conv1", lenet5(Extent::new(1, 28, 28), 6, 2), 64, true),
        layer("lenet5 conv2", lenet5(Extent::new(6, 14, 14), 16, 0), 64, false),
        layer("resnet20 stage 1", resnet20(16, 32), 32, false),
        layer("resnet20 stage 2", resnet20(32, 16), 32, false),
        layer("resnet20 stage 3", resnet20(64, 8), 32, false),
    ]
}

/// Both passes of a training step that updates the factors, statistics beside them.
fn convolution(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let mut group = criterion.benchmark_group("convolution forward with statistic");
    for layer in layers() {
        forward(&mut bench, &mut group, &layer);
    }
    group.finish();
    let mut group = criterion.benchmark_group("convolution backward with statistic");
    for layer in layers() {
        backward(&mut bench, &mut group, &layer);
    }
    group.finish();
}

fn named(Layer { name, shape, .. }: &Layer) -> BenchmarkId {
    BenchmarkId::new(*name, format!("{} to {}", shape.input, shape.output))
}

fn forward(bench: &mut Bench, group: &mut BenchmarkGroup<'_, WallTime>, layer: &Layer) {
    let &Layer { shape, batch, .. } = layer;
    let rows = shape.patch_rows();
    let (parameters, square) = (Region::matrix(0, shape.output.channels, rows), Region::matrix(0, rows, rows));
    let (weights, x) = (bench.noise(parameters.end()), bench.noise(batch * shape.input.len()));
    let (mut y, mut target) = (bench.zeros(batch * shape.output.len()), bench.zeros(square.end()));
    let mut scratch = bench.zeros(bench.backend.convolution_scratch(&shape, batch));
    // Every call adds to the statistic, which must stay finite.
    let scale = 1e-6;
    bench.time(group, named(layer), &mut target, overwritten, |backend, target| {
        let statistic = Some(Statistic { target, region: square, scale });
        let weights = (black_box(&weights), parameters);
        backend
            .convolution_forward(&shape, batch, weights, black_box(&x), &mut y, statistic, &mut scratch)
            .expect("the host does not fail");
    });
}

fn backward(bench: &mut Bench, group: &mut BenchmarkGroup<'_, WallTime>, layer: &Layer) {
    let &Layer { shape, batch, first, .. } = layer;
    let outputs = shape.output.channels;
    let (parameters, square) = (Region::matrix(0, outputs, shape.patch_rows()), Region::matrix(0, outputs, outputs));
    let (weights, x) = (bench.noise(parameters.end()), bench.noise(batch * shape.input.len()));
    let dy = bench.noise(batch * shape.output.len());
    let (mut gradient, mut target) = (bench.zeros(parameters.end()), bench.zeros(square.end()));
    let mut dx = (!first).then(|| bench.zeros(x.len()));
    let mut scratch = bench.zeros(bench.backend.convolution_scratch(&shape, batch));
    let scale = 1e-6;
    bench.time(group, named(layer), &mut target, overwritten, |backend, target| {
        let statistic = Some(Statistic { target, region: square, scale });
        let weights = (black_box(&weights), parameters);
        let (x, dy) = (black_box(&x), black_box(&dy));
        backend
            .convolution_backward(&shape, batch, weights, x, dy, &mut gradient, dx.as_mut(), statistic, &mut scratch)
            .expect("the host does not fail");
    });
}
