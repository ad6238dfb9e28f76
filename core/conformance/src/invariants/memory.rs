//! Invariant 10, in a simulated node: what it holds for others is bounded.

use crate::violation::{Verdict, Violation};
use kronfleet_core::transport::NodeId;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes a node may hold, see [`Node::held`](kronfleet_core::cluster::Node::held).
    pub limit: usize,
}

impl Memory {
    /// Judges what `node` holds.
    ///
    /// # Errors
    /// If it is more than the limit.
    pub fn holds(self, node: NodeId, held: usize) -> Verdict {
        if held <= self.limit {
            return Ok(());
        }
        let what = format!("{node} holds {held} bytes for others, {} are allowed", self.limit);
        Err(Violation { law: "memory (invariant 10)", what })
    }
}
