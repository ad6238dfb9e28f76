//! A node in a process of its own that does what this one says, and can be killed, stopped and let go on.
//!
//! The process is this test program again, told by its environment to serve instead of testing. Requests and answers
//! go over one socket, the child's standard input.

use kronfleet_conformance::transport::remote::{self, FIRST_OWN_KIND, number, refuse, serve};
use kronfleet_core::cluster::RunId;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use kronfleet_shm::{Options, ShmEndpoint};
use rustix::process::{Pid, Signal, kill_process};
use std::io::ErrorKind as IoErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

const NAME: &str = "KRONFLEET_SHM_NAME";

/// The message after which a child sends without end.
const FLOOD: u8 = FIRST_OWN_KIND;

/// A node in a process of its own.
pub(crate) struct Remote {
    child: Child,
    end: remote::Remote<UnixStream>,
}

impl Remote {
    /// Starts the process and waits until it has joined.
    pub(crate) fn start(options: &Options) -> Self {
        Self::try_start(options).expect("a node that can join")
    }

    /// The same; answers why it could not join.
    pub(crate) fn try_start(options: &Options) -> Result<Self, String> {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let Options { directory, name, run, nodes, node, capacity, .. } = options;
        let value = format!("{}\n{name}\n{}\n{nodes}\n{}\n{capacity}", directory.display(), run.0, node.0);
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["remote::serve_if_told_to", "--exact", "--nocapture", "--quiet"])
            .env(NAME, value)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .expect("this program can be started");
        // A child that does not answer for so long fails the test instead of holding it up.
        ours.set_read_timeout(Some(Duration::from_secs(30))).expect("a time above zero");
        match remote::Remote::meet(*node, ours) {
            Ok(end) => Ok(Self { child, end }),
            Err(why) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(why)
            }
        }
    }

    /// Kills it in the middle of whatever it does, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Kills it and does not wait: not even its corpse is taken away before this value is dropped.
    pub(crate) fn shoot(&mut self) {
        self.child.kill().expect("our own child");
    }

    /// Stops it (SIGSTOP), and waits until it stands.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let began = std::time::Instant::now();
        let stat = format!("/proc/{}/stat", self.child.id());
        let stands = || {
            let stat = std::fs::read_to_string(&stat).expect("our own child");
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        while !stands() {
            assert!(began.elapsed().as_secs() < 10, "a stopped process runs on for 10 s");
            std::thread::yield_now();
        }
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Makes it send frames without end, numbered from 0 and of lengths that depend on the number, to `to`; it answers
    /// nothing any more.
    pub(crate) fn flood(&self, to: NodeId) {
        self.end.tell(FLOOD, &u64::from(to.0).to_le_bytes()).expect("the child listens");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child has a number");
        kill_process(pid, signal).expect("our own child");
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Remote {
    /// Lets it leave; kills it if it does not.
    fn drop(&mut self) {
        let _ = self.end.stream().borrow().shutdown(std::net::Shutdown::Both);
        let began = std::time::Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed().as_secs() < 5 {
            std::thread::yield_now();
        }
        self.end();
    }
}

impl Transport for Remote {
    fn local(&self) -> NodeId {
        self.end.local()
    }

    fn max_frame(&self) -> usize {
        self.end.max_frame()
    }

    fn now(&self) -> Instant {
        self.end.now()
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        self.end.send(to, len, fill)
    }

    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        self.end.recv(deadline, sink)
    }
}

/// How long a frame of [`Remote::flood`] is.
pub(crate) fn flood_len(number: u64) -> usize {
    8 + (number * 37 % 5000) as usize
}

/// Not a test: what a child does.
#[test]
fn serve_if_told_to() {
    let Ok(options) = std::env::var(NAME) else { return };
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().expect("the socket");
    match play(&options, UnixStream::from(stdin)) {
        Ok(()) => {}
        // The parent has gone or wants us to.
        Err(error) if matches!(error.kind(), IoErrorKind::UnexpectedEof | IoErrorKind::BrokenPipe) => {}
        Err(error) => panic!("the socket to the parent: {error}"),
    }
}

fn play(options: &str, mut stream: UnixStream) -> std::io::Result<()> {
    let words: Vec<&str> = options.lines().collect();
    let [directory, name, run, nodes, node, capacity] = words[..] else { panic!("six options in {options:?}") };
    let options = Options {
        directory: directory.into(),
        capacity: capacity.parse().expect("a number"),
        ..Options::new(
            name,
            RunId(run.parse().expect("a number")),
            nodes.parse().expect("a number"),
            NodeId(node.parse().expect("a number")),
        )
    };
    let mut end = match ShmEndpoint::open(&options) {
        Ok(end) => end,
        Err(error) => return refuse(&mut stream, &error.to_string()),
    };
    match serve(&mut stream, &mut end)? {
        (FLOOD, to) => flood(&mut end, NodeId(number(&to) as u32)),
        (other, _) => panic!("message of unknown kind {other}"),
    }
}

/// Sends until this process is killed.
fn flood(end: &mut ShmEndpoint, to: NodeId) -> ! {
    let mut next = 0_u64;
    loop {
        let sent = end.send(to, flood_len(next), &mut |target| {
            target.fill(next as u8);
            target[..8].copy_from_slice(&next.to_le_bytes());
        });
        if sent.is_ok_and(|sent| sent == Sent::Accepted) {
            next += 1;
        } else {
            let deadline = end.now() + Duration::from_millis(1);
            let _ = end.recv(deadline, &mut |_| ());
        }
    }
}
