//! What a node costs as fleets grow, in virtual time.

use super::call::{Call, effort};
use super::page::Figures;
use super::scatter::{Mark, Scatter};
use crate::report::{Align, Table};
use crate::sweep::{Cell, Outcome};
use anyhow::Result;
use kronfleet_core::compress::Identity;
use kronfleet_core::gossip::{Mixing, Rule, Topology, Tuning, agreement};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Runs it.
///
/// # Errors
/// As [`Call::sweep`].
pub(super) fn run(call: &Call<'_>) -> Result<Option<Figures>> {
    let Some(swept) = call.sweep("scale", &[])? else { return Ok(None) };
    let (mut text, mut marks) = (String::new(), BTreeMap::<String, Vec<(f64, f64)>>::new());
    // Groups of one title differ in what goes with the number of nodes.
    for groups in swept.grid.groups.chunk_by(|one, other| one.title == other.title) {
        let cells: Result<Vec<_>> = groups.iter().map(|group| swept.cells(&group.name)).collect();
        let cells = cells?.concat();
        let _ = writeln!(text, "### {}\n\n{}", groups[0].title, table(&cells));
        for cell in &cells {
            let seconds = cell.spread(|outcome| outcome.processor_seconds);
            let name = cell.values.get(1).cloned().unwrap_or_default();
            marks.entry(name).or_default().extend(seconds.map(|seconds| (f64::from(nodes(cell)), seconds.mean)));
        }
    }
    let title = "Processor seconds of a run by the number of nodes";
    let marks = marks.into_iter().map(|(name, points)| Mark { name, points }).collect();
    let plot = Scatter { title, x: "nodes", y: "seconds", marks }.draw()?;
    let _ = writeln!(text, "![{title}](scale.svg)\n");
    text += "### Exchanges of everything until a thousandth of the disagreement is left\n\nCounted is \
             Σ‖x − x̄‖² + Σ‖x − x̂‖², x̂ being what neighbours have of a model: what it was before the exchange. The theory \
             beside it is of the first sum alone.\n\n";
    text += &exchanges(if call.settings.quick { &[16, 32] } else { &[16, 64, 256, 1024] }).to_string();
    text += "\n";
    text += &swept.missing()?;
    text += &effort(&swept)?;
    Ok(Some(Figures { text, plots: vec![("scale.svg".into(), plot)] }))
}

/// One line for each cell, beside the one of the same method with half the nodes.
fn table(cells: &[Cell]) -> Table {
    let mut table = Table::new(&[
        ("method", Align::Left),
        ("nodes", Align::Right),
        ("processor seconds", Align::Right),
        ("times as many as with half the nodes", Align::Right),
        ("kB sent per node", Align::Right),
        ("rounds", Align::Right),
        ("virtual seconds", Align::Right),
        ("averaged model", Align::Right),
    ]);
    let mut sorted: Vec<&Cell> = cells.iter().collect();
    sorted.sort_by_key(|cell| (cell.values.get(1).cloned(), nodes(cell)));
    let processor = |outcome: &Outcome| outcome.processor_seconds;
    let seconds = |cell: &Cell| cell.spread(processor).map(|spread| spread.mean);
    for &cell in &sorted {
        let half = |other: &&&Cell| other.values.get(1) == cell.values.get(1) && 2 * nodes(other) == nodes(cell);
        let before = sorted.iter().find(half).and_then(|half| seconds(half));
        let growth = seconds(cell).zip(before).map(|(seconds, before)| format!("{:.1}", seconds / before));
        table.row([
            cell.values.get(1).cloned().unwrap_or_default(),
            nodes(cell).to_string(),
            cell.show(1, processor),
            growth.unwrap_or_else(|| "–".into()),
            cell.show(1, |outcome| Some(outcome.bytes as f64 / 1e3 / f64::from(nodes(cell)))),
            cell.show(0, |outcome| Some(outcome.rounds as f64)),
            cell.show(2, |outcome| Some(outcome.virtual_seconds)),
            cell.show(3, |outcome| outcome.accuracy),
        ]);
    }
    table
}

fn nodes(cell: &Cell) -> u32 {
    cell.settings.get("nodes").and_then(|nodes| nodes.parse().ok()).unwrap_or(1)
}

/// D-PSGD of short vectors, beside `ln 1000 / (−2 ln(1 − δ))`.
fn exchanges(counts: &[u32]) -> Table {
    let mut table = Table::new(&[
        ("graph", Align::Left),
        ("nodes", Align::Right),
        ("spectral gap δ", Align::Right),
        ("exchanges", Align::Right),
        ("at the slowest, ln 1000 / (−2 ln(1 − δ))", Align::Right),
    ]);
    for &nodes in counts {
        let side = (1..=nodes.isqrt()).rev().find(|side| nodes.is_multiple_of(*side)).unwrap_or(1);
        let graphs = [
            ("ring", Topology::ring(nodes)),
            ("torus", Topology::torus(nodes / side, side)),
            ("exponential", Topology::exponential(nodes)),
        ];
        for (name, topology) in graphs {
            let mixing = Mixing::metropolis(&topology);
            let gap = mixing.spectral_gap();
            let theory = (1000_f64.ln() / (-2.0 * (1.0 - gap).ln())).ceil();
            // Beyond this nobody waits.
            let most = (theory as u32 + 2).min(3000);
            let course = agreement::<f32>(
                &mixing,
                Rule::Choco { step: 1.0 },
                &mut Identity,
                &Tuning { values: 8, exchanges: most, ..Tuning::default() },
            )
            .course;
            let done = course.iter().position(|&apart| apart <= 1e-3);
            table.row([
                name.into(),
                nodes.to_string(),
                format!("{gap:.2e}"),
                done.map_or_else(|| format!("more than {most}"), |done| (done + 1).to_string()),
                format!("{theory:.0}"),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_compared_with_those_of_half_the_nodes_and_no_others() {
        let cell = |nodes: u32, seconds: f64| Cell {
            values: vec![nodes.to_string(), "choco".to_owned()],
            settings: [("nodes".to_owned(), nodes.to_string())].into(),
            seeds: vec![1, 2],
            outcomes: vec![
                Outcome { processor_seconds: Some(seconds), ..Outcome::default() },
                // Of an earlier build, which knew the clock alone.
                Outcome { seconds: 1e6, ..Outcome::default() },
            ],
        };
        let text =
            table(&[cell(125, 1.0), cell(250, 3.0), cell(300, 4.0), cell(500, 12.0), cell(1000, 60.0)]).to_string();
        let growth = |nodes: &str| {
            let line = text.lines().find(|line| line.split('|').any(|cell| cell.trim() == nodes)).expect("a line");
            line.split('|').nth(4).expect("the fourth column").trim().to_owned()
        };
        let found = ["125", "250", "300", "500", "1000"].map(growth);
        assert_eq!(found, ["–", "3.0", "–", "4.0", "5.0"], "{text}");
    }

    #[test]
    fn every_graph_has_as_many_nodes_as_its_line_says() {
        let text = exchanges(&[12, 32]).to_string();
        let gap = |topology: &Topology| format!("{:.2e}", Mixing::metropolis(topology).spectral_gap());
        for (nodes, torus) in [(" 12 |", Topology::torus(4, 3)), (" 32 |", Topology::torus(8, 4))] {
            let line = text.lines().find(|line| line.contains("torus") && line.contains(nodes)).expect("a line");
            assert!(line.contains(&gap(&torus)), "{line}");
        }
    }
}
