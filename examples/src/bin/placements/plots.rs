//! Plots of what was counted and measured.

use crate::link::Link;
use crate::measured::Measured;
use crate::modelled::{Counted, Line};
use anyhow::Result;
use kronfleet_examples::report::{BarPanel, Curve, CurvePanel, scaling, stacked_bars};

/// A span in few digits.
fn span(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.1 => format!("{:.1} ms", 1e3 * seconds),
        seconds if seconds < 1.0 => format!("{:.0} ms", 1e3 * seconds),
        seconds if seconds < 100.0 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// Computation and communication of an update, by placement and network, among so many members behind one link.
pub(crate) fn shares(counted: &[&Counted], link: Link, members: usize) -> Result<String> {
    let bar = |line: &Line| (line.placement.clone(), vec![line.computation, line.communication], span(line.total()));
    let panel =
        |counted: &&Counted| BarPanel { title: counted.model.clone(), bars: counted.lines.iter().map(bar).collect() };
    let panels: Vec<BarPanel> = counted.iter().map(panel).collect();
    let title = format!("One update of the slowest of {members} members, links of {}", link.words());
    stacked_bars(&title, &["computation", "communication"], &panels)
}

/// An update's time over the number of members behind one link.
pub(crate) fn over_members(counted: &[&Counted], models: &[String], link: Link) -> Result<String> {
    let panel = |model: &String| {
        let mut curves: Vec<Curve> = Vec::new();
        for counted in counted.iter().filter(|counted| counted.model == *model) {
            for line in &counted.lines {
                let point = (line.members as f64, line.total());
                match curves.iter_mut().find(|curve| curve.name == line.placement) {
                    Some(curve) => curve.points.push(point),
                    None => curves.push(Curve { name: line.placement.clone(), points: vec![point] }),
                }
            }
        }
        CurvePanel { title: model.clone(), curves }
    };
    let panels: Vec<CurvePanel> = models.iter().map(panel).collect();
    let title = format!("Seconds of one update, computation and communication, links of {}", link.words());
    scaling(&title, ["members", "seconds"], &panels)
}

/// What a measured step takes of the processor: the clock says little where processes outnumber cores.
pub(crate) fn steps(measured: &[(String, Vec<Measured>)]) -> Result<String> {
    let bar = |line: &Measured| {
        let parts = vec![line.computing / 1e3, line.sending / 1e3];
        let note = span(parts.iter().sum());
        (line.placement.clone(), parts, note)
    };
    let panel = |(title, lines): &(String, Vec<Measured>)| BarPanel {
        title: title.clone(),
        bars: lines.iter().map(bar).collect(),
    };
    let panels: Vec<BarPanel> = measured.iter().map(panel).collect();
    let kinds = ["outside exchanges", "within exchanges"];
    stacked_bars("Processor time of a measured step, of the process that needs most", &kinds, &panels)
}
