//! Launching kernels.

use super::{Device, Pointer};
use crate::error::{CudaError, driver};
use crate::kernel::THREADS;
use core::ffi::c_void;
use cudarc::driver::{CudaFunction, result};
use std::collections::BTreeMap;

/// The compiled kernels, by name.
#[derive(Debug)]
pub(crate) struct Functions(BTreeMap<&'static str, CudaFunction>);

impl Functions {
    pub(crate) fn new(functions: BTreeMap<&'static str, CudaFunction>) -> Self {
        Self(functions)
    }
}

/// What a kernel takes by value before its pointers.
///
/// # Safety
/// An implementation is `repr(C)`, holds `u32`, `f32` and arrays and structures of these only, and has the fields of the
/// structure that the kernels it is launched with take first, in their order.
pub(crate) unsafe trait Parameters {}

macro_rules! parameters {
    ($($table:path),* $(,)?) => {
        $(
            // SAFETY: it is `repr(C)` and repeats the structure of the same name in `kernels/`.
            unsafe impl Parameters for $table {}
        )*
    };
}

parameters!(crate::table::MapTable, crate::table::ReduceTable, crate::table::SquareTable, crate::table::EigenTable);
parameters!(crate::shape::PatchTable, crate::shape::PoolTable, crate::shape::BatchNormTable);
parameters!(crate::shape::EvoNormTable, crate::shape::SubsampleTable, crate::shape::SoftmaxTable);

/// More pointers than any kernel takes.
const MOST: usize = 9;

impl Device {
    /// Launches a kernel with this many blocks; its table comes first, then the pointers, as in its source.
    ///
    /// Nothing is launched for no blocks. The caller has checked every region in the table against its buffer.
    pub(crate) fn launch<P: Parameters>(
        &mut self,
        kernel: &'static str,
        blocks: u32,
        parameters: &P,
        pointers: &[Pointer],
    ) -> Result<(), CudaError> {
        if blocks == 0 {
            return Ok(());
        }
        let mut arguments: [*mut c_void; MOST] = [core::ptr::null_mut(); MOST];
        arguments[0] = core::ptr::from_ref(parameters).cast_mut().cast();
        for (argument, pointer) in arguments[1..=pointers.len()].iter_mut().zip(pointers) {
            *argument = core::ptr::from_ref(&pointer.0).cast_mut().cast();
        }
        let function = &self.functions.0[kernel];
        self.bind()?;
        // SAFETY: the driver copies the arguments before the call returns. Their layout is what `Parameters` promises,
        // and what the kernel touches was checked by the caller; buffers are freed later, see `device.rs`.
        let launched = unsafe {
            result::launch_kernel(
                function.cu_function(),
                (blocks, 1, 1),
                (THREADS, 1, 1),
                0,
                self.lane().cu_stream(),
                &mut arguments[..=pointers.len()],
            )
        };
        self.launches += 1;
        launched.map_err(driver(kernel))
    }
}
