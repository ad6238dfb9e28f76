//! Trainers on random data, for measuring how long a step takes and what it allocates.

use crate::model::Model;
use kronfleet_core::network::{Initialisation, Network};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::preconditioner::{Form, Identity, Kronecker, Options, Preconditioner};
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use kronfleet_faer::Faer;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The network.
    pub model: Model,
    /// Number of classes labels are drawn from.
    pub classes: usize,
    /// Samples of a step.
    pub batch: usize,
    /// Threads of the backend.
    pub threads: usize,
    /// Curvature; `None` for plain SGD.
    pub curvature: Option<Curvature>,
}

/// How curvature is used.
#[derive(Clone, Copy, Debug)]
pub struct Curvature {
    /// How the damped curvature is inverted.
    pub form: Form,
    /// Steps between factor updates.
    pub factor_every: u64,
    /// Steps between refreshes of inverses or eigenbases.
    pub inverse_every: u64,
}

/// Random numbers in place of images: only their shape matters for the time.
struct Noise {
    random: Random,
    classes: u32,
}

impl Batches<f32> for Noise {
    fn fill(&mut self, x: &mut [f32], labels: &mut [u32]) {
        // Once is enough: drawing numbers is not what is measured.
        if x.iter().all(|&value| value == 0.0) {
            for value in x.iter_mut() {
                *value = 2.0 * self.random.uniform() as f32 - 1.0;
            }
        }
        for label in labels.iter_mut() {
            *label = self.random.below(u64::from(self.classes)) as u32;
        }
    }
}

/// A trainer for a workload, on noise.
///
/// # Errors
/// If the network cannot be built.
pub fn trainer(workload: &Workload) -> anyhow::Result<Trainer<Faer<f32>>> {
    let Workload { model, batch, .. } = workload;
    let mut backend = Faer::new(workload.threads);
    let mut network = Network::build(&mut backend, model.input, &model.layers, *batch)?;
    network.initialise(&mut backend, Seed(1), Initialisation::Kaiming)?;
    let len = network.parameters_len();
    let preconditioner: Box<dyn Preconditioner<Faer<f32>>> = match workload.curvature {
        None => Box::new(Identity::default()),
        Some(Curvature { form, factor_every, inverse_every }) => {
            let options =
                Options { form, factor_period: factor_every, inverse_period: inverse_every, ..Options::default() };
            Box::new(Kronecker::new(&mut backend, network.blocks(), network.statistics_len(), len, options)?)
        }
    };
    let options = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
    let optimiser = Box::new(Sgd::new(&mut backend, len, &[], options)?);
    let random = Seed(2).derive("noise", 0).random();
    let noise = Noise { random, classes: workload.classes as u32 };
    let options = TrainerOptions::new(*batch, 0.001);
    Ok(Trainer::new(backend, network, preconditioner, optimiser, Box::new(noise), options)?)
}
