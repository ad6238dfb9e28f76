//! What nodes of hierarchical fleets say to each other: models, in pieces.

use crate::policy::PolicyAction;
use crate::policy::words::{Saved, Words};
use crate::transport::NodeId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Bytes of values in a note: with its head less than a note may have.
const MOST_BYTES: usize = 56 << 10;
/// Bytes before the values: kind, base, iteration, count, total, offset.
const HEADER: usize = 29;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A site's model, for another site.
    Snapshot,
    /// The mean of snapshots, for the members of a site.
    Mean,
}

/// A model on its way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parcel {
    pub(super) kind: Kind,
    /// Of a snapshot, the round of the sender's last average; of a mean, its digest.
    pub(super) base: u64,
    /// The iteration at which the exchange began.
    pub(super) begun: u64,
    /// Of a snapshot, how many nodes have it; of a mean, of how many snapshots it is.
    pub(super) count: u32,
    pub(super) values: Vec<f32>,
}

impl Parcel {
    /// Says it in pieces that fit into notes.
    pub(super) fn say(&self, to: NodeId, actions: &mut VecDeque<PolicyAction>) {
        let total = u32::try_from(self.values.len()).expect("models have less than 2^32 values");
        let mut offset = 0;
        loop {
            let end = self.values.len().min(offset + MOST_BYTES / 4);
            let mut bytes = Vec::with_capacity(HEADER + 4 * (end - offset));
            bytes.push(match self.kind {
                Kind::Snapshot => SNAPSHOT,
                Kind::Mean => MEAN,
            });
            bytes.extend_from_slice(&self.base.to_le_bytes());
            bytes.extend_from_slice(&self.begun.to_le_bytes());
            bytes.extend_from_slice(&self.count.to_le_bytes());
            bytes.extend_from_slice(&total.to_le_bytes());
            bytes.extend_from_slice(&(offset as u32).to_le_bytes());
            bytes.extend(self.values[offset..end].iter().flat_map(|value| value.to_le_bytes()));
            actions.push_back(PolicyAction::Tell { to, bytes });
            offset = end;
            if offset == self.values.len() {
                break;
            }
        }
    }

    /// Puts it into words.
    pub(super) fn save(&self, words: &mut Words) {
        let kind = u64::from(self.kind == Kind::Mean);
        words.0.extend([kind, self.base, self.begun, u64::from(self.count)]);
        words.values(&self.values);
    }

    /// What was saved.
    pub(super) fn restore(words: &mut Saved<'_>) -> Option<Self> {
        let kind = if words.flag()? { Kind::Mean } else { Kind::Snapshot };
        let (base, begun) = (words.word()?, words.word()?);
        let count = u32::try_from(words.word()?).ok()?;
        Some(Self { kind, base, begun, count, values: words.values()? })
    }
}

const SNAPSHOT: u8 = 0x21;
const MEAN: u8 = 0x22;

/// Puts the pieces of one sender together; answers the parcel with its last one. Pieces arrive in order or not at all, and
/// what does not fit is dropped with what was there before. No model has more than `most` values.
pub(super) fn assemble(partial: &mut Option<Parcel>, bytes: &[u8], most: usize) -> Option<Parcel> {
    let before = partial.take();
    let (&kind, rest) = bytes.split_first()?;
    let kind = match kind {
        SNAPSHOT => Kind::Snapshot,
        MEAN => Kind::Mean,
        _ => return None,
    };
    let (base, rest) = rest.split_first_chunk().map(|(word, rest)| (u64::from_le_bytes(*word), rest))?;
    let (begun, rest) = rest.split_first_chunk().map(|(word, rest)| (u64::from_le_bytes(*word), rest))?;
    let (count, rest) = rest.split_first_chunk().map(|(word, rest)| (u32::from_le_bytes(*word), rest))?;
    let (total, rest) = rest.split_first_chunk().map(|(word, rest)| (u32::from_le_bytes(*word) as usize, rest))?;
    let (offset, rest) = rest.split_first_chunk().map(|(word, rest)| (u32::from_le_bytes(*word) as usize, rest))?;
    let (values, []) = rest.as_chunks::<4>() else { return None };
    let of_it = |parcel: &Parcel| (parcel.kind, parcel.base, parcel.begun, parcel.count) == (kind, base, begun, count);
    let mut parcel = match before {
        _ if offset == 0 => Parcel { kind, base, begun, count, values: Vec::new() },
        Some(parcel) if of_it(&parcel) => parcel,
        _ => return None,
    };
    if total > most || parcel.values.len() != offset || offset + values.len() > total {
        return None;
    }
    parcel.values.extend(values.iter().map(|value| f32::from_le_bytes(*value)));
    if parcel.values.len() == total {
        return Some(parcel);
    }
    *partial = Some(parcel);
    None
}
