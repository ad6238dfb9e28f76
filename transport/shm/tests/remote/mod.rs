//! A node in a process of its own that does what this one says, and can be killed, stopped and let go on.
//!
//! The process is this test program again, told by its environment to serve instead of testing. Requests and answers
//! go over one socket, the child's standard input: each is a kind and a length, then so many bytes.

use kronfleet_core::cluster::RunId;
use kronfleet_core::error::ErrorKind;
use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use kronfleet_shm::{Options, ShmEndpoint};
use rustix::process::{Pid, Signal, kill_process};
use std::cell::RefCell;
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

const NAME: &str = "KRONFLEET_SHM_NAME";

/// Kinds of messages, in both directions.
mod kind {
    pub(super) const OPENED: u8 = 0;
    pub(super) const REFUSED: u8 = 1;
    pub(super) const NOW: u8 = 2;
    pub(super) const SEND: u8 = 3;
    pub(super) const FILL: u8 = 4;
    pub(super) const ACCEPTED: u8 = 5;
    pub(super) const FULL: u8 = 6;
    pub(super) const UNREACHABLE: u8 = 7;
    pub(super) const RECEIVE: u8 = 8;
    pub(super) const NOTHING: u8 = 9;
    pub(super) const FRAME: u8 = 10;
    pub(super) const UP: u8 = 11;
    pub(super) const DOWN: u8 = 12;
    pub(super) const FLOOD: u8 = 13;
}

/// A message: its kind and what belongs to it.
type Message = (u8, Vec<u8>);

fn write(stream: &mut UnixStream, kind: u8, bytes: &[u8]) -> std::io::Result<()> {
    let mut message = vec![kind];
    message.extend((bytes.len() as u64).to_le_bytes());
    message.extend(bytes);
    stream.write_all(&message)
}

fn read(stream: &mut UnixStream) -> std::io::Result<Message> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let len = u64::from_le_bytes(head[1..].try_into().expect("eight of them"));
    let mut bytes = vec![0; len as usize];
    stream.read_exact(&mut bytes)?;
    Ok((head[0], bytes))
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight of them"))
}

/// A node in a process of its own.
pub(crate) struct Remote {
    node: NodeId,
    max_frame: usize,
    child: Child,
    stream: RefCell<UnixStream>,
}

impl Remote {
    /// Starts the process and waits until it has joined.
    pub(crate) fn start(options: &Options) -> Self {
        Self::try_start(options).expect("a node that can join")
    }

    /// The same; answers why it could not join.
    pub(crate) fn try_start(options: &Options) -> Result<Self, String> {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let Options { directory, name, run, nodes, node, capacity } = options;
        let value = format!("{}\n{name}\n{}\n{nodes}\n{}\n{capacity}", directory.display(), run.0, node.0);
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["remote::serve_if_told_to", "--exact", "--nocapture", "--quiet"])
            .env(NAME, value)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .expect("this program can be started");
        // A child that does not answer for so long fails the test instead of holding it up.
        ours.set_read_timeout(Some(Duration::from_secs(30))).expect("a time above zero");
        let (answer, bytes) = read(&mut ours).expect("the child says how it went");
        let mut remote = Self { node: *node, max_frame: 0, child, stream: RefCell::new(ours) };
        if answer == kind::REFUSED {
            let _ = remote.child.wait();
            return Err(String::from_utf8_lossy(&bytes).into_owned());
        }
        remote.max_frame = number(&bytes) as usize;
        Ok(remote)
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
        write(&mut self.stream.borrow_mut(), kind::FLOOD, &u64::from(to.0).to_le_bytes()).expect("the child listens");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child has a number");
        kill_process(pid, signal).expect("our own child");
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn ask(&self, what: u8, bytes: &[u8]) -> Result<Message, TransportError> {
        let mut stream = self.stream.borrow_mut();
        write(&mut stream, what, bytes).and_then(|()| read(&mut stream)).map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &std::io::Error) -> TransportError {
        TransportError { kind: ErrorKind::Other, peer: None, reason: format!("the process of {}: {error}", self.node) }
    }
}

impl Drop for Remote {
    /// Lets it leave; kills it if it does not.
    fn drop(&mut self) {
        let _ = self.stream.borrow().shutdown(std::net::Shutdown::Both);
        let began = std::time::Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed().as_secs() < 5 {
            std::thread::yield_now();
        }
        self.end();
    }
}

impl Transport for Remote {
    fn local(&self) -> NodeId {
        self.node
    }

    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn now(&self) -> Instant {
        let (_, bytes) = self.ask(kind::NOW, &[]).expect("the child is asked only while it lives");
        Instant::from_nanos(number(&bytes))
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        // What the endpoint answers with a panic in its own process is one in this process, too.
        assert!(to != self.node && len <= self.max_frame, "no frame of {len} bytes to {to}");
        let asked = [u64::from(to.0).to_le_bytes(), (len as u64).to_le_bytes()].concat();
        let mut answer = self.ask(kind::SEND, &asked)?;
        while answer.0 == kind::FILL {
            let mut frame = vec![0; number(&answer.1) as usize];
            fill(&mut frame);
            answer = self.ask(kind::FILL, &frame)?;
        }
        match answer.0 {
            kind::ACCEPTED => Ok(Sent::Accepted),
            kind::FULL => Ok(Sent::Full),
            _ => {
                let reason = String::from_utf8_lossy(&answer.1).into_owned();
                Err(TransportError { kind: ErrorKind::Unreachable, peer: Some(to), reason })
            }
        }
    }

    fn recv(&mut self, deadline: Instant, sink: &mut dyn FnMut(Event<'_>)) -> Result<bool, TransportError> {
        let (answer, bytes) = self.ask(kind::RECEIVE, &deadline.as_nanos().to_le_bytes())?;
        if answer == kind::NOTHING {
            return Ok(false);
        }
        let peer = NodeId(number(&bytes) as u32);
        match answer {
            kind::UP => sink(Event::Up(peer)),
            kind::DOWN => sink(Event::Down(peer)),
            _ => sink(Event::Frame { from: peer, bytes: &bytes[8..] }),
        }
        Ok(true)
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
    match serve(&options, UnixStream::from(stdin)) {
        Ok(()) => {}
        // The parent has gone or wants us to.
        Err(error) if matches!(error.kind(), IoErrorKind::UnexpectedEof | IoErrorKind::BrokenPipe) => {}
        Err(error) => panic!("the socket to the parent: {error}"),
    }
}

fn serve(options: &str, mut stream: UnixStream) -> std::io::Result<()> {
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
        Err(error) => return write(&mut stream, kind::REFUSED, error.to_string().as_bytes()),
    };
    write(&mut stream, kind::OPENED, &(end.max_frame() as u64).to_le_bytes())?;
    loop {
        let (what, bytes) = read(&mut stream)?;
        match what {
            kind::NOW => write(&mut stream, kind::NOW, &end.now().as_nanos().to_le_bytes())?,
            kind::SEND => {
                let (to, len) = (NodeId(number(&bytes) as u32), number(&bytes[8..]) as usize);
                let mut failed = None;
                let sent = end.send(to, len, &mut |target| {
                    let asked = write(&mut stream, kind::FILL, &(target.len() as u64).to_le_bytes());
                    match asked.and_then(|()| read(&mut stream)) {
                        Ok((_, frame)) => target.copy_from_slice(&frame),
                        Err(error) => failed = Some(error),
                    }
                });
                if let Some(error) = failed {
                    return Err(error);
                }
                match sent {
                    Ok(Sent::Accepted) => write(&mut stream, kind::ACCEPTED, &[])?,
                    Ok(Sent::Full) => write(&mut stream, kind::FULL, &[])?,
                    Err(error) => write(&mut stream, kind::UNREACHABLE, error.reason.as_bytes())?,
                }
            }
            kind::RECEIVE => {
                let mut event = None;
                let deadline = Instant::from_nanos(number(&bytes));
                let received = end.recv(deadline, &mut |found| {
                    let (what, peer, frame) = match found {
                        Event::Frame { from, bytes } => (kind::FRAME, from, bytes),
                        Event::Up(peer) => (kind::UP, peer, &[][..]),
                        Event::Down(peer) => (kind::DOWN, peer, &[][..]),
                    };
                    event = Some((what, [&u64::from(peer.0).to_le_bytes(), frame].concat()));
                });
                received.expect("shared memory does not fail");
                let (what, bytes) = event.unwrap_or((kind::NOTHING, Vec::new()));
                write(&mut stream, what, &bytes)?;
            }
            kind::FLOOD => flood(&mut end, NodeId(number(&bytes) as u32)),
            other => panic!("message of unknown kind {other}"),
        }
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
