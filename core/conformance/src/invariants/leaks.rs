//! Invariant 10: nothing is left behind: no threads, no files, no sockets.

use crate::violation::{Verdict, Violation};
use std::io;
use std::time::{Duration, Instant};

/// What this process has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Possessions {
    /// Threads that run.
    pub threads: usize,
    /// Files, sockets and pipes that are open.
    pub files: usize,
}

impl Possessions {
    /// Counts what this process has now, as Linux lists it.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn count() -> io::Result<Self> {
        let entries = |folder| io::Result::Ok(std::fs::read_dir(folder)?.count());
        // Reading the list of files opens one itself.
        Ok(Self { threads: entries("/proc/self/task")?, files: entries("/proc/self/fd")? - 1 })
    }
}

/// Runs `run` and compares what the process has afterwards with what it had before.
///
/// A thread that has been joined may be listed for a moment longer; it is given a few seconds.
///
/// # Errors
/// What is left.
///
/// # Panics
/// If `/proc` cannot be read.
pub fn leaves_nothing(run: impl FnOnce()) -> Verdict {
    let count = || Possessions::count().expect("/proc lists what a process has");
    let before = count();
    run();
    let asked = Instant::now();
    let mut after = count();
    while (after.threads > before.threads || after.files > before.files) && asked.elapsed() < Duration::from_secs(5) {
        std::thread::yield_now();
        after = count();
    }
    if after.threads > before.threads || after.files > before.files {
        let what = format!("{before:?} before, {after:?} afterwards");
        return Err(Violation { law: "leaks (invariant 10)", what });
    }
    Ok(())
}
