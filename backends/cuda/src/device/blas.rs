//! cuBLAS.

use super::{Device, Pointer};
use crate::error::CudaError;
use cudarc::cublas::CudaBlas;
use cudarc::cublas::result::CublasError;
use cudarc::cublas::sys::{
    cublasDiagType_t, cublasFillMode_t, cublasHandle_t, cublasMath_t, cublasOperation_t, cublasSetMathMode,
    cublasSgemm_v2, cublasSideMode_t, cublasSsyrk_v2, cublasStrsmBatched,
};
use cudarc::driver::CudaStream;
use std::sync::Arc;

/// A matrix as BLAS sees it: column-major with a leading dimension, perhaps transposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    pub(crate) start: Pointer,
    pub(crate) transposed: bool,
    /// Distance between neighbouring lines, in scalars.
    pub(crate) step: i32,
}

impl Operand {
    fn operation(self) -> cublasOperation_t {
        if self.transposed { cublasOperation_t::CUBLAS_OP_T } else { cublasOperation_t::CUBLAS_OP_N }
    }
}

/// One triangle of a symmetric product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symmetric {
    pub(crate) n: i32,
    pub(crate) k: i32,
    pub(crate) alpha: f32,
    pub(crate) x: Operand,
    pub(crate) beta: f32,
    pub(crate) c: Pointer,
    pub(crate) step: i32,
}

fn blas(what: &'static str) -> impl FnOnce(CublasError) -> CudaError {
    move |CublasError(code)| CudaError::Blas { what, code }
}

/// A handle on the stream.
pub(super) fn open(stream: &Arc<CudaStream>, tensor_float: bool) -> Result<CudaBlas, CudaError> {
    let handle = CudaBlas::new(stream.clone()).map_err(blas("making a handle"))?;
    let mode = if tensor_float { cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH } else { cublasMath_t::CUBLAS_DEFAULT_MATH };
    // SAFETY: the handle was just made.
    unsafe { cublasSetMathMode(*handle.handle(), mode) }.result().map_err(blas("choosing the precision"))?;
    Ok(handle)
}

impl Device {
    /// The handle of the stream that work goes to now.
    fn handle(&self) -> cublasHandle_t {
        *if self.order.within { &self.blas_beside } else { &self.blas }.handle()
    }

    /// `c ← α·a·b + β·c`, `c` being `m × n` and the sum over `k`. The caller has checked that all three lie in memory.
    pub(crate) fn gemm(
        &mut self,
        [m, n, k]: [i32; 3],
        (alpha, beta): (f32, f32),
        (a, b): (Operand, Operand),
        (c, step): (Pointer, i32),
    ) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the factors are read before the call returns; the operands were checked by the caller and are freed
        // later, see `device.rs`.
        let asked = unsafe {
            cublasSgemm_v2(
                self.handle(),
                a.operation(),
                b.operation(),
                m,
                n,
                k,
                &raw const alpha,
                a.start.0 as *const f32,
                a.step,
                b.start.0 as *const f32,
                b.step,
                &raw const beta,
                c.0 as *mut f32,
                step,
            )
        };
        self.launches += 1;
        asked.result().map_err(blas("a product"))
    }

    /// `c ← α·x·xᵀ + β·c` in the lower triangle. The caller has checked that both lie in memory.
    pub(crate) fn symmetric(&mut self, job: Symmetric) -> Result<(), CudaError> {
        let Symmetric { n, k, alpha, x, beta, c, step } = job;
        self.bind()?;
        // SAFETY: as for `gemm`.
        let asked = unsafe {
            cublasSsyrk_v2(
                self.handle(),
                cublasFillMode_t::CUBLAS_FILL_MODE_LOWER,
                x.operation(),
                n,
                k,
                &raw const alpha,
                x.start.0 as *const f32,
                x.step,
                &raw const beta,
                c.0 as *mut f32,
                step,
            )
        };
        self.launches += 1;
        asked.result().map_err(blas("a symmetric product"))
    }

    /// `x ← (L Lᵀ)⁻¹ x` for every pair of matrices; `factors` and `sides` are pointers to them, all `n × n`.
    pub(crate) fn substitute_batch(
        &mut self,
        factor: super::Batch,
        factors: Pointer,
        sides: Pointer,
        step: i32,
    ) -> Result<(), CudaError> {
        let one = 1.0_f32;
        for operation in [cublasOperation_t::CUBLAS_OP_N, cublasOperation_t::CUBLAS_OP_T] {
            self.bind()?;
            // SAFETY: as for `gemm`; kernels before this in the stream have written the pointers.
            let asked = unsafe {
                cublasStrsmBatched(
                    self.handle(),
                    cublasSideMode_t::CUBLAS_SIDE_LEFT,
                    cublasFillMode_t::CUBLAS_FILL_MODE_LOWER,
                    operation,
                    cublasDiagType_t::CUBLAS_DIAG_NON_UNIT,
                    factor.n,
                    factor.n,
                    &raw const one,
                    factors.0 as *const *const f32,
                    factor.step,
                    sides.0 as *const *mut f32,
                    step,
                    factor.count,
                )
            };
            self.launches += 1;
            asked.result().map_err(blas("substitutions"))?;
        }
        Ok(())
    }
}
