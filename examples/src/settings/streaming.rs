//! How parts of models take turns.

use super::outer::{OuterKind, OuterSettings};
use anyhow::{Result, bail};
use clap::Args;
use kronfleet_core::policy::StreamingOptions;

/// How parts of models take turns.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Averaging")]
pub struct StreamingSettings {
    /// Parts of the model, one of which is averaged every --interval / N iterations and all after the last (--policy
    /// streaming); the more nodes, the fewer
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
    /// What they ask for, with averages of each part every so many iterations and at most `segments` segments in a
    /// contribution.
    ///
    /// # Errors
    /// If turns are too short, averages cannot be stepped part by part, or there are more parts than rounds can speak of.
    pub fn options(&self, interval: u64, outer: &OuterSettings, segments: usize) -> Result<StreamingOptions> {
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
        // Each part is a segment and so is its momentum; running statistics are one more.
        let most = segments.saturating_sub(1) / 2;
        if fragments as usize > most {
            bail!("--fragments {fragments}: messages about a round of so many --nodes have room for {most} at most");
        }
        let options = StreamingOptions::new(interval, fragments, delay);
        if options.period() == 0 {
            bail!(
                "--fragments {fragments} cannot take turns within --interval {interval}: choose an interval of {fragments} \
                 or more, or fewer fragments"
            );
        }
        let parts = u64::from(fragments);
        if !interval.is_multiple_of(parts) {
            let below = interval - interval % parts;
            bail!(
                "--interval {interval}: each of --fragments {fragments} would have its turn after {below} iterations: choose \
                 {below} or {}",
                below + parts
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

#[cfg(test)]
mod tests {
    use crate::settings::AveragingSettings;
    use clap::Parser as _;
    use kronfleet_core::transport::NodeId;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        averaging: AveragingSettings,
    }

    /// Why nodes cannot take turns with these flags.
    fn refused(flags: &str) -> Option<String> {
        let flags = format!("program --policy streaming {flags}");
        let program = Program::parse_from(flags.split_whitespace());
        program.averaging.policy(NodeId(0)).err().map(|error| error.to_string())
    }

    #[test]
    fn there_are_no_more_parts_than_rounds_can_speak_of() {
        for (nodes, most) in [(8, 6889), (1000, 59)] {
            let with = |parts: u32| {
                refused(&format!("--nodes {nodes} --interval {parts} --fragments {parts} --fragment-delay 0"))
            };
            assert_eq!(with(most), None, "among {nodes}");
            let refusal = with(most + 1);
            assert!(refusal.as_ref().is_some_and(|text| text.contains(&format!(" {most} "))), "{refusal:?}");
        }
    }

    #[test]
    fn turns_come_after_whole_iterations_as_often_as_is_said() {
        let refusal = refused("--interval 10 --fragments 4").expect("turns of two and a half iterations");
        assert!(refusal.contains("after 8 iterations") && refusal.contains("choose 8 or 12"), "{refusal}");
        assert_eq!(refused("--interval 12 --fragments 4"), None);
    }

    #[test]
    fn what_a_majority_keeps_is_a_whole_model() {
        let refusal = refused("--interval 12 --fragments 4 --mode strict").expect("a majority would keep a part");
        assert!(refusal.contains("--mode available"), "{refusal}");
        assert_eq!(refused("--interval 12 --fragments 1 --mode strict"), None);
    }
}
