//! EKFAC's second moments against gradients of single examples.

use crate::dense::{Device, Matrix, assert_close, read, write};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::layer::Mode;
use kronfleet_core::network::{Initialisation, Network, Shape, Spec};
use kronfleet_core::preconditioner::{Form, Kronecker, Options, Preconditioner, Taps};
use kronfleet_core::seed::Seed;

const BATCH: usize = 5;
const DAMPING: f64 = 0.01;

struct Case {
    backend: Device,
    network: Network<Device>,
    x: Vec<f64>,
    labels: Vec<u32>,
}

fn case() -> Case {
    let mut backend = Device::new();
    let input = Extent::new(2, 5, 4);
    let shape = Shape { kernel: [3, 2], stride: [1, 2], padding: [1, 0], dilation: [1, 1] };
    let inner = Spec::residual("block", vec![Spec::convolution("inner", 3, Shape { kernel: [1, 1], ..window() })], {
        kronfleet_core::network::ShortcutSpec::Identity
    });
    let specs = [
        Spec::convolution("conv", 3, shape),
        Spec::Tanh,
        inner,
        Spec::Flatten,
        Spec::dense("hidden", 4),
        Spec::Tanh,
        Spec::Dense { name: "last".to_string(), outputs: 3, bias: false },
    ];
    let mut network = Network::build(&mut backend, input, &specs, BATCH).expect("the network fits");
    network.initialise(&mut backend, Seed(5), Initialisation::Uniform).expect("memory");
    let mut random = Seed(6).random();
    let x = (0..BATCH * input.len()).map(|_| random.normal()).collect();
    let labels = (0..BATCH).map(|_| random.below(3) as u32).collect();
    Case { backend, network, x, labels }
}

fn window() -> Shape {
    Shape { kernel: [1, 1], stride: [1, 1], padding: [0, 0], dilation: [1, 1] }
}

impl Case {
    fn pass(&mut self, first: usize, count: usize, taps: Option<Taps<'_, Device>>) -> Vec<f64> {
        let Self { backend, network, x, labels } = self;
        let sample = network.input_extent().len();
        let x = &x[first * sample..(first + count) * sample];
        network.load(backend, x, &labels[first..first + count]).expect("memory");
        let (statistics, observer) = match taps {
            Some(Taps { statistics, observer }) => (statistics, observer),
            None => (None, None),
        };
        match statistics {
            Some(statistics) => {
                network.forward(backend, count, Mode::Train, Some(&mut *statistics)).expect("memory");
                network.loss(backend, count, 0.0).expect("memory");
                network.backward(backend, count, Some(statistics), observer).expect("memory");
            }
            None => {
                network.forward(backend, count, Mode::Train, None).expect("memory");
                network.loss(backend, count, 0.0).expect("memory");
                network.backward(backend, count, None, None).expect("memory");
            }
        }
        network.gradient.clone()
    }
}

/// The eigenvectors of a symmetric matrix, by the reference Jacobi method.
fn eigenvectors(matrix: &Matrix) -> Matrix {
    let mut q = matrix.clone();
    let mut values = vec![0.0; q.rows];
    let region = kronfleet_core::matrix::Region::matrix(0, q.rows, q.rows);
    let of_values = kronfleet_core::matrix::Region::vector(0, q.rows);
    kronfleet_core::backend::reference::jacobi(region, &mut q.values, of_values, &mut values);
    q
}

/// With all weight on the last batch, `s` is the mean square of the projected gradients of single examples, and the
/// direction is `Q_G [(Q_Gᵀ ∇ Q_A) ⊘ (s + λ)] Q_Aᵀ`, for dense blocks and convolutions, alone and inside residual blocks.
#[test]
fn second_moments_are_those_of_single_examples() {
    let mut case = case();
    let options = Options {
        form: Form::Ekfac,
        damping: DAMPING,
        ema_old: 0.0,
        clip: None,
        inverse_period: 100,
        ..Options::default()
    };
    let (blocks, statistics, parameters) =
        (case.network.blocks().to_vec(), case.network.statistics_len(), case.network.parameters_len());
    assert_eq!(blocks.len(), 4);
    let mut kfac = Kronecker::new(&mut case.backend, &blocks, statistics, parameters, options).expect("memory");
    let mut direction = case.backend.allocate(parameters).expect("memory");
    let mut gradient = Vec::new();
    // The first step decomposes, the second one measures in the bases of the first.
    for _ in 0..2 {
        kfac.begin(&mut case.backend).expect("memory");
        gradient = case.pass(0, BATCH, kfac.taps());
        kfac.update(&mut case.backend, 1).expect("memory");
        kfac.precondition(&mut case.backend, 0.1, &gradient, None, &mut direction).expect("memory");
    }
    let flat = kfac.factors().expect("K-FAC has factors").running().values().clone();
    let examples: Vec<Vec<f64>> = (0..BATCH).map(|sample| case.pass(sample, 1, None)).collect();
    let mut expected = gradient.clone();
    for block in &blocks {
        let (of_a, of_g) = (eigenvectors(&read(&flat, block.a)), eigenvectors(&read(&flat, block.g)));
        let inward = |flat: &[f64]| of_g.transposed().times(&read(flat, block.parameters)).times(&of_a);
        let mut moments = Matrix::zeros(block.parameters.rows, block.parameters.columns);
        for example in &examples {
            let projected = inward(example);
            for (sum, value) in moments.values.iter_mut().zip(&projected.values) {
                *sum += value * value / BATCH as f64;
            }
        }
        let mut inner = inward(&gradient);
        for (value, moment) in inner.values.iter_mut().zip(&moments.values) {
            *value /= moment + DAMPING;
        }
        write(&mut expected, block.parameters, &of_g.times(&inner).times(&of_a.transposed()));
    }
    assert_close(&direction, &expected, 1e-10);
}
