//! A fleet of processes of this machine, seen from outside.

use crate::run::events::{self, Entry};
use anyhow::{Context, Result, bail, ensure};
use kronfleet_core::cluster::{Occurrence, Record};
use kronfleet_core::transport::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long is waited for something that is bound to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A trainer over processes that runs; dropping it kills it, and with it all its nodes.
pub struct Observed {
    parent: Option<Child>,
    logs: RefCell<Logs>,
}

/// Event logs as far as they were read: they grow, and reading all of them again and again would be felt.
struct Logs {
    folder: PathBuf,
    /// Bytes read of each file, whole lines.
    read: BTreeMap<PathBuf, usize>,
    entries: Vec<Entry>,
}

impl Logs {
    fn refresh(&mut self) -> Result<()> {
        let Ok(files) = fs::read_dir(&self.folder) else { return Ok(()) };
        let mut more = false;
        for path in files.flatten().map(|file| file.path()) {
            if path.extension().is_none_or(|extension| extension != "jsonl") {
                continue;
            }
            let read = self.read.entry(path.clone()).or_default();
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(*read as u64))?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            self.entries.extend(events::parse(&text[..whole])?);
            *read += whole;
            more |= whole > 0;
        }
        if more {
            events::sort(&mut self.entries);
        }
        Ok(())
    }
}

impl Observed {
    /// Starts a trainer with these flags, whose event logs come into being in the folder `events`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &Path, flags: &[&str], events: PathBuf) -> Result<Self> {
        Self::launch(Command::new(program).args(flags), events)
    }

    /// Starts a trainer by this command.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch(command: &mut Command, events: PathBuf) -> Result<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let parent = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let logs = Logs { folder: events, read: BTreeMap::new(), entries: Vec::new() };
        Ok(Self { parent: Some(parent), logs: RefCell::new(logs) })
    }

    fn parent(&self) -> &Child {
        self.parent.as_ref().expect("taken at the end only")
    }

    /// The number of the process that was started; its nodes' name it.
    pub fn id(&self) -> u32 {
        self.parent().id()
    }

    /// All that is recorded so far, in an order in which causes precede effects.
    pub fn entries(&self) -> Ref<'_, [Entry]> {
        // What cannot be read yet is read next time; whoever waits for it in vain says so.
        let _ = self.logs.borrow_mut().refresh();
        Ref::map(self.logs.borrow(), |logs| &logs.entries[..])
    }

    /// Waits for a record made later than `after`; answers when the first was, in nanoseconds of
    /// [`clock`](events::clock).
    ///
    /// # Errors
    /// If it does not come: the message names what was waited for.
    pub fn wait(&self, what: &str, after: u64, wanted: impl Fn(&Record) -> bool) -> Result<u64> {
        let mut found = None;
        until(what, || {
            let entries = self.entries();
            found = entries.iter().find(|entry| entry.clock > after && wanted(&entry.record)).map(|entry| entry.clock);
            found.is_some()
        })?;
        found.context("waited for")
    }

    /// Waits for a commit of exactly these nodes.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn commit(&self, members: &[u32], after: u64) -> Result<u64> {
        self.wait(&format!("a commit of {members:?}"), after, commit_of(members))
    }

    /// The process of a node: the one whose arguments say so.
    ///
    /// # Errors
    /// If there is none.
    pub fn process(&self, rank: u32) -> Result<Pid> {
        let (session, named) = (format!("--session={}-", self.id()), format!("--rank={rank}"));
        let mut found = None;
        until(&format!("the process of n{rank}"), || {
            let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
            found = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
                words.contains(&named.as_bytes()) && words.iter().any(|word| word.starts_with(session.as_bytes()))
            });
            found.is_some()
        })?;
        found.and_then(Pid::from_raw).context("just found")
    }

    /// Sends a signal to the process of a node; answers when.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn signal(&self, rank: u32, signal: Signal) -> Result<u64> {
        let process = self.process(rank)?;
        let now = events::clock();
        kill_process(process, signal).with_context(|| format!("cannot send {signal:?} to n{rank}"))?;
        Ok(now)
    }

    /// Sends a signal to the process that was started.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal_parent(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(self.parent()), signal).context("the trainer has ended")
    }

    /// Waits for the end of the trainer.
    ///
    /// # Errors
    /// If its end cannot be learnt.
    pub fn output(mut self) -> Result<Output> {
        let parent = self.parent.take().expect("taken here only");
        parent.wait_with_output().context("cannot learn how the trainer ended")
    }

    /// Lets everybody leave; answers the trainer's line of JSON.
    ///
    /// # Errors
    /// If it does not end well: with the last line it said.
    pub fn end(self) -> Result<serde_json::Value> {
        self.signal_parent(Signal::INT)?;
        let output = self.output()?;
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "the trainer failed: {}", complained.trim());
        let line = said.lines().last().context("the trainer said nothing; it needs --json")?;
        Ok(serde_json::from_str(line)?)
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if let Some(parent) = &mut self.parent {
            let _ = parent.kill();
            let _ = parent.wait();
        }
    }
}

/// Whether a record is a commit of exactly these nodes.
pub fn commit_of(members: &[u32]) -> impl Fn(&Record) -> bool {
    move |record| match &record.what {
        Occurrence::Committed { certificate } => {
            certificate.members.iter().map(|member| member.node.0).eq(members.iter().copied())
        }
        _ => false,
    }
}

/// Whether a record is that a node was lost.
pub fn loss_of(node: u32) -> impl Fn(&Record) -> bool {
    move |record| matches!(record.what, Occurrence::Down { peer, .. } if peer == NodeId(node))
}

/// Waits until a condition holds.
///
/// # Errors
/// If it does not: the message names what was waited for.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() >= PATIENCE {
            bail!("{what}: not within {PATIENCE:?}");
        }
        // Not to be early, but to leave the processor to those that are waited for.
        std::thread::park_timeout(Duration::from_millis(2));
    }
    Ok(())
}
