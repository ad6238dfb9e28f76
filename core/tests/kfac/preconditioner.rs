//! K-FAC against dense linear algebra, and its guards.

use crate::dense::{Matrix, assert_close, blocks, read, statistics, upload, write};
use kronfleet_core::backend::Backend;
use kronfleet_core::layer::{Block, Capture, CaptureKind};
use kronfleet_core::preconditioner::{
    Captures, Form, Identity, Kronecker, Model, Options, OptionsError, Preconditioner, Refresh,
};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Seed;
use kronfleet_nalgebra::Nalgebra;
use proptest::prelude::*;

fn options(form: Form) -> Options {
    Options { form, clip: None, inverse_period: 1, ..Options::default() }
}

/// K-FAC fed with statistics and gradients directly.
struct Case<B: Backend> {
    backend: B,
    blocks: Vec<Block>,
    parameters: usize,
    statistics: usize,
    kfac: Kronecker<B>,
}

impl<B> Case<B>
where
    B: Backend + Default + Send,
    B::Buffer: Send,
    B::Download: Send,
    B::Verdict: Send,
{
    fn new(shapes: &[(usize, usize)], options: Options) -> Self {
        let mut backend = B::default();
        let (blocks, parameters, statistics) = blocks(shapes);
        let kfac = Kronecker::new(&mut backend, &blocks, statistics, parameters, options).expect("memory");
        Self { backend, blocks, parameters, statistics, kfac }
    }

    /// One step up to the preconditioning.
    fn update(&mut self, statistics: &[f64]) {
        let narrow: Vec<B::Scalar> = statistics.iter().map(|&value| B::Scalar::of(value)).collect();
        self.kfac.begin(&mut self.backend).expect("memory");
        if let Some(taps) = self.kfac.taps() {
            self.backend.upload(&narrow, taps.statistics.expect("K-FAC takes them"), 0).expect("memory");
        }
        self.kfac.update(&mut self.backend, 1).expect("memory");
    }

    fn direction(&mut self, rate: f64, gradient: &[f64], passes: Option<&dyn Captures<B>>) -> Vec<f64> {
        let narrow: Vec<B::Scalar> = gradient.iter().map(|&value| B::Scalar::of(value)).collect();
        let gradient = upload(&mut self.backend, &narrow);
        let mut direction = self.backend.allocate(self.parameters).expect("memory");
        self.kfac.precondition(&mut self.backend, rate, &gradient, passes, &mut direction).expect("memory");
        let direction = self.backend.fetch(&direction, 0..self.parameters).expect("memory");
        direction.into_iter().map(Scalar::wide).collect()
    }
}

fn random_gradient(seed: u64, len: usize) -> Vec<f64> {
    let mut random = Seed(seed).derive("gradient", 0).random();
    (0..len).map(|_| random.normal()).collect()
}

/// `(G + g)⁻¹ ∇ (A + a)⁻¹` with factored damping, by elimination.
pub(crate) fn inverse_oracle(block: &Block, flat: &[f64], gradient: &[f64], damping: f64) -> Matrix {
    let (a, g) = (read(flat, block.a), read(flat, block.g));
    let pi = (a.mean_diagonal() / g.mean_diagonal()).sqrt();
    let pi = if pi.is_finite() && pi > 0.0 { pi } else { 1.0 };
    let of_a = (damping.sqrt() * pi).max(1e-7 * a.mean_diagonal());
    let of_g = (damping.sqrt() / pi).max(1e-7 * g.mean_diagonal());
    let left = g.plus_identity(of_g).solve(&read(gradient, block.parameters));
    a.plus_identity(of_a).solve(&left.transposed()).transposed()
}

/// `(A ⊗ G + λ)⁻¹ vec ∇`, by elimination of the whole matrix.
pub(crate) fn eigen_oracle(block: &Block, flat: &[f64], gradient: &[f64], damping: f64) -> Matrix {
    let (a, g) = (read(flat, block.a), read(flat, block.g));
    let (rows, columns) = (g.rows, a.rows);
    let mut fisher = Matrix::zeros(rows * columns, rows * columns);
    for column in 0..rows * columns {
        for row in 0..rows * columns {
            let value = a.at(row / rows, column / rows) * g.at(row % rows, column % rows);
            fisher.values[row + column * rows * columns] = value;
        }
    }
    let right = Matrix { rows: rows * columns, columns: 1, values: read(gradient, block.parameters).values };
    let solution = fisher.plus_identity(damping).solve(&right);
    Matrix { rows, columns, values: solution.values }
}

fn shapes() -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec((1..7_usize, 1..8_usize), 1..4)
}

/// What a network would do: parameters outside the blocks keep their gradient.
fn expected(
    case_blocks: &[Block],
    flat: &[f64],
    gradient: &[f64],
    damping: f64,
    oracle: fn(&Block, &[f64], &[f64], f64) -> Matrix,
) -> Vec<f64> {
    let mut expected = gradient.to_vec();
    for block in case_blocks {
        write(&mut expected, block.parameters, &oracle(block, flat, gradient, damping));
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_inverse_form_is_dense_linear_algebra(
        shapes in shapes(), seed in any::<u64>(), samples in 1..12_usize, damping in 1e-4..1.0_f64,
    ) {
        let mut case = Case::<Nalgebra<f64>>::new(&shapes, Options { damping, ..options(Form::Inverse) });
        let flat = statistics(seed, &case.blocks, case.statistics, samples);
        let gradient = random_gradient(seed, case.parameters);
        case.update(&flat);
        let direction = case.direction(0.1, &gradient, None);
        let expected = expected(&case.blocks, &flat, &gradient, damping, inverse_oracle);
        // Condition numbers stay below 1e4·8 per factor at this damping.
        assert_close(&direction, &expected, 1e-9);
        prop_assert_eq!(case.kfac.report().retried + case.kfac.report().kept, 0);
    }

    #[test]
    fn the_eigen_form_inverts_the_damped_kronecker_product(
        shapes in proptest::collection::vec((1..5_usize, 1..5_usize), 1..3),
        seed in any::<u64>(), samples in 1..8_usize, damping in 1e-4..1.0_f64,
    ) {
        for form in [Form::Eigen, Form::Ekfac] {
            let mut case = Case::<Nalgebra<f64>>::new(&shapes, Options { damping, ..options(form) });
            let flat = statistics(seed, &case.blocks, case.statistics, samples);
            let gradient = random_gradient(seed, case.parameters);
            case.update(&flat);
            let direction = case.direction(0.1, &gradient, None);
            // Right after a refresh, EKFAC starts from the Kronecker spectrum.
            let expected = expected(&case.blocks, &flat, &gradient, damping, eigen_oracle);
            assert_close(&direction, &expected, 1e-9);
        }
    }

    #[test]
    fn the_clip_bounds_the_step(
        shapes in shapes(), seed in any::<u64>(), rate in 0.01..2.0_f64, kappa in 1e-5..10.0_f64,
    ) {
        let mut plain = Case::<Nalgebra<f64>>::new(&shapes, options(Form::Inverse));
        let mut clipped =
            Case::<Nalgebra<f64>>::new(&shapes, Options { clip: Some(kappa), ..options(Form::Inverse) });
        let flat = statistics(seed, &plain.blocks, plain.statistics, 5);
        let gradient = random_gradient(seed, plain.parameters);
        plain.update(&flat);
        clipped.update(&flat);
        let v = plain.direction(rate, &gradient, None);
        let direction = clipped.direction(rate, &gradient, None);
        let inside = |at: usize| {
            plain.blocks.iter().any(|block| (block.parameters.offset..block.parameters.end()).contains(&at))
        };
        let dot: f64 = (0..v.len()).filter(|&at| inside(at)).map(|at| v[at] * gradient[at]).sum();
        let nu = (kappa / (rate * rate * dot).abs()).sqrt().min(1.0);
        let expected: Vec<f64> =
            (0..v.len()).map(|at| if inside(at) { nu * v[at] } else { gradient[at] }).collect();
        assert_close(&direction, &expected, 1e-12);
    }

    #[test]
    fn low_rank_application_is_dense_application(
        inputs in 1..9_usize, outputs in 1..9_usize, bias in any::<bool>(), batch in 1..6_usize, seed in any::<u64>(),
    ) {
        let columns = inputs + usize::from(bias);
        let mut case = Case::<Nalgebra<f64>>::new(&[(outputs, columns)], options(Form::Inverse));
        let mut random = Seed(seed).derive("captures", 0).random();
        let x = Matrix::random(&mut random, inputs, batch);
        let dy = Matrix::random(&mut random, outputs, batch);
        let mut a = Matrix::zeros(columns, batch);
        for sample in 0..batch {
            for row in 0..columns {
                a.values[row + sample * columns] = if row < inputs { x.at(row, sample) } else { 1.0 };
            }
        }
        let mut gradient = vec![0.0; case.parameters];
        write(&mut gradient, case.blocks[0].parameters, &dy.times(&a.transposed()));
        case.update(&statistics(seed, &case.blocks, case.statistics, 20));
        let dense = case.direction(0.1, &gradient, None);
        let passes = Passes {
            batch,
            x: upload(&mut case.backend, &x.values),
            dy: upload(&mut case.backend, &dy.values),
            kind: CaptureKind::Dense { inputs, outputs, bias },
        };
        let before = case.backend.counters().flops;
        let low_rank = case.direction(0.1, &gradient, Some(&passes));
        let flops = case.backend.counters().flops - before;
        assert_close(&low_rank, &dense, 1e-11);
        // The cheaper of the two was chosen: what the bias adds is done without a product.
        let (o, i, n) = (outputs as u64, columns as u64, batch as u64);
        prop_assert!(flops <= 2 * o * i * (o + i), "{flops} flops");
        prop_assert!(flops <= 2 * n * (o * o + i * i + o * i), "{flops} flops");
    }
}

struct Passes {
    batch: usize,
    x: Vec<f64>,
    dy: Vec<f64>,
    kind: CaptureKind,
}

impl Captures<Nalgebra<f64>> for Passes {
    fn batch(&self) -> usize {
        self.batch
    }

    fn capture(&self, _: usize) -> Option<Capture<'_, Nalgebra<f64>>> {
        Some(Capture { x: &self.x, dy: &self.dy, kind: self.kind })
    }
}

#[test]
fn damping_acts_at_once_in_the_eigen_form_and_at_the_next_refresh_in_the_inverse_form() {
    for form in [Form::Eigen, Form::Inverse] {
        let mut case = Case::<Nalgebra<f64>>::new(&[(3, 4)], Options { inverse_period: 2, ..options(form) });
        let flat = statistics(1, &case.blocks, case.statistics, 5);
        let gradient = random_gradient(1, case.parameters);
        case.update(&flat);
        let first = case.direction(0.1, &gradient, None);
        case.kfac.set_damping(0.5);
        case.update(&flat);
        let second = case.direction(0.1, &gradient, None);
        assert_eq!(first == second, form == Form::Inverse);
        case.update(&flat);
        let third = case.direction(0.1, &gradient, None);
        let oracle = if form == Form::Eigen { eigen_oracle } else { inverse_oracle };
        assert_close(&third, &expected(&case.blocks, &flat, &gradient, 0.5, oracle), 1e-10);
    }
}

#[test]
fn a_deferred_refresh_acts_one_step_later() {
    for form in [Form::Inverse, Form::Eigen] {
        let mut now = Case::<Nalgebra<f64>>::new(&[(3, 4), (2, 3)], options(form));
        let mut later =
            Case::<Nalgebra<f64>>::new(&[(3, 4), (2, 3)], Options { refresh: Refresh::Deferred, ..options(form) });
        let gradient = random_gradient(1, now.parameters);
        let mut directions = Vec::new();
        for step in 0..4 {
            let flat = statistics(step, &now.blocks, now.statistics, 5);
            now.update(&flat);
            later.update(&flat);
            directions.push(now.direction(0.1, &gradient, None));
            let delayed = later.direction(0.1, &gradient, None);
            if step > 0 {
                assert_close(&delayed, &directions[step as usize - 1], 1e-13);
            } else if form == Form::Inverse {
                assert_close(&delayed, &gradient, 1e-15);
            }
        }
    }
}

#[test]
fn periods_say_when_statistics_are_taken_and_decompositions_made() {
    let periods = Options { factor_period: 2, inverse_period: 3, ..options(Form::Inverse) };
    let mut case = Case::<Nalgebra<f64>>::new(&[(3, 4)], periods);
    let gradient = random_gradient(1, case.parameters);
    for step in 0..7 {
        let flat = statistics(step, &case.blocks, case.statistics, 5);
        case.kfac.begin(&mut case.backend).expect("memory");
        assert_eq!(case.kfac.taps().is_some(), step % 2 == 0);
        case.update(&flat);
        case.direction(0.1, &gradient, None);
    }
    let report = case.kfac.report();
    assert_eq!((report.updates, report.refreshes), (4, 3));
    assert_eq!(case.backend.counters().factorisations, 3 * 2);
}

#[test]
fn excluded_blocks_follow_their_gradient() {
    let exclude = Options { exclude: vec!["layer0".to_string()], ..options(Form::Inverse) };
    let mut case = Case::<Nalgebra<f64>>::new(&[(3, 4), (2, 3)], exclude);
    let flat = statistics(1, &case.blocks, case.statistics, 5);
    let gradient = random_gradient(1, case.parameters);
    case.update(&flat);
    let direction = case.direction(0.1, &gradient, None);
    assert_close(&direction, &expected(&case.blocks[1..], &flat, &gradient, 0.003, inverse_oracle), 1e-10);
}

#[test]
fn options_are_checked_with_remedies() {
    let (blocks, ..) = blocks(&[(3, 4), (2, 3)]);
    let unknown = Options { exclude: vec!["layer9".to_string()], ..Options::default() };
    let error = unknown.check(&blocks).expect_err("there is no layer9");
    assert_eq!(error.to_string(), r#"no block is called "layer9"; exclude some of ["layer0", "layer1"], or nothing"#);
    let damping = Options { damping: 0.0, ..Options::default() };
    assert!(matches!(damping.check(&blocks), Err(OptionsError::Range { name: "damping", .. })));
    let ema_old = Options { ema_old: 1.0, ..Options::default() };
    assert!(matches!(ema_old.check(&blocks), Err(OptionsError::Range { name: "ema_old", .. })));
    let period = Options { inverse_period: 0, ..Options::default() };
    assert!(matches!(period.check(&blocks), Err(OptionsError::Range { name: "inverse_period", .. })));
    assert_eq!(Options::default().check(&blocks), Ok(()));
}

#[test]
fn the_identity_changes_nothing() {
    let mut backend = Nalgebra::<f64>::new();
    let gradient = upload(&mut backend, &[1.0, -2.0]);
    let mut direction = upload(&mut backend, &[f64::NAN, 3.0]);
    Identity::default().precondition(&mut backend, 0.1, &gradient, None, &mut direction).expect("memory");
    assert_eq!(direction, gradient);
}

#[test]
fn zero_factors_are_damped_by_the_root_of_lambda() {
    let damping = 0.01;
    let mut case = Case::<Nalgebra<f64>>::new(&[(2, 3)], Options { damping, ..options(Form::Inverse) });
    let gradient = random_gradient(1, case.parameters);
    case.update(&vec![0.0; case.statistics]);
    let direction = case.direction(0.1, &gradient, None);
    let at = case.blocks[0].parameters.offset..case.blocks[0].parameters.end();
    let scaled: Vec<f64> = gradient[at.clone()].iter().map(|value| value / damping).collect();
    assert_close(&direction[at], &scaled, 1e-13);
    // A zero beside a factor that is not zero: π would be 0 or infinite.
    for zero_a in [true, false] {
        let mut case = Case::<Nalgebra<f64>>::new(&[(2, 3)], Options { damping, ..options(Form::Inverse) });
        let mut flat = statistics(1, &case.blocks, case.statistics, 5);
        let region = if zero_a { case.blocks[0].a } else { case.blocks[0].g };
        write(&mut flat, region, &Matrix::zeros(region.rows, region.columns));
        case.update(&flat);
        let direction = case.direction(0.1, &gradient, None);
        assert_close(&direction, &expected(&case.blocks, &flat, &gradient, damping, inverse_oracle), 1e-11);
    }
}

#[test]
fn statistics_that_are_not_finite_are_refused_and_counted() {
    for form in [Form::Inverse, Form::Eigen] {
        let mut case = Case::<Nalgebra<f64>>::new(&[(3, 4), (2, 3)], options(form));
        let flat = statistics(1, &case.blocks, case.statistics, 5);
        let gradient = random_gradient(1, case.parameters);
        case.update(&flat);
        let before = case.direction(0.1, &gradient, None);
        let mut poisoned = flat.clone();
        poisoned[case.blocks[0].g.offset] = f64::NAN;
        poisoned[case.blocks[1].a.offset + 1] = f64::INFINITY;
        case.update(&poisoned);
        assert_close(&case.direction(0.1, &gradient, None), &before, 1e-13);
        case.update(&flat);
        case.direction(0.1, &gradient, None);
        case.kfac.begin(&mut case.backend).expect("memory");
        assert_eq!(case.kfac.report().refused, 2);
    }
}

#[test]
fn what_fails_on_the_device_is_retried_in_double_precision() {
    // Of rank one: single precision loses the floor of the damping, 1e-7, and the last pivots with it. Products of small
    // integers are exact, so that double precision finds the matrix as positive as it is.
    let tiny = Options { damping: 1e-30, ema_old: 0.0, ..options(Form::Inverse) };
    let mut case = Case::<Nalgebra<f32>>::new(&[(64, 64)], tiny);
    let mut flat = vec![0.0; case.statistics];
    let x = Matrix { rows: 64, columns: 1, values: (0..64).map(|at| f64::from(at * 5 % 13 - 6)).collect() };
    for region in [case.blocks[0].a, case.blocks[0].g] {
        write(&mut flat, region, &x.second_moment());
    }
    case.update(&flat);
    let report = case.kfac.report();
    assert_eq!((report.retried, report.kept, report.identities), (1, 0, 0));
    let gradient = random_gradient(1, case.parameters);
    let direction = case.direction(0.1, &gradient, None);
    assert!(direction.iter().all(|value| value.is_finite()));
    assert!(direction.iter().zip(&gradient).any(|(v, g)| (v - g).abs() > 1.0), "something was preconditioned");
}

#[test]
fn what_fails_twice_keeps_the_previous_and_raises_the_damping_and_at_last_gives_the_identity() {
    let mut case = Case::<Nalgebra<f64>>::new(&[(3, 4), (2, 3)], Options { ema_old: 0.0, ..options(Form::Inverse) });
    let sound = statistics(1, &case.blocks, case.statistics, 5);
    let gradient = random_gradient(1, case.parameters);
    case.update(&sound);
    let before = case.direction(0.1, &gradient, None);
    // Finite but negative: no damping of reasonable size helps.
    let mut broken = sound.clone();
    let a = case.blocks[0].a;
    write(&mut broken, a, &Matrix::zeros(a.rows, a.columns).plus_identity(-1e6));
    for failures in 1..3 {
        case.update(&broken);
        assert_eq!(case.kfac.report().kept, failures);
        assert_close(&case.direction(0.1, &gradient, None), &before, 1e-13);
    }
    case.update(&broken);
    assert_eq!(case.kfac.report().identities, 1);
    let direction = case.direction(0.1, &gradient, None);
    let plain = expected(&case.blocks[1..], &sound, &gradient, 0.003, inverse_oracle);
    assert_close(&direction, &plain, 1e-11);
    // Sound again: preconditioned again, with the damping still raised twice by 10, then less and less.
    for raise in [100.0, 10.0, 1.0, 1.0] {
        case.update(&sound);
        let mut expected = plain.clone();
        let oracle = inverse_oracle(&case.blocks[0], &sound, &gradient, 0.003 * raise);
        write(&mut expected, case.blocks[0].parameters, &oracle);
        assert_close(&case.direction(0.1, &gradient, None), &expected, 1e-10);
    }
}

#[test]
fn second_moments_outlive_a_refresh_that_fails() {
    let mut case = Case::<Nalgebra<f64>>::new(&[(3, 4), (2, 3)], options(Form::Ekfac));
    let sound = statistics(1, &case.blocks, case.statistics, 5);
    let gradient = random_gradient(1, case.parameters);
    case.update(&sound);
    // An average from elsewhere that is no number, and stays none.
    let at = case.blocks[0].a.offset;
    case.kfac.factors().expect("K-FAC has factors").means().estimate_mut().0[at] = f64::NAN;
    for failures in 1..3 {
        case.update(&sound);
        assert_eq!(case.kfac.report().kept, failures);
        // Nobody observes gradients here, so that every batch counts as one of zeros.
        let mut decayed = sound.clone();
        let mut g = read(&sound, case.blocks[0].g);
        g.values.iter_mut().for_each(|value| *value *= 0.95_f64.powi(failures as i32));
        write(&mut decayed, case.blocks[0].g, &g);
        let expected = expected(&case.blocks, &decayed, &gradient, 0.003, eigen_oracle);
        assert_close(&case.direction(0.1, &gradient, None), &expected, 1e-10);
    }
    case.update(&sound);
    assert_eq!(case.kfac.report().identities, 1);
    let mut plain = expected(&case.blocks[1..], &sound, &gradient, 0.003, eigen_oracle);
    let mut identity = read(&gradient, case.blocks[0].parameters);
    identity.values.iter_mut().for_each(|value| *value /= 1.003);
    write(&mut plain, case.blocks[0].parameters, &identity);
    assert_close(&case.direction(0.1, &gradient, None), &plain, 1e-10);
}

#[test]
fn an_inverse_that_is_not_finite_is_never_applied() {
    // Positive definite, but 1/1e-39 is infinite in single precision, in the second try too.
    let mut case = Case::<Nalgebra<f32>>::new(&[(1, 1)], Options { damping: 1e-300, ..options(Form::Inverse) });
    let mut flat = vec![0.0; case.statistics];
    flat[case.blocks[0].a.offset] = 1e-39;
    flat[case.blocks[0].g.offset] = 1.0;
    let gradient = random_gradient(1, case.parameters);
    case.update(&flat);
    assert_eq!(case.kfac.report().kept, 1);
    assert_close(&case.direction(0.1, &gradient, None), &gradient, 1e-6);
}

#[test]
fn the_model_is_the_quadratic_form_of_the_running_averages() {
    for form in [Form::Inverse, Form::Eigen] {
        let mut case = Case::<Nalgebra<f64>>::new(&[(2, 3), (3, 2)], options(form));
        let flat = statistics(1, &case.blocks, case.statistics, 5);
        let (gradient, change) = (random_gradient(1, case.parameters), random_gradient(2, case.parameters));
        case.update(&flat);
        let buffers = [&gradient, &change].map(|values| upload(&mut case.backend, values));
        let mut out = case.backend.allocate(Model::LEN).expect("memory");
        assert!(case.kfac.model(&mut case.backend, &buffers[0], &buffers[1], &mut out).expect("memory"));
        let model = Model::read(&out);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (mut curvature, mut square) = (0.0, 0.0);
        for block in &case.blocks {
            let delta = read(&change, block.parameters);
            let product = read(&flat, block.g).times(&delta).times(&read(&flat, block.a));
            curvature += dot(&product.values, &delta.values);
            square += dot(&delta.values, &delta.values);
        }
        let expected = [dot(&gradient, &change), curvature, square];
        assert_close(&[model.slope, model.curvature, model.square], &expected, 1e-12);
        let change = model.change(0.1);
        assert!((change - (expected[0] + 0.5 * (curvature + 0.1 * square))).abs() < 1e-9 * change.abs().max(1.0));
    }
}

#[test]
fn running_averages_are_symmetric_and_free_of_damping() {
    let mut case = Case::<Nalgebra<f64>>::new(&[(5, 7)], options(Form::Inverse));
    let gradient = random_gradient(1, case.parameters);
    let mut mean = vec![0.0; case.statistics];
    let mut weight = 0.0;
    for step in 0..5 {
        let flat = statistics(step, &case.blocks, case.statistics, 9);
        case.update(&flat);
        case.direction(0.1, &gradient, None);
        mean.iter_mut().zip(&flat).for_each(|(mean, new)| *mean = 0.95 * *mean + 0.05 * new);
        weight = 0.95 * weight + 0.05;
    }
    let factors = case.kfac.factors().expect("K-FAC has factors");
    let values = factors.running().values();
    assert_close(&values[..case.statistics], &mean, 1e-14);
    assert!((factors.running().weights()[0] - weight).abs() < 1e-15);
    for region in [case.blocks[0].a, case.blocks[0].g] {
        let matrix = read(values, region);
        assert_eq!(matrix, matrix.transposed());
    }
}
