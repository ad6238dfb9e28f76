//! Invariant 5: rounds never go backwards, and an old incarnation changes nothing.
//!
//! - Every start of a node has a higher incarnation than the one before.
//! - The rounds that a start of a node commits or is healed to grow.
//! - Whoever commits first has seen no later start of any member; only earlier starts are refused as zombies.

use super::ledger::Ledger;
use super::{Invariant, Summary};
use kronfleet_core::cluster::{CertificateId, Incarnation, Occurrence, Record};
use kronfleet_core::transport::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Default)]
pub struct Monotony {
    starts: BTreeMap<NodeId, Incarnation>,
    last: BTreeMap<(NodeId, Incarnation), CertificateId>,
    /// Who has seen which start of whom.
    known: BTreeMap<(NodeId, NodeId), Incarnation>,
    committed: BTreeSet<CertificateId>,
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
                // What a former self knew died with it.
                self.known.retain(|&(whose, _), _| whose != node);
                if before.is_some_and(|before| before >= incarnation) {
                    return Err(format!("the start before was {before:?}"));
                }
            }
            Occurrence::Up { peer, incarnation } => {
                let known = self.known.entry((node, *peer)).or_default();
                if incarnation < known {
                    return Err(format!("{peer} {known} is known, an earlier start counts as up"));
                }
                *known = *incarnation;
            }
            Occurrence::ZombieRefused { peer, incarnation, known } if incarnation >= known => {
                return Err(format!("{peer} {incarnation} is refused although {known} is no later start"));
            }
            Occurrence::Committed { certificate } => {
                self.rise(record, certificate.id())?;
                if self.committed.insert(certificate.id()) {
                    for member in &certificate.members {
                        let known = self.known.get(&(node, member.node));
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
        if self.starts.get(&node).is_some_and(|&latest| incarnation < latest) {
            return Err(format!("{incarnation} acts after a later start"));
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
