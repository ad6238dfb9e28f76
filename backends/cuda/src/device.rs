//! One device and its queue: everything unsafe, behind functions that are not.
//!
//! What makes the calls below sound is decided here, once:
//! - Everything is put into one stream, so that what is freed, overwritten or reused is so after what was asked for before;
//!   work beside it, in a second stream, is ordered by `order.rs`.
//! - A [`Pointer`] comes from a buffer that outlives the call that takes it; freeing a buffer is an operation of the stream.
//! - Whoever calls has checked that regions lie inside their buffers.

#[expect(unsafe_code, reason = "cuBLAS takes raw pointers")]
mod blas;
#[expect(unsafe_code, reason = "NVRTC's version is asked for through a raw pointer")]
mod compiler;
#[expect(unsafe_code, reason = "a kernel's arguments are handed over untyped")]
mod launch;
#[expect(unsafe_code, reason = "looking for a library loads it")]
mod library;
#[expect(unsafe_code, reason = "copies between host and device run on after the call that asked for them")]
mod memory;
mod order;
#[expect(unsafe_code, reason = "cuSOLVER takes raw pointers")]
mod solver;

pub(crate) use blas::{Operand, Symmetric};
pub(crate) use compiler::compile;
pub(crate) use launch::Functions;
pub(crate) use memory::{Memory, Pointer, Snapshot};
pub(crate) use solver::{Batch, Routine, Square as SolverSquare, Workspace};

use crate::error::{CudaError, driver};
use crate::options::Options;
use cudarc::cublas::CudaBlas;
use cudarc::cusolver::DnHandle;
use cudarc::driver::{CudaContext, CudaStream};
use std::sync::Arc;

/// A device, its queue, and what works on it.
#[derive(Debug)]
pub(crate) struct Device {
    // Dropped in this order: handles before the stream they use.
    blas: CudaBlas,
    /// The one for work beside, since a handle's own memory is used by one stream at a time.
    blas_beside: CudaBlas,
    solver: DnHandle,
    jacobi: solver::Jacobi,
    functions: Functions,
    staging: memory::Staging,
    order: order::Order,
    stream: Arc<CudaStream>,
    /// Kernels and library routines handed over so far.
    pub(crate) launches: u64,
    /// Copies between host and device so far.
    pub(crate) transfers: u64,
}

impl Device {
    /// Opens the device and compiles what is not in the cache.
    pub(crate) fn open(options: &Options) -> Result<Self, CudaError> {
        library::check()?;
        let context = CudaContext::new(options.device).map_err(driver("opening the device"))?;
        memory::prepare(&context)?;
        let stream = context.new_stream().map_err(driver("making a stream"))?;
        let order = order::Order::new(&stream)?;
        let (blas, solver) = (blas::open(&stream, options.tensor_float)?, solver::open(&stream)?);
        let blas_beside = blas::open(order.stream(), options.tensor_float)?;
        let jacobi = solver::Jacobi::new()?;
        let functions = compiler::functions(&context, options.cache.as_deref())?;
        let staging = memory::Staging::default();
        Ok(Self { blas, blas_beside, solver, jacobi, functions, staging, order, stream, launches: 0, transfers: 0 })
    }

    /// The device's name.
    pub(crate) fn name(&self) -> Result<String, CudaError> {
        self.stream.context().name().map_err(driver("asking for the device's name"))
    }

    /// Waits until everything is done.
    pub(crate) fn synchronise(&mut self) -> Result<(), CudaError> {
        self.order.stream().synchronize().map_err(driver("waiting for the stream beside"))?;
        self.stream.synchronize().map_err(driver("waiting for the stream"))
    }
}
