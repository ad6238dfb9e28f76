//! Shapes larger than those of the laws: sums that are cut into parts.

use kronfleet_core::backend::{Backend, BatchNorm, Gemm, Outer, ReduceJob, reference};
use kronfleet_core::matrix::Region;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_wgpu::{Buffer, Device, Wgpu};

fn upload(backend: &mut Wgpu, content: &[f32]) -> Buffer {
    let mut buffer = backend.allocate(content.len()).expect("memory");
    backend.upload(content, &mut buffer, 0).expect("a device");
    buffer
}

fn whole(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| random.below(7) as f32 - 3.0).collect()
}

/// Products, symmetric products and sums of whole numbers are exact in any order.
pub(crate) fn long_sums(device: &Device) {
    let mut backend = Wgpu::new(device).expect("a device");
    let mut random = Seed(3).derive("whole numbers", 0).random();
    let (m, n, k) = (7, 5, 5_000);
    let (a, b) = (whole(&mut random, m * k), whole(&mut random, k * n));
    let (of_a, of_b) = (Region::matrix(0, m, k), Region::matrix(0, k, n));
    let (device_a, device_b) = (upload(&mut backend, &a), upload(&mut backend, &b));
    let old = whole(&mut random, m * m);
    let mut c = upload(&mut backend, &old);
    let job = Gemm { alpha: 2.0, a: of_a, b: of_b, beta: -1.0, c: Region::matrix(0, m, n) };
    backend.gemm(&[job], &device_a, &device_b, &mut c).expect("a device");
    let seen = backend.fetch(&c, 0..m * n).expect("a device");
    for (at, seen) in seen.iter().enumerate() {
        let (row, column) = (at % m, at / m);
        let sum: f32 = (0..k).map(|i| a[row + i * m] * b[i + column * k]).sum();
        assert!(
            (2.0 * sum - old[at]).to_bits() == seen.to_bits(),
            "({row}, {column}) is {seen}, not {}",
            2.0 * sum - old[at]
        );
    }
    let mut squares = upload(&mut backend, &vec![f32::NAN; m * m]);
    let job = Outer { alpha: 1.0, x: of_a, beta: 0.0, c: Region::matrix(0, m, m) };
    backend.symmetric_product(&[job], &device_a, &mut squares).expect("a device");
    let seen = backend.fetch(&squares, 0..m * m).expect("a device");
    for (at, seen) in seen.iter().enumerate() {
        let (row, column) = (at % m, at / m);
        let sum: f32 = (0..k).map(|i| a[row + i * m] * a[column + i * m]).sum();
        assert!(sum.to_bits() == seen.to_bits(), "({row}, {column}) of the symmetric product is {seen}, not {sum}");
    }
    let mut total = upload(&mut backend, &[f32::NAN]);
    backend.reduce(&[ReduceJob::sum(of_a, Region::vector(0, 1))], &device_a, None, &mut total).expect("a device");
    let (seen, sum) = (backend.fetch(&total, 0..1).expect("a device")[0], a.iter().sum::<f32>());
    assert!(seen.to_bits() == sum.to_bits(), "the sum of {} whole numbers is {seen}, not {sum}", a.len());
}

/// 3,000 columns are three chunks, the last of them short.
pub(crate) fn many_columns(device: &Device) {
    let mut backend = Wgpu::new(device).expect("a device");
    let mut random = Seed(4).derive("columns", 0).random();
    let (channels, columns) = (70, 3_000);
    let mut draw = |len: usize| -> Vec<f32> { (0..len).map(|_| 3.0 + random.normal() as f32).collect() };
    let (x, dy, parameters) = (draw(channels * columns), draw(channels * columns), draw(2 * channels));
    let shape = BatchNorm { channels, epsilon: 1e-5_f32, momentum: 0.1 };
    let (device_x, device_dy) = (upload(&mut backend, &x), upload(&mut backend, &dy));
    let of_parameters = upload(&mut backend, &parameters);
    let mut lines = [channels * columns, 2 * channels, 2 * channels, 2 * channels, channels * columns]
        .map(|len| backend.allocate(len).expect("memory"));
    let [y, saved, running, gradient, dx] = &mut lines;
    let at = (&of_parameters, 0);
    backend.batch_norm_forward(&shape, columns, at, &device_x, y, saved, (running, 0)).expect("a device");
    backend.batch_norm_backward(&shape, columns, at, &device_x, saved, &device_dy, gradient, dx).expect("a device");
    // The reference in double precision.
    let wide = |line: &[f32]| line.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();
    let (x, dy, parameters) = (wide(&x), wide(&dy), wide(&parameters));
    let shape = BatchNorm { channels, epsilon: 1e-5_f64, momentum: 0.1 };
    let mut expected =
        [channels * columns, 2 * channels, 2 * channels, 2 * channels, channels * columns].map(|len| vec![0.0; len]);
    let [y, saved, running, gradient, dx] = &mut expected;
    reference::batch_norm_forward(&shape, columns, &parameters, &x, y, saved, running);
    reference::batch_norm_backward(&shape, columns, &parameters, &x, saved, &dy, gradient, dx);
    for ((what, expected), line) in ["y", "saved", "running", "gradient", "dx"].iter().zip(&expected).zip(&lines) {
        let seen = backend.fetch(line, 0..expected.len()).expect("a device");
        let size = expected.iter().fold(0.0_f64, |size, value| size.max(value.abs()));
        // Numbers around 3 with variance 1: magnitudes are a small multiple of the results; sums of n terms in a tree
        // of threads that add up a few each.
        let depth = (columns as f64).sqrt() + 64.0;
        let bound = 32.0 * depth * f64::from(f32::EPSILON) * size;
        for (at, (seen, expected)) in seen.iter().zip(expected).enumerate() {
            let off = (f64::from(*seen) - expected).abs();
            assert!(off <= bound, "{what}[{at}] is {seen}, not {expected} ± {bound:e}");
        }
    }
}
