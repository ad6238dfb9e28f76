//! Contributions told as compressed differences from averages that members have in common.

use crate::cluster::certificate::{Certificate, CertificateId, Member, Parent};
use crate::cluster::contribution::Contribution;
use crate::cluster::digest::Digest;
use crate::cluster::membership::Links;
use crate::cluster::message::Proposal;
use crate::cluster::round::Rounds;
use crate::collective::differences::{Bases, Coded, Differences, Lineage, Lost, Untold, tell};
use crate::compress::Code;
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::seed::Seed;
use crate::transport::NodeId;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What announcements call the values of a run: their type, and what differences are told in.
pub(crate) fn wire<S: Scalar>(code: Code) -> String {
    if code == Code::All { String::from(S::NAME) } else { format!("{} {code}", S::NAME) }
}

/// What the certificate of a round among these members does, who announced `wire`: without a state in common nobody tells
/// differences.
pub(super) fn certified<S: Scalar>(wire: &str, members: &[Member], parents: &[Parent]) -> String {
    String::from(if common(members, parents).is_some() { wire } else { S::NAME })
}

/// Whether these are values of this type, in whatever code differences were told.
pub(crate) fn is_of_type<S: Scalar>(wire: &str) -> bool {
    wire.split(' ').next() == Some(S::NAME)
}

/// What a node tells of a contribution.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Telling<S> {
    coded: Arc<Coded>,
    /// What it will not have told once this is committed.
    left: Untold<S>,
    /// What the last result that was whole has lost at this node, and which it was: whoever has left the attempt may
    /// still learn that it is committed.
    lost: Option<(Digest, Vec<Lost<S>>)>,
}

impl<S> Telling<S> {
    /// The result of an attempt is whole.
    pub(super) fn concluded(&mut self, result: Digest, lost: Vec<Lost<S>>) {
        self.lost = Some((result, lost));
    }
}

/// What differences are told from beside the last average, and what this node has not told of earlier contributions.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Memory<S> {
    pub(super) code: Code,
    untold: Untold<S>,
    bases: Arc<Bases<S>>,
}

impl<S: Scalar> Memory<S> {
    pub(super) fn new(code: Code, made: bool) -> Self {
        Self { code, untold: Untold::default(), bases: Arc::new(Bases::new(made)) }
    }

    /// A contribution of `own` was committed.
    pub(super) fn keep(&mut self, telling: Option<Telling<S>>, own: NodeId, certificate: &Certificate) {
        let Some(Telling { mut left, lost, .. }) = telling else { return };
        let Certificate { members, result, .. } = certificate;
        if let Some((_, lost)) = lost.filter(|(of, _)| of == result) {
            left.take_on(&lost);
        }
        if let Some(member) = members.iter().find(|member| member.node == own) {
            left.count(&member.weights);
        }
        self.untold = left;
    }

    /// The state `next` takes the place of the `former` one.
    pub(super) fn follow(&mut self, former: Option<&(Arc<Certificate>, Arc<Contribution<S>>)>, next: &Contribution<S>) {
        if let Some((certificate, former)) = former.filter(|_| self.code != Code::All) {
            Arc::make_mut(&mut self.bases).follow(certificate.id(), former, next);
        }
    }

    /// Takes in what all who have the average of round `id` make of its first segment.
    pub(super) fn make(&mut self, id: CertificateId, values: &[S]) {
        Arc::make_mut(&mut self.bases).make(id, values);
    }

    /// What differences could be told from beside the last average.
    pub(super) fn lineage(&self) -> Lineage {
        self.bases.lineage()
    }

    /// This node has taken over what others have.
    pub(super) fn forget(&mut self) {
        self.untold = Untold::default();
    }
}

impl<S: Scalar> Rounds<S> {
    /// See [`Node::remake`](crate::cluster::Node::remake).
    pub(crate) fn remake(&mut self, links: &Links<S>, certificate: &Certificate, values: &[S]) {
        let Memory { code, bases, .. } = &self.memory;
        // What is contributed already was told from something else.
        if *code != Code::All && bases.is_made() && self.entry.is_none() && certificate.id() == links.last {
            self.memory.make(links.last, values);
        }
    }

    /// Puts what is told in place of what a node has; `None` if everything is told.
    pub(super) fn tell_differences(&self, links: &Links<S>, contribution: &mut Contribution<S>) -> Option<Telling<S>> {
        let Memory { code, untold, bases } = &self.memory;
        if *code == Code::All {
            return None;
        }
        let base = self.last.as_ref().map(|(_, state)| &**state);
        let seed = Seed(self.turn).derive("node", u64::from(links.identity.node.0));
        // What cannot be told is noticed when it is to be summed.
        let (coded, left) = tell(*code, base, bases, untold, contribution, seed).unwrap_or_default();
        Some(Telling { coded: Arc::new(coded), left, lost: None })
    }

    /// How the members of a proposal tell each other differences, if two of them have an average in common.
    pub(super) fn differences(&self, proposal: &Proposal, me: usize) -> Option<Differences<S>> {
        let telling = self.entry.as_ref()?.telling.as_ref()?;
        let Certificate { members, parents, .. } = &proposal.certificate;
        let common = common(members, parents).filter(|_| proposal.certificate.is_coded())?;
        let based = members.iter().map(|member| member.parent == common).collect::<Vec<_>>();
        let base = self.last.as_ref().filter(|_| based[me]).map(|(_, state)| Arc::clone(state));
        let seed = Seed(proposal.certificate.attempt.sequence).derive("owner", u64::from(members[me].node.0));
        let akin = akin(&based, &proposal.lineages);
        let differences = Differences::new(self.memory.code, based, base, Arc::clone(&telling.coded), seed);
        Some(differences.with_bases(me, akin, Arc::clone(&self.memory.bases)))
    }
}

/// The average that most members grew from, of several the newest: at least two of them. Neither the start of the run, nor one
/// that others have gone on from: the average would go back to it wherever little is told.
fn common(members: &[Member], parents: &[Parent]) -> Option<CertificateId> {
    let is_stale = |id: CertificateId| parents.iter().any(|parent| parent.certificate == id && parent.stale);
    let fresh = |id: CertificateId| id != CertificateId::default() && !is_stale(id);
    let mut counts = BTreeMap::<CertificateId, usize>::new();
    for member in members.iter().filter(|member| fresh(member.parent)) {
        *counts.entry(member.parent).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(certificate, count)| (count, certificate));
    most.filter(|&(_, count)| count > 1).map(|(certificate, _)| certificate)
}

/// Who of those that are `based` has the newest older averages, if two of them have: from others results would go back, too.
fn akin(based: &[bool], lineages: &[Lineage]) -> Vec<bool> {
    if mutant!(LineageIgnored) {
        return based.to_vec();
    }
    let mut counts = BTreeMap::<Lineage, usize>::new();
    for (lineage, _) in lineages.iter().zip(based).filter(|(_, based)| **based) {
        *counts.entry(*lineage).or_default() += 1;
    }
    let newest = counts.pop_last().filter(|&(_, count)| count > 1).map(|(lineage, _)| lineage);
    based.iter().zip(lineages).map(|(based, lineage)| *based && Some(*lineage) == newest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::certificate::Round;

    #[test]
    fn differences_are_told_from_what_nobody_has_left_behind() {
        let id = |round| CertificateId { round: Round(round), digest: Digest(round) };
        let members = |parents: &[u64]| -> Vec<Member> {
            parents
                .iter()
                .map(|&round| Member {
                    parent: if round == 0 { CertificateId::default() } else { id(round) },
                    ..Member::default()
                })
                .collect()
        };
        let parent = |round, stale| Parent { certificate: id(round), stale };
        let of = |rounds: &[u64], parents: &[Parent]| common(&members(rounds), parents);
        assert_eq!(of(&[1, 1, 1, 4, 4], &[parent(1, true), parent(4, false)]), Some(id(4)));
        assert_eq!(of(&[1, 1, 1, 4], &[parent(1, true), parent(4, false)]), None, "one alone has nobody to tell");
        assert_eq!(of(&[3, 3, 4, 4], &[parent(3, false), parent(4, false)]), Some(id(4)), "of a fork the newer");
        assert_eq!(of(&[0, 0, 0], &[]), None, "the start of the run");
    }

    #[test]
    fn older_averages_are_the_newest_if_two_have_them() {
        let of = |based: [bool; 5], rounds: [u64; 5]| {
            akin(&based, &rounds.map(|rounds| Lineage { rounds, digest: Digest(rounds) }))
        };
        assert_eq!(of([true; 5], [0; 5]), [true; 5]);
        assert_eq!(of([true; 5], [3, 3, 3, 7, 7]), [false, false, false, true, true]);
        assert_eq!(of([true, true, true, true, false], [3, 3, 3, 7, 7]), [false; 5], "one alone has nobody to tell");
        assert_eq!(of([true; 5], [1, 2, 3, 4, 5]), [false; 5], "nobody has what another has");
    }
}
