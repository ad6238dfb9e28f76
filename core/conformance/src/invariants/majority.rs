//! Invariant 1, strict mode: one commit per round, of which a majority has made certificate and result durable.
//!
//! Runs in which nobody accepts anything are in available mode; they have nothing to show here.

use super::ledger::Ledger;
use super::{Invariant, Summary};
use kronfleet_core::cluster::{Attempt, CertificateId, Occurrence, Record, Round};
use kronfleet_core::transport::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Majority {
    accepted: BTreeMap<CertificateId, BTreeSet<NodeId>>,
    /// In which attempt each node last accepted.
    last: BTreeMap<NodeId, Attempt>,
    committed: BTreeMap<Round, CertificateId>,
    quorum: usize,
}

impl Invariant for Majority {
    fn name(&self) -> &'static str {
        "majority (invariant 1, strict)"
    }

    fn observe(&mut self, record: &Record, _: &Ledger) -> Result<(), String> {
        match &record.what {
            Occurrence::Accepted { attempt, certificate, quorum } => {
                let last = self.last.insert(record.node, *attempt);
                if last.is_some_and(|last| last > *attempt) {
                    return Err(format!("accepts in {attempt} after {last:?}"));
                }
                self.quorum = *quorum;
                self.accepted.entry(*certificate).or_default().insert(record.node);
                Ok(())
            }
            Occurrence::Committed { certificate } | Occurrence::Healed { certificate, .. } if self.quorum > 0 => {
                let id = certificate.id();
                let accepted = self.accepted.get(&id).map_or(0, BTreeSet::len);
                if accepted < self.quorum {
                    return Err(format!("{id} is committed, but {accepted} have accepted it, not {}", self.quorum));
                }
                let first = *self.committed.entry(id.round).or_insert(id);
                if first != id {
                    return Err(format!("{first} and {id} are committed in one round"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _: &mut Summary) -> Result<(), String> {
        Ok(())
    }
}
