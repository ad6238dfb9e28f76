//! An end in another process, which does over a byte stream what a law in this one says.
//!
//! # For users
//! [`serve`] an end at one side of the stream, [`Remote::meet`] it from the other, and hand the [`Remote`] to the laws as
//! [`Fabric::End`](super::Fabric::End). Requests and answers are a kind and a length each, then so many bytes.

use kronfleet_core::error::ErrorKind;
use kronfleet_core::time::Instant;
use kronfleet_core::transport::{Event, NodeId, Sent, Transport, TransportError};
use std::cell::RefCell;
use std::io::{self, Read, Write};

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
}

/// Kinds from here on are the users' own: [`serve`] leaves them to its caller.
pub const FIRST_OWN_KIND: u8 = 64;

/// A message: its kind and what belongs to it.
pub type Message = (u8, Vec<u8>);

/// Writes a message.
///
/// # Errors
/// If the stream does not take it.
pub fn write<S: Write>(stream: &mut S, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut message = vec![kind];
    message.extend((bytes.len() as u64).to_le_bytes());
    message.extend(bytes);
    stream.write_all(&message)
}

/// Reads a message.
///
/// # Errors
/// If the stream ends or fails.
pub fn read<S: Read>(stream: &mut S) -> io::Result<Message> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let len = u64::from_le_bytes(head[1..].try_into().expect("eight of them"));
    let mut bytes = vec![0; len as usize];
    stream.read_exact(&mut bytes)?;
    Ok((head[0], bytes))
}

/// The number that a message's bytes begin with.
///
/// # Panics
/// If they are fewer than eight: both sides are the same program.
#[track_caller]
pub fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight of them"))
}

/// An end in another process.
#[derive(Debug)]
pub struct Remote<S> {
    node: NodeId,
    max_frame: usize,
    stream: RefCell<S>,
}

impl<S: Read + Write> Remote<S> {
    /// Waits until the other side serves an end, or says why it cannot.
    ///
    /// # Errors
    /// That reason, or what is wrong with the stream.
    pub fn meet(node: NodeId, mut stream: S) -> Result<Self, String> {
        match read(&mut stream) {
            Ok((kind::OPENED, bytes)) => {
                Ok(Self { node, max_frame: number(&bytes) as usize, stream: RefCell::new(stream) })
            }
            Ok((_, why)) => Err(String::from_utf8_lossy(&why).into_owned()),
            Err(error) => Err(format!("the process of {node} does not say how it went: {error}")),
        }
    }

    /// Sends a message of the user's own; nothing is awaited.
    ///
    /// # Errors
    /// If the stream does not take it.
    pub fn tell(&self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        write(&mut *self.stream.borrow_mut(), kind, bytes)
    }

    /// What the two sides talk over.
    pub fn stream(&self) -> &RefCell<S> {
        &self.stream
    }

    fn ask(&self, what: u8, bytes: &[u8]) -> Result<Message, TransportError> {
        let mut stream = self.stream.borrow_mut();
        write(&mut *stream, what, bytes).and_then(|()| read(&mut *stream)).map_err(|error| TransportError {
            kind: ErrorKind::Other,
            peer: None,
            reason: format!("the process of {}: {error}", self.node),
        })
    }
}

impl<S: Read + Write> Transport for Remote<S> {
    fn local(&self) -> NodeId {
        self.node
    }

    fn max_frame(&self) -> usize {
        self.max_frame
    }

    fn now(&self) -> Instant {
        let (_, bytes) = self.ask(kind::NOW, &[]).expect("the process is asked only while it lives");
        Instant::from_nanos(number(&bytes))
    }

    fn send(&mut self, to: NodeId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<Sent, TransportError> {
        // What the end answers with a panic in its own process is one in this process, too.
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

/// Tells the other side that there is no end, and why.
///
/// # Errors
/// If the stream fails.
pub fn refuse<S: Write>(stream: &mut S, why: &str) -> io::Result<()> {
    write(stream, kind::REFUSED, why.as_bytes())
}

/// Lets the other side use `end`, until it sends a message of the user's own kinds, which is the answer.
///
/// # Errors
/// If the stream ends or fails.
///
/// # Panics
/// If the transport fails: nothing that a law does is a reason to.
pub fn serve<S: Read + Write, T: Transport + ?Sized>(stream: &mut S, end: &mut T) -> io::Result<Message> {
    write(stream, kind::OPENED, &(end.max_frame() as u64).to_le_bytes())?;
    loop {
        let (what, bytes) = read(stream)?;
        match what {
            kind::NOW => write(stream, kind::NOW, &end.now().as_nanos().to_le_bytes())?,
            kind::SEND => send(stream, end, NodeId(number(&bytes) as u32), number(&bytes[8..]) as usize)?,
            kind::RECEIVE => receive(stream, end, Instant::from_nanos(number(&bytes)))?,
            _ => return Ok((what, bytes)),
        }
    }
}

fn send<S: Read + Write, T: Transport + ?Sized>(stream: &mut S, end: &mut T, to: NodeId, len: usize) -> io::Result<()> {
    let mut failed = None;
    let sent = end.send(to, len, &mut |target| {
        let asked = write(stream, kind::FILL, &(target.len() as u64).to_le_bytes());
        match asked.and_then(|()| read(stream)) {
            Ok((_, frame)) => target.copy_from_slice(&frame),
            Err(error) => failed = Some(error),
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    match sent {
        Ok(Sent::Accepted) => write(stream, kind::ACCEPTED, &[]),
        Ok(Sent::Full) => write(stream, kind::FULL, &[]),
        Err(error) => write(stream, kind::UNREACHABLE, error.reason.as_bytes()),
    }
}

fn receive<S: Read + Write, T: Transport + ?Sized>(stream: &mut S, end: &mut T, deadline: Instant) -> io::Result<()> {
    let mut event = None;
    let received = end.recv(deadline, &mut |found| {
        let (what, peer, frame) = match found {
            Event::Frame { from, bytes } => (kind::FRAME, from, bytes),
            Event::Up(peer) => (kind::UP, peer, &[][..]),
            Event::Down(peer) => (kind::DOWN, peer, &[][..]),
        };
        event = Some((what, [&u64::from(peer.0).to_le_bytes(), frame].concat()));
    });
    received.expect("nothing that a law does makes a transport fail");
    let (what, bytes) = event.unwrap_or((kind::NOTHING, Vec::new()));
    write(stream, what, &bytes)
}
