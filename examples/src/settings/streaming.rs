//! How parts of models take turns.

use super::outer::{OuterKind, OuterSettings};
use anyhow::{Result, bail};
use clap::Args;
use kronfleet_core::policy::StreamingOptions;

/// How parts of models take turns.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Averaging")]
pub struct StreamingSettings {
    /// Parts of the model, one of which is averaged every --interval / N iterations (--policy streaming)
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub fragments: u32,
    /// Steps from sending a part to taking in what was made of it, less than --interval / --fragments
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub fragment_delay: u64,
    /// What a node's own values count then; the rest is the average's
    #[arg(long, default_value = "0.5", value_name = "SHARE", value_parser = super::fraction)]
    pub fragment_share: f64,
}

impl StreamingSettings {
    /// What they ask for, with averages of each part every so many iterations.
    ///
    /// # Errors
    /// If turns are too short, or averages cannot be stepped part by part.
    pub fn options(&self, interval: u64, outer: &OuterSettings) -> Result<StreamingOptions> {
        let Self { fragments, fragment_delay: delay, fragment_share: share } = *self;
        let chosen = match outer.outer_optimiser {
            OuterKind::None => OuterKind::Diloco,
            OuterKind::Fedadam => {
                bail!(
                    "--policy streaming steps parts of models with momentum: choose --outer-optimiser diloco or fedavgm"
                )
            }
            chosen => chosen,
        };
        let options = StreamingOptions::new(interval, fragments, delay);
        if options.period() == 0 {
            bail!(
                "--fragments {fragments} cannot take turns within --interval {interval}: choose an interval of {fragments} \
                 or more, or fewer fragments"
            );
        }
        if delay >= options.period() {
            bail!(
                "--fragment-delay {delay}: the next part has its turn {} iterations after each (--interval {interval} / \
                 --fragments {fragments}); choose a shorter delay, a longer interval or fewer fragments",
                options.period()
            );
        }
        let outer = OuterSettings { outer_optimiser: chosen, ..outer.clone() };
        let Some(outer) = outer.optimiser() else { unreachable!("one is chosen") };
        Ok(StreamingOptions { share, outer, ..options })
    }
}
