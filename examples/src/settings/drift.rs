//! What keeps nodes together while they train apart.

use clap::Args;

/// What keeps nodes together while they train apart.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Averaging")]
pub struct DriftSettings {
    /// Pull every step back towards the model that was last taken over from others: to each gradient, MU times the way gone
    /// since then is added (FedProx; published: 0.001 to 1)
    #[arg(long, default_value = "0", value_name = "MU", value_parser = super::not_negative)]
    pub prox: f64,
    /// Correct each gradient by what the mean gradient of all nodes differs from the node's own, as far as averages have told
    /// (SCAFFOLD); twice the values are averaged
    #[arg(long)]
    pub scaffold: bool,
}
