//! The benchmark of collectives as a user runs it; what it measures, it also checks.

use std::collections::BTreeSet;
use std::process::Command;

fn allreduce(flags: &[&str]) -> Vec<serde_json::Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_allreduce"));
    command.args(["--passes=1", "--sizes=1000,70000", "--no-peers", "--json"]).args(flags);
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn every_transport_has_a_line_per_size_and_contestant() {
    for (flags, contestants) in [
        (&["--transport=shm", "--processes=3"][..], 2),
        (&["--transport=tcp", "--tls"], 3),
        (&["--transport=lossy"], 2),
    ] {
        let lines = allreduce(flags);
        let names: BTreeSet<&str> = lines.iter().filter_map(|line| line["contestant"].as_str()).collect();
        assert_eq!(names.len(), contestants, "{names:?}");
        for name in names {
            let of_it = || lines.iter().filter(|line| line["contestant"] == name);
            let sizes: BTreeSet<u64> = of_it().filter_map(|line| line["bytes"].as_u64()).collect();
            assert!(sizes.is_superset(&BTreeSet::from([1000, 70000])), "{name}: {sizes:?}");
            for line in of_it() {
                let number = |field: &str| line[field].as_f64().expect(field);
                assert!(number("median_us") > 0.0 && number("p99_us") >= number("median_us"), "{line}");
            }
        }
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (flags, why) in
        [(["--transport=shm", "--tls"], "no effect"), (["--transport=shm", "--sizes=3"], "multiple of 4")]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_allreduce")).args(flags).output().expect("the program starts");
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && says.contains(why), "{flags:?}: {says}");
    }
}
