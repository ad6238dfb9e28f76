//! What becomes of steps that take too long.

use anyhow::{Result, bail};
use clap::Args;
use kronfleet_core::policy::{Late, Layerwise};
use kronfleet_core::time::Duration;

/// What becomes of steps that take too long.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Averaging")]
pub struct LayerwiseSettings {
    /// How long a step may take (--policy salf): from one average to the contribution to the next
    #[arg(long, default_value = "150ms", value_name = "SPAN", value_parser = super::span)]
    pub deadline: Duration,
    /// What a node contributes that needs longer: layers (the last ones, that its backward pass has reached) or nothing
    #[arg(long, default_value = "layers", value_name = "layers|nothing", value_parser = late)]
    pub late: Late,
    /// Make up for rounds in which nobody contributes a layer by longer steps in the others, so that layers that are often
    /// missing learn as fast in the mean
    #[arg(long)]
    pub unbiased: bool,
}

fn late(text: &str) -> std::result::Result<Late, String> {
    match text {
        "layers" => Ok(Late::Layers),
        "nothing" => Ok(Late::Nothing),
        _ => Err(format!("{text:?} is nothing to contribute when it is late; use layers or nothing")),
    }
}

impl LayerwiseSettings {
    /// What they ask for, where the first who is ready waits so long for others.
    ///
    /// # Errors
    /// If that is not longer than a step may take.
    pub fn policy(&self, waits: Duration) -> Result<Layerwise> {
        let Self { deadline, late, unbiased } = *self;
        if deadline.is_zero() {
            bail!("--deadline 0 leaves no time to train: give some, such as 150ms");
        }
        if deadline >= waits {
            bail!(
                "--deadline {deadline:?}: whoever is ready waits {waits:?} for others, half of --stall-budget, and would go \
                 on without the late ones; choose a --stall-budget of {:?} or more",
                3 * deadline
            );
        }
        let mut policy = Layerwise::new(deadline);
        (policy.late, policy.unbiased) = (late, unbiased);
        Ok(policy)
    }
}
