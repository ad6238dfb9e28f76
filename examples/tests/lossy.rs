//! The trainers as a user runs them: programs, their flags, their files.

mod allreduce;
mod processes;

use kronfleet_examples::model::tensors::Tensors;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A small fleet on a network that loses and reorders frames.
const SMALL: [&str; 12] = [
    "--nodes=3",
    "--iterations=20",
    "--samples=600",
    "--batch=16",
    "--evaluate-every=10",
    "--no-reference",
    "--loss=.02",
    "--reorder=0.1",
    "--max-duration=4",
    "--max-offline=1",
    "--quiet",
    "--json",
];

/// A folder of its own that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kronfleet-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a writable temporary folder");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn lossy(folder: &Folder, extra: &[&str]) -> Output {
    let output = format!("--output={}", folder.path("run"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_lossy"));
    command.args(extra).arg(output).output().expect("the program starts")
}

fn result(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().expect("a line of JSON")).expect("JSON")
}

#[test]
fn one_seed_is_one_run_and_a_trace_repeats_it() {
    let folder = Folder::new("trace");
    let (trace, write) = (folder.path("run.trace"), format!("--trace={}", folder.path("run.trace")));
    let first = result(&lossy(&folder, &SMALL));
    let recorded = result(&lossy(&folder, &[&SMALL[..], &[&write, "--threads=1"]].concat()));
    assert_eq!(first["trace_hash"], recorded["trace_hash"], "on any number of threads, written or not");
    assert_eq!(first["accuracy"], recorded["accuracy"]);
    let replay = format!("--replay={trace}");
    let replayed = result(&lossy(&folder, &[&replay, "--quiet", "--json", "--no-reference", "--evaluate-every=10"]));
    assert_eq!(first["trace_hash"], replayed["trace_hash"]);
    let other = result(&lossy(&folder, &[&SMALL[..], &["--seed=2"]].concat()));
    assert_ne!(first["trace_hash"], other["trace_hash"]);

    let text = fs::read_to_string(&trace).expect("the trace");
    fs::write(&trace, text.replace("learning-rate = 0.05", "learning-rate = 0.06")).expect("a writable folder");
    let differs = lossy(&folder, &[&replay, "--quiet", "--no-reference"]);
    let says = String::from_utf8_lossy(&differs.stderr);
    assert!(!differs.status.success() && says.contains("the run differs from its trace at line"), "{says}");
}

#[test]
fn differences_are_told_in_fewer_bytes_and_one_seed_is_one_run() {
    let folder = Folder::new("compressed");
    let fleet = ["--nodes=4", "--iterations=20", "--interval=2", "--samples=600", "--batch=16", "--evaluate-every=20"];
    let common = ["--outages=none", "--no-reference", "--quiet", "--json"];
    let run = |extra: &[&str]| result(&lossy(&folder, &[&fleet[..], &common, extra].concat()));
    let bytes = |run: &serde_json::Value| run["bytes_sent"].as_f64().expect("a number");
    let whole = run(&[]);
    // Ten rounds, of which the first tells everything.
    for (code, most) in [("bf16", 0.6), ("8bit", 0.4), ("top:0.1", 0.3)] {
        let told = run(&[&format!("--compress={code}")]);
        assert!(bytes(&told) < most * bytes(&whole), "{code}: {} of {} bytes", bytes(&told), bytes(&whole));
        assert_eq!(told["rounds_committed"], whole["rounds_committed"]);
        assert_eq!(told["trace_hash"], run(&[&format!("--compress={code}")])["trace_hash"]);
    }
    // Other bytes of these are velocities, moments, and what is alive.
    for (extra, most) in [
        (&["--policy=streaming", "--interval=4", "--fragments=2"][..], 0.75),
        (&["--outer-optimiser=fedadam", "--outer-rate=0.01"], 0.85),
        (&["--weight=samples", "--partition=dirichlet:0.5"], 0.4),
    ] {
        let whole = run(extra);
        let told = run(&[extra, &["--compress=8bit"]].concat());
        assert!(bytes(&told) < most * bytes(&whole), "{extra:?}: {} of {} bytes", bytes(&told), bytes(&whole));
        assert_eq!(told["rounds_committed"], whole["rounds_committed"], "{extra:?}");
    }
    let refused = lossy(&folder, &["--policy=daso", "--compress=sign"]);
    let says = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && says.contains("use bf16 or all"), "{says}");
}

#[test]
fn slow_nodes_are_waited_for_and_one_seed_is_one_run() {
    let folder = Folder::new("slow");
    let write = format!("--trace={}", folder.path("run.trace"));
    let flags = ["--outages=none", "--stall-budget=2s", "--interval=2"];
    let flags: Vec<&str> = SMALL.into_iter().filter(|flag| !flag.starts_with("--max-")).chain(flags).collect();
    let equal = result(&lossy(&folder, &flags));
    let slow = result(&lossy(&folder, &[&flags[..], &["--slow-nodes=3x:2", &write]].concat()));
    let replay = format!("--replay={}", folder.path("run.trace"));
    let replayed = result(&lossy(&folder, &[&replay, "--quiet", "--json", "--no-reference", "--evaluate-every=10"]));
    assert_eq!(slow["trace_hash"], replayed["trace_hash"]);
    // Everybody is in every round, which comes when the slow one has made its steps.
    let seconds = [&equal, &slow].map(|result| result["virtual_seconds"].as_f64().expect("a number"));
    assert!((2.5..3.1).contains(&(seconds[1] / seconds[0])), "{seconds:?}");
    for result in [equal, slow] {
        assert_eq!((&result["samples"], &result["rounds_committed"]), (&(3 * 20 * 16).into(), &10.into()), "{result}");
    }
}

#[test]
fn a_crashed_node_is_started_anew_and_ends_with_the_fleet() {
    let folder = Folder::new("crash");
    let (trace, write) = (folder.path("run.trace"), format!("--trace={}", folder.path("run.trace")));
    for mode in ["--mode=available", "--mode=strict"] {
        let crash = ["--crash=700ms..1s:2", "--outages=none", mode, &write];
        let crash: Vec<&str> = SMALL.into_iter().filter(|flag| !flag.starts_with("--max-")).chain(crash).collect();
        let first = result(&lossy(&folder, &crash));
        // It trains from the start again, until the fleet's state reaches it.
        assert_ne!(first["samples"], 3 * 20 * 16, "{first}");
        assert!(first["rounds_committed"].as_u64() >= Some(3), "{first}");
        let replay = format!("--replay={trace}");
        let replayed =
            result(&lossy(&folder, &[&replay, "--quiet", "--json", "--no-reference", "--evaluate-every=10"]));
        assert_eq!(first["trace_hash"], replayed["trace_hash"]);
        let report = fs::read_to_string(folder.0.join("run").join("report.md")).expect("a report");
        assert!(report.contains("All safety invariants held"), "{report}");
    }
}

#[test]
fn strict_mode_holds_on_real_threads() {
    let folder = Folder::new("threads");
    let flags = ["--driver=threads", "--mode=strict", "--outages=none", "--stall-budget=4s"];
    let flags: Vec<&str> = SMALL.into_iter().filter(|flag| !flag.starts_with("--max-")).chain(flags).collect();
    let result = result(&lossy(&folder, &flags));
    // Four averages are due; a majority of the three nodes has accepted each.
    assert!(result["rounds_committed"].as_u64() >= Some(2), "{result}");
    assert_eq!(result["samples"], 3 * 20 * 16);
    let report = fs::read_to_string(folder.0.join("run").join("report.md")).expect("a report");
    assert!(report.contains("All safety invariants held") && report.contains(" recomputed"), "{report}");
}

#[test]
fn the_result_and_the_report_say_what_happened() {
    let folder = Folder::new("report");
    let result = result(&lossy(&folder, &SMALL));
    for key in [
        "accuracy",
        "seconds",
        "trace_hash",
        "offline_fraction",
        "rounds_committed",
        "rounds_retried",
        "bytes_sent",
        "samples",
        "samples_lost",
        "seed",
    ] {
        assert!(!result[key].is_null(), "{key} in {result}");
    }
    assert_eq!(result["samples"], 3 * 20 * 16);
    assert!(result["rounds_committed"].as_u64() >= Some(2), "{result}");
    let read = |name: &str| fs::read_to_string(folder.0.join("run").join(name)).expect("a file of the report");
    assert_eq!(read("metrics.csv").lines().count(), 1 + 3 * 20);
    assert!(read("accuracy.svg").starts_with("<svg") && read("report.md").contains("All safety invariants held"));
    let demanding = lossy(&folder, &[&SMALL[..], &["--require=samples>=960", "--require=samples<=959"]].concat());
    let says = String::from_utf8_lossy(&demanding.stderr);
    assert!(!demanding.status.success() && says.contains("--require samples<=959: it is 960"), "{says}");
    assert!(!says.contains("samples>=960"), "{says}");
    let commits = &result["rounds_committed"];
    assert!(read("report.md").contains(&format!("{commits} commits ({commits} recomputed")), "{}", read("report.md"));
}

#[test]
fn mistakes_are_named_with_their_remedy() {
    let folder = Folder::new("mistakes");
    let config = folder.path("run.toml");
    fs::write(&config, "learning_rate = 0.1\nno-such-knob = 3\n").expect("a writable folder");
    let idle = folder.path("idle.toml");
    fs::write(&idle, "preconditioner = \"none\"\nkl-clip = 0.1\n").expect("a writable folder");
    for (flags, part) in [
        (vec!["--offline-fraction=1.5"], "not a number from 0"),
        (vec!["--model=nothing"], "choose one of"),
        (vec!["--data=/no/such/place"], "/no/such/place"),
        (vec!["--skip-layer=fc9"], "\"fc9\""),
        (vec!["--stall-budget=1ms"], "between 5ms"),
        (vec!["--driver=threads", "--trace=x"], "--driver virtual"),
        (vec!["--config", &config], "--no-such-knob"),
        (vec!["--config", &idle], "--kl-clip has no effect with --preconditioner none"),
        (vec!["--replay=x.trace"], "--iterations has no effect with --replay"),
        (vec!["--link-cut=1s..2s:0>9"], "--link-cut names n9"),
        (vec!["--crash=1s..2s:9"], "--crash names n9"),
        (vec!["--slow-nodes=3x:9"], "--slow-nodes names n9"),
        (vec!["--slow-nodes=3x:1", "--slow-nodes=2x:0,1"], "--slow-nodes names n1 twice"),
        (vec!["--slow-nodes=0.5x:1"], "such as 4x:6,7"),
        (vec!["--slow-nodes=3x:1", "--driver=threads"], "--driver virtual"),
        (vec!["--latency=1s"], "give several times as much"),
        (vec!["--step-duration=0ms"], "leaves no time"),
        (vec!["--require=acuracy>=0.5"], "there are accuracy"),
        (vec!["--save=/no/such/place/model.safetensors"], "--save /no/such/place"),
        (vec!["--threads=100000"], "from 0 to 256"),
    ] {
        let output = lossy(&folder, &[&flags[..], &["--quiet", "--iterations=1"]].concat());
        let says = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && says.contains(part), "{flags:?}: {says}");
    }
}

#[test]
fn divergence_is_an_error_and_leaves_a_report() {
    let folder = Folder::new("divergence");
    let output = lossy(&folder, &[&SMALL[..], &["--preconditioner=none", "--learning-rate=1e30"]].concat());
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && says.contains("a smaller learning rate"), "{says}");
    let report = fs::read_to_string(Path::new(&folder.path("run")).join("report.md")).expect("a report");
    assert!(report.contains("**Failed**"), "{report}");
}

/// A grid of two runs of a second each.
const GRID: &str = r#"
seeds = [3]

[base]
nodes = 2
iterations = 6
samples = 100
batch = 4
preconditioner = "none"
evaluate-every = 3
max-offline = "P-1"

[methods.rounds]
[methods.zeros]
policy = "zeros"

[[groups]]
name = "methods"
title = "Two methods"
vary = ["method=rounds,zeros", "offline-fraction=0.5"]
"#;

fn sweep(folder: &Folder, extra: &[&str]) -> Output {
    let output = format!("--output={}", folder.path("sweep"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_lossy"));
    command.args(["sweep", &folder.path("grid.toml"), &output]).args(extra).output().expect("the program starts")
}

#[test]
fn a_sweep_goes_on_where_it_was() {
    let folder = Folder::new("sweep");
    fs::write(folder.path("grid.toml"), GRID).expect("a writable folder");
    let runs = folder.0.join("sweep").join("runs.csv");
    let read = || fs::read_to_string(&runs).expect("the runs");

    let first = sweep(&folder, &["--quiet"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let whole = read();
    let lines: Vec<&str> = whole.lines().collect();
    assert_eq!(lines.len(), 1 + 2);

    // One run is missing; the other is marked, so that a rerun would show.
    let column = |name: &str| lines[0].split(',').position(|column| column == name).expect("a column");
    // What a clock says differs between two runs of one seed: of the wall, and of the processor.
    let clocks = [column("seconds"), column("processor_seconds")];
    let with = |line: &str, seconds: &'static str| {
        let mut cells: Vec<String> = line.split(',').map(String::from).collect();
        clocks.into_iter().for_each(|at| cells[at] = seconds.into());
        cells.join(",")
    };
    let marked = with(lines[1], "12345.0");
    fs::write(&runs, format!("{}\n{marked}\n", lines[0])).expect("a writable folder");
    let second = sweep(&folder, &[]);
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    let says = String::from_utf8_lossy(&second.stdout);
    assert!(says.contains("2 runs, 1 of them done") && says.contains("estimated"), "{says}");
    let resumed = read();
    let after: Vec<&str> = resumed.lines().collect();
    assert_eq!(after[1], marked, "what is done is not done again");
    assert_eq!(with(after[2], ""), with(lines[2], ""), "one seed is one run");

    let report = fs::read_to_string(folder.path("sweep/report.md")).expect("a report");
    assert!(report.contains("| rounds | 0.5") && report.contains("| zeros  | 0.5"), "{report}");
    let summary = fs::read_to_string(folder.path("sweep/summary.csv")).expect("a summary");
    assert!(
        summary.lines().any(|line| line.starts_with("methods,method=zeros offline-fraction=0.5,1,0,0.")),
        "{summary}"
    );
    assert!(fs::read_to_string(folder.path("sweep/methods.svg")).expect("a heat map").starts_with("<svg"));
}

#[test]
fn a_grid_is_checked_before_anything_runs() {
    let folder = Folder::new("grid");
    for (from, to, part) in [
        ("batch = 4", "no-such-knob = 4", "--no-such-knob"),
        ("offline-fraction=0.5", "offline-fraction=0.5,1.5", "not a number from 0"),
        ("method=rounds,zeros", "method=rounds,waves", "no method is called \"waves\""),
        ("seeds = [3]", "seeds = []", "at least one seed"),
        ("title =", "tittle =", "tittle"),
    ] {
        fs::write(folder.path("grid.toml"), GRID.replace(from, to)).expect("a writable folder");
        let output = sweep(&folder, &[]);
        let says = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && says.contains(part), "{to}: {says}");
        assert!(!folder.0.join("sweep").join("runs.csv").exists());
    }
    fs::write(folder.path("grid.toml"), GRID.replace("P-1", "P/4")).expect("a writable folder");
    let output = sweep(&folder, &["--dry-run"]);
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && says.contains("an offline fraction of 0.5 cannot be realised, 0.00"), "{says}");
    fs::write(folder.0.join("sweep").join("runs.csv"), "something,else\n1,2\n").expect("a writable folder");
    let output = sweep(&folder, &["--dry-run"]);
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && says.contains("runs.csv") && says.contains("another --output"), "{says}");
}

/// Waits until there is a file at `path`.
fn wait_for(path: &Path) {
    let asked = Instant::now();
    while !path.exists() {
        assert!(asked.elapsed() < Duration::from_secs(300), "{} never came", path.display());
        std::thread::yield_now();
    }
}

/// Four sites, each of two members that share their steps, with models under way between them and members offline.
#[test]
fn shared_steps_of_several_sites_go_on_from_a_checkpoint() {
    let folder = Folder::new("sites");
    let flags = [
        "--nodes=8",
        "--sites=4",
        "--inner=dp-kfac",
        "--outer=daso",
        "--daso-epoch=6",
        "--daso-warm-up=0",
        "--daso-cool-down=0",
        "--daso-skip=3",
        "--iterations=24",
    ];
    let flags = [&SMALL[..], &flags].concat();
    let metrics = || fs::read_to_string(folder.0.join("run/metrics.csv")).expect("metrics");
    let whole = result(&lossy(&folder, &flags));
    let (expected, kept) = (metrics(), folder.0.join("kept"));
    let keeping = [format!("--checkpoint={}", kept.display()), "--every=5".to_owned()];
    let watched = result(&lossy(&folder, &[&flags[..], &keeping.each_ref().map(String::as_str)].concat()));
    assert_eq!(watched["trace_hash"], whole["trace_hash"], "writing checkpoints changes nothing");
    let resume = format!("--resume={}", kept.join("00000003").display());
    let resumed = result(&lossy(&folder, &[&flags[..], &[&resume]].concat()));
    for key in ["trace_hash", "accuracy", "bytes_sent", "rounds_committed", "virtual_seconds", "samples"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    assert_eq!(metrics(), expected);
    let fewer = lossy(&folder, &[&flags[..], &[&resume, "--nodes=4"]].concat());
    let says = String::from_utf8_lossy(&fewer.stderr);
    assert!(!fewer.status.success() && says.contains("give --nodes 8"), "{says}");
}

#[test]
fn a_checkpoint_of_shared_steps_has_the_model_of_whoever_has_come_furthest() {
    let folder = Folder::new("shared");
    let kept = folder.0.join("kept");
    let keeping = [format!("--checkpoint={}", kept.display()), "--every=5".to_owned()];
    let keeping = keeping.each_ref().map(String::as_str);
    // Nobody is away, so that all share every step.
    let flags =
        ["--nodes=3", "--iterations=12", "--samples=600", "--batch=16", "--evaluate-every=12", "--outages=none"];
    let flags = [&flags[..], &["--inner=dp-kfac", "--no-reference", "--quiet", "--json"], &keeping].concat();
    result(&lossy(&folder, &flags));
    let manifest = fs::read_to_string(kept.join("00000002/manifest.json")).expect("a manifest");
    assert!(manifest.contains("of 3 nodes, which have come furthest, to iteration 10"), "{manifest}");
    let read = |name: &str| Tensors::read(&kept.join("00000002").join(name)).expect("safetensors").tensors;
    let (model, nodes) = (read("model.safetensors"), read("layers/fc2.safetensors"));
    let is_model = |node: &&str| nodes[&format!("{node}/weight")] == model["fc2.weight"];
    assert!(["n0", "n1", "n2"].iter().any(is_model), "no node has this model");
}

#[test]
fn a_killed_run_goes_on_as_if_nothing_had_happened() {
    let folder = Folder::new("killed");
    let flags = ["--iterations=40", "--preconditioner=ekfac", "--momentum=0.9", "--slow-nodes=1.3x:1"];
    let flags = [&SMALL[..], &flags].concat();
    let metrics = || fs::read_to_string(folder.0.join("run/metrics.csv")).expect("metrics");
    let whole = result(&lossy(&folder, &flags));
    let (expected, kept) = (metrics(), folder.0.join("kept"));
    let keeping = [format!("--checkpoint={}", kept.display()), "--every=3".to_owned()];
    let keeping = [&flags[..], &keeping.each_ref().map(String::as_str)].concat();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lossy"));
    let mut child = command.args(&keeping).arg(format!("--output={}", folder.path("dead"))).spawn().expect("it starts");
    wait_for(&kept.join("00000003/manifest.json"));
    child.kill().expect("it runs");
    child.wait().expect("it is dead");
    assert!(!folder.0.join("dead/report.md").exists(), "it was killed before its end");

    let resume = format!("--resume={}", kept.display());
    let resumed = result(&lossy(&folder, &[&keeping[..], &[&resume]].concat()));
    for key in ["trace_hash", "accuracy", "bytes_sent", "rounds_committed", "virtual_seconds", "samples"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    assert_eq!(metrics(), expected);
    assert!(resumed["checkpoints"].as_u64() > Some(3) && resumed["checkpoint_bytes"].as_u64() > Some(100_000));

    // Another run must not write into the same folder, nor go on from it.
    let says = |output: Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let occupied = says(lossy(&folder, &keeping));
    assert!(occupied.contains("holds checkpoints already"), "{occupied}");
    let foreign = says(lossy(&folder, &[&flags[..], &[&resume, "--damping=0.05"]].concat()));
    assert!(foreign.contains("--damping is 0.03 there and 0.05 here"), "{foreign}");

    // A single changed bit is found, and the checkpoint before it offered.
    let mut names: Vec<_> = fs::read_dir(&kept).expect("a folder").map(|entry| entry.expect("a name").path()).collect();
    names.sort();
    let (newest, before) = (names[names.len() - 1].clone(), names[names.len() - 2].display().to_string());
    let file = newest.join("layers/fc2.safetensors");
    let mut bytes = fs::read(&file).expect("a layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&file, bytes).expect("a writable file");
    let damaged = says(lossy(&folder, &[&flags[..], &[&resume]].concat()));
    let offer = format!("--resume {before}");
    assert!(damaged.contains("layers/fc2.safetensors is damaged") && damaged.contains(&offer), "{damaged}");
    let fewer = format!("--resume={before}");
    let fewer = result(&lossy(&folder, &[&flags[..], &[&fewer, "--nodes=2", "--iterations=40"]].concat()));
    assert!(fewer["resumed"].as_str().is_some_and(|text| text.contains("of 3 nodes")), "{fewer}");

    // A folder that cannot be written is no surprise after an hour.
    let file = folder.0.join("run/report.md").join("kept");
    let readonly = says(lossy(&folder, &[&flags[..], &["--checkpoint", &file.display().to_string()]].concat()));
    assert!(readonly.contains("cannot create the folder"), "{readonly}");
}
