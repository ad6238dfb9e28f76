//! Why a segment cannot be opened.

use crate::header::HeaderError;
use crate::life::Process;
use kronfleet_core::error::{Error, ErrorKind};
use kronfleet_core::transport::NodeId;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a segment cannot be opened; nothing was changed then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The options contradict each other or what is possible.
    #[error("{0}")]
    Options(String),
    /// The segment is somebody else's.
    #[error("{path} belongs to user {owner}, not to user {user}: choose another name")]
    Owner {
        /// Where it is.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who this is.
        user: u32,
    },
    /// Others than its owner may read or write the segment.
    #[error("{path} has permissions {mode:o}, others could read or write it: remove it, or choose another name")]
    Permissions {
        /// Where it is.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is none of ours.
    #[error("{path} cannot be used: {why}; remove it if no process uses it, or choose another name")]
    Header {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: HeaderError,
    },
    /// Living nodes use the segment for something else.
    #[error("{path} is used by others with {what} {found}, not {expected}: choose another name")]
    Different {
        /// Where it is.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the others have.
        found: u64,
        /// What was asked for.
        expected: u64,
    },
    /// The node is there already, in a process that lives, and, where [`fence_after`](crate::Options::fence_after) is set,
    /// has looked for frames since.
    #[error("{node} of {path} is process {pid}, which lives: end it first (kill -9 {pid}), or be another node", pid = process.pid)]
    Taken {
        /// Where it is.
        path: PathBuf,
        /// Which node.
        node: NodeId,
        /// Who it is.
        process: Process,
    },
    /// A process that stood still was to be ended for this node's sake, and has not ended.
    #[error("{node} of {path} is process {pid}, which stands still and has not ended within {seconds} s of SIGKILL: wait for it (does it wait for a disk?), or be another node", pid = process.pid)]
    Immortal {
        /// Where it is.
        path: PathBuf,
        /// Which node.
        node: NodeId,
        /// Who it is.
        process: Process,
        /// For how long was waited.
        seconds: f64,
    },
    /// Somebody holds the lock on the segment for too long; perhaps a stopped process.
    #[error("{path} has been locked by another process for {seconds} s: is one of the nodes stopped?")]
    Locked {
        /// Where it is.
        path: PathBuf,
        /// For how long was waited.
        seconds: f64,
    },
    /// There is not enough shared memory.
    #[error("{path} needs {bytes} bytes of shared memory, which are not there: choose smaller rings ({source})")]
    Memory {
        /// Where it is.
        path: PathBuf,
        /// How much it needs.
        bytes: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The system refuses something else.
    #[error("{path}: cannot {doing}: {source}")]
    System {
        /// Where it is.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl Error for OpenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Memory { .. } => ErrorKind::OutOfMemory,
            Self::Owner { .. } | Self::Locked { .. } | Self::System { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        }
    }
}
