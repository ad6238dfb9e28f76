//! Trainers on random data, for measuring how long a step takes and what it allocates.

use crate::model::Model;
use kronfleet_core::backend::Backend;
use kronfleet_core::layer::Block;
use kronfleet_core::network::{Initialisation, Network};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::preconditioner::{Form, Identity, Kronecker, Member, Options, Preconditioner};
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use kronfleet_faer::Faer;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The network.
    pub model: Model,
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
    /// Rows of a factor that is not taken for block-diagonal, at most; 0 for any.
    pub split_factors: usize,
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
    build(Faer::new(workload.threads), workload, None)
}

/// The same on any backend; the workload's threads have no effect on one that has none.
///
/// # Errors
/// If the network cannot be built, or the device fails.
pub fn trainer_on<B>(backend: B, workload: &Workload) -> anyhow::Result<Trainer<B>>
where
    B: Backend<Scalar = f32, Verdict: Send, Download: Send> + Send,
{
    build(backend, workload, None)
}

/// One of several members that share every step of a workload with curvature, each with a batch of its own; `member` joins
/// it to the others when its blocks are known.
///
/// # Errors
/// If the network cannot be built, or `member` fails.
pub fn shared_trainer(workload: &Workload, member: &mut Joining<'_>) -> anyhow::Result<Trainer<Faer<f32>>> {
    build(Faer::new(workload.threads), workload, Some(member))
}

/// Makes a member of those who have these blocks.
pub type Joining<'a> = dyn FnMut(&[Block]) -> anyhow::Result<Member<f32>> + 'a;

fn build<B>(mut backend: B, workload: &Workload, member: Option<&mut Joining<'_>>) -> anyhow::Result<Trainer<B>>
where
    B: Backend<Scalar = f32, Verdict: Send, Download: Send> + Send,
{
    let Workload { model, batch, .. } = workload;
    let mut network = Network::build(&mut backend, model.input, &model.layers, *batch)?;
    network.initialise(&mut backend, Seed(1), Initialisation::Kaiming)?;
    let len = network.parameters_len();
    let preconditioner: Box<dyn Preconditioner<B>> = match workload.curvature {
        None => Box::new(Identity::default()),
        Some(Curvature { form, factor_every, inverse_every, split_factors }) => {
            let options = Options {
                form,
                factor_period: factor_every,
                inverse_period: inverse_every,
                split_factors,
                ..Options::default()
            };
            let (blocks, statistics) = (network.blocks(), network.statistics_len());
            Box::new(match member {
                Some(member) => {
                    let member = member(blocks)?;
                    let overlapped = member.plan.placement().overlapped;
                    let divided = Kronecker::divided(&mut backend, blocks, statistics, len, options, member)?;
                    if overlapped { divided.overlapped() } else { divided }
                }
                None => Kronecker::new(&mut backend, blocks, statistics, len, options)?,
            })
        }
    };
    let options = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
    let optimiser = Box::new(Sgd::new(&mut backend, len, &[], options)?);
    let random = Seed(2).derive("noise", 0).random();
    let noise = Noise { random, classes: network.classes() as u32 };
    let options = TrainerOptions::new(*batch, 0.001);
    Ok(Trainer::new(backend, network, preconditioner, optimiser, Box::new(noise), options)?)
}

/// Operations that the algorithm asks for, per step over a whole period, with every patch written out.
///
/// The yardstick for a step's speed, whoever does it and however; the backend counts what it does, and does less than
/// this where patches share their products or the gradient of a dense layer stays a product of two thin matrices. With `P` positions of a batch,
/// `o` outputs and `c` columns of `[W | b]`, each layer needs
///
/// - `2·o·c·P` for each of forward pass, `dW` and, but for the first layer, `dX`;
/// - `c·(c + 1)·P` and `o·(o + 1)·P` for one triangle of A and G, at every factor update;
/// - `2·o·c·(o + c)` to precondition, twice that in an eigenbasis (there and back);
/// - `n³` for the inverse of a factor of `n` rows by Cholesky, `9·n³` for its eigenvectors, at every refresh, factors being
///   whole.
pub fn algorithm_flops(blocks: &[Block], batch: usize, curvature: Option<Curvature>) -> f64 {
    let per_block = |(index, block): (usize, &Block)| {
        let (outputs, columns) = (block.parameters.rows as f64, block.parameters.columns as f64);
        let positions = (block.positions * batch) as f64;
        let passes = if index == 0 { 2.0 } else { 3.0 };
        let training = passes * 2.0 * outputs * columns * positions;
        let Some(Curvature { form, factor_every, inverse_every, .. }) = curvature else { return training };
        let triangles = (columns * (columns + 1.0) + outputs * (outputs + 1.0)) * positions;
        let (twice, cubes) = if form == Form::Inverse { (1.0, 1.0) } else { (2.0, 9.0) };
        let precondition = twice * 2.0 * outputs * columns * (outputs + columns);
        let refresh = cubes * (outputs.powi(3) + columns.powi(3));
        training + triangles / factor_every as f64 + precondition + refresh / inverse_every as f64
    };
    blocks.iter().enumerate().map(per_block).sum()
}
