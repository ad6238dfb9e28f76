//! Device memory as the trait sees it.

use crate::device::Memory;

/// A line of numbers on a device.
#[derive(Debug)]
pub struct Buffer(pub(crate) Memory);

impl kronfleet_core::backend::Buffer for Buffer {
    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Buffer {
    /// Panics unless `len` scalars from `offset` on lie in the buffer.
    #[track_caller]
    pub(crate) fn check(&self, what: &str, offset: usize, len: usize) {
        assert!(offset + len <= self.0.len(), "{what}: {len} from {offset} on in a buffer of {}", self.0.len());
    }
}
