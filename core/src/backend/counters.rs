//! What a backend has done.

/// Counts kept by the code that does the work; reports read them and never estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Floating-point operations of products and decompositions (element-wise work is not counted).
    pub flops: u64,
    /// Calls that waited for the device: `finish`, `verdict`, `sync` and host fallbacks.
    pub host_waits: u64,
    /// Scalars copied from the device to the host.
    pub downloaded: u64,
    /// Scalars copied from the host to the device.
    pub uploaded: u64,
    /// Buffers allocated.
    pub allocations: u64,
    /// Scalars in allocated buffers, in total.
    pub allocated: u64,
    /// Cholesky factorisations.
    pub factorisations: u64,
    /// Symmetric eigendecompositions.
    pub eigendecompositions: u64,
    /// Kernels and library routines handed to a device; none where the host computes.
    pub launches: u64,
    /// Copies between host and device, in either direction; none where buffers are host memory.
    pub transfers: u64,
}
