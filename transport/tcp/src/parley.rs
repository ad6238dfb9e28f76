//! Who may come in: the rules for the first frame of a connection.

use crate::frame::{ANYBODY, FrameError, Header, Kind};
use crate::hello::{Hello, Refusal};
use kronfleet_core::cluster::RunId;
use kronfleet_core::transport::NodeId;

/// What this node insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The run.
    pub run: RunId,
    /// This node.
    pub node: NodeId,
    /// Nodes have lower numbers.
    pub nodes: u32,
    /// Bytes of the longest frame.
    pub longest: u32,
}

/// Which end of a connection this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It dialled this node, or whoever listens there.
    Dialled(Option<NodeId>),
    /// It was dialled.
    Accepted,
}

/// What the first frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The other end introduces itself and can be talked to in this version.
    Hello {
        /// Who it is.
        peer: NodeId,
        /// What it says.
        hello: Hello,
        /// The version to be spoken.
        version: u16,
    },
    /// The other end refuses.
    Refused(Refusal),
}

/// Why the first frame is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It makes no sense.
    Frame(FrameError),
    /// It makes sense, but the sender is refused.
    Refused(Refusal),
}

impl From<FrameError> for Rejection {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Terms {
    /// Judges the first frame of a connection.
    ///
    /// # Errors
    /// Why the other end is refused.
    pub fn judge(&self, role: Role, header: &Header, body: &[u8]) -> Result<Greeting, Rejection> {
        match header.kind {
            Kind::Hello => {}
            // Whoever dials says hello; a stranger who begins with a refusal is not heard.
            Kind::Refuse if matches!(role, Role::Dialled(_)) => return Ok(Greeting::Refused(Refusal::read(body)?)),
            kind => return Err(FrameError::Kind { found: kind as u8 }.into()),
        }
        let hello = Hello::read(body)?;
        let version = hello.agree(self.run, self.longest)?;
        let peer = header.origin;
        if peer == self.node || peer.0 >= self.nodes {
            return Err(Refusal::Node.into());
        }
        let meant = header.target == self.node || (header.target == ANYBODY && role == Role::Accepted);
        let reached = !matches!(role, Role::Dialled(Some(other)) if other != peer);
        if !meant || !reached {
            return Err(Refusal::Target.into());
        }
        Ok(Greeting::Hello { peer, hello, version })
    }
}
