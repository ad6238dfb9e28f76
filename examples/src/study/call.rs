//! How a study is asked for.

use super::command::Settings;
use super::page::Figures;
use crate::data::source::Source;
use crate::sweep::{self, SweepSettings, Swept};
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What settings of a quick run of a grid are at most.
const QUICK: [&str; 4] = ["iterations=60", "batch=8", "evaluate-every=20", "evaluate-own-every=60"];

/// How a study is asked for.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Its name.
    pub name: &'a str,
    /// What the user wants.
    pub settings: &'a Settings,
    /// Where it keeps what it has done.
    pub output: PathBuf,
    /// Raised when the user wants to stop.
    pub stop: &'a Arc<AtomicBool>,
}

impl Call<'_> {
    /// Runs a grid by its name, as far as that has not been done; `None` after a dry run.
    ///
    /// `more` are settings of all runs, which the user's win over.
    ///
    /// # Errors
    /// If the grid or a setting is wrong, the folder cannot be written, the user stopped it, or no run is done: a page whose
    /// figures are those of an earlier time is better than one without.
    pub fn sweep(&self, grid: &str, more: &[String]) -> Result<Option<Swept>> {
        let Settings { seeds, set, only, quick, dry_run, finished, jobs, .. } = self.settings;
        let mut words = vec!["reproduce".to_owned(), grid.to_owned(), "--quiet".to_owned()];
        words.extend(more.iter().map(|set| format!("--set={set}")));
        if *quick {
            words.extend(QUICK.map(|most| format!("--at-most={most}")));
            words.extend(seeds.is_empty().then(|| "--seeds=1".to_owned()));
        }
        words.extend([format!("--output={}", self.output.display()), format!("--jobs={jobs}")]);
        words.extend(set.iter().map(|set| format!("--set={set}")));
        words.extend(only.iter().map(|only| format!("--only={only}")));
        words.extend(seeds.iter().map(|seed| format!("--seeds={seed}")));
        words.extend(dry_run.then(|| "--dry-run".to_owned()));
        words.extend(finished.then(|| "--finished".to_owned()));
        let swept = sweep::sweep(&SweepSettings::try_parse_from(&words)?, self.stop)?;
        if let Some(swept) = &swept
            && swept.outcomes()?.iter().all(|outcome| outcome.failure.is_some())
        {
            bail!(
                "none of its runs is done in {}: there is nothing to make a page of; leave out --finished, or say where they \
                 are with --output{}",
                swept.folder.path().display(),
                swept.missing()?
            );
        }
        Ok(swept)
    }

    /// Runs a grid and shows its tables and plots as they are.
    ///
    /// # Errors
    /// As [`sweep`](Self::sweep).
    pub fn tables(&self, grid: &str) -> Result<Option<Figures>> {
        let Some(swept) = self.sweep(grid, &[])? else { return Ok(None) };
        let Swept { grid, ledger, folder } = &swept;
        let summary = sweep::Summary::new(grid, ledger)?;
        let mut plots = Vec::new();
        let mut text = summary.to_string();
        for group in &grid.groups {
            let name = format!("{}.svg", group.name);
            let path = folder.path().join(&name);
            let svg = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            // Pages of several studies lie side by side.
            let own = format!("{}-{name}", self.name);
            text = text.replace(&format!("({name})"), &format!("({own})"));
            plots.push((own, svg));
        }
        Ok(Some(Figures { text: text + &effort(&swept)?, plots }))
    }
}

/// The data that runs had.
fn data(swept: &Swept) -> Result<String> {
    let names = swept.grid.runs()?.iter().map(|run| Ok(run.job()?.task.data)).collect::<Result<Vec<Source>>>()?;
    let name = |source: &Source| match source {
        Source::Embedded => "the embedded 10,000 images of Fashion-MNIST".to_owned(),
        Source::FashionMnist => "the whole of Fashion-MNIST".to_owned(),
        Source::Directory(folder) => folder.display().to_string(),
    };
    let names: BTreeSet<String> = names.iter().map(name).collect();
    Ok(names.into_iter().collect::<Vec<_>>().join("; "))
}

/// The data, the machine, and the time that all runs took.
pub(super) fn effort(swept: &Swept) -> Result<String> {
    let outcomes = swept.outcomes()?;
    let minutes = outcomes.iter().fold(0.0, |sum, outcome| sum + outcome.seconds) / 60.0;
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("an unknown processor", |rest| rest.trim_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!(
        "\nData: {}. {} runs of one thread each, {minutes:.0} minutes by the clock in sum, on {cores} cores of {model}.\n",
        data(swept)?,
        outcomes.len()
    ))
}
