//! A process is stopped, a later start of its node takes its place, and it goes on: there are never two that write.

use super::{Folder, SHM, TCP, until};
use kronfleet_core::cluster::{Incarnation, Occurrence, Record};
use kronfleet_core::transport::NodeId;
use kronfleet_examples::run::events::{self, Entry};
use kronfleet_examples::run::processes::SUPERSEDED;
use kronfleet_examples::trial::{Observed, commit_of, loss_of};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

/// Nodes that train until they are told to leave, and lose another within a second.
const ENDLESS: [&str; 8] = [
    "--nodes=3",
    "--iterations=1000000",
    "--samples=600",
    "--batch=16",
    "--evaluate-every=1000000",
    "--stall-budget=2s",
    "--preconditioner=none",
    "--quiet",
];

/// Whether a record is a commit of all three, n1 or n2 being a later start than the one named.
fn commit_with_a_later(node: u32, former: Incarnation) -> impl Fn(&Record) -> bool {
    let all = commit_of(&[0, 1, 2]);
    move |record| {
        let Occurrence::Committed { certificate } = &record.what else { return false };
        let later =
            |member: &kronfleet_core::cluster::Member| member.node == NodeId(node) && member.incarnation > former;
        all(record) && certificate.members.iter().any(later)
    }
}

/// Who a node's first start is.
fn first(entries: &[Entry], node: u32) -> Incarnation {
    let mut own = entries.iter().filter(|entry| entry.record.node == NodeId(node));
    own.next().expect("it has recorded that it started").record.incarnation
}

/// Nothing that others would have to take over was done by this start after this moment.
#[track_caller]
fn assert_idle(entries: &[Entry], node: u32, start: Incarnation, after: u64) {
    let acts = |what: &Occurrence| {
        matches!(
            what,
            Occurrence::Proposed { .. }
                | Occurrence::Done { .. }
                | Occurrence::Committed { .. }
                | Occurrence::Healed { .. }
        )
    };
    let own = |entry: &&Entry| entry.record.node == NodeId(node) && entry.record.incarnation == start;
    let late = entries.iter().filter(own).find(|entry| entry.clock > after && acts(&entry.record.what));
    assert!(late.is_none(), "n{node} {start} has gone on: {late:?}");
}

/// A node's process as the first process starts it; left to itself it leaves when this is dropped.
struct Node {
    child: Child,
    complaints: ChildStderr,
}

impl Node {
    fn start(folder: &Folder, rank: u32, start: u64) -> Self {
        let own = [
            format!("--rank={rank}"),
            format!("--start={start}"),
            format!("--session={}-succession", std::process::id()),
            format!("--events={}", folder.path("events")),
        ];
        let mut command = Command::new(SHM);
        let command = command.args(ENDLESS).args(own).args((start == 1).then_some("--first"));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("it may begin");
        let complaints = child.stderr.take().expect("a pipe");
        Self { child, complaints }
    }

    /// Lets it leave.
    fn leave(mut self) -> String {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.complaints.read_to_string(&mut text).expect("text");
        let status = self.child.wait().expect("ours");
        assert!(status.success(), "{status}: {text}");
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_stopped_process_is_ended_by_its_successor_through_shared_memory() {
    let folder = Folder::new("shm-successor");
    let logs = folder.path("events");
    let entries = || events::collect(Path::new(&logs)).unwrap_or_default();
    let wait = |what: &str, after: u64, wanted: &dyn Fn(&Record) -> bool| {
        let mut found = None;
        until(what, || {
            found =
                entries().iter().find(|entry| entry.clock > after && wanted(&entry.record)).map(|entry| entry.clock);
            found.is_some()
        });
        found.expect("waited for")
    };
    let [zero, mut former, two] = [0, 1, 2].map(|rank| Node::start(&folder, rank, 1));
    let before = wait("a commit of all", 0, &commit_of(&[0, 1, 2]));

    // As long as it lives, nobody else gets its place, nor its claim.
    let mut early = Node::start(&folder, 1, 2);
    assert!(!early.child.wait().expect("ours").success());
    let mut says = String::new();
    early.complaints.read_to_string(&mut says).expect("text");
    let pid = former.child.id();
    assert!(says.contains(&format!("is process {pid}, which lives: end it first (kill -9 {pid})")), "{says}");
    let before = wait("a commit of all", before.max(events::clock()), &commit_of(&[0, 1, 2]));

    kill_process(Pid::from_child(&former.child), Signal::STOP).expect("ours");
    let lost = wait("its loss", before, &loss_of(1));
    wait("a commit of the others", lost, &commit_of(&[0, 2]));
    let successor = Node::start(&folder, 1, 3);
    let together = wait("a commit with its successor", lost, &commit_with_a_later(1, Incarnation(1)));
    // Stopped as it was, nothing but this could end it.
    assert_eq!(former.child.wait().expect("ours").signal(), Some(Signal::KILL.as_raw()));
    wait("another", together, &commit_with_a_later(1, Incarnation(1)));
    let says = successor.leave();
    assert!(
        says.contains(&format!("n1: process {pid}, a former start")) && says.contains("i3 takes its place"),
        "{says}"
    );
    for node in [zero, two] {
        node.leave();
    }
    let entries = entries();
    assert_idle(&entries, 1, Incarnation(1), lost);
    events::check(&entries, "of a fenced process").expect("all safety invariants hold");
}

/// A node of several machines that a user starts.
fn node(folder: &Folder, rank: u32, output: &str, seed: &str) -> Observed {
    let output = folder.path(output);
    let own = [format!("--node={rank}"), format!("--join={seed}"), format!("--output={output}")];
    let mut command = Command::new(TCP);
    command.args(ENDLESS).args(own).arg("--json");
    if rank == 0 {
        command.arg(format!("--listen={seed}"));
    }
    Observed::launch(&mut command, Path::new(&output).join("events")).expect("the program starts")
}

#[test]
fn a_former_self_that_goes_on_beside_its_successor_ends_over_tcp() {
    let folder = Folder::new("tcp-successor");
    let seed = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port");
    let seed = seed.to_string();
    let [zero, one, two] = [0, 1, 2].map(|rank| node(&folder, rank, &format!("node{rank}"), &seed));
    let mut seen = zero.commit(&[0, 1, 2], 0).expect("it comes");
    let mut successors = Vec::new();
    let mut formers = Vec::new();
    // The first successor is on another machine, as far as files go; the second one has taken over the run folder.
    for (former, rank, output) in [(one, 1, "elsewhere"), (two, 2, "node2")] {
        let start = first(&former.entries(), rank);
        former.signal(rank, Signal::STOP).expect("ours");
        let lost = zero.wait("its loss", seen, loss_of(rank)).expect("it comes");
        zero.commit(if rank == 1 { &[0, 2] } else { &[0, 1] }, lost).expect("it comes");
        // Its log is emptied with the folder; what it still writes is seen here.
        let kept = folder.path(&format!("former{rank}"));
        fs::create_dir(&kept).expect("ours");
        let name = format!("n{rank}-{start}.jsonl");
        let log = folder.path(&format!("node{rank}/events/{name}"));
        fs::hard_link(log, Path::new(&kept).join(&name)).expect("the log of the former start");
        let successor = node(&folder, rank, output, &seed);
        seen = zero.wait("a commit with its successor", lost, commit_with_a_later(rank, start)).expect("it comes");
        let newest = first(&successor.entries(), rank);
        assert!(newest > start);

        let continued = former.signal(rank, Signal::CONT).expect("ours");
        let ended = former.output().expect("it ends");
        let says = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(i32::from(SUPERSEDED)), "{says}");
        for part in [format!("n{rank}"), newest.0.to_string(), start.0.to_string()] {
            assert!(says.contains(&part), "{part} in {says}");
        }
        assert!(ended.stdout.is_empty(), "it has no result: {}", String::from_utf8_lossy(&ended.stdout));
        for file in ["report.md", "result.json"] {
            let path = folder.path(&format!("node{rank}/{file}"));
            assert!(!Path::new(&path).exists(), "{path} is none of its business");
        }
        seen = zero.wait("another", seen, commit_with_a_later(rank, start)).expect("it comes");
        formers.push((rank, start, continued, kept));
        successors.push(successor);
    }
    for node in successors.into_iter().chain([zero]) {
        assert_eq!(node.end().expect("it ends well")["interrupted"], true);
    }
    let mut logs: Vec<String> = ["node0", "elsewhere", "node2"].map(|node| folder.path(node) + "/events").into();
    logs.extend(formers.iter().map(|(.., kept)| kept.clone()));
    let collect = |log: &String| events::collect(Path::new(log)).expect("event logs");
    let mut entries: Vec<Entry> = logs.iter().flat_map(collect).collect();
    entries.sort_by_key(|entry| entry.clock);
    for (rank, start, continued, _) in formers {
        assert_idle(&entries, rank, start, continued);
    }
    events::check(&entries, "of former selves").expect("all safety invariants hold");
}
