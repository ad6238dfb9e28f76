//! Device memory, and copies between it and the host through pinned memory.

use super::Device;
use crate::error::{CudaError, driver};
use core::cell::Cell;
use core::ops::Range;
use cudarc::driver::sys::{CUdevice_attribute, CUmemPool_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, DriverError, PinnedHostSlice, result};
use std::sync::Arc;

/// A line of numbers on the device; freed in the stream's order, once nothing beside uses it.
#[derive(Debug)]
pub(crate) struct Memory {
    line: CudaSlice<f32>,
    len: usize,
    /// The last piece of work beside that reads it, and the last that writes it; 0 for none yet.
    pub(super) read: Cell<u64>,
    pub(super) written: Cell<u64>,
    beside: Arc<CudaStream>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.read.get().max(self.written.get()) > 0 {
            let stream = self.line.stream();
            // cudarc keeps a failure and reports it at the next call.
            stream.context().record_err(stream.join(&self.beside));
        }
    }
}

/// Where on the device something begins.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Pointer(pub(crate) u64);

impl Pointer {
    /// No memory: a missing operand.
    pub(crate) const NONE: Self = Self(0);

    /// The element `offset` numbers further on.
    pub(crate) fn element(self, offset: usize) -> Self {
        Self(self.0 + (offset * size_of::<f32>()) as u64)
    }
}

impl Memory {
    /// How many numbers were asked for.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// Lets the pool keep what is freed, and takes over from cudarc's tracking: `order.rs` does with fewer events.
pub(crate) fn prepare(context: &Arc<CudaContext>) -> Result<(), CudaError> {
    // SAFETY: every buffer is made, used and freed in one stream, in the order of the calls, but for work beside, whose
    // uses `order.rs` marks, and which the first stream waits for before it uses or frees such a buffer.
    unsafe { context.disable_event_tracking() };
    let pooled = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
    if context.attribute(pooled).map_err(driver("asking for memory pools"))? > 0 {
        let mut threshold = u64::MAX;
        // SAFETY: the device is this context's, and the attribute is a 64-bit number that is read before the call returns.
        let kept = unsafe {
            result::device::get_default_mem_pool(context.cu_device()).and_then(|pool| {
                let release = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
                result::mem_pool::set_attribute(pool, release, (&raw mut threshold).cast())
            })
        };
        kept.map_err(driver("setting up the memory pool"))?;
    }
    Ok(())
}

/// Pinned memory and the event that says when the copy from or to it is done.
#[derive(Debug)]
struct Pinned {
    memory: PinnedHostSlice<f32>,
    copied: CudaEvent,
}

impl Pinned {
    /// Waits for the last copy.
    fn wait(&self) -> Result<(), DriverError> {
        self.copied.synchronize()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The memory must not go while a copy runs; where waiting fails, the device is lost and nothing runs.
        let _ = self.wait();
    }
}

/// Pinned memory that is used again and again.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    /// Free, whatever was copied with it.
    idle: Vec<Pinned>,
    /// On their way to the device, the oldest first.
    uploading: std::collections::VecDeque<Pinned>,
}

/// How many numbers a piece of pinned memory holds at least.
const LEAST: usize = 1 << 10;
/// How many uploads may be on their way before their memory is asked for again.
const UNDERWAY: usize = 8;

/// A copy on its way to the host.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// None for nothing.
    pinned: Option<Pinned>,
    len: usize,
}

impl Snapshot {
    /// How many numbers it has.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Device {
    /// `len` zeros.
    pub(crate) fn allocate(&mut self, len: usize) -> Result<Memory, CudaError> {
        let refused = CudaError::OutOfMemory { bytes: len.saturating_mul(size_of::<f32>()) };
        self.bind()?;
        // Kernels count elements with 32 bits.
        if u32::try_from(len).is_err() {
            return Err(refused);
        }
        let line = self.stream.alloc_zeros(len.max(1)).map_err(|error| match error {
            DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY) => refused,
            error => driver("allocating memory")(error),
        })?;
        let beside = self.order.stream().clone();
        Ok(Memory { line, len, read: Cell::new(0), written: Cell::new(0), beside })
    }

    /// Where a buffer begins that is never used beside.
    pub(crate) fn pointer(&self, memory: &Memory) -> Pointer {
        Pointer(memory.line.device_ptr(&self.stream).0)
    }

    /// Copies `source` to `target[offset..]`; `source` may be changed when the call returns.
    pub(crate) fn upload(&mut self, source: &[f32], target: &mut Memory, offset: usize) -> Result<(), CudaError> {
        let end = offset.checked_add(source.len()).expect("offsets are far from the largest number");
        assert!(end <= target.len, "an upload of {} to {offset} of a buffer of {}", source.len(), target.len);
        if source.is_empty() {
            return Ok(());
        }
        self.bind()?;
        while self.staging.uploading.front().is_some_and(|oldest| oldest.copied.is_complete())
            || self.staging.uploading.len() >= UNDERWAY
        {
            self.staging.idle.extend(self.staging.uploading.pop_front());
        }
        let mut pinned = self.pinned(source.len())?;
        pinned.wait().map_err(driver("waiting for staging memory"))?;
        let staged = pinned.memory.as_mut_slice().map_err(driver("reaching staging memory"))?;
        staged[..source.len()].copy_from_slice(source);
        let start = self.writes(target).element(offset).0;
        // SAFETY: the target's `source.len()` numbers from `offset` on were checked above; the staging memory is neither
        // written nor freed before `copied` has come.
        let asked = unsafe { result::memcpy_htod_async(start, &staged[..source.len()], self.stream.cu_stream()) };
        asked.map_err(driver("copying to the device"))?;
        pinned.copied.record(&self.stream).map_err(driver("marking a copy"))?;
        self.staging.uploading.push_back(pinned);
        self.transfers += 1;
        Ok(())
    }

    /// Starts a copy of `source[range]` to the host.
    pub(crate) fn download(&mut self, source: &Memory, range: Range<usize>) -> Result<Snapshot, CudaError> {
        assert!(
            range.start <= range.end && range.end <= source.len,
            "a download of {range:?} from a buffer of {}",
            source.len
        );
        let len = range.len();
        if len == 0 {
            return Ok(Snapshot { pinned: None, len });
        }
        self.bind()?;
        let mut pinned = self.pinned(len)?;
        pinned.wait().map_err(driver("waiting for staging memory"))?;
        let staged = pinned.memory.as_mut_slice().map_err(driver("reaching staging memory"))?;
        let start = self.reads(source).element(range.start).0;
        // SAFETY: the source's range was checked above; the staging memory is neither read nor freed before `copied` has
        // come: `finish` and `drop` wait for it.
        let asked = unsafe { result::memcpy_dtoh_async(&mut staged[..len], start, self.stream.cu_stream()) };
        asked.map_err(driver("copying to the host"))?;
        pinned.copied.record(&self.stream).map_err(driver("marking a copy"))?;
        self.transfers += 1;
        Ok(Snapshot { pinned: Some(pinned), len })
    }

    /// Waits for a copy and shows it.
    pub(crate) fn finish<R>(&mut self, snapshot: Snapshot, show: impl FnOnce(&[f32]) -> R) -> Result<R, CudaError> {
        let Some(pinned) = snapshot.pinned else { return Ok(show(&[])) };
        pinned.wait().map_err(driver("waiting for a copy"))?;
        let staged = pinned.memory.as_slice().map_err(driver("reaching staging memory"))?;
        let shown = show(&staged[..snapshot.len]);
        self.staging.idle.push(pinned);
        Ok(shown)
    }

    /// Pinned memory for at least `len` numbers: the smallest that is large enough, else a new one.
    fn pinned(&mut self, len: usize) -> Result<Pinned, CudaError> {
        let idle = &mut self.staging.idle;
        let fitting = (0..idle.len()).filter(|&index| idle[index].memory.len() >= len);
        if let Some(index) = fitting.min_by_key(|&index| idle[index].memory.len()) {
            return Ok(idle.swap_remove(index));
        }
        let context = self.stream.context();
        let capacity = len.next_power_of_two().max(LEAST);
        // SAFETY: numbers of any bits are numbers, and only what was copied or staged is looked at.
        let memory =
            unsafe { context.alloc_pinned_with_flags(capacity, 0) }.map_err(driver("allocating pinned memory"))?;
        let copied = context.new_event(None).map_err(driver("making an event"))?;
        Ok(Pinned { memory, copied })
    }
}
