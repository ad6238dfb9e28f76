//! An adapter that binds little: what is larger is cut, and comes out the same.

use crate::step;
use kronfleet_core::backend::{
    Backend, BatchNorm, Convolution, EvoNorm, Extent, Gemm, Map, MapJob, Outer, Pool, Pooling, ReduceJob, Softmax,
};
use kronfleet_core::matrix::Region;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_wgpu::{Buffer, Choice, Device, Options, Wgpu};

/// The same adapter with less than half of what the operations below work on.
fn narrow(device: &Device, binding_bytes: u64) -> Device {
    let adapter = Choice::Named(device.adapter().name.clone());
    Device::open_with(&Options { adapter, binding_bytes: Some(binding_bytes), ..Options::fixed() }).expect("once more")
}

/// A backend and memory with random content, the same every time.
struct Bench {
    backend: Wgpu,
    random: Random,
    results: Vec<(&'static str, Vec<f32>)>,
}

impl Bench {
    fn new(device: &Device) -> Self {
        let random = Seed(9).derive("limits", 0).random();
        Self { backend: Wgpu::new(device).expect("a device"), random, results: Vec::new() }
    }

    fn with(&mut self, draw: impl Fn(&mut Random) -> f32, len: usize) -> Buffer {
        let content: Vec<f32> = (0..len).map(|_| draw(&mut self.random)).collect();
        let mut buffer = self.backend.allocate(len).expect("memory");
        self.backend.upload(&content, &mut buffer, 0).expect("a device");
        buffer
    }

    fn normal(&mut self, len: usize) -> Buffer {
        self.with(|random| random.normal() as f32, len)
    }

    fn keep(&mut self, what: &'static str, buffer: &Buffer) {
        let len = kronfleet_core::backend::Buffer::len(buffer);
        let content = self.backend.fetch(buffer, 0..len).expect("a device");
        self.results.push((what, content));
    }
}

/// Every operation of layers, on samples of which few are bound at once, and one whose single sample is not.
fn layers(bench: &mut Bench) {
    let (batch, input) = (5, Extent::new(3, 40, 40));
    let output = Extent::new(4, 20, 20);
    let shape =
        Convolution { input, output, kernel: [5, 5], stride: [2, 2], padding: [2, 2], dilation: [1, 1], bias: true };
    let x = bench.normal(batch * input.len());
    let mut patches = bench.normal(shape.patch_rows() * output.positions() * batch);
    bench.backend.unfold(&shape, 1..batch, &x, &mut patches).expect("a device");
    bench.keep("unfold", &patches);
    let mut folded = bench.normal(batch * input.len());
    bench.backend.fold(&shape, 1..batch, &patches, &mut folded).expect("a device");
    bench.keep("fold", &folded);
    let windows = Convolution { output: Extent::new(3, 20, 20), kernel: [3, 3], padding: [1, 1], bias: false, ..shape };
    for pool in [Pool::Maximum, Pool::Mean] {
        let shape = Pooling { windows, pool };
        let (mut y, mut dx) = (bench.normal(batch * windows.output.len()), bench.normal(batch * input.len()));
        let dy = bench.normal(batch * windows.output.len());
        bench.backend.pool_forward(&shape, batch, &x, &mut y).expect("a device");
        bench.backend.pool_backward(&shape, batch, &x, &dy, &mut dx).expect("a device");
        bench.keep("pooling", &y);
        bench.keep("gradient of pooling", &dx);
    }
    let wide = Extent::new(6, 20, 20);
    let mut y = bench.normal(batch * wide.len());
    bench.backend.subsample(input, wide, 2, batch, true, &x, &mut y).expect("a device");
    bench.keep("subsample", &y);
    let mut dx = bench.normal(batch * input.len());
    bench.backend.subsample_adjoint(input, wide, 2, batch, &y, &mut dx).expect("a device");
    bench.keep("gradient of subsample", &dx);
}

/// Normalisation and the loss, with parameters far inside a buffer that is too large itself.
fn columns(bench: &mut Bench) {
    let (channels, columns, at) = (6, 6_000, 30_000);
    let (x, dy) = (bench.normal(channels * columns), bench.normal(channels * columns));
    let parameters = bench.normal(at + 100);
    let shape = BatchNorm { channels, epsilon: 1e-5, momentum: 0.1 };
    let [mut y, mut dx] = [0; 2].map(|_| bench.normal(channels * columns));
    let (mut saved, mut gradient) = (bench.normal(2 * channels), bench.normal(at + 100));
    let mut running = bench.with(|random| random.uniform() as f32, at + 100);
    let of = (&parameters, at + 3);
    let backend = &mut bench.backend;
    backend.batch_norm_forward(&shape, columns, of, &x, &mut y, &mut saved, (&mut running, at)).expect("a device");
    backend.batch_norm_backward(&shape, columns, of, &x, &saved, &dy, &mut gradient, &mut dx).expect("a device");
    for (what, buffer) in
        [("batch norm", &y), ("running statistics", &running), ("its parameters", &gradient), ("its gradient", &dx)]
    {
        bench.keep(what, buffer);
    }
    bench.backend.batch_norm_evaluate(&shape, columns, of, (&running, at), &x, &mut y).expect("a device");
    bench.keep("batch norm, evaluated", &y);
    let shape = EvoNorm { channels, positions: 600, groups: 2, epsilon: 1e-5 };
    let batch = columns / 600;
    bench.backend.evo_norm_forward(&shape, batch, of, &x, &mut y).expect("a device");
    bench.backend.evo_norm_backward(&shape, batch, of, &x, &dy, &mut gradient, &mut dx).expect("a device");
    for (what, buffer) in [("EvoNorm", &y), ("its parameters", &gradient), ("its gradient", &dx)] {
        bench.keep(what, buffer);
    }
    let (classes, batch) = (9, 4_000);
    let z = bench.normal(classes * batch);
    let labels = bench.with(|random| random.below(9) as f32, batch);
    let uniform = bench.with(|random| random.uniform() as f32, batch);
    let (mut dz, mut drawn) = (bench.normal(classes * batch), bench.normal(batch));
    let mut loss = bench.normal(2);
    let shape = Softmax { classes, smoothing: 0.1 };
    bench.backend.softmax_cross_entropy(&shape, batch, &z, &labels, &mut dz, &mut loss).expect("a device");
    bench.backend.sample_labels(classes, batch, &z, &uniform, &mut drawn).expect("a device");
    for (what, buffer) in [("loss", &loss), ("its gradient", &dz), ("labels", &drawn)] {
        bench.keep(what, buffer);
    }
}

/// Products, maps and sums of single matrices that are too large.
fn matrices(bench: &mut Bench) {
    let (m, n, k) = (130, 150, 170);
    let (a, b) = (bench.normal(m * k), bench.normal(k * n));
    let mut c = bench.normal(m * n);
    let orientations = [
        (Region::matrix(0, m, k), Region::matrix(0, k, n)),
        (Region::matrix(0, k, m).transposed(), Region::matrix(0, n, k).transposed()),
    ];
    for (of_a, of_b) in orientations {
        let job = Gemm { alpha: 0.5, a: of_a, b: of_b, beta: 0.25, c: Region::matrix(0, m, n) };
        bench.backend.gemm(&[job], &a, &b, &mut c).expect("a device");
        bench.keep("product", &c);
        for beta in [0.0, 0.25] {
            let job = Outer { alpha: 0.5, x: of_a, beta, c: Region::matrix(0, m, m) };
            bench.backend.symmetric_product(&[job], &a, &mut c).expect("a device");
        }
        bench.keep("symmetric product", &c);
    }
    let whole = Region::matrix(0, m, n);
    bench.backend.map(Map::Axpby(2.0, 1.0), &[MapJob::unary(whole, whole)], Some(&b), None, &mut c).expect("a device");
    bench.keep("map", &c);
    let mut sums = bench.normal(m + n + 1);
    let job = |x: Region, out: Region| ReduceJob { alpha: 0.5, x, y: x, beta: 0.25, out };
    let jobs = [
        job(whole, Region::vector(0, m)),
        job(whole, Region::matrix(m, 1, n)),
        job(whole.transposed(), Region::vector(m + n, 1)),
    ];
    bench.backend.reduce(&jobs, &c, None, &mut sums).expect("a device");
    bench.backend.reduce(&jobs, &c, Some(&b), &mut sums).expect("a device");
    bench.keep("sums", &sums);
}

/// Every operation on more than is bound, beside the same in one piece.
pub(crate) fn everything_is_cut(device: &Device) {
    let run = |device: &Device| {
        let mut bench = Bench::new(device);
        layers(&mut bench);
        columns(&mut bench);
        matrices(&mut bench);
        bench.results
    };
    let least = narrow(device, Options::LEAST_BINDING);
    assert_eq!(least.adapter().binding_bytes, Options::LEAST_BINDING);
    let (whole, cut) = (run(device), run(&least));
    for ((what, whole), (_, cut)) in whole.iter().zip(&cut) {
        let size = whole.iter().fold(0.0_f32, |size, value| size.max(value.abs()));
        // Sums that are cut are added up in another order: of some thousand terms at most.
        let bound = 64.0 * f32::EPSILON * size;
        for (at, (whole, cut)) in whole.iter().zip(cut).enumerate() {
            assert!((whole - cut).abs() <= bound, "{what}[{at}] is {cut} in pieces, {whole} in one");
        }
    }
}

/// A step of LeNet-5 whose largest factor is not bound at once.
pub(crate) fn step_is_cut(device: &Device) {
    step::as_on_a_cpu(&narrow(device, 256 << 10));
}
