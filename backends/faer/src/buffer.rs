//! Host memory, aligned to cache lines so that vector loads do not straddle them.

use core::ops::{Deref, DerefMut};
use kronfleet_core::scalar::Scalar;
use std::collections::TryReserveError;

const ALIGNMENT: usize = 64;

/// A line of scalars in host memory; element 0 lies on a cache line of its own.
#[derive(Debug)]
pub struct Buffer<S> {
    storage: Vec<S>,
    start: usize,
    len: usize,
}

impl<S: Scalar> Buffer<S> {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Result<Self, TryReserveError> {
        let spare = ALIGNMENT / S::BYTES;
        let mut storage = Vec::new();
        storage.try_reserve_exact(len + spare)?;
        storage.resize(len + spare, S::default());
        // Moving the vector later does not move what it points to.
        let start = storage.as_ptr().align_offset(ALIGNMENT).min(spare);
        Ok(Self { storage, start, len })
    }
}

impl<S: Scalar> kronfleet_core::backend::Buffer for Buffer<S> {
    fn len(&self) -> usize {
        self.len
    }
}

impl<S> Deref for Buffer<S> {
    type Target = [S];

    #[inline]
    fn deref(&self) -> &[S] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl<S> DerefMut for Buffer<S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [S] {
        &mut self.storage[self.start..self.start + self.len]
    }
}
