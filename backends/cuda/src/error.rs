//! What can go wrong on a device.

use core::fmt;
use cudarc::cublas::sys::cublasStatus_t;
use cudarc::cusolver::sys::cusolverStatus_t;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use kronfleet_core::error::ErrorKind;

/// What went wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CudaError {
    /// A library cannot be loaded.
    Missing {
        /// The library, without prefix and suffix.
        library: &'static str,
        /// What brings it.
        remedy: &'static str,
    },
    /// The driver refused a call, or reports an earlier failure.
    Driver {
        /// What was asked for.
        what: &'static str,
        /// The driver's answer.
        code: CUresult,
    },
    /// cuBLAS refused a call.
    Blas {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        code: cublasStatus_t,
    },
    /// cuSOLVER refused a call.
    Solver {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        code: cusolverStatus_t,
    },
    /// A kernel could not be compiled.
    Kernel {
        /// Its source file.
        source: &'static str,
        /// What the compiler said.
        log: String,
    },
    /// Memory ran out, or a buffer is longer than kernels can index.
    OutOfMemory {
        /// How many bytes were asked for.
        bytes: usize,
    },
}

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { library, remedy } => write!(f, "the library {library} cannot be loaded; {remedy}"),
            Self::Driver { what, code } => write!(f, "CUDA's driver, {what}: {code:?}"),
            Self::Blas { what, code } => write!(f, "cuBLAS, {what}: {code:?}"),
            Self::Solver { what, code } => write!(f, "cuSOLVER, {what}: {code:?}"),
            Self::Kernel { source, log } => {
                write!(f, "{source} does not compile: {log}; is this NVRTC of CUDA 12 or later?")
            }
            Self::OutOfMemory { bytes } => {
                write!(f, "no device memory for a buffer of {bytes} bytes; try a smaller batch or model")
            }
        }
    }
}

impl core::error::Error for CudaError {}

impl kronfleet_core::error::Error for CudaError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } | Self::Kernel { .. } => ErrorKind::Unavailable,
            Self::OutOfMemory { .. }
            | Self::Driver { code: CUresult::CUDA_ERROR_OUT_OF_MEMORY, .. }
            | Self::Blas { code: cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED, .. }
            | Self::Solver { code: cusolverStatus_t::CUSOLVER_STATUS_ALLOC_FAILED, .. } => ErrorKind::OutOfMemory,
            Self::Driver {
                code:
                    CUresult::CUDA_ERROR_NO_DEVICE
                    | CUresult::CUDA_ERROR_INVALID_DEVICE
                    | CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
                    | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
                ..
            } => ErrorKind::Unavailable,
            // After any of these every later call fails too, until the process ends.
            Self::Driver {
                code:
                    CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
                    | CUresult::CUDA_ERROR_LAUNCH_FAILED
                    | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
                    | CUresult::CUDA_ERROR_ASSERT
                    | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
                    | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
                    | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
                    | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
                    | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
                    | CUresult::CUDA_ERROR_INVALID_PC
                    | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
                    | CUresult::CUDA_ERROR_DEINITIALIZED,
                ..
            }
            | Self::Blas { code: cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED, .. }
            | Self::Solver { code: cusolverStatus_t::CUSOLVER_STATUS_EXECUTION_FAILED, .. } => ErrorKind::DeviceLost,
            Self::Driver { .. } | Self::Blas { .. } | Self::Solver { .. } => ErrorKind::Other,
        }
    }
}

/// Says what the driver was asked for.
pub(crate) fn driver(what: &'static str) -> impl FnOnce(DriverError) -> CudaError {
    move |DriverError(code)| CudaError::Driver { what, code }
}
