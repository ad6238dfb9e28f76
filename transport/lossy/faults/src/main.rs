//! Fault schedules from the command line: run many, replay one, see what a seed draws.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use kronfleet_faults::draw;
use kronfleet_faults::play::{Failure, Options, bound, play_caught};
use kronfleet_faults::schedule::Schedule;
use kronfleet_faults::shrink::shrink;
use kronfleet_faults::sweep::{Sweep, sweep};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Simulated fleets under fault schedules: every invariant is checked in every run.
#[derive(Parser)]
#[command(version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the schedules of many seeds; what fails is shrunk, printed and written down.
    Run(Run),
    /// Runs one schedule from its file.
    Replay {
        /// The schedule.
        file: PathBuf,
        /// Print every record of every node.
        #[arg(long)]
        verbose: bool,
        /// Make it as small as it gets, if it fails.
        #[arg(long)]
        shrink: bool,
    },
    /// Makes every deliberate mistake in turn and prints how soon it is noticed, as a table.
    #[cfg(feature = "mutants")]
    Mutants {
        /// How many seeds to try at most.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// Only those whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Prints the schedule of a seed.
    Draw {
        /// The seed.
        seed: u64,
    },
}

#[derive(Args)]
struct Run {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Where schedules that fail are written to.
    #[arg(long, default_value = "target/faults")]
    output: PathBuf,
    /// Failures after which the run ends.
    #[arg(long, default_value_t = 5)]
    failures: usize,
    /// Runs spent on shrinking a failure; 0 writes it as it is.
    #[arg(long, default_value_t = 2000)]
    shrinking: u32,
    /// No progress bar.
    #[arg(long)]
    quiet: bool,
}

fn main() -> Result<()> {
    match Program::parse().command {
        Command::Run(run) => run.go(),
        Command::Replay { file, verbose, shrink } => replay(&file, verbose, shrink),
        #[cfg(feature = "mutants")]
        Command::Mutants { seeds, only } => {
            println!("| mutant | what it does | noticed by | seeds | bound |\n|---|---|---|---|---|");
            let all = kronfleet_core::mutant::Mutant::ALL.iter().filter(|mutant| !mutant.is_of_shared_steps());
            for &mutant in all.filter(|mutant| format!("{mutant:?}").contains(&only)) {
                println!("{}", kronfleet_faults::mutants::hunt(mutant, seeds));
            }
            Ok(())
        }
        Command::Draw { seed } => {
            print!("{}", draw(seed));
            Ok(())
        }
    }
}

impl Run {
    fn go(&self) -> Result<()> {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} schedules, {per_sec}, {eta} left {msg}")?;
        let bar = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new(self.seeds).with_style(style) };
        let begun = Instant::now();
        let Sweep { total, runs, failures, slowest, fullest } =
            sweep(self.from..self.from + self.seeds, self.failures, |failed| {
                bar.inc(1);
                if failed > 0 {
                    bar.set_message(format!("({failed} failed)"));
                }
            });
        bar.finish_and_clear();
        let seconds = begun.elapsed().as_secs_f64();
        println!("{runs} schedules in {seconds:.1} s, {:.0} a second", runs as f64 / seconds);
        println!("{total}");
        println!(
            "slowest recovery {slowest:?} after the last fault; at most {:.0} % of memory in use",
            100.0 * fullest
        );
        if failures.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&self.output).with_context(|| format!("cannot make {}", self.output.display()))?;
        for (seed, failure) in &failures {
            let file = self.output.join(format!("seed-{seed}.toml"));
            println!("\nseed {seed}: {failure}");
            report(draw(*seed), failure, self.shrinking, &file)?;
        }
        bail!("{} of {runs} schedules broke something", failures.len());
    }
}

/// Shrinks a failing schedule, prints it and writes it down.
fn report(schedule: Schedule, failure: &Failure, runs: u32, file: &Path) -> Result<()> {
    let (mut smallest, failure) = if runs > 0 {
        // Panics of candidates say nothing new.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let shrunk = shrink(&schedule, failure, runs);
        std::panic::set_hook(hook);
        shrunk
    } else {
        (schedule, failure.clone())
    };
    smallest.note = format!("{}: {}", failure.law, failure.what.lines().next().unwrap_or_default());
    fs::write(file, smallest.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    println!("smallest: {} faults, {} nodes:", smallest.faults.len(), smallest.run.nodes);
    println!("{smallest}");
    println!("{failure}");
    println!("again: cargo run --release -p kronfleet-faults -- replay {}", file.display());
    Ok(())
}

fn replay(file: &Path, verbose: bool, shrinks: bool) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let schedule: Schedule = text.parse().with_context(|| format!("{} is no schedule", file.display()))?;
    let begun = Instant::now();
    match play_caught(&schedule, Options { twice: true, verbose }) {
        Ok(outcome) => {
            println!("nothing is broken: {}", outcome.summary);
            println!(
                "calm since {}, recovered after {:?} (bound {:?}), over at {}, trace {}, {:.3} s for two runs",
                schedule.calm(),
                outcome.recovered,
                bound(&schedule),
                outcome.ended,
                outcome.hash,
                begun.elapsed().as_secs_f64()
            );
            Ok(())
        }
        Err(failure) => {
            if shrinks {
                report(schedule, &failure, 5000, &file.with_extension("small.toml"))?;
            }
            bail!("{failure}");
        }
    }
}
