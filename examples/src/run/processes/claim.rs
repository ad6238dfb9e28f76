//! Which start of a node may write: the latest, and no former one that was stopped and goes on.
//!
//! # For users
//! A process that may be taken for dead while it stands still makes a [`Claim`] before it writes, and writes within
//! [`Claim::write`]. From the moment that a later start has made its claim, a former one fails with [`Superseded`].
//!
//! # For implementers
//! A claim is a file with the number of the start. Whoever writes holds a shared lock on it, whoever claims an exclusive
//! one, so that nothing is written between the look at the claim and the write that it allows. The system releases locks
//! of processes that die; one that is stopped in the middle of a write keeps its own, and its successor says so.

use anyhow::{Context, Result, bail};
use kronfleet_core::storage::{Slot, Storage, StorageError};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How a process ends whose place a later start has taken.
pub const SUPERSEDED: u8 = 3;

/// How long a former start may take to end a write.
const PATIENCE: Duration = Duration::from_secs(5);

/// A later start has taken the place of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// Who knows what, in words.
    pub reason: String,
}

impl fmt::Display for Superseded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; this process ends and leaves everything to that one", self.reason)
    }
}

impl std::error::Error for Superseded {}

/// The right to write for somebody of whom there are several starts.
#[derive(Debug)]
pub struct Claim {
    file: File,
    path: PathBuf,
    name: String,
    start: u64,
}

impl Claim {
    /// Claims `folder` for a start of `name`; starts before it cannot write from now on.
    ///
    /// # Errors
    /// With [`Superseded`] if this is no later start than the one that has the claim; if the file cannot be written; or if
    /// a former start stands still in the middle of a write.
    pub fn make(folder: &Path, name: &str, start: u64) -> Result<Self> {
        Self::open(folder, name, |latest| match latest {
            Some(latest) if latest >= start => {
                let reason = format!("start {latest} of {name} is there already, and this is start {start}");
                Err(Superseded { reason }.into())
            }
            _ => Ok(start),
        })
    }

    /// The same for the next start, whichever there were.
    ///
    /// # Errors
    /// As [`make`](Self::make), but for being too late.
    pub fn next(folder: &Path, name: &str) -> Result<Self> {
        Self::open(folder, name, |latest| Ok(latest.unwrap_or(0) + 1))
    }

    fn open(folder: &Path, name: &str, number: impl FnOnce(Option<u64>) -> Result<u64>) -> Result<Self> {
        let path = folder.join(format!("{name}.claim"));
        let failed = || format!("cannot write {}", path.display());
        fs::create_dir_all(folder).with_context(failed)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut claim = Self { file: file.with_context(failed)?, path: path.clone(), name: name.to_owned(), start: 0 };
        claim.lock(FlockOperation::NonBlockingLockExclusive)?;
        claim.start = number(claim.latest()?)?;
        claim.file.write_all_at(&claim.start.to_le_bytes(), 0).with_context(failed)?;
        claim.unlock();
        Ok(claim)
    }

    /// Writes something, if this is still the latest start.
    ///
    /// # Errors
    /// With [`Superseded`] if it is not, and whatever `write` says.
    pub fn write<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        self.lock(FlockOperation::NonBlockingLockShared)?;
        let (name, start) = (&self.name, self.start);
        // The folder may have been emptied for another run.
        let latest = if self.file.metadata()?.nlink() == 0 { None } else { self.latest()? };
        let written = match latest {
            Some(latest) if latest == start => write(),
            Some(latest) => {
                Err(Superseded { reason: format!("start {latest} of {name} has taken the place of this one, {start}") }
                    .into())
            }
            None => {
                let reason = format!(
                    "{} was removed: a later start has taken the place of {name}, {start}",
                    self.path.display()
                );
                Err(Superseded { reason }.into())
            }
        };
        self.unlock();
        written
    }

    /// The start that has the claim.
    fn latest(&self) -> Result<Option<u64>> {
        let mut bytes = [0; 8];
        let read = self.file.read_at(&mut bytes, 0).with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok((read == bytes.len()).then(|| u64::from_le_bytes(bytes)))
    }

    fn lock(&self, how: FlockOperation) -> Result<()> {
        let began = Instant::now();
        loop {
            match flock(&self.file, how) {
                Ok(()) => return Ok(()),
                Err(Errno::WOULDBLOCK | Errno::INTR) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => bail!(
                    "another process has been writing for {} under {} for {PATIENCE:?}: does a former start stand still? \
                     End it (kill -9), and start again",
                    self.name,
                    self.path.display()
                ),
                Err(error) => return Err(error).with_context(|| format!("cannot lock {}", self.path.display())),
            }
        }
    }

    fn unlock(&self) {
        // Closing the file would do it, too; nothing else can fail here.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Storage that only the latest start of a node writes to.
pub(super) struct Guarded<S> {
    /// What is written to.
    pub storage: S,
    /// The right to.
    pub claim: Rc<Claim>,
}

impl<S: Storage> Storage for Guarded<S> {
    fn read(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, StorageError> {
        self.storage.read(slot)
    }

    fn write(&mut self, slot: Slot, bytes: &[u8]) -> Result<(), StorageError> {
        let (storage, mut written) = (&mut self.storage, Ok(()));
        let allowed = self.claim.write(|| {
            written = storage.write(slot, bytes);
            Ok(())
        });
        allowed.map_err(|error| StorageError { slot, reason: format!("{error:#}") })?;
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kronfleet_core::transport::NodeId;
    use kronfleet_lossy::storage::Disks;

    fn is_superseded<T: fmt::Debug>(written: Result<T>) -> bool {
        written.expect_err("it is not the latest").is::<Superseded>()
    }

    #[test]
    fn the_latest_start_writes_and_no_former_one() {
        let folder = tempfile::tempdir().expect("a writable temporary folder");
        let claim = |start| Claim::make(folder.path(), "n1", start);
        let first = claim(3).expect("nobody was there");
        assert_eq!(first.write(|| Ok(1)).expect("it is alone"), 1);
        assert!(is_superseded(claim(3)) && is_superseded(claim(2)), "an equal or earlier start comes too late");
        assert_eq!(first.write(|| Ok(2)).expect("who was refused changes nothing"), 2);
        let disks = Disks::default();
        let mut guarded = Guarded { storage: disks.of(NodeId(1)), claim: Rc::new(first) };
        guarded.write(Slot::Vote, b"first").expect("it is still the latest");
        let second = claim(4).expect("it is later");
        let says = guarded.claim.write(|| Ok(())).expect_err("there is a later one").to_string();
        assert!(says.contains("start 4 of n1 has taken the place of this one, 3"), "{says}");
        assert!(guarded.write(Slot::Vote, b"late").is_err());
        assert_eq!(disks.of(NodeId(1)).read(Slot::Vote), Ok(Some(b"first".to_vec())));
        second.write(|| Ok(())).expect("it is the latest");
        Claim::make(folder.path(), "n2", 1).expect("another node's place is another");
        fs::remove_dir_all(folder.path()).expect("ours");
        assert!(is_superseded(second.write(|| Ok(()))), "another run has the folder");
    }

    #[test]
    fn nobody_claims_in_the_middle_of_a_write() {
        let folder = tempfile::tempdir().expect("a writable temporary folder");
        let first = Claim::make(folder.path(), "n1", 1).expect("nobody was there");
        let path = folder.path().join("n1.claim");
        // What a claim needs first, for whoever opens the file anew.
        let lock = || {
            let file = File::open(&path).expect("the claim has made it");
            flock(file, FlockOperation::NonBlockingLockExclusive)
        };
        let locked = first.write(|| Ok(lock()));
        assert_eq!(locked.expect("it is the latest"), Err(Errno::WOULDBLOCK), "not before the write is over");
        assert_eq!(lock(), Ok(()));
        Claim::make(folder.path(), "n1", 2).expect("nobody writes");
        assert!(is_superseded(first.write(|| Ok(()))));
    }
}
