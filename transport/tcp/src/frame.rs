//! Frames of a connection as bytes. `docs/wire.md` is the specification.
//!
//! Little-endian throughout; every frame begins with the same header:
//!
//! | offset | field |
//! |---|---|
//! | 0 | magic `KFTP` |
//! | 4 | check sum: CRC-32 (IEEE 802.3) of everything from offset 8 |
//! | 8 | version: the one agreed upon, or 0 in [`Kind::Hello`] and [`Kind::Refuse`] |
//! | 10 | [`Kind`] |
//! | 11 | zero |
//! | 12 | length of the body |
//! | 16, 20 | origin and target |

use kronfleet_core::transport::NodeId;
use std::fmt;

/// The lowest version of the protocol that this crate speaks: that in which the cluster's own protocol last changed, so
/// that nodes that could not average together are refused where they meet, with the reason.
pub const LEAST_VERSION: u16 = 2;
/// The highest version of the protocol that this crate speaks.
pub const GREATEST_VERSION: u16 = 2;
/// Bytes before the body of every frame.
pub const HEADER: usize = 24;
/// Bytes of the longest body of a frame that is not [`Kind::Data`].
pub const CONTROL: usize = 4096;
/// The target of a hello whose sender knows an address, but not who listens there.
pub const ANYBODY: NodeId = NodeId(u32::MAX);

const MAGIC: [u8; 4] = *b"KFTP";
const CHECKED_FROM: usize = 8;

/// What kind of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The first frame in each direction: who speaks, and what.
    Hello,
    /// The connection is refused; the last frame.
    Refuse,
    /// What the transport's user sends.
    Data,
    /// A sign of life that asks for one.
    Ping,
    /// The answer.
    Pong,
    /// Addresses of nodes.
    Book,
    /// To whom the sender has connections.
    Neighbours,
    /// The sender leaves; the last frame.
    Bye,
}

impl Kind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 8] =
        [Self::Hello, Self::Refuse, Self::Data, Self::Ping, Self::Pong, Self::Book, Self::Neighbours, Self::Bye];

    /// Hello and refusal look the same in all versions, so that strangers of any version understand them.
    fn is_of_every_version(self) -> bool {
        matches!(self, Self::Hello | Self::Refuse)
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What kind of frame.
    pub kind: Kind,
    /// Who made it; differs from the sender on this connection if that one relays.
    pub origin: NodeId,
    /// For whom it is; differs from the receiver on this connection if that one is to relay it.
    pub target: NodeId,
    /// Bytes of the body.
    pub length: usize,
    /// CRC-32 of the rest of the header and the body.
    checksum: u32,
}

/// Why some bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// They are not of this protocol.
    Magic {
        /// What stands where the magic should.
        found: [u8; 4],
    },
    /// They are of a version that was not agreed upon.
    Version {
        /// That version.
        found: u16,
    },
    /// There is no such kind, or not here.
    Kind {
        /// Its code.
        found: u8,
    },
    /// The body is longer than this receiver takes.
    Oversized {
        /// Bytes announced.
        length: usize,
        /// Bytes at most.
        limit: usize,
    },
    /// The frame was damaged on the way.
    Checksum,
    /// The connection ended within a frame.
    Truncated {
        /// Bytes of it that arrived.
        found: usize,
    },
    /// A field has a value that means nothing.
    Field(&'static str),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { found } => write!(f, "not of this protocol: begins with {found:02x?}"),
            Self::Version { found } => write!(f, "a frame of version {found}, which was not agreed upon"),
            Self::Kind { found } => write!(f, "a frame of kind {found} has no meaning here"),
            Self::Oversized { length, limit } => {
                write!(f, "a frame of {length} bytes, {limit} at most; give all nodes the same longest frame")
            }
            Self::Checksum => f.write_str("a frame was damaged on the way"),
            Self::Truncated { found } => write!(f, "the connection ended {found} bytes into a frame"),
            Self::Field(name) => write!(f, "a frame's {name} has no meaning"),
        }
    }
}

impl std::error::Error for FrameError {}

/// What a receiver accepts at the moment; the default is that of a stranger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The version agreed upon; `None` before that: nothing but [`Kind::Hello`] and [`Kind::Refuse`] makes sense.
    pub version: Option<u16>,
    /// Bytes of the longest [`Kind::Data`].
    pub longest: usize,
}

impl Expected {
    /// Bytes of the longest body of this kind.
    fn limit(&self, kind: Kind) -> usize {
        if kind == Kind::Data { self.longest } else { CONTROL }
    }
}

/// Reads the header at the start of `bytes`, as soon as it is whole; what is wrong is said as early as it can be seen.
///
/// The check sum is left to [`body`], which needs all bytes. `None` asks for more bytes.
///
/// # Errors
/// If no frame that is expected begins like this.
pub fn header(bytes: &[u8], expected: &Expected) -> Result<Option<Header>, FrameError> {
    let start = &bytes[..bytes.len().min(MAGIC.len())];
    if !MAGIC.starts_with(start) {
        let mut found = [0; 4];
        found[..start.len()].copy_from_slice(start);
        return Err(FrameError::Magic { found });
    }
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let code = header[10];
    let kind = *Kind::ALL.get(usize::from(code)).ok_or(FrameError::Kind { found: code })?;
    let version = u16::from_le_bytes([header[8], header[9]]);
    let agreed = if kind.is_of_every_version() { Some(0) } else { expected.version };
    match agreed {
        None => return Err(FrameError::Kind { found: code }),
        Some(agreed) if agreed != version => return Err(FrameError::Version { found: version }),
        Some(_) => {}
    }
    if header[11] != 0 {
        return Err(FrameError::Field("reserved byte"));
    }
    let length = word(header, 12) as usize;
    let limit = expected.limit(kind);
    if length > limit {
        return Err(FrameError::Oversized { length, limit });
    }
    Ok(Some(Header {
        kind,
        origin: NodeId(word(header, 16)),
        target: NodeId(word(header, 20)),
        length,
        checksum: word(header, 4),
    }))
}

/// The body of the frame at the start of `bytes`, whose header was read before; `None` asks for more bytes.
///
/// # Errors
/// If the check sum is wrong.
pub fn body<'a>(bytes: &'a [u8], header: &Header) -> Result<Option<&'a [u8]>, FrameError> {
    let Some(frame) = bytes.get(..HEADER + header.length) else {
        return Ok(None);
    };
    if crc32fast::hash(&frame[CHECKED_FROM..]) != header.checksum {
        return Err(FrameError::Checksum);
    }
    Ok(Some(&frame[HEADER..]))
}

/// Writes a frame into `target`, whose length gives that of the body; `fill` writes the body in place.
///
/// # Panics
/// If `target` is shorter than a header.
#[track_caller]
pub fn encode(version: u16, kind: Kind, origin: NodeId, to: NodeId, target: &mut [u8], fill: impl FnOnce(&mut [u8])) {
    let length = target.len() - HEADER;
    let version = if kind.is_of_every_version() { 0 } else { version };
    target[..4].copy_from_slice(&MAGIC);
    target[8..10].copy_from_slice(&version.to_le_bytes());
    target[10] = kind as u8;
    target[11] = 0;
    target[12..16].copy_from_slice(&(length as u32).to_le_bytes());
    target[16..20].copy_from_slice(&origin.0.to_le_bytes());
    target[20..24].copy_from_slice(&to.0.to_le_bytes());
    fill(&mut target[HEADER..]);
    let checksum = crc32fast::hash(&target[CHECKED_FROM..]);
    target[4..8].copy_from_slice(&checksum.to_le_bytes());
}

fn word(bytes: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Takes values off the front of a body.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(FrameError::Field(field))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, FrameError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, FrameError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, FrameError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, FrameError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn end(&self, field: &'static str) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::Field(field)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expected() -> Expected {
        Expected { version: Some(1), longest: 1000 }
    }

    fn frame(kind: Kind, bytes: &[u8]) -> Vec<u8> {
        let mut target = vec![0; HEADER + bytes.len()];
        encode(1, kind, NodeId(3), NodeId(4), &mut target, |body| body.copy_from_slice(bytes));
        target
    }

    proptest! {
        /// What is written is read, whatever follows it, and no prefix of it is taken for the whole.
        #[test]
        fn frames_are_read_as_written(bytes: Vec<u8>, kind in 0..8_usize, rest: Vec<u8>) {
            prop_assume!(bytes.len() <= 1000);
            let kind = Kind::ALL[kind];
            let mut written = frame(kind, &bytes);
            for end in 0..written.len() {
                if let Some(header) = header(&written[..end], &expected()).unwrap() {
                    prop_assert_eq!(body(&written[..end], &header), Ok(None));
                }
            }
            written.extend(rest);
            let header = header(&written, &expected()).unwrap().unwrap();
            prop_assert_eq!((header.kind, header.origin, header.target), (kind, NodeId(3), NodeId(4)));
            prop_assert_eq!(body(&written, &header), Ok(Some(&bytes[..])));
        }

        /// One flipped bit is noticed, wherever it is.
        #[test]
        fn a_flipped_bit_is_noticed(bytes in proptest::collection::vec(any::<u8>(), 0..300), bit: proptest::sample::Index) {
            let mut damaged = frame(Kind::Data, &bytes);
            let bit = bit.index(8 * damaged.len());
            damaged[bit / 8] ^= 1 << (bit % 8);
            let outcome = header(&damaged, &expected()).and_then(|header| match header {
                Some(header) => body(&damaged, &header).map(|body| body.is_some()),
                None => Ok(false),
            });
            // A length that grew within the limit waits for bytes that never come: the connection's end says so.
            prop_assert!(outcome != Ok(true), "{outcome:?}");
        }
    }

    #[test]
    fn what_is_not_expected_is_refused() {
        let before = Expected { version: None, longest: 0 };
        assert_eq!(header(&frame(Kind::Data, b""), &before), Err(FrameError::Kind { found: 2 }));
        assert!(header(&frame(Kind::Hello, b""), &before).unwrap().is_some());
        let other = Expected { version: Some(2), ..expected() };
        assert_eq!(header(&frame(Kind::Ping, b""), &other), Err(FrameError::Version { found: 1 }));
        let long = frame(Kind::Data, &[0; 1001]);
        assert_eq!(header(&long, &expected()), Err(FrameError::Oversized { length: 1001, limit: 1000 }));
        assert_eq!(header(b"G", &expected()), Err(FrameError::Magic { found: *b"G\0\0\0" }));
    }
}
