//! How fast nodes agree that only tell each other parts of what has changed, beside the theory: pure vectors, no training.

use super::call::Call;
use super::page::Figures;
use crate::report::{Align, Table};
use anyhow::{Result, anyhow, bail};
use kronfleet_core::compress::{Blockwise, Compressor, Identity, Kept, RandomK, Sign, TopK};
use kronfleet_core::gossip::{
    AdaGossip, Agreement, Mixing, Rule, Topology, Tuning, Unit, agreement, kept, theoretical, tune,
};
use kronfleet_core::seed::Seed;
use kronfleet_core::transport::NodeId;
use plotters::prelude::*;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

type Graph = (&'static str, fn() -> Topology);

/// The graphs, from slow to fast.
const GRAPHS: [Graph; 6] = [
    ("ring 32", || Topology::ring(32)),
    ("ring 16", || Topology::ring(16)),
    ("ring 8", || Topology::ring(8)),
    ("torus 4×4", || Topology::torus(4, 4)),
    ("hypercube 16", || Topology::hypercube(4)),
    ("complete 16", || Topology::complete(16)),
];

/// What is told, and the part of values that are.
const TOLD: [(&str, u32); 3] = [("top 50 %", 500_000), ("top 10 %", 100_000), ("top 1 %", 10_000)];

/// Step sizes tried on the ring of 16 with a tenth of the values.
const STEPS: [f64; 6] = [1.0, 0.8, 0.6, 0.4, 0.2, 0.05];

pub(super) fn run(call: &Call<'_>) -> Result<Option<Figures>> {
    let (values, exchanges) = if call.settings.quick { (100, 30) } else { (400, 400) };
    let tuning = Tuning { values, exchanges, ..Tuning::default() };
    println!("consensus: {} graphs, vectors of {} values: less than two minutes", GRAPHS.len(), tuning.values);
    if call.settings.dry_run {
        return Ok(None);
    }
    let mut text = format!(
        "Normally distributed vectors of {} values, `f64`, no training. A rate is what Σ‖x − x̄‖² + Σ‖x − x̂‖² is multiplied \
         with in one exchange, as the mean over the last exchanges before rounding shows.\n\n### Everything is told\n\n",
        tuning.values
    );
    text += &plain(&tuning);
    text += "\n\n### CHOCO, with the step of the theory and with one found by trial\n\n";
    text += &compressed(call, &tuning)?;
    let (table, plot) = steps(&tuning)?;
    let _ = write!(
        text,
        "\n\n### CHOCO on a ring of 16, a tenth told\n\n{table}\n\n![Agreement over exchanges](consensus.svg)"
    );
    let long = Tuning { exchanges: tuning.exchanges * 5 / 2, ..tuning };
    let _ = write!(
        text,
        "\n\n### Steps by trial and steps that follow what is measured\n\nWhat is left of Σ‖x − x̄‖² + Σ‖x − x̂‖² after {} \
         exchanges; how far the mean has moved, Σ‖x̄ − x̄₀‖², beside it for AdaGossip, in parts of the first disagreement. γ \
         by trial is found with 100 exchanges of CHOCO, AdaGossip takes it times the root mean square of the errors that it \
         observes (`--consensus-step auto`), and nothing is given to AdaGossip with `--consensus-step measured`.\n\n",
        long.exchanges
    );
    text += &measured(call, &long)?;
    let (table, ada) = fixed(&long)?;
    let _ = write!(
        text,
        "\n\n### AdaGossip on a ring of 16\n\nWhat is left after {} exchanges, and how far the mean has moved. Steps of at \
         most 0.4, measured ones of at most 1.\n\n{table}\n\n![A hundredth told](consensus-ada.svg)",
        long.exchanges
    );
    Ok(Some(Figures { text, plots: vec![("consensus.svg".into(), plot), ("consensus-ada.svg".into(), ada)] }))
}

/// `x ← Wx`, beside `(1 − δ)²`.
fn plain(tuning: &Tuning) -> String {
    let mut table = Table::new(&[
        ("graph", Align::Left),
        ("spectral gap δ", Align::Right),
        ("measured rate", Align::Right),
        ("(1 − δ)²", Align::Right),
    ]);
    for (name, graph) in GRAPHS {
        let mixing = Mixing::metropolis(&graph());
        let gap = mixing.spectral_gap();
        let course = choco(&mixing, 1.0, &mut Identity, tuning).course;
        // Copies are a step behind, so that the first exchange tells nothing of the rate.
        let measured = match course.iter().position(|&apart| apart < ROUNDING) {
            Some(equal @ ..2) => format!("equal after {}", equal + 1),
            _ => shown(rate(&course)),
        };
        table.row([name.into(), format!("{gap:.5}"), measured, format!("{:.5}", (1.0 - gap) * (1.0 - gap))]);
    }
    table.to_string()
}

/// With parts told: what is lost of disagreement in an exchange, beside the theory's `δ²ω/82`.
fn compressed(call: &Call<'_>, tuning: &Tuning) -> Result<String> {
    let mut table = Table::new(&[
        ("graph", Align::Left),
        ("told", Align::Left),
        ("ω, at least", Align::Right),
        ("ω, as measured", Align::Right),
        ("γ of the theory", Align::Right),
        ("1 − rate with it", Align::Right),
        ("of the theory, at least: δ²ω/82", Align::Right),
        ("γ by trial", Align::Right),
        ("1 − rate with it", Align::Right),
    ]);
    for (name, graph) in GRAPHS {
        let mixing = Mixing::metropolis(&graph());
        let (gap, beta) = (mixing.spectral_gap(), norm(&mixing));
        let mut told: Vec<(&str, Box<dyn Compressor<f64>>)> = TOLD
            .iter()
            .map(|&(told, share)| (told, Box::new(TopK::new(Kept::per_million(share))) as Box<dyn Compressor<f64>>))
            .collect();
        told.push(("random 10 %", Box::new(RandomK::contracting(Kept::per_million(100_000)))));
        for (what, mut compressor) in told {
            if call.stop.load(Ordering::Relaxed) {
                bail!("stopped");
            }
            let compressor = &mut *compressor;
            let least = compressor.contraction(tuning.values);
            let measured = kept(compressor, tuning.values, Seed(0)).ok_or_else(|| anyhow!("{what} keeps nothing"))?;
            let theory = theoretical(gap, least, beta);
            // Copies have to be told before models move at the theory's pace.
            let long = Tuning { exchanges: 5 * tuning.exchanges, ..*tuning };
            let slow = rate(&choco(&mixing, theory, compressor, &long).course);
            let step = tune(&mixing, compressor, &trial(tuning));
            let step = step.ok_or_else(|| anyhow!("{name}, {what}: nodes agree with no step that is tried"))?;
            let fast = rate(&choco(&mixing, step, compressor, tuning).course);
            table.row([
                name.into(),
                what.into(),
                format!("{least:.3}"),
                format!("{measured:.3}"),
                format!("{theory:.1e}"),
                lost(slow),
                format!("{:.1e}", gap * gap * least / 82.0),
                format!("{step:.2}"),
                lost(fast),
            ]);
        }
    }
    Ok(table.to_string())
}

/// What each of some steps does, and its course.
fn steps(tuning: &Tuning) -> Result<(String, String)> {
    let mixing = Mixing::metropolis(&Topology::ring(16));
    let mut compressor = TopK::new(Kept::per_million(100_000));
    let mut table = Table::new(&[("γ", Align::Right), ("measured rate", Align::Right)]);
    let mut courses = vec![];
    for step in STEPS {
        let course = choco(&mixing, step, &mut compressor, tuning).course;
        table.row([format!("{step}"), shown(rate(&course))]);
        courses.push((format!("γ = {step}"), course));
    }
    let everything = choco(&mixing, 1.0, &mut Identity, tuning).course;
    courses.push(("everything told, γ = 1".into(), everything));
    let mut svg = String::new();
    draw("CHOCO on a ring of 16, a tenth of the values told", &courses, &mut svg)?;
    Ok((table.to_string(), svg))
}

type Make = fn() -> Box<dyn Compressor<f64>>;

/// Codes that leave very different parts untold.
const CODES: [(&str, Make); 4] = [
    ("top 10 %", || Box::new(TopK::new(Kept::per_million(100_000)))),
    ("top 1 %", || Box::new(TopK::new(Kept::per_million(10_000)))),
    ("signs", || Box::new(Sign)),
    ("8 bits", || Box::new(Blockwise)),
];

/// CHOCO and AdaGossip with steps by trial, beside AdaGossip with measured ones.
fn measured(call: &Call<'_>, tuning: &Tuning) -> Result<String> {
    let mut table = Table::new(&[
        ("graph", Align::Left),
        ("told", Align::Left),
        ("γ by trial", Align::Right),
        ("CHOCO", Align::Right),
        ("AdaGossip, by trial", Align::Right),
        ("moved", Align::Right),
        ("AdaGossip, measured", Align::Right),
        ("moved", Align::Right),
        ("ω at the end", Align::Right),
    ]);
    for (name, graph) in GRAPHS {
        let mixing = Mixing::metropolis(&graph());
        for (told, code) in CODES {
            if call.stop.load(Ordering::Relaxed) {
                bail!("stopped");
            }
            let step = tune(&mixing, &mut *code(), &trial(tuning));
            let step = step.ok_or_else(|| anyhow!("{name}, {told}: nodes agree with no step that is tried"))?;
            let by_trial = AdaGossip { step, cap: 0.4, unit: Unit::Error, ..AdaGossip::default() };
            let [by_trial, by_measure] = [by_trial, MEASURED].map(|rule| ada(&mixing, rule, code, tuning));
            table.row([
                name.into(),
                told.into(),
                format!("{step:.2}"),
                left(&choco(&mixing, step, &mut *code(), tuning)),
                left(&by_trial),
                moved(&by_trial),
                left(&by_measure),
                moved(&by_measure),
                format!("{:.3}", by_measure.contraction),
            ]);
        }
    }
    Ok(table.to_string())
}

/// AdaGossip with nothing chosen.
const MEASURED: AdaGossip =
    AdaGossip { decay: 0.999, epsilon: 1e-8, step: 1.0, cap: 1.0, correction: true, unit: Unit::Measured };

/// AdaGossip with steps of all kinds on the ring of 16, and its courses where a hundredth is told.
fn fixed(tuning: &Tuning) -> Result<(String, String)> {
    let mixing = Mixing::metropolis(&Topology::ring(16));
    let mut columns = vec![("γ".to_owned(), Align::Left)];
    let codes = &CODES[..3];
    for (told, _) in codes {
        columns.extend([(format!("{told}: left"), Align::Right), ("moved".to_owned(), Align::Right)]);
    }
    let columns: Vec<(&str, Align)> = columns.iter().map(|(name, align)| (name.as_str(), *align)).collect();
    let mut table = Table::new(&columns);
    let fixed = |step, unit| AdaGossip { step, cap: 0.4, unit, ..AdaGossip::default() };
    let mut rules: Vec<(String, AdaGossip)> = vec![];
    rules.extend([0.1, 0.01, 0.001].map(|step| (format!("{step} in parameters"), fixed(step, Unit::Parameter))));
    rules.extend([0.4, 0.16, 0.063, 0.025].map(|step| (format!("{step} in errors"), fixed(step, Unit::Error))));
    rules.push(("measured".into(), MEASURED));
    rules.push(("half of measured".into(), AdaGossip { step: 0.5, ..MEASURED }));
    let mut courses = vec![];
    for (name, rule) in rules {
        let mut row = vec![name.clone()];
        for (told, code) in codes {
            let agreement = ada(&mixing, rule, *code, tuning);
            row.extend([left(&agreement), moved(&agreement)]);
            if *told == "top 1 %" {
                courses.push((name.clone(), agreement.course));
            }
        }
        table.row(row);
    }
    let mut svg = String::new();
    draw("AdaGossip on a ring of 16, a hundredth of the values told", &courses, &mut svg)?;
    Ok((table.to_string(), svg))
}

/// Trials as `--consensus-step auto` makes them, or shorter ones where all is short.
fn trial(tuning: &Tuning) -> Tuning {
    Tuning { exchanges: tuning.exchanges.min(100), ..*tuning }
}

fn choco(mixing: &Mixing, step: f64, compressor: &mut dyn Compressor<f64>, tuning: &Tuning) -> Agreement {
    agreement(mixing, Rule::Choco { step }, compressor, tuning)
}

fn ada(mixing: &Mixing, rule: AdaGossip, code: Make, tuning: &Tuning) -> Agreement {
    agreement(mixing, Rule::Ada(rule), &mut *code(), tuning)
}

fn left(agreement: &Agreement) -> String {
    if agreement.last() < 1.0 { format!("{:.1e}", agreement.last()) } else { "nodes part".into() }
}

fn moved(agreement: &Agreement) -> String {
    if agreement.last() < 1.0 { format!("{:.1e}", agreement.moved) } else { "–".into() }
}

/// What is left of disagreement when values are equal to the last digits.
const ROUNDING: f64 = 1e-22;

/// What agreement is multiplied with in an exchange, over the last quarter of those before values are equal to the last
/// digits; above 1, or not a number, if nodes part.
fn rate(course: &[f64]) -> f64 {
    let end = course.iter().position(|&apart| apart < ROUNDING).unwrap_or(course.len());
    let [first, last] = [end * 3 / 4, end.saturating_sub(1)];
    if end == 0 {
        0.0
    } else if first >= last {
        course[last]
    } else {
        (course[last] / course[first]).powf(1.0 / (last - first) as f64)
    }
}

fn shown(rate: f64) -> String {
    if rate < 1.0 { format!("{rate:.5}") } else { "nodes part".into() }
}

fn lost(rate: f64) -> String {
    if rate < 1.0 { format!("{:.1e}", 1.0 - rate) } else { "nodes part".into() }
}

/// `β = ‖I − W‖₂`, by power iteration.
fn norm(mixing: &Mixing) -> f64 {
    let mut random = Seed(0).derive("norm", 0).random();
    let mut x: Vec<f64> = (0..mixing.nodes()).map(|_| random.normal()).collect();
    let mut norm = 0.0;
    for _ in 0..2000 {
        let row = |node: u32| {
            let row = mixing.row(NodeId(node));
            let others: f64 = row.others.iter().map(|(other, weight)| weight * x[other.0 as usize]).sum();
            (1.0 - row.own) * x[node as usize] - others
        };
        let next: Vec<f64> = (0..mixing.nodes()).map(row).collect();
        norm = next.iter().map(|value| value * value).sum::<f64>().sqrt();
        x = next.into_iter().map(|value| value / norm).collect();
    }
    norm
}

fn draw(caption: &str, courses: &[(String, Vec<f64>)], svg: &mut String) -> Result<()> {
    plot(caption, courses, svg).map_err(|error| anyhow!("cannot draw: {error}"))
}

fn plot(caption: &str, courses: &[(String, Vec<f64>)], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (900, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = courses.iter().map(|(_, course)| course.len()).max().unwrap_or(1);
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(60)
        .build_cartesian_2d(0..most, (1e-9_f64..1e3).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("exchanges")
        .y_desc("disagreement, relative to the first")
        .y_label_formatter(&|value| format!("{value:.0e}"))
        .light_line_style(WHITE)
        .draw()?;
    for (index, (name, course)) in courses.iter().enumerate() {
        let colour = Palette99::pick(index).mix(0.9);
        let points = (1..).zip(course.iter().copied()).take_while(|(_, apart)| (1e-9..1e3).contains(apart));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::LowerLeft).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_what_shrinks_so() {
        let course = |rate: f64| (0..200).map(|exchange| rate.powi(exchange)).collect::<Vec<_>>();
        for expected in [0.999, 0.9, 0.3, 1.2] {
            assert!((rate(&course(expected)) - expected).abs() < 1e-9, "{expected}");
        }
        assert_eq!(shown(rate(&[f64::INFINITY; 9])), "nodes part");
        assert!(rate(&[1e-30, 0.0]) < 1e-9);
    }

    #[test]
    fn norms_are_those_of_the_spectrum() {
        // A ring's eigenvalues are (1 + 2 cos 2πk/n)/3, and the least of an even one is −1/3.
        assert!((norm(&Mixing::metropolis(&Topology::ring(8))) - 4.0 / 3.0).abs() < 1e-9);
        assert!((norm(&Mixing::metropolis(&Topology::complete(5))) - 1.0).abs() < 1e-9);
    }
}
