//! Contributions told as compressed differences from the last average that members have in common.

use crate::cluster::certificate::{CertificateId, Member};
use crate::cluster::contribution::Contribution;
use crate::cluster::membership::Links;
use crate::cluster::message::Proposal;
use crate::cluster::round::Rounds;
use crate::collective::differences::{Coded, Differences, Lost, Untold, tell};
use crate::compress::Code;
use crate::scalar::Scalar;
use crate::seed::Seed;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

/// What announcements call the values of a run: their type, and what differences are told in.
pub(crate) fn wire<S: Scalar>(code: Code) -> String {
    if code == Code::All { String::from(S::NAME) } else { format!("{} {code}", S::NAME) }
}

/// What the certificate of a round among these members does, who announced `wire`: without a state in common nobody tells
/// differences.
pub(super) fn certified<S: Scalar>(wire: &str, members: &[Member]) -> String {
    String::from(if common(members).is_some() { wire } else { S::NAME })
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
}

/// What this node has not told of earlier contributions.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Memory<S> {
    pub(super) code: Code,
    untold: Untold<S>,
}

impl<S: Scalar> Memory<S> {
    pub(super) fn new(code: Code) -> Self {
        Self { code, untold: Untold::default() }
    }

    /// A contribution was committed that counted like `own` among `members`, and its owner's results have lost this.
    pub(super) fn keep(&mut self, telling: Option<Telling<S>>, lost: &[Lost<S>], own: &Member, members: &[Member]) {
        let Some(Telling { mut left, .. }) = telling else { return };
        left.take_on(lost);
        // What counted little is not to count in full because it comes late.
        left.retain(|segment| {
            let weight = |member: &Member| member.weights.get(segment).copied().unwrap_or(0.0);
            let most = members.iter().map(weight).fold(0.0, f64::max);
            let counted = members.iter().find(|member| member.node == own.node).map_or(0.0, weight);
            counted == 0.0 || 2.0 * counted >= most
        });
        self.untold = left;
    }

    /// This node has taken over what others have.
    pub(super) fn forget(&mut self) {
        self.untold = Untold::default();
    }
}

impl<S: Scalar> Rounds<S> {
    /// Puts what is told in place of what a node has; `None` if everything is told.
    pub(super) fn tell_differences(&self, links: &Links<S>, contribution: &mut Contribution<S>) -> Option<Telling<S>> {
        let Memory { code, untold } = &self.memory;
        if *code == Code::All {
            return None;
        }
        let base = self.last.as_ref().map(|(_, state)| &**state);
        let seed = Seed(self.turn).derive("node", u64::from(links.identity.node.0));
        // What cannot be told is noticed when it is to be summed.
        let (coded, left) = tell(*code, base, untold, contribution, seed).unwrap_or_default();
        Some(Telling { coded: Arc::new(coded), left })
    }

    /// How the members of a proposal tell each other differences, if two of them have an average in common.
    pub(super) fn differences(&self, proposal: &Proposal, me: usize) -> Option<Differences<S>> {
        let telling = self.entry.as_ref()?.telling.as_ref()?;
        let members = &proposal.certificate.members;
        let common = common(members).filter(|_| proposal.certificate.is_coded())?;
        let based = members.iter().map(|member| member.parent == common).collect::<alloc::vec::Vec<_>>();
        let base = self.last.as_ref().filter(|_| based[me]).map(|(_, state)| Arc::clone(state));
        let seed = Seed(proposal.certificate.attempt.sequence).derive("owner", u64::from(members[me].node.0));
        Some(Differences::new(self.memory.code, based, base, Arc::clone(&telling.coded), seed))
    }
}

/// The average that most members grew from, of several the newest: at least two of them, and not the start of the run.
fn common(members: &[Member]) -> Option<CertificateId> {
    let mut counts = BTreeMap::<CertificateId, usize>::new();
    for member in members.iter().filter(|member| member.parent != CertificateId::default()) {
        *counts.entry(member.parent).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(certificate, count)| (count, certificate));
    most.filter(|&(_, count)| count > 1).map(|(certificate, _)| certificate)
}
