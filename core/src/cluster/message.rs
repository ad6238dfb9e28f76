//! What nodes say to each other reliably, as bytes.

use crate::cluster::certificate::{
    Algorithm, Attempt, Certificate, CertificateId, Incarnation, Member, Parent, Round, is_coded,
};
use crate::cluster::digest::Digest;
use crate::cluster::record::{AbandonReason, AbortReason};
use crate::cluster::wire::{Reader, WireError};
use crate::collective::differences::Lineage;
use crate::transport::NodeId;
use alloc::string::String;
use alloc::vec::Vec;

/// A member's announcement that it has reached an averaging point.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Ready {
    /// What it will contribute; `weights` has one entry per segment.
    pub(crate) member: Member,
    /// Lengths of the segments.
    pub(crate) lengths: Vec<u32>,
    /// The type of a value.
    pub(crate) wire: String,
    /// The highest attempt it has heard of.
    pub(crate) heard: Attempt,
    /// The highest attempt it has left without a commit.
    pub(crate) released: Attempt,
    /// Certificates its last one is known to descend from, the newest last.
    pub(crate) ancestors: Vec<CertificateId>,
    /// Peers it cannot exchange frames with.
    pub(crate) unreachable: Vec<NodeId>,
    /// What it has accepted and not seen decided, in strict mode; the default if nothing.
    pub(crate) accepted: CertificateId,
    /// What it could tell differences from beside its last average; travels where `wire` names a code.
    pub(crate) lineage: Lineage,
}

/// An attempt as proposed: a certificate that lacks its result, and how to cut the values.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Proposal {
    pub(crate) certificate: Certificate,
    pub(crate) lengths: Vec<u32>,
    /// Values per piece.
    pub(crate) chunk: u32,
    /// That of each member, where differences are told; else none.
    pub(crate) lineages: Vec<Lineage>,
}

/// What a member answers to an inquiry about an attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Committed(Certificate),
    /// It is in doubt itself, or still at work.
    Pending,
    /// It has left the attempt or knows nothing of it.
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message<'a> {
    Ready(Ready),
    Withdraw {
        turn: u64,
    },
    Propose(Proposal),
    Decline {
        attempt: Attempt,
        heard: Attempt,
    },
    Piece {
        attempt: Attempt,
        reduced: bool,
        index: u32,
        values: &'a [u8],
    },
    Progress {
        attempt: Attempt,
        missing: Vec<NodeId>,
    },
    Done {
        attempt: Attempt,
        result: Digest,
    },
    Failed {
        attempt: Attempt,
        who: NodeId,
    },
    Commit {
        certificate: Certificate,
    },
    Abort {
        attempt: Attempt,
        why: AbortReason,
        who: Vec<NodeId>,
    },
    Abandon {
        turn: u64,
        why: AbandonReason,
    },
    Lacking {
        ready: u32,
        missing: Vec<NodeId>,
    },
    Inquire {
        attempt: Attempt,
    },
    Answer {
        attempt: Attempt,
        verdict: Verdict,
    },
    Heal {
        newest: CertificateId,
        donors: Vec<NodeId>,
    },
    /// The default `wanted` asks for the newest.
    HealRequest {
        wanted: CertificateId,
        have: CertificateId,
        from: u32,
    },
    HealOffer {
        certificate: Certificate,
        iteration: u64,
        lengths: Vec<u32>,
        weights: Vec<f64>,
        chunk: u32,
    },
    HealPiece {
        certificate: CertificateId,
        index: u32,
        values: &'a [u8],
    },
    HealRefuse,
    /// In strict mode: to promise to take part in no lower attempt, and say what has been accepted.
    Prepare {
        attempt: Attempt,
    },
    Promise {
        attempt: Attempt,
        decided: CertificateId,
        accepted: Option<(Attempt, Certificate)>,
    },
    /// To make a certificate and its result durable; `holders` have the result.
    Accept {
        attempt: Attempt,
        certificate: Certificate,
        holders: Vec<NodeId>,
    },
    Accepted {
        attempt: Attempt,
    },
    /// This certificate, or one that descends from it, is committed.
    Decided {
        certificate: CertificateId,
    },
    /// What the policies say to each other.
    Note {
        bytes: &'a [u8],
    },
    /// These starts of these nodes have said goodbye.
    Departed {
        starts: Vec<(NodeId, Incarnation)>,
    },
}

const READY: u8 = 1;
const WITHDRAW: u8 = 2;
const PROPOSE: u8 = 3;
const DECLINE: u8 = 4;
const PIECE: u8 = 5;
const PROGRESS: u8 = 6;
const DONE: u8 = 7;
const FAILED: u8 = 8;
const COMMIT: u8 = 9;
const ABORT: u8 = 10;
const ABANDON: u8 = 11;
const INQUIRE: u8 = 12;
const ANSWER: u8 = 13;
const HEAL: u8 = 14;
const HEAL_REQUEST: u8 = 15;
const HEAL_OFFER: u8 = 16;
const HEAL_PIECE: u8 = 17;
const HEAL_REFUSE: u8 = 18;
const LACKING: u8 = 19;
const PREPARE: u8 = 20;
const PROMISE: u8 = 21;
const ACCEPT: u8 = 22;
const ACCEPTED: u8 = 23;
const DECIDED: u8 = 24;
const NOTE: u8 = 25;
const DEPARTED: u8 = 26;

const ABORTS: [AbortReason; 7] = [
    AbortReason::Lost,
    AbortReason::Stuck,
    AbortReason::NotFinite,
    AbortReason::Unequal,
    AbortReason::Declined,
    AbortReason::Superseded,
    AbortReason::InDoubt,
];
const ABANDONS: [AbandonReason; 8] = [
    AbandonReason::Alone,
    AbandonReason::TooFew,
    AbandonReason::Late,
    AbandonReason::NotFinite,
    AbandonReason::Excluded,
    AbandonReason::NoDonor,
    AbandonReason::Zombie,
    AbandonReason::Quarantined,
];

impl<'a> Message<'a> {
    /// Reads a message.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let message = Self::read(&mut reader)?;
        reader.end()?;
        Ok(message)
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(match reader.u8()? {
            READY => {
                let mut ready = Ready {
                    member: member(reader)?,
                    lengths: reader.list(4, Reader::u32)?,
                    wire: name(reader)?,
                    heard: reader.attempt()?,
                    released: reader.attempt()?,
                    ancestors: reader.list(16, Reader::certificate_id)?,
                    unreachable: nodes(reader)?,
                    accepted: reader.certificate_id()?,
                    lineage: Lineage::default(),
                };
                if is_coded(&ready.wire) {
                    ready.lineage = lineage(reader)?;
                }
                Self::Ready(ready)
            }
            WITHDRAW => Self::Withdraw { turn: reader.u64()? },
            PROPOSE => {
                let certificate = certificate(reader)?;
                let (lengths, chunk) = (reader.list(4, Reader::u32)?, reader.u32()?);
                let members = if certificate.is_coded() { certificate.members.len() } else { 0 };
                let lineages = (0..members).map(|_| lineage(reader)).collect::<Result<_, _>>()?;
                Self::Propose(Proposal { certificate, lengths, chunk, lineages })
            }
            DECLINE => Self::Decline { attempt: reader.attempt()?, heard: reader.attempt()? },
            PIECE => Self::Piece {
                attempt: reader.attempt()?,
                reduced: flag(reader)?,
                index: reader.u32()?,
                values: reader.rest(),
            },
            PROGRESS => Self::Progress { attempt: reader.attempt()?, missing: nodes(reader)? },
            DONE => Self::Done { attempt: reader.attempt()?, result: reader.digest()? },
            FAILED => Self::Failed { attempt: reader.attempt()?, who: NodeId(reader.u32()?) },
            COMMIT => Self::Commit { certificate: certificate(reader)? },
            ABORT => Self::Abort {
                attempt: reader.attempt()?,
                why: choice(reader, &ABORTS, "abort reason")?,
                who: nodes(reader)?,
            },
            ABANDON => Self::Abandon { turn: reader.u64()?, why: choice(reader, &ABANDONS, "abandon reason")? },
            INQUIRE => Self::Inquire { attempt: reader.attempt()? },
            ANSWER => Self::Answer {
                attempt: reader.attempt()?,
                verdict: match reader.u8()? {
                    0 => Verdict::Committed(certificate(reader)?),
                    1 => Verdict::Pending,
                    2 => Verdict::Unknown,
                    _ => return Err(WireError::Field("verdict")),
                },
            },
            HEAL => Self::Heal { newest: reader.certificate_id()?, donors: nodes(reader)? },
            HEAL_REQUEST => Self::HealRequest {
                wanted: reader.certificate_id()?,
                have: reader.certificate_id()?,
                from: reader.u32()?,
            },
            PREPARE => Self::Prepare { attempt: reader.attempt()? },
            PROMISE => Self::Promise {
                attempt: reader.attempt()?,
                decided: reader.certificate_id()?,
                accepted: if flag(reader)? { Some((reader.attempt()?, certificate(reader)?)) } else { None },
            },
            ACCEPT => {
                Self::Accept { attempt: reader.attempt()?, certificate: certificate(reader)?, holders: nodes(reader)? }
            }
            ACCEPTED => Self::Accepted { attempt: reader.attempt()? },
            DECIDED => Self::Decided { certificate: reader.certificate_id()? },
            NOTE => Self::Note { bytes: reader.rest() },
            DEPARTED => {
                Self::Departed { starts: reader.list(12, |reader| Ok((NodeId(reader.u32()?), reader.incarnation()?)))? }
            }
            HEAL_OFFER => Self::HealOffer {
                certificate: certificate(reader)?,
                iteration: reader.u64()?,
                lengths: reader.list(4, Reader::u32)?,
                weights: reader.list(8, Reader::f64)?,
                chunk: reader.u32()?,
            },
            HEAL_PIECE => {
                Self::HealPiece { certificate: reader.certificate_id()?, index: reader.u32()?, values: reader.rest() }
            }
            HEAL_REFUSE => Self::HealRefuse,
            LACKING => Self::Lacking { ready: reader.u32()?, missing: nodes(reader)? },
            _ => return Err(WireError::Field("message")),
        })
    }

    /// The message as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ready(ready) => {
                out.push(READY);
                ready.member.encode(out);
                put_list(out, &ready.lengths, |out, len| put(out, &len.to_le_bytes()));
                put_name(out, &ready.wire);
                put_attempt(out, &ready.heard);
                put_attempt(out, &ready.released);
                put_list(out, &ready.ancestors, put_id);
                put_list(out, &ready.unreachable, put_node);
                put_id(out, &ready.accepted);
                if is_coded(&ready.wire) {
                    put_lineage(out, &ready.lineage);
                }
            }
            Self::Withdraw { turn } => {
                out.push(WITHDRAW);
                put(out, &turn.to_le_bytes());
            }
            Self::Propose(proposal) => {
                out.push(PROPOSE);
                proposal.certificate.encode(out);
                put_list(out, &proposal.lengths, |out, len| put(out, &len.to_le_bytes()));
                put(out, &proposal.chunk.to_le_bytes());
                proposal.lineages.iter().for_each(|lineage| put_lineage(out, lineage));
            }
            Self::Decline { attempt, heard } => {
                out.push(DECLINE);
                put_attempt(out, attempt);
                put_attempt(out, heard);
            }
            Self::Piece { attempt, reduced, index, values } => {
                out.push(PIECE);
                put_attempt(out, attempt);
                out.push(u8::from(*reduced));
                put(out, &index.to_le_bytes());
                put(out, values);
            }
            Self::Progress { attempt, missing } => {
                out.push(PROGRESS);
                put_attempt(out, attempt);
                put_list(out, missing, put_node);
            }
            Self::Done { attempt, result } => {
                out.push(DONE);
                put_attempt(out, attempt);
                put(out, &result.0.to_le_bytes());
            }
            Self::Failed { attempt, who } => {
                out.push(FAILED);
                put_attempt(out, attempt);
                put_node(out, who);
            }
            Self::Commit { certificate } => {
                out.push(COMMIT);
                certificate.encode(out);
            }
            Self::Abort { attempt, why, who } => {
                out.push(ABORT);
                put_attempt(out, attempt);
                put_choice(out, &ABORTS, why);
                put_list(out, who, put_node);
            }
            Self::Abandon { turn, why } => {
                out.push(ABANDON);
                put(out, &turn.to_le_bytes());
                put_choice(out, &ABANDONS, why);
            }
            Self::Inquire { attempt } => {
                out.push(INQUIRE);
                put_attempt(out, attempt);
            }
            Self::Answer { attempt, verdict } => {
                out.push(ANSWER);
                put_attempt(out, attempt);
                match verdict {
                    Verdict::Committed(certificate) => {
                        out.push(0);
                        certificate.encode(out);
                    }
                    Verdict::Pending => out.push(1),
                    Verdict::Unknown => out.push(2),
                }
            }
            Self::Heal { newest, donors } => {
                out.push(HEAL);
                put_id(out, newest);
                put_list(out, donors, put_node);
            }
            Self::Prepare { attempt } => {
                out.push(PREPARE);
                put_attempt(out, attempt);
            }
            Self::Promise { attempt, decided, accepted } => {
                out.push(PROMISE);
                put_attempt(out, attempt);
                put_id(out, decided);
                out.push(u8::from(accepted.is_some()));
                if let Some((attempt, certificate)) = accepted {
                    put_attempt(out, attempt);
                    certificate.encode(out);
                }
            }
            Self::Accept { attempt, certificate, holders } => {
                out.push(ACCEPT);
                put_attempt(out, attempt);
                certificate.encode(out);
                put_list(out, holders, put_node);
            }
            Self::Accepted { attempt } => {
                out.push(ACCEPTED);
                put_attempt(out, attempt);
            }
            Self::Decided { certificate } => {
                out.push(DECIDED);
                put_id(out, certificate);
            }
            Self::HealRequest { wanted, have, from } => {
                out.push(HEAL_REQUEST);
                put_id(out, wanted);
                put_id(out, have);
                put(out, &from.to_le_bytes());
            }
            Self::HealOffer { certificate, iteration, lengths, weights, chunk } => {
                out.push(HEAL_OFFER);
                certificate.encode(out);
                put(out, &iteration.to_le_bytes());
                put_list(out, lengths, |out, len| put(out, &len.to_le_bytes()));
                put_list(out, weights, |out, weight| put(out, &weight.to_le_bytes()));
                put(out, &chunk.to_le_bytes());
            }
            Self::HealPiece { certificate, index, values } => {
                out.push(HEAL_PIECE);
                put_id(out, certificate);
                put(out, &index.to_le_bytes());
                put(out, values);
            }
            Self::HealRefuse => out.push(HEAL_REFUSE),
            Self::Note { bytes } => {
                out.push(NOTE);
                put(out, bytes);
            }
            Self::Departed { starts } => {
                out.push(DEPARTED);
                put_list(out, starts, |out, (node, start)| {
                    put_node(out, node);
                    put(out, &start.0.to_le_bytes());
                });
            }
            Self::Lacking { ready, missing } => {
                out.push(LACKING);
                put(out, &ready.to_le_bytes());
                put_list(out, missing, put_node);
            }
        }
    }
}

impl Member {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_node(out, &self.node);
        put(out, &self.incarnation.0.to_le_bytes());
        put(out, &self.turn.to_le_bytes());
        put(out, &self.iteration.to_le_bytes());
        put(out, &self.samples.0.to_le_bytes());
        put(out, &self.samples.1.to_le_bytes());
        put(out, &self.contribution.0.to_le_bytes());
        put_id(out, &self.parent);
        put_list(out, &self.weights, |out, weight| put(out, &weight.to_le_bytes()));
    }
}

impl Certificate {
    /// Appends the certificate as it stands on the wire.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_attempt(out, &self.attempt);
        put(out, &self.round.0.to_le_bytes());
        put_list(out, &self.members, |out, member| member.encode(out));
        out.push(self.algorithm.code());
        put_name(out, &self.wire);
        put(out, &self.result.0.to_le_bytes());
        put_list(out, &self.parents, |out, parent| {
            put_id(out, &parent.certificate);
            out.push(u8::from(parent.stale));
        });
    }
}

fn member(reader: &mut Reader<'_>) -> Result<Member, WireError> {
    Ok(Member {
        node: NodeId(reader.u32()?),
        incarnation: reader.incarnation()?,
        turn: reader.u64()?,
        iteration: reader.u64()?,
        samples: (reader.u64()?, reader.u64()?),
        contribution: reader.digest()?,
        parent: reader.certificate_id()?,
        weights: reader.list(8, |reader| {
            let weight = reader.f64()?;
            // A negative or infinite weight would make the average something other than a mean.
            if weight.is_finite() && weight >= 0.0 { Ok(weight) } else { Err(WireError::Field("weight")) }
        })?,
    })
}

fn lineage(reader: &mut Reader<'_>) -> Result<Lineage, WireError> {
    Ok(Lineage { rounds: reader.u64()?, digest: reader.digest()? })
}

fn put_lineage(out: &mut Vec<u8>, lineage: &Lineage) {
    put(out, &lineage.rounds.to_le_bytes());
    put(out, &lineage.digest.0.to_le_bytes());
}

pub(crate) fn certificate(reader: &mut Reader<'_>) -> Result<Certificate, WireError> {
    let certificate = Certificate {
        attempt: reader.attempt()?,
        round: Round(reader.u64()?),
        members: reader.list(72, member)?,
        algorithm: Algorithm::from_code(reader.u8()?).ok_or(WireError::Field("algorithm"))?,
        wire: name(reader)?,
        result: reader.digest()?,
        parents: reader
            .list(17, |reader| Ok(Parent { certificate: reader.certificate_id()?, stale: flag(reader)? }))?,
    };
    if !certificate.members.is_sorted_by(|a, b| a.node < b.node) {
        return Err(WireError::Field("member order"));
    }
    Ok(certificate)
}

pub(crate) fn name(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let len = usize::from(reader.u8()?);
    let text = core::str::from_utf8(reader.take(len)?).map_err(|_| WireError::Field("name"))?;
    Ok(String::from(text))
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Field("flag")),
    }
}

fn nodes(reader: &mut Reader<'_>) -> Result<Vec<NodeId>, WireError> {
    reader.list(4, |reader| reader.u32().map(NodeId))
}

fn choice<T: Copy>(reader: &mut Reader<'_>, choices: &[T], field: &'static str) -> Result<T, WireError> {
    choices.get(usize::from(reader.u8()?)).copied().ok_or(WireError::Field(field))
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    put(out, &(items.len() as u32).to_le_bytes());
    for each in items {
        item(out, each);
    }
}

pub(crate) fn put_name(out: &mut Vec<u8>, name: &str) {
    let len = name.len().min(255);
    out.push(len as u8);
    put(out, &name.as_bytes()[..len]);
}

pub(crate) fn put_attempt(out: &mut Vec<u8>, attempt: &Attempt) {
    put(out, &attempt.sequence.to_le_bytes());
    put_node(out, &attempt.proposer);
    put(out, &attempt.incarnation.0.to_le_bytes());
}

pub(crate) fn put_id(out: &mut Vec<u8>, id: &CertificateId) {
    put(out, &id.round.0.to_le_bytes());
    put(out, &id.digest.0.to_le_bytes());
}

fn put_node(out: &mut Vec<u8>, node: &NodeId) {
    put(out, &node.0.to_le_bytes());
}

fn put_choice<T: PartialEq>(out: &mut Vec<u8>, choices: &[T], choice: &T) {
    let code = choices.iter().position(|other| other == choice);
    out.push(code.expect("every reason is in its table") as u8);
}
