//! Shapes larger than those of the laws: sums that are cut into parts.

use kronfleet_core::backend::{Backend, BatchNorm, Eigen, Gemm, Invert, Outer, ReduceJob, reference};
use kronfleet_core::matrix::Region;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_wgpu::{Buffer, Choice, Device, Options, Wgpu};

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

/// Matrices of more rows than a workgroup has threads: factors multiply back, inverses invert.
pub(crate) fn many_rows(device: &Device) {
    let mut backend = Wgpu::new(device).expect("a device");
    let mut random = Seed(5).derive("rows", 0).random();
    let n = 260;
    let m: Vec<f32> = (0..n * 8).map(|_| random.normal() as f32).collect();
    // 1 + M·Mᵀ: its condition is that of M·Mᵀ's largest eigenvalue, about n.
    let mut a = vec![0.0_f32; n * n];
    for column in 0..n {
        for row in 0..n {
            let product: f32 = (0..8).map(|k| m[row + k * n] * m[column + k * n]).sum();
            a[row + column * n] = product + if row == column { 1.0 } else { 0.0 };
        }
    }
    let square = Region::matrix(0, n, n);
    let size = a.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    // Backward stable: a small multiple of n·ε (Higham, theorem 10.3).
    let bound = 8.0 * n as f64 * f64::from(f32::EPSILON) * size;
    let mut factor = upload(&mut backend, &a);
    let ticket = backend.cholesky(&[square], &mut factor).expect("a device");
    let mut sound = [false];
    backend.verdict(ticket, &mut sound).expect("a device");
    assert!(sound[0], "a positive definite matrix is reported not to be");
    let l = backend.fetch(&factor, 0..n * n).expect("a device");
    let at = |line: &[f32], row: usize, column: usize| f64::from(line[row + column * n]);
    let mut off = 0.0_f64;
    for column in 0..n {
        for row in column..n {
            let product: f64 = (0..=column).map(|k| at(&l, row, k) * at(&l, column, k)).sum();
            off = off.max((product - at(&a, row, column)).abs());
        }
    }
    assert!(off <= bound, "L·Lᵀ is off by {off:e}, more than {bound:e}");
    let mut inverse = backend.allocate(n * n).expect("memory");
    backend.cholesky_invert(&[Invert { factor: square, out: square }], &factor, &mut inverse).expect("a device");
    let x = backend.fetch(&inverse, 0..n * n).expect("a device");
    let mut off = 0.0_f64;
    for column in 0..n {
        for row in 0..n {
            let product: f64 = (0..n).map(|k| at(&a, row, k) * at(&x, k, column)).sum();
            off = off.max((product - f64::from(u8::from(row == column))).abs());
        }
    }
    // The norm of the inverse is 1.
    assert!(off <= bound, "A·A⁻¹ is off by {off:e}, more than {bound:e}");
}

/// Eigenpairs of matrices of several sizes at once, on the device, multiply back; Q is orthogonal; one with a NaN is told.
pub(crate) fn many_eigenpairs(device: &Device) {
    let adapter = Choice::Named(device.adapter().name.clone());
    let device =
        Device::open_with(&Options { adapter, host_eigen: Some(false), ..Options::fixed() }).expect("once more");
    let mut backend = Wgpu::new(&device).expect("a device");
    let mut random = Seed(6).derive("eigenpairs", 0).random();
    let sizes = [65, 20, 100, 70, 161];
    let step = 170;
    let mut content: Vec<f32> = vec![0.5; sizes.len() * step * step];
    for (job, n) in sizes.into_iter().enumerate() {
        let place = |row: usize, column: usize| (job * step + column) * step + row;
        let m: Vec<f32> = (0..n * 8).map(|_| random.normal() as f32).collect();
        for column in 0..n {
            // What is above the diagonal is not looked at.
            for row in column..n {
                let product: f32 = (0..8).map(|k| m[row + k * n] * m[column + k * n]).sum();
                content[place(row, column)] = product + if row == column { 1.0 + row as f32 / n as f32 } else { 0.0 };
            }
        }
    }
    let nan = 3;
    content[nan * step * step + 40] = f32::NAN;
    let (mut vectors, mut values) =
        (upload(&mut backend, &content), backend.allocate(sizes.len() * step).expect("memory"));
    let jobs: Vec<Eigen> = sizes
        .into_iter()
        .enumerate()
        .map(|(job, n)| {
            let matrix = Region { column_step: step, ..Region::matrix(job * step * step, n, n) };
            Eigen { matrix, values: Region::vector(job * step, n) }
        })
        .collect();
    let waits = backend.counters().host_waits;
    backend.symmetric_eigen(&jobs, &mut vectors, &mut values).expect("a device");
    assert_eq!(backend.counters().host_waits, waits, "nothing waits");
    let seen = backend.fetch(&vectors, 0..content.len()).expect("a device");
    let d = backend.fetch(&values, 0..sizes.len() * step).expect("a device");
    for (job, n) in sizes.into_iter().enumerate() {
        let d = &d[job * step..job * step + n];
        if job == nan {
            assert!(d.iter().all(|value| value.is_nan()), "eigenvalues of a matrix with a NaN: {d:?}");
            continue;
        }
        assert!(d.is_sorted(), "eigenvalues ascend");
        let q = |row: usize, column: usize| f64::from(seen[(job * step + column) * step + row]);
        let a = |row: usize, column: usize| f64::from(content[(job * step + column.min(row)) * step + column.max(row)]);
        let size = (0..n).flat_map(|i| (0..n).map(move |j| a(i, j).powi(2))).sum::<f64>().sqrt();
        // Rounding of some ten sweeps, a small multiple of n·ε (Golub & Van Loan §8.5.5).
        let share = 8.0 * n as f64 * f64::from(f32::EPSILON);
        for column in 0..n {
            for row in 0..n {
                let product: f64 = (0..n).map(|k| q(row, k) * f64::from(d[k]) * q(column, k)).sum();
                let off = (product - a(row, column)).abs();
                assert!(off <= share * size, "({row}, {column}) of {n} rows is off by {off:e}");
                let inner: f64 = (0..n).map(|k| q(k, row) * q(k, column)).sum();
                let off = (inner - f64::from(u8::from(row == column))).abs();
                assert!(off <= share, "columns {row} and {column} of {n} are off orthogonal by {off:e}");
            }
        }
    }
}

/// A matrix that stops being positive definite far below is reported, alone, and what is beside it is factorised.
pub(crate) fn late_failures(device: &Device) {
    let mut backend = Wgpu::new(device).expect("a device");
    let n = 300;
    let diagonal = |last: f32| -> Vec<f32> {
        let value =
            |at: usize| if at == (n - 5) * (n + 1) { last } else { f32::from(u8::from(at.is_multiple_of(n + 1))) };
        (0..n * n).map(value).collect()
    };
    let lasts = [4.0, -1.0, f32::NAN, 4.0];
    let content: Vec<f32> = lasts.into_iter().flat_map(diagonal).collect();
    let mut matrices = upload(&mut backend, &content);
    let jobs: Vec<Region> = (0..lasts.len()).map(|job| Region::matrix(job * n * n, n, n)).collect();
    let ticket = backend.cholesky(&jobs, &mut matrices).expect("a device");
    let mut sound = [false; 4];
    backend.verdict(ticket, &mut sound).expect("a device");
    assert_eq!(sound, [true, false, false, true]);
    for job in [0, 3] {
        let place = job * n * n + (n - 5) * (n + 1);
        assert_eq!(backend.fetch(&matrices, place..place + 1).expect("a device"), [2.0]);
    }
}
