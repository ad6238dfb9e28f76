//! Every policy at every share of the time offline: one table and one plot.

use super::call::{Call, effort};
use super::page::Figures;
use crate::report::{Align, Curve, Table, accuracy_over_bytes};
use crate::sweep::{Cell, Outcome};
use anyhow::Result;
use std::fmt::Write as _;

/// Runs it.
///
/// # Errors
/// As [`Call::sweep`].
pub(super) fn run(call: &Call<'_>) -> Result<Option<Figures>> {
    let Some(swept) = call.sweep("choosing", &[])? else { return Ok(None) };
    let (mut text, mut plots) = (String::new(), Vec::new());
    for group in &swept.grid.groups {
        let cells = swept.cells(&group.name)?;
        let svg = format!("choosing-{}.svg", group.name);
        let _ = writeln!(text, "### {}\n", group.title);
        for (title, accuracy) in ACCURACIES {
            let _ = writeln!(text, "{title} · MB that a node sends:\n\n{}", table(&cells, accuracy));
        }
        let _ = writeln!(text, "![{}]({svg})\n", group.title);
        let axes = ["MB that a node sends", "test accuracy, own models, mean"];
        plots.push((svg, accuracy_over_bytes(&group.title, axes, &curves(&cells))?));
    }
    text += &swept.missing()?;
    text += &effort(&swept)?;
    Ok(Some(Figures { text, plots }))
}

type Value = fn(&Outcome) -> Option<f64>;

/// Accuracies that have a table each.
const ACCURACIES: [(&str, Value); 2] = [
    ("Mean accuracy of the nodes' own models", |outcome| outcome.own_mean),
    ("Accuracy of the average of all models", |outcome| outcome.accuracy),
];

/// One line for each method, one column for each share.
fn table(cells: &[Cell], accuracy: Value) -> Table {
    let (shares, methods) = (axis(cells, 0), axis(cells, 1));
    let titles: Vec<String> = shares.iter().map(|share| format!("offline {share}")).collect();
    let mut heading = vec![("method", Align::Left)];
    heading.extend(titles.iter().map(|title| (title.as_str(), Align::Right)));
    let mut table = Table::new(&heading);
    for method in methods {
        let mut row = vec![method.clone()];
        row.extend(shares.iter().map(|share| {
            let found = cells.iter().find(|cell| cell.values == [share.as_str(), method.as_str()]);
            let accuracy = found.map(|cell| cell.reached(3, accuracy));
            let bytes = found.and_then(|cell| cell.spread(|outcome| Some(sent(cell, outcome))));
            match (accuracy, bytes) {
                (Some(accuracy), Some(bytes)) => format!("{accuracy} · {:.1}", bytes.mean),
                _ => "–".to_owned(),
            }
        }));
        table.row(row);
    }
    table
}

/// The values of an axis, in the order in which they come.
fn axis(cells: &[Cell], number: usize) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for value in cells.iter().filter_map(|cell| cell.values.get(number)) {
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    values
}

/// One curve for each method, of its mean over seeds.
fn curves(cells: &[Cell]) -> Vec<Curve> {
    let point = |cell: &Cell| {
        let bytes = cell.spread(|outcome| Some(sent(cell, outcome)))?;
        Some((bytes.mean, cell.spread(|outcome| outcome.own_mean)?.mean))
    };
    let curve = |method: String| {
        let own = cells.iter().filter(|cell| cell.values.get(1) == Some(&method));
        Curve { points: own.filter_map(point).collect(), name: method }
    };
    axis(cells, 1).into_iter().map(curve).collect()
}

/// MB that a node sends.
fn sent(cell: &Cell, outcome: &Outcome) -> f64 {
    // The grid of this study says how many there are.
    let nodes: f64 = cell.settings.get("nodes").and_then(|nodes| nodes.parse().ok()).unwrap_or(1.0);
    outcome.bytes as f64 / 1e6 / nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_a_line_and_a_curve_and_every_share_a_column() {
        let cell = |share: &str, method: &str, own: &[f64]| Cell {
            values: vec![share.to_owned(), method.to_owned()],
            settings: [("nodes".to_owned(), "4".to_owned())].into(),
            seeds: (1..).take(own.len()).collect(),
            outcomes: own
                .iter()
                .map(|&own| Outcome { own_mean: Some(own), bytes: 8_000_000, ..Outcome::default() })
                .collect(),
        };
        let cells = [
            cell("0", "average", &[0.8, 0.9]),
            cell("0", "alone", &[0.7]),
            cell("0.4", "average", &[0.6]),
            cell("0.4", "alone", &[]),
        ];
        let text = table(&cells, |outcome| outcome.own_mean).to_string();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).expect("a line").to_owned();
        assert!(line("average").contains("0.850 ± 0.071 · 2.0") && line("average").contains("0.600"), "{text}");
        assert!(line("alone").contains("0.700") && line("alone").contains('–'), "{text}");
        let curves = curves(&cells);
        assert_eq!(curves.iter().map(|curve| curve.points.len()).collect::<Vec<_>>(), [2, 1]);
        assert!((curves[0].points[0].1 - 0.85).abs() < 1e-12 && (curves[0].points[0].0 - 2.0).abs() < 1e-12);
    }
}
