//! Invariant 8: every sample is counted once or reported lost.
//!
//! Each start of a node numbers its samples. A contribution's range begins where the last one ended that the
//! node knows committed or reported lost, so nothing falls between. A range whose commit the node never heard
//! of comes again inside the next; the union of all committed ranges counts each sample once. When a node is
//! finished, its samples are committed, lost or uncommitted, and it says which.

use super::ledger::Ledger;
use super::{Invariant, Summary};
use kronfleet_core::cluster::{CertificateId, Incarnation, Occurrence, Record};
use kronfleet_core::transport::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of samples: the first, and one past the last.
type Range = (u64, u64);

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Accounting {
    lives: BTreeMap<(NodeId, Incarnation), Life>,
    seen: BTreeSet<CertificateId>,
}

#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Life {
    /// Where the next range begins, as far as the node knows.
    settled: u64,
    /// The ranges of its contributions, by turn.
    turns: BTreeMap<u64, Range>,
    committed: Vec<Range>,
    lost: Vec<Range>,
    uncommitted: Range,
}

impl Invariant for Accounting {
    fn name(&self) -> &'static str {
        "accounting (invariant 8)"
    }

    fn observe(&mut self, record: &Record, _: &Ledger) -> Result<(), String> {
        let who = (record.node, record.incarnation);
        match &record.what {
            Occurrence::Ready { turn, samples, .. } => {
                let life = self.lives.entry(who).or_default();
                life.begin(*samples)?;
                if life.turns.insert(*turn, *samples).is_some() {
                    return Err(format!("turn {turn} was before"));
                }
            }
            Occurrence::Committed { certificate } => {
                if self.seen.insert(certificate.id()) {
                    for member in &certificate.members {
                        let life = self.lives.entry((member.node, member.incarnation)).or_default();
                        let contributed = life.turns.get(&member.turn).copied();
                        if contributed != Some(member.samples) && contributed.map(taken) != Some(member.samples) {
                            return Err(format!(
                                "{} is said to contribute samples {:?} in turn {}, it did {contributed:?}",
                                member.node, member.samples, member.turn
                            ));
                        }
                        life.committed.push(member.samples);
                    }
                }
                let life = self.lives.entry(who).or_default();
                // A member that only took the result says next what it lost.
                if let Some(member) = certificate.member(record.node)
                    && life.turns.get(&member.turn) == Some(&member.samples)
                {
                    life.settled = member.samples.1;
                }
            }
            Occurrence::Healed { lost, .. } => {
                let life = self.lives.entry(who).or_default();
                life.begin(*lost)?;
                life.settled = lost.1;
                life.lost.push(*lost);
            }
            Occurrence::Finished { samples, uncommitted, .. } => {
                let life = self.lives.entry(who).or_default();
                life.begin(*uncommitted)?;
                if uncommitted.1 != *samples {
                    return Err(format!("{samples} samples, but the last is {uncommitted:?}"));
                }
                life.uncommitted = *uncommitted;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, summary: &mut Summary) -> Result<(), String> {
        for life in self.lives.values_mut() {
            // A commit that the node never heard of counts samples that it reported otherwise.
            let committed = union(&mut life.committed);
            let mut lost = life.lost.clone();
            lost.extend(&life.committed);
            let lost = union(&mut lost) - committed;
            let mut all = life.committed.clone();
            all.extend(&life.lost);
            let before = union(&mut all);
            all.push(life.uncommitted);
            summary.samples += committed;
            summary.samples_lost += lost;
            summary.samples_uncommitted += union(&mut all) - before;
        }
        Ok(())
    }
}

impl Life {
    fn begin(&self, range: Range) -> Result<(), String> {
        if range.0 != self.settled || range.1 < range.0 {
            return Err(format!("samples {}..{} after {} were settled", range.0, range.1, self.settled));
        }
        Ok(())
    }
}

/// What a certificate says of a member that was behind and only took the result: none of its samples.
fn taken(range: Range) -> Range {
    (range.1, range.1)
}

/// How many numbers lie in any of the ranges.
fn union(ranges: &mut [Range]) -> u64 {
    ranges.sort_unstable();
    let mut count = 0;
    let mut end = 0;
    for &(from, until) in ranges.iter() {
        count += until.saturating_sub(from.max(end));
        end = end.max(until);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_union_counts_each_number_once(spans in proptest::collection::vec((0_u64..40, 0_u64..10), 0..12)) {
            let mut ranges: Vec<Range> = spans.iter().map(|&(from, len)| (from, from + len)).collect();
            let numbers: BTreeSet<u64> = ranges.iter().flat_map(|&(from, until)| from..until).collect();
            prop_assert_eq!(union(&mut ranges), numbers.len() as u64);
        }
    }
}
