//! The same trainer among processes that talk through shared memory or TCP, and really die.

mod faults;
mod launchers;
mod namespaces;
mod proxies;
mod replay;
mod succession;

use super::{Folder, lossy, result};
use kronfleet_core::cluster::Occurrence;
use kronfleet_examples::run::events;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The trainers over processes.
const SHM: &str = env!("CARGO_BIN_EXE_shm");
const TCP: &str = env!("CARGO_BIN_EXE_tcp");

/// A small fleet; patient, for the machine may be busy.
const SMALL: [&str; 8] = [
    "--nodes=3",
    "--iterations=20",
    "--samples=600",
    "--batch=16",
    "--evaluate-every=10",
    "--stall-budget=30s",
    "--quiet",
    "--json",
];

fn start(program: &str, folder: &Folder, extra: &[&str]) -> Child {
    let output = format!("--output={}", folder.path("run"));
    let mut command = Command::new(program);
    let command = command.args(extra).arg(output).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Waits for the end of a program; its process number, too.
fn run(program: &str, folder: &Folder, extra: &[&str]) -> (u32, Output) {
    let child = start(program, folder, extra);
    (child.id(), child.wait_with_output().expect("it ends"))
}

/// Segments in shared memory of the run that this process started.
fn segments(parent: u32) -> usize {
    let prefix = format!("kronfleet-{parent}-");
    let named = |name: std::ffi::OsString| name.to_string_lossy().starts_with(&prefix);
    fs::read_dir("/dev/shm")
        .expect("/dev/shm")
        .filter(|entry| entry.as_ref().is_ok_and(|e| named(e.file_name())))
        .count()
}

/// Processes that the process started: those whose arguments name its session.
fn children(parent: u32) -> usize {
    let session = format!("--session={parent}-");
    let told = |pid: std::ffi::OsString| {
        let path = format!("/proc/{}/cmdline", pid.to_string_lossy());
        fs::read(path).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&session))
    };
    fs::read_dir("/proc").expect("/proc").filter(|entry| entry.as_ref().is_ok_and(|e| told(e.file_name()))).count()
}

/// Waits until a condition holds.
#[track_caller]
fn until(what: &str, holds: impl FnMut() -> bool) {
    kronfleet_examples::trial::until(what, holds).expect("it comes");
}

/// Who has committed something so far, as the event logs say.
fn committed(folder: &Folder) -> usize {
    let entries = events::collect(Path::new(&folder.path("run/events"))).unwrap_or_default();
    entries.iter().filter(|entry| matches!(entry.record.what, Occurrence::Committed { .. })).count()
}

fn a_killed_process_comes_back(program: &str, name: &str) {
    let folder = Folder::new(name);
    let (parent, output) = run(program, &folder, &[&SMALL[..], &["--away=10ms", "--no-reference"]].concat());
    let result = result(&output);
    assert_eq!(result["deaths"], 1);
    assert!(result["rounds_committed"].as_u64() >= Some(2), "{result}");
    assert!(result["released_ms"].as_f64() < Some(5e3), "the transport told the others, not a timeout: {result}");
    assert!(result["accuracy"].is_f64(), "all nodes have reached the last iteration: {result}");
    let text = fs::read_to_string(folder.path("run/events.log")).expect("what nodes recorded");
    assert!(text.contains(" reported\n") && text.contains(".i2 started\n"), "{text}");
    let report = fs::read_to_string(folder.path("run/report.md")).expect("the report");
    assert!(report.contains("| processes killed") && report.contains("All safety invariants held"), "{report}");
    assert_eq!((segments(parent), children(parent)), (0, 0));

    // The same checker refuses the same logs once a member of a round has not had its result.
    let mut entries = events::collect(Path::new(&folder.path("run/events"))).expect("event logs");
    events::check(&entries, "untouched").expect("they are sound");
    let done = entries.iter().position(|entry| matches!(entry.record.what, Occurrence::Done { .. }));
    entries.remove(done.expect("rounds were committed"));
    let refused = events::check(&entries, "tampered with").expect_err("a result is missing").to_string();
    assert!(refused.contains("agreement") && refused.contains("tampered with"), "{refused}");
}

#[test]
fn a_killed_process_comes_back_through_shared_memory() {
    a_killed_process_comes_back(SHM, "shm-kill");
}

#[test]
fn a_killed_process_comes_back_over_tcp() {
    a_killed_process_comes_back(TCP, "tcp-kill");
}

#[test]
fn without_faults_all_transports_give_the_same_weights_to_the_bit() {
    let folder = Folder::new("bits");
    let simulated = result(&lossy(&folder, &[&SMALL[..], &["--outages=none"]].concat()));
    assert!(simulated["weights"].is_string(), "{simulated}");
    // Every round has all three, the first of whom the other two are compared with.
    assert_eq!(simulated["audits"].as_u64(), simulated["rounds_committed"].as_u64().map(|rounds| 2 * rounds));
    for (program, extra) in [(SHM, "--quiet"), (TCP, "--quiet"), (TCP, "--tls")] {
        let real = result(&run(program, &folder, &[&SMALL[..], &["--kills=0", extra]].concat()).1);
        for key in ["rounds_committed", "audits", "accuracy", "weights"] {
            assert_eq!(simulated[key], real[key], "{key} with {program} {extra}");
        }
    }
}

fn an_interrupt_ends_with_the_report(program: &str, name: &str, shared: usize) {
    let folder = Folder::new(name);
    let endless = [&SMALL[..], &["--iterations=1000000", "--kills=0"]].concat();
    let mut interrupted = start(program, &folder, &endless);
    let parent = interrupted.id();
    until("three processes that have committed", || committed(&folder) >= 3);
    assert_eq!((children(parent), segments(parent)), (3, shared));
    kill_process(Pid::from_child(&interrupted), Signal::TERM).expect("ours");
    let mut text = String::new();
    interrupted.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
    assert!(interrupted.wait().expect("it ends").success());
    assert!(text.contains("\"interrupted\":true"), "{text}");
    assert_eq!((segments(parent), children(parent)), (0, 0));
    let log = fs::read_to_string(folder.path("run/events.log")).expect("what nodes recorded");
    for node in 0..3 {
        assert!(log.contains(&format!(" n{node}.i1 left\n")), "n{node} has said goodbye: {log}");
    }
    let report = fs::read_to_string(folder.path("run/report.md")).expect("the report");
    assert!(report.contains("All safety invariants held"), "{report}");

    let mut killed = start(program, &folder, &endless);
    let parent = killed.id();
    until("three processes", || (children(parent), segments(parent)) == (3, shared));
    killed.kill().expect("ours");
    killed.wait().expect("ours");
    until("nobody left behind", || (children(parent), segments(parent)) == (0, 0));
}

#[test]
fn an_interrupt_ends_with_the_report_and_a_kill_leaves_nothing_running_through_shared_memory() {
    an_interrupt_ends_with_the_report(SHM, "shm-stop", 1);
}

#[test]
fn an_interrupt_ends_with_the_report_and_a_kill_leaves_nothing_running_over_tcp() {
    an_interrupt_ends_with_the_report(TCP, "tcp-stop", 0);
}
