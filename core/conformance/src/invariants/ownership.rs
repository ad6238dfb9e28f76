//! Invariant 6: whatever is shared out among members has exactly one owner per membership.
//!
//! What is shared out so far are the pieces of a reduction: an attempt fixes its members, and in all of it nobody but one
//! of them sends the average of a piece to others. That every piece has an owner shows in the commit.

use kronfleet_core::cluster::Attempt;
use kronfleet_core::transport::NodeId;
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ownership {
    owners: BTreeMap<(Attempt, u32), NodeId>,
}

impl Ownership {
    /// Its name in violations.
    pub const NAME: &'static str = "ownership (invariant 6)";

    /// Takes note that `node` acts as the owner of a piece.
    ///
    /// # Errors
    /// If another one did.
    pub fn owns(&mut self, attempt: Attempt, piece: u32, node: NodeId) -> Result<(), String> {
        let owner = *self.owners.entry((attempt, piece)).or_insert(node);
        if owner == node {
            return Ok(());
        }
        Err(format!("{owner} and {node} both own piece {piece} of attempt {attempt}"))
    }
}
