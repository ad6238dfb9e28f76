//! How two nodes come to terms: the bodies of [`Kind::Hello`](crate::frame::Kind::Hello) and
//! [`Kind::Refuse`](crate::frame::Kind::Refuse), and the rules of acceptance that need no other state.

use crate::book::{Address, list_length, read_addresses, write_addresses};
use crate::frame::{FrameError, GREATEST_VERSION, LEAST_VERSION, Reader};
use kronfleet_core::cluster::{Incarnation, RunId};
use std::fmt;

/// Which of a node's connections: those of a later start, then those dialled later, replace the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    /// Which start of the node.
    pub incarnation: Incarnation,
    /// How many connections this start had dialled when it wrote this.
    pub dialled: u64,
}

/// Who speaks, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version of the protocol that the sender speaks.
    pub least: u16,
    /// The highest one.
    pub greatest: u16,
    /// The run.
    pub run: RunId,
    /// Which connection.
    pub generation: Generation,
    /// Bytes of the longest frame of the transport's user.
    pub longest: u32,
    /// Where the sender can be reached; none if it cannot be dialled.
    pub addresses: Vec<Address>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Refusal {
    /// No version is spoken by both.
    Version,
    /// The nodes belong to different runs.
    Run,
    /// The node has a number that this run does not have, or this very node's.
    Node,
    /// The hello was meant for another node.
    Target,
    /// The certificate is of another node or run.
    Certificate,
    /// The longest frames differ.
    Longest,
    /// Both nodes dialled each other; the connection from the lower one stays.
    Crossed,
    /// A later start of the node is known.
    Stale,
    /// The frame makes no sense here.
    Frame,
    /// A later connection of the same start came first.
    Overtaken,
}

impl Refusal {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 10] = [
        Self::Version,
        Self::Run,
        Self::Node,
        Self::Target,
        Self::Certificate,
        Self::Longest,
        Self::Crossed,
        Self::Stale,
        Self::Frame,
        Self::Overtaken,
    ];

    /// The body of a refusal; `newest` is the latest start of the refused node that is known, and is told to one that is
    /// [`Stale`](Self::Stale).
    pub(crate) fn body(self, newest: Incarnation) -> Vec<u8> {
        let mut body = vec![self as u8];
        if self == Self::Stale {
            body.extend(newest.0.to_le_bytes());
        }
        body
    }

    /// The latest known start of the refused node, if the body of a refusal says it.
    pub fn newest(bytes: &[u8]) -> Option<Incarnation> {
        let mut reader = Reader(bytes);
        let stale = reader.u8("refusal").ok()? == Self::Stale as u8;
        reader.u64("incarnation").ok().filter(|_| stale).map(Incarnation)
    }

    /// Reads the body of a refusal.
    ///
    /// # Errors
    /// If there is no such reason.
    pub fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader(bytes);
        let code = reader.u8("refusal")?;
        // A later version may say more.
        Self::ALL.get(usize::from(code)).copied().ok_or(FrameError::Field("refusal"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "no version of the protocol is spoken by both: bring all nodes to the same release",
            Self::Run => "the nodes belong to different runs: give all of them the same run",
            Self::Node => "the node's number is not one of this run's, or taken by the other end",
            Self::Target => "the hello was meant for another node: its address has changed hands",
            Self::Certificate => "the certificate is not the named node's in this run",
            Self::Longest => "the longest frames differ: give all nodes the same",
            Self::Crossed => "both dialled each other; the connection from the lower node stays",
            Self::Stale => "a later start of this node is known: was it started twice, or the clock set back?",
            Self::Frame => "a frame that makes no sense",
            Self::Overtaken => "a later connection of the node came first, and stays",
        })
    }
}

impl Hello {
    const FIXED: usize = 2 + 2 + 8 + 8 + 8 + 4;

    /// Bytes of the body.
    pub fn length(&self) -> usize {
        Self::FIXED + list_length(&self.addresses)
    }

    /// Writes the body into `target`, of exactly [`length`](Self::length) bytes.
    pub fn write(&self, target: &mut [u8]) {
        let mut bytes = Vec::with_capacity(target.len());
        bytes.extend(self.least.to_le_bytes());
        bytes.extend(self.greatest.to_le_bytes());
        bytes.extend(self.run.0.to_le_bytes());
        bytes.extend(self.generation.incarnation.0.to_le_bytes());
        bytes.extend(self.generation.dialled.to_le_bytes());
        bytes.extend(self.longest.to_le_bytes());
        write_addresses(&self.addresses, &mut bytes);
        target.copy_from_slice(&bytes);
    }

    /// Reads a body. What follows the addresses is left to later versions.
    ///
    /// # Errors
    /// If it is not a hello.
    pub fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader(bytes);
        let hello = Self {
            least: reader.u16("least version")?,
            greatest: reader.u16("greatest version")?,
            run: RunId(reader.u64("run")?),
            generation: Generation {
                incarnation: Incarnation(reader.u64("incarnation")?),
                dialled: reader.u64("number of the connection")?,
            },
            longest: reader.u32("longest frame")?,
            addresses: read_addresses(&mut reader)?,
        };
        if hello.least > hello.greatest {
            return Err(FrameError::Field("range of versions"));
        }
        if hello.generation.incarnation == Incarnation(0) {
            return Err(FrameError::Field("incarnation"));
        }
        Ok(hello)
    }

    /// The version to be spoken with the sender: the highest that both speak.
    ///
    /// # Errors
    /// If there is none, or run or longest frame are others.
    pub fn agree(&self, run: RunId, longest: u32) -> Result<u16, Refusal> {
        let version = self.greatest.min(GREATEST_VERSION);
        if version < self.least.max(LEAST_VERSION) {
            return Err(Refusal::Version);
        }
        if self.run != run {
            return Err(Refusal::Run);
        }
        if self.longest != longest {
            return Err(Refusal::Longest);
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            least: LEAST_VERSION,
            greatest: GREATEST_VERSION,
            run: RunId(7),
            generation: Generation { incarnation: Incarnation(9), dialled: 3 },
            longest: 4096,
            addresses: vec!["127.0.0.1:80".parse().unwrap(), "[::1]:81".parse().unwrap()],
        }
    }

    #[test]
    fn a_hello_is_read_as_written() {
        let mut bytes = vec![0; hello().length()];
        hello().write(&mut bytes);
        assert_eq!(Hello::read(&bytes), Ok(hello()));
        for end in 0..bytes.len() {
            assert!(Hello::read(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
        }
        bytes.extend(b"what a later version adds");
        assert_eq!(Hello::read(&bytes), Ok(hello()));
    }

    #[test]
    fn terms_are_the_highest_common_version_or_a_reason() {
        assert_eq!(hello().agree(RunId(7), 4096), Ok(GREATEST_VERSION));
        assert_eq!(Hello { greatest: 9, ..hello() }.agree(RunId(7), 4096), Ok(GREATEST_VERSION));
        let (earlier, later) = (LEAST_VERSION - 1, GREATEST_VERSION + 1);
        for (least, greatest) in [(later, later + 7), (0, 0), (earlier, earlier)] {
            let other = Hello { least, greatest, ..hello() };
            assert_eq!(other.agree(RunId(7), 4096), Err(Refusal::Version), "{least} to {greatest}");
        }
        assert_eq!(hello().agree(RunId(8), 4096), Err(Refusal::Run));
        assert_eq!(hello().agree(RunId(7), 4097), Err(Refusal::Longest));
    }

    #[test]
    fn whoever_is_stale_is_told_of_the_latest_start() {
        for refusal in Refusal::ALL {
            let body = refusal.body(Incarnation(9));
            assert_eq!(Refusal::read(&body), Ok(refusal));
            assert_eq!(Refusal::newest(&body), (refusal == Refusal::Stale).then_some(Incarnation(9)));
            // Earlier releases say no more than the reason.
            assert_eq!(Refusal::newest(&body[..1]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hello_or_an_error(bytes: Vec<u8>) {
            let _ = Hello::read(&bytes);
            let _ = Refusal::read(&bytes);
            let _ = Refusal::newest(&bytes);
        }
    }
}
