//! Beyond the eleven: whoever has said goodbye is neither suspected nor waited for.
//!
//! From the record that a peer has left up to a later start of it, a node does not
//!
//! - take it for up again, suspect it or lose it once more,
//! - name it as slow, or propose an attempt with it.

use super::ledger::Ledger;
use super::{Invariant, Summary};
use kronfleet_core::cluster::{Incarnation, Loss, Occurrence, Record};
use kronfleet_core::transport::NodeId;
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Departure {
    /// Which start of whom a start of a node has seen last.
    known: BTreeMap<(NodeId, Incarnation, NodeId), Incarnation>,
    /// Which start of whom has said goodbye to it.
    left: BTreeMap<(NodeId, Incarnation, NodeId), Incarnation>,
}

impl Invariant for Departure {
    fn name(&self) -> &'static str {
        "departure"
    }

    fn observe(&mut self, record: &Record, _: &Ledger) -> Result<(), String> {
        let key = |peer: &NodeId| (record.node, record.incarnation, *peer);
        let gone = |peer: &NodeId| match self.left.get(&key(peer)) {
            Some(start) => Err(format!("{peer} {start} has said goodbye")),
            None => Ok(()),
        };
        match &record.what {
            Occurrence::Up { peer, incarnation } => {
                if self.left.get(&key(peer)).is_some_and(|left| incarnation <= left) {
                    return gone(peer);
                }
                self.left.remove(&key(peer));
                self.known.insert(key(peer), *incarnation);
            }
            Occurrence::Suspect { peer, .. } => return gone(peer),
            Occurrence::Down { peer, why } => {
                gone(peer)?;
                if *why == Loss::Left {
                    self.left.insert(key(peer), self.known.get(&key(peer)).copied().unwrap_or_default());
                }
            }
            Occurrence::Slow { nodes, .. } => return nodes.iter().try_for_each(gone),
            Occurrence::Proposed { members, .. } => return members.iter().try_for_each(gone),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut Summary) -> Result<(), String> {
        Ok(())
    }
}
