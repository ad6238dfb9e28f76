//! Why connections ended: for logs, tests and whoever wonders.

use crate::channel::ChannelError;
use crate::frame::FrameError;
use crate::hello::Refusal;
use crate::parley::Rejection;
use kronfleet_core::time::Duration;
use kronfleet_core::transport::NodeId;
use std::fmt;
use std::net::SocketAddr;
use tracing::Level;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closure {
    /// The other end sent what is not a frame.
    Frame(FrameError),
    /// This node refused the other end.
    Refused(Refusal),
    /// The other end refused this node.
    RefusedBy(Refusal),
    /// TLS failed: a foreign, expired or missing certificate, or no TLS at all.
    Tls(String),
    /// The system reports a failure: reset, refused, timed out.
    System(String),
    /// The other end closed the connection: its process is dead or gone.
    Ended,
    /// The other end has left the run.
    Left,
    /// Another machine's address, while there are no certificates.
    Exposed,
    /// Nothing was heard for this long.
    Silent(Duration),
    /// The ends did not come to terms within this time.
    Slow(Duration),
    /// A later connection with the same peer took its place.
    Replaced,
    /// A stranger had to make room for another.
    Crowded,
    /// It was dialled by mistake: this very node listens there.
    Itself,
}

impl fmt::Display for Closure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => write!(f, "{error}"),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::RefusedBy(refusal) => write!(f, "refused by the other end: {refusal}"),
            Self::Tls(error) => write!(
                f,
                "TLS: {error} (both ends need certificates that one `kronfleet-tcp certificates` has made, and that have \
                 not expired)"
            ),
            Self::System(error) => f.write_str(error),
            Self::Ended => f.write_str("closed by the other end"),
            Self::Left => f.write_str("the node has left"),
            Self::Exposed => f.write_str(
                "not dialled: it is not of this machine alone, and there are no certificates; make certificates with \
                 `kronfleet-tcp certificates`, or allow it with `--insecure`",
            ),
            Self::Silent(span) => write!(f, "nothing heard for {span:?}"),
            Self::Slow(span) => write!(f, "no terms within {span:?}"),
            Self::Replaced => f.write_str("replaced by a later connection"),
            Self::Crowded => f.write_str("too many strangers at once"),
            Self::Itself => f.write_str("this node's own address"),
        }
    }
}

impl Closure {
    /// Whom it concerns: `WARN` what somebody has to look into, `INFO` what happens where nodes come and go, `DEBUG`
    /// what belongs to normal life.
    pub fn level(&self) -> Level {
        match self {
            Self::Left
            | Self::Replaced
            | Self::Itself
            | Self::Refused(Refusal::Crossed | Refusal::Overtaken)
            | Self::RefusedBy(Refusal::Crossed | Refusal::Overtaken) => Level::DEBUG,
            Self::System(_) | Self::Ended | Self::Silent(_) | Self::Slow(_) => Level::INFO,
            Self::Frame(_) | Self::Refused(_) | Self::RefusedBy(_) | Self::Tls(_) | Self::Exposed | Self::Crowded => {
                Level::WARN
            }
        }
    }
}

impl From<FrameError> for Closure {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<Rejection> for Closure {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Frame(error) => Self::Frame(error),
            Rejection::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

impl From<std::io::Error> for Closure {
    fn from(error: std::io::Error) -> Self {
        Self::System(error.to_string())
    }
}

impl From<ChannelError> for Closure {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Io(error) => error.into(),
            ChannelError::Tls(error) => Self::Tls(error.to_string()),
        }
    }
}

/// A connection that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Who was at the other end, if that was known.
    pub peer: Option<NodeId>,
    /// Where the other end was.
    pub address: SocketAddr,
    /// Why it ended.
    pub closure: Closure,
}

/// What an end has counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames of the user that went into a connection.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames that were handed to the user.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// How often there was no room.
    pub full: u64,
    /// Frames relayed for others.
    pub relayed: u64,
    /// Frames for others that could not be relayed: their target was unknown or had no room.
    pub relay_dropped: u64,
    /// Connections dialled.
    pub dialled: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that became links with a peer.
    pub established: u64,
}
