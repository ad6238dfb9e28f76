//! The segment: one file under `/dev/shm`, who is in it, and when it goes away.
//!
//! Joining and leaving happen under a lock on the file, which the system releases when its holder dies. Who lives is
//! decided by process number and start time. A segment in which nobody lives is removed by whoever finds it: the last
//! node to leave, the next start under the same name, or [`sweep`], which every start does first.

use crate::bell::{Bell, Signal};
use crate::error::OpenError;
use crate::header::{self, Header, HeaderError};
use crate::layout::{APART, Layout, MOST_NODES};
use crate::life::{Process, namespace};
use crate::memory::Memory;
use crate::ring::{Consumer, Mapped, Producer};
use kronfleet_core::cluster::RunId;
use kronfleet_core::transport::NodeId;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::process::geteuid;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What every segment's file name begins with.
const PREFIX: &str = "kronfleet-";

/// How long the lock on a segment is waited for; it is held for microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a place that is waited for is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// Which segment, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where segments are: `/dev/shm` unless said otherwise. Must be a file system in memory.
    pub directory: PathBuf,
    /// The segment's name, the same for all its nodes: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The run; nodes of another are refused.
    pub run: RunId,
    /// How many nodes there can be, the same for all: at most 256.
    pub nodes: u32,
    /// Which of them this is.
    pub node: NodeId,
    /// Bytes of each of the rings, one per ordered pair of nodes: a power of two from 4 KiB to 1 GiB, the same for all.
    /// The longest frame is half of it, less 16 bytes.
    pub capacity: usize,
    /// How long a process that has this node's place must have looked for no frame before it is ended by SIGKILL and this
    /// one takes the place. `None`, as unless said otherwise: whoever lives keeps it.
    ///
    /// To be longer than peers take to go on without a node that is silent. A stopped process would go on writing into its
    /// rings where it was once it is continued; only its end makes room for another.
    pub fence_after: Option<Duration>,
}

impl Options {
    /// Rings of 1 MiB in `/dev/shm`.
    pub fn new(name: impl Into<String>, run: RunId, nodes: u32, node: NodeId) -> Self {
        Self { directory: "/dev/shm".into(), name: name.into(), run, nodes, node, capacity: 1 << 20, fence_after: None }
    }

    /// Where the segment is.
    pub fn path(&self) -> PathBuf {
        self.directory.join(format!("{PREFIX}{}", self.name))
    }

    fn layout(&self) -> Result<Layout, OpenError> {
        let Self { name, nodes, node, capacity, .. } = self;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 100 || !name.bytes().all(plain) {
            return Err(OpenError::Options(format!(
                "{name:?} cannot name a segment: up to 100 letters, digits, `-`, `_` and `.` can"
            )));
        }
        if node.0 >= *nodes {
            return Err(OpenError::Options(format!("{node} is none of {nodes} nodes, which count from 0")));
        }
        Layout::new(u64::from(*nodes), *capacity as u64).ok_or_else(|| {
            OpenError::Options(format!(
                "{nodes} nodes with rings of {capacity} bytes cannot be: up to {MOST_NODES} nodes with rings of a power \
                 of two from 4 KiB to 1 GiB can"
            ))
        })
    }
}

/// One node's ends of the rings to and from a peer.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) peer: NodeId,
    pub(crate) producer: Producer<Mapped>,
    pub(crate) consumer: Consumer<Mapped>,
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) layout: Layout,
    pub(crate) memory: Arc<Memory>,
    path: PathBuf,
    file: File,
}

/// A segment, and this node's place in it.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) segment: Arc<Segment>,
    pub(crate) generation: u64,
    pub(crate) ends: Vec<Ends>,
    /// Who was ended for the place.
    pub(crate) fenced: Option<Process>,
}

/// One life of a node, as far as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sign {
    generation: u64,
    process: Process,
    beats: u64,
}

/// What became of an attempt to take a place.
enum Entry {
    Entered(Joined),
    /// A process that lives has it.
    Occupied(Segment, Sign),
}

/// What a segment says about one node.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    memory: &'a Memory,
    at: usize,
}

impl<'a> Slot<'a> {
    /// Counts starts and ends of the node: odd while it is there, or was when its process died.
    pub(crate) fn generation(&self) -> &'a AtomicU64 {
        self.memory.word(self.at)
    }

    /// How often it has looked for frames.
    pub(crate) fn beats(&self) -> &'a AtomicU64 {
        self.memory.word(self.at + APART)
    }

    /// One more than the number of the core it last waited on; 0 if it never did for long.
    pub(crate) fn core(&self) -> &'a AtomicU64 {
        self.memory.word(self.at + APART + 8)
    }

    pub(crate) fn bell(&self) -> Bell<'a> {
        Bell::new(self.memory, self.at + 2 * APART)
    }

    /// The process the node is in.
    pub(crate) fn process(&self) -> Process {
        let pid = self.memory.word(self.at + 8).load(Ordering::Acquire);
        let start = self.memory.word(self.at + 16).load(Ordering::Acquire);
        Process { pid: u32::try_from(pid).unwrap_or(0), start }
    }

    fn sign(&self) -> Sign {
        Sign {
            generation: self.generation().load(Ordering::Acquire),
            process: self.process(),
            beats: self.beats().load(Ordering::Relaxed),
        }
    }

    fn occupy(&self, process: Process) {
        self.memory.word(self.at + 8).store(u64::from(process.pid), Ordering::Release);
        self.memory.word(self.at + 16).store(process.start, Ordering::Release);
    }
}

/// Whether a node of this generation is there, or was when its process died.
pub(crate) fn is_taken(generation: u64) -> bool {
    !generation.is_multiple_of(2)
}

impl Segment {
    /// Opens or makes the segment and moves in.
    ///
    /// # Errors
    /// If it cannot be; see [`OpenError`].
    pub(crate) fn join(options: &Options) -> Result<Joined, OpenError> {
        let layout = options.layout()?;
        let path = options.path();
        let system = |doing| move |source| OpenError::System { path: options.path(), doing, source };
        sweep(&options.directory).map_err(system("look for what dead processes left"))?;
        let process = Process::current().map_err(system("find out this process's start time"))?;
        let namespace = namespace().map_err(system("find out this process's table of processes"))?;
        let header = Header {
            run: options.run.0,
            nodes: u64::from(options.nodes),
            capacity: options.capacity as u64,
            creator: process,
            namespace,
        };
        let mut began = Instant::now();
        let mut still = None;
        let mut fenced = None;
        loop {
            let Some(file) = find_or_make(&path)? else { continue };
            lock(&file, &path, began)?;
            // Removed by its last node between our opening and locking it: begin again.
            if !is_at(&file, &path) {
                continue;
            }
            if file.metadata().map_err(system("look at"))?.len() == 0 {
                fill(&file, &path, &header, &layout)?;
            } else if is_abandoned(&file, namespace).map_err(system("read"))? {
                fs::remove_file(&path).map_err(system("remove what dead processes left in"))?;
                continue;
            }
            check(&file, &path, &header)?;
            match Self::enter(file, path.clone(), layout, options.node, process)? {
                Entry::Entered(joined) => return Ok(Joined { fenced, ..joined }),
                Entry::Occupied(segment, sign) => {
                    let node = options.node;
                    let taken = || OpenError::Taken { path: path.clone(), node, process: sign.process };
                    let patience = options.fence_after.ok_or_else(taken)?;
                    if still == Some(sign) {
                        segment.fence(node, sign)?;
                        fenced = Some(sign.process);
                    } else {
                        unlock(&segment.file);
                        if !segment.stands_still(node, sign, patience) {
                            // Another successor may have been faster.
                            let process = segment.slot(node.0).process();
                            return Err(OpenError::Taken { path, node, process });
                        }
                        still = Some(sign);
                    }
                    began = Instant::now();
                }
            }
        }
    }

    /// Takes the node's slot if nobody living has it; the lock is held, and let go of with the slot.
    fn enter(file: File, path: PathBuf, layout: Layout, node: NodeId, process: Process) -> Result<Entry, OpenError> {
        let memory = Memory::shared(&file, layout.len());
        let memory = memory.map_err(|source| OpenError::System { path: path.clone(), doing: "map", source })?;
        let segment = Self { layout, memory: Arc::new(memory), path, file };
        let slot = segment.slot(node.0);
        let before = slot.sign();
        if is_taken(before.generation) && before.process.is_alive() {
            return Ok(Entry::Occupied(segment, before));
        }
        let generation = before.generation.wrapping_add(if is_taken(before.generation) { 2 } else { 1 });
        slot.bell().announce(false);
        slot.core().store(0, Ordering::Relaxed);
        let peers = (0..layout.nodes()).map(NodeId).filter(|&peer| peer != node);
        let ends = peers.map(|peer| segment.ends(node, peer, generation)).collect();
        slot.occupy(process);
        slot.generation().store(generation, Ordering::Release);
        segment.ring_all();
        unlock(&segment.file);
        Ok(Entry::Entered(Joined { segment: Arc::new(segment), generation, ends, fenced: None }))
    }

    /// Watches for so long whether a node shows a sign of life; the lock is not held, for the node may want to leave.
    ///
    /// Who has left or died stands still, too.
    fn stands_still(&self, node: NodeId, before: Sign, patience: Duration) -> bool {
        let began = Instant::now();
        let slot = self.slot(node.0);
        while slot.sign() == before && before.process.is_alive() {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(GLANCE));
        }
        !(is_taken(slot.sign().generation) && slot.process().is_alive())
    }

    /// Ends the process that has a node's place and stands still; the lock is held, so that it is still the one.
    ///
    /// # Errors
    /// If it is not to be ended, or does not end.
    fn fence(&self, node: NodeId, sign: Sign) -> Result<(), OpenError> {
        let (path, process) = (self.path.clone(), sign.process);
        let system = |doing| move |source| OpenError::System { path: self.path.clone(), doing, source };
        let file = self.file.metadata().map_err(system("look at"))?;
        // From here on whatever is done is done to this process and no other, whoever gets its number.
        let Some(watch) = process.watch() else { return Ok(()) };
        if !watch.is_ours_in(&file) {
            return Err(OpenError::Taken { path, node, process });
        }
        watch.kill().map_err(system("end the process that stands still in"))?;
        // Others may come and go while it dies.
        unlock(&self.file);
        if watch.wait(PATIENCE) {
            return Ok(());
        }
        Err(OpenError::Immortal { path, node, process, seconds: PATIENCE.as_secs_f64() })
    }

    /// The ends of the rings to and from a peer; the lock is held, and nobody living is this node.
    fn ends(&self, node: NodeId, peer: NodeId, generation: u64) -> Ends {
        let ring = |from: NodeId, to: NodeId| {
            self.memory.prepare(self.layout.data(from.0, to.0));
            Mapped::new(&self.memory, &self.layout, from.0, to.0)
        };
        // SAFETY: this node's slot is free: whoever had it has left, or its process is dead to the last thread. Under
        // the lock nobody else takes it, and from the moment it is taken nobody else does as long as this process lives
        // and has not left, which it does when the endpoint with these ends is dropped.
        let (producer, consumer) =
            unsafe { (Producer::resume(ring(node, peer), generation), Consumer::resume(ring(peer, node))) };
        Ends { peer, producer, consumer }
    }

    pub(crate) fn slot(&self, node: u32) -> Slot<'_> {
        Slot { memory: &self.memory, at: self.layout.slot(node) }
    }

    /// Takes note that the node's life has ended, unless somebody has or it has begun another.
    pub(crate) fn bury(&self, node: u32, generation: u64) {
        let over = generation.wrapping_add(1);
        let slot = self.slot(node).generation();
        if slot.compare_exchange(generation, over, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.ring_all();
        }
    }

    /// Moves out; the last one removes the file.
    pub(crate) fn leave(&self, node: u32, generation: u64) {
        self.bury(node, generation);
        // Whoever cannot get the lock leaves removing it to the next start.
        if lock(&self.file, &self.path, Instant::now()).is_ok() {
            let alive = (0..self.layout.nodes()).any(|other| {
                let slot = self.slot(other);
                is_taken(slot.generation().load(Ordering::Acquire)) && slot.process().is_alive()
            });
            if !alive && is_at(&self.file, &self.path) {
                let _ = fs::remove_file(&self.path);
            }
            unlock(&self.file);
        }
    }

    fn ring_all(&self) {
        (0..self.layout.nodes()).for_each(|node| self.slot(node).bell().ring());
    }
}

/// Removes segments that nobody living is in, whatever run they belonged to; only this user's.
///
/// # Errors
/// If the directory cannot be read. Files that cannot be looked at are left alone.
pub fn sweep(directory: &Path) -> io::Result<()> {
    let namespace = namespace()?;
    for entry in fs::read_dir(directory)? {
        let Ok(entry) = entry else { continue };
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            sweep_one(&entry.path(), namespace);
        }
    }
    Ok(())
}

fn sweep_one(path: &Path, namespace: u64) {
    let Ok(file) = open(path) else { return };
    // Whoever is joining or leaving holds the lock and lives.
    if guard(&file, path).is_err() || flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    if is_at(&file, path) && is_abandoned(&file, namespace).unwrap_or(false) {
        let _ = fs::remove_file(path);
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A link in a directory everybody can write to may lead anywhere.
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// The file, opened or just made; `None` if it was removed or made by another in between.
fn find_or_make(path: &Path) -> Result<Option<File>, OpenError> {
    match open(path) {
        Ok(file) => guard(&file, path).map(|()| Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => make(path),
        Err(source) => {
            let user = geteuid().as_raw();
            match fs::symlink_metadata(path).map(|found| found.uid()) {
                Ok(owner) if owner != user => Err(OpenError::Owner { path: path.into(), owner, user }),
                _ => Err(OpenError::System { path: path.into(), doing: "open", source }),
            }
        }
    }
}

fn make(path: &Path) -> Result<Option<File>, OpenError> {
    match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(source) => Err(OpenError::System { path: path.into(), doing: "make", source }),
    }
}

/// Refuses what is not this user's alone.
fn guard(file: &File, path: &Path) -> Result<(), OpenError> {
    let found = file.metadata().map_err(|source| OpenError::System { path: path.into(), doing: "look at", source })?;
    let user = geteuid().as_raw();
    if found.uid() != user {
        return Err(OpenError::Owner { path: path.into(), owner: found.uid(), user });
    }
    let mode = found.permissions().mode() & 0o7777;
    if !found.is_file() || mode & 0o077 != 0 {
        return Err(OpenError::Permissions { path: path.into(), mode });
    }
    Ok(())
}

fn lock(file: &File, path: &Path, began: Instant) -> Result<(), OpenError> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if began.elapsed() < PATIENCE => {
                // Held for microseconds by others; the system's own waiting knows no deadline.
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                return Err(OpenError::Locked { path: path.into(), seconds: began.elapsed().as_secs_f64() });
            }
            Err(error) => return Err(OpenError::System { path: path.into(), doing: "lock", source: error.into() }),
        }
    }
}

fn unlock(file: &File) {
    // Closing the file would do it, too; nothing else can fail here.
    let _ = flock(file, FlockOperation::Unlock);
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(found)) => (file.dev(), file.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

/// Whether nobody living is in this segment; the lock is held, so nobody moves in.
///
/// It is read, not mapped: a file that others shorten must not kill this process.
fn is_abandoned(file: &File, namespace: u64) -> io::Result<bool> {
    let mut bytes = [0; header::LEN];
    let header = match read(file, &mut bytes, 0).map(|len| Header::parse(&bytes[..len]))? {
        Ok(header) => header,
        // Nobody can be in what was never finished.
        Err(HeaderError::Unfinished) => return Ok(true),
        Err(_) => return Ok(false),
    };
    if header.namespace != namespace {
        return Ok(false);
    }
    let layout = Layout::new(header.nodes, header.capacity).expect("a parsed header has a sound shape");
    for node in 0..layout.nodes() {
        let mut slot = [0; 24];
        read(file, &mut slot, layout.slot(node) as u64)?;
        let [generation, pid, start] =
            [0, 8, 16].map(|at| u64::from_ne_bytes(slot[at..at + 8].try_into().expect("eight of them")));
        let process = Process { pid: u32::try_from(pid).unwrap_or(0), start };
        if is_taken(generation) && process.is_alive() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads as much as there is; the rest of `target` stays as it was.
fn read(file: &File, target: &mut [u8], from: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < target.len() {
        match file.read_at(&mut target[done..], from + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Makes an empty file a segment without nodes; its magic comes last.
fn fill(file: &File, path: &Path, header: &Header, layout: &Layout) -> Result<(), OpenError> {
    let system = |doing| move |source| OpenError::System { path: path.into(), doing, source };
    let bytes = layout.len() as u64;
    // All of it at once: memory that runs out later would kill whoever touches it.
    fallocate(file, FallocateFlags::empty(), 0, bytes).map_err(|error| {
        let _ = fs::remove_file(path);
        OpenError::Memory { path: path.into(), bytes, source: error.into() }
    })?;
    let encoded = header.encode();
    file.write_all_at(&encoded[8..], 8).map_err(system("write"))?;
    file.write_all_at(&encoded[..8], 0).map_err(system("write"))
}

/// Refuses a segment that living nodes use for something else.
fn check(file: &File, path: &Path, expected: &Header) -> Result<(), OpenError> {
    let mut bytes = [0; header::LEN];
    let len =
        read(file, &mut bytes, 0).map_err(|source| OpenError::System { path: path.into(), doing: "read", source })?;
    let found = Header::parse(&bytes[..len]).map_err(|why| OpenError::Header { path: path.into(), why })?;
    let differences = [
        ("run", found.run, expected.run),
        ("number of nodes", found.nodes, expected.nodes),
        ("bytes per ring", found.capacity, expected.capacity),
        ("table of processes", found.namespace, expected.namespace),
    ];
    for (what, found, expected) in differences {
        if found != expected {
            return Err(OpenError::Different { path: path.into(), what, found, expected });
        }
    }
    Ok(())
}
