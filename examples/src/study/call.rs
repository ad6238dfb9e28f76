//! How a study is asked for.

use super::command::Settings;
use super::page::Figures;
use crate::data::source::Source;
use crate::sweep::{self, Outcome, SweepSettings, Swept};
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Runs a grid by its name, or with `--full` the one as published, as far as that has not been done; `None` after a dry run.
    ///
    /// `more` are settings of all runs beside the data that is given; the user's win over them.
    ///
    /// # Errors
    /// If the grid or a setting is wrong, the folder cannot be written, the user stopped it, or no run is done: a page whose
    /// figures are those of an earlier time is better than one without.
    pub fn sweep(&self, grid: &str, more: &[String]) -> Result<Option<Swept>> {
        let Settings { data, full, seeds, set, only, quick, dry_run, finished, jobs, .. } = self.settings;
        let grid = format!("{grid}{}", if *full { "-full" } else { "" });
        let mut words = vec!["reproduce".to_owned(), grid, "--quiet".to_owned()];
        words.extend(data.as_ref().map(|data| format!("--set=data={}", data.display())));
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

/// The data, the machine, the builds, and the time that all runs took.
pub(super) fn effort(swept: &Swept) -> Result<String> {
    let outcomes = swept.outcomes()?;
    Ok(format!(
        "\nData: {}. {} runs of one thread each: {}, on {}. {}\n",
        data(swept)?,
        outcomes.len(),
        minutes(&outcomes),
        machine(),
        builds(&outcomes)
    ))
}

/// What this computes on.
pub(super) fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("an unknown processor", |rest| rest.trim_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {model}")
}

/// Minutes of a processor, and by the clock.
fn minutes(outcomes: &[&Outcome]) -> String {
    let clock = outcomes.iter().map(|outcome| outcome.seconds).sum::<f64>() / 60.0;
    let worked: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.processor_seconds).collect();
    let processor = worked.iter().sum::<f64>() / 60.0;
    match worked.len() {
        0 => format!("{clock:.0} minutes by the clock in sum"),
        all if all == outcomes.len() => {
            format!("{processor:.0} minutes of a processor in sum, {clock:.0} by the clock")
        }
        some => format!("{clock:.0} minutes by the clock in sum, {some} of them {processor:.0} minutes of a processor"),
    }
}

/// Which builds runs were made with, and how many with each.
fn builds(outcomes: &[&Outcome]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(outcome.build.as_deref().unwrap_or("one that did not say")).or_default() += 1;
    }
    let builds: Vec<String> = match counts.len() {
        1 => counts.into_keys().map(String::from).collect(),
        _ => counts.into_iter().map(|(build, count)| format!("{build} ({count})")).collect(),
    };
    format!("Build: {}.", builds.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_builds_are_said_as_far_as_they_are_known() {
        let run = |processor_seconds: Option<f64>, build: Option<&str>| Outcome {
            seconds: 120.0,
            processor_seconds,
            build: build.map(String::from),
            ..Outcome::default()
        };
        let [first, second, old] = [run(Some(60.0), Some("1 a")), run(Some(60.0), Some("1 b+")), run(None, None)];
        assert_eq!(minutes(&[&first, &second]), "2 minutes of a processor in sum, 4 by the clock");
        assert_eq!(minutes(&[&old]), "2 minutes by the clock in sum");
        assert!(minutes(&[&old, &first]).contains("1 of them 1 minutes of a processor"));
        assert_eq!(builds(&[&first, &first]), "Build: 1 a.");
        assert_eq!(builds(&[&second, &first, &old]), "Build: 1 a (1); 1 b+ (1); one that did not say (1).");
    }
}
