//! Which runs a sweep consists of.

use crate::run::Fleet;
use crate::settings::{JobSettings, flags};
use anyhow::{Context, Error, Result, bail};
use clap::Parser;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What stands between the values of a list, where commas have another meaning.
const LIST: &str = ";";

/// The key whose values name [`Grid::methods`].
const METHOD: &str = "method";

/// A grid of runs, as its TOML file has it.
///
/// ```toml
/// seeds = [1, 2, 3]
///
/// [base]                          # settings of all runs: flags of `lossy`; milestones = [100, 150] is a list
/// max-offline = "P-1"
///
/// [methods.sgd]                   # what `method = sgd` stands for
/// preconditioner = "none"
///
/// [[groups]]
/// name = "fraction"               # the name of its table and its heat map
/// title = "How much of the time nodes are offline"
/// set = { max-duration = 20 }     # settings of this group
/// vary = ["method=sgd", "offline-fraction=0,0.4,0.8"]  # crossed; the last one gives a heat map's columns
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Every group is run with each of them.
    pub seeds: Vec<u64>,
    /// Settings of all runs.
    #[serde(default)]
    pub base: toml::Table,
    /// Settings under one name.
    #[serde(default)]
    pub methods: BTreeMap<String, toml::Table>,
    /// What is varied.
    pub groups: Vec<Group>,
    /// What the user wants of all runs: wins over everything else.
    #[serde(skip)]
    pub wanted: toml::Table,
    /// What settings of all runs are at most, the user's own excepted.
    #[serde(skip)]
    pub most: BTreeMap<String, u64>,
}

/// Settings that are varied together, and shown in one table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The name of its files.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// Settings of its runs.
    #[serde(default)]
    pub set: toml::Table,
    /// `KEY=A,B,C`: crossed with each other.
    pub vary: Vec<String>,
}

/// One run: a seed, and settings as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Flags of `lossy` and their values.
    pub settings: BTreeMap<String, String>,
}

/// Settings that runs of a grid have no use for.
const ALONE: [&str; 8] = ["load", "save", "checkpoint", "resume", "trace", "replay", "require", "output"];

/// A combination of a group: the values of its axes, and the settings that they make.
#[derive(Clone, Debug)]
pub(super) struct Combination {
    pub(super) values: Vec<String>,
    pub(super) settings: BTreeMap<String, String>,
}

impl Grid {
    /// Reads a grid.
    ///
    /// # Errors
    /// If it is not TOML or has other keys than a grid has.
    pub fn read(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// All runs, each once, those of the first seed first, so that a sweep that is stopped has whole seeds.
    ///
    /// # Errors
    /// If a setting is none of `lossy`'s, or has a value that it does not take.
    pub fn runs(&self) -> Result<Vec<Run>> {
        if self.seeds.is_empty() || self.groups.is_empty() {
            bail!("a grid needs at least one seed and one group");
        }
        let mut runs = Vec::new();
        let mut seen = BTreeSet::new();
        for group in &self.groups {
            let mut keys = group.vary.iter().filter_map(|axis| axis.split('=').next());
            if let Some(key) = keys.find(|key| self.wanted.contains_key(*key)) {
                bail!(
                    "--set {key}=…: the group {} varies {key}, which cannot be set for all runs: leave it out, or choose \
                     other groups with --only",
                    group.name
                );
            }
        }
        for &seed in &self.seeds {
            for group in &self.groups {
                for Combination { settings, .. } in self.combinations(group)? {
                    let run = Run { seed, settings };
                    run.job().with_context(|| format!("group {}: {}", group.name, run.name()))?;
                    if seen.insert(run.clone()) {
                        runs.push(run);
                    }
                }
            }
        }
        Ok(runs)
    }

    /// The combinations of a group, the last axis turning fastest.
    pub(super) fn combinations(&self, group: &Group) -> Result<Vec<Combination>> {
        let mut combinations = vec![(Vec::new(), group.set.clone())];
        for axis in &group.vary {
            let Some((key, values)) = axis.split_once('=') else {
                bail!("group {}: {axis:?} varies nothing; write it as KEY=A,B", group.name);
            };
            let extend = |(before, settings): &(Vec<String>, toml::Table), value: &str| {
                let (mut before, mut settings) = (before.clone(), settings.clone());
                before.push(value.to_owned());
                settings.insert(key.to_owned(), toml::Value::from(value));
                (before, settings)
            };
            combinations = combinations
                .iter()
                .flat_map(|combination| values.split(',').map(move |value| extend(combination, value.trim())))
                .collect();
        }
        combinations
            .into_iter()
            .map(|(values, settings)| Ok(Combination { values, settings: self.resolve(&settings)? }))
            .collect()
    }

    /// Base, then method, then the group's own settings, none above what is the most, then the user's, as text.
    fn resolve(&self, own: &toml::Table) -> Result<BTreeMap<String, String>> {
        let mut settings = self.base.clone();
        let method = [&self.wanted, own, &self.base].into_iter().find_map(|table| table.get(METHOD));
        if let Some(method) = method.and_then(toml::Value::as_str) {
            let Some(named) = self.methods.get(method) else {
                let names: Vec<&str> = self.methods.keys().map(String::as_str).collect();
                bail!("no method is called {method:?}; the grid has {}", names.join(", "));
            };
            settings.extend(named.clone());
        }
        settings.extend(own.clone());
        for (key, &most) in &self.most {
            let at_most = settings.get(key).map(|value| text(key, value)).transpose()?.and_then(|own| own.parse().ok());
            settings.insert(key.clone(), toml::Value::from(at_most.map_or(most, |own: u64| own.min(most)).to_string()));
        }
        settings.extend(self.wanted.clone());
        settings.remove(METHOD);
        settings.remove("seed");
        let pairs = settings.into_iter();
        pairs.map(|(key, value)| text(&key, &value).map(|text| (key, text))).collect()
    }
}

/// A value as it stands on the command line and in `runs.csv`.
fn text(key: &str, value: &toml::Value) -> Result<String> {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => value.to_string(),
        toml::Value::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| text(key, value)).collect::<Result<_>>()?;
            return Ok(values.join(LIST));
        }
        _ => bail!("{key} = {value}: a setting of a grid is a text, a number, a truth value, or a list of these"),
    };
    // 0.40 and .4 are one setting.
    let text = match text.parse::<f64>() {
        Ok(number) if number.is_finite() => number.to_string(),
        _ => text,
    };
    if text.contains(|c: char| c == ',' || c == '"' || c.is_whitespace()) {
        bail!("{key} = {text:?}: a setting of a grid has neither spaces, commas nor quotes");
    }
    Ok(text)
}

impl Run {
    /// A setting as grids name it, from a flag or a key of a file.
    pub fn key(flag: &str) -> String {
        flag.trim_start_matches('-').replace('_', "-")
    }

    /// The settings, as `runs.csv` has them.
    pub fn name(&self) -> String {
        let pairs = self.settings.iter().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<_>>().join(" ")
    }

    /// The settings as the trainer takes them.
    ///
    /// # Errors
    /// If a setting is none of `lossy`'s, or has a value that it does not take.
    pub fn job(&self) -> Result<JobSettings> {
        if let Some(key) = ALONE.iter().find(|key| self.settings.contains_key(**key)) {
            bail!("{key} is for a single run of `lossy`: leave it out");
        }
        let job = JobSettings::try_parse_from(self.arguments()?)?;
        job.network.check(&job.averaging).map_err(Error::msg)?;
        Ok(job)
    }

    fn arguments(&self) -> Result<Vec<std::ffi::OsString>> {
        let mut table = toml::Table::new();
        for (key, value) in &self.settings {
            let truth = value.parse::<bool>().map(toml::Value::from);
            table.insert(key.clone(), truth.unwrap_or_else(|_| toml::Value::from(value.replace(LIST, ","))));
        }
        table.insert("seed".into(), toml::Value::from(self.seed.to_string()));
        table.insert("quiet".into(), true.into());
        table.insert("no-reference".into(), true.into());
        let program = std::iter::once("lossy".into());
        Ok(program.chain(flags(&table.to_string())?).collect())
    }
}

/// What the outages of these runs cannot be, in words.
pub(super) fn cautions(runs: &[Run]) -> Result<BTreeSet<String>> {
    let mut cautions = BTreeSet::new();
    for run in runs {
        let job = run.job()?;
        cautions.extend(job.network.caution(job.averaging.nodes));
    }
    Ok(cautions)
}

/// A fleet that runs these settings.
pub(super) fn fleet<'a>(
    job: &'a JobSettings,
    workshop: &'a crate::run::Workshop,
    text: &'a str,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> Fleet<'a> {
    let JobSettings { task, averaging, network, output, .. } = job;
    Fleet { workshop, task, averaging, network, output, settings: text, stop }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        seeds = [1]
        [base]
        iterations = 300
        batch = 4
        [methods.adam]
        optimiser = "adam"
        learning-rate = 0.001
        [[groups]]
        name = "g"
        title = "G"
        set = { iterations = 200 }
        vary = ["nodes=2,4", "method=adam"]
    "#;

    fn first(grid: &Grid) -> BTreeMap<String, String> {
        grid.runs().expect("a grid")[0].settings.clone()
    }

    #[test]
    fn what_the_user_wants_wins_over_methods_groups_and_what_is_the_most() {
        let mut grid = Grid::read(TEXT).expect("a grid");
        let own = first(&grid);
        assert_eq!((&*own["iterations"], &*own["learning-rate"], &*own["batch"]), ("200", "0.001", "4"));
        grid.most =
            [("iterations", 60), ("batch", 8), ("evaluate-every", 20)].map(|(key, most)| (key.into(), most)).into();
        let quick = first(&grid);
        assert_eq!((&*quick["iterations"], &*quick["batch"], &*quick["evaluate-every"]), ("60", "4", "20"));
        for (key, value) in [("iterations", "70"), ("learning-rate", "0.5"), ("batch", "16")] {
            grid.wanted.insert(key.into(), value.into());
        }
        let wanted = first(&grid);
        assert_eq!((&*wanted["iterations"], &*wanted["learning-rate"], &*wanted["batch"]), ("70", "0.5", "16"));
        assert_eq!(wanted["optimiser"], "adam");
    }

    #[test]
    fn what_is_varied_cannot_be_set_for_all_runs() {
        for key in ["nodes", "method"] {
            let mut grid = Grid::read(TEXT).expect("a grid");
            grid.wanted.insert(key.into(), "3".into());
            let error = grid.runs().expect_err("an axis").to_string();
            assert!(error.contains(key) && error.contains("group g") && error.contains("--only"), "{error}");
        }
    }
}
