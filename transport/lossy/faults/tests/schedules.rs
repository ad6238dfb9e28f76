//! Seeded schedules break nothing, regressions stay fixed, files are read as they were written.
//!
//! `cargo run --release -p kronfleet-faults -- run --seeds 100000` runs many more.

use kronfleet_core::time::Duration;
use kronfleet_faults::draw;
use kronfleet_faults::play::{Options, play};
use kronfleet_faults::schedule::{Fault, Run, Schedule};
use kronfleet_faults::sweep::{Sweep, sweep};
use proptest::prelude::*;
use std::path::Path;

/// Seeds of the test command.
const SEEDS: u64 = 1000;

#[test]
fn nothing_is_broken_under_faults_and_rounds_come_back() {
    let Sweep { total, runs, failures, slowest, .. } = sweep(0..SEEDS, 3, |_| {});
    println!("{total}; everybody committed within {slowest:?} after the faults");
    let failed: Vec<String> = failures
        .iter()
        .map(|(seed, failure)| {
            format!("seed {seed}: {failure}\n  cargo run --release -p kronfleet-faults -- run --from {seed} --seeds 1")
        })
        .collect();
    assert!(failed.is_empty(), "of {runs} schedules:\n{}", failed.join("\n"));
    assert_eq!(runs, SEEDS);
    assert!(total.retried > 0 && total.forks > 0 && total.merges > 0 && total.healed > 0, "{total}");
}

#[test]
fn schedules_that_found_bugs_find_none_any_more() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schedules");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no schedules", folder.display());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let schedule: Schedule = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(!schedule.note.is_empty(), "{} does not say what it found", file.display());
        if let Err(failure) = play(&schedule, Options { twice: true, verbose: false }) {
            let again = format!("cargo run --release -p kronfleet-faults -- replay {}", file.display());
            panic!("{failure}\n  again: {again}");
        }
    }
}

#[test]
fn every_kind_of_fault_is_drawn() {
    let mut kinds: Vec<String> = Vec::new();
    for seed in 0..SEEDS {
        for fault in draw(seed).faults {
            let text = Schedule { note: String::new(), faults: vec![fault], run: Run::default() }.to_string();
            let kind = text.split(['{', '=']).nth(2).unwrap().trim().to_string();
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    kinds.sort();
    assert_eq!(
        kinds.join(" "),
        "clog crash cut damage decay disk drift echo finish flap ghost jump kill leave link outage partition pause restore sick slow"
    );
}

proptest! {
    #[test]
    fn a_schedule_is_read_as_it_was_written(seed: u64) {
        let schedule = draw(seed);
        prop_assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
    }

    #[test]
    fn garbage_is_refused_without_panic(text in "\\PC{0,80}") {
        let _ = text.parse::<Schedule>();
    }
}

/// What the reader says of a schedule with this fault.
fn refused(fault: &str) -> String {
    let text = format!("faults = [\n  {fault},\n]\n\n[run]\nnodes = 3\n");
    text.parse::<Schedule>().unwrap_err().to_string()
}

#[test]
fn a_bad_file_is_refused_with_its_line_the_value_and_a_remedy() {
    let crash = |rest: &str| refused(&format!("{{ crash = {{ {rest} }} }}"));
    for (found, expected) in [
        (crash(r#"node = "n7", at = "1s""#), "line 2: n7 is not one of the nodes n0 to n2"),
        (crash(r#"node = "7", at = "1s""#), "line 2: `7` is no node: write n0, n1 and so on"),
        (crash(r#"node = "n1", at = "1""#), "line 2: `1` is no time: write a number and a unit, such as 250ms or 1.5s"),
        (
            crash(r#"node = "n1", at = "2s", back = "1s""#),
            "line 2: it would end at 1.000000s, before it begins at 2.000000s: exchange the times",
        ),
        (
            crash(r#"node = "n1", at = "1s", bcak = "2s""#),
            "line 2: unexpected keys in table: bcak, available keys: node, at, back",
        ),
        (refused(r#"{ crush = { node = "n1" } }"#), "line 2: unknown variant `crush`, expected one of"),
        (
            refused(r#"{ kill = { node = "n1", on = "lunch", nth = 1, frames = 0, until = "1s" } }"#),
            "line 2: `lunch` is no point of the protocol: use up, down",
        ),
        (
            refused(r#"{ echo = { node = "n1", share = 3, after = "1s", from = "0s", until = "1s" } }"#),
            "line 2: share = 3 is no share: use 0 to 1",
        ),
        (
            refused(r#"{ link = { sources = ["n0"], targets = ["n1"], link = "loss=2", from = "0s", until = "1s" } }"#),
            "line 2: link options: loss=2 is no probability",
        ),
        ("[run]\nnodes = 99\n".parse::<Schedule>().unwrap_err().to_string(), "line 1: nodes = 99 cannot be run"),
        ("[run]\nbudget = \"1us\"\n".parse::<Schedule>().unwrap_err().to_string(), "line 1: a time budget of 1µs"),
    ] {
        assert!(found.starts_with(expected), "expected: {expected}\nfound:    {found}");
    }
}

#[test]
fn a_quiet_run_commits_all_rounds_together() {
    let outcome = play(&Schedule { note: String::new(), faults: Vec::new(), run: Run::default() }, Options::default());
    let summary = outcome.unwrap().summary;
    assert_eq!((summary.retried, summary.forks, summary.partial, summary.samples_lost), (0, 0, 0, 0), "{summary}");
    assert_eq!(summary.recomputed, summary.commits);
}

#[test]
fn the_shrinker_finds_the_fault_that_matters() {
    use kronfleet_faults::play::{Failure, LIVENESS};
    use kronfleet_faults::shrink::shrink_by;
    let schedule = draw(7);
    let essential = schedule.faults.len() - 1;
    let kept = schedule.faults[essential].clone();
    let failure = Failure { law: LIVENESS.into(), what: "the fault is there".into() };
    let is_it = |fault: &Fault| std::mem::discriminant(fault) == std::mem::discriminant(&kept);
    let (smallest, _) =
        shrink_by(&schedule, &failure, 1000, |candidate| candidate.faults.iter().any(is_it).then(|| failure.clone()));
    assert_eq!(smallest.faults.len(), 1, "{smallest}");
    assert!(is_it(&smallest.faults[0]));
    assert!(smallest.calm().since(kronfleet_core::time::Instant::ORIGIN) < Duration::from_secs(5));
}
