//! Frames as bytes.
//!
//! Every frame begins with the same header, little-endian throughout:
//!
//! | offset | field |
//! |---|---|
//! | 0 | magic `KFLT` |
//! | 4 | check sum: the low half of the [`Digest`] of everything from offset 8 |
//! | 8 | version |
//! | 10 | [`Kind`] |
//! | 11 | [`Status`] of the sender |
//! | 12 | length of the body |
//! | 16 | run |
//! | 24, 28 | sender and receiver |
//! | 32 | the sender's incarnation |
//! | 40 | the receiver's incarnation as the sender knows it, or 0 |
//! | 48 | microseconds since the sender last heard the receiver; all ones: never |
//! | 52 | acknowledged epoch of the receiver's stream to the sender |
//! | 56 | that stream's next missing sequence number |
//! | 60 | which of the 64 sequence numbers after that one are there |
//!
//! The body follows. [`decode`] answers every sequence of bytes with a frame or a [`WireError`].

use crate::cluster::certificate::{Attempt, CertificateId, Incarnation, Round};
use crate::cluster::digest::{Digest, Digester};
use crate::cluster::message::Message;
use crate::transport::NodeId;
use alloc::vec::Vec;
use core::fmt;

/// The version this node speaks: it counts what frames say, and what nodes make of it. All members of a round have to
/// agree on both; since 2 those that count in a piece own it, since 3 differences are told from older averages, too.
pub const VERSION: u16 = 3;
/// Bytes before the body of every frame.
pub const HEADER: usize = 68;
/// Bytes of a [`Body::Segment`] before its data.
pub const SEGMENT: usize = 40;

const MAGIC: [u8; 4] = *b"KFLT";
const CHECKED_FROM: usize = 8;

/// Which run a frame belongs to; nodes of different runs refuse each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RunId(pub u64);

/// What kind of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A sign of life towards a peer to which there is nothing else to say.
    Heartbeat,
    /// Nothing but the acknowledgement every header carries.
    Acknowledge,
    /// Part of a message.
    Segment,
    /// A message is not going to be completed.
    Cancel,
    /// The receiver is refused.
    Refuse,
    /// The sender leaves.
    Goodbye,
}

impl Kind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 6] =
        [Self::Heartbeat, Self::Acknowledge, Self::Segment, Self::Cancel, Self::Refuse, Self::Goodbye];
}

/// What a node is doing, as far as others need to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Status {
    /// It does not average: nobody waits for it.
    #[default]
    Observing,
    /// It trains, and will be ready for a round some time.
    Training,
    /// It has done all its iterations.
    Finished,
    /// It is taking over a state; nobody waits for it.
    Healing,
}

impl Status {
    const ALL: [Self; 4] = [Self::Observing, Self::Training, Self::Finished, Self::Healing];
}

/// What every frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What kind of frame.
    pub kind: Kind,
    /// What the sender is doing.
    pub status: Status,
    /// The run.
    pub run: RunId,
    /// Who sends.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// Which start of the sender.
    pub incarnation: Incarnation,
    /// Which start of the receiver, as far as the sender knows; 0 if it does not.
    pub to_incarnation: Incarnation,
    /// Microseconds since the sender last heard the receiver; `u32::MAX` if it never did.
    pub heard: u32,
    /// What the sender has of the receiver's stream.
    pub acknowledged: Acknowledged,
}

/// Which frames of a stream have arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Acknowledged {
    /// The stream's epoch; 0 if nothing of it is known.
    pub epoch: u32,
    /// Every earlier frame is there.
    pub next: u32,
    /// Bit i: frame `next + 1 + i` is there.
    pub beyond: u64,
}

/// What a frame says beyond its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// See [`Kind::Heartbeat`].
    Heartbeat {
        /// The sender's last certificate.
        last: CertificateId,
    },
    /// See [`Kind::Acknowledge`].
    Acknowledge,
    /// See [`Kind::Segment`].
    Segment {
        /// Where it stands in the stream.
        place: Place,
        /// The first byte's place in the message.
        offset: u32,
        /// Bytes of the whole message.
        total: u32,
        /// The attempt the message belongs to; the default if none.
        attempt: Attempt,
        /// The bytes.
        data: &'a [u8],
    },
    /// See [`Kind::Cancel`].
    Cancel {
        /// Where it stands in the stream, and which message it ends.
        place: Place,
    },
    /// See [`Kind::Refuse`].
    Refuse {
        /// The receiver's newest start that is known to the sender.
        known: Incarnation,
    },
    /// See [`Kind::Goodbye`].
    Goodbye,
}

/// A frame's place in its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Place {
    /// The stream's epoch, from 1; a higher one starts the stream anew.
    pub epoch: u32,
    /// The frame's number, from 0.
    pub sequence: u32,
    /// The message it belongs to.
    pub message: u32,
}

/// A frame as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What every frame says.
    pub header: Header,
    /// What this one says.
    pub body: Body<'a>,
}

/// Why some bytes are not a frame, or not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// They end too early.
    Truncated,
    /// There are more than were announced.
    Oversized,
    /// They are not of this protocol.
    Magic,
    /// They are of a version this node does not speak.
    Version {
        /// That version.
        found: u16,
    },
    /// They were damaged on the way.
    Checksum,
    /// A field has a value that means nothing.
    Field(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the frame ends too early"),
            Self::Oversized => f.write_str("the frame is longer than it says"),
            Self::Magic => f.write_str("the frame is not of this protocol"),
            Self::Version { found } => {
                write!(f, "the frame is of version {found}; this node speaks version {VERSION} only")
            }
            Self::Checksum => f.write_str("the frame was damaged on the way"),
            Self::Field(name) => write!(f, "the frame's {name} has no meaning"),
        }
    }
}

impl core::error::Error for WireError {}

/// The attempt and the number of the piece that a frame begins to carry the reduced values of, if it does: who sends
/// it owns that piece.
///
/// For frames that a node has just made; nothing is checked.
pub fn reduced_piece(bytes: &[u8]) -> Option<(Attempt, u32)> {
    if bytes.get(10) != Some(&(Kind::Segment as u8)) {
        return None;
    }
    let mut reader = Reader::new(bytes.get(HEADER + 12..)?);
    if reader.u32().ok()? > 0 {
        return None;
    }
    match Message::decode(bytes.get(HEADER + SEGMENT..)?) {
        Ok(Message::Piece { attempt, reduced: true, index, .. }) => Some((attempt, index)),
        _ => None,
    }
}

/// Reads a frame.
///
/// # Errors
/// If `bytes` are not exactly one whole, undamaged frame of this version.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, WireError> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>()? != MAGIC {
        return Err(WireError::Magic);
    }
    let checksum = reader.u32()?;
    let version = reader.u16()?;
    if version != VERSION {
        return Err(WireError::Version { found: version });
    }
    if bytes.len() < HEADER {
        return Err(WireError::Truncated);
    }
    if checksum != check(&bytes[CHECKED_FROM..]) {
        return Err(WireError::Checksum);
    }
    let kind = *Kind::ALL.get(usize::from(reader.u8()?)).ok_or(WireError::Field("kind"))?;
    let status = *Status::ALL.get(usize::from(reader.u8()?)).ok_or(WireError::Field("status"))?;
    let length = reader.u32()? as usize;
    match length.cmp(&(bytes.len() - HEADER)) {
        core::cmp::Ordering::Greater => return Err(WireError::Truncated),
        core::cmp::Ordering::Less => return Err(WireError::Oversized),
        core::cmp::Ordering::Equal => {}
    }
    let header = Header {
        kind,
        status,
        run: RunId(reader.u64()?),
        from: NodeId(reader.u32()?),
        to: NodeId(reader.u32()?),
        incarnation: Incarnation(reader.u64()?),
        to_incarnation: Incarnation(reader.u64()?),
        heard: reader.u32()?,
        acknowledged: Acknowledged { epoch: reader.u32()?, next: reader.u32()?, beyond: reader.u64()? },
    };
    if header.incarnation == Incarnation(0) {
        return Err(WireError::Field("incarnation"));
    }
    let body = match kind {
        Kind::Heartbeat => Body::Heartbeat { last: reader.certificate_id()? },
        Kind::Acknowledge => Body::Acknowledge,
        Kind::Segment => Body::Segment {
            place: reader.place()?,
            offset: reader.u32()?,
            total: reader.u32()?,
            attempt: reader.attempt()?,
            data: reader.rest(),
        },
        Kind::Cancel => Body::Cancel { place: reader.place()? },
        Kind::Refuse => Body::Refuse { known: reader.incarnation()? },
        Kind::Goodbye => Body::Goodbye,
    };
    if let Body::Segment { offset, total, data, .. } = body {
        let end = u64::from(offset) + data.len() as u64;
        if data.is_empty() || end > u64::from(total) {
            return Err(WireError::Field("segment"));
        }
    }
    reader.end()?;
    Ok(Frame { header, body })
}

/// Bytes a frame with this body takes.
pub fn length(body: &Body<'_>) -> usize {
    HEADER
        + match body {
            Body::Heartbeat { .. } => 16,
            Body::Acknowledge | Body::Goodbye => 0,
            Body::Segment { data, .. } => SEGMENT + data.len(),
            Body::Cancel { .. } => 12,
            Body::Refuse { .. } => 8,
        }
}

/// Writes `frame` into `target`, which has exactly its [`length`].
///
/// # Panics
/// If `target` has another length.
#[track_caller]
pub fn encode(frame: &Frame<'_>, target: &mut [u8]) {
    let data = if let Body::Segment { data, .. } = frame.body { data } else { &[] };
    encode_with(frame, data.len(), target, |place| place.copy_from_slice(data));
}

/// Writes `frame`, whose segment has `len` bytes of data that `fill` writes in place.
#[track_caller]
pub(crate) fn encode_with(frame: &Frame<'_>, len: usize, target: &mut [u8], fill: impl FnOnce(&mut [u8])) {
    let Frame { header, body } = frame;
    let total = target.len();
    let mut writer = Slot { target, at: 0 };
    writer.put(&MAGIC);
    writer.put(&[0; 4]);
    writer.put(&VERSION.to_le_bytes());
    writer.put(&[header.kind as u8, header.status as u8]);
    writer.put(&((total - HEADER) as u32).to_le_bytes());
    writer.put(&header.run.0.to_le_bytes());
    writer.put(&header.from.0.to_le_bytes());
    writer.put(&header.to.0.to_le_bytes());
    writer.put(&header.incarnation.0.to_le_bytes());
    writer.put(&header.to_incarnation.0.to_le_bytes());
    writer.put(&header.heard.to_le_bytes());
    writer.put(&header.acknowledged.epoch.to_le_bytes());
    writer.put(&header.acknowledged.next.to_le_bytes());
    writer.put(&header.acknowledged.beyond.to_le_bytes());
    match body {
        Body::Heartbeat { last } => {
            writer.put(&last.round.0.to_le_bytes());
            writer.put(&last.digest.0.to_le_bytes());
        }
        Body::Acknowledge | Body::Goodbye => {}
        Body::Segment { place, offset, total, attempt, .. } => {
            writer.place(place);
            writer.put(&offset.to_le_bytes());
            writer.put(&total.to_le_bytes());
            writer.put(&attempt.sequence.to_le_bytes());
            writer.put(&attempt.proposer.0.to_le_bytes());
            writer.put(&attempt.incarnation.0.to_le_bytes());
            fill(&mut writer.target[writer.at..writer.at + len]);
            writer.at += len;
        }
        Body::Cancel { place } => writer.place(place),
        Body::Refuse { known } => writer.put(&known.0.to_le_bytes()),
    }
    assert_eq!(writer.at, total, "a frame of {} bytes was given {total}", writer.at);
    let checksum = check(&target[CHECKED_FROM..]);
    target[4..8].copy_from_slice(&checksum.to_le_bytes());
}

fn check(bytes: &[u8]) -> u32 {
    let mut digester = Digester::new();
    digester.update(bytes);
    digester.finish().0 as u32
}

struct Slot<'a> {
    target: &'a mut [u8],
    at: usize,
}

impl Slot<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.target[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn place(&mut self, place: &Place) {
        self.put(&place.epoch.to_le_bytes());
        self.put(&place.sequence.to_le_bytes());
        self.put(&place.message.to_le_bytes());
    }
}

/// Takes values off the front of some bytes.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.bytes)
    }

    pub(crate) fn end(&self) -> Result<(), WireError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(WireError::Oversized) }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Result<f64, WireError> {
        self.array().map(f64::from_le_bytes)
    }

    pub(crate) fn incarnation(&mut self) -> Result<Incarnation, WireError> {
        self.u64().map(Incarnation)
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, WireError> {
        self.u64().map(Digest)
    }

    pub(crate) fn certificate_id(&mut self) -> Result<CertificateId, WireError> {
        Ok(CertificateId { round: Round(self.u64()?), digest: self.digest()? })
    }

    pub(crate) fn attempt(&mut self) -> Result<Attempt, WireError> {
        Ok(Attempt { sequence: self.u64()?, proposer: NodeId(self.u32()?), incarnation: self.incarnation()? })
    }

    fn place(&mut self) -> Result<Place, WireError> {
        Ok(Place { epoch: self.u32()?, sequence: self.u32()?, message: self.u32()? })
    }

    /// As many items as the leading count says, each at least `least` bytes: the count is checked first, so
    /// that a lie cannot make this allocate more than the message itself takes.
    pub(crate) fn list<T>(
        &mut self,
        least: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.u32()? as usize;
        if count > self.bytes.len() / least.max(1) {
            return Err(WireError::Truncated);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}
