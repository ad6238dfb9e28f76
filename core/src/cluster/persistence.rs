//! What a node remembers across crashes: its last start, its promises, and what it has accepted.

use crate::cluster::certificate::{Attempt, Certificate, CertificateId, Incarnation};
use crate::cluster::contribution::Contribution;
use crate::cluster::digest::Digest;
use crate::cluster::message;
use crate::cluster::round::is_of_type;
use crate::cluster::wire::{Reader, WireError};
use crate::mutant::mutant;
use crate::scalar::Scalar;
use crate::storage::{Slot, Storage, StorageError};
use crate::time::Duration;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

const VOTE: [u8; 4] = *b"KFV1";
const COPY: [u8; 4] = *b"KFC1";

/// A certificate that a node has accepted, and the result it certifies.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Accepted<S> {
    /// In which attempt it was accepted: that of the certificate, or a later one that finishes it.
    pub(crate) attempt: Attempt,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) state: Arc<Contribution<S>>,
}

/// What a node remembers across crashes.
#[derive(Clone, Debug, PartialEq)]
pub struct Persisted<S> {
    pub(crate) incarnation: Incarnation,
    pub(crate) promised: Attempt,
    /// The newest certificate it knew to be committed.
    pub(crate) decided: CertificateId,
    /// The newest first.
    pub(crate) accepted: Vec<Accepted<S>>,
}

impl<S> Default for Persisted<S> {
    /// What a node remembers that was never started before.
    fn default() -> Self {
        Self {
            incarnation: Incarnation(0),
            promised: Attempt::default(),
            decided: CertificateId::default(),
            accepted: Vec::new(),
        }
    }
}

impl<S: Scalar> Persisted<S> {
    /// Reads back what a node wrote.
    ///
    /// # Errors
    /// If a slot cannot be read or is damaged. The node must not be started with less than it wrote: it could break
    /// a promise. Restore the slot, or replace the node by one with a new id.
    pub fn read(storage: &mut dyn Storage) -> Result<Self, StorageError> {
        let mut persisted = Self::default();
        for slot in Slot::ALL {
            let Some(bytes) = storage.read(slot)? else { continue };
            let damaged = |why: WireError| StorageError {
                slot,
                reason: alloc::format!(
                    "{} bytes that are not what a node wrote ({why}); restore them, or give the node a new id",
                    bytes.len()
                ),
            };
            if slot == Slot::Vote {
                let (incarnation, promised, decided) = read_vote(&bytes).map_err(damaged)?;
                persisted = Self { incarnation, promised, decided, ..persisted };
            } else {
                persisted.accepted.push(read_copy(&bytes).map_err(damaged)?);
            }
        }
        if persisted.incarnation == Incarnation(0) && !persisted.accepted.is_empty() {
            let reason = "it is missing, but the node has accepted certificates; restore it".into();
            return Err(StorageError { slot: Slot::Vote, reason });
        }
        persisted.accepted.sort_by_key(|copy| core::cmp::Reverse((copy.certificate.round, copy.attempt)));
        // An acceptance promises as much as the attempt it answers.
        let newest = persisted.accepted.iter().map(|copy| copy.attempt).max();
        persisted.promised = persisted.promised.max(newest.unwrap_or_default());
        Ok(persisted)
    }

    /// Which start of the node comes next, at `since_epoch` since any moment that is the same at every start.
    ///
    /// The larger of one more than the last start it remembers and the microseconds: a clock that jumps back
    /// cannot shrink it, and a node that has lost its memory still comes later, as far as clocks are right.
    pub fn next_incarnation(&self, since_epoch: Duration) -> Incarnation {
        self.incarnation.next(since_epoch)
    }
}

/// The bytes of [`Slot::Vote`].
pub(crate) fn write_vote(incarnation: Incarnation, promised: &Attempt, decided: &CertificateId) -> Vec<u8> {
    let mut out = VOTE.to_vec();
    out.extend_from_slice(&incarnation.0.to_le_bytes());
    message::put_attempt(&mut out, promised);
    message::put_id(&mut out, decided);
    sealed(out)
}

/// The bytes of [`Slot::Even`] or [`Slot::Odd`].
pub(crate) fn write_copy<S: Scalar>(accepted: &Accepted<S>) -> (Slot, Vec<u8>) {
    let Accepted { attempt, certificate, state } = accepted;
    let mut out = COPY.to_vec();
    message::put_attempt(&mut out, attempt);
    certificate.encode(&mut out);
    out.extend_from_slice(&state.iteration.to_le_bytes());
    out.extend_from_slice(&(state.segments().len() as u32).to_le_bytes());
    for segment in state.segments() {
        message::put_name(&mut out, &segment.name);
        out.extend_from_slice(&segment.weight.to_le_bytes());
        out.extend_from_slice(&(segment.values.len() as u32).to_le_bytes());
        let start = out.len();
        out.resize(start + segment.values.len() * S::BYTES, 0);
        for (value, bytes) in segment.values.iter().zip(out[start..].chunks_exact_mut(S::BYTES)) {
            value.write_le(bytes);
        }
    }
    let slot = if certificate.round.0.is_multiple_of(2) { Slot::Even } else { Slot::Odd };
    (slot, sealed(out))
}

fn read_vote(bytes: &[u8]) -> Result<(Incarnation, Attempt, CertificateId), WireError> {
    let mut reader = opened(bytes, VOTE)?;
    let vote = (reader.incarnation()?, reader.attempt()?, reader.certificate_id()?);
    reader.end()?;
    Ok(vote)
}

fn read_copy<S: Scalar>(bytes: &[u8]) -> Result<Accepted<S>, WireError> {
    let mut reader = opened(bytes, COPY)?;
    let attempt = reader.attempt()?;
    let certificate = message::certificate(&mut reader)?;
    if !is_of_type::<S>(&certificate.wire) {
        return Err(WireError::Field("type of values"));
    }
    let mut state = Contribution::default();
    state.iteration = reader.u64()?;
    for _ in 0..reader.u32()? {
        let name: String = message::name(&mut reader)?;
        let weight = reader.f64()?;
        if !(weight >= 0.0 && weight.is_finite()) {
            return Err(WireError::Field("weight"));
        }
        let len = reader.u32()? as usize;
        let values = reader.take(len.saturating_mul(S::BYTES))?;
        let target = state.segment(&name, len, weight);
        for (value, bytes) in target.iter_mut().zip(values.chunks_exact(S::BYTES)) {
            *value = S::read_le(bytes);
        }
    }
    reader.end()?;
    if state.digest() != certificate.result {
        return Err(WireError::Field("digest of the result"));
    }
    Ok(Accepted { attempt, certificate: Arc::new(certificate), state: Arc::new(state) })
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(&digest.0.to_le_bytes());
    bytes
}

fn opened(bytes: &[u8], magic: [u8; 4]) -> Result<Reader<'_>, WireError> {
    let (content, seal) = bytes.split_last_chunk::<8>().ok_or(WireError::Truncated)?;
    if Digest::of(content) != Digest(u64::from_le_bytes(*seal)) && !mutant!(DecayUnseen) {
        return Err(WireError::Checksum);
    }
    let mut reader = Reader::new(content);
    if reader.array::<4>()? != magic {
        return Err(WireError::Magic);
    }
    Ok(reader)
}
