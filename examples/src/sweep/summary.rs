//! Tables and plots of a sweep: mean and spread over seeds.

use super::cell::Cell;
use super::grid::{Grid, Group};
use super::ledger::{Ledger, Outcome};
use super::statistics::Spread;
use crate::report::{Align, Curve, Folder, HeatCell, HeatMap, Panel, Table, accuracy_over_bytes, heat_maps};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// What the runs of a grid show together.
#[derive(Clone, Debug)]
pub struct Summary {
    seeds: Vec<u64>,
    groups: Vec<Shown>,
}

/// A group and what its runs gave.
#[derive(Clone, Debug)]
struct Shown {
    group: Group,
    axes: Vec<String>,
    cells: Vec<Cell>,
}

impl Summary {
    /// What the ledger holds of the grid's runs.
    ///
    /// # Errors
    /// If the grid's groups cannot be read.
    pub fn new(grid: &Grid, ledger: &Ledger) -> Result<Self> {
        let shown = |group: &Group| -> Result<Shown> {
            Ok(Shown {
                axes: group.keys().map(String::from).collect(),
                cells: Cell::all(grid, group, ledger)?,
                group: group.clone(),
            })
        };
        Ok(Self { seeds: grid.seeds.clone(), groups: grid.groups.iter().map(shown).collect::<Result<_>>()? })
    }

    /// Writes `report.md`, `summary.csv`, and two SVGs per group: heat maps, and accuracy against bytes.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Folder) -> Result<()> {
        for shown in &self.groups {
            folder.write(&format!("{}.svg", shown.group.name), &shown.plot()?)?;
            let axes = ["MB sent by all nodes", "test accuracy, own models, mean"];
            let plot = accuracy_over_bytes(&shown.group.title, axes, &shown.traffic())?;
            folder.write(&format!("{}-bytes.svg", shown.group.name), &plot)?;
        }
        folder.write("summary.csv", &self.csv())?;
        folder.write("report.md", &self.to_string())
    }

    /// Mean and deviation of every combination, one a line.
    pub fn csv(&self) -> String {
        let mut text = String::from("group,settings,runs,failed");
        for (name, _) in COLUMNS {
            let _ = write!(text, ",{name},{name}_deviation,{name}_count");
        }
        text.push('\n');
        for shown in &self.groups {
            for cell in &shown.cells {
                let pairs: Vec<String> =
                    shown.axes.iter().zip(&cell.values).map(|(key, value)| format!("{key}={value}")).collect();
                let failed = cell.failures().count();
                let _ = write!(text, "{},{},{},{failed}", shown.group.name, pairs.join(" "), cell.outcomes.len());
                for (_, value) in COLUMNS {
                    let spread = cell.spread(value);
                    let mean = spread.map_or(String::new(), |spread| format!("{:.6}", spread.mean));
                    let deviation = spread.and_then(|spread| spread.deviation);
                    let deviation = deviation.map_or(String::new(), |deviation| format!("{deviation:.6}"));
                    let _ = write!(text, ",{mean},{deviation},{}", spread.map_or(0, |spread| spread.count));
                }
                text.push('\n');
            }
        }
        text
    }
}

/// A column of `summary.csv`.
type Column = (&'static str, fn(&Outcome) -> Option<f64>);

/// The columns of `summary.csv`.
const COLUMNS: [Column; 11] = [
    ("accuracy", |outcome| outcome.accuracy),
    ("accuracy_early", |outcome| outcome.accuracy_early),
    ("own_mean", |outcome| outcome.own_mean),
    ("own_worst", |outcome| outcome.own_worst),
    ("iterations", |outcome| outcome.iterations.map(|iterations| iterations as f64)),
    ("iterations_own", |outcome| outcome.iterations_own.map(|iterations| iterations as f64)),
    ("offline_fraction", |outcome| Some(outcome.offline_fraction)),
    ("rounds_per_node", |outcome| Some(outcome.rounds_per_node)),
    ("samples_lost", |outcome| Some(outcome.samples_lost as f64)),
    ("bytes", |outcome| Some(outcome.bytes as f64)),
    ("virtual_seconds", |outcome| Some(outcome.virtual_seconds)),
];

impl Shown {
    fn table(&self) -> Table {
        let mut heading: Vec<(&str, Align)> = self.axes.iter().map(|axis| (axis.as_str(), Align::Left)).collect();
        let columns = [
            "averaged model",
            "early",
            "own models, mean",
            "own, worst",
            "iterations",
            "iterations, own",
            "offline",
            "rounds per node",
            "samples lost",
            "MB sent",
        ];
        heading.extend(columns.map(|column| (column, Align::Right)));
        let mut table = Table::new(&heading);
        for cell in &self.cells {
            let mut row = cell.values.clone();
            row.extend([
                cell.show(4, |outcome| outcome.accuracy),
                cell.show(3, |outcome| outcome.accuracy_early),
                cell.show(4, |outcome| outcome.own_mean),
                cell.show(4, |outcome| outcome.own_worst),
                cell.reached(0, |outcome| outcome.iterations.map(|iterations| iterations as f64)),
                cell.reached(0, |outcome| outcome.iterations_own.map(|iterations| iterations as f64)),
                cell.show(3, |outcome| Some(outcome.offline_fraction)),
                cell.show(1, |outcome| Some(outcome.rounds_per_node)),
                cell.show(0, |outcome| Some(outcome.samples_lost as f64)),
                cell.show(0, |outcome| Some(outcome.bytes as f64 / 1e6)),
            ]);
            table.row(row);
        }
        table
    }

    /// One curve for each value of the last axis, one point for each of the others.
    fn traffic(&self) -> Vec<Curve> {
        let mut curves: Vec<Curve> = Vec::new();
        for cell in &self.cells {
            let name = cell.values.last().cloned().unwrap_or_default();
            let bytes = cell.spread(|outcome| Some(outcome.bytes as f64 / 1e6));
            let Some((bytes, own)) = bytes.zip(cell.spread(|outcome| outcome.own_mean)) else { continue };
            let point = (bytes.mean, own.mean);
            match curves.iter_mut().find(|curve| curve.name == name) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve { name, points: vec![point] }),
            }
        }
        curves
    }

    /// Rows are all axes but the last, columns the last.
    fn plot(&self) -> Result<String> {
        let join = |values: &[String]| values.join(" ");
        let (mut rows, mut columns): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let mut places = BTreeMap::new();
        for cell in &self.cells {
            let (last, before) =
                cell.values.split_last().map_or((String::new(), &[][..]), |(last, before)| (last.clone(), before));
            let row = join(before);
            if !rows.contains(&row) {
                rows.push(row.clone());
            }
            if !columns.contains(&last) {
                columns.push(last.clone());
            }
            places.insert((row, last), cell);
        }
        let panel = |title: &str, digits: usize, low_is_good: bool, value: &dyn Fn(&Cell) -> Option<Spread>| {
            let at = |row: &String, column: &String| {
                pair(places.get(&(row.clone(), column.clone())).and_then(|cell| value(cell)))
            };
            let line = |row: &String| columns.iter().map(|column| at(row, column)).collect();
            Panel { title: title.to_owned(), digits, low_is_good, values: rows.iter().map(line).collect() }
        };
        let panels = vec![
            panel("averaged model", 3, false, &|cell| cell.spread(|outcome| outcome.accuracy)),
            panel("own models, mean", 3, false, &|cell| cell.spread(|outcome| outcome.own_mean)),
            panel("iterations to target", 0, true, &|cell| {
                let spread = cell.spread(|outcome| outcome.iterations.map(|iterations| iterations as f64));
                spread.filter(|spread| spread.count == cell.whole().count())
            }),
        ];
        heat_maps(&HeatMap {
            title: self.group.title.clone(),
            columns_are: self.axes.last().cloned().unwrap_or_default(),
            rows,
            columns,
            panels,
        })
    }
}

fn pair(spread: Option<Spread>) -> Option<HeatCell> {
    spread.map(|spread| (spread.mean, spread.deviation))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        writeln!(f, "Mean ± sample standard deviation over the seeds {seeds}.")?;
        for shown in &self.groups {
            writeln!(f, "\n## {}\n\n{}", shown.group.title, shown.table())?;
            writeln!(f, "![{}]({}.svg)", shown.group.title, shown.group.name)?;
            let missing: usize = shown.cells.iter().map(|cell| self.seeds.len() - cell.outcomes.len()).sum();
            if missing > 0 {
                writeln!(f, "\n{missing} runs of this table are still missing.")?;
            }
            for cell in &shown.cells {
                for (seed, failure) in cell.failures() {
                    writeln!(f, "\nThe run of seed {seed} {} failed: {failure}", cell.values.join(" "))?;
                }
            }
        }
        Ok(())
    }
}
