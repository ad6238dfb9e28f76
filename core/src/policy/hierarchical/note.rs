//! What nodes of hierarchical fleets say to each other: models, in pieces.

use crate::collective::Encoding;
use crate::policy::PolicyAction;
use crate::policy::tag::Tag;
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
    /// How the values stand on the wire; they are rounded to it.
    pub(super) encoding: Encoding,
    pub(super) values: Vec<f32>,
}

impl Parcel {
    /// Says it in pieces that fit into notes.
    pub(super) fn say(&self, to: NodeId, actions: &mut VecDeque<PolicyAction>) {
        let total = u32::try_from(self.values.len()).expect("models have less than 2^32 values");
        let mut offset = 0;
        loop {
            let each = self.encoding.bytes::<f32>();
            let end = self.values.len().min(offset + MOST_BYTES / each);
            let mut bytes = Vec::with_capacity(HEADER + each * (end - offset));
            bytes.push(tag(self.kind, self.encoding) as u8);
            bytes.extend_from_slice(&self.base.to_le_bytes());
            bytes.extend_from_slice(&self.begun.to_le_bytes());
            bytes.extend_from_slice(&self.count.to_le_bytes());
            bytes.extend_from_slice(&total.to_le_bytes());
            bytes.extend_from_slice(&(offset as u32).to_le_bytes());
            bytes.resize(HEADER + each * (end - offset), 0);
            self.encoding.write(&self.values[offset..end], &mut bytes[HEADER..]);
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
        let code = Encoding::ALL.iter().position(|encoding| *encoding == self.encoding).expect("one of all");
        words.0.extend([kind, code as u64, self.base, self.begun, u64::from(self.count)]);
        words.values(&self.values);
    }

    /// What was saved.
    pub(super) fn restore(words: &mut Saved<'_>) -> Option<Self> {
        let kind = if words.flag()? { Kind::Mean } else { Kind::Snapshot };
        let encoding = *Encoding::ALL.get(usize::try_from(words.word()?).ok()?)?;
        let (base, begun) = (words.word()?, words.word()?);
        let count = u32::try_from(words.word()?).ok()?;
        Some(Self { kind, base, begun, count, encoding, values: words.values()? })
    }
}

fn tag(kind: Kind, encoding: Encoding) -> Tag {
    match (kind, encoding) {
        (Kind::Snapshot, Encoding::Full) => Tag::SnapshotFull,
        (Kind::Snapshot, Encoding::Bf16) => Tag::SnapshotBf16,
        (Kind::Snapshot, Encoding::F16) => Tag::SnapshotF16,
        (Kind::Mean, Encoding::Full) => Tag::MeanFull,
        (Kind::Mean, Encoding::Bf16) => Tag::MeanBf16,
        (Kind::Mean, Encoding::F16) => Tag::MeanF16,
    }
}

/// What a note with this tag is, and how its values stand there; `None` if it is another policy's.
fn meaning(tag: Tag) -> Option<(Kind, Encoding)> {
    let all = [Kind::Snapshot, Kind::Mean].into_iter().flat_map(|kind| Encoding::ALL.map(|encoding| (kind, encoding)));
    all.into_iter().find(|&(kind, encoding)| self::tag(kind, encoding) == tag)
}

/// Puts the pieces of one sender together; answers the parcel with its last one. Pieces arrive in order or not at all, and
/// what does not fit is dropped with what was there before. No model has more than `most` values.
pub(super) fn assemble(partial: &mut Option<Parcel>, bytes: &[u8], most: usize) -> Option<Parcel> {
    let before = partial.take();
    let (&kind, rest) = bytes.split_first()?;
    let (kind, encoding) = Tag::of(kind).and_then(meaning)?;
    let (base, rest) = rest.split_first_chunk().map(|(word, rest)| (u64::from_le_bytes(*word), rest))?;
    let (begun, rest) = rest.split_first_chunk().map(|(word, rest)| (u64::from_le_bytes(*word), rest))?;
    let (count, rest) = rest.split_first_chunk().map(|(word, rest)| (u32::from_le_bytes(*word), rest))?;
    let (total, rest) = rest.split_first_chunk().map(|(word, rest)| (u32::from_le_bytes(*word) as usize, rest))?;
    let (offset, rest) = rest.split_first_chunk().map(|(word, rest)| (u32::from_le_bytes(*word) as usize, rest))?;
    let each = encoding.bytes::<f32>();
    let here = if rest.len().is_multiple_of(each) { rest.len() / each } else { return None };
    let of_it = |parcel: &Parcel| {
        (parcel.kind, parcel.base, parcel.begun, parcel.count) == (kind, base, begun, count)
            && parcel.encoding == encoding
    };
    let mut parcel = match before {
        _ if offset == 0 => Parcel { kind, base, begun, count, encoding, values: Vec::new() },
        Some(parcel) if of_it(&parcel) => parcel,
        _ => return None,
    };
    if total > most || parcel.values.len() != offset || offset + here > total {
        return None;
    }
    parcel.values.resize(offset + here, 0.0);
    encoding.read(rest, &mut parcel.values[offset..]);
    if parcel.values.len() == total {
        return Some(parcel);
    }
    *partial = Some(parcel);
    None
}
