//! Networks on a small backend: gradients by finite differences, statistics from their definition, messages.

use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::layer::Mode;
use kronfleet_core::matrix::Region;
use kronfleet_core::network::{Initialisation, Network, Shape, ShortcutSpec, Spec};
use kronfleet_core::seed::Seed;
use kronfleet_nalgebra::Nalgebra;

type Device = Nalgebra<f64>;

struct Case {
    backend: Device,
    network: Network<Device>,
    batch: usize,
}

/// A network with random parameters and a random batch loaded.
fn case(input: Extent, specs: &[Spec], batch: usize) -> Case {
    let mut backend = Device::new();
    let mut network = Network::build(&mut backend, input, specs, batch + 1).expect("the network fits");
    network.initialise(&mut backend, Seed(3), Initialisation::Uniform).expect("memory");
    let mut random = Seed(4).random();
    // Scales of exactly 1 and shifts of exactly 0 would hide mistakes.
    let len = network.parameters_len();
    let mut parameters = backend.fetch(&network.parameters, 0..len).expect("memory");
    parameters.iter_mut().for_each(|value| *value += 0.1 * random.normal());
    backend.upload(&parameters, &mut network.parameters, 0).expect("memory");
    let x: Vec<f64> = (0..batch * input.len()).map(|_| random.normal()).collect();
    let labels: Vec<u32> = (0..batch).map(|_| random.below(network.classes() as u64) as u32).collect();
    network.load(&mut backend, &x, &labels).expect("memory");
    Case { backend, network, batch }
}

impl Case {
    fn loss(&mut self) -> f64 {
        self.network.forward(&mut self.backend, self.batch, Mode::Train, None).expect("memory");
        self.network.loss(&mut self.backend, self.batch, 0.1).expect("memory");
        self.backend.fetch(self.network.loss_value(), 0..1).expect("memory")[0]
    }

    fn gradient(&mut self) -> Vec<f64> {
        self.loss();
        self.network.backward(&mut self.backend, self.batch, None, None).expect("memory");
        let len = self.network.parameters_len();
        self.backend.fetch(&self.network.gradient, 0..len).expect("memory")
    }
}

/// Every element of the gradient against a central difference of the loss.
fn check_gradient(input: Extent, specs: &[Spec]) {
    let mut case = case(input, specs, 3);
    let gradient = case.gradient();
    let scale = gradient.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    assert!(scale > 1e-6, "a vanishing gradient tests nothing");
    let table = case.network.table().to_vec();
    let step = 1e-5;
    for parameter in &table {
        for column in 0..parameter.region.columns {
            for row in 0..parameter.region.rows {
                let at = parameter.region.index(row, column);
                let old = case.backend.fetch(&case.network.parameters, at..at + 1).expect("memory")[0];
                let mut moved = |value: f64| {
                    case.backend.upload(&[value], &mut case.network.parameters, at).expect("memory");
                    case.loss()
                };
                let slope = (moved(old + step) - moved(old - step)) / (2.0 * step);
                moved(old);
                // Truncation is of order step², rounding of order ε/step: together about 1e-9 of the loss's scale.
                let error = (slope - gradient[at]).abs();
                assert!(
                    error < 1e-7 * scale.max(1.0),
                    "{} ({row}, {column}): {slope} {}",
                    parameter.name,
                    gradient[at]
                );
            }
        }
    }
}

fn wide() -> Shape {
    Shape { kernel: [3, 2], stride: [2, 1], padding: [1, 0], dilation: [1, 2] }
}

#[test]
fn gradients_of_a_plain_network() {
    check_gradient(
        Extent::new(2, 6, 5),
        &[
            Spec::convolution("conv1", 3, wide()),
            Spec::Tanh,
            Spec::MeanPool(Shape { kernel: [2, 2], stride: [1, 1], padding: [1, 1], dilation: [1, 1] }),
            Spec::Flatten,
            Spec::dense("fc1", 6),
            Spec::Tanh,
            Spec::Dense { name: "fc2".into(), outputs: 4, bias: false },
        ],
    );
}

#[test]
fn gradients_of_residual_blocks_with_batch_norm() {
    let body = |outputs, stride| {
        vec![
            Spec::plain_convolution("conv1", outputs, Shape::square(3, stride, 1)),
            Spec::batch_norm("bn1"),
            Spec::Tanh,
            Spec::plain_convolution("conv2", outputs, Shape::square(3, 1, 1)),
            Spec::batch_norm("bn2"),
        ]
    };
    let projection =
        vec![Spec::plain_convolution("downsample.0", 4, Shape::square(1, 2, 0)), Spec::batch_norm("downsample.1")];
    check_gradient(
        Extent::new(2, 5, 5),
        &[
            Spec::residual("a", body(2, 1), ShortcutSpec::Identity),
            Spec::Tanh,
            Spec::residual("b", body(3, 2), ShortcutSpec::Subsample { stride: 2 }),
            Spec::residual("c", body(4, 2), ShortcutSpec::Projection(projection)),
            Spec::GlobalMeanPool,
            Spec::dense("linear", 3),
        ],
    );
}

#[test]
fn gradients_where_bodies_and_projections_end_in_activations() {
    let branch = |name: &str| vec![Spec::convolution(name, 2, Shape::square(3, 1, 1)), Spec::Tanh];
    check_gradient(
        Extent::new(2, 4, 4),
        &[
            Spec::residual("a", branch("left"), ShortcutSpec::Projection(branch("right"))),
            Spec::residual(
                "b",
                vec![Spec::residual("c", branch("inner"), ShortcutSpec::Identity)],
                ShortcutSpec::Identity,
            ),
            Spec::dense("fc", 3),
        ],
    );
}

#[test]
fn gradients_of_evo_norm_first_and_inside() {
    check_gradient(
        Extent::new(4, 3, 3),
        &[
            Spec::EvoNorm { name: "evo1".into(), groups: 2, epsilon: 1e-5 },
            Spec::convolution("conv", 6, Shape::square(2, 1, 0)),
            Spec::EvoNorm { name: "evo2".into(), groups: 3, epsilon: 1e-5 },
            Spec::dense("fc", 3),
        ],
    );
}

#[test]
fn gradients_of_batch_norm_first() {
    check_gradient(Extent::flat(5), &[Spec::batch_norm("bn"), Spec::dense("fc", 3)]);
}

/// Kinks have no derivative, but random numbers do not lie within a hair's breadth of one.
#[test]
fn gradients_away_from_kinks() {
    check_gradient(
        Extent::new(2, 6, 5),
        &[
            Spec::convolution("conv1", 3, wide()),
            Spec::Relu,
            Spec::MaxPool(Shape { kernel: [2, 3], stride: [1, 2], padding: [1, 1], dilation: [1, 1] }),
            Spec::residual(
                "a",
                vec![Spec::convolution("conv2", 3, Shape::square(3, 1, 1)), Spec::Relu],
                ShortcutSpec::Identity,
            ),
            Spec::MaxPool(Shape::square(2, 1, 0)),
            Spec::Flatten,
            Spec::dense("fc1", 6),
            Spec::Relu,
            Spec::dense("fc2", 4),
        ],
    );
}

fn convolutional() -> Vec<Spec> {
    vec![
        Spec::convolution("conv1", 3, Shape::square(3, 1, 1)),
        Spec::Relu,
        Spec::MaxPool(Shape::square(2, 2, 0)),
        Spec::plain_convolution("conv2", 4, Shape::square(2, 2, 0)),
        Spec::Relu,
        Spec::Flatten,
        Spec::dense("fc1", 5),
        Spec::Relu,
        Spec::dense("fc2", 3),
    ]
}

#[test]
fn low_rank_operands_multiply_to_the_gradient() {
    let mut case = case(Extent::new(2, 6, 6), &convolutional(), 4);
    let gradient = case.gradient();
    let blocks = case.network.blocks().to_vec();
    assert_eq!(blocks.iter().map(|block| block.name.as_str()).collect::<Vec<_>>(), ["conv1", "conv2", "fc1", "fc2"]);
    for (number, block) in blocks.iter().enumerate() {
        let Some((x, dy)) = case.network.low_rank(number) else {
            assert!(block.name.starts_with("conv"), "dense blocks show their operands");
            continue;
        };
        let Region { rows, columns, .. } = block.parameters;
        let x = case.backend.fetch(x, 0..(columns - 1) * case.batch).expect("memory");
        let dy = case.backend.fetch(dy, 0..rows * case.batch).expect("memory");
        for row in 0..rows {
            for column in 0..columns {
                let input = |sample: usize| if column + 1 < columns { x[sample * (columns - 1) + column] } else { 1.0 };
                let sum: f64 = (0..case.batch).map(|sample| dy[sample * rows + row] * input(sample)).sum();
                let error = (sum - gradient[block.parameters.index(row, column)]).abs();
                assert!(error < 1e-12, "{} ({row}, {column})", block.name);
            }
        }
    }
}

#[test]
fn statistics_add_up_and_can_be_left_out() {
    let mut case = case(Extent::new(2, 6, 6), &convolutional(), 4);
    let len = case.network.statistics_len();
    let mut statistics = case.backend.allocate(len).expect("memory");
    let passes = |case: &mut Case, statistics: &mut Vec<f64>| {
        case.network.forward(&mut case.backend, 4, Mode::Train, Some(statistics)).expect("memory");
        case.network.loss(&mut case.backend, 4, 0.0).expect("memory");
        case.network.backward(&mut case.backend, 4, Some(statistics), None).expect("memory");
    };
    passes(&mut case, &mut statistics);
    let once = statistics.clone();
    case.network.observe(1, false);
    passes(&mut case, &mut statistics);
    for (number, block) in case.network.blocks().iter().enumerate() {
        let factor = if number == 1 { 1.0 } else { 2.0 };
        for region in [block.a, block.g] {
            for at in region.offset..region.end() {
                assert!((statistics[at] - factor * once[at]).abs() < 1e-12 * once[at].abs().max(1.0), "{}", block.name);
            }
        }
        // A 1 follows every patch: the last entry of Ω counts positions.
        let bias = block.parameters.columns * block.parameters.rows != region_of_weights(&case, &block.name);
        if bias {
            let last = block.a.index(block.a.rows - 1, block.a.rows - 1);
            assert!((once[last] - block.positions as f64).abs() < 1e-12, "{}: {}", block.name, once[last]);
        }
    }
}

fn region_of_weights(case: &Case, name: &str) -> usize {
    let weight = format!("{name}.weight");
    case.network.table().iter().find(|parameter| parameter.name == weight).expect("weights have a name").region.len()
}

#[test]
fn drawn_labels_give_output_statistics_and_no_gradient() {
    let mut case = case(Extent::new(2, 6, 6), &convolutional(), 4);
    let before = case.gradient();
    let len = case.network.statistics_len();
    let mut statistics = case.backend.allocate(len).expect("memory");
    let draws = 4000;
    let mut random = Seed(9).random();
    case.network.forward(&mut case.backend, 4, Mode::Train, None).expect("memory");
    for _ in 0..draws {
        case.network.backward_sampled(&mut case.backend, 4, &mut random, Some(&mut statistics), None).expect("memory");
    }
    let sum = case.backend.fetch(&statistics, 0..len).expect("memory");
    let after = case.backend.fetch(&case.network.gradient, 0..before.len()).expect("memory");
    assert_eq!(before, after);
    // At the logits the expectation is known: Γ = mean over samples of diag(p) − p pᵀ.
    let block = case.network.blocks().last().expect("a dense layer").clone();
    let z = case.backend.fetch(case.network.logits(), 0..12).expect("memory");
    let mut expected = [[0.0; 3]; 3];
    for z in z.chunks(3) {
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        let p: Vec<f64> = z.iter().map(|z| z.exp() / total).collect();
        for (i, row) in expected.iter_mut().enumerate() {
            for (j, entry) in row.iter_mut().enumerate() {
                *entry += (if i == j { p[i] } else { 0.0 } - p[i] * p[j]) / 4.0;
            }
        }
    }
    for (i, row) in expected.iter().enumerate() {
        for (j, entry) in row.iter().enumerate() {
            let mean = sum[block.g.index(i, j)] / f64::from(draws);
            // Each of the 16 000 draws is bounded by 1: six standard deviations are below 0.05.
            assert!((mean - entry).abs() < 0.05, "({i}, {j}): {mean} for {entry}");
        }
    }
}

#[test]
fn a_smaller_batch_gives_what_a_network_of_its_size_gives() {
    let specs = convolutional();
    let mut large = case(Extent::new(2, 6, 6), &specs, 2);
    let small = large.gradient();
    let mut backend = Device::new();
    let mut network = Network::build(&mut backend, Extent::new(2, 6, 6), &specs, 7).expect("the network fits");
    network.parameters.clone_from(&large.network.parameters);
    let mut random = Seed(4).random();
    // The stream goes on where the parameters of the other network left it.
    for _ in 0..network.parameters_len() {
        random.normal();
    }
    let x: Vec<f64> = (0..2 * 72).map(|_| random.normal()).collect();
    let labels: Vec<u32> = (0..2).map(|_| random.below(3) as u32).collect();
    network.load(&mut backend, &x, &labels).expect("memory");
    let mut case = Case { backend, network, batch: 2 };
    assert_eq!(small, case.gradient());
}

fn message(input: Extent, specs: &[Spec]) -> String {
    Network::build(&mut Device::new(), input, specs, 1).expect_err("it does not fit").to_string()
}

#[test]
fn shape_errors_name_the_layer_the_shapes_and_the_remedy() {
    let conv = |name: &str, kernel| Spec::convolution(name, 3, Shape::square(kernel, 1, 0));
    let image = Extent::new(1, 6, 6);
    let cases = [
        (vec![conv("conv1", 5), conv("conv2", 3)], ["2: conv2", "3×2×2", "smaller kernel"]),
        (vec![conv("conv1", 3)], ["the output", "3×4×4", "dense layer"]),
        (vec![Spec::Flatten, conv("conv1", 3)], ["2: conv1", "1×6×6", "flatten"]),
        (vec![conv("c", 3), conv("c", 3)], ["2: c", "taken", "name of its own"]),
        (
            vec![Spec::residual("block", vec![conv("conv1", 3)], ShortcutSpec::Identity)],
            ["1: block", "1×6×6 into 3×4×4", "projection"],
        ),
        (
            vec![Spec::residual("block", vec![conv("conv1", 3)], ShortcutSpec::Subsample { stride: 2 })],
            ["1: block", "1×6×6 into 3×4×4", "stride"],
        ),
        (
            vec![Spec::residual("block", vec![conv("conv1", 9)], ShortcutSpec::Identity)],
            ["2: block.conv1", "1×6×6", "padding"],
        ),
        (vec![Spec::MaxPool(Shape::square(2, 2, 2))], ["1: max pooling", "[2, 2]", "less padding"]),
        (vec![Spec::EvoNorm { name: "evo".into(), groups: 2, epsilon: 1e-5 }], ["1: evo", "2 groups", "divisor"]),
        (vec![Spec::BatchNorm { name: "bn".into(), epsilon: 1e-5, momentum: 5.0 }], ["1: bn", "share of 5", "0 to 1"]),
        (
            vec![Spec::Convolution {
                name: "depth".into(),
                outputs: 2,
                shape: Shape::square(1, 1, 0),
                groups: 2,
                bias: true,
            }],
            ["1: depth", "2 groups", "groups = 1"],
        ),
        (vec![], ["the network", "no layer", "at least one"]),
    ];
    for (specs, facts) in cases {
        let message = message(image, &specs);
        for fact in facts {
            assert!(message.contains(fact), "{message:?} lacks {fact:?}");
        }
    }
}
