//! Device memory.

use core::ops::Range;
use std::sync::Arc;

/// A line of scalars in device memory.
#[derive(Debug)]
pub struct Buffer {
    pub(crate) memory: Arc<Memory>,
    len: usize,
}

/// Memory that launches under way keep alive.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) raw: wgpu::Buffer,
    /// Never used twice.
    pub(crate) id: u64,
}

/// What a launch binds: a buffer from some scalar on.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) memory: Arc<Memory>,
    /// The first scalar bound; a multiple of 64.
    pub(crate) base: usize,
    /// Bytes bound.
    pub(crate) bytes: u64,
}

/// The most bytes of a buffer that a launch can bind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit(pub(crate) u64);

/// Bindings begin at multiples of this many scalars.
const ALIGNMENT: usize = 64;

impl Limit {
    /// Whether these places of a buffer can be bound at once.
    pub(crate) fn admits(self, span: &Range<usize>) -> bool {
        4 * (span.end - span.start / ALIGNMENT * ALIGNMENT) as u64 <= self.0
    }
}

impl Buffer {
    pub(crate) fn new(raw: wgpu::Buffer, id: u64, len: usize) -> Self {
        Self { memory: Arc::new(Memory { raw, id }), len }
    }

    /// All of it where that can be bound, else the part around `span`; none where not even that can be.
    pub(crate) fn bound(&self, span: Range<usize>, limit: Limit) -> Option<Bound> {
        let all = self.memory.raw.size();
        let memory = Arc::clone(&self.memory);
        if all <= limit.0 {
            return Some(Bound { memory, base: 0, bytes: all });
        }
        let base = span.start / ALIGNMENT * ALIGNMENT;
        let bytes = (all - 4 * base as u64).min(limit.0);
        limit.admits(&span).then_some(Bound { memory, base, bytes })
    }
}

impl kronfleet_core::backend::Buffer for Buffer {
    fn len(&self) -> usize {
        self.len
    }
}
