//! One sweep at a time in a folder.

use crate::report::Folder;
use anyhow::{Context, Result, bail};
use std::fs::{File, TryLockError};

/// The file that is locked.
const FILE: &str = "runs.lock";

/// Keeps other sweeps out of a folder for as long as the file is open; a process that dies lets go of it.
///
/// # Errors
/// If another sweep is at work there, or the folder cannot be written.
pub(super) fn claim(folder: &Folder) -> Result<File> {
    let path = folder.path().join(FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another sweep is at work in {}, and each would overwrite what the other has done: wait until it has ended, or \
             choose another folder with --output",
            folder.path().display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_sweep_is_refused_until_the_first_has_ended() -> Result<()> {
        let place = tempfile::tempdir()?;
        let folder = Folder::create(Some(place.path()), "sweep")?;
        let first = claim(&folder)?;
        let refused = claim(&folder).expect_err("one is at work").to_string();
        assert!(refused.contains("--output"), "{refused}");
        drop(first);
        claim(&folder).map(drop)
    }
}
