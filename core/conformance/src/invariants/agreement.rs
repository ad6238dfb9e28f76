//! Invariant 1, available mode: one commit per attempt, agreed on by all its members.
//!
//! - All who commit an attempt hold the same certificate; nobody commits one twice, and what is committed is
//!   not aborted afterwards.
//! - Where members' results differ, exactly those are named that have not what most have; all, where there is a tie.
//! - When an attempt is first committed, every member has had the whole result in hand, bit for bit the same.
//! - A certificate grows from what its members had: its parents are theirs, its round the next one, and a
//!   parent is called stale only if another one descends from it.
//! - Certificates that share a parent are a fork; whoever commits their merger records it.

use super::ledger::Ledger;
use super::{Invariant, Summary};
use kronfleet_core::cluster::{
    AbortReason, Attempt, Certificate, CertificateId, Digest, Incarnation, Occurrence, Record, Round,
};
use kronfleet_core::transport::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One start of a node.
type Life = (NodeId, Incarnation);

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Agreement {
    certificates: BTreeMap<CertificateId, Arc<Certificate>>,
    attempts: BTreeMap<Attempt, CertificateId>,
    committed: BTreeMap<CertificateId, BTreeSet<Life>>,
    done: BTreeMap<(Attempt, Life), Digest>,
    proposed: BTreeSet<Attempt>,
    last: BTreeMap<Life, CertificateId>,
    /// Who has accepted what, in strict mode: a majority of that is a commit, too.
    accepted: BTreeMap<CertificateId, BTreeSet<NodeId>>,
}

impl Invariant for Agreement {
    fn name(&self) -> &'static str {
        "agreement (invariant 1)"
    }

    fn observe(&mut self, record: &Record, _: &Ledger) -> Result<(), String> {
        let life = (record.node, record.incarnation);
        match &record.what {
            Occurrence::Proposed { attempt, .. } if !self.proposed.insert(*attempt) => {
                return Err(format!("attempt {attempt} was proposed before"));
            }
            Occurrence::Done { attempt, result } => {
                self.done.insert((*attempt, life), *result);
            }
            Occurrence::Accepted { certificate, .. } => {
                self.accepted.entry(*certificate).or_default().insert(record.node);
            }
            Occurrence::Committed { certificate } => return self.commit(life, certificate),
            Occurrence::Healed { certificate, .. } => {
                let id = certificate.id();
                let accepted = self.accepted.contains_key(&id);
                if accepted && !self.certificates.contains_key(&id) {
                    // It was recovered, and no member is left that could say so; `majority` counts who accepted.
                    self.attempts.insert(certificate.attempt, id);
                    self.certificates.insert(id, certificate.clone());
                    self.grow(certificate)?;
                } else if !accepted && !self.committed.contains_key(&id) {
                    return Err(format!("healed to {id}, which nobody had committed"));
                }
                self.last.insert(life, id);
            }
            Occurrence::Aborted { attempt, why, who } => {
                let committed = self.attempts.get(attempt).and_then(|id| self.committed.get(id));
                if committed.is_some_and(|committed| committed.contains(&life)) {
                    return Err(format!("attempt {attempt} is aborted after this node committed it"));
                }
                if *why == AbortReason::Unequal && *who != self.odd(*attempt) {
                    return Err(format!("attempt {attempt} names {who:?}, odd are {:?}", self.odd(*attempt)));
                }
            }
            Occurrence::Merged { parents } => {
                let last = self.last.get(&life).and_then(|id| self.certificates.get(id));
                let parted: Option<Vec<_>> = last.map(|last| living(last).collect());
                if parted.as_ref() != Some(parents) {
                    return Err(format!("merged {parents:?}, but the last commit merges {parted:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, summary: &mut Summary) -> Result<(), String> {
        summary.commits = self.certificates.len() as u64;
        let members = |id| self.certificates[id].members.len();
        let partial = self.committed.iter().filter(|(id, committed)| committed.len() < members(id));
        summary.partial = partial.count() as u64;
        let failed = self.proposed.iter().filter(|attempt| !self.attempts.contains_key(attempt));
        summary.retried = failed.count() as u64;
        let mut children: BTreeMap<CertificateId, u64> = BTreeMap::new();
        for certificate in self.certificates.values() {
            living(certificate).for_each(|parent| *children.entry(parent).or_default() += 1);
            summary.merges += u64::from(certificate.merges());
        }
        summary.forks = children.values().map(|children| children - 1).sum();
        Ok(())
    }
}

/// The parents that are not stale.
fn living(certificate: &Certificate) -> impl Iterator<Item = CertificateId> {
    certificate.parents.iter().filter(|parent| !parent.stale).map(|parent| parent.certificate)
}

impl Agreement {
    /// Whose result in this attempt is not the one that most have; everybody's, if as many have one as another.
    fn odd(&self, attempt: Attempt) -> Vec<NodeId> {
        let done = self.done.range((attempt, Life::default())..).take_while(|((other, _), _)| *other == attempt);
        let mut votes: BTreeMap<Digest, usize> = BTreeMap::new();
        done.clone().for_each(|(_, &digest)| *votes.entry(digest).or_default() += 1);
        let most = votes.values().max().copied();
        let tied = votes.values().filter(|&&count| Some(count) == most).count() > 1;
        done.filter(|(_, digest)| tied || votes.get(digest).copied() != most).map(|((_, (node, _)), _)| *node).collect()
    }

    fn commit(&mut self, life: Life, certificate: &Arc<Certificate>) -> Result<(), String> {
        let id = certificate.id();
        let attempt = certificate.attempt;
        let first = *self.attempts.entry(attempt).or_insert(id);
        if first != id {
            return Err(format!("attempt {attempt} was committed as {first} before, now as {id}"));
        }
        let new = !self.certificates.contains_key(&id);
        if new {
            self.certificates.insert(id, certificate.clone());
        }
        if !self.committed.entry(id).or_default().insert(life) {
            return Err(format!("{id} is committed twice"));
        }
        let Some(member) = certificate.member(life.0).filter(|member| member.incarnation == life.1) else {
            return Err(format!("{id} is committed by a node that is not a member of it"));
        };
        let last = self.last.insert(life, id).unwrap_or_default();
        if member.parent != last {
            return Err(format!("{id} says that this node had {} before; it had {last}", member.parent));
        }
        if new { self.grow(certificate) } else { Ok(()) }
    }

    /// Checks a certificate that has just been committed for the first time.
    fn grow(&self, certificate: &Certificate) -> Result<(), String> {
        let id = certificate.id();
        if !certificate.members.is_sorted_by(|a, b| a.node < b.node) || certificate.members.is_empty() {
            return Err(format!("the members of {id} are not sorted, or not one entry each"));
        }
        for member in &certificate.members {
            let done = self.done.get(&(certificate.attempt, (member.node, member.incarnation)));
            if done != Some(&certificate.result) {
                return Err(format!(
                    "{id} is committed with result {}, but {} {} has {done:?}",
                    certificate.result, member.node, member.incarnation
                ));
            }
        }
        let theirs: BTreeSet<_> = certificate.members.iter().map(|member| member.parent).collect();
        let named: Vec<_> = certificate.parents.iter().map(|parent| parent.certificate).collect();
        if !named.iter().eq(theirs.iter()) {
            return Err(format!("{id} names the parents {named:?}, its members have {theirs:?}"));
        }
        let highest = theirs.iter().map(|parent| parent.round).max().unwrap_or_default();
        if certificate.round != Round(highest.0 + 1) {
            return Err(format!("{id} follows {highest}"));
        }
        for parent in certificate.parents.iter().filter(|parent| parent.stale) {
            let others = theirs.iter().filter(|&&other| other != parent.certificate);
            if !others.into_iter().any(|&other| self.descends(other, parent.certificate)) {
                return Err(format!("{id} calls {} stale, but no other parent descends from it", parent.certificate));
            }
        }
        Ok(())
    }

    fn descends(&self, from: CertificateId, ancestor: CertificateId) -> bool {
        let mut open = vec![from];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if id == ancestor {
                return true;
            }
            if id.round > ancestor.round
                && seen.insert(id)
                && let Some(certificate) = self.certificates.get(&id)
            {
                open.extend(certificate.parents.iter().map(|parent| parent.certificate));
            }
        }
        false
    }
}
