//! Whether a process lives: by its number and its start time, since numbers are used again.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{major, minor};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// A process, and no other that got its number later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the machine was.
    pub start: u64,
}

impl Process {
    /// This process.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn current() -> io::Result<Self> {
        let pid = std::process::id();
        let stat = fs::read_to_string("/proc/self/stat")?;
        let (start, _) = started(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time in /proc/self/stat"))?;
        Ok(Self { pid, start })
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.watch().is_some()
    }

    /// Looks at it for longer, if it lives.
    pub(crate) fn watch(&self) -> Option<Watch> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw)?;
        // Opened first: what is found out after that is about the process that it names.
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Some(handle),
            Err(Errno::SRCH) => return None,
            // An old kernel, or a sandbox without it.
            Err(_) => None,
        };
        let watch = Watch { process: *self, handle };
        (watch.has_not_exited() && self.is_listed()).then_some(watch)
    }

    /// Whether the process table has it, not yet exited.
    fn is_listed(&self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return false };
        // A zombie's other threads may still run for a moment, which only a handle shows; without one it counts as gone.
        started(&stat).is_some_and(|(start, state)| start == self.start && !"ZX".contains(state))
    }
}

/// Watches a process, without asking the process table again where the system can do better.
#[derive(Debug)]
pub(crate) struct Watch {
    process: Process,
    handle: Option<OwnedFd>,
}

impl Watch {
    /// Whether it lives.
    pub(crate) fn is_alive(&self) -> bool {
        if self.handle.is_some() { self.has_not_exited() } else { self.process.is_listed() }
    }

    /// Whether this may be ended in favour of another: another process of this user, with this very file mapped.
    ///
    /// What stands in a segment is not trusted that far: any process of this user could have written any number there.
    pub(crate) fn is_ours_in(&self, file: &Metadata) -> bool {
        let Process { pid, .. } = self.process;
        let owner = fs::metadata(format!("/proc/{pid}")).map(|found| found.uid());
        let mapped = fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| names(&maps, file));
        // Looked at last: what was found out above was about this process only if it still lives.
        pid != std::process::id()
            && owner.is_ok_and(|owner| owner == geteuid().as_raw())
            && mapped
            && self.handle.is_some()
            && self.is_alive()
    }

    /// Ends the process, stopped or not, with no chance for it to do anything more; never another that got its number.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let handle = self.handle.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        match pidfd_send_signal(handle, Signal::KILL) {
            // Gone already.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the last thread of the process is gone; answers whether it is within `span`.
    pub(crate) fn wait(&self, span: Duration) -> bool {
        let began = std::time::Instant::now();
        while self.exits_within(span.saturating_sub(began.elapsed())) != Ok(true) {
            if began.elapsed() >= span {
                return !self.is_alive();
            }
        }
        true
    }

    /// Whether some thread of it may still run, as far as a handle tells.
    fn has_not_exited(&self) -> bool {
        self.exits_within(Duration::ZERO) != Ok(true)
    }

    /// Waits for its end, if there is a handle, and answers whether it came; other reasons may end the wait, too.
    fn exits_within(&self, span: Duration) -> rustix::io::Result<bool> {
        let Some(handle) = &self.handle else { return Ok(false) };
        let mut asked = [PollFd::new(handle, PollFlags::IN)];
        let timeout = Timespec { tv_sec: span.as_secs() as i64, tv_nsec: i64::from(span.subsec_nanos()) };
        // A handle becomes readable when the last thread is gone.
        Ok(poll(&mut asked, Some(&timeout))? == 1)
    }
}

/// Which processes this one can see: the number of its table of processes.
///
/// # Errors
/// If `/proc` cannot be read.
pub(crate) fn namespace() -> io::Result<u64> {
    fs::metadata("/proc/self/ns/pid").map(|found| found.ino())
}

/// Whether a list of mappings (`/proc/…/maps`) has this file.
fn names(maps: &str, file: &Metadata) -> bool {
    let device = format!("{:02x}:{:02x}", major(file.dev()), minor(file.dev()));
    maps.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(3);
        fields.next() == Some(&device) && fields.next().and_then(|inode| inode.parse().ok()) == Some(file.ino())
    })
}

/// Start time and state in a line of `/proc/…/stat`; the name in parentheses may hold anything.
fn started(stat: &str) -> Option<(u64, char)> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.nth(18)?.parse().ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn this_process_lives_and_one_of_another_start_does_not() {
        let this = Process::current().expect("/proc");
        assert!(this.is_alive());
        assert!(!Process { start: this.start + 1, ..this }.is_alive());
        assert!(!Process { pid: 0, ..this }.is_alive());
        assert!(!Process { pid: u32::MAX, ..this }.is_alive());
    }

    #[test]
    fn a_killed_process_is_dead_before_anybody_has_reaped_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("/proc");
        let (start, _) = started(&stat).expect("a start time");
        let process = Process { pid: child.id(), start };
        let watch = process.watch().expect("it waits for input");
        child.kill().expect("ours");
        let began = std::time::Instant::now();
        while watch.is_alive() || process.is_alive() {
            assert!(began.elapsed().as_secs() < 10, "a killed process seems alive after 10 s");
            std::thread::yield_now();
        }
        child.wait().expect("ours");
    }

    #[test]
    fn only_what_has_the_file_mapped_is_ended_and_this_process_never() {
        let file = tempfile(b"mapped by nobody");
        let this = Process::current().expect("/proc");
        assert!(!this.watch().expect("it lives").is_ours_in(&file.metadata().expect("ours")));
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
        // Whoever spawns goes on as soon as the old program is unmapped, before the new one is mapped: what has
        // answered is mapped.
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(b"?").expect("a pipe");
        child.stdout.take().expect("a pipe").read_exact(&mut [0]).expect("what was written");
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("/proc");
        let (start, _) = started(&stat).expect("a start time");
        let watch = Process { pid: child.id(), start }.watch().expect("it waits for input");
        assert!(!watch.is_ours_in(&file.metadata().expect("ours")), "it has nothing to do with the file");
        let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).expect("/proc");
        let path =
            maps.lines().find_map(|line| line.split_ascii_whitespace().nth(5).filter(|path| path.starts_with('/')));
        let program = fs::metadata(path.expect("a program has its file mapped")).expect("a file");
        assert!(watch.is_ours_in(&program));
        assert!(!watch.wait(Duration::ZERO));
        watch.kill().expect("ours");
        assert!(watch.wait(Duration::from_secs(10)), "a killed process has not ended within 10 s");
        assert!(!watch.is_ours_in(&program));
        watch.kill().expect("whoever is gone needs no killing");
        child.wait().expect("ours");
    }

    /// A file that is gone as soon as nobody has it open.
    fn tempfile(bytes: &[u8]) -> fs::File {
        let path = std::env::temp_dir().join(format!("kronfleet-life-{}", std::process::id()));
        fs::write(&path, bytes).expect("a writable folder");
        let file = fs::File::open(&path).expect("ours");
        fs::remove_file(&path).expect("ours");
        file
    }

    #[test]
    fn names_do_not_confuse() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(started(&format!("12 (a) R (b) {fields}")), Some((777, 'S')));
        assert_eq!(started("12 (cat"), None);
        assert_eq!(started("12 (cat) S 1 2"), None);
    }
}
