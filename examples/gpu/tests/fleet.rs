//! Fleets that compute on GPUs: all backends in one, and devices that are lost on the way; and the program that tries GPUs.
//!
//! Lavapipe and the stand-in for CUDA's libraries take the place of GPUs. What is missing is said.

use kronfleet_cuda_standin::StandIn;
use kronfleet_examples::run::{Fleet, Keeping, Order, Story, Workshop};
use kronfleet_lossy::trace::Trace;
use kronfleet_wgpu::{Choice, Device};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

/// A network that takes no time.
const TINY: &str = "input = [1, 28, 28]\n\
    [[layer]]\ntype = \"convolution\"\nname = \"conv1\"\noutputs = 4\nkernel = 4\nstride = 4\n\
    [[layer]]\ntype = \"relu\"\n\
    [[layer]]\ntype = \"flatten\"\n\
    [[layer]]\ntype = \"dense\"\nname = \"fc1\"\noutputs = 10\n";

const NODES: u32 = 4;
const ITERATIONS: u64 = 12;

/// Trains for [`ITERATIONS`], with an average every third.
fn train(flags: &[&str]) -> Story {
    let folder = tempfile::tempdir().expect("a writable temporary folder");
    let model = folder.path().join("tiny.toml");
    std::fs::write(&model, TINY).expect("a writable temporary folder");
    let model = format!("--model={}", model.display());
    let (nodes, iterations) = (format!("--nodes={NODES}"), format!("--iterations={ITERATIONS}"));
    let common = [
        "lossy",
        &model,
        &nodes,
        &iterations,
        "--interval=3",
        "--samples=200",
        "--batch=8",
        "--evaluate-every=12",
        "--average-factors",
        "--loss=0.05",
        "--quiet",
    ];
    let order = Order::of(common.iter().chain(flags).map(Into::into)).expect("flags that exist");
    let job = &order.settings;
    let workshop = Workshop::open(&job.task, &job.kfac, &job.optimiser, NODES, None).expect("settings that fit");
    let fleet = Fleet {
        workshop: &workshop,
        task: &job.task,
        averaging: &job.averaging,
        network: &job.network,
        output: &job.output,
        settings: &order.text,
        stop: Arc::default(),
    };
    let trace = Trace::hashed(order.text.clone());
    let (story, _) = fleet.run(fleet.faults().expect("no cuts"), trace, Keeping::default()).expect("nodes can be made");
    assert_eq!(story.failure, None);
    assert!(story.invariants.starts_with("All safety invariants held"), "{}", story.invariants);
    assert!(story.accuracy().is_some_and(|accuracy| accuracy > 0.0), "{:?}", story.averaged);
    assert!(story.nodes.iter().all(|node| node.iterations == ITERATIONS), "{:?}", story.nodes);
    story
}

/// Four nodes, four backends: whatever links and outages do, members of a commit have the same bits on their devices.
fn mixed_fleet() {
    let story = train(&["--backend=faer,nalgebra,wgpu,cuda", "--offline-fraction=0.3"]);
    assert!(story.rounds_committed >= 2, "{} rounds", story.rounds_committed);
    println!("  {} rounds, {} audits", story.rounds_committed, story.audits);
    assert!(story.audits >= 2, "{} audits", story.audits);
    assert_eq!(story.devices_lost, []);
    // What is committed has the same bits even where patches have fewer.
    let half = Device::open(&Choice::Best).is_ok_and(|device| device.adapter().has_half);
    let half: &[&str] = if half { &["--half"] } else { &[] };
    println!(
        "  {}",
        if half.is_empty() { "skipped: the adapter has no half precision" } else { "with half precision" }
    );
    let all = train(&[&["--backend=faer,nalgebra,wgpu,cuda", "--offline-fraction=0"], half].concat());
    // Every round has all four, the first of whom the other three are compared with.
    assert_eq!((all.rounds_committed, all.audits), (ITERATIONS / 3, ITERATIONS / 3 * 3));
}

/// All nodes and the judge, in several threads, on one wgpu device.
fn whole_wgpu() {
    let story = train(&["--backend=wgpu", "--offline-fraction=0"]);
    assert_eq!((story.rounds_committed, story.devices_lost.len()), (ITERATIONS / 3, 0));
}

/// The wgpu device is destroyed in the middle; both nodes on it and the judge go on without it.
fn lost_wgpu() {
    let story = train(&["--backend=wgpu,faer", "--lose-device=5", "--offline-fraction=0"]);
    lost(&story, &[0, 2]);
}

/// The CUDA device fails for good in the middle, as after a kernel that crashed.
fn lost_cuda(standin: &StandIn) {
    // Some launches judge, then each step of two nodes takes some dozens.
    let before = standin.launches();
    train(&["--backend=cuda,faer", "--offline-fraction=0"]);
    let launches = standin.launches() - before;
    standin.lose_after(launches / 2);
    let story = train(&["--backend=cuda,faer", "--offline-fraction=0"]);
    lost(&story, &[0, 2]);
}

fn lost(story: &Story, nodes: &[u32]) {
    let mut seen: Vec<u32> = story.devices_lost.iter().map(|loss| loss.node).collect();
    seen.sort_unstable();
    assert_eq!(seen, nodes, "{:?}", story.devices_lost);
    assert!(
        story.devices_lost.iter().all(|loss| (1..ITERATIONS).contains(&loss.iteration)),
        "{:?}",
        story.devices_lost
    );
    // Those who lost theirs go on being members.
    assert_eq!((story.rounds_committed, story.audits), (ITERATIONS / 3, ITERATIONS / 3 * 3));
    println!("  {}", story.devices_lost[0]);
}

/// The program tries all laws on both and says what each is.
fn report(libraries: &Path) {
    let folder = tempfile::tempdir().expect("a writable temporary folder");
    let file = folder.path().join("report.md");
    let output = Command::new(env!("CARGO_BIN_EXE_gpu"))
        .args(["--quick", "--laws", "1", "--output"])
        .arg(&file)
        .env("LD_LIBRARY_PATH", libraries)
        .output()
        .expect("it was built with this test");
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{says}");
    let text = std::fs::read_to_string(&file).expect("it was written");
    for part in [
        "CUDA: CPU stand-in (device 0), an emulation",
        "**Laws**: 42 of 42 hold",
        "| lenet5, batch 2 |",
        "| resnet20, batch 1 |",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

/// Without a device it says what to install.
fn no_device() {
    let output = Command::new(env!("CARGO_BIN_EXE_gpu"))
        .args(["--quick", "--backend", "wgpu", "--output", "/nonexistent"])
        .env("VK_DRIVER_FILES", "/nonexistent")
        .env("VK_ICD_FILENAMES", "/nonexistent")
        .output()
        .expect("it was built with this test");
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && says.contains("mesa-vulkan-drivers"), "{says}");
    let output = Command::new(env!("CARGO_BIN_EXE_gpu"))
        .args(["--quick", "--backend", "cuda", "--output", "/nonexistent"])
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .expect("it was built with this test");
    let says = String::from_utf8_lossy(&output.stderr);
    // Where there is a driver, it is the report that cannot be written.
    let named = ["the library cuda cannot be loaded; install NVIDIA's driver", "cannot write the report"];
    assert!(!output.status.success() && named.iter().any(|part| says.contains(part)), "{says}");
}

/// No test harness: it would keep what is skipped to itself. Arguments name tests, as parts of their names.
fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let standin = kronfleet_cuda_standin::load();
    let adapter = Device::open(&Choice::Best);
    if let Err(missing) = &standin {
        println!("skipped: fleets with CUDA: there is no stand-in: {missing}");
    }
    if let Err(missing) = &adapter {
        println!("skipped: fleets with wgpu: {missing}");
    }
    let mut failed = 0;
    let mut try_one = |name: &str, test: &dyn Fn()| {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            let start = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(test));
            failed += u32::from(outcome.is_err());
            let outcome = if outcome.is_ok() { "ok" } else { "FAILED" };
            println!("test {name} ... {outcome} ({} ms)", start.elapsed().as_millis());
        }
    };
    try_one("without a device it is said what to install", &no_device);
    if adapter.is_ok() {
        try_one("a fleet trains and is judged on wgpu", &whole_wgpu);
        try_one("nodes go on when their wgpu device is destroyed", &lost_wgpu);
    }
    if let Ok(standin) = &standin {
        try_one("nodes go on when their CUDA device has failed", &|| lost_cuda(standin));
        let libraries = kronfleet_cuda_standin::build().expect("it was built before");
        try_one("all laws are tried and everything is measured", &|| report(&libraries));
    }
    if adapter.is_ok() && standin.is_ok() {
        try_one("four backends train together and have the same weights after every commit", &mixed_fleet);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
