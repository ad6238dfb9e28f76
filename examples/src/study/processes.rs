//! Sites among real processes, whose lines are held to a rate: time to an accuracy by the clock.

use super::call::{Call, machine};
use super::page::Figures;
use crate::data::source::Source;
use crate::report::{Align, Table};
use crate::sweep::{Spread, build};
use crate::trial::Network;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
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

/// A run that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Trial {
    /// What `tcp` was told: of other words it is another run.
    flags: String,
    machine: String,
    build: String,
    /// Until the accuracy was reached, if it was.
    seconds: Option<f64>,
    steps: Option<u64>,
    /// At the end of the run.
    accuracy: Option<f64>,
    /// All that was sent in the whole run.
    bytes: u64,
}

/// What the line of `tcp --json` says.
#[derive(Deserialize)]
struct Said {
    failure: Option<String>,
    interrupted: bool,
    seconds_to_target: Option<f64>,
    iterations_to_target: Option<u64>,
    accuracy: Option<f64>,
    bytes_sent: u64,
}

impl Said {
    /// What `line` says of a run that went to its end.
    fn of(line: &str) -> Result<Self> {
        let said: Self = serde_json::from_str(line).with_context(|| format!("no line of results: {line:?}"))?;
        match &said.failure {
            Some(failure) => bail!("{failure}"),
            None if said.interrupted => bail!("stopped"),
            None => Ok(said),
        }
    }
}

/// A run that is to be had: its method, seed and flags, and about how many minutes it takes.
struct Wanted {
    name: &'static str,
    seed: u64,
    flags: String,
    minutes: f64,
}

impl Wanted {
    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}-{}.json", self.name, self.seed))
    }

    /// The run, if it was made with the same flags.
    fn kept(&self, folder: &Path) -> Option<Trial> {
        let trial: Trial = serde_json::from_slice(&fs::read(self.path(folder)).ok()?).ok()?;
        (trial.flags == self.flags).then_some(trial)
    }

    /// Trains a fleet and keeps what came of it.
    fn make(&self, folder: &Path) -> Result<Trial> {
        let said = fleet(&folder.join("fleet"), &self.flags).with_context(|| format!("tcp {}", self.flags))?;
        let trial = Trial {
            flags: self.flags.clone(),
            machine: machine(),
            build: build(),
            seconds: said.seconds_to_target,
            steps: said.iterations_to_target,
            accuracy: said.accuracy,
            bytes: said.bytes_sent,
        };
        let path = self.path(folder);
        fs::write(&path, serde_json::to_string(&trial)? + "\n").with_context(|| path.display().to_string())?;
        Ok(trial)
    }
}

/// All runs, seed by seed.
fn wanted(data: &Source, quick: bool) -> Vec<Wanted> {
    let seeds = if quick { &SEEDS[..1] } else { &SEEDS };
    // What is said last wins.
    let (short, part) = if quick { (" --iterations 20", 1.0 / 6.0) } else { ("", 1.0) };
    let run = |seed: u64, (name, own, minutes): (&'static str, &str, f64)| Wanted {
        name,
        seed,
        flags: format!("--data {data} {COMMON} {own} --seed {seed}{short}"),
        minutes: part * minutes,
    };
    seeds.iter().flat_map(|&seed| METHODS.map(|method| run(seed, method))).collect()
}

/// Runs it, one fleet after another, on all of Fashion-MNIST where it is installed.
///
/// # Errors
/// If fleets fail, after all others have been tried; if the folder cannot be written, or the user stopped it.
pub(super) fn run(call: &Call<'_>) -> Result<Option<Figures>> {
    let (name, folder) = (call.name, &call.output);
    let data = if Source::FashionMnist.load().is_ok() { Source::FashionMnist } else { Source::Embedded };
    let runs = wanted(&data, call.settings.quick);
    let todo: Vec<&Wanted> = runs.iter().filter(|run| run.kept(folder).is_none()).collect();
    let minutes: f64 = todo.iter().map(|run| run.minutes).sum();
    let done = runs.len() - todo.len();
    println!(
        "{name}: {} runs of eight processes on {data}, {done} of them done; about {minutes:.0} min left",
        runs.len()
    );
    if call.settings.dry_run {
        return Ok(None);
    }
    if !todo.is_empty()
        && let Err(error) = Network::new(1)
    {
        println!("skipped: lines that are held to a rate: {error:#} (they take root, ip and tc)");
        return Ok(None);
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut failed = 0;
    for (number, run) in todo.iter().enumerate() {
        let trial = run.make(folder);
        if call.stop.load(Ordering::Relaxed) {
            bail!("stopped");
        }
        let came = match &trial {
            Ok(Trial { seconds: Some(seconds), .. }) => format!("there after {seconds:.0} s"),
            Ok(_) => "not there".to_owned(),
            Err(error) => format!("failed: {error:#}"),
        };
        failed += usize::from(trial.is_err());
        println!("{} of {}: {}, seed {}: {came}", number + 1, todo.len(), run.name, run.seed);
    }
    if failed > 0 {
        bail!("{failed} of {} runs failed: what they said stands above; the same command tries them again", runs.len());
    }
    let trials =
        |method: &str| runs.iter().filter(|run| run.name == method).filter_map(|run| run.kept(folder)).collect();
    let cells: Vec<(&str, Vec<Trial>)> = METHODS.map(|(method, ..)| (method, trials(method))).into();
    let flags = METHODS.map(|(method, own, _)| format!("- `{method}`: `{own}`")).join("\n");
    let all = |of: fn(&Trial) -> &str| -> String {
        let all: BTreeSet<&str> = cells.iter().flat_map(|(_, trials)| trials).map(of).collect();
        all.into_iter().collect::<Vec<_>>().join("; ")
    };
    let text = format!(
        "`tcp --data {data} {COMMON}`, and\n\n{flags}\n\n{}\n\n{} runs of eight processes, one fleet at a time, on {}. Build: {}.\n",
        table(&cells),
        runs.len(),
        all(|trial| &trial.machine),
        all(|trial| &trial.build)
    );
    Ok(Some(Figures { text, plots: Vec::new() }))
}

/// Trains a fleet; what it says at its end.
fn fleet(folder: &Path, flags: &str) -> Result<Said> {
    let program = std::env::current_exe().context("cannot find this program")?.with_file_name("tcp");
    let mut command = Command::new(&program);
    command.args(flags.split_whitespace()).args(["--no-reference", "--quiet", "--json", "--output"]).arg(folder);
    let output = command
        .output()
        .with_context(|| format!("cannot start {}: build it, too: cargo build --release --bins", program.display()))?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Said::of(&String::from_utf8_lossy(&output.stdout))
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
            show(&of(|trial| Some(trial.bytes as f64 / 1e6)), 1),
            show(&of(|trial| trial.accuracy), 4),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::processes::understands;
    use crate::settings::TcpSettings;

    fn trial(seconds: Option<f64>) -> Trial {
        let of = |text: &str| text.to_owned();
        let (flags, machine, build) = (of("--seed 1"), of("one"), of("1"));
        Trial { flags, machine, build, seconds, steps: seconds.map(|_| 100), accuracy: Some(0.83), bytes: 2_000_000 }
    }

    #[test]
    fn every_run_is_one_that_tcp_understands() {
        for run in [true, false].into_iter().flat_map(|quick| wanted(&Source::Embedded, quick)) {
            let words = format!("tcp {}", run.flags);
            assert_eq!(understands::<TcpSettings>(words.split_whitespace()), Ok(()), "{words}");
        }
        assert!(understands::<TcpSettings>(["tcp", "--seed", "x"]).is_err());
    }

    #[test]
    fn a_run_with_other_flags_is_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = |flags: &str| Wanted { name: "daso", seed: 1, flags: flags.to_owned(), minutes: 1.0 };
        assert!(run("--seed 1").kept(folder.path()).is_none());
        let text = serde_json::to_string(&trial(Some(2.0))).expect("numbers");
        fs::write(run("--seed 1").path(folder.path()), text).expect("a folder that can be written");
        assert!(run("--seed 1").kept(folder.path()).is_some());
        assert!(run("--seed 1 --iterations 20").kept(folder.path()).is_none());
    }

    #[test]
    fn seeds_are_compared_with_the_same_seed_where_both_are_there() {
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
        let error = |line: &str| Said::of(line).err().map(|error| error.to_string());
        let line = |failure: &str, interrupted: bool| {
            format!(r#"{{"failure":{failure},"interrupted":{interrupted},"bytes_sent":1,"seconds_to_target":null}}"#)
        };
        assert_eq!(error(&line(r#""diverged""#, false)).as_deref(), Some("diverged"));
        assert_eq!(error(&line("null", true)).as_deref(), Some("stopped"));
        assert_eq!(error(&line("null", false)), None);
        assert!(error("").is_some());
    }
}
