//! Sites and slow lines between them: time to an accuracy, beside what Coquelin et al. (2021) save.

use super::call::{Call, effort};
use super::page::Figures;
use super::scatter::{Mark, Scatter};
use crate::data::source::Source;
use crate::report::{Align, Table};
use crate::sweep::{self, Cell, Outcome, Run, Spread, SweepSettings, Swept};
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

/// What others are compared with.
const BASELINE: &str = "blocking";

/// Runs it, on all of Fashion-MNIST where it is installed, unless it is the setting of a paper that is asked for.
///
/// # Errors
/// If it is asked for what it does not have, or as [`Call::sweep`].
pub(super) fn run(call: &Call<'_>) -> Result<Option<Figures>> {
    ends_at_target(&call.settings.set)?;
    let data = if call.settings.full { Vec::new() } else { vec![data(call)] };
    let Some(swept) = call.sweep("daso", &data)? else { return Ok(None) };
    figures(&swept).map(Some)
}

/// The file of a study's folder that says how long a step takes: measured once, so that a study that is gone on with is one.
const STEP: &str = "step-duration";

/// Runs it with steps as long as they are on this machine.
///
/// # Errors
/// As [`run`], or if a step cannot be measured.
pub(super) fn measured(call: &Call<'_>) -> Result<Option<Figures>> {
    ends_at_target(&call.settings.set)?;
    let mut more = vec![data(call)];
    let path = call.output.join(STEP);
    let step = match fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => {
            let grid =
                SweepSettings::try_parse_from(["reproduce", call.name, &format!("--set={}", more[0])])?.grid()?.1;
            let runs = grid.runs()?;
            let step = format!("{}us", sweep::step(runs.first().context("a grid without runs")?)?.as_micros());
            if !call.settings.dry_run {
                fs::create_dir_all(&call.output).with_context(|| call.output.display().to_string())?;
                fs::write(&path, &step).with_context(|| path.display().to_string())?;
            }
            step
        }
    };
    println!("{}: a step takes {step}, as measured on this machine; kept in {}", call.name, path.display());
    more.push(format!("step-duration={step}"));
    let Some(swept) = call.sweep(call.name, &more)? else { return Ok(None) };
    let Figures { text, plots } = figures(&swept)?;
    let said = format!(
        "A step takes {step}: the fastest of nine times twenty steps of LeNet-5 with 32 images on one core of this machine, by \
         SGD.\n\n"
    );
    Ok(Some(Figures { text: said + &text, plots }))
}

/// All of Fashion-MNIST, where it is installed.
fn data(call: &Call<'_>) -> String {
    let installed = Source::FashionMnist.load().is_ok();
    if !installed {
        println!(
            "{}: the whole of Fashion-MNIST is not installed; its runs have the embedded 10,000 images",
            call.name
        );
    }
    format!("data={}", if installed { Source::FashionMnist } else { Source::Embedded })
}

/// Times are those of the ends of runs, which have to be where the target is reached.
fn ends_at_target(set: &[String]) -> Result<()> {
    let pairs = set.iter().filter_map(|pair| pair.split_once('='));
    let said: BTreeMap<String, &str> = pairs.map(|(key, value)| (Run::key(key), value)).collect();
    let [target, stop] = ["target-accuracy", "stop-at-accuracy"].map(|key| said.get(key).copied());
    if target != stop {
        bail!(
            "--set target-accuracy={}, stop-at-accuracy={}: times are those at which runs end: set both to the same",
            target.unwrap_or("as it is"),
            stop.unwrap_or("as it is")
        );
    }
    Ok(())
}

fn figures(swept: &Swept) -> Result<Figures> {
    let (mut text, mut plots) = (String::new(), Vec::new());
    for group in &swept.grid.groups {
        let cells = swept.cells(&group.name)?;
        let axis = group.keys().last().unwrap_or_default();
        let _ = writeln!(text, "### {}\n\n{}", group.title, table(axis, &cells));
        if axis == "method" {
            let svg = format!("daso-{}.svg", group.name);
            let _ = writeln!(text, "![{}]({svg})\n", group.title);
            plots.push((svg, scatter(&group.title, &cells).draw()?));
        }
    }
    text += &swept.missing()?;
    text += &effort(swept)?;
    Ok(Figures { text, plots })
}

/// The virtual time at which the averaged model had the target accuracy: runs end there.
fn seconds(outcome: &Outcome) -> Option<f64> {
    outcome.iterations.map(|_| outcome.virtual_seconds)
}

/// One line for each cell.
fn table(axis: &str, cells: &[Cell]) -> Table {
    let mut heading = vec![(axis, Align::Left)];
    let columns = ["seconds to target", "less than blocking, %", "steps", "ms a step", "MB sent", "accuracy there"];
    heading.extend(columns.map(|column| (column, Align::Right)));
    let mut table = Table::new(&heading);
    let baseline = cells.iter().find(|cell| cell.values.last().is_some_and(|value| value == BASELINE));
    for cell in cells {
        let saved = baseline.and_then(|baseline| saved(cell, baseline));
        let mut row = vec![cell.values.last().cloned().unwrap_or_default()];
        row.extend([
            cell.reached(1, seconds),
            saved.map_or("–".to_owned(), |saved| match cell.outcomes.len() {
                all if saved.count == all => format!("{saved:.0}"),
                all => format!("{saved:.0} ({} of {all})", saved.count),
            }),
            cell.reached(0, |outcome| outcome.iterations.map(|steps| steps as f64)),
            cell.show(0, |outcome| outcome.last.map(|last| 1e3 * outcome.virtual_seconds / last as f64)),
            cell.reached(1, |outcome| outcome.bytes_to_target.map(|bytes| bytes as f64 / 1e6)),
            cell.show(4, |outcome| outcome.accuracy),
        ]);
        table.row(row);
    }
    table
}

/// By how many percent of the baseline's time the target was reached earlier, seed by seed.
fn saved(cell: &Cell, baseline: &Cell) -> Option<Spread> {
    let saved: Vec<f64> =
        cell.pairs(baseline).filter_map(|(one, other)| Some(100.0 * (1.0 - seconds(one)? / seconds(other)?))).collect();
    Spread::of(&saved)
}

fn scatter<'a>(title: &'a str, cells: &[Cell]) -> Scatter<'a> {
    let mark = |cell: &Cell| {
        let point = |outcome: &Outcome| Some((seconds(outcome)?, outcome.bytes_to_target? as f64 / 1e6));
        let name = cell.values.last().cloned().unwrap_or_default();
        Mark { name, points: cell.whole().filter_map(|(_, outcome)| point(outcome)).collect() }
    };
    let marks = cells.iter().map(mark).collect();
    Scatter { title, x: "seconds to the accuracy", y: "MB sent by all nodes until then", marks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str, outcomes: &[(Option<u64>, f64)]) -> Cell {
        let outcome = |&(iterations, virtual_seconds): &(Option<u64>, f64)| Outcome {
            iterations,
            virtual_seconds,
            last: iterations.or(Some(300)),
            bytes_to_target: iterations.map(|steps| 1_000_000 * steps),
            ..Outcome::default()
        };
        Cell {
            values: vec![name.to_owned()],
            settings: BTreeMap::new(),
            seeds: (1..).take(outcomes.len()).collect(),
            outcomes: outcomes.iter().map(outcome).collect(),
        }
    }

    #[test]
    fn seeds_that_one_of_two_lacks_are_left_out() {
        let all = cell("blocking", &[(Some(100), 40.0), (Some(200), 80.0)]);
        let mut second = cell("daso", &[(Some(200), 60.0)]);
        second.seeds = vec![2];
        let saved = saved(&second, &all).expect("one pair");
        assert_eq!((saved.mean, saved.count), (25.0, 1));
    }

    #[test]
    fn runs_that_end_elsewhere_than_at_the_target_are_refused() {
        let refused = |words: &str| ends_at_target(&words.split(' ').map(String::from).collect::<Vec<_>>()).is_err();
        assert!(refused("target-accuracy=0.8") && refused("stop-at-accuracy=0.8"));
        assert!(refused("target-accuracy=0.8 stop-at-accuracy=0.81"));
        assert!(refused("target_accuracy=0.8"));
        assert!(!refused("batch=8") && !refused("target-accuracy=0.8 stop-at-accuracy=0.8"));
    }

    #[test]
    fn time_is_compared_seed_by_seed_where_the_target_was_reached() {
        let cells = [
            cell("blocking", &[(Some(100), 40.0), (Some(200), 80.0)]),
            cell("daso", &[(Some(100), 20.0), (Some(200), 60.0)]),
            cell("late", &[(None, 90.0), (Some(300), 120.0)]),
        ];
        let text = table("method", &cells).to_string();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).expect("a line").to_owned();
        // Of 40 and 80 seconds: 50 % and 25 %.
        assert!(line("daso").contains("38 ± 18"), "{text}");
        assert!(line("late").contains("120.0 (1 of 2)") && line("late").contains("-50 (1 of 2)"), "{text}");
        assert!(line("| blocking").contains("60.0 ± 28.3"), "{text}");
        let scatter = scatter("t", &cells);
        assert_eq!(scatter.marks.iter().map(|mark| mark.points.len()).collect::<Vec<_>>(), [2, 2, 1]);
    }
}
