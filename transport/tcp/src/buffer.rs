//! Bytes on their way, in memory that is allocated once.

/// A line of bytes of fixed capacity, written at the back and read at the front, always in one piece.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    head: usize,
    tail: usize,
}

impl Buffer {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity], head: 0, tail: 0 }
    }

    /// Becomes larger; what is in it stays.
    pub(crate) fn grow(&mut self, capacity: usize) {
        self.bytes.resize(capacity.max(self.bytes.len()), 0);
    }

    /// What waits to be read.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.head..self.tail]
    }

    pub(crate) fn len(&self) -> usize {
        self.tail - self.head
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Bytes that can still be written.
    pub(crate) fn room(&self) -> usize {
        self.bytes.len() - self.len()
    }

    /// All the room there is, in one piece; [`advance`](Self::advance) says how much of it was used.
    pub(crate) fn vacant(&mut self) -> &mut [u8] {
        self.compact();
        &mut self.bytes[self.tail..]
    }

    /// Room of at least `len` bytes in one piece, without moving more than necessary.
    ///
    /// # Panics
    /// If there is not that much [`room`](Self::room).
    pub(crate) fn reserve(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() - self.tail < len {
            self.compact();
        }
        &mut self.bytes[self.tail..self.tail + len]
    }

    /// The next `len` bytes of the room were written.
    pub(crate) fn advance(&mut self, len: usize) {
        debug_assert!(self.tail + len <= self.bytes.len());
        self.tail += len;
    }

    /// The first `len` bytes were read.
    pub(crate) fn consume(&mut self, len: usize) {
        debug_assert!(len <= self.len());
        self.head += len;
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
        }
    }

    fn compact(&mut self) {
        if self.head > 0 {
            self.bytes.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, self.tail - self.head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// It behaves as a bounded queue of bytes.
        #[test]
        fn is_a_queue(steps in proptest::collection::vec((any::<bool>(), 0..20_usize), 0..100)) {
            let mut buffer = Buffer::new(32);
            let mut model = VecDeque::new();
            let mut next = 0_u8;
            for (write, len) in steps {
                if write {
                    let len = len.min(buffer.room());
                    for byte in buffer.reserve(len) {
                        *byte = next;
                        model.push_back(next);
                        next = next.wrapping_add(1);
                    }
                    buffer.advance(len);
                } else {
                    let len = len.min(buffer.len());
                    buffer.consume(len);
                    model.drain(..len);
                }
                prop_assert_eq!(buffer.filled(), &*model.make_contiguous());
                prop_assert_eq!(buffer.room(), 32 - model.len());
            }
        }
    }
}
