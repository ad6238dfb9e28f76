//! Sites among real processes, whose lines are held to a rate: time to an accuracy by the clock.

use super::call::{Call, machine};
use super::page::Figures;
use crate::data::source::Source;
use crate::report::{Align, Table};
use crate::sweep::{Spread, build};
use crate::trial::Network;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

/// What all of them have.
const COMMON: &str = "--preconditioner none --nodes 8 --sites 4 --batch 32 --iterations 240 --learning-rate 0.05 \
                      --schedule constant --kills 0 --stall-budget 20s --evaluate-every 20 --target-accuracy 0.82 \
                      --fast-link 1Gb/s --slow-link 12.5Mb/s";

/// What is compared, and about how many minutes a run takes; the first is what the others are compared with.
const METHODS: [(&str, &str, f64); 7] = [
    ("blocking", "--interval 1", 3.5),
    ("every-4", "--interval 4", 1.2),
    ("daso", "--inner dp-kfac --outer daso --daso-epoch 20 --daso-cool-down 0", 1.8),
    ("daso-progress", "--inner dp-kfac --outer daso --daso-epoch 20 --daso-cool-down 0 --daso-merge progress", 1.8),
    ("daso-bf16", "--inner dp-kfac --outer daso --daso-epoch 20 --daso-cool-down 0 --compress bf16", 1.8),
    ("diloco-20", "--interval 20 --outer-optimiser diloco --outer-momentum 0.5", 0.6),
    // Its steps wait for nothing: of 240 it would average four.
    ("lasgd", "--policy lasgd --interval 4 --iterations 2000", 1.2),
];

const SEEDS: [u64; 3] = [1, 2, 3];

/// A run, as the line of `tcp --json` tells it.
struct Trial {
    /// `None` if the accuracy was not reached.
    seconds: Option<f64>,
    steps: Option<u64>,
    accuracy: Option<f64>,
    /// All that was sent in the whole run.
    bytes: f64,
}

impl Trial {
    fn of(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line).context("no line of results")?;
        if let Some(failure) = value["failure"].as_str() {
            bail!("{failure}");
        }
        if value["interrupted"] == true {
            bail!("stopped");
        }
        Ok(Self {
            seconds: value["seconds_to_target"].as_f64(),
            steps: value["iterations_to_target"].as_u64(),
            accuracy: value["accuracy"].as_f64(),
            bytes: value["bytes_sent"].as_f64().context("no bytes sent")?,
        })
    }
}

/// Runs it, one fleet after another, on all of Fashion-MNIST where it is installed.
///
/// # Errors
/// If a fleet fails, the folder cannot be written, or the user stopped it.
pub(super) fn run(call: &Call<'_>) -> Result<Option<Figures>> {
    let data = if Source::FashionMnist.load().is_ok() { Source::FashionMnist } else { Source::Embedded };
    let seeds = if call.settings.quick { &SEEDS[..1] } else { &SEEDS };
    let runs: Vec<_> =
        seeds.iter().flat_map(|&seed| METHODS.map(|(name, flags, minutes)| (seed, name, flags, minutes))).collect();
    let kept = |seed: u64, name: &str| call.output.join(format!("{name}-{seed}.json"));
    let todo: Vec<_> = runs.iter().filter(|&&(seed, name, ..)| !kept(seed, name).exists()).collect();
    let minutes: f64 = todo.iter().map(|run| run.3).sum();
    println!(
        "{}: {} runs of eight processes, {} of them done; about {:.0} min left, most of which lines take, with {data}",
        call.name,
        runs.len(),
        runs.len() - todo.len(),
        if call.settings.quick { minutes / 6.0 } else { minutes }
    );
    if call.settings.dry_run {
        return Ok(None);
    }
    if let Err(error) = Network::new(1) {
        println!("skipped: lines that are held to a rate: {error:#} (they take root, ip and tc)");
        return Ok(None);
    }
    fs::create_dir_all(&call.output).with_context(|| call.output.display().to_string())?;
    let build = build();
    for (number, &&(seed, name, flags, _)) in todo.iter().enumerate() {
        let flags = format!("--data {data} {COMMON} {flags} --seed {seed}");
        let line = fleet(&call.output.join("fleet"), &flags, call.settings.quick);
        if call.stop.load(Ordering::Relaxed) {
            bail!("stopped");
        }
        let mut value: Value = line.with_context(|| format!("tcp {flags}"))?;
        value["build"] = build.clone().into();
        fs::write(kept(seed, name), format!("{value}\n")).with_context(|| kept(seed, name).display().to_string())?;
        println!("{} of {} runs: {name}, seed {seed}: {}", number + 1, todo.len(), value["accuracy"]);
    }
    let mut builds: Vec<String> = Vec::new();
    let mut cells = Vec::new();
    for (name, ..) in METHODS {
        let mut trials = Vec::new();
        for &seed in seeds {
            let path = kept(seed, name);
            let line = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            trials.push(Trial::of(&line).with_context(|| path.display().to_string())?);
            let value: Value = serde_json::from_str(&line)?;
            builds.extend(value["build"].as_str().map(String::from));
        }
        cells.push((name, trials));
    }
    builds.sort();
    builds.dedup();
    let flags = METHODS.map(|(name, flags, _)| format!("- `{name}`: `{flags}`")).join("\n");
    let text = format!(
        "`tcp --data {data} {COMMON}`, and\n\n{flags}\n\n{}\n\nData: {data}. Eight processes, one fleet at a time, {}. Build: {}.\n",
        table(&cells),
        machine(),
        builds.join("; ")
    );
    Ok(Some(Figures { text, plots: Vec::new() }))
}

/// Trains a fleet; its line of results.
fn fleet(folder: &Path, flags: &str, quick: bool) -> Result<Value> {
    let program = std::env::current_exe().context("cannot find this program")?.with_file_name("tcp");
    let mut command = Command::new(&program);
    command.args(flags.split_whitespace()).args(["--no-reference", "--quiet", "--json", "--output"]).arg(folder);
    if quick {
        // What is said last wins.
        command.args(["--iterations", "20"]);
    }
    let output = command
        .output()
        .with_context(|| format!("cannot start {}: build it, too: cargo build --release --bins", program.display()))?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let line = String::from_utf8_lossy(&output.stdout);
    Trial::of(&line)?;
    Ok(serde_json::from_str(&line)?)
}

/// One line for each method.
fn table(cells: &[(&str, Vec<Trial>)]) -> Table {
    let mut table = Table::new(&[
        ("method", Align::Left),
        ("seconds to target", Align::Right),
        ("less than blocking, %", Align::Right),
        ("steps to target", Align::Right),
        ("MB all send in the run", Align::Right),
        ("accuracy at its end", Align::Right),
    ]);
    let show = |values: &[Option<f64>], digits: usize| {
        let some: Vec<f64> = values.iter().copied().flatten().collect();
        match Spread::of(&some) {
            None => "not reached".to_owned(),
            Some(spread) if some.len() == values.len() => format!("{spread:.digits$}"),
            Some(spread) => format!("{spread:.digits$} ({} of {})", some.len(), values.len()),
        }
    };
    let baseline = cells.first().map(|(_, trials)| trials.as_slice()).unwrap_or_default();
    for (name, trials) in cells {
        let of = |value: fn(&Trial) -> Option<f64>| trials.iter().map(value).collect::<Vec<_>>();
        let saved = |(trial, other): (&Trial, &Trial)| Some(100.0 * (1.0 - trial.seconds? / other.seconds?));
        let saved: Vec<_> = trials.iter().zip(baseline).map(saved).collect();
        table.row([
            (*name).to_owned(),
            show(&of(|trial| trial.seconds), 1),
            show(&saved, 0),
            show(&of(|trial| trial.steps.map(|steps| steps as f64)), 0),
            show(&of(|trial| Some(trial.bytes / 1e6)), 1),
            show(&of(|trial| trial.accuracy), 4),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{AveragingSettings, TaskSettings};
    use clap::Parser;
    use kronfleet_core::transport::NodeId;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        task: TaskSettings,
        #[command(flatten)]
        averaging: AveragingSettings,
    }

    #[test]
    fn every_method_is_one_that_can_be_trained_with() {
        for (name, flags, _) in METHODS {
            let words = format!("tcp --nodes 8 --sites 4 {flags}");
            let Flags { task, averaging } = Flags::try_parse_from(words.split_whitespace()).expect(name);
            let (policy, least) = (averaging.policy(NodeId(0)), if name == "lasgd" { 2000 } else { 200 });
            assert!(policy.is_ok() && task.iterations >= least, "{name}: {:?}", policy.err());
        }
    }

    #[test]
    fn seeds_are_compared_with_the_same_seed_where_both_are_there() {
        let trial =
            |seconds: Option<f64>| Trial { seconds, steps: seconds.map(|_| 100), accuracy: Some(0.83), bytes: 2e6 };
        let all = |seconds: &[Option<f64>]| seconds.iter().copied().map(trial).collect::<Vec<_>>();
        let cells = [
            ("blocking", all(&[Some(100.0), Some(200.0)])),
            ("daso", all(&[Some(50.0), Some(150.0)])),
            ("late", all(&[None, Some(300.0)])),
            ("never", all(&[None, None])),
        ];
        let text = table(&cells).to_string();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).expect("a line").to_owned();
        // Of 100 and 200 seconds: 50 % and 25 %.
        assert!(line("daso").contains("38 ± 18") && line("daso").contains("2.0 ± 0.0"), "{text}");
        assert!(line("late").contains("300.0 (1 of 2)") && line("late").contains("-50 (1 of 2)"), "{text}");
        assert!(line("never").contains("not reached"), "{text}");
    }

    #[test]
    fn a_run_that_failed_or_was_stopped_is_no_figure() {
        let error = |line: &str| Trial::of(line).err().map(|error| error.to_string());
        assert_eq!(error(r#"{"failure":"diverged","bytes_sent":1}"#).as_deref(), Some("diverged"));
        assert_eq!(error(r#"{"failure":null,"interrupted":true,"bytes_sent":1}"#).as_deref(), Some("stopped"));
        assert!(error("").is_some());
        assert_eq!(error(r#"{"failure":null,"interrupted":false,"bytes_sent":1,"seconds_to_target":null}"#), None);
    }
}
