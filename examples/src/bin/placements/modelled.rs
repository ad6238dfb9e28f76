//! Placements by counting: operations, values and memory of each member, and times by the figures of a machine.

use crate::dealing::Dealing;
use crate::link::Link;
use crate::rates::Rates;
use crate::shapes::{elements, held, shapes};
use anyhow::Result;
use kronfleet_core::placement::{Load, Machine, Placement, Plan, Work};
use kronfleet_core::preconditioner::Form;
use kronfleet_examples::report::{Align, Table};
use serde::Serialize;
use std::fmt::Write as _;

const OWNER_REDUCE: &str = "owner-reduce";

/// A placement by name, in the form it was published with.
pub(crate) type Named = (String, Placement, Form);

/// The published placements.
pub(crate) fn published(share: f64) -> Vec<Named> {
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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) model: String,
    pub(crate) members: usize,
    pub(crate) link: &'static str,
    pub(crate) placement: String,
    pub(crate) statistics: f64,
    pub(crate) statistics_exchange: f64,
    pub(crate) decompositions: f64,
    pub(crate) decompositions_exchange: f64,
    pub(crate) directions: f64,
    pub(crate) directions_exchange: f64,
    pub(crate) computation: f64,
    pub(crate) communication: f64,
    /// Bytes that travel, all members together, without the gradients.
    pub(crate) bytes: f64,
    /// Bytes that the member with most has for factors: statistics of a batch, running averages, decompositions twice and what
    /// is decomposed in, as [`Plan::memory`] has them.
    pub(crate) memory: f64,
    /// The same with what every member of a training holds beside them.
    pub(crate) peak: f64,
    /// Factors that the busiest member decomposes.
    pub(crate) decomposed: usize,
}

impl Line {
    /// Of one placement of these layers among so many members.
    pub(crate) fn new(
        model: &str,
        layers: &[Load],
        members: usize,
        link: &'static str,
        named: Named,
        work: Work,
    ) -> Self {
        let (placement_name, placement, _) = named;
        let plan = Plan::new(&placement, layers, members, &work);
        let seconds = plan.seconds();
        let moved = [plan.statistics(), plan.decompositions(), plan.directions()];
        let costs: Vec<_> = (0..members).map(|member| plan.cost(member)).collect();
        let value = work.machine.value;
        let memory = (0..members).map(|member| plan.memory(member).total()).max().unwrap_or(0) as f64 * value;
        Self {
            model: model.to_owned(),
            members,
            link,
            placement: placement_name,
            statistics: seconds.statistics,
            statistics_exchange: seconds.statistics_exchange,
            decompositions: seconds.decompositions,
            decompositions_exchange: seconds.decompositions_exchange,
            directions: seconds.directions,
            directions_exchange: seconds.directions_exchange,
            computation: seconds.computation(),
            communication: seconds.communication(),
            bytes: moved.iter().map(|traffic| traffic.values()).sum::<u64>() as f64 * value,
            memory,
            peak: memory + held(layers, work.batch) as f64 * value,
            decomposed: costs.iter().map(|cost| cost.decomposed).max().unwrap_or(0),
        }
    }

    /// Seconds of computing and exchanging.
    pub(crate) fn total(&self) -> f64 {
        self.computation + self.communication
    }
}

/// A network among so many members behind one link, under every published placement.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) model: String,
    pub(crate) members: usize,
    pub(crate) link: Link,
    pub(crate) lines: Vec<Line>,
}

impl Counted {
    /// The costs of all published placements.
    ///
    /// # Errors
    /// If there is no such network.
    pub(crate) fn new(
        model: &str,
        members: usize,
        batch: usize,
        share: f64,
        link: Link,
        rates: Rates,
        dealing: &Dealing,
    ) -> Result<Self> {
        let layers = dealing.layers(shapes(model)?);
        let line = |(name, placement, form): Named| {
            let named = (name, dealing.placement(placement), form);
            let machine: Machine = link.behind(rates.machine(form));
            Line::new(model, &layers, members, link.name(), named, Work { form, batch, machine })
        };
        let lines = published(share).into_iter().map(line).collect();
        Ok(Self { model: model.to_owned(), members, link, lines })
    }

    /// DP-KFAC, and the fastest of those published before it.
    pub(crate) fn contest(&self) -> Option<(&Line, &Line)> {
        let (own, others) = self.lines.split_last()?;
        // Nobody has published a measurement of reductions to owners.
        let others = others.iter().filter(|line| line.placement != OWNER_REDUCE);
        Some((own, others.min_by(|one, other| one.total().total_cmp(&other.total()))?))
    }

    /// A table of them, DP-KFAC beside the best of the others.
    pub(crate) fn table(&self) -> Result<String> {
        let [parameters, whole, triangles] = elements(&shapes(&self.model)?).map(|count| count as f64 / 1e6);
        let mut text = format!(
            "{}, {} members, {}: {parameters:.3} M parameters, factors of {whole:.2} M elements ({triangles:.2} M in \
             triangles)\n\n",
            self.model,
            self.members,
            self.link.words()
        );
        let mut table = Table::new(&[
            ("placement", Align::Left),
            ("computation", Align::Right),
            ("communication", Align::Right),
            ("together", Align::Right),
            ("travels", Align::Right),
            ("memory", Align::Right),
            ("peak", Align::Right),
            ("decomposed", Align::Right),
        ]);
        for line in &self.lines {
            let milliseconds = |seconds: f64| format!("{:.1} ms", 1e3 * seconds);
            let megabytes = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
            table.row([
                line.placement.clone(),
                milliseconds(line.computation),
                milliseconds(line.communication),
                milliseconds(line.total()),
                megabytes(line.bytes),
                megabytes(line.memory),
                megabytes(line.peak),
                line.decomposed.to_string(),
            ]);
        }
        write!(text, "{table}")?;
        if let Some((own, best)) = self.contest() {
            writeln!(
                text,
                "\nDP-KFAC against {}, the fastest before it: computation {:.2}×, communication {:.2}×, memory {:.2}×, \
                 peak {:.2}× less",
                best.placement,
                best.computation / own.computation,
                best.communication / own.communication,
                best.memory / own.memory,
                best.peak / own.peak
            )?;
        }
        Ok(text)
    }
}

/// Seconds of an update behind one link: placements down, networks across.
pub(crate) fn times(counted: &[&Counted]) -> Table {
    let mut heading = vec![("placement", Align::Left)];
    heading.extend(counted.iter().map(|counted| (counted.model.as_str(), Align::Right)));
    let mut table = Table::new(&heading);
    let rows = counted.first().map_or(0, |counted| counted.lines.len());
    for row in 0..rows {
        let cells = counted.iter().map(|counted| {
            let line = &counted.lines[row];
            format!("{:.2} + {:.2}", line.computation, line.communication)
        });
        table.row(std::iter::once(counted[0].lines[row].placement.clone()).chain(cells));
    }
    table
}

/// How many times less DP-KFAC takes than the fastest before it.
pub(crate) fn ratios(counted: &[Counted]) -> Table {
    let mut table = Table::new(&[
        ("model", Align::Left),
        ("members", Align::Right),
        ("link", Align::Left),
        ("fastest before", Align::Left),
        ("computation", Align::Right),
        ("communication", Align::Right),
        ("together", Align::Right),
        ("memory", Align::Right),
        ("peak", Align::Right),
    ]);
    for counted in counted {
        let Some((own, best)) = counted.contest() else { continue };
        let ratio = |of: fn(&Line) -> f64| match (of(best), of(own)) {
            (best, own) if own > 0.0 => format!("{:.2}×", best / own),
            _ => "–".to_owned(),
        };
        table.row([
            counted.model.clone(),
            counted.members.to_string(),
            counted.link.name().to_owned(),
            best.placement.clone(),
            ratio(|line| line.computation),
            ratio(|line| line.communication),
            ratio(Line::total),
            ratio(|line| line.memory),
            ratio(|line| line.peak),
        ]);
    }
    table
}

/// Everything that was counted, a line for each placement.
pub(crate) fn csv(counted: &[Counted]) -> String {
    let mut text = String::from(
        "model,members,link,placement,statistics_s,statistics_exchange_s,decompositions_s,decompositions_exchange_s,\
         directions_s,directions_exchange_s,computation_s,communication_s,bytes,memory_bytes,peak_bytes,decomposed\n",
    );
    for line in counted.iter().flat_map(|counted| &counted.lines) {
        let _ = write!(text, "{},{},{},{}", line.model, line.members, line.link, line.placement.replace(',', ""));
        let seconds = [
            line.statistics,
            line.statistics_exchange,
            line.decompositions,
            line.decompositions_exchange,
            line.directions,
            line.directions_exchange,
            line.computation,
            line.communication,
        ];
        seconds.iter().for_each(|seconds| {
            let _ = write!(text, ",{seconds:.6}");
        });
        let _ = writeln!(text, ",{},{},{},{}", line.bytes, line.memory, line.peak, line.decomposed);
    }
    text
}
