//! Invariant 5: rounds never go backwards, and an old incarnation changes nothing.
//!
//! - Every start of a node has a higher incarnation than the one before.
//! - The rounds that a start of a node commits or is healed to grow.
//! - Whoever commits first has seen no later start of any member; only earlier starts are refused as zombies.
//! - A start that was told of a later one proposes, commits and takes over nothing any more.

use super::ledger::Ledger;
use super::{Invariant, Summary};
use kronfleet_core::cluster::{CertificateId, Incarnation, Occurrence, Record};
use kronfleet_core::transport::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Monotony {
    starts: BTreeMap<NodeId, Incarnation>,
    last: BTreeMap<(NodeId, Incarnation), CertificateId>,
    /// Who has seen which start of whom.
    known: BTreeMap<(NodeId, Incarnation, NodeId), Incarnation>,
    refused: BTreeSet<(NodeId, Incarnation)>,
    committed: BTreeSet<CertificateId>,
    accepted: BTreeSet<CertificateId>,
    healed: u64,
}

impl Invariant for Monotony {
    fn name(&self) -> &'static str {
        "monotony (invariant 5)"
    }

    fn observe(&mut self, record: &Record, _: &Ledger) -> Result<(), String> {
        let Record { node, incarnation, .. } = *record;
        match &record.what {
            Occurrence::Started => {
                let before = self.starts.insert(node, incarnation);
                if before.is_some_and(|before| before >= incarnation) {
                    return Err(format!("the start before was {before:?}"));
                }
            }
            Occurrence::Up { peer, incarnation: theirs } => {
                let known = self.known.entry((node, incarnation, *peer)).or_default();
                if theirs < known {
                    return Err(format!("{peer} {known} is known, an earlier start counts as up"));
                }
                *known = *theirs;
            }
            Occurrence::Refused { .. } => {
                self.refused.insert((node, incarnation));
            }
            Occurrence::ZombieRefused { peer, incarnation, known } if incarnation >= known => {
                return Err(format!("{peer} {incarnation} is refused although {known} is no later start"));
            }
            Occurrence::Accepted { certificate, .. } => {
                self.accepted.insert(*certificate);
            }
            Occurrence::Committed { certificate } => {
                self.rise(record, certificate.id())?;
                // What was accepted before a member started anew may be committed after that.
                if self.committed.insert(certificate.id()) && !self.accepted.contains(&certificate.id()) {
                    for member in &certificate.members {
                        let known = self.known.get(&(node, incarnation, member.node));
                        if known.is_some_and(|&known| known > member.incarnation) {
                            return Err(format!(
                                "{} {} is a member although {known:?} is known",
                                member.node, member.incarnation
                            ));
                        }
                    }
                }
            }
            Occurrence::Healed { certificate, .. } => {
                self.healed += 1;
                // A member that only took the result has just committed it.
                if self.last.get(&(node, incarnation)) != Some(&certificate.id()) {
                    self.rise(record, certificate.id())?;
                }
            }
            _ => {}
        }
        let acts = matches!(
            record.what,
            Occurrence::Proposed { .. }
                | Occurrence::Done { .. }
                | Occurrence::Committed { .. }
                | Occurrence::Healed { .. }
        );
        if acts && self.refused.contains(&(node, incarnation)) {
            return Err(format!("{incarnation} acts after it was told of a later start"));
        }
        Ok(())
    }

    fn finish(&mut self, summary: &mut Summary) -> Result<(), String> {
        summary.healed = self.healed;
        Ok(())
    }
}

impl Monotony {
    fn rise(&mut self, record: &Record, id: CertificateId) -> Result<(), String> {
        let before = self.last.insert((record.node, record.incarnation), id);
        match before {
            Some(before) if before.round >= id.round => Err(format!("{id} after {before}")),
            _ => Ok(()),
        }
    }
}
