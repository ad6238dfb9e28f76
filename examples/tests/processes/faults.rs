//! Faults for real: processes are killed and stopped by signals, and what happens is read from their event logs.
//!
//! Nothing sleeps: a test waits until the event logs say that something has happened, with a deadline. Every run ends
//! with the check of all safety invariants on those logs; a broken one is the run's failure.

use super::{Folder, SHM, TCP, result, until};
use kronfleet_core::cluster::{Incarnation, Occurrence, Record};
use kronfleet_core::transport::NodeId;
use kronfleet_examples::run::events::{self, Entry};
use kronfleet_examples::trial::{Observed, loss_of};
use rustix::process::Signal;
use std::fs;
use std::path::Path;

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
struct Run {
    fleet: Observed,
}

impl Run {
    fn start(program: &str, folder: &Folder, extra: &[&str]) -> Self {
        Self::start_with(program, folder, "run/events", extra)
    }

    /// The same with event logs in another place of the folder.
    fn start_with(program: &str, folder: &Folder, events: &str, extra: &[&str]) -> Self {
        let output = format!("--output={}", folder.path("run"));
        let flags = [&ENDLESS[..], extra, &[&output]].concat();
        let fleet = Observed::start(Path::new(program), &flags, folder.path(events).into());
        Self { fleet: fleet.expect("the program starts") }
    }

    /// All that is recorded so far.
    fn entries(&self) -> Vec<Entry> {
        self.fleet.entries().to_vec()
    }

    /// Waits for a record made later than `after`; answers when the first was.
    #[track_caller]
    fn wait(&self, what: &str, after: u64, wanted: impl Fn(&Record) -> bool) -> u64 {
        self.fleet.wait(what, after, wanted).expect("it comes")
    }

    /// Waits for a commit of exactly these nodes.
    #[track_caller]
    fn commit(&self, members: &[u32], after: u64) -> u64 {
        self.fleet.commit(members, after).expect("it comes")
    }

    #[track_caller]
    fn signal(&self, rank: u32, signal: Signal) -> u64 {
        self.fleet.signal(rank, signal).expect("a process of this test")
    }

    /// Lets everybody leave; the run has to end well, with all invariants held.
    #[track_caller]
    fn end(self) -> serde_json::Value {
        let result = self.fleet.end().expect("it ends well");
        assert_eq!(result["interrupted"], true, "{result}");
        assert_eq!(result["failure"], serde_json::Value::Null, "{result}");
        result
    }
}

/// Killed at once and started again: the others go on without it and then with it.
fn kill_and_restart(program: &str, name: &str, victim: u32) {
    let folder = Folder::new(name);
    let run = Run::start(program, &folder, &["--away=1ms"]);
    let before = run.commit(&[0, 1, 2], 0);
    run.signal(victim, Signal::KILL);
    run.wait("its loss", before, loss_of(victim));
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
fn processes_are_killed_at_every_point_of_the_protocol() {
    // n0 proposes while it is there, and n1 after it; who is back dies again, when it meets the others or is ready and
    // before it is healed.
    let points: [&[&str]; 4] = [
        &["0.1:ready:2", "1.1:committed:4", "0.2:up:1"],
        &["0.1:proposed:2", "1.1:done:4", "1.2:ready:1"],
        &["0.1:done:2", "1.1:proposed:1", "1.2:started:1"],
        &["0.1:committed:2", "1.1:ready:4", "2.1:ready:7"],
    ];
    for program in [SHM, TCP] {
        for points in points {
            let folder = Folder::new("points");
            let mut flags = super::SMALL.to_vec();
            flags.extend(["--iterations=60", "--stall-budget=4s", "--kills=0", "--away=1ms", "--no-reference"]);
            flags.extend(points.iter().flat_map(|point| ["--kill-at", point]));
            let result = result(&super::run(program, &folder, &flags).1);
            assert_eq!(result["deaths"].as_u64(), Some(points.len() as u64), "{program} {points:?}: {result}");
            assert!(result["accuracy"].is_f64(), "{points:?}: all have come to the end: {result}");
        }
    }
}

/// Rounds take all three here, so that who is back is brought up to date by one of the others: it dies meanwhile, and then
/// whoever gives.
fn both_ends_of_catching_up_die(program: &str, name: &str) {
    let folder = Folder::new(name);
    let fatal = ["--kill-at=2.1:committed:2", "--kill-at=2.2:healing:1"];
    let flags = ["--min-members=3", "--model=mlp", "--preconditioner=none", "--away=1ms", "--stall-budget=8s"];
    let run = Run::start(program, &folder, &[&flags[..], &fatal].concat());
    let taker = |record: &Record| record.node == NodeId(2) && record.incarnation == Incarnation(3);
    let mut donor = None;
    let asked = run.wait("the second attempt to catch up", 0, |record| {
        taker(record) && matches!(record.what, Occurrence::Healing { .. })
    });
    for entry in run.entries() {
        if let (true, Occurrence::Healing { donor: asked }) = (taker(&entry.record), &entry.record.what) {
            donor = Some(asked.0);
        }
    }
    run.signal(donor.expect("somebody was asked"), Signal::KILL);
    let healed =
        run.wait("the state", asked, |record| taker(record) && matches!(record.what, Occurrence::Healed { .. }));
    let together = run.commit(&[0, 1, 2], healed);
    run.commit(&[0, 1, 2], together);
    assert_eq!(run.end()["deaths"], 3);
}

#[test]
fn both_ends_of_catching_up_die_through_shared_memory() {
    both_ends_of_catching_up_die(SHM, "shm-catch-up");
}

#[test]
fn both_ends_of_catching_up_die_over_tcp() {
    both_ends_of_catching_up_die(TCP, "tcp-catch-up");
}

/// Stopped for longer than detection takes: the others go on without it, and with it once it is continued; it has the
/// same incarnation then.
fn stopped_for_long(program: &str, name: &str) {
    let folder = Folder::new(name);
    let run = Run::start(program, &folder, &[]);
    let before = run.commit(&[0, 1, 2], 0);
    run.signal(1, Signal::STOP);
    let lost = run.wait("its loss", before, loss_of(1));
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
            let process = run.fleet.process(1).expect("a process of this test").as_raw_nonzero();
            until("it stands still", || {
                let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
                status.contains(") T ")
            });
            run.signal(1, Signal::CONT);
            seen = run.commit(&[0, 1, 2], seen);
        }
        assert!(!run.entries().iter().any(|entry| loss_of(1)(&entry.record)), "it was never lost");
        run.end();
    }
}

#[test]
fn everything_is_killed_and_goes_on_from_what_a_majority_had_made_durable() {
    for (program, name) in [(SHM, "shm-all"), (TCP, "tcp-all")] {
        let folder = Folder::new(name);
        let state = folder.path("state");
        let strict = ["--mode=strict", "--state", &state];
        let run = Run::start_with(program, &folder, "state/events", &strict);
        run.commit(&[0, 1, 2], 0);
        // Who starts others again, or lets them leave in peace, must not see what happens.
        run.fleet.signal_parent(Signal::STOP).expect("a process of this test");
        for rank in 0..3 {
            run.signal(rank, Signal::KILL);
        }
        let before = run.entries();
        drop(run);
        let killed = events::clock();
        let rounds = |entries: &[Entry]| {
            let commits = entries.iter().filter_map(|entry| match &entry.record.what {
                Occurrence::Committed { certificate } => Some(certificate.round),
                _ => None,
            });
            commits.max()
        };

        let run = Run::start_with(program, &folder, "state/events", &strict);
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
