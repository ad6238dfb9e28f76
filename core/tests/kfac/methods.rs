//! Shampoo, SOAP, Muon and Eva against dense algebra in plain loops.

use crate::dense::{Device, Matrix, assert_close, blocks, read, upload, write};
use kronfleet_core::backend::{Backend, Convolution, Extent, reference};
use kronfleet_core::layer::{Block, Capture, CaptureKind};
use kronfleet_core::matrix::{Region, aligned};
use kronfleet_core::preconditioner::{
    ByGradient, Eva, EvaOptions, GradientMethod, MuonOptions, Preconditioner, ShampooOptions, SoapOptions,
};
use kronfleet_core::seed::Seed;

/// Wide, tall, square, a row and a column.
const SHAPES: [(usize, usize); 5] = [(3, 7), (6, 2), (4, 4), (1, 5), (5, 1)];
const STEPS: u64 = 6;

type Method = Box<dyn Preconditioner<Device>>;

fn gradient(step: u64, len: usize) -> Vec<f64> {
    let mut random = Seed(step).derive("gradient", 0).random();
    (0..len).map(|_| random.normal()).collect()
}

/// What a method makes of a gradient, with inputs and output gradients shown to whoever asks.
fn step(backend: &mut Device, method: &mut dyn Preconditioner<Device>, blocks: &[Block], gradient: &[f64]) -> Vec<f64> {
    method.begin(backend).expect("memory");
    if let Some(observer) = method.taps().and_then(|taps| taps.observer) {
        for (number, block) in blocks.iter().enumerate() {
            let (x, dy, batch) = passes(block, gradient);
            let kind = CaptureKind::Dense { inputs: block.a.rows - 1, outputs: block.g.rows, bias: true };
            let (x, dy) = (upload(backend, &x.values), upload(backend, &dy.values));
            observer.observe(backend, number, batch, &Capture { x: &x, dy: &dy, kind }).expect("memory");
        }
    }
    method.update(backend, 1).expect("memory");
    let gradient = upload(backend, gradient);
    let mut direction = upload(backend, &vec![f64::NAN; gradient.len()]);
    method.precondition(backend, 0.1, &gradient, None, &mut direction).expect("memory");
    backend.fetch(&direction, 0..direction.len()).expect("memory")
}

/// Inputs without the bias and output gradients of a batch, made up.
fn passes(block: &Block, gradient: &[f64]) -> (Matrix, Matrix, usize) {
    let mut random = Seed(gradient[0].to_bits()).derive("passes", block.parameters.offset as u64).random();
    let batch = 4;
    let x = Matrix::random(&mut random, block.a.rows - 1, batch);
    (x, Matrix::random(&mut random, block.g.rows, batch), batch)
}

/// A symmetric matrix's eigenvectors and eigenvalues, by the reference Jacobi method.
fn eigen(matrix: &Matrix) -> (Matrix, Vec<f64>) {
    let (mut q, mut values) = (matrix.clone(), vec![0.0; matrix.rows]);
    let (all, of_values) = (Region::matrix(0, q.rows, q.rows), Region::vector(0, q.rows));
    reference::jacobi(all, &mut q.values, of_values, &mut values);
    (q, values)
}

fn norm(matrix: &Matrix) -> f64 {
    matrix.values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn scaled(mut matrix: Matrix, by: f64) -> Matrix {
    matrix.values.iter_mut().for_each(|value| *value *= by);
    matrix
}

fn sum(one: &Matrix, other: &Matrix) -> Matrix {
    let values = one.values.iter().zip(&other.values).map(|(one, other)| one + other).collect();
    Matrix { values, ..one.clone() }
}

/// The averages of `∇∇ᵀ` and `∇ᵀ∇` over the gradients before step `until`, every one weighed by `ema_old` once per step.
fn averages(block: &Block, len: usize, until: u64, ema_old: f64) -> [Matrix; 2] {
    let Region { rows, columns, .. } = block.parameters;
    let (mut left, mut right, mut weight) = (Matrix::zeros(rows, rows), Matrix::zeros(columns, columns), 0.0);
    for step in 0..until {
        let own = read(&gradient(step, len), block.parameters);
        left = sum(&scaled(left, ema_old), &scaled(own.times(&own.transposed()), 1.0 - ema_old));
        right = sum(&scaled(right, ema_old), &scaled(own.transposed().times(&own), 1.0 - ema_old));
        weight = ema_old * weight + 1.0 - ema_old;
    }
    [scaled(left, 1.0 / weight), scaled(right, 1.0 / weight)]
}

#[test]
fn shampoo_takes_fourth_roots_and_keeps_the_length() {
    let (mut backend, (blocks, parameters, statistics)) = (Device::new(), blocks(&SHAPES));
    let options = ShampooOptions { ema_old: 0.7, epsilon: 1e-3, period: 1, exclude: vec!["layer2".into()] };
    let method = GradientMethod::Shampoo(options);
    let mut shampoo = ByGradient::new(&mut backend, &blocks, [statistics, parameters], &method).expect("memory");
    for now in 0..STEPS {
        let gradient = gradient(now, parameters);
        let direction = step(&mut backend, &mut shampoo, &blocks, &gradient);
        let mut expected = gradient.clone();
        for block in blocks.iter().filter(|block| now > 0 && block.name != "layer2") {
            let own = read(&gradient, block.parameters);
            let [left, right] = averages(block, parameters, now, 0.7).map(|average| {
                let ridge = 1e-3 * average.mean_diagonal();
                let (q, values) = eigen(&average);
                let mut roots = Matrix::zeros(q.rows, q.rows);
                for (at, value) in values.iter().enumerate() {
                    roots.values[at * (q.rows + 1)] = (value.max(0.0) + ridge).powf(-0.25);
                }
                q.times(&roots).times(&q.transposed())
            });
            let whitened = left.times(&own).times(&right);
            let grafted = scaled(whitened.clone(), norm(&own) / norm(&whitened));
            write(&mut expected, block.parameters, &grafted);
        }
        assert_close(&direction, &expected, 1e-9);
    }
    assert_eq!(Preconditioner::<Device>::report(&shampoo).refreshes, STEPS - 1);
}

#[test]
fn soap_is_adam_in_the_bases() {
    let (mut backend, (blocks, parameters, statistics)) = (Device::new(), blocks(&SHAPES));
    let options = SoapOptions { betas: [0.9, 0.8], epsilon: 1e-6, ema_old: 0.7, period: 2, exclude: Vec::new() };
    let method = GradientMethod::Soap(options);
    let mut soap = ByGradient::new(&mut backend, &blocks, [statistics, parameters], &method).expect("memory");
    let (mut first, mut second) = (vec![0.0; parameters], vec![0.0; parameters]);
    for now in 0..STEPS {
        let gradient = gradient(now, parameters);
        let direction = step(&mut backend, &mut soap, &blocks, &gradient);
        let kept = soap.save(&mut backend).expect("memory");
        let corrections = [0.9_f64, 0.8].map(|beta| 1.0 / (1.0 - beta.powi(now as i32 + 1)));
        let adam = |m: f64, v: f64| corrections[0] * m / ((corrections[1] * v).sqrt() + 1e-6);
        for (m, g) in first.iter_mut().zip(&gradient) {
            *m = 0.9 * *m + 0.1 * g;
        }
        let mut expected = vec![0.0; parameters];
        let mut plain = vec![true; parameters];
        for (block, state) in blocks.iter().zip(&kept.blocks) {
            let square = |side: usize, rows| Matrix { rows, columns: rows, values: state.decompositions[side].clone() };
            let (of_right, of_left) = (square(0, block.a.rows), square(1, block.g.rows));
            if now > 0 {
                // The bases of the last refresh, at odd steps that of the step before, diagonalise the averages.
                let [left, right] = averages(block, parameters, now.max(2) / 2 * 2 - u64::from(now == 1), 0.7);
                for (q, average) in [(&of_left, left), (&of_right, right)] {
                    let diagonal = q.transposed().times(&average).times(q);
                    let largest = diagonal.values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
                    for column in 0..q.rows {
                        for row in (0..q.rows).filter(|row| *row != column) {
                            assert!(diagonal.at(row, column).abs() < 1e-9 * largest, "step {now}: {diagonal:?}");
                        }
                    }
                }
            }
            let inward = |flat: &[f64]| of_left.transposed().times(&read(flat, block.parameters)).times(&of_right);
            let (rotated, ahead) = (inward(&gradient), inward(&first));
            let mut moments = read(&second, block.parameters);
            for (v, g) in moments.values.iter_mut().zip(&rotated.values) {
                *v = 0.8 * *v + 0.2 * g * g;
            }
            write(&mut second, block.parameters, &moments);
            let mut ratio = ahead.clone();
            ratio.values = ahead.values.iter().zip(&moments.values).map(|(&m, &v)| adam(m, v)).collect();
            write(&mut expected, block.parameters, &of_left.times(&ratio).times(&of_right.transposed()));
            plain[block.parameters.offset..block.parameters.end()].fill(false);
        }
        for at in (0..parameters).filter(|at| plain[*at]) {
            second[at] = 0.8 * second[at] + 0.2 * gradient[at] * gradient[at];
            expected[at] = adam(first[at], second[at]);
        }
        assert_close(&direction, &expected, 1e-9);
    }
}

#[test]
fn muon_makes_singular_values_equal() {
    let (mut backend, (blocks, parameters, statistics)) = (Device::new(), blocks(&SHAPES));
    let options = MuonOptions { momentum: 0.9, exclude: vec!["layer3".into()] };
    let method = GradientMethod::Muon(options);
    let mut muon = ByGradient::new(&mut backend, &blocks, [statistics, parameters], &method).expect("memory");
    let mut momentum = vec![0.0; parameters];
    for now in 0..STEPS {
        let gradient = gradient(now, parameters);
        let direction = step(&mut backend, &mut muon, &blocks, &gradient);
        momentum.iter_mut().zip(&gradient).for_each(|(m, g)| *m = 0.9 * *m + g);
        let ahead: Vec<f64> = momentum.iter().zip(&gradient).map(|(m, g)| g + 0.9 * m).collect();
        let mut expected = ahead.clone();
        for block in blocks.iter().filter(|block| block.name != "layer3") {
            let own = read(&ahead, block.parameters);
            let mut x = scaled(own.clone(), 1.0 / (norm(&own) + 1e-7));
            for _ in 0..5 {
                // Term by term, whichever side is longer.
                let square = x.times(&x.transposed());
                let (cubic, quintic) = (square.times(&x), square.times(&square).times(&x));
                x = sum(&scaled(x, 3.4445), &sum(&scaled(cubic, -4.7750), &scaled(quintic, 2.0315)));
            }
            let Region { rows, columns, .. } = block.parameters;
            let short = if rows <= columns { x.times(&x.transposed()) } else { x.transposed().times(&x) };
            for value in eigen(&short).1 {
                assert!((0.4..1.6).contains(&value), "a squared singular value of {}: {value}", block.name);
            }
            let scale = (rows as f64 / columns as f64).max(1.0).sqrt();
            write(&mut expected, block.parameters, &scaled(x, scale));
        }
        assert_close(&direction, &expected, 1e-9);
    }
}

/// `(a aᵀ ⊗ g gᵀ + λ)⁻¹ vec ∇`, by elimination of the whole matrix.
fn rank_one(gradient: &Matrix, a: &[f64], g: &[f64], damping: f64) -> Matrix {
    let long: Vec<f64> = a.iter().flat_map(|a| g.iter().map(move |g| a * g)).collect();
    let column = Matrix { rows: long.len(), columns: 1, values: long };
    let right = Matrix { rows: column.rows, columns: 1, values: gradient.values.clone() };
    let solution = column.times(&column.transposed()).plus_identity(damping).solve(&right);
    Matrix { values: solution.values, ..gradient.clone() }
}

fn mean_columns(matrix: &Matrix, scale: f64) -> Vec<f64> {
    (0..matrix.rows).map(|row| scale * (0..matrix.columns).map(|column| matrix.at(row, column)).sum::<f64>()).collect()
}

#[test]
fn eva_inverts_curvature_of_rank_one() {
    let shapes: Vec<_> = SHAPES.iter().map(|&(rows, columns)| (rows, columns + 1)).collect();
    let (mut backend, (blocks, parameters, _)) = (Device::new(), blocks(&shapes));
    let options = EvaOptions { damping: 0.2, ema_old: 0.6, clip: None, exclude: vec!["layer1".into()] };
    let mut eva = Eva::new(&mut backend, &blocks, parameters, &options).expect("memory");
    let mut sums: Vec<(Vec<f64>, Vec<f64>)> =
        blocks.iter().map(|block| (vec![0.0; block.a.rows], vec![0.0; block.g.rows])).collect();
    let mut weight = 0.0;
    for now in 0..STEPS {
        let gradient = gradient(now, parameters);
        let direction = step(&mut backend, &mut eva, &blocks, &gradient);
        let mut expected = gradient.clone();
        weight = 0.6 * weight + 0.4;
        for (block, (of_a, of_g)) in blocks.iter().zip(&mut sums).filter(|(block, _)| block.name != "layer1") {
            let (x, dy, batch) = passes(block, &gradient);
            let mut a = mean_columns(&x, 1.0 / batch as f64);
            a.push(1.0);
            let g = mean_columns(&dy, 1.0);
            for (sum, new) in of_a.iter_mut().zip(a).chain(of_g.iter_mut().zip(g)) {
                *sum = 0.6 * *sum + 0.4 * new;
            }
            let [a, g] = [&*of_a, &*of_g].map(|sum| sum.iter().map(|value| value / weight).collect::<Vec<_>>());
            write(&mut expected, block.parameters, &rank_one(&read(&gradient, block.parameters), &a, &g, 0.2));
        }
        assert_close(&direction, &expected, 1e-9);
    }
}

#[test]
fn eva_sees_every_position_of_a_convolution() {
    let shape = Convolution {
        input: Extent::new(2, 4, 5),
        output: Extent::new(3, 3, 2),
        kernel: [2, 3],
        stride: [1, 2],
        padding: [0, 0],
        dilation: [1, 1],
        bias: true,
    };
    let (batch, positions) = (3, shape.output.positions());
    let (rows, columns) = (shape.output.channels, shape.patch_rows());
    let block = Block {
        name: "conv".into(),
        parameters: Region::matrix(0, rows, columns),
        a: Region::matrix(0, columns, columns),
        g: Region::matrix(aligned::<f64>(columns * columns), rows, rows),
        positions,
        kernel: 6,
    };
    let mut random = Seed(3).random();
    let mut backend = Device::new();
    let options = EvaOptions { damping: 0.3, ema_old: 0.5, clip: None, exclude: Vec::new() };
    let parameters = block.parameters.len();
    let mut eva = Eva::new(&mut backend, std::slice::from_ref(&block), parameters, &options).expect("memory");
    let x = upload(&mut backend, &Matrix::random(&mut random, shape.input.len(), batch).values);
    let dy = Matrix::random(&mut random, rows, batch * positions);
    let of_dy = upload(&mut backend, &dy.values);
    eva.begin(&mut backend).expect("memory");
    let observer = eva.taps().and_then(|taps| taps.observer).expect("Eva looks at passes");
    let capture = Capture { x: &x, dy: &of_dy, kind: CaptureKind::Convolution(shape) };
    observer.observe(&mut backend, 0, batch, &capture).expect("memory");
    eva.update(&mut backend, 1).expect("memory");
    let gradient = Matrix::random(&mut random, rows, columns);
    let of_gradient = upload(&mut backend, &gradient.values);
    let mut direction = backend.allocate(parameters).expect("memory");
    eva.precondition(&mut backend, 0.1, &of_gradient, None, &mut direction).expect("memory");

    let mut patches = Matrix::zeros(columns, batch * positions);
    reference::unfold(&shape, 0..batch, &x, &mut patches.values);
    // √S times the mean over samples and positions, and the mean of the samples' gradients, N·dy.
    let a = mean_columns(&patches, (positions as f64).sqrt() / (batch * positions) as f64);
    let g = mean_columns(&dy, batch as f64 / (batch * positions) as f64);
    assert_close(&direction, &rank_one(&gradient, &a, &g, 0.3).values, 1e-9);
}

/// All of them, on blocks with a bias.
fn methods(backend: &mut Device, blocks: &[Block], parameters: usize, statistics: usize) -> Vec<Method> {
    let of_gradients = [
        GradientMethod::Shampoo(ShampooOptions { period: 2, ..ShampooOptions::default() }),
        GradientMethod::Soap(SoapOptions { period: 2, ..SoapOptions::default() }),
        GradientMethod::Muon(MuonOptions::default()),
    ];
    let lengths = [statistics, parameters];
    let made = of_gradients.iter().map(|method| ByGradient::new(backend, blocks, lengths, method).expect("memory"));
    let mut methods: Vec<Method> = made.map(|method| Box::new(method) as Method).collect();
    methods.push(Box::new(Eva::new(backend, blocks, parameters, &EvaOptions::default()).expect("memory")));
    methods
}

/// Saved after any number of steps and restored into a new one, a method goes on with the same bits.
#[test]
fn whoever_is_restored_goes_on_as_if_nothing_had_happened() {
    let shapes: Vec<_> = SHAPES.iter().map(|&(rows, columns)| (rows, columns + 1)).collect();
    let (mut backend, (blocks, parameters, statistics)) = (Device::new(), blocks(&shapes));
    for at in 0..STEPS {
        let mut whole = methods(&mut backend, &blocks, parameters, statistics);
        let mut again = methods(&mut backend, &blocks, parameters, statistics);
        for (method, again) in whole.iter_mut().zip(&mut again) {
            for now in 0..at {
                step(&mut backend, &mut **method, &blocks, &gradient(now, parameters));
            }
            let kept = method.save(&mut backend).expect("memory");
            if let (Some(from), Some(to)) = (method.factors(), again.factors()) {
                let (values, weights) = to.means().estimate_mut();
                values.clone_from(from.running().values());
                weights.clone_from(from.running().weights());
            }
            again.restore(&mut backend, &kept).expect("memory");
            assert_eq!(again.save(&mut backend).expect("memory"), kept);
            for now in at..STEPS {
                let gradient = gradient(now, parameters);
                let expected = step(&mut backend, &mut **method, &blocks, &gradient);
                assert_eq!(step(&mut backend, &mut **again, &blocks, &gradient), expected, "step {now}");
            }
        }
    }
}

/// A gradient that is not finite does not get into Shampoo's averages: the next directions are those without it.
#[test]
fn a_broken_gradient_does_not_stay() {
    let (mut backend, (blocks, parameters, statistics)) = (Device::new(), blocks(&SHAPES));
    let options = ShampooOptions { period: 1, ..ShampooOptions::default() };
    let method = GradientMethod::Shampoo(options);
    let mut make = || ByGradient::new(&mut backend, &blocks, [statistics, parameters], &method).expect("memory");
    let (mut broken, mut sound) = (make(), make());
    for now in 0..STEPS {
        let gradient = gradient(now, parameters);
        let expected = step(&mut backend, &mut sound, &blocks, &gradient);
        assert_eq!(step(&mut backend, &mut broken, &blocks, &gradient), expected);
        step(&mut backend, &mut broken, &blocks, &vec![f64::NAN; parameters]);
    }
}
