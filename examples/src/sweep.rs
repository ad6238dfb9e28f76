//! Grids of runs: `lossy sweep`.
//!
//! # For users
//! A [`Grid`] is a small TOML file: seeds, settings that all runs share, named methods, and groups of settings that are
//! varied and crossed. Every setting is a flag of `lossy`. Runs with equal seed, number of nodes, offline fraction,
//! longest outage and cap have the same outages, whatever else differs.
//!
//! Results are kept in `runs.csv` of the sweep's folder, which is written anew, to the side, after every run: a sweep
//! that was stopped goes on where it was. Two at once in one folder would overwrite what the other has written: the second is
//! refused. Runs are known again by their settings and seed, and by what is in files of networks and graphs that they name. Tables and heat maps are made from that file alone.
//!
//! # For implementers
//! Runs are independent and single-threaded; as many go on at once as there are cores.

mod build;
mod cell;
mod claim;
mod conduct;
mod estimate;
mod files;
mod grid;
mod ledger;
mod settings;
mod statistics;
mod summary;

pub(crate) use build::build;
pub use cell::Cell;
pub use estimate::step;
pub use grid::{Grid, Group, Run};
pub use ledger::{Ledger, Outcome};
pub use settings::SweepSettings;
pub use statistics::Spread;
pub use summary::Summary;

use crate::report::Folder;
use anyhow::{Result, bail};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A sweep that is done: its grid and what every run gave.
#[derive(Clone, Debug)]
pub struct Swept {
    /// What was run.
    pub grid: Grid,
    /// What came out.
    pub ledger: Ledger,
    /// Where it is kept.
    pub folder: Folder,
}

impl Swept {
    /// What came out of a group, by its name; nothing if there is no such group.
    ///
    /// # Errors
    /// If the group cannot be read.
    pub fn cells(&self, group: &str) -> Result<Vec<Cell>> {
        let group = self.grid.groups.iter().find(|candidate| candidate.name == group);
        group.map_or(Ok(Vec::new()), |group| Cell::all(&self.grid, group, &self.ledger))
    }

    /// The outcomes of its runs.
    ///
    /// # Errors
    /// If the grid cannot be read.
    pub fn outcomes(&self) -> Result<Vec<&Outcome>> {
        Ok(self.grid.runs()?.iter().filter_map(|run| self.ledger.find(run)).collect())
    }

    /// How many runs are missing, and which have failed, a paragraph each.
    ///
    /// # Errors
    /// If the grid cannot be read.
    pub fn missing(&self) -> Result<String> {
        let runs = self.grid.runs()?;
        let missing = runs.iter().filter(|run| self.ledger.find(run).is_none()).count();
        let mut text = String::new();
        if missing > 0 {
            let _ = writeln!(text, "\n{missing} of {} runs have not been made yet.", runs.len());
        }
        for run in &runs {
            if let Some(Outcome { failure: Some(failure), .. }) = self.ledger.find(run) {
                let _ = writeln!(text, "\nThe run of seed {} {} failed: {failure}", run.seed, run.name());
            }
        }
        Ok(text)
    }
}

/// Runs what a sweep's folder does not hold yet, and writes its tables and plots; `None` after a dry run.
///
/// # Errors
/// If the grid or a setting in it is wrong, which is found out before anything runs; or the folder cannot be written, or
/// another sweep is at work in it. A run that fails is a line of the result.
pub fn sweep(settings: &SweepSettings, stop: &Arc<AtomicBool>) -> Result<Option<Swept>> {
    let (name, grid) = settings.grid()?;
    let runs = grid.runs()?;
    let output = settings.output.clone().unwrap_or_else(|| PathBuf::from("runs").join(format!("sweep-{name}")));
    let folder = Folder::create(Some(&output), "sweep")?;
    // What is only looked at may change meanwhile.
    let claim = (!settings.dry_run && !settings.finished).then(|| claim::claim(&folder)).transpose()?;
    let mut ledger = Ledger::open(&folder)?;
    for caution in grid::cautions(&runs)? {
        eprintln!("note: {caution}");
    }
    // One that failed is tried again: its cause may be gone.
    let is_done = |run: &&Run| ledger.find(run).is_some_and(|outcome| outcome.failure.is_none());
    let todo: Vec<Run> = runs.iter().filter(|run| !is_done(run)).cloned().collect();
    println!("{name}: {} runs, {} of them done, in {}", runs.len(), runs.len() - todo.len(), folder.path().display());
    if !todo.is_empty() && !settings.finished {
        files::check(&todo)?;
        let jobs = settings.jobs();
        let costs = estimate::costs(&todo)?;
        println!(
            "{}",
            estimate::announce(&costs, jobs, todo.iter().any(|run| run.settings.contains_key("stop-at-accuracy")))
        );
        if settings.dry_run {
            for run in &todo {
                println!("  seed {} {}", run.seed, run.name());
            }
            return Ok(None);
        }
        conduct::conduct(&todo, &costs, jobs, &mut ledger, &folder, stop)?;
    }
    drop(claim);
    let summary = Summary::new(&grid, &ledger)?;
    summary.write(&folder)?;
    if !settings.quiet {
        println!("{summary}");
    }
    println!("report: {}", folder.path().join("report.md").display());
    if stop.load(Ordering::Relaxed) {
        let left = runs.iter().filter(|run| ledger.find(run).is_none()).count();
        bail!("stopped with {left} runs left; the same command goes on with them");
    }
    Ok(if settings.dry_run { None } else { Some(Swept { grid, ledger, folder }) })
}
