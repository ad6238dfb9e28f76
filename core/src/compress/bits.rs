//! Bits in bytes, the lowest first.

use super::CompressError;
use alloc::vec::Vec;

/// Appends bits to bytes.
pub(super) struct BitWriter<'a> {
    target: &'a mut Vec<u8>,
    pending: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(target: &'a mut Vec<u8>) -> Self {
        Self { target, pending: 0, count: 0 }
    }

    /// Appends the lowest `count` bits of `bits`, at most 32; the others must be 0.
    #[inline]
    pub(super) fn push(&mut self, bits: u32, count: u32) {
        debug_assert!(count <= 32 && u64::from(bits) >> count == 0);
        self.pending |= u64::from(bits) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.target.extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.count -= 32;
        }
    }

    /// Appends so many zeros and a one.
    #[inline]
    pub(super) fn push_unary(&mut self, mut zeros: u32) {
        while zeros >= 31 {
            self.push(0, 31);
            zeros -= 31;
        }
        self.push(1 << zeros, zeros + 1);
    }

    /// Fills the last byte with zeros.
    pub(super) fn end(self) {
        let bytes = self.pending.to_le_bytes();
        self.target.extend_from_slice(&bytes[..self.count.div_ceil(8) as usize]);
    }
}

/// Takes bits from bytes.
pub(super) struct BitReader<'a> {
    rest: &'a [u8],
    pending: u64,
    count: u32,
}

const TRUNCATED: CompressError = CompressError::Field("last code, which is cut off,");

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, pending: 0, count: 0 }
    }

    #[inline]
    fn refill(&mut self) {
        if self.count <= 32
            && let Some((four, rest)) = self.rest.split_first_chunk()
        {
            self.pending |= u64::from(u32::from_le_bytes(*four)) << self.count;
            self.count += 32;
            self.rest = rest;
        } else {
            while self.count <= 56
                && let Some((&byte, rest)) = self.rest.split_first()
            {
                self.pending |= u64::from(byte) << self.count;
                self.count += 8;
                self.rest = rest;
            }
        }
    }

    /// The next `count` bits, at most 32.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> Result<u32, CompressError> {
        if self.count < count {
            self.refill();
            if self.count < count {
                return Err(TRUNCATED);
            }
        }
        let bits = self.pending & ((1 << count) - 1);
        self.pending >>= count;
        self.count -= count;
        Ok(bits as u32)
    }

    /// How many zeros there are before the next one, which is taken too.
    #[inline]
    pub(super) fn take_unary(&mut self) -> Result<u32, CompressError> {
        let mut zeros = 0_u32;
        loop {
            if self.pending != 0 {
                let found = self.pending.trailing_zeros();
                self.pending = (self.pending >> found) >> 1;
                self.count -= found + 1;
                return zeros.checked_add(found).ok_or(TRUNCATED);
            }
            zeros = zeros.checked_add(self.count).ok_or(TRUNCATED)?;
            self.count = 0;
            self.refill();
            if self.count == 0 {
                return Err(TRUNCATED);
            }
        }
    }

    /// Makes sure that nothing is left but zeros that fill the last byte.
    pub(super) fn end(self) -> Result<(), CompressError> {
        if !self.rest.is_empty() || self.count >= 8 {
            return Err(CompressError::Field("end, after which there is more,"));
        }
        if self.pending != 0 { Err(CompressError::Field("padding")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Code {
        Bits(u32, u32),
        Unary(u32),
    }

    fn codes() -> impl Strategy<Value = Vec<Code>> {
        let bits = (0_u32..=32, any::<u32>()).prop_map(|(count, bits)| {
            let mask = if count == 32 { u32::MAX } else { (1 << count) - 1 };
            Code::Bits(bits & mask, count)
        });
        let unary = prop_oneof![0_u32..4, 28_u32..36, 60_u32..200].prop_map(Code::Unary);
        proptest::collection::vec(prop_oneof![bits, unary], 0..60)
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_taken(codes in codes()) {
            let mut bytes = vec![0xff];
            let mut writer = BitWriter::new(&mut bytes);
            let mut total = 0;
            for code in &codes {
                match *code {
                    Code::Bits(bits, count) => {
                        writer.push(bits, count);
                        total += count;
                    }
                    Code::Unary(zeros) => {
                        writer.push_unary(zeros);
                        total += zeros + 1;
                    }
                }
            }
            writer.end();
            prop_assert_eq!(bytes.len(), 1 + total.div_ceil(8) as usize);
            let mut reader = BitReader::new(&bytes[1..]);
            for code in &codes {
                match *code {
                    Code::Bits(bits, count) => prop_assert_eq!(reader.take(count), Ok(bits)),
                    Code::Unary(zeros) => prop_assert_eq!(reader.take_unary(), Ok(zeros)),
                }
            }
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn bits_that_are_missing_or_left_are_errors() {
        assert!(BitReader::new(&[]).take(1).is_err() && BitReader::new(&[]).take(0).is_ok());
        assert!(BitReader::new(&[0, 0, 0, 0, 0]).take_unary().is_err());
        assert!(BitReader::new(&[0]).end().is_err());
        let mut reader = BitReader::new(&[0b10]);
        assert!(reader.take(1) == Ok(0) && reader.end().is_err());
    }
}
