//! What nodes write to: disks in memory that outlive a simulated crash, and files.

use kronfleet_core::storage::{Slot, Storage, StorageError};
use kronfleet_core::transport::NodeId;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One disk in memory for each node; copies of this are the same disks.
///
/// ```
/// use kronfleet_core::storage::{Slot, Storage};
/// use kronfleet_core::transport::NodeId;
/// let disks = kronfleet_lossy::storage::Disks::default();
/// disks.of(NodeId(1)).write(Slot::Vote, b"a promise").unwrap();
/// assert_eq!(disks.of(NodeId(1)).read(Slot::Vote).unwrap().unwrap(), b"a promise");
/// assert_eq!(disks.of(NodeId(2)).read(Slot::Vote).unwrap(), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Disks(Arc<Mutex<Contents>>);

/// What stands in which slot of which node.
pub(crate) type Contents = BTreeMap<(NodeId, Slot), Vec<u8>>;

impl Disks {
    /// The disk of one node.
    pub fn of(&self, node: NodeId) -> Disk {
        Disk { node, disks: self.clone() }
    }

    /// Disks with these contents.
    pub(crate) fn holding(contents: Contents) -> Self {
        Self(Arc::new(Mutex::new(contents)))
    }

    /// Everything on them.
    pub(crate) fn contents(&self) -> Contents {
        self.lock().clone()
    }

    /// Damages the content of a slot as `change` says; one that was never written stays so.
    pub fn damage(&self, node: NodeId, slot: Slot, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(content) = self.lock().get_mut(&(node, slot)) {
            change(content);
        }
    }

    pub(crate) fn put(&self, node: NodeId, slot: Slot, bytes: Vec<u8>) {
        self.lock().insert((node, slot), bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // A slot is replaced in one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One node's disk among [`Disks`].
#[derive(Clone, Debug)]
pub struct Disk {
    node: NodeId,
    disks: Disks,
}

impl Storage for Disk {
    fn read(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.disks.lock().get(&(self.node, slot)).cloned())
    }

    fn write(&mut self, slot: Slot, bytes: &[u8]) -> Result<(), StorageError> {
        self.disks.put(self.node, slot, bytes.to_vec());
        Ok(())
    }
}

/// One node's slots as files of a folder that is its own.
///
/// A slot is written aside, synced and renamed, and the folder is synced: a crash at any moment leaves the old content
/// or the new one.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Slots in this folder, which is made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        fs::create_dir_all(path)?;
        Ok(Self(path.to_owned()))
    }

    fn replace(&self, slot: Slot, bytes: &[u8]) -> io::Result<()> {
        let aside = self.0.join(format!("{slot}.new"));
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, self.0.join(slot.to_string()))?;
        File::open(&self.0)?.sync_all()
    }

    fn failed(&self, slot: Slot, what: &str, error: &io::Error) -> StorageError {
        let path = self.0.join(slot.to_string());
        let reason = format!("{} cannot be {what}: {error}; free space or mend permissions", path.display());
        StorageError { slot, reason }
    }
}

impl Storage for Directory {
    fn read(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, StorageError> {
        match fs::read(self.0.join(slot.to_string())) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(slot, "read", &error)),
        }
    }

    fn write(&mut self, slot: Slot, bytes: &[u8]) -> Result<(), StorageError> {
        self.replace(slot, bytes).map_err(|error| self.failed(slot, "written", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_slots_and_a_write_that_fails_harms_nothing() {
        let path = std::env::temp_dir().join(format!("kronfleet-slots-{}", std::process::id()));
        let mut directory = Directory::open(&path).unwrap();
        assert_eq!(directory.read(Slot::Even).unwrap(), None);
        directory.write(Slot::Even, b"one").unwrap();
        directory.write(Slot::Odd, b"two").unwrap();
        directory.write(Slot::Even, b"three").unwrap();
        // A folder stands where the slot is written aside.
        fs::create_dir(path.join("even.new")).unwrap();
        let error = directory.write(Slot::Even, b"four").unwrap_err();
        assert!(error.to_string().contains("even"), "{error}");
        let mut again = Directory::open(&path).unwrap();
        assert_eq!(again.read(Slot::Even).unwrap().unwrap(), b"three");
        assert_eq!(again.read(Slot::Odd).unwrap().unwrap(), b"two");
        fs::remove_dir_all(&path).unwrap();
    }
}
