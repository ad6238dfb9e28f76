//! What can happen to the bytes of a frame.

use crate::schedule::Damage;
use kronfleet_core::cluster::RunId;
use kronfleet_core::cluster::wire;
use kronfleet_core::seed::Random;

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
            let mut stranger = vec![0; wire::length(&frame.body)];
            wire::encode(&frame, &mut stranger);
            *bytes = stranger;
        }
    }
}
