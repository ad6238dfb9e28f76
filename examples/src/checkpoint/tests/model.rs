//! A disk in memory that knows what is on it for certain, and fails where it is told to.

use crate::checkpoint::Storage;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// What happens when the budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing works any more.
    Dead,
    /// Nothing can be added; what is removed makes no room.
    Full,
    /// Nothing can be changed.
    ReadOnly,
}

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// Everything: only the program has died.
    Kill,
    /// Only what was synced.
    PowerLoss,
    /// All names, but only such content as was synced: the order in which a disk may well write.
    NamesOnly,
}

/// A disk; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Model(Rc<RefCell<State>>);

#[derive(Clone, Debug)]
struct State {
    nodes: Vec<Node>,
    spent: u64,
    failure: Option<(u64, Failure)>,
}

/// A file's content, or the names in a folder: as seen now, and as it is on the disk for certain.
#[derive(Clone, Debug)]
enum Node {
    File { now: Vec<u8>, certain: Vec<u8> },
    Folder { now: BTreeMap<String, usize>, certain: BTreeMap<String, usize> },
}

impl Node {
    fn folder() -> Self {
        Self::Folder { now: BTreeMap::new(), certain: BTreeMap::new() }
    }
}

impl Default for State {
    fn default() -> Self {
        Self { nodes: vec![Node::folder()], spent: 0, failure: None }
    }
}

const MISSING: io::ErrorKind = io::ErrorKind::NotFound;

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        path.iter().try_fold(0, |at, name| match &self.nodes[at] {
            Node::Folder { now, .. } => now.get(&text(name)).copied().ok_or_else(|| MISSING.into()),
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        })
    }

    fn names(&mut self, folder: &Path) -> io::Result<&mut BTreeMap<String, usize>> {
        let at = self.find(folder)?;
        match &mut self.nodes[at] {
            Node::Folder { now, .. } => Ok(now),
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Pays for `wanted` bytes or operations; answers how many of them can be done and whether that is all.
    fn spend(&mut self, wanted: u64, adds: bool) -> (u64, io::Result<()>) {
        let Some((until, failure)) = self.failure.filter(|(_, failure)| adds || *failure != Failure::Full) else {
            self.spent += wanted;
            return (wanted, Ok(()));
        };
        let possible = wanted.min(until.saturating_sub(self.spent));
        self.spent += possible;
        if possible == wanted {
            return (possible, Ok(()));
        }
        let kind = match failure {
            Failure::Dead => io::ErrorKind::Other,
            Failure::Full => io::ErrorKind::StorageFull,
            Failure::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
        };
        (possible, Err(kind.into()))
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let (folder, name) = split(path);
        let at = self.nodes.len();
        let names = self.names(folder)?;
        if names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        names.insert(name, at);
        self.nodes.push(node);
        Ok(at)
    }
}

fn text(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn split(path: &Path) -> (&Path, String) {
    let name = text(path.file_name().expect("a name"));
    (path.parent().expect("a folder"), name)
}

impl Model {
    /// Bytes and operations so far.
    pub(super) fn spent(&self) -> u64 {
        self.0.borrow().spent
    }

    /// Fails after so many more bytes and operations.
    pub(super) fn fail_after(&self, budget: u64, failure: Failure) {
        let mut state = self.0.borrow_mut();
        state.failure = Some((state.spent.saturating_add(budget), failure));
    }

    /// A disk of its own with the same content.
    pub(super) fn copy(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// What is found after a crash.
    pub(super) fn crash(&self, crash: Crash) -> Self {
        let mut state = State { failure: None, ..self.0.borrow().clone() };
        for node in &mut state.nodes {
            match node {
                Node::File { now, certain } if crash != Crash::Kill => now.clone_from(certain),
                Node::Folder { now, certain } if crash == Crash::PowerLoss => now.clone_from(certain),
                Node::File { .. } | Node::Folder { .. } => {}
            }
        }
        Self(Rc::new(RefCell::new(state)))
    }

    /// The names in a folder.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        self.list(Path::new(folder)).expect("a folder")
    }

    /// Gives a file other content.
    pub(super) fn replace(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.0.borrow_mut();
        let at = state.find(path).expect("a file");
        state.nodes[at] = Node::File { now: content, certain: Vec::new() };
    }

    /// Loses a file.
    pub(super) fn forget(&self, path: &Path) {
        let (folder, name) = split(path);
        self.0.borrow_mut().names(folder).expect("a folder").remove(&name);
    }
}

impl Storage for Model {
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        Ok(self.0.borrow_mut().names(folder)?.keys().cloned().collect())
    }

    fn read(&self, file: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let state = self.0.borrow();
        match &state.nodes[state.find(file)?] {
            Node::File { now, .. } if now.len() as u64 > limit => Err(io::ErrorKind::FileTooLarge.into()),
            Node::File { now, .. } => Ok(now.clone()),
            Node::Folder { .. } => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn create(&mut self, folder: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let mut above = Path::new("").to_owned();
        for name in folder {
            let path = above.join(name);
            if state.find(&path).is_err() {
                state.spend(1, true).1?;
                state.add(&path, Node::folder())?;
                state.spend(1, true).1?;
                let at = state.find(&above)?;
                sync(&mut state.nodes[at]);
            }
            above = path;
        }
        Ok(())
    }

    fn write(&mut self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.spend(1, true).1?;
        let at = state.add(file, Node::File { now: Vec::new(), certain: Vec::new() })?;
        let (possible, outcome) = state.spend(bytes.len() as u64, true);
        state.nodes[at] = Node::File { now: bytes[..possible as usize].to_vec(), certain: Vec::new() };
        outcome?;
        state.spend(1, true).1?;
        sync(&mut state.nodes[at]);
        Ok(())
    }

    fn sync(&mut self, folder: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.spend(1, true).1?;
        let at = state.find(folder)?;
        sync(&mut state.nodes[at]);
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.spend(1, true).1?;
        let ((folder, old), (target, new)) = (split(from), split(to));
        if state.names(target)?.contains_key(&new) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let at = state.names(folder)?.remove(&old).ok_or(MISSING)?;
        state.names(target)?.insert(new, at);
        Ok(())
    }

    fn remove(&mut self, folder: &Path) -> io::Result<()> {
        let inside = self.list(folder);
        for name in inside.into_iter().flatten() {
            self.remove(&folder.join(name))?;
        }
        let mut state = self.0.borrow_mut();
        state.spend(1, false).1?;
        let (above, name) = split(folder);
        state.names(above)?.remove(&name).map(|_| ()).ok_or_else(|| MISSING.into())
    }
}

fn sync(node: &mut Node) {
    match node {
        Node::File { now, certain } => certain.clone_from(now),
        Node::Folder { now, certain } => certain.clone_from(now),
    }
}
