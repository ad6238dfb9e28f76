//! The flags of a sweep.

use super::grid::{Grid, Group, Run};
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Run a grid of settings of `lossy` over several seeds, with tables and heat maps of mean and spread.
///
/// A sweep that is stopped, by Ctrl-C or otherwise, goes on where it was when it is given again. Runs are known again by their
/// settings, their seed and what is in a file of a network or a graph that they name; a folder of data is taken for what it was.
#[derive(Clone, Debug, Parser)]
#[command(name = "lossy sweep", version)]
pub struct SweepSettings {
    /// unstable (the study of docs/unstable.md), gossip (that of docs/reproduce/gossip.md; gossip-search: other rates and
    /// consensus steps, at another seed), choosing (every policy at every share of the time offline), outer (outer
    /// optimisers), daso (sites and slow lines between them), scale (what a node costs in fleets of up to a thousand), fda
    /// (averages when models have drifted apart, on MNIST: --set data=DIR), fda-full, gossip-full, daso-full and
    /// unstable-full (as published), smoke (seconds), or a TOML file
    #[arg(default_value = "unstable", value_name = "NAME|FILE")]
    pub grid: String,
    /// Instead of the grid's groups: vary a setting, such as `offline-fraction=0,0.4,0.8`; several are crossed, the last
    /// one gives the columns of heat maps
    #[arg(long, value_name = "KEY=A,B")]
    pub vary: Vec<String>,
    /// A setting of all runs, such as `iterations=100`; wins over the grid's, those of methods and groups included. What a
    /// group varies cannot be set
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// What a setting of all runs is at most, such as `iterations=60`: lower ones stay, and so does what --set says
    #[arg(long, value_name = "KEY=N")]
    pub at_most: Vec<String>,
    /// Only these groups of the grid
    #[arg(long, value_name = "GROUP")]
    pub only: Vec<String>,
    /// The seeds, instead of the grid's
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub seeds: Vec<u64>,
    /// How many runs go on at once; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub jobs: usize,
    /// The sweep's folder [default: runs/sweep-NAME]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Say what would be run and how long it would take
    #[arg(long)]
    pub dry_run: bool,
    /// Run nothing: make tables and plots of the runs that are done
    #[arg(long, conflicts_with = "dry_run")]
    pub finished: bool,
    /// Do not print the tables
    #[arg(long, short)]
    pub quiet: bool,
}

/// Grids that come with the program.
const KNOWN: [(&str, &str); 14] = [
    ("unstable", include_str!("../../sweeps/unstable.toml")),
    ("unstable-full", include_str!("../../sweeps/unstable-full.toml")),
    ("gossip", include_str!("../../sweeps/gossip.toml")),
    ("gossip-search", include_str!("../../sweeps/gossip-search.toml")),
    ("gossip-full", include_str!("../../sweeps/gossip-full.toml")),
    ("choosing", include_str!("../../sweeps/choosing.toml")),
    ("outer", include_str!("../../sweeps/outer.toml")),
    ("fda", include_str!("../../sweeps/fda.toml")),
    ("fda-full", include_str!("../../sweeps/fda-full.toml")),
    ("daso", include_str!("../../sweeps/daso.toml")),
    ("daso-full", include_str!("../../sweeps/daso-full.toml")),
    ("daso-measured", include_str!("../../sweeps/daso-measured.toml")),
    ("scale", include_str!("../../sweeps/scale.toml")),
    ("smoke", include_str!("../../sweeps/smoke.toml")),
];

impl SweepSettings {
    /// The grid that is asked for, and its name.
    ///
    /// # Errors
    /// If it cannot be read, or a flag does not fit it.
    pub fn grid(&self) -> Result<(String, Grid)> {
        let known = KNOWN.iter().find(|(name, _)| *name == self.grid);
        let (name, mut grid) = match known {
            Some((name, text)) => ((*name).to_owned(), Grid::read(text)?),
            None => {
                let path = Path::new(&self.grid);
                let names = KNOWN.map(|(name, _)| name).join(", ");
                let text = fs::read_to_string(path).with_context(|| {
                    format!("cannot read the grid {}; grids known by name are {names}", path.display())
                })?;
                let stem = path.file_stem().map_or("grid".into(), |stem| stem.to_string_lossy().into_owned());
                (stem, Grid::read(&text).with_context(|| format!("{} is no grid", path.display()))?)
            }
        };
        for pair in &self.set {
            let Some((key, value)) = pair.split_once('=') else {
                bail!("--set {pair}: write it as KEY=VALUE, for instance --set iterations=100");
            };
            grid.wanted.insert(Run::key(key), toml::Value::from(value));
        }
        for pair in &self.at_most {
            let parsed = pair.split_once('=').and_then(|(key, value)| Some((key, value.parse().ok()?)));
            let Some((key, most)) = parsed else {
                bail!("--at-most {pair}: write it as KEY=N, for instance --at-most iterations=60");
            };
            grid.most.insert(Run::key(key), most);
        }
        if !self.vary.is_empty() {
            let vary = self.vary.clone();
            let mut group = Group { name: "grid".into(), title: "Grid".into(), vary, ..Group::default() };
            group.tidy()?;
            grid.groups = vec![group];
        }
        for wanted in &self.only {
            if grid.groups.iter().all(|group| group.name != *wanted) {
                let names: Vec<&str> = grid.groups.iter().map(|group| group.name.as_str()).collect();
                bail!("--only {wanted}: the grid's groups are {}", names.join(", "));
            }
        }
        if !self.only.is_empty() {
            grid.groups.retain(|group| self.only.contains(&group.name));
        }
        if !self.seeds.is_empty() {
            // One seed given twice is one measurement.
            let mut seen = BTreeSet::new();
            grid.seeds = self.seeds.iter().copied().filter(|seed| seen.insert(*seed)).collect();
        }
        Ok((name, grid))
    }

    /// How many runs go on at once.
    pub fn jobs(&self) -> usize {
        match self.jobs {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_given_twice_is_one_and_keys_are_those_of_the_grid() {
        let words = ["sweep", "smoke", "--seeds=2,1,2", "--set=learning_rate=0.5", "--at-most=--evaluate_every=3"];
        let (_, grid) = SweepSettings::parse_from(words).grid().expect("a grid");
        assert_eq!(grid.seeds, [2, 1]);
        assert!(grid.wanted.contains_key("learning-rate") && grid.most.contains_key("evaluate-every"));
        let refused = |set: &str| {
            let set = format!("--set={set}");
            let (_, grid) = SweepSettings::parse_from(["sweep", "smoke", &set]).grid().expect("a grid");
            grid.runs().map(drop).map_err(|error| format!("{error:#}")).expect_err("it changes nothing, or cannot be")
        };
        assert!(refused("load=weights.safetensors").contains("load is for a single run"));
        assert!(refused("latency=3600s").contains("stall-budget"), "{}", refused("latency=3600s"));
    }

    #[test]
    fn every_grid_that_is_known_has_settings_that_trainers_take() {
        for (name, _) in KNOWN {
            let (_, grid) = SweepSettings::parse_from(["sweep", name]).grid().expect(name);
            assert!(!grid.runs().expect(name).is_empty(), "{name}");
        }
    }
}
