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
