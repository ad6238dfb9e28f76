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

    /// Seeds and what came out, of runs that have not failed.
    pub fn whole(&self) -> impl Iterator<Item = (u64, &Outcome)> {
        let all = self.seeds.iter().copied().zip(&self.outcomes);
        all.filter(|(_, outcome)| outcome.failure.is_none())
    }

    /// Seeds of runs that have failed, and why.
    pub fn failures(&self) -> impl Iterator<Item = (u64, &str)> {
        self.seeds.iter().zip(&self.outcomes).filter_map(|(&seed, outcome)| Some((seed, outcome.failure.as_deref()?)))
    }

    /// What the same seeds gave here and there, where neither run has failed.
    pub fn pairs<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a Outcome, &'a Outcome)> {
        self.whole().filter_map(move |(seed, outcome)| {
            let (_, rival) = other.whole().find(|(candidate, _)| *candidate == seed)?;
            Some((outcome, rival))
        })
    }

    /// Mean and spread of what there is of this value, of runs that have not failed.
    pub fn spread(&self, value: impl Fn(&Outcome) -> Option<f64>) -> Option<Spread> {
        Spread::of(&self.whole().filter_map(|(_, outcome)| value(outcome)).collect::<Vec<_>>())
    }

    /// The same as text, and of how many runs, if not of all that are done; a dash for nothing.
    pub fn show(&self, digits: usize, value: impl Fn(&Outcome) -> Option<f64>) -> String {
        let all = self.outcomes.len();
        match self.spread(value) {
            None => "–".to_owned(),
            Some(spread) if spread.count == all => format!("{spread:.digits$}"),
            Some(spread) => format!("{spread:.digits$} ({} of {all})", spread.count),
        }
    }

    /// The same of what need not be reached.
    pub fn reached(&self, digits: usize, value: impl Fn(&Outcome) -> Option<f64>) -> String {
        let none = self.whole().next().is_some() && self.spread(&value).is_none();
        if none { "not reached".to_owned() } else { self.show(digits, value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_has_failed_is_part_of_no_mean_and_no_pair() {
        let outcome = |accuracy, failure: Option<&str>| Outcome {
            accuracy: Some(accuracy),
            failure: failure.map(String::from),
            ..Outcome::default()
        };
        let cell = |outcomes: Vec<Outcome>| Cell {
            values: Vec::new(),
            settings: BTreeMap::new(),
            seeds: (1..).take(outcomes.len()).collect(),
            outcomes,
        };
        let some = cell(vec![outcome(0.8, None), outcome(0.1, Some("lost")), outcome(0.6, None)]);
        assert_eq!(some.show(1, |outcome| outcome.accuracy), "0.7 ± 0.1 (2 of 3)");
        assert_eq!(some.reached(0, |outcome| outcome.iterations.map(|steps| steps as f64)), "not reached");
        assert_eq!(some.failures().collect::<Vec<_>>(), [(2, "lost")]);
        let all = cell(vec![outcome(0.9, None); 3]);
        assert_eq!(all.pairs(&some).map(|(_, other)| other.accuracy).collect::<Vec<_>>(), [Some(0.8), Some(0.6)]);
        assert_eq!(all.show(1, |outcome| outcome.accuracy), "0.9 ± 0.0");
        let none = cell(vec![outcome(0.1, Some("lost"))]);
        assert_eq!(none.reached(0, |outcome| outcome.accuracy), "–");
    }
}
