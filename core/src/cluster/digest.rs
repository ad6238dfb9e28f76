//! A 64-bit digest: XXH64 (Collet 2012), seed 0.
//!
//! It guards frames against damage and says whether two nodes hold the same bits. It is no defence against
//! a forger. XXH64 runs at memory speed without hardware instructions, which a CRC in portable code does not.

use crate::scalar::Scalar;
use core::fmt;

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// The digest of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Digest(pub u64);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::new();
        digester.update(bytes);
        digester.finish()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Computes a [`Digest`] over bytes that come in parts.
#[derive(Clone, Debug)]
pub struct Digester {
    lanes: [u64; 4],
    rest: [u8; 32],
    held: usize,
    length: u64,
}

impl Default for Digester {
    fn default() -> Self {
        Self::new()
    }
}

impl Digester {
    /// The digest of nothing so far.
    pub fn new() -> Self {
        Self { lanes: [P1.wrapping_add(P2), P2, 0, 0_u64.wrapping_sub(P1)], rest: [0; 32], held: 0, length: 0 }
    }

    /// Takes in further bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.held > 0 {
            let taken = bytes.len().min(32 - self.held);
            self.rest[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
            self.held += taken;
            bytes = &bytes[taken..];
            if self.held < 32 {
                return;
            }
            let stripe = self.rest;
            self.stripe(&stripe);
            self.held = 0;
        }
        let (stripes, rest) = bytes.as_chunks::<32>();
        for stripe in stripes {
            self.stripe(stripe);
        }
        self.rest[..rest.len()].copy_from_slice(rest);
        self.held = rest.len();
    }

    /// Takes in the little-endian representation of `values`.
    pub fn update_values<S: Scalar>(&mut self, values: &[S]) {
        let mut buffer = [0; 1024];
        for block in values.chunks(buffer.len() / S::BYTES) {
            for (value, bytes) in block.iter().zip(buffer.chunks_exact_mut(S::BYTES)) {
                value.write_le(bytes);
            }
            self.update(&buffer[..block.len() * S::BYTES]);
        }
    }

    /// The digest of everything taken in.
    pub fn finish(&self) -> Digest {
        let mut hash = if self.length >= 32 {
            let [a, b, c, d] = self.lanes;
            let mut hash = a
                .rotate_left(1)
                .wrapping_add(b.rotate_left(7))
                .wrapping_add(c.rotate_left(12))
                .wrapping_add(d.rotate_left(18));
            for lane in self.lanes {
                hash = (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
            }
            hash
        } else {
            P5
        };
        hash = hash.wrapping_add(self.length);
        let (words, rest) = self.rest[..self.held].as_chunks::<8>();
        for word in words {
            hash ^= round(0, u64::from_le_bytes(*word));
            hash = hash.rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        }
        let (halves, rest) = rest.as_chunks::<4>();
        for half in halves {
            hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(P1);
            hash = hash.rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        }
        for &byte in rest {
            hash ^= u64::from(byte).wrapping_mul(P5);
            hash = hash.rotate_left(11).wrapping_mul(P1);
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
        hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
        Digest(hash ^ (hash >> 32))
    }

    #[inline(always)]
    fn stripe(&mut self, stripe: &[u8; 32]) {
        let (words, _) = stripe.as_chunks::<8>();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
    }
}

#[inline(always)]
fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors() {
        assert_eq!(Digest::of(b"").0, 0xef46_db37_51d8_e999);
        assert_eq!(Digest::of(b"a").0, 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(Digest::of(b"abc").0, 0x44bc_2cf5_ad77_0999);
        assert_eq!(Digest::of(b"Nobody inspects the spammish repetition").0, 0xfbce_a83c_8a37_8bf1);
    }

    #[test]
    fn parts_give_the_digest_of_the_whole() {
        let bytes: alloc::vec::Vec<u8> = (0..200).map(|i| (i * 37) as u8).collect();
        for cut in 0..bytes.len() {
            let mut digester = Digester::new();
            digester.update(&bytes[..cut]);
            digester.update(&bytes[cut..]);
            assert_eq!(digester.finish(), Digest::of(&bytes), "cut at {cut}");
        }
    }

    #[test]
    fn values_are_their_bytes() {
        let values: alloc::vec::Vec<f32> = (0..700).map(|i| i as f32 * 0.7).collect();
        let bytes: alloc::vec::Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut digester = Digester::new();
        digester.update_values(&values);
        assert_eq!(digester.finish(), Digest::of(&bytes));
    }
}
