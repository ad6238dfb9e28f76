//! What can happen to the bytes of a frame.

use crate::schedule::Damage;
use kronfleet_core::cluster::RunId;
use kronfleet_core::cluster::wire::{self, Body, Frame};
use kronfleet_core::seed::Random;

/// The first byte of a message that carries values of a reduction.
const PIECE: u8 = 5;
/// Where in it stands whether they are averaged.
const REDUCED: usize = 21;
/// Bytes of such a message before the values: its kind, the attempt, the flag and the piece's number.
const PIECE_HEAD: usize = 26;

/// The first byte of a message that carries part of a donor's state.
const HEAL_PIECE: u8 = 17;
/// Bytes of such a message before the values: its kind, the certificate and the piece's number.
const HEAL_HEAD: usize = 21;

/// Damages `bytes` in this way.
pub(super) fn damage(bytes: &mut Vec<u8>, how: Damage, random: &mut Random) {
    let len = bytes.len() as u64;
    match how {
        Damage::Truncate => bytes.truncate(random.below(len.max(1)) as usize),
        Damage::Extend => {
            let more = 1 + random.below(64);
            bytes.extend((0..more).map(|_| random.bits() as u8));
        }
        Damage::Flip => {
            if len > 0 {
                bytes[random.below(len) as usize] ^= 1 << random.below(8);
            }
        }
        Damage::Garbage => bytes.iter_mut().for_each(|byte| *byte = random.bits() as u8),
        Damage::Version => {
            if let Some(version) = bytes.get_mut(8) {
                *version = version.wrapping_add(1 + random.below(255) as u8);
            }
        }
        Damage::Stranger => {
            let Ok(mut frame) = wire::decode(bytes) else { return };
            frame.header.run = RunId(random.bits());
            *bytes = written(&frame);
        }
        Damage::Rot => rot(bytes, random, HEAL_HEAD, |data| data[0] == HEAL_PIECE),
        Damage::Spoil => {
            rot(bytes, random, PIECE_HEAD, |data| data[0] == PIECE && data.get(REDUCED) == Some(&1));
        }
    }
}

/// Changes a bit of a value after the first `head` bytes of a message, if it is one that `suits`.
///
/// The bit is one of the lower half of a value of four bytes: it stays finite.
fn rot(bytes: &mut Vec<u8>, random: &mut Random, head: usize, suits: impl Fn(&[u8]) -> bool) {
    let Ok(mut frame) = wire::decode(bytes) else { return };
    let Body::Segment { offset: 0, data, .. } = &mut frame.body else { return };
    if !suits(data) || data.len() < head + 4 {
        return;
    }
    let mut rotten = data.to_vec();
    let at = head + 4 * random.below(((rotten.len() - head) / 4) as u64) as usize;
    rotten[at + random.below(2) as usize] ^= 1 << random.below(8);
    *data = &rotten;
    *bytes = written(&frame);
}

fn written(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = vec![0; wire::length(&frame.body)];
    wire::encode(frame, &mut bytes);
    bytes
}
