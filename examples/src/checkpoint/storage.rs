//! What a store of checkpoints asks of a file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// A file system, as far as checkpoints need one.
///
/// What was done is on the disk for certain only after the call that says so: a file's content when
/// [`write`](Self::write) has returned, its name when its folder has been [`sync`](Self::sync)ed since.
pub trait Storage {
    /// The names in a folder, in any order.
    ///
    /// # Errors
    /// If there is no such folder or it cannot be read.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// The content of a file of at most `limit` bytes.
    ///
    /// # Errors
    /// If there is no such file, it cannot be read, or it is longer ([`io::ErrorKind::FileTooLarge`]).
    fn read(&self, file: &Path, limit: u64) -> io::Result<Vec<u8>>;

    /// Makes sure that a folder exists, and those above it, for certain.
    ///
    /// # Errors
    /// If it cannot be created.
    fn create(&mut self, folder: &Path) -> io::Result<()>;

    /// Writes a new file; its content is then on the disk.
    ///
    /// # Errors
    /// If it exists or cannot be written; a part of it may then be left.
    fn write(&mut self, file: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Waits until the names in a folder are on the disk.
    ///
    /// # Errors
    /// If the disk fails.
    fn sync(&mut self, folder: &Path) -> io::Result<()>;

    /// Gives a folder another name, at once and wholly; the new name is free.
    ///
    /// # Errors
    /// If it cannot be renamed.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a folder and everything in it.
    ///
    /// # Errors
    /// If it cannot be removed; a part of it may then be left.
    fn remove(&mut self, folder: &Path) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn read(&self, file: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One byte more tells a longer file from one of just that length.
        File::open(file)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    fn create(&mut self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.create(above)?;
        fs::create_dir(folder)?;
        self.sync(above)
    }

    fn write(&mut self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(file)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn sync(&mut self, folder: &Path) -> io::Result<()> {
        // Other systems cannot open folders, and write names down by themselves.
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&mut self, folder: &Path) -> io::Result<()> {
        fs::remove_dir_all(folder)
    }
}
