//! The base optimiser and its learning rate.

use clap::{Args, ValueEnum};
use kronfleet_core::optimiser::WeightDecay;
use kronfleet_core::schedule::{Plateau, Schedule, Shape, WarmUp};

/// The base optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Optimiser {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// The same with momentum of where the model has gone, what neighbours have made of it included, instead of its own
    /// gradients (quasi-global momentum): for nodes that gossip with different data.
    QuasiGlobal,
    /// Adam; with --decoupled it is AdamW.
    Adam,
}

/// How the learning rate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScheduleKind {
    /// It stays.
    Constant,
    /// A fraction of it at each of some iterations.
    Step,
    /// Half a cosine down to 0.
    Cosine,
    /// A fraction of it whenever the loss stops falling.
    Plateau,
}

/// The base optimiser and its learning rate.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Optimiser")]
pub struct OptimiserSettings {
    /// The base optimiser
    #[arg(long, value_enum, default_value_t = Optimiser::Sgd)]
    pub optimiser: Optimiser,
    /// Learning rate η
    #[arg(long, default_value = "0.05", value_name = "ETA", value_parser = super::positive)]
    pub learning_rate: f64,
    /// Momentum (Adam: β₁)
    #[arg(long, default_value = "0.9", value_name = "MU", value_parser = super::fraction)]
    pub momentum: f64,
    /// Adam's β₂, the weight of the old second moment
    #[arg(long, default_value = "0.999", value_name = "SHARE", value_parser = super::fraction)]
    pub beta2: f64,
    /// Adam's ε, added to the root of the second moment
    #[arg(long, default_value = "1e-8", value_name = "EPSILON", value_parser = super::positive)]
    pub epsilon: f64,
    /// Nesterov's form of momentum
    #[arg(long)]
    pub nesterov: bool,
    /// Weight decay
    #[arg(long, default_value = "0", value_name = "RATE", value_parser = super::not_negative)]
    pub weight_decay: f64,
    /// Apply weight decay to the weights directly, not through the gradient
    #[arg(long)]
    pub decoupled: bool,
    /// How the learning rate changes
    #[arg(long, value_enum, default_value_t = ScheduleKind::Cosine)]
    pub schedule: ScheduleKind,
    /// Iterations at which a stepped learning rate falls [default: 35 %, 75 % and 90 % of all]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub milestones: Vec<u64>,
    /// What a stepped learning rate is multiplied with at each milestone
    #[arg(long, default_value = "0.1", value_name = "FACTOR", value_parser = super::positive)]
    pub step_factor: f64,
    /// The fraction of the learning rate that a cosine ends with
    #[arg(long, default_value = "0", value_name = "SHARE", value_parser = super::fraction)]
    pub cosine_last: f64,
    /// What the learning rate is multiplied with at a plateau
    #[arg(long, default_value = "0.5", value_name = "FACTOR", value_parser = super::positive)]
    pub plateau_factor: f64,
    /// A plateau is so many means over 10 iterations in a row that are no better than the best
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub plateau_patience: u32,
    /// What counts as better than the best loss: less by this share of it
    #[arg(long, default_value = "0.001", value_name = "SHARE", value_parser = super::fraction)]
    pub plateau_tolerance: f64,
    /// Iterations in which the learning rate rises
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub warm_up: u64,
    /// The fraction of the learning rate that a warm-up begins with
    #[arg(long, default_value = "0", value_name = "SHARE", value_parser = super::fraction)]
    pub warm_up_from: f64,
}

impl OptimiserSettings {
    /// How weights are pulled towards 0.
    pub fn decay(&self) -> WeightDecay {
        match (self.weight_decay, self.decoupled) {
            (0.0, _) => WeightDecay::None,
            (rate, false) => WeightDecay::Coupled(rate),
            (rate, true) => WeightDecay::Decoupled(rate),
        }
    }

    /// The learning rate over a run of so many iterations.
    pub fn rate(&self, iterations: u64) -> Schedule {
        let shape = match self.schedule {
            ScheduleKind::Constant => Shape::Constant,
            ScheduleKind::Step => {
                let at = match self.milestones.as_slice() {
                    [] => [35, 75, 90].map(|percent| iterations * percent / 100).to_vec(),
                    given => given.to_vec(),
                };
                Shape::Step { at, factor: self.step_factor }
            }
            ScheduleKind::Cosine => Shape::Cosine { steps: iterations, last: self.cosine_last },
            ScheduleKind::Plateau => {
                Shape::Plateau(Plateau::new(self.plateau_factor, self.plateau_patience, self.plateau_tolerance))
            }
        };
        let mut schedule = Schedule::new(self.learning_rate, shape);
        schedule.warm_up = (self.warm_up > 0).then_some(WarmUp { steps: self.warm_up, from: self.warm_up_from });
        schedule
    }
}
