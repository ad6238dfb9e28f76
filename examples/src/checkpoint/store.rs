//! A folder of checkpoints: whole ones only, the newest few.
//!
//! A checkpoint is written aside, file by file, each synced; then its folder and those in it are synced, then it is
//! renamed, then the folder that holds it is synced. Only after that is an older one given up. So at every moment, a
//! crash or a loss of power included, the newest whole checkpoint is the last one whose writing had ended.

use super::error::CheckpointError;
use super::manifest::{Entry, Manifest, RunIdentity, Sum};
use super::storage::Storage;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// The name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// The name of the file that vouches for it.
pub const VOUCHER: &str = "manifest.json.sha256";

/// Bytes of the longest manifest that is read.
const LONGEST_MANIFEST: u64 = 64 << 20;

/// What names begin with that are being written or given up.
const ASIDE: &str = ".aside-";
const GIVEN_UP: &str = ".given-up-";

/// A folder that checkpoints are written into.
pub struct Store<D> {
    disk: D,
    folder: PathBuf,
    keep: usize,
    /// The number of the newest checkpoint.
    newest: u64,
}

/// A file of a checkpoint: its path inside, and its content.
pub type Part = (String, Vec<u8>);

impl<D: Storage> Store<D> {
    /// A store of at most `keep` checkpoints in `folder`, which is created if it is not there. What an interrupted
    /// writer has left is cleared away.
    ///
    /// `taken_up` says that the run goes on from a checkpoint of this folder; otherwise it has to be free of them.
    ///
    /// # Errors
    /// If the folder cannot be created, read or written, or holds checkpoints of another run.
    pub fn open(mut disk: D, folder: &Path, keep: usize, taken_up: bool) -> Result<Self, CheckpointError> {
        disk.create(folder).map_err(failed("create the folder", folder))?;
        let numbers = numbers(&disk, folder)?;
        if let (Some(newest), false) = (numbers.last(), taken_up) {
            return Err(CheckpointError::Occupied { folder: folder.to_owned(), newest: name(*newest) });
        }
        let newest = numbers.last().copied().unwrap_or(0);
        let mut store = Self { disk, folder: folder.to_owned(), keep: keep.max(1), newest };
        store.clear().and_then(|()| store.probe()).map_err(failed("write into", folder))?;
        Ok(store)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a checkpoint of these parts and gives up what is then one too many; answers its path and its bytes.
    ///
    /// # Errors
    /// If a part cannot be made, or the disk is full or fails: the checkpoints before are untouched.
    pub fn write<E: From<CheckpointError>>(
        &mut self,
        mut manifest: Manifest,
        parts: impl Iterator<Item = Result<Part, E>>,
    ) -> Result<(PathBuf, u64), E> {
        let number = self.newest + 1;
        let target = self.folder.join(name(number));
        let aside = self.folder.join(format!("{ASIDE}{number:08}"));
        manifest.number = number;
        let written = self.fill(&aside, &mut manifest, parts).and_then(|bytes| {
            self.disk.rename(&aside, &target).map_err(failed("rename", &aside))?;
            Ok(bytes)
        });
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(error) => {
                // It may fail, too; what is left is cleared away by the next one that opens the store or writes.
                let _ = self.disk.remove(&aside);
                return Err(error);
            }
        };
        // From here on the name is taken.
        self.newest = number;
        self.disk.sync(&self.folder).map_err(failed("sync", &self.folder))?;
        self.give_up_old().map_err(failed("give up old checkpoints in", &self.folder))?;
        Ok((target, bytes))
    }

    /// Writes all files into a new folder.
    fn fill<E: From<CheckpointError>>(
        &mut self,
        aside: &Path,
        manifest: &mut Manifest,
        parts: impl Iterator<Item = Result<Part, E>>,
    ) -> Result<u64, E> {
        self.clear().map_err(failed("clear away what was left in", &self.folder))?;
        self.disk.create(aside).map_err(failed("create", aside))?;
        let mut total = 0;
        let mut folders = BTreeSet::from([aside.to_owned()]);
        for part in parts {
            let (path, content) = part?;
            let file = aside.join(&path);
            let within = file.parent().expect("it lies inside a folder").to_owned();
            if folders.insert(within.clone()) {
                self.disk.create(&within).map_err(failed("create", &within))?;
            }
            self.disk.write(&file, &content).map_err(failed("write", &file))?;
            let entry = Entry { bytes: content.len() as u64, sha256: Sum::of(&content) };
            manifest.files.insert(path, entry);
            total += entry.bytes;
        }
        let (bytes, voucher) = manifest.encode();
        total += (bytes.len() + voucher.len()) as u64;
        for (name, content) in [(MANIFEST, &bytes), (VOUCHER, &voucher)] {
            let file = aside.join(name);
            self.disk.write(&file, content).map_err(failed("write", &file))?;
        }
        // Inner folders first: their longer paths come last.
        for folder in folders.iter().rev() {
            self.disk.sync(folder).map_err(failed("sync", folder))?;
        }
        Ok(total)
    }

    /// Tries whether anything can be written at all, so that a run does not find out after an hour.
    fn probe(&mut self) -> io::Result<()> {
        let aside = self.folder.join(format!("{ASIDE}probe"));
        self.disk.create(&aside)?;
        self.disk.write(&aside.join("probe"), b"probe")?;
        self.disk.remove(&aside)
    }

    /// Removes what interrupted writers have left.
    fn clear(&mut self) -> io::Result<()> {
        for left in self.disk.list(&self.folder)? {
            if left.starts_with(ASIDE) || left.starts_with(GIVEN_UP) {
                self.disk.remove(&self.folder.join(left))?;
            }
        }
        Ok(())
    }

    /// Removes all but the newest; each is renamed first, so that half of one is never taken for one.
    fn give_up_old(&mut self) -> io::Result<()> {
        let listed = self.disk.list(&self.folder)?;
        let mut numbers: Vec<u64> = listed.iter().filter_map(|name| number(name)).collect();
        numbers.sort_unstable();
        for old in numbers.iter().rev().skip(self.keep) {
            let given_up = self.folder.join(format!("{GIVEN_UP}{old:08}"));
            self.disk.rename(&self.folder.join(name(*old)), &given_up)?;
            self.disk.remove(&given_up)?;
        }
        Ok(())
    }
}

/// A checkpoint whose files are all as its manifest says.
#[derive(Debug)]
pub struct Saved {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
}

impl Saved {
    /// Where it is and what it is of, in words.
    pub fn describe(&self) -> String {
        let Manifest { iteration, run, holds, .. } = &self.manifest;
        format!("{}: iteration {iteration} of {} nodes, {holds}", self.path.display(), run.nodes)
    }

    /// The checkpoint to be taken up from `place`: a checkpoint, or a folder of them, of which it is the newest.
    ///
    /// Every file is read and compared with its digest. What is damaged or foreign to `run` is never replaced by an
    /// older checkpoint in silence: the error offers it.
    ///
    /// # Errors
    /// If there is none, or it is torn, damaged, of another format or of a run with another identity (the number of
    /// nodes apart).
    pub fn find<D: Storage>(disk: &D, place: &Path, run: Option<&RunIdentity>) -> Result<Self, CheckpointError> {
        let names = disk.list(place).map_err(|reason| match reason.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                CheckpointError::NoFolder { place: place.to_owned(), reason }
            }
            _ => failed("read", place)(reason),
        })?;
        let one = names.iter().any(|name| name == MANIFEST || name == VOUCHER)
            || place.file_name().and_then(|name| number(&name.to_string_lossy())).is_some();
        let (checkpoint, folder, before) = if one {
            let folder = place.parent().unwrap_or(Path::new(""));
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let own = place.file_name().and_then(|name| number(&name.to_string_lossy()));
            let others = numbers(disk, folder).unwrap_or_default();
            let before = others.into_iter().filter(|number| own.is_some_and(|own| *number < own)).collect();
            (place.to_owned(), folder, before)
        } else {
            let mut numbers = numbers(disk, place)?;
            let Some(newest) = numbers.pop() else {
                return Err(CheckpointError::Nothing { folder: place.to_owned() });
            };
            (place.join(name(newest)), place, numbers)
        };
        check(disk, &checkpoint, run).map_err(|reason| {
            let paths = before.iter().rev().map(|number| folder.join(name(*number)));
            let whole = |path: PathBuf| Some((path.clone(), check(disk, &path, run).ok()?.manifest.iteration));
            CheckpointError::Refused { checkpoint, reason, previous: paths.into_iter().find_map(whole) }
        })
    }

    /// The content of one of its files, compared with its digest again.
    ///
    /// # Errors
    /// If it is not among them or has changed.
    pub fn read<D: Storage>(&self, disk: &D, file: &str) -> Result<Vec<u8>, CheckpointError> {
        read(disk, &self.path, file, &self.manifest).map_err(|reason| CheckpointError::Refused {
            checkpoint: self.path.clone(),
            reason,
            previous: None,
        })
    }
}

/// Reads a whole checkpoint; answers why it must not be taken up.
fn check<D: Storage>(disk: &D, path: &Path, run: Option<&RunIdentity>) -> Result<Saved, String> {
    let part = |name: &str| {
        let content = disk.read(&path.join(name), LONGEST_MANIFEST);
        content.map_err(|error| format!("{name} cannot be read ({error}): was its writing interrupted?"))
    };
    let manifest = Manifest::decode(&part(MANIFEST)?, &part(VOUCHER)?).map_err(|error| error.to_string())?;
    if let Some(run) = run {
        let reasons = run.differences(&manifest.run);
        if !reasons.is_empty() {
            return Err(format!("it is of another run: {}", reasons.join("; ")));
        }
    }
    for file in manifest.files.keys() {
        read(disk, path, file, &manifest)?;
    }
    Ok(Saved { path: path.to_owned(), manifest })
}

fn read<D: Storage>(disk: &D, path: &Path, file: &str, manifest: &Manifest) -> Result<Vec<u8>, String> {
    let Some(&Entry { bytes, sha256 }) = manifest.files.get(file) else {
        return Err(format!("{file} is not among its files"));
    };
    let content = match disk.read(&path.join(file), bytes) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Err(format!("{file} is longer than the {bytes} bytes it was written with"));
        }
        Err(error) => return Err(format!("{file} cannot be read: {error}")),
    };
    if (content.len() as u64) < bytes {
        return Err(format!("{file} is truncated to {} of {bytes} bytes", content.len()));
    }
    let found = Sum::of(&content);
    if found != sha256 {
        return Err(format!("{file} is damaged: its SHA-256 is {found}, it was written with {sha256}"));
    }
    Ok(content)
}

/// The numbers of the checkpoints in a folder, whole or not, in ascending order.
fn numbers<D: Storage>(disk: &D, folder: &Path) -> Result<Vec<u64>, CheckpointError> {
    let names = disk.list(folder).map_err(failed("read", folder))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn name(number: u64) -> String {
    format!("{number:08}")
}

fn number(name: &str) -> Option<u64> {
    let digits = name.len() >= 8 && name.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| name.parse().ok()).flatten()
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |reason| CheckpointError::File { what, path: path.clone(), reason }
}
