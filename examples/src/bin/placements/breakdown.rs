//! The parts of an iteration beside those that were published: ResNet-50 on 64 GPUs (Shi et al. 2021, arXiv 2107.06533).

use crate::link::Link;
use crate::modelled::{Line, Named, published};
use crate::rates::Rates;
use crate::shapes::shapes;
use anyhow::Result;
use kronfleet_core::placement::{Load, Machine, Placement, Plan, Work};
use kronfleet_core::preconditioner::Form;
use kronfleet_examples::report::{Align, Table};
use std::fmt::Write as _;

/// The network and the members of what was published, and the samples of a batch.
const SETTING: (&str, usize, usize) = ("resnet50", 64, 32);

/// Parts of an iteration, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Parts {
    passes: f64,
    gradients: f64,
    statistics: f64,
    statistics_exchange: f64,
    decompositions: f64,
    decompositions_exchange: f64,
}

/// Of MPD-KFAC, as published.
const PUBLISHED: Parts = Parts {
    passes: 0.132,
    gradients: 0.065,
    statistics: 0.212,
    statistics_exchange: 0.170,
    decompositions: 0.051,
    decompositions_exchange: 0.134,
};
/// Whole iterations as published: D-KFAC, MPD-KFAC, SPD-KFAC.
const ITERATIONS: [f64; 3] = [0.853, 0.764, 0.676];

/// MPD-KFAC as it was measured there: factors apart, inverses handed to everybody, triangles on the wire.
fn mpd() -> Placement {
    Placement { apart: true, triangles: true, holders: 1.0, ..Placement::mpd(false) }
}

/// D-KFAC with triangles on the wire.
fn d_kfac() -> Placement {
    Placement { triangles: true, ..Placement::d_kfac() }
}

fn plan(placement: &Placement, layers: &[Load], machine: Machine) -> Plan {
    let (_, members, batch) = SETTING;
    Plan::new(placement, layers, members, &Work { form: Form::Inverse, batch, machine })
}

/// Operations of forward and backward pass for a batch.
fn passes(layers: &[Load]) -> f64 {
    let operations = layers.iter().map(|load| 6.0 * load.parameters() as f64 * load.positions as f64);
    operations.sum::<f64>() * SETTING.2 as f64
}

/// Parts of an iteration with a refresh. Directions, which are not published apart, are left out.
fn parts(placement: &Placement, layers: &[Load], machine: Machine) -> Parts {
    let plan = plan(placement, layers, machine);
    let seconds = plan.seconds();
    Parts {
        passes: passes(layers) / machine.passes,
        gradients: machine.seconds(&plan.gradients(), SETTING.1),
        statistics: seconds.statistics,
        statistics_exchange: seconds.statistics_exchange,
        decompositions: seconds.decompositions,
        decompositions_exchange: seconds.decompositions_exchange,
    }
}

impl Parts {
    fn all(&self) -> [(&'static str, f64); 6] {
        [
            ("forward and backward pass", self.passes),
            ("exchange of gradients", self.gradients),
            ("statistics", self.statistics),
            ("exchange of statistics", self.statistics_exchange),
            ("inversions", self.decompositions),
            ("exchange of inverses", self.decompositions_exchange),
        ]
    }

    fn total(&self) -> f64 {
        self.all().iter().map(|part| part.1).sum()
    }
}

/// The speed at which our counts give the published times of passes, statistics, their exchange and inversions: four figures
/// of one iteration. The other two parts and, but for these four in them, whole iterations then follow.
fn fitted(layers: &[Load]) -> Machine {
    let unit = Machine { products: 1.0, passes: 1.0, decompositions: 1.0, bandwidth: 1.0, latency: 0.0, value: 4.0 };
    let counts = plan(&mpd(), layers, unit).seconds();
    Machine {
        products: counts.statistics / PUBLISHED.statistics,
        passes: passes(layers) / PUBLISHED.passes,
        decompositions: counts.decompositions / PUBLISHED.decompositions,
        bandwidth: counts.statistics_exchange / PUBLISHED.statistics_exchange,
        ..unit
    }
}

/// What was published, what our counts say of this machine behind a link, and what they say at the published machine's speed.
pub(crate) fn breakdown(link: Link, rates: Rates, share: f64) -> Result<String> {
    let (model, members, batch) = SETTING;
    let layers = shapes(model)?;
    let fitted = fitted(&layers);
    let ours = link.behind(rates.machine(Form::Inverse));
    let mut text = format!(
        "An iteration of MPD-KFAC with a refresh, {model}, {members} members, batches of {batch}: published (64 GPUs), our \
         counts at the speed of one core of this machine behind {}, and our counts at the published machine's speed\n\n",
        link.words()
    );
    let mut table = Table::new(&[
        ("part", Align::Left),
        ("published", Align::Right),
        ("this machine", Align::Right),
        ("at the published speed", Align::Right),
    ]);
    let here = parts(&mpd(), &layers, ours).all();
    let there = parts(&mpd(), &layers, fitted);
    for (index, (name, seconds)) in PUBLISHED.all().into_iter().enumerate() {
        let fit = matches!(index, 0 | 2 | 3 | 4);
        let there = there.all()[index].1;
        let there = if fit { format!("{there:.3} s (fitted)") } else { format!("{there:.3} s") };
        table.row([name.to_owned(), format!("{seconds:.3} s"), format!("{:.3} s", here[index].1), there]);
    }
    let whole = [("D-KFAC", d_kfac()), ("MPD-KFAC", mpd()), ("SPD-KFAC", Placement::spd())];
    for ((name, placement), seconds) in whole.into_iter().zip(ITERATIONS) {
        let total = |machine: Machine| format!("{:.3} s", parts(&placement, &layers, machine).total());
        table.row([format!("an iteration of {name}"), format!("{seconds:.3} s"), total(ours), total(fitted)]);
    }
    writeln!(text, "{table}")?;
    writeln!(
        text,
        "The published machine's speed by our counts: passes {:.2}, statistics {:.2}, inversions {:.3} TFLOP/s, {:.1} Gb/s.\n",
        fitted.passes / 1e12,
        fitted.products / 1e12,
        fitted.decompositions / 1e12,
        fitted.bandwidth * 8e-9
    )?;
    write!(text, "{}", updates(&layers, fitted, share)?)?;
    Ok(text)
}

/// DP-KFAC against the others at the published machine's speed.
fn updates(layers: &[Load], fitted: Machine, share: f64) -> Result<String> {
    let (model, members, batch) = SETTING;
    let line = |named: Named| {
        // Eigenvectors at the rate of inversions, counted nine times as many operations.
        let work = Work { form: named.2, batch, machine: fitted };
        Line::new(model, layers, members, "fitted", named, work)
    };
    let lines: Vec<Line> = published(share).into_iter().map(line).collect();
    let mut table = Table::new(&[
        ("an update at that speed", Align::Left),
        ("computation", Align::Right),
        ("communication", Align::Right),
        ("peak", Align::Right),
        ("over DP-KFAC's", Align::Right),
    ]);
    let own = lines.last().expect("DP-KFAC is one of them");
    for line in &lines {
        let over = |of: fn(&Line) -> f64| of(line) / of(own);
        table.row([
            line.placement.clone(),
            format!("{:.1} ms", 1e3 * line.computation),
            format!("{:.1} ms", 1e3 * line.communication),
            format!("{:.2} GB", line.peak / 1e9),
            format!(
                "{:.2}×, {:.2}×, {:.2}×",
                over(|line| line.computation),
                over(|line| line.communication),
                over(|line| line.peak)
            ),
        ]);
    }
    let published = "Published for DP-KFAC against the best before it: computation 1.55 to 1.65×, communication 2.79 to 3.15×, \
                     memory 1.14 to 1.47× less (Zhang et al. 2022).";
    Ok(format!("{table}\n{published}\n"))
}

/// Whether a run covers what was published.
pub(crate) fn covers(models: &[String], members: &[u16]) -> bool {
    models.iter().any(|model| model == SETTING.0) && members.iter().any(|&count| usize::from(count) == SETTING.1)
}
