//! The entry point for fuzzing: whatever another process leaves in a ring is answered, never a panic.

use super::{Consumer, Mapped, Producer, Store};
use crate::layout::{Layout, PAGE};
use crate::memory::Memory;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Reads a ring whose positions and content are `bytes`, then writes to it; answers how many bytes were read.
///
/// The first eight bytes are `head`, the next `tail`, the rest the ring from its beginning. A reader starts where `tail`
/// says, as one does that was there before the ring was damaged.
///
/// # Panics
/// If there is no memory for a page or two.
pub fn exercise_ring(bytes: &[u8]) -> usize {
    let layout = Layout::new(2, PAGE as u64).expect("two nodes with rings of a page");
    let memory = Arc::new(Memory::private(layout.len()).expect("memory for some pages"));
    let ring = Mapped::new(&memory, &layout, 0, 1);
    let word = |at: usize| {
        let mut word = [0; 8];
        for (target, byte) in word.iter_mut().zip(bytes.iter().skip(at)) {
            *target = *byte;
        }
        u64::from_ne_bytes(word)
    };
    let content = bytes.get(16..).unwrap_or_default();
    let content = &content[..content.len().min(PAGE)];
    // SAFETY: the memory is private, and neither end has been made yet.
    unsafe { ring.write(0, content.len(), |target| target.copy_from_slice(content)) };
    // A consumer's own position is always aligned and never out of step with what it publishes.
    ring.head().store(word(8) & !15, Ordering::Release);
    // SAFETY: the memory is private; this is the only consumer.
    let mut consumer = unsafe { Consumer::resume(ring.clone()) };
    ring.head().store(word(0), Ordering::Release);
    let mut read = 0;
    while let Ok(Some(record)) = consumer.peek() {
        consumer.take(|bytes| {
            assert_eq!(bytes.len(), record.len, "a frame is as long as its header says");
            read += bytes.len();
        });
    }
    consumer.reset();
    // SAFETY: the memory is private; this is the only producer.
    let mut producer = unsafe { Producer::resume(ring.clone(), 3) };
    for len in [0, 1, 100, 2000] {
        let _ = producer.send(len, |target| target.fill(7));
    }
    ring.tail().store(word(0), Ordering::Release);
    for _ in 0..4 {
        let _ = producer.send(1000, |target| target.fill(8));
    }
    read
}
