//! Which runs a sweep consists of.

use crate::run::Fleet;
use crate::settings::{AveragingSettings, ConsensusStep, JobSettings, Policy, flags, why_idle};
use anyhow::{Context, Error, Result, bail};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use kronfleet_core::cluster::{Incarnation, RunId};
use kronfleet_core::transport::NodeId;
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

/// What is to be done about settings of a single run of `lossy`.
const ALONE: &str = "leave it out";

/// Settings that runs of a grid have no use for, and what to do instead.
const REFUSED: [(&str, &str); 16] = [
    ("load", ALONE),
    ("save", ALONE),
    ("checkpoint", ALONE),
    ("every", ALONE),
    ("keep", ALONE),
    ("resume", ALONE),
    ("trace", ALONE),
    ("replay", ALONE),
    ("require", ALONE),
    ("output", ALONE),
    ("config", "write its settings into the grid"),
    ("seed", "choose seeds by --seeds, or by the grid's seeds"),
    ("threads", "every run has one, and --jobs says how many runs go on at once"),
    ("json", "runs.csv has what came out"),
    ("quiet", "runs of a grid are"),
    ("no-reference", "runs of a grid have none"),
];

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
    /// If it is not TOML or has other keys than a grid has, or something is said twice in it: a setting, a value of an axis,
    /// a group's name.
    pub fn read(text: &str) -> Result<Self> {
        let mut grid: Self = toml::from_str(text)?;
        // A seed given twice is one measurement.
        let mut seen = BTreeSet::new();
        grid.seeds.retain(|&seed| seen.insert(seed));
        grid.base = keyed(&grid.base).context("base")?;
        for (name, settings) in &mut grid.methods {
            *settings = keyed(settings).with_context(|| format!("method {name}"))?;
        }
        let mut names = BTreeSet::new();
        for group in &mut grid.groups {
            group.tidy()?;
            if !names.insert(group.name.clone()) {
                bail!("two groups are called {:?}, and would write the same files: call one differently", group.name);
            }
        }
        Ok(grid)
    }

    /// All runs, each once, those of the first seed first, so that a sweep that is stopped has whole seeds.
    ///
    /// # Errors
    /// If a setting is none of `lossy`'s, has a value that it does not take, or is varied or wanted and has no effect at all.
    pub fn runs(&self) -> Result<Vec<Run>> {
        let Some(&first) = self.seeds.first().filter(|_| !self.groups.is_empty()) else {
            bail!("a grid needs at least one seed and one group");
        };
        let (mut all, mut settled) = (Vec::new(), Vec::new());
        for group in &self.groups {
            if let Some(key) = group.keys().find(|key| self.wanted.contains_key(*key)) {
                bail!(
                    "--set {key}=…: the group {} varies {key}, which cannot be set for all runs: leave it out, or choose \
                     other groups with --only",
                    group.name
                );
            }
            let begin = all.len();
            for Combination { settings, .. } in self.combinations(group)? {
                let run = Run { seed: first, settings };
                let (job, matches) = run.parsed().with_context(|| format!("group {}: {}", group.name, run.name()))?;
                check(&job.averaging).with_context(|| format!("group {}: {}", group.name, run.name()))?;
                all.push(matches);
                settled.push(run.settings);
            }
            for key in group.keys() {
                if let Some(why) = idle_everywhere(&all[begin..], key) {
                    bail!("the group {} varies {key}, but {why}", group.name);
                }
            }
        }
        for key in self.wanted.keys() {
            if let Some(why) = idle_everywhere(&all, key) {
                bail!("--set {key}: {why}");
            }
        }
        let runs = self.seeds.iter().flat_map(|&seed| settled.iter().map(move |settings| (seed, settings)));
        let mut seen = BTreeSet::new();
        let runs = runs.map(|(seed, settings)| Run { seed, settings: settings.clone() });
        Ok(runs.filter(|run| seen.insert(run.clone())).collect())
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
            let own = settings.get(key).map(|value| text(key, value)).transpose()?.or_else(|| usual(key));
            let own = own.map(|own| {
                let number = own.parse::<u64>();
                number.with_context(|| format!("--at-most {key}={most}: {key} is {own}, no whole number"))
            });
            if own.transpose()?.is_none_or(|own| own > most) {
                settings.insert(key.clone(), toml::Value::from(most.to_string()));
            }
        }
        settings.extend(self.wanted.clone());
        settings.remove(METHOD);
        let pairs = settings.into_iter();
        pairs.map(|(key, value)| text(&key, &value).map(|text| (key, text))).collect()
    }
}

impl Group {
    /// What it varies.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.vary.iter().map(|axis| axis.split('=').next().unwrap_or_default())
    }

    /// Names settings as grids do.
    ///
    /// # Errors
    /// If its name is none for a file, an axis varies nothing, or something is said twice.
    pub(super) fn tidy(&mut self) -> Result<()> {
        let name = &self.name;
        if name.is_empty() || !name.chars().all(|letter| letter.is_alphanumeric() || "-_".contains(letter)) {
            bail!("a group is called {name:?}, and so are its files: use letters, digits, - and _");
        }
        self.set = keyed(&self.set).with_context(|| format!("group {name}"))?;
        let mut keys: BTreeSet<String> = self.set.keys().cloned().collect();
        for axis in &mut self.vary {
            let Some((key, values)) = axis.split_once('=') else {
                bail!("group {name}: {axis:?} varies nothing; write it as KEY=A,B");
            };
            let key = Run::key(key.trim());
            if !keys.insert(key.clone()) {
                bail!("group {name}: {key} is given twice: say it once");
            }
            let mut seen = BTreeSet::new();
            for value in values.split(',') {
                let value = text(&key, &toml::Value::from(value.trim()))?;
                if let Some(value) = seen.replace(value) {
                    bail!("group {name}: {key} has the value {value} twice: say it once");
                }
            }
            *axis = format!("{key}={values}");
        }
        Ok(())
    }
}

/// Settings by their names in grids.
fn keyed(settings: &toml::Table) -> Result<toml::Table> {
    let mut named = toml::Table::new();
    for (key, value) in settings {
        let key = Run::key(key);
        if named.insert(key.clone(), value.clone()).is_some() {
            bail!("{key} is given twice: say it once");
        }
    }
    Ok(named)
}

/// What `lossy` takes where a flag is not given, if it takes anything then.
fn usual(key: &str) -> Option<String> {
    let command = JobSettings::command();
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(key))?;
    argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned())
}

/// Why a setting has no effect with any of these, if so.
fn idle_everywhere(all: &[ArgMatches], key: &str) -> Option<String> {
    all.iter().map(|matches| why_idle(matches, key)).collect::<Option<Vec<String>>>()?.into_iter().next()
}

/// Whether nodes can keep together so. Steps that are found by trial are left to the run.
fn check(averaging: &AveragingSettings) -> Result<()> {
    let mut averaging = averaging.clone();
    let tried = averaging.gossip.consensus_step == Some(ConsensusStep::Auto);
    if tried && matches!(averaging.policy, Policy::Choco | Policy::Ada) {
        averaging.gossip.consensus_step = None;
    }
    averaging.cluster(RunId(0), NodeId(0), Incarnation(1))?;
    averaging.policy(NodeId(0)).map(drop)
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
        self.parsed().map(|(job, _)| job)
    }

    fn parsed(&self) -> Result<(JobSettings, ArgMatches)> {
        if let Some((key, remedy)) = REFUSED.iter().find(|(key, _)| self.settings.contains_key(*key)) {
            bail!("{key} is for a single run of `lossy`: {remedy}");
        }
        let matches = JobSettings::command().try_get_matches_from(self.arguments()?)?;
        let job = JobSettings::from_arg_matches(&matches)?;
        job.network.check(&job.averaging).map_err(Error::msg)?;
        Ok((job, matches))
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

/// What the outages of these runs cannot be, and their policies are not good at, in words.
pub(super) fn cautions(runs: &[Run]) -> Result<BTreeSet<String>> {
    let mut cautions = BTreeSet::new();
    for run in runs {
        let job = run.job()?;
        cautions.extend(job.network.caution(job.averaging.nodes).into_iter().chain(job.averaging.caution()));
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
        assert_eq!((&*quick["iterations"], &*quick["batch"]), ("60", "4"));
        assert!(!quick.contains_key("evaluate-every"), "lossy evaluates every 15 iterations");
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

    #[test]
    fn what_is_the_most_lowers_whole_numbers_and_raises_nothing() {
        let with = |key: &str, most: u64| {
            let mut grid = Grid::read(TEXT).expect("a grid");
            grid.base.remove("batch");
            grid.most.insert(key.into(), most);
            grid.runs().map(|runs| runs[0].settings.get(key).cloned()).map_err(|error| error.to_string())
        };
        assert_eq!(with("batch", 65), Ok(None), "64 is what `lossy` takes");
        assert_eq!(with("batch", 63), Ok(Some("63".into())));
        assert_eq!(with("samples", 100), Ok(Some("100".into())), "without it there is no bound");
        assert!(with("learning-rate", 1).is_err_and(|error| error.contains("no whole number")));
    }

    #[test]
    fn settings_are_known_by_their_flags_however_a_file_writes_them() {
        let text = TEXT.replace("learning-rate", "learning_rate").replace("nodes=2,4", "check_every=2,4");
        let text = text
            .replace("adam\"]", "adam\", \"evaluate_every=5\"]")
            .replace("\"adam\"\n", "\"adam\"\npolicy = \"fda:linear\"\n");
        let grid = Grid::read(&text).expect("a grid");
        let runs = grid.runs().expect("settings of `lossy`");
        assert_eq!(runs.len(), 2);
        for (run, every) in runs.iter().zip(["2", "4"]) {
            let values = ["check-every", "learning-rate", "evaluate-every"].map(|key| &*run.settings[key]);
            assert_eq!(values, [every, "0.001", "5"]);
        }
        let mut wanted = grid;
        wanted.wanted.insert("check-every".into(), "3".into());
        assert!(wanted.runs().is_err_and(|error| error.to_string().contains("varies check-every")));
    }

    #[test]
    fn what_is_said_twice_is_refused() {
        for (before, after, says) in [
            ("batch = 4", "learning_rate = 1\nlearning-rate = 1", "base: learning-rate is given twice"),
            ("optimiser = \"adam\"", "learning_rate = 1", "method adam: learning-rate is given twice"),
            ("nodes=2,4", "nodes=4,2,4", "nodes has the value 4 twice"),
            ("nodes=2,4", "offline-fraction=0.4,.40", "offline-fraction has the value 0.4 twice"),
            ("method=adam", "nodes=3", "nodes is given twice"),
            ("nodes=2,4", "iterations=2,4", "iterations is given twice"),
            ("vary =", "vary = [\"nodes=3\"]\n[[groups]]\nname = \"g\"\ntitle = \"H\"\nvary =", "two groups"),
            ("\"g\"", "\"a/b\"", "letters"),
            ("\"g\"", "\"\"", "letters"),
        ] {
            let error = Grid::read(&TEXT.replace(before, after)).map_err(|error| format!("{error:#}"));
            assert!(error.as_ref().is_err_and(|error| error.contains(says)), "{after}: {error:?}");
        }
        assert_eq!(Grid::read(&TEXT.replace("[1]", "[1, 2, 1]")).expect("a grid").seeds, [1, 2]);
    }

    #[test]
    fn what_changes_no_run_is_refused() {
        let with = |before: &str, after: &str| {
            let grid = Grid::read(&TEXT.replace(before, after)).expect("a grid");
            grid.runs().map(drop).map_err(|error| format!("{error:#}"))
        };
        for (after, says) in [
            ("nodes=2\", \"topology=ring,torus", "varies topology, but --topology has no effect"),
            ("nodes=2\", \"seed=1,2", "--seeds"),
            ("nodes=2\", \"threads=1,2", "--jobs"),
            ("nodes=2\", \"quiet=true", "single run"),
        ] {
            let error = with("nodes=2,4", after);
            assert!(error.as_ref().is_err_and(|error| error.contains(says)), "{after}: {error:?}");
        }
        // Idle with some of the others, not with all.
        assert_eq!(with("nodes=2,4", "policy=local,periodic\", \"rejoin=full,heal"), Ok(()));
        let mut grid = Grid::read(TEXT).expect("a grid");
        grid.wanted.insert("theta".into(), "3".into());
        assert!(grid.runs().is_err_and(|error| error.to_string().contains("--set theta: --theta has no effect")));
    }

    #[test]
    fn a_cell_that_cannot_be_is_found_before_anything_runs() {
        for (after, says) in [
            ("nodes=4\", \"min-members=3,5", "--min-members 5 can never be online"),
            ("nodes=4\", \"policy=periodic,gossip:choco\", \"topology=dyck", "dyck"),
            ("nodes=4\", \"policy=streaming\", \"interval=20,3", "--interval 3"),
        ] {
            let grid = Grid::read(&TEXT.replace("nodes=2,4", after)).expect("a grid");
            let error = grid.runs().map(drop).map_err(|error| format!("{error:#}"));
            assert!(error.as_ref().is_err_and(|error| error.contains(says)), "{after}: {error:?}");
        }
    }
}
