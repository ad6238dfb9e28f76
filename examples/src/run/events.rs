//! What nodes record, in files that outlive them.
//!
//! Each start of a node has a file of its own, of one line of JSON per record, with the time of a clock that all processes
//! of a machine share. A node writes a line before anybody can hear of what it says: so what a killed process had told
//! others stands in its file, and files sorted by their times tell what happened in an order in which causes precede
//! effects. The invariants of a run are checked on that, by the same [`Checker`] as in the simulator.

use super::retrace::Recorded;
use anyhow::{Context, Result};
use kronfleet_conformance::invariants::{Checker, Summary};
use kronfleet_core::cluster::{Incarnation, Record};
use kronfleet_core::transport::NodeId;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One line of an event log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Nanoseconds of the machine's monotonic clock.
    pub clock: u64,
    /// What was recorded.
    pub record: Record,
}

/// The file of one start of a node.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    path: PathBuf,
}

impl EventLog {
    /// An empty file in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made: the message names it.
    pub fn create(folder: &Path, node: NodeId, incarnation: Incarnation) -> Result<Self> {
        let path = folder.join(format!("{node}-{incarnation}.jsonl"));
        let file = fs::create_dir_all(folder).and_then(|()| File::create(&path));
        let file = file.with_context(|| format!("cannot create the event log {}", path.display()))?;
        Ok(Self { file, path })
    }

    /// Adds a record. It is the system's when this returns, and outlives the process.
    ///
    /// # Errors
    /// If the disk is full: the message names the file.
    pub fn write(&mut self, record: Record) -> Result<()> {
        let line = serde_json::to_string(&Entry { clock: clock(), record })? + "\n";
        self.file
            .write_all(line.as_bytes())
            .with_context(|| format!("cannot write {}; is the disk full?", self.path.display()))
    }
}

/// Now, in nanoseconds of the clock that event logs are written with.
pub fn clock() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What a log says. A last line that is cut short is left out: its process was killed before anybody heard of it.
///
/// # Errors
/// If a line makes no sense: the message says which.
pub fn parse(text: &str) -> Result<Vec<Entry>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let entry = |(index, line)| {
        serde_json::from_str(line).with_context(|| format!("line {} is no record of a node", index + 1))
    };
    whole.lines().enumerate().map(entry).collect()
}

/// All logs of a folder, in an order in which causes precede effects.
///
/// # Errors
/// If a file cannot be read or makes no sense: the message names it.
pub fn collect(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let listed = fs::read_dir(folder).with_context(|| format!("no event logs in {}", folder.display()))?;
    for file in listed {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        entries.extend(parse(&text).with_context(|| path.display().to_string())?);
    }
    sort(&mut entries);
    Ok(entries)
}

/// By time; a node's own records keep their order where its clock stands still.
pub(crate) fn sort(entries: &mut [Entry]) {
    entries.sort_by_key(|entry| (entry.clock, entry.record.node, entry.record.incarnation));
}

/// Checks every safety invariant on logs in the order of [`collect`]; `origin` says where they come from.
///
/// # Errors
/// The first violation.
pub fn check(entries: &[Entry], origin: &str) -> Result<Summary> {
    let mut checker = Checker::new(format!("the event logs {origin}"));
    for entry in entries {
        checker.observe(&entry.record)?;
    }
    Ok(checker.finish()?)
}

/// Reads anything as an event log, for fuzzing: it is answered, never with a panic.
pub fn exercise_event_log(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(mut entries) = parse(text) {
        sort(&mut entries);
        let _ = check(&entries, "under test");
        let _ = Recorded::of(String::new(), &entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kronfleet_core::cluster::Occurrence;
    use kronfleet_core::time::Instant;
    use proptest::prelude::*;

    fn record(node: u32) -> Record {
        Record { at: Instant::ORIGIN, node: NodeId(node), incarnation: Incarnation(1), what: Occurrence::Started }
    }

    #[test]
    fn logs_are_read_back_in_the_order_of_their_clocks_and_what_was_cut_short_is_left_out() {
        let folder = tempfile::tempdir().expect("a writable temporary folder");
        let mut logs: Vec<EventLog> =
            (0..2).map(|node| EventLog::create(folder.path(), NodeId(node), Incarnation(1)).expect("a file")).collect();
        for node in [1, 0, 1, 1, 0] {
            logs[node as usize].write(record(node)).expect("a disk with room");
        }
        logs[0].file.write_all(b"{\"clock\":1,\"rec").expect("a disk with room");
        let nodes: Vec<u32> = collect(folder.path()).expect("logs").iter().map(|entry| entry.record.node.0).collect();
        assert_eq!(nodes, [1, 0, 1, 1, 0]);
        logs[0].file.write_all(b"\n").expect("a disk with room");
        let says = format!("{:#}", collect(folder.path()).expect_err("a line makes no sense"));
        assert!(says.contains("n0-i1.jsonl") && says.contains("line 3"), "{says}");
    }

    proptest! {
        #[test]
        fn any_log_is_answered(bytes: Vec<u8>) {
            exercise_event_log(&bytes);
        }
    }
}
