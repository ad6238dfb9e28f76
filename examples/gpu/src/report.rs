//! The report.

use crate::device::Found;
use crate::laws::{Outcome, Tried};
use crate::measurement::{Effort, Figures, Rate, Step};
use crate::peak::{self, Peak};
use anyhow::Result;
use std::fmt::Write as _;

/// One device, and what came of it.
pub(crate) struct Section {
    pub(crate) found: Found,
    pub(crate) tried: Tried,
    pub(crate) figures: Figures,
}

/// The whole report in Markdown.
pub(crate) fn write(sections: &[Section], cpu: (usize, &Figures), effort: &Effort, missing: &[String]) -> String {
    let mut text = format!(
        "# GPUs: laws and figures\n\nkronfleet {}, {} on {}, {} threads of the CPU.\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        cpu.0
    );
    if !effort.is_full {
        text.push_str("\nSmall sizes (`--quick`): that everything works is seen here, not how fast it is.\n");
    }
    for reason in missing {
        let _ = write!(text, "\nNot there: {reason}\n");
    }
    for section in sections {
        let _ = write!(text, "\n## {}\n", section.found);
        if section.found.is_emulation() {
            text.push_str("\nThis is an emulation on the CPU: its times say nothing about a GPU.\n");
        }
        if let Some(clock) = section.found.clock() {
            let _ = write!(text, "\nShaders of products were chosen by {clock}.\n");
        }
        laws(&mut text, &section.tried);
        figures(&mut text, &section.figures, cpu.1, peak::of(section.found.name()));
    }
    text
}

fn laws(text: &mut String, tried: &Tried) {
    let (all, held) = (tried.outcomes.len(), tried.outcomes.len() - tried.broken());
    let _ =
        write!(text, "\n**Laws**: {held} of {all} hold, each in {} cases, in {:.0} s.\n", tried.cases, tried.seconds);
    for (name, outcome) in &tried.outcomes {
        match outcome {
            Outcome::Held => {}
            Outcome::Broken(facts) => {
                let _ = write!(text, "\n`{name}` does not hold:\n\n```text\n{facts}\n```\n");
            }
            Outcome::Unmade(error) => {
                let _ = write!(text, "\n`{name}` and what follows could not be tried, nothing was measured: {error}\n");
            }
        }
    }
}

fn figures(text: &mut String, own: &Figures, cpu: &Figures, peak: Option<Peak>) {
    let best = own.products.iter().flatten().map(Rate::rate).fold(0.0, f64::max);
    let ceiling = peak.map_or(best, |peak| peak.flops);
    match peak {
        Some(Peak { flops, bandwidth }) => {
            let _ = write!(
                text,
                "\n**Peak**, as its maker says: {:.1} TFLOP/s in single precision, {:.0} GB/s; shares below are of the former.\n",
                flops / 1e12,
                bandwidth / 1e9
            );
        }
        None => {
            let _ = write!(
                text,
                "\n**Peak** of this device is not known here; shares below are of its own best product, {:.2} GFLOP/s.\n",
                best / 1e9
            );
        }
    }
    for (what, own, cpu) in [
        ("product", &own.products, &cpu.products),
        ("factor (one triangle)", &own.factors, &cpu.factors),
        ("inverse by Cholesky", &own.inverses, &cpu.inverses),
    ] {
        let _ = write!(
            text,
            "\n| {what} | ms | GFLOP/s | of the peak | CPU ms | CPU GFLOP/s |\n|---|---:|---:|---:|---:|---:|\n"
        );
        for (own, cpu) in own.iter().zip(cpu) {
            rate(text, own, cpu, ceiling);
        }
    }
    text.push_str(
        "\n| K-FAC step | ms | of the peak | launches | waits | transfers | CPU ms |\n|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for (steps, how) in [(&own.steps, ""), (&own.half_steps, ", patches in half precision")] {
        for own in steps {
            let same = |cpu: &&Step| own.as_ref().is_ok_and(|own| own.load == cpu.load);
            step(text, (own, how), cpu.steps.iter().flatten().find(same), ceiling);
        }
    }
    if !own.overrides.is_empty() {
        text.push_str(
            "\n| overrides of provided methods, LeNet-5 | ms | launches | waits | transfers | KB | launches, waits, transfers, KB of a refresh |\n|---|---:|---:|---:|---:|---:|---|\n",
        );
    }
    for (what, step) in &own.overrides {
        let _ = match step {
            Ok(Step { seconds, asks: [launches, waits, transfers, bytes], refresh, .. }) => {
                let (ms, kilobytes) = (1e3 * seconds, |bytes: u64| bytes as f64 / 1e3);
                let more = |[launches, waits, transfers, bytes]: [u64; 4]| {
                    format!("{launches}, {waits}, {transfers}, {:.1}", kilobytes(bytes))
                };
                let (refresh, bytes) = (refresh.map_or("–".to_owned(), more), kilobytes(*bytes));
                writeln!(text, "| {what} | {ms:.2} | {launches} | {waits} | {transfers} | {bytes:.1} | {refresh} |")
            }
            Err(error) => writeln!(text, "| {what}: {error} | – | – | – | – | – | – |"),
        };
    }
    text.push_str(
        "\nA step's time is the mean over a period with one refresh of all inverses; launches, waits and transfers are those \
         of a step without.\n",
    );
}

fn rate(text: &mut String, own: &Result<Rate>, cpu: &Result<Rate>, ceiling: f64) {
    let figures = |rate: &Rate| (1e3 * rate.seconds, rate.rate() / 1e9);
    let cpu = cpu.as_ref().map(figures).map_or("– | –".to_owned(), |(ms, rate)| format!("{ms:.3} | {rate:.2}"));
    let _ = match own {
        Ok(own) => {
            let (ms, gflops) = figures(own);
            let share = 100.0 * own.rate() / ceiling;
            writeln!(text, "| {} | {ms:.3} | {gflops:.2} | {share:.1} % | {cpu} |", own.size)
        }
        Err(error) => writeln!(text, "| {error} | – | – | – | {cpu} |"),
    };
}

fn step(text: &mut String, (own, how): (&Result<Step>, &str), cpu: Option<&Step>, ceiling: f64) {
    let cpu = cpu.map_or("–".to_owned(), |cpu| format!("{:.2}", 1e3 * cpu.seconds));
    let _ = match own {
        Ok(Step { load: (name, batch), seconds, flops, asks: [launches, waits, transfers, _], .. }) => {
            let (ms, share) = (1e3 * seconds, 100.0 * flops / seconds / ceiling);
            writeln!(
                text,
                "| {name}, batch {batch}{how} | {ms:.2} | {share:.1} % | {launches} | {waits} | {transfers} | {cpu} |"
            )
        }
        Err(error) => writeln!(text, "| {error} | – | – | – | – | – | {cpu} |"),
    };
}
