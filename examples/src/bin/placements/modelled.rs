//! Placements by counting: operations, values and memory of each member, and times by the figures of a machine.

use crate::shapes::{elements, shapes};
use anyhow::Result;
use kronfleet_core::placement::{Machine, Placement, Plan, Work};
use kronfleet_core::preconditioner::Form;
use kronfleet_examples::report::{Align, Table};
use serde::Serialize;
use std::fmt::Write as _;

const OWNER_REDUCE: &str = "owner-reduce";

/// The published placements, each in the form it was published with.
pub(crate) fn published(share: f64) -> Vec<(String, Placement, Form)> {
    vec![
        ("D-KFAC".into(), Placement::d_kfac(), Form::Inverse),
        ("MPD-KFAC, eigen".into(), Placement::mpd(true), Form::Eigen),
        ("MPD-KFAC, inverse".into(), Placement::mpd(false), Form::Inverse),
        ("SPD-KFAC".into(), Placement::spd(), Form::Inverse),
        (format!("KAISA({share})"), Placement::kaisa(share), Form::Eigen),
        (OWNER_REDUCE.into(), Placement::owner_reduce(), Form::Inverse),
        ("DP-KFAC".into(), Placement::dp_kfac(), Form::Inverse),
    ]
}

/// What one placement costs; times in seconds of the slowest member, per update.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) model: String,
    pub(crate) members: usize,
    pub(crate) placement: String,
    pub(crate) computation: f64,
    pub(crate) communication: f64,
    /// Bytes that travel, all members together, without the gradients.
    pub(crate) bytes: f64,
    /// Bytes of running averages and decompositions at the member that keeps most.
    pub(crate) memory: f64,
    /// Factors that the busiest member decomposes.
    pub(crate) decomposed: usize,
}

/// The costs of all published placements.
pub(crate) fn lines(model: &str, members: usize, batch: usize, share: f64, machine: Machine) -> Result<Vec<Line>> {
    let layers = shapes(model)?;
    let line = |(name, placement, form): (String, Placement, Form)| {
        let plan = Plan::new(&placement, &layers, members, &Work { form, batch, machine });
        let seconds = plan.seconds();
        let moved = [plan.statistics(), plan.decompositions(), plan.directions()];
        let costs = || (0..members).map(|member| plan.cost(member));
        Line {
            model: model.to_owned(),
            members,
            placement: name,
            computation: seconds.computation(),
            communication: seconds.communication(),
            bytes: moved.iter().map(|traffic| traffic.values()).sum::<u64>() as f64 * machine.value,
            memory: costs().map(|cost| cost.values).max().unwrap_or(0) as f64 * machine.value,
            decomposed: costs().map(|cost| cost.decomposed).max().unwrap_or(0),
        }
    };
    Ok(published(share).into_iter().map(line).collect())
}

/// A table of them, DP-KFAC beside the best of the others.
pub(crate) fn table(model: &str, members: usize, lines: &[Line]) -> Result<String> {
    let [parameters, whole, triangles] = elements(&shapes(model)?).map(|count| count as f64 / 1e6);
    let mut text = format!(
        "{model}, {members} members: {parameters:.3} M parameters, factors of {whole:.2} M elements ({triangles:.2} M in \
         triangles)\n\n"
    );
    let mut table = Table::new(&[
        ("placement", Align::Left),
        ("computation", Align::Right),
        ("communication", Align::Right),
        ("together", Align::Right),
        ("travels", Align::Right),
        ("memory", Align::Right),
        ("decomposed", Align::Right),
    ]);
    for line in lines {
        let milliseconds = |seconds: f64| format!("{:.1} ms", 1e3 * seconds);
        table.row([
            line.placement.clone(),
            milliseconds(line.computation),
            milliseconds(line.communication),
            milliseconds(line.computation + line.communication),
            format!("{:.1} MB", line.bytes / 1e6),
            format!("{:.1} MB", line.memory / 1e6),
            line.decomposed.to_string(),
        ]);
    }
    write!(text, "{table}")?;
    if let Some((own, others)) = lines.split_last() {
        let total = |line: &Line| line.computation + line.communication;
        // Nobody has published a measurement of reductions to owners.
        let others = others
            .iter()
            .filter(|line| line.placement != OWNER_REDUCE)
            .min_by(|one, other| total(one).total_cmp(&total(other)));
        if let Some(best) = others {
            writeln!(
                text,
                "\nDP-KFAC against {}, the fastest before it: computation {:.2}×, communication {:.2}×, memory {:.2}× \
                 less",
                best.placement,
                best.computation / own.computation,
                best.communication / own.communication,
                best.memory / own.memory
            )?;
        }
    }
    Ok(text)
}
