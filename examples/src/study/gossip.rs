//! Neighbours instead of averages, beside the figures of Aketi et al. (2024).

use super::call::{Call, effort};
use super::page::Figures;
use crate::report::{Align, Curve, Table, accuracy_over_bytes};
use crate::sweep::{Cell, Spread};
use anyhow::Result;
use std::fmt::Write as _;

/// Who is compared with whom: what others gain over CHOCO-SGD with as much told.
const COMPARED: [(&str, &str); 6] = [
    ("ada-tenth", "choco-tenth"),
    ("ada-hundredth", "choco-hundredth"),
    ("measured-tenth", "choco-tenth"),
    ("measured-hundredth", "choco-hundredth"),
    ("partial-tenth", "choco-tenth"),
    ("partial-hundredth", "choco-hundredth"),
];

/// Runs it.
///
/// # Errors
/// As [`Call::sweep`].
pub(super) fn run(call: &Call<'_>) -> Result<Option<Figures>> {
    let Some(swept) = call.sweep("gossip", &[])? else { return Ok(None) };
    let (mut text, mut plots) = (String::new(), Vec::new());
    for group in &swept.grid.groups {
        let mut cells = swept.cells(&group.name)?;
        cells.retain(|cell| !cell.outcomes.is_empty());
        if cells.is_empty() {
            continue;
        }
        let axes: Vec<&str> = group.keys().collect();
        let svg = format!("{}-{}.svg", call.name, group.name);
        let _ = writeln!(text, "### {}\n\n{}", group.title, table(&axes, &cells));
        let gains = gains(&cells);
        if !gains.is_empty() {
            let _ = writeln!(text, "{gains}");
        }
        let _ = writeln!(text, "![{}]({svg})\n", group.title);
        let axes = ["MB sent by all nodes", "test accuracy, averaged model"];
        plots.push((svg, accuracy_over_bytes(&group.title, axes, &curves(&cells))?));
    }
    text += &swept.missing()?;
    text += &effort(&swept)?;
    Ok(Some(Figures { text, plots }))
}

/// One line for each cell.
fn table(axes: &[&str], cells: &[Cell]) -> Table {
    let mut heading: Vec<(&str, Align)> = axes.iter().map(|&axis| (axis, Align::Left)).collect();
    let columns = ["averaged model", "own models, mean", "own, worst", "MB per node", "seeds"];
    heading.extend(columns.map(|column| (column, Align::Right)));
    let mut table = Table::new(&heading);
    for cell in cells {
        let nodes = nodes(cell);
        let mut row = cell.values.clone();
        row.extend([
            cell.show(4, |outcome| outcome.accuracy),
            cell.show(4, |outcome| outcome.own_mean),
            cell.show(4, |outcome| outcome.own_worst),
            cell.show(1, |outcome| Some(outcome.bytes as f64 / 1e6 / nodes)),
            cell.whole().count().to_string(),
        ]);
        table.row(row);
    }
    table
}

/// What an averaged model is better than CHOCO-SGD's, in points, seed by seed; nothing where one of them is missing.
fn gains(cells: &[Cell]) -> String {
    let mut text = String::new();
    for cell in cells {
        let Some((method, others)) = cell.values.split_last() else { continue };
        let Some((_, rival)) = COMPARED.iter().find(|(ada, _)| ada == method) else { continue };
        let rival =
            cells.iter().find(|candidate| candidate.values.split_last() == Some((&(*rival).to_owned(), others)));
        let Some(rival) = rival else { continue };
        let pairs = cell.pairs(rival);
        let gains: Vec<f64> =
            pairs.filter_map(|(one, other)| Some(100.0 * (one.accuracy? - other.accuracy?))).collect();
        if let Some(gain) = Spread::of(&gains) {
            let _ = writeln!(text, "- {} {method} less {}: {gain:.2} points", others.join(" "), rival.values.join(" "));
        }
    }
    text
}

/// One curve for each method.
fn curves(cells: &[Cell]) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for cell in cells {
        let name = cell.values.last().cloned().unwrap_or_default();
        let bytes = cell.spread(|outcome| Some(outcome.bytes as f64 / 1e6));
        let Some((bytes, accuracy)) = bytes.zip(cell.spread(|outcome| outcome.accuracy)) else { continue };
        let point = (bytes.mean, accuracy.mean);
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { name, points: vec![point] }),
        }
    }
    curves
}

fn nodes(cell: &Cell) -> f64 {
    // Grids of this study say how many there are.
    cell.settings.get("nodes").and_then(|nodes| nodes.parse().ok()).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Outcome;
    use std::collections::BTreeMap;

    #[test]
    fn gains_are_those_of_the_same_data_and_as_much_told() {
        let cell = |values: [&str; 2], accuracies: [f64; 2]| Cell {
            values: values.map(String::from).to_vec(),
            settings: BTreeMap::new(),
            seeds: vec![1, 2],
            outcomes: accuracies.map(|accuracy| Outcome { accuracy: Some(accuracy), ..Outcome::default() }).to_vec(),
        };
        let cells = [
            cell(["iid", "choco-tenth"], [0.80, 0.82]),
            cell(["iid", "ada-tenth"], [0.81, 0.83]),
            cell(["dirichlet:0.1", "choco-tenth"], [0.70, 0.70]),
            cell(["dirichlet:0.1", "ada-tenth"], [0.68, 0.68]),
            cell(["iid", "ada-hundredth"], [0.10, 0.10]),
        ];
        let expected = "- iid ada-tenth less iid choco-tenth: 1.00 ± 0.00 points\n\
                        - dirichlet:0.1 ada-tenth less dirichlet:0.1 choco-tenth: -2.00 ± 0.00 points\n";
        assert_eq!(gains(&cells), expected);
    }
}
