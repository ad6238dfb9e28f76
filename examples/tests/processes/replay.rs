//! Event logs of real runs, replayed in the simulator.

use super::{Folder, SHM, TCP, lossy, result, run};
use std::fs;
use std::path::Path;

/// Replays the run folder at `path`; what went wrong in the recorded run, too.
#[track_caller]
fn replay(folder: &Folder, path: &str) -> (serde_json::Value, String) {
    let replay = format!("--replay={path}");
    let result = result(&lossy(folder, &[&replay, "--evaluate-every=1000", "--quiet", "--json"]));
    (result, fs::read_to_string(folder.path("run/faults.txt")).expect("what went wrong"))
}

/// A run of three processes: one was killed when it was done with its second round, before anybody heard of it, and the
/// proposer when it had committed the fourth, before anybody heard of that.
#[test]
fn a_real_run_of_long_ago_is_repeated() {
    let folder = Folder::new("fixture");
    let log = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/replay");
    let (first, faults) = replay(&folder, log);
    assert_eq!(first["repeated_commits"], first["recorded_commits"], "{first}");
    assert!(first["recorded_commits"].as_u64() >= Some(6) && first["deaths"] == 0, "{first}");
    let crashes: Vec<&str> = faults.lines().filter_map(|line| line.strip_prefix("crash ")?.split(' ').next()).collect();
    assert!(crashes.contains(&"n0") && crashes.contains(&"n1"), "{faults}");
    let text = fs::read_to_string(folder.path("run/events.log")).expect("what the replay recorded");
    assert!(text.contains("n0.i2 started") && text.contains("n1.i2 started"), "{text}");
    // Real runs differ each time, their replays do not.
    assert_eq!(first["trace_hash"], replay(&folder, log).0["trace_hash"]);
}

#[test]
fn runs_of_this_moment_are_repeated_or_the_difference_is_named() {
    let recorded = Folder::new("recorded");
    let folder = Folder::new("replayed");
    let faults = ["--kills=0", "--away=1ms", "--no-reference", "--kill-at=2.1:ready:2", "--kill-at=0.1:done:3"];
    for program in [SHM, TCP] {
        let real = result(&run(program, &recorded, &[&super::SMALL[..], &faults].concat()).1);
        assert_eq!(real["deaths"], 2, "{real}");
        let (again, faults) = replay(&folder, &recorded.path("run"));
        assert!(faults.contains("crash n2 ") && faults.contains("crash n0 "), "{faults}");
        let count = |key: &str| again[key].as_u64().expect("a count");
        let (of, met, equal) = (count("recorded_commits"), count("repeated_commits"), count("repeated_to_the_bit"));
        assert_eq!(of, real["rounds_committed"].as_u64().expect("a count"), "{real}");
        // The first round is over before anybody dies; the moments of later ones are a matter of microseconds.
        assert!(equal >= 1 && met + 2 >= of, "{program}: {again}");
        let differs = equal < of || count("rounds_committed") != of;
        assert_eq!(differs, again["first_difference"].is_string(), "{again}");
        // What is not there is named.
        let log = recorded.path("run/events/n1-i1.jsonl");
        fs::remove_file(Path::new(&log)).expect("a log of n1");
        let says = lossy(&folder, &[&format!("--replay={}", recorded.path("run")), "--quiet"]).stderr;
        let says = String::from_utf8_lossy(&says);
        assert!(says.contains("there is no event log of n1"), "{says}");
    }
    let says = lossy(&folder, &[&format!("--replay={}", recorded.path("run/events")), "--quiet"]).stderr;
    let says = String::from_utf8_lossy(&says);
    assert!(says.contains("settings.toml; give the run folder of `shm` or `tcp`"), "{says}");
}
