//! Scratch that grows on first use and is then kept.

use core::fmt;
use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use std::sync::{Mutex, PoisonError};

/// Scratch of one thread.
pub(crate) struct Arena<S> {
    stack: MemBuffer,
    numbers: Vec<S>,
    indices: Vec<usize>,
}

impl<S: Copy + Default> Arena<S> {
    fn new() -> Self {
        Self { stack: MemBuffer::new(StackReq::EMPTY), numbers: Vec::new(), indices: Vec::new() }
    }

    /// faer's kind of scratch.
    pub(crate) fn stack(&mut self, need: StackReq) -> &mut MemStack {
        // With room to align whatever comes, so that the largest need is met the second time.
        let bytes = need.unaligned_bytes_required();
        if self.stack.len() < bytes {
            self.stack = MemBuffer::new(StackReq::new::<u8>(bytes));
        }
        MemStack::new(&mut self.stack)
    }

    /// Numbers and faer's kind of scratch at once.
    pub(crate) fn both(&mut self, len: usize, need: StackReq) -> (&mut [S], &mut MemStack) {
        self.numbers(len);
        self.stack(need);
        (&mut self.numbers[..len], MemStack::new(&mut self.stack))
    }

    /// Numbers and indices at once.
    pub(crate) fn tables(&mut self, numbers: usize, indices: usize) -> (&mut [S], &mut [usize]) {
        self.numbers(numbers);
        if self.indices.len() < indices {
            self.indices.resize(indices, 0);
        }
        (&mut self.numbers[..numbers], &mut self.indices[..indices])
    }

    /// `len` numbers of unspecified content.
    pub(crate) fn numbers(&mut self, len: usize) -> &mut [S] {
        if self.numbers.len() < len {
            self.numbers.resize(len, S::default());
        }
        &mut self.numbers[..len]
    }
}

impl<S> fmt::Debug for Arena<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, numbers) = (self.stack.len(), self.numbers.len());
        f.debug_struct("Arena").field("bytes", &bytes).field("numbers", &numbers).finish()
    }
}

/// One arena per thread of the pool.
#[derive(Debug)]
pub(crate) struct Arenas<S>(Vec<Mutex<Arena<S>>>);

impl<S: Copy + Default> Arenas<S> {
    pub(crate) fn new(threads: usize) -> Self {
        Self((0..threads.max(1)).map(|_| Mutex::new(Arena::new())).collect())
    }

    /// Runs `work` with the arena of the current thread.
    ///
    /// `work` must not hand work to the pool: waiting, this thread could take up another piece that wants the same
    /// arena.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Arena<S>) -> R) -> R {
        let thread = rayon::current_thread_index().unwrap_or(0) % self.0.len();
        // A panic left at worst half-written scratch behind.
        let mut arena = self.0[thread].lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut arena)
    }
}
