//! What the seeds of one combination of settings gave.

use super::grid::{Combination, Grid, Group, Run};
use super::ledger::{Ledger, Outcome};
use super::statistics::Spread;
use anyhow::Result;
use std::collections::BTreeMap;

/// A combination of settings and what its runs gave, one per seed that is done.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The values of the group's axes.
    pub values: Vec<String>,
    /// All settings.
    pub settings: BTreeMap<String, String>,
    /// The seeds that are done.
    pub seeds: Vec<u64>,
    /// What came out, one for each of them.
    pub outcomes: Vec<Outcome>,
}

impl Cell {
    /// All cells of a group, the last axis turning fastest.
    ///
    /// # Errors
    /// If the group cannot be read.
    pub fn all(grid: &Grid, group: &Group, ledger: &Ledger) -> Result<Vec<Self>> {
        let cell = |Combination { values, settings }: Combination| {
            let run = |&seed: &u64| Run { seed, settings: settings.clone() };
            let done = grid.seeds.iter().map(run).filter_map(|run| Some((run.seed, ledger.find(&run)?.clone())));
            let (seeds, outcomes) = done.unzip();
            Self { values, settings, seeds, outcomes }
        };
        Ok(grid.combinations(group)?.into_iter().map(cell).collect())
    }

    /// What the same seeds gave here and there.
    pub fn pairs<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a Outcome, &'a Outcome)> {
        self.seeds.iter().zip(&self.outcomes).filter_map(move |(seed, outcome)| {
            let place = other.seeds.iter().position(|candidate| candidate == seed)?;
            Some((outcome, &other.outcomes[place]))
        })
    }

    /// Mean and spread of what there is of this value.
    pub fn spread(&self, value: impl Fn(&Outcome) -> Option<f64>) -> Option<Spread> {
        Spread::of(&self.outcomes.iter().filter_map(value).collect::<Vec<_>>())
    }

    /// The same as text; a dash for nothing.
    pub fn show(&self, digits: usize, value: impl Fn(&Outcome) -> Option<f64>) -> String {
        self.spread(value).map_or("–".to_owned(), |spread| format!("{spread:.digits$}"))
    }

    /// The same of what only some seeds reach: how many did, if not all.
    pub fn reached(&self, digits: usize, value: impl Fn(&Outcome) -> Option<f64>) -> String {
        let all = self.outcomes.len();
        match self.spread(value) {
            None if all == 0 => "–".to_owned(),
            None => "not reached".to_owned(),
            Some(spread) if spread.count == all => format!("{spread:.digits$}"),
            Some(spread) => format!("{spread:.digits$} ({} of {all})", spread.count),
        }
    }
}
