//! What dynamic policies say to each other.

use super::gauge::State;
use super::ways::{Way, is_way};
use crate::cluster::{CertificateId, Digest, Round};
use crate::policy::tag::Tag;
use alloc::vec::Vec;

/// A note, little-endian throughout.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Note {
    /// A state, and since which averages: that of the drift, and the one before it that the axis begins at. Among nodes with
    /// several averages, too, how far that is from earlier ones.
    State { base: CertificateId, before: Option<CertificateId>, ways: Vec<Way>, check: u64, state: State },
    /// It contributes: its average is too old, by `H` where the check has found it.
    Call { base: CertificateId, check: u64, found: Option<f64> },
}

fn put_id(bytes: &mut Vec<u8>, id: &CertificateId) {
    bytes.extend_from_slice(&id.round.0.to_le_bytes());
    bytes.extend_from_slice(&id.digest.0.to_le_bytes());
}

/// Takes 8 bytes off the front.
fn word(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*first))
}

fn id(bytes: &mut &[u8]) -> Option<CertificateId> {
    Some(CertificateId { round: Round(word(bytes)?), digest: Digest(word(bytes)?) })
}

impl Note {
    /// A tag, the average, and the check's number since then; a state's own number is said in double precision, those of a
    /// sketch in single.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::State { base, before, ways, check, state } => {
                bytes.push(Tag::DriftState as u8);
                put_id(&mut bytes, base);
                bytes.extend_from_slice(&check.to_le_bytes());
                bytes.push(u8::from(before.is_some()));
                if let Some(before) = before {
                    put_id(&mut bytes, before);
                }
                bytes.push(ways.len() as u8);
                for (id, way) in ways {
                    put_id(&mut bytes, id);
                    bytes.extend_from_slice(&way.to_le_bytes());
                }
                bytes.extend_from_slice(&state.norm.to_le_bytes());
                if let [along] = state.more[..] {
                    bytes.extend_from_slice(&along.to_le_bytes());
                } else {
                    state.more.iter().for_each(|&value| bytes.extend_from_slice(&(value as f32).to_le_bytes()));
                }
            }
            Self::Call { base, check, found } => {
                bytes.push(Tag::DriftCall as u8);
                put_id(&mut bytes, base);
                bytes.extend_from_slice(&check.to_le_bytes());
                if let Some(found) = found {
                    bytes.extend_from_slice(&found.to_le_bytes());
                }
            }
        }
        bytes
    }

    /// Reads a note whose state has `more` numbers beside the norm, all of them finite; `None` if it is none.
    pub(super) fn decode(bytes: &[u8], more: usize) -> Option<Self> {
        let (tag, mut rest) = bytes.split_first()?;
        let note = match Tag::of(*tag)? {
            Tag::DriftState => {
                let (base, check) = (id(&mut rest)?, word(&mut rest)?);
                let (before, after) = rest.split_first()?;
                rest = after;
                let before = match before {
                    0 => None,
                    1 => Some(id(&mut rest)?),
                    _ => return None,
                };
                let (count, after) = rest.split_first()?;
                rest = after;
                let way = |rest: &mut &[u8]| Some((id(rest)?, f64::from_bits(word(rest)?)));
                let ways: Vec<Way> = (0..*count).map(|_| way(&mut rest)).collect::<Option<_>>()?;
                if !ways.iter().all(|(_, way)| is_way(*way)) {
                    return None;
                }
                let norm = f64::from_bits(word(&mut rest)?);
                let more = if more == 1 {
                    alloc::vec![f64::from_bits(word(&mut rest)?)]
                } else {
                    let (values, after) = rest.split_at_checked(4 * more)?;
                    rest = after;
                    let value = |four: &[u8]| f64::from(f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
                    values.chunks_exact(4).map(value).collect()
                };
                let state = State { norm, more };
                if !state.is_finite() || state.norm < 0.0 {
                    return None;
                }
                Self::State { base, before, ways, check, state }
            }
            Tag::DriftCall => {
                let (base, check) = (id(&mut rest)?, word(&mut rest)?);
                let found = if rest.is_empty() { None } else { Some(f64::from_bits(word(&mut rest)?)) };
                if found.is_some_and(|found| !found.is_finite()) {
                    return None;
                }
                Self::Call { base, check, found }
            }
            _ => return None,
        };
        rest.is_empty().then_some(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn notes() -> impl Strategy<Value = Note> {
        let id =
            || (any::<u64>(), any::<u64>()).prop_map(|(a, b)| CertificateId { round: Round(a), digest: Digest(b) });
        let more = prop_oneof![
            Just(vec![]),
            Just(vec![1e-300]),
            proptest::collection::vec((-9_i8..9).prop_map(f64::from), 2..20)
        ];
        let ways = proptest::collection::vec((id(), 0.0..1e300), 0..4);
        let state = (id(), proptest::option::of(id()), ways, any::<u64>(), 0.0..1e300, more).prop_map(
            |(base, before, ways, check, norm, more)| Note::State {
                base,
                before,
                ways,
                check,
                state: State { norm, more },
            },
        );
        let call = (id(), any::<u64>(), proptest::option::of(0.0..1e300)).prop_map(|(base, check, found)| Note::Call {
            base,
            check,
            found,
        });
        prop_oneof![4 => state, 1 => call]
    }

    proptest! {
        #[test]
        fn notes_come_back_whole_or_not_at_all(note in notes(), extra in any::<u8>()) {
            let more = if let Note::State { state, .. } = &note { state.more.len() } else { 3 };
            let mut bytes = note.encode();
            for len in 0..bytes.len() {
                let read = Note::decode(&bytes[..len], more);
                // A call is whole without what was found.
                let call = matches!((&read, &note), (Some(Note::Call { found: None, .. }), Note::Call { .. })) && len == 25;
                prop_assert!(read.is_none() || call);
            }
            prop_assert_eq!(Note::decode(&bytes, more), Some(note));
            bytes.push(extra);
            prop_assert_eq!(Note::decode(&bytes, more), None);
        }

        #[test]
        fn arbitrary_bytes_are_finite_states_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..60), more in 0_usize..4) {
            if let Some(Note::State { state, .. }) = Note::decode(&bytes, more) {
                prop_assert!(state.is_finite() && state.more.len() == more);
            }
        }
    }
}
