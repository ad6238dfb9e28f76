//! What was measured, on disk: one file per adapter, driver and text of the shaders.

use super::{Choices, Class, Clock, Variant};
use crate::device::Device;
use crate::kernel::COMMON;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// How the line begins that says what was timed by.
const TIMED: &str = "timed by ";

/// Where one adapter's choices are kept.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    /// The first line, whose adapter a file is of.
    key: String,
}

impl File {
    pub(super) fn of(device: &Device, folder: &Path) -> Self {
        let adapter = device.adapter();
        let mut hash = Xxh3::new();
        for text in Variant::ALL.iter().flat_map(|variant| variant.kernel(false).source).chain([&COMMON]) {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        let key =
            format!("kronfleet products, {}, {}, shaders {:032x}", adapter.name, adapter.driver, hash.digest128());
        let mut named = Xxh3::new();
        named.update(key.as_bytes());
        Self { path: folder.join(format!("products-{:016x}.txt", named.digest())), key }
    }

    /// What was kept; `None` if nothing was.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn read(&self) -> Result<Option<(Choices, Clock)>, String> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{} cannot be read: {error}", self.path.display())),
        };
        self.parse(&text).map(Some).ok_or_else(|| format!("{} is damaged or of another adapter", self.path.display()))
    }

    /// A line per class, in their order, after the key and the clock.
    fn parse(&self, text: &str) -> Option<(Choices, Clock)> {
        let mut lines = text.lines();
        lines.next().filter(|&line| line == self.key)?;
        let timed = lines.next()?.strip_prefix(TIMED)?;
        let clock = Clock::ALL.into_iter().find(|clock| clock.to_string() == timed)?;
        let mut choices = Choices::fixed();
        for class in Class::all() {
            let name = lines.next()?.strip_prefix(&format!("{class}: "))?;
            choices.0[class.index()] = Variant::ALL.into_iter().find(|variant| variant.name() == name)?;
        }
        lines.next().is_none().then_some((choices, clock))
    }

    /// Keeps choices for later starts.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(super) fn write(&self, choices: &Choices, clock: Clock) -> Result<(), String> {
        let mut text = format!("{}\n{TIMED}{clock}\n", self.key);
        for (class, variant) in choices.list() {
            text += &format!("{class}: {variant}\n");
        }
        // Renamed when it is whole, so that nobody reads half of it.
        let half = self.path.with_extension(std::process::id().to_string());
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&half, text))
            .and_then(|()| fs::rename(&half, &self.path))
            .map_err(|error| format!("{} cannot be written: {error}", self.path.display()))
    }
}
