//! Whole training steps: random small networks on random data.
//!
//! # For users
//! [`steps_agree`] trains one step on two backends and compares all that came of it; [`gradients_match_differences`]
//! compares gradients with differences of the loss.
//!
//! # For implementers
//! A backend that computes in double precision is compared with another one by one call in a test:
//! `steps_agree(&make, &|| Minimal::<f64>::new(), 1e-9, &Check::default())`.

use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::layer::Mode;
use kronfleet_core::network::{Initialisation, Network, Shape, ShortcutSpec, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::preconditioner::{Fisher, Form, Kronecker, Options};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use proptest::collection::vec;
use proptest::prelude::*;

/// One K-FAC step of any form gives the same loss, gradient, running statistics and change of the parameters on both
/// backends, each up to `tolerance` times its largest element.
///
/// # Errors
/// With the smallest network found on which they differ.
pub fn steps_agree<A, B>(
    one: &dyn Fn() -> A,
    other: &dyn Fn() -> B,
    tolerance: f64,
    check: &Check,
) -> Result<(), Broken>
where
    A: Backend<Download: Send, Verdict: Send> + Send,
    B: Backend<Download: Send, Verdict: Send> + Send,
{
    check.hold(steps(false), |step| {
        let (one, other) = (step.run(one()), step.run(other()));
        for ((what, one), (_, other)) in one.into_iter().zip(other) {
            let size = other.iter().fold(0.0_f64, |size, value| size.max(value.abs()));
            let difference = |(one, other): (&f64, &f64)| (one - other).abs();
            let bound = tolerance * size + f64::MIN_POSITIVE;
            // Not `difference > bound`: a NaN is neither greater nor less.
            if let Some(at) = one.iter().zip(&other).position(|pair| !matches!(difference(pair), off if off <= bound)) {
                let (one, other) = (one[at], other[at]);
                return Err(format!("{what}: element {at} is {one} and {other}, the largest one is {size}"));
            }
        }
        Ok(())
    })
}

/// The derivative of the loss along a random direction, extrapolated from central differences (Richardson), is the
/// product of the gradient with the direction. Networks are smooth, since a kink has no derivative.
///
/// # Errors
/// With the smallest network found on which they differ.
pub fn gradients_match_differences<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    check.hold(steps(true), |step| {
        let mut backend = make();
        let mut network = step.network(&mut backend);
        let (batch, len) = (step.labels.len(), network.parameters_len());
        network.load(&mut backend, &step.inputs(), &step.labels).expect("memory");
        let start: Vec<f64> =
            backend.fetch(&network.parameters, 0..len).expect("memory").into_iter().map(Scalar::wide).collect();
        let mut random = step.seed.derive("direction", 0).random();
        // Gaps between parameters stay as they are.
        let mut direction = vec![0.0; len];
        for parameter in network.table() {
            let region = parameter.region;
            direction[region.offset..region.end()].iter_mut().for_each(|value| *value = random.normal());
        }
        let mut loss = |backend: &mut B, step: f64| {
            let moved: Vec<B::Scalar> =
                start.iter().zip(&direction).map(|(start, along)| B::Scalar::of(start + step * along)).collect();
            backend.upload(&moved, &mut network.parameters, 0).expect("memory");
            network.forward(backend, batch, Mode::Train, None).expect("memory");
            network.loss(backend, batch, SMOOTHING).expect("memory");
            backend.fetch(network.loss_value(), 0..1).expect("memory")[0].wide()
        };
        let width = B::Scalar::EPSILON.powf(0.2) / 16.0;
        let mut slope = |width: f64| (loss(&mut backend, width) - loss(&mut backend, -width)) / (2.0 * width);
        let (wide, narrow) = (slope(width), slope(width / 2.0));
        let expected = (4.0 * narrow - wide) / 3.0;
        let level = loss(&mut backend, 0.0);
        network.backward(&mut backend, batch, None, None).expect("memory");
        let gradient = backend.fetch(&network.gradient, 0..len).expect("memory");
        let seen: f64 = gradient.iter().zip(&direction).map(|(gradient, along)| gradient.wide() * along).sum();
        // What extrapolation removed bounds what is left of it; a loss of n roundings is divided by the width.
        let roundings = (len + step.x.len()) as f64 * B::Scalar::EPSILON * (1.0 + level) / width;
        let bound = (expected - narrow).abs() + roundings;
        let off = (seen - expected).abs();
        if off <= bound { Ok(()) } else { Err(format!("the slope is {seen}, by differences {expected} ± {bound:e}")) }
    })
}

const SMOOTHING: f64 = 0.1;

/// One step of a random network on random data.
#[derive(Clone, Debug)]
struct Step {
    input: Extent,
    specs: Vec<Spec>,
    form: Form,
    fisher: Fisher,
    low_rank: bool,
    seed: Seed,
    /// Channels fastest.
    x: Vec<f64>,
    labels: Vec<u32>,
}

fn steps(smooth: bool) -> impl Strategy<Value = Step> {
    let input = (1..=3_usize, 3..=6_usize, 3..=6_usize).prop_map(|(c, h, w)| Extent::new(c, h, w));
    let shape = (input, vec(piece(), 0..5), tail(), 2..=4_usize, 1..=5_usize);
    shape.prop_flat_map(move |(input, pieces, tail, classes, batch)| {
        let form = prop::sample::select(vec![Form::Inverse, Form::Eigen, Form::Ekfac]);
        let fisher = prop::sample::select(vec![Fisher::Empirical, Fisher::True]);
        let data = (vec(-2.0..2.0, batch * input.len()), vec(0..classes as u32, batch));
        (form, fisher, any::<bool>(), 0..1000_u64, data).prop_map(move |(form, fisher, low_rank, seed, (x, labels))| {
            let specs = assemble(input, &pieces, tail, classes, smooth);
            Step { input, specs, form, fisher, low_rank, seed: Seed(seed), x, labels }
        })
    })
}

/// What a network is put together from.
#[derive(Clone, Copy, Debug)]
enum Piece {
    Convolution {
        outputs: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: [usize; 2],
        bias: bool,
    },
    BatchNorm,
    EvoNorm,
    Relu,
    Tanh,
    MaxPool,
    MeanPool,
    Residual {
        normalised: bool,
    },
    Subsampled {
        channels: usize,
    },
    Projected {
        outputs: usize,
    },
}

fn piece() -> impl Strategy<Value = Piece> + Clone {
    let pair = |range: core::ops::RangeInclusive<usize>| [range.clone(), range];
    let convolution = (1..=4_usize, pair(1..=3), pair(1..=2), pair(0..=1), pair(1..=2), any::<bool>()).prop_map(
        |(outputs, kernel, stride, padding, dilation, bias)| Piece::Convolution {
            outputs,
            kernel,
            stride,
            padding,
            dilation,
            bias,
        },
    );
    prop_oneof![
        3 => convolution,
        1 => Just(Piece::BatchNorm),
        1 => Just(Piece::EvoNorm),
        1 => Just(Piece::Relu),
        1 => Just(Piece::Tanh),
        1 => Just(Piece::MaxPool),
        1 => Just(Piece::MeanPool),
        1 => any::<bool>().prop_map(|normalised| Piece::Residual { normalised }),
        1 => (0..3_usize).prop_map(|channels| Piece::Subsampled { channels }),
        1 => (1..4_usize).prop_map(|outputs| Piece::Projected { outputs }),
    ]
}

/// What a network ends with.
#[derive(Clone, Copy, Debug)]
enum Tail {
    Dense,
    Hidden(usize),
    GlobalMean,
}

fn tail() -> impl Strategy<Value = Tail> + Clone {
    prop_oneof![Just(Tail::Dense), (1..=7_usize).prop_map(Tail::Hidden), Just(Tail::GlobalMean)]
}

/// The pieces that fit, one after the other.
fn assemble(input: Extent, pieces: &[Piece], tail: Tail, classes: usize, smooth: bool) -> Vec<Spec> {
    let activation = if smooth { Spec::Tanh } else { Spec::Relu };
    let mut specs = vec![];
    let mut extent = input;
    for (number, piece) in pieces.iter().enumerate() {
        let name = format!("layer{number}");
        let inner = |part: &str, outputs: usize, stride: usize| {
            Spec::plain_convolution(part, outputs, Shape::square(3, stride, 1))
        };
        match *piece {
            Piece::Convolution { outputs, mut kernel, stride, padding, dilation, bias } => {
                let extents = [extent.height, extent.width];
                for axis in 0..2 {
                    kernel[axis] = kernel[axis].min((extents[axis] + 2 * padding[axis] - 1) / dilation[axis] + 1);
                }
                let along = |axis: usize| {
                    (extents[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) / stride[axis] + 1
                };
                extent = Extent::new(outputs, along(0), along(1));
                let shape = Shape { kernel, stride, padding, dilation };
                specs.push(Spec::Convolution { name, outputs, shape, groups: 1, bias });
            }
            Piece::BatchNorm => specs.push(Spec::batch_norm(name)),
            Piece::EvoNorm => {
                let groups = if extent.channels.is_multiple_of(2) { 2 } else { 1 };
                specs.push(Spec::EvoNorm { name, groups, epsilon: 1e-5 });
            }
            Piece::Relu => specs.push(activation.clone()),
            Piece::Tanh => specs.push(Spec::Tanh),
            Piece::MaxPool | Piece::MeanPool if extent.height < 2 || extent.width < 2 => {}
            Piece::MaxPool | Piece::MeanPool => {
                let maximum = matches!(piece, Piece::MaxPool) && !smooth;
                let shape = Shape::square(2, 1, 0);
                specs.push(if maximum { Spec::MaxPool(shape) } else { Spec::MeanPool(shape) });
                extent = Extent::new(extent.channels, extent.height - 1, extent.width - 1);
            }
            Piece::Residual { normalised } => {
                let mut body = vec![inner("conv1", extent.channels, 1)];
                if normalised {
                    body.push(Spec::batch_norm("bn1"));
                }
                body.extend([activation.clone(), inner("conv2", extent.channels, 1)]);
                specs.push(Spec::residual(name, body, ShortcutSpec::Identity));
            }
            Piece::Subsampled { channels } => {
                let body = vec![inner("conv1", extent.channels + channels, 2)];
                specs.push(Spec::residual(name, body, ShortcutSpec::Subsample { stride: 2 }));
                extent = Extent::new(extent.channels + channels, extent.height.div_ceil(2), extent.width.div_ceil(2));
            }
            Piece::Projected { outputs } => {
                let body = vec![inner("conv1", outputs, 1), Spec::Tanh];
                let projection = vec![Spec::plain_convolution("conv2", outputs, Shape::square(1, 1, 0))];
                specs.push(Spec::residual(name, body, ShortcutSpec::Projection(projection)));
                extent.channels = outputs;
            }
        }
    }
    match tail {
        Tail::Dense => specs.push(Spec::Flatten),
        Tail::Hidden(outputs) => specs.extend([Spec::Flatten, Spec::dense("hidden", outputs), Spec::Tanh]),
        Tail::GlobalMean => specs.push(Spec::GlobalMeanPool),
    }
    specs.push(Spec::dense("last", classes));
    specs
}

/// The same batch for ever.
struct Same<S> {
    x: Vec<S>,
    labels: Vec<u32>,
}

impl<S: Scalar> Batches<S> for Same<S> {
    fn fill(&mut self, x: &mut [S], labels: &mut [u32]) {
        x.copy_from_slice(&self.x);
        labels.copy_from_slice(&self.labels);
    }
}

impl Step {
    fn inputs<S: Scalar>(&self) -> Vec<S> {
        self.x.iter().map(|&x| S::of(x)).collect()
    }

    /// The network with parameters that are neither exactly 0 nor 1, where rounding decides the sign of a ReLU's input.
    fn network<B: Backend>(&self, backend: &mut B) -> Network<B> {
        let built = Network::build(backend, self.input, &self.specs, self.labels.len());
        let mut network = built.unwrap_or_else(|error| panic!("the pieces fit: {error}"));
        network.initialise(backend, self.seed, Initialisation::Uniform).expect("memory");
        let mut parameters = backend.fetch(&network.parameters, 0..network.parameters_len()).expect("memory");
        let mut random = self.seed.derive("disturbance", 0).random();
        for parameter in network.table() {
            for value in &mut parameters[parameter.region.offset..parameter.region.end()] {
                *value += B::Scalar::of(0.1 * random.normal());
            }
        }
        backend.upload(&parameters, &mut network.parameters, 0).expect("memory");
        network
    }

    /// Everything a step leaves behind, by name.
    fn run<B>(&self, mut backend: B) -> [(&'static str, Vec<f64>); 4]
    where
        B: Backend<Download: Send, Verdict: Send> + Send,
    {
        let network = self.network(&mut backend);
        let (len, running) = (network.parameters_len(), network.running_len());
        let wide = |values: Vec<B::Scalar>| values.into_iter().map(Scalar::wide).collect::<Vec<f64>>();
        let before = wide(backend.fetch(&network.parameters, 0..len).expect("memory"));
        let Self { form, fisher, low_rank, .. } = *self;
        let options = Options { form, fisher, low_rank, ..Options::default() };
        let kfac = Kronecker::new(&mut backend, network.blocks(), network.statistics_len(), len, options);
        let momentum = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
        let sgd = Sgd::new(&mut backend, len, &[], momentum).expect("memory");
        let batches = Same { x: self.inputs(), labels: self.labels.clone() };
        let options = TrainerOptions { smoothing: SMOOTHING, ..TrainerOptions::new(self.labels.len(), 0.1) };
        let (kfac, sgd, batches) = (Box::new(kfac.expect("memory")), Box::new(sgd), Box::new(batches));
        let mut trainer = Trainer::new(backend, network, kfac, sgd, batches, options).expect("memory");
        let loss = trainer.step().expect("a finite loss").loss;
        let (backend, network) = trainer.parts();
        let after = wide(backend.fetch(&network.parameters, 0..len).expect("memory"));
        [
            ("loss", vec![loss]),
            ("gradient", wide(backend.fetch(&network.gradient, 0..len).expect("memory"))),
            ("running statistics", wide(backend.fetch(&network.running, 0..running).expect("memory"))),
            ("change of the parameters", after.iter().zip(before).map(|(after, before)| after - before).collect()),
        ]
    }
}
