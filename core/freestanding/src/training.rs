//! A small network on points around one centre per class.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use kronfleet_core::backend::Extent;
use kronfleet_core::network::{Initialisation, Network, Shape, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::preconditioner::{Form, Kronecker, Options};
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use kronfleet_nalgebra::Nalgebra;

const INPUT: Extent = Extent::new(2, 5, 5);
const CLASSES: usize = 4;
const BATCH: usize = 32;
const STEPS: usize = 30;

/// The first and the last loss of K-FAC in this form.
pub(crate) fn train(form: Form) -> Result<(f64, f64), String> {
    let mut backend = Nalgebra::<f32>::new();
    let specs = [
        Spec::convolution("filters", 4, Shape::square(3, 1, 1)),
        Spec::Relu,
        Spec::Flatten,
        Spec::dense("hidden", 16),
        Spec::Tanh,
        Spec::dense("answer", CLASSES),
    ];
    let text = |error: &dyn core::fmt::Display| error.to_string();
    let mut network = Network::build(&mut backend, INPUT, &specs, BATCH).map_err(|error| text(&error))?;
    network.initialise(&mut backend, Seed(1), Initialisation::Uniform).map_err(|error| text(&error))?;
    let parameters = network.parameters_len();
    let options = Options { form, inverse_period: 5, ..Options::default() };
    let kfac = Kronecker::new(&mut backend, network.blocks(), network.statistics_len(), parameters, options)
        .map_err(|error| text(&error))?;
    let momentum = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
    let sgd = Sgd::new(&mut backend, parameters, &[], momentum).map_err(|error| text(&error))?;
    let (kfac, sgd, cloud) = (Box::new(kfac), Box::new(sgd), Box::new(Cloud(0)));
    let options = TrainerOptions::new(BATCH, 0.1);
    let mut trainer = Trainer::new(backend, network, kfac, sgd, cloud, options).map_err(|error| text(&error))?;
    let first = trainer.step().map_err(|error| text(&error))?.loss;
    for _ in 1..STEPS {
        trainer.step().map_err(|error| text(&error))?;
    }
    let last = trainer.settle().map_err(|error| text(&error))?.loss;
    Ok((first, last))
}

/// Normal points around a centre for each class; how many were drawn.
struct Cloud(u64);

impl Batches<f32> for Cloud {
    fn fill(&mut self, x: &mut [f32], labels: &mut [u32]) {
        for (x, label) in x.chunks_exact_mut(INPUT.len()).zip(labels) {
            let mut random = Seed(2).derive("example", self.0).random();
            self.0 += 1;
            let class = random.below(CLASSES as u64);
            let mut centre = Seed(3).derive("centre", class).random();
            x.iter_mut().for_each(|x| *x = (centre.normal() + 0.7 * random.normal()) as f32);
            *label = class as u32;
        }
    }
}
