//! Faults for real: processes are killed and stopped by signals, and what happens is read from their event logs.
//!
//! Nothing sleeps: a test waits until the event logs say that something has happened, with a deadline. Every run ends
//! with the check of all safety invariants on those logs; a broken one is the run's failure.

use super::{Folder, SHM, TCP, result, start, until};
use kronfleet_core::cluster::{Incarnation, Occurrence, Record};
use kronfleet_core::transport::NodeId;
use kronfleet_examples::run::events::{self, Entry};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::Child;

/// A fleet that trains until it is told to leave, and loses a node within a second.
const ENDLESS: [&str; 9] = [
    "--nodes=3",
    "--iterations=1000000",
    "--samples=600",
    "--batch=16",
    "--evaluate-every=1000000",
    "--stall-budget=2s",
    "--kills=0",
    "--quiet",
    "--json",
];

/// A fleet under test.
struct Run<'a> {
    parent: Child,
    folder: &'a Folder,
    /// Where event logs are, in the folder.
    events: &'a str,
}

impl<'a> Run<'a> {
    fn start(program: &str, folder: &'a Folder, extra: &[&str]) -> Self {
        Self { parent: start(program, folder, &[&ENDLESS[..], extra].concat()), folder, events: "run/events" }
    }

    /// All that is recorded so far.
    fn entries(&self) -> Vec<Entry> {
        events::collect(Path::new(&self.folder.path(self.events))).unwrap_or_default()
    }

    /// Waits for a record made later than `after`; answers when the first was.
    #[track_caller]
    fn wait(&self, what: &str, after: u64, wanted: impl Fn(&Record) -> bool) -> u64 {
        let mut found = None;
        until(what, || {
            let entries = self.entries();
            found = entries.iter().find(|entry| entry.clock > after && wanted(&entry.record)).map(|entry| entry.clock);
            found.is_some()
        });
        found.expect("waited for")
    }

    /// Waits for a commit of exactly these nodes.
    #[track_caller]
    fn commit(&self, members: &[u32], after: u64) -> u64 {
        self.wait(&format!("a commit of {members:?}"), after, |record| match &record.what {
            Occurrence::Committed { certificate } => {
                certificate.members.iter().map(|member| member.node.0).eq(members.iter().copied())
            }
            _ => false,
        })
    }

    /// The process of a node: the one whose arguments say so.
    #[track_caller]
    fn process(&self, rank: u32) -> Pid {
        let session = format!("--session={}-", self.parent.id());
        let mut found = None;
        until(&format!("the process of n{rank}"), || {
            let processes = fs::read_dir("/proc").expect("/proc").flatten();
            found = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
                words.contains(&format!("--rank={rank}").as_bytes())
                    && words.iter().any(|word| word.starts_with(session.as_bytes()))
            });
            found.is_some()
        });
        found.and_then(Pid::from_raw).expect("just found")
    }

    #[track_caller]
    fn signal(&self, rank: u32, signal: Signal) {
        kill_process(self.process(rank), signal).expect("a process of this test");
    }

    /// Lets everybody leave; the run has to end well, with all invariants held.
    #[track_caller]
    fn end(self) -> serde_json::Value {
        kill_process(Pid::from_child(&self.parent), Signal::INT).expect("a process of this test");
        let result = result(&self.parent.wait_with_output().expect("it ends"));
        assert_eq!(result["interrupted"], true, "{result}");
        assert_eq!(result["failure"], serde_json::Value::Null, "{result}");
        result
    }
}

fn down(node: u32) -> impl Fn(&Record) -> bool {
    move |record| matches!(record.what, Occurrence::Down { peer, .. } if peer == NodeId(node))
}

/// Killed at once and started again: the others go on without it and then with it.
fn kill_and_restart(program: &str, name: &str, victim: u32) {
    let folder = Folder::new(name);
    let run = Run::start(program, &folder, &["--away=1ms"]);
    let before = run.commit(&[0, 1, 2], 0);
    run.signal(victim, Signal::KILL);
    run.wait("its loss", before, down(victim));
    let next = |record: &Record| record.node == NodeId(victim) && record.incarnation > Incarnation(1);
    let back = run.wait("its next start", before, next);
    run.commit(&[0, 1, 2], back);
    assert_eq!(run.end()["deaths"], 1);
}

#[test]
fn a_coordinator_is_killed_and_comes_back_through_shared_memory() {
    kill_and_restart(SHM, "shm-coordinator", 0);
}

#[test]
fn a_member_is_killed_and_comes_back_over_tcp() {
    kill_and_restart(TCP, "tcp-member", 2);
}

#[test]
fn a_coordinator_is_killed_and_comes_back_over_tcp() {
    kill_and_restart(TCP, "tcp-coordinator", 0);
}

#[test]
fn a_process_is_killed_at_every_point_of_the_protocol() {
    let points: [(&str, &[&str]); 8] = [
        (SHM, &["1.1:ready:2"]),
        (SHM, &["0.1:proposed:2"]),
        (SHM, &["0.1:done:2"]),
        (TCP, &["1.1:done:2"]),
        (TCP, &["0.1:committed:2"]),
        (SHM, &["1.1:committed:2"]),
        // Who is back dies again, when it meets the others and before it is healed.
        (TCP, &["1.1:done:1", "1.2:ready:1"]),
        (SHM, &["2.1:committed:1", "2.2:up:1"]),
    ];
    for (program, points) in points {
        let folder = Folder::new("points");
        let mut flags = super::SMALL.to_vec();
        flags.extend(["--stall-budget=4s", "--kills=0", "--away=1ms", "--no-reference"]);
        flags.extend(points.iter().flat_map(|point| ["--kill-at", point]));
        let result = result(&super::run(program, &folder, &flags).1);
        assert_eq!(result["deaths"].as_u64(), Some(points.len() as u64), "{points:?}: {result}");
        assert!(result["accuracy"].is_f64(), "{points:?}: all have come to the end: {result}");
    }
}

/// Stopped for longer than detection takes: the others go on without it, and with it once it is continued; it has the
/// same incarnation then.
fn stopped_for_long(program: &str, name: &str) {
    let folder = Folder::new(name);
    let run = Run::start(program, &folder, &[]);
    let before = run.commit(&[0, 1, 2], 0);
    run.signal(1, Signal::STOP);
    let lost = run.wait("its loss", before, down(1));
    let without = run.commit(&[0, 2], lost);
    run.signal(1, Signal::CONT);
    run.commit(&[0, 1, 2], without);
    assert!(run.entries().iter().all(|entry| entry.record.incarnation == Incarnation(1)));
    assert_eq!(run.end()["deaths"], 0);
}

#[test]
fn a_process_that_stands_still_for_long_is_gone_on_without_through_shared_memory() {
    stopped_for_long(SHM, "shm-long-stop");
}

#[test]
fn a_process_that_stands_still_for_long_is_gone_on_without_over_tcp() {
    stopped_for_long(TCP, "tcp-long-stop");
}

#[test]
fn a_process_that_stands_still_for_a_moment_is_waited_for() {
    for (program, name) in [(SHM, "shm-short-stop"), (TCP, "tcp-short-stop")] {
        let folder = Folder::new(name);
        let run = Run::start(program, &folder, &["--stall-budget=60s"]);
        let mut seen = run.commit(&[0, 1, 2], 0);
        for _ in 0..3 {
            run.signal(1, Signal::STOP);
            // It stands still for as long as it takes the others to say anything more, or to come to a halt.
            let process = run.process(1).as_raw_nonzero();
            until("it stands still", || {
                let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
                status.contains(") T ")
            });
            run.signal(1, Signal::CONT);
            seen = run.commit(&[0, 1, 2], seen);
        }
        assert!(!run.entries().iter().any(|entry| down(1)(&entry.record)), "it was never lost");
        run.end();
    }
}

#[test]
fn everything_is_killed_and_goes_on_from_what_a_majority_had_made_durable() {
    for (program, name) in [(SHM, "shm-all"), (TCP, "tcp-all")] {
        let folder = Folder::new(name);
        let state = folder.path("state");
        let strict = ["--mode=strict", "--state", &state];
        let run = Run { events: "state/events", ..Run::start(program, &folder, &strict) };
        run.commit(&[0, 1, 2], 0);
        // Who starts others again, or lets them leave in peace, must not see what happens.
        kill_process(Pid::from_child(&run.parent), Signal::STOP).expect("a process of this test");
        for rank in 0..3 {
            run.signal(rank, Signal::KILL);
        }
        let mut parent = run.parent;
        parent.kill().expect("a process of this test");
        parent.wait().expect("a process of this test");
        let before = Run { parent, folder: &folder, events: "state/events" }.entries();
        let killed = events::clock();
        let rounds = |entries: &[Entry]| {
            let commits = entries.iter().filter_map(|entry| match &entry.record.what {
                Occurrence::Committed { certificate } => Some(certificate.round),
                _ => None,
            });
            commits.max()
        };

        let run = Run { events: "state/events", ..Run::start(program, &folder, &strict) };
        let newest = rounds(&before);
        let restored = |record: &Record| match &record.what {
            Occurrence::Healed { certificate, .. } => Some(certificate.round) >= newest,
            _ => false,
        };
        let healed = run.wait("the state from before", killed, restored);
        run.commit(&[0, 1, 2], healed);
        assert!(rounds(&run.entries()) > newest);
        run.end();
        let other = super::run(program, &folder, &[&ENDLESS[..], &strict, &["--seed=9"]].concat()).1;
        let says = String::from_utf8_lossy(&other.stderr);
        assert!(!other.status.success() && says.contains("another run's"), "{says}");
    }
}
