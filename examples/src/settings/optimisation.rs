//! The base optimiser and its learning rate.

use clap::{Args, ValueEnum};
use kronfleet_core::optimiser::WeightDecay;
use kronfleet_core::schedule::{Plateau, Schedule, Shape, WarmUp};

/// The base optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Optimiser {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam; with --decoupled it is AdamW.
    Adam,
}

/// How the learning rate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScheduleKind {
    /// It stays.
    Constant,
    /// A tenth after each of 35 %, 75 % and 90 % of the iterations.
    Step,
    /// Half a cosine down to 0.
    Cosine,
    /// Half whenever the loss stops falling.
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
    /// Iterations in which the learning rate rises from 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub warm_up: u64,
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
                Shape::Step { at: [35, 75, 90].map(|percent| iterations * percent / 100).to_vec(), factor: 0.1 }
            }
            ScheduleKind::Cosine => Shape::Cosine { steps: iterations, last: 0.0 },
            ScheduleKind::Plateau => Shape::Plateau(Plateau::new(0.5, 20, 1e-3)),
        };
        let mut schedule = Schedule::new(self.learning_rate, shape);
        schedule.warm_up = (self.warm_up > 0).then_some(WarmUp { steps: self.warm_up, from: 0.0 });
        schedule
    }
}
