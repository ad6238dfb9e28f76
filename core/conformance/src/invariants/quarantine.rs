//! Beyond the eleven: whoever has to sit out takes no part.
//!
//! From the record that a peer is quarantined up to the one that it is readmitted or lost again, a node proposes no attempt
//! with it.

use super::ledger::Ledger;
use super::{Invariant, Summary};
use kronfleet_core::cluster::{Incarnation, Occurrence, Record};
use kronfleet_core::transport::NodeId;
use std::collections::BTreeSet;

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Quarantine {
    /// Who sits out, in the eyes of which start of a node.
    sitting: BTreeSet<(NodeId, Incarnation, NodeId)>,
}

impl Invariant for Quarantine {
    fn name(&self) -> &'static str {
        "quarantine"
    }

    fn observe(&mut self, record: &Record, _: &Ledger) -> Result<(), String> {
        let key = |peer: &NodeId| (record.node, record.incarnation, *peer);
        match &record.what {
            Occurrence::Quarantined { peer, .. } => {
                self.sitting.insert(key(peer));
            }
            Occurrence::Readmitted { peer } | Occurrence::Down { peer, .. } => {
                self.sitting.remove(&key(peer));
            }
            Occurrence::Proposed { attempt, members } => {
                if let Some(peer) = members.iter().find(|peer| self.sitting.contains(&key(peer))) {
                    return Err(format!("{attempt} is proposed with {peer}, which has to sit out"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut Summary) -> Result<(), String> {
        Ok(())
    }
}
