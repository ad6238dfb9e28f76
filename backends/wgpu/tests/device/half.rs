//! Half precision: patches and the operands of statistics in 11 bits, sums in single precision.

use crate::step;
use kronfleet_conformance::count;
use kronfleet_core::backend::{Backend, Convolution, Extent, Outer, Statistic};
use kronfleet_core::matrix::Region;
use kronfleet_core::network::Network;
use kronfleet_core::seed::Seed;
use kronfleet_wgpu::{Choice, Device, Options, Wgpu};

/// The same adapter in half precision, if it has that.
fn half(device: &Device, binding_bytes: Option<u64>) -> Option<Device> {
    let adapter = Choice::Named(device.adapter().name.clone());
    let opened = Device::open_with(&Options { adapter, half: true, binding_bytes, ..Options::fixed() });
    match opened {
        Ok(half) => {
            assert!(half.half() && !device.half());
            Some(half)
        }
        Err(error) if !device.adapter().has_half => {
            println!("  skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Statistics with operands in half precision err by their rounding, where the adapter has it.
pub(crate) fn statistics(device: &Device) {
    let Some(half) = half(device, None) else { return };
    for (n, k) in [(5, 7), (33, 50), (70, 3), (100, 1_500)] {
        let mut random = Seed(10).derive("operands", 0).random();
        let content: Vec<f32> = (0..n * k).map(|_| random.normal() as f32).collect();
        let [exact, rounded] = [device, &half].map(|device| {
            let mut backend = Wgpu::new(device).expect("a device");
            let (mut x, mut c) = (backend.allocate(n * k).expect("memory"), backend.allocate(n * n).expect("memory"));
            backend.upload(&content, &mut x, 0).expect("a device");
            let square = Region::matrix(0, n, n);
            let job = Outer { alpha: 1.0, x: Region::matrix(0, n, k), beta: 0.0, c: square };
            backend.symmetric_product(&[job], &x, &mut c).expect("a device");
            backend.fetch(&c, 0..n * n).expect("a device")
        });
        assert!(exact != rounded, "nothing is rounded");
        for (at, (exact, rounded)) in exact.iter().zip(&rounded).enumerate() {
            let (row, column) = (at % n, at / n);
            let size: f64 =
                (0..k).map(|term| f64::from(content[row + term * n] * content[column + term * n]).abs()).sum();
            // Two operands of 11 bits, and sums of k terms in single precision, twice.
            let bound = (2.0 * 2.0_f64.powi(-11) + 2.0 * k as f64 * f64::from(f32::EPSILON)) * 1.001 * size + 1e-7;
            let off = f64::from(exact - rounded).abs();
            assert!(off <= bound, "({row}, {column}) of {n}×{n} over {k} is off by {off:e}, more than {bound:e}");
        }
        assert!((0..n * n).all(|at| rounded[at].to_bits() == rounded[at / n + at % n * n].to_bits()), "symmetric");
    }
}

/// Kernels that overlap, that jump over pixels, that are larger than their images; with and without a bias.
fn shapes() -> [Convolution; 4] {
    let plain = Convolution {
        input: Extent::new(3, 9, 7),
        output: Extent::new(5, 9, 7),
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
        bias: true,
    };
    [
        plain,
        Convolution { output: Extent::new(2, 5, 4), stride: [2, 2], bias: false, ..plain },
        Convolution {
            input: Extent::new(1, 4, 4),
            output: Extent::new(40, 4, 4),
            kernel: [5, 5],
            padding: [2, 2],
            ..plain
        },
        Convolution {
            input: Extent::new(7, 1, 1),
            output: Extent::new(3, 1, 1),
            kernel: [1, 1],
            padding: [0, 0],
            ..plain
        },
    ]
}

/// What a layer is given: weights, samples and the gradient of its outputs.
#[derive(Clone)]
struct Given {
    shape: Convolution,
    batch: usize,
    weights: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
}

impl Given {
    fn draw(shape: Convolution, batch: usize, mut number: impl FnMut() -> f32) -> Self {
        let mut line = |len: usize| (0..len).map(|_| number()).collect();
        let weights = line(shape.output.channels * shape.patch_rows());
        Self { shape, batch, weights, x: line(batch * shape.input.len()), dy: line(batch * shape.output.len()) }
    }

    /// The sums of magnitudes are those of magnitudes.
    fn magnitudes(&self) -> Self {
        let magnitudes = |line: &[f32]| line.iter().map(|value| value.abs()).collect();
        let [weights, x, dy] = [&self.weights, &self.x, &self.dy].map(|line| magnitudes(line));
        Self { weights, x, dy, ..*self }
    }

    /// Outputs, both statistics and both gradients.
    fn pass(&self, device: &Device) -> [Vec<f32>; 5] {
        let (mut backend, Self { shape, batch, .. }) = (Wgpu::new(device).expect("a device"), self);
        let (rows, outputs) = (shape.patch_rows(), shape.output.channels);
        let mut line = |content: &[f32]| {
            let mut buffer = backend.allocate(content.len()).expect("memory");
            backend.upload(content, &mut buffer, 0).expect("a device");
            buffer
        };
        let [weights, x, dy] = [&self.weights, &self.x, &self.dy].map(|content| line(content));
        let lens = [self.dy.len(), rows * rows, outputs * outputs, self.weights.len(), self.x.len()];
        let [mut y, mut a, mut g, mut gradient, mut dx] = lens.map(|len| line(&vec![0.0; len]));
        let scratch = backend.convolution_scratch(shape, *batch);
        let mut scratch = backend.allocate(scratch).expect("memory");
        let weights = (&weights, Region::matrix(0, outputs, rows));
        let statistic = Statistic { target: &mut a, region: Region::matrix(0, rows, rows), scale: 0.25 };
        let done = backend.convolution_forward(shape, *batch, weights, &x, &mut y, Some(statistic), &mut scratch);
        done.expect("a device");
        let statistic = Statistic { target: &mut g, region: Region::matrix(0, outputs, outputs), scale: 0.25 };
        let (gradients, given) = ((&mut gradient, &mut dx), (&x, &dy));
        let done = backend.convolution_backward(
            shape,
            *batch,
            weights,
            given.0,
            given.1,
            gradients.0,
            Some(gradients.1),
            Some(statistic),
            &mut scratch,
        );
        done.expect("a device");
        let mut at = lens.into_iter();
        [&y, &a, &g, &gradient, &dx].map(|buffer| backend.fetch(buffer, 0..at.next().expect("five")).expect("a device"))
    }
}

/// Numbers that 11 bits hold come out as in single precision, however a batch is tiled and bindings are cut.
pub(crate) fn whole_numbers(device: &Device) {
    let mut random = Seed(11).derive("patches", 0).random();
    let Some(wide) = half(device, None) else { return };
    let narrow = half(device, Some(Options::LEAST_BINDING)).expect("as before");
    let large = Convolution { input: Extent::new(3, 60, 60), output: Extent::new(5, 60, 60), ..shapes()[0] };
    let cases = shapes().into_iter().flat_map(|shape| [(shape, 1), (shape, 2), (shape, 5)]);
    for (shape, batch) in cases.chain([(large, 3)]) {
        let given = Given::draw(shape, batch, || random.below(9) as f32 - 4.0);
        let exact = given.pass(device);
        for half in [&wide, &narrow] {
            assert!(given.pass(half) == exact, "{shape:?} of {batch} differs");
        }
    }
}

/// Everything else errs by the rounding of patches: 2⁻¹¹ of a term, twice that in a statistic, which has them twice.
pub(crate) fn rounding(device: &Device) {
    let mut random = Seed(12).derive("patches", 0).random();
    let Some(half) = half(device, None) else { return };
    let [mut worst, mut rounded] = [0.0_f64, 0.0];
    for (shape, batch) in shapes().into_iter().flat_map(|shape| [(shape, 2), (shape, 3)]) {
        // Below 2⁻¹⁴ half precision has fewer bits, or none.
        let mut number = || Some(random.normal() as f32).filter(|value| value.abs() > 6.2e-5).unwrap_or_default();
        let given = Given::draw(shape, batch, &mut number);
        let (exact, ours, sizes) = (given.pass(device), given.pass(&half), given.magnitudes().pass(device));
        let columns = (batch * shape.output.positions()) as f64;
        // Sums of so many terms are off by at most their number times ε in single precision, in both.
        let terms = [shape.patch_rows() as f64, columns, columns, columns, 0.0];
        let roundings = [1.0, 2.0, 2.0, 1.0, 0.0].map(|count: f64| count * 2.0_f64.powi(-11));
        for (line, what) in ["y", "statistic of x", "statistic of dy", "gradient", "dx"].into_iter().enumerate() {
            if roundings[line] == 0.0 {
                assert!(exact[line] == ours[line], "{what} of {shape:?} is not made of patches of x");
                continue;
            }
            for ((exact, ours), size) in exact[line].iter().zip(&ours[line]).zip(&sizes[line]) {
                let off = f64::from(exact - ours).abs();
                let allowed = 1.001 * roundings[line] + 2.0 * terms[line] * f64::from(f32::EPSILON);
                let bound = allowed * f64::from(*size);
                assert!(off <= bound, "{what} of {shape:?}, {batch} samples: off by {off:e}, allowed {bound:e}");
                worst = worst.max(off / bound);
                rounded += off;
            }
        }
    }
    println!("  up to {:.0} % of what is allowed", 100.0 * worst);
    assert!(rounded > 0.0, "nothing is rounded");
    // What half precision cannot hold is not taken for something that it can.
    let given = Given::draw(shapes()[0], 2, || 1e6);
    let [y, a, ..] = given.pass(&half);
    assert!(y.iter().any(|value| !value.is_finite()) && a.iter().any(|value| !value.is_finite()));
}

/// Patches take half the memory.
pub(crate) fn memory(device: &Device) {
    let Some(half) = half(device, None) else { return };
    for shape in shapes() {
        for batch in [1, 2, 64, 65] {
            let [full, less] =
                [device, &half].map(|device| Wgpu::new(device).expect("a device").convolution_scratch(&shape, batch));
            let sample = shape.patch_rows() * shape.output.positions();
            assert_eq!((full, less), (batch * sample, batch.div_ceil(2) * sample));
        }
    }
    for (name, (input, layers), batch) in [("LeNet-5", count::lenet5(), 64), ("ResNet-20", count::resnet20(), 32)] {
        let [full, less] = [device, &half].map(|device| {
            let mut backend = Wgpu::new(device).expect("a device");
            let _network = Network::build(&mut backend, input, &layers, batch).expect("memory");
            4 * backend.counters().allocated
        });
        println!("  {name}, batch of {batch}: {full} bytes, {less} with patches in half precision");
        assert!(less < full);
    }
}

/// A step asks no more of the device than it may.
pub(crate) fn few_launches(device: &Device) {
    let Some(half) = half(device, None) else { return };
    step::lenet_is_few_launches(&half);
}
