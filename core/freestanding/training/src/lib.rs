//! A small network on points around one centre per class, trained the same on every machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::{Debug, Display};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::network::{Initialisation, Network, Shape, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::preconditioner::{Form, Identity, Kronecker, Options, Preconditioner};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};

const INPUT: Extent = Extent::new(2, 5, 5);
const CLASSES: usize = 4;

/// Samples of a step.
pub const BATCH: usize = 32;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Two dense layers.
    Dense,
    /// A convolution and two dense layers.
    Convolutional,
}

/// How its gradients are preconditioned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Not at all: stochastic gradient descent with the same momentum.
    Plain,
    /// K-FAC, refreshed every five steps.
    Kfac(Form),
}

impl Model {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dense, Self::Convolutional];

    /// One word, for a line of output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Convolutional => "convolutional",
        }
    }

    fn specs(self) -> Vec<Spec> {
        let mut specs = match self {
            Self::Dense => vec![],
            Self::Convolutional => vec![Spec::convolution("filters", 4, Shape::square(3, 1, 1)), Spec::Relu],
        };
        specs.extend([Spec::Flatten, Spec::dense("hidden", 16), Spec::Tanh, Spec::dense("answer", CLASSES)]);
        specs
    }
}

impl Method {
    /// K-FAC in both forms with fixed eigenvalues: EKFAC learns a second moment for every direction of eigenspaces that
    /// a small batch leaves undetermined, so rounding alone moves it far.
    pub const KFAC: [Self; 2] = [Self::Kfac(Form::Inverse), Self::Kfac(Form::Eigen)];

    /// One word, for a line of output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Kfac(Form::Inverse) => "inverse",
            Self::Kfac(Form::Eigen) => "eigen",
            Self::Kfac(Form::Ekfac) => "ekfac",
        }
    }
}

/// The loss of every step; what went wrong, in words.
///
/// # Errors
/// If memory runs out or the training diverges.
pub fn train<B: Backend<Buffer: Send, Download: Send, Verdict: Send> + Send + 'static>(
    mut backend: B,
    model: Model,
    method: Method,
    steps: usize,
) -> Result<Vec<f64>, String> {
    let mut network = Network::build(&mut backend, INPUT, &model.specs(), BATCH).map_err(words)?;
    network.initialise(&mut backend, Seed(1), Initialisation::Uniform).map_err(words)?;
    let parameters = network.parameters_len();
    let preconditioner: Box<dyn Preconditioner<B>> = match method {
        Method::Plain => Box::new(Identity::default()),
        Method::Kfac(form) => {
            let options = Options { form, inverse_period: 5, ..Options::default() };
            let (blocks, statistics) = (network.blocks(), network.statistics_len());
            Box::new(Kronecker::new(&mut backend, blocks, statistics, parameters, options).map_err(words)?)
        }
    };
    let momentum = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
    let sgd = Box::new(Sgd::new(&mut backend, parameters, &[], momentum).map_err(words)?);
    let options = TrainerOptions::new(BATCH, 0.1);
    let cloud = Box::new(Cloud(0));
    let mut trainer = Trainer::new(backend, network, preconditioner, sgd, cloud, options).map_err(words)?;
    let mut losses = Vec::with_capacity(steps);
    for _ in 0..steps {
        trainer.step().map_err(words)?;
        losses.push(trainer.settle().map_err(words)?.loss);
    }
    Ok(losses)
}

fn words(error: impl Display) -> String {
    error.to_string()
}

/// Normal points around a centre for each class; how many were drawn.
struct Cloud(u64);

impl<S: Scalar> Batches<S> for Cloud {
    fn fill(&mut self, x: &mut [S], labels: &mut [u32]) {
        for (x, label) in x.chunks_exact_mut(INPUT.len()).zip(labels) {
            let mut random = Seed(2).derive("example", self.0).random();
            self.0 += 1;
            let class = random.below(CLASSES as u64);
            let mut centre = Seed(3).derive("centre", class).random();
            // In single precision, so that a machine that computes in double precision sees the same points.
            x.iter_mut().for_each(|x| *x = S::of(f64::from((centre.normal() + 0.7 * random.normal()) as f32)));
            *label = class as u32;
        }
    }
}
