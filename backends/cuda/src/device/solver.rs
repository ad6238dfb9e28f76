//! cuSOLVER.

use super::{Device, Memory, Pointer};
use crate::error::CudaError;
use cudarc::cusolver::DnHandle;
use cudarc::cusolver::result::CusolverError;
use cudarc::cusolver::sys;
use cudarc::cusolver::sys::cublasFillMode_t::CUBLAS_FILL_MODE_LOWER as LOWER;
use cudarc::cusolver::sys::cusolverEigMode_t::CUSOLVER_EIG_MODE_VECTOR as VECTORS;
use cudarc::driver::CudaStream;
use std::sync::Arc;

fn solver(what: &'static str) -> impl FnOnce(CusolverError) -> CudaError {
    move |CusolverError(code)| CudaError::Solver { what, code }
}

/// A handle on the stream.
pub(super) fn open(stream: &Arc<CudaStream>) -> Result<DnHandle, CudaError> {
    DnHandle::new(stream.clone()).map_err(solver("making a handle"))
}

/// Device memory that routines work in; grows, is shared by all of them, for they come one after the other.
#[derive(Debug, Default)]
pub(crate) struct Workspace(Option<Memory>);

impl Workspace {
    /// Room for `len` numbers.
    pub(crate) fn reserve(&mut self, device: &mut Device, len: usize) -> Result<Pointer, CudaError> {
        if self.0.as_ref().is_none_or(|memory| memory.len() < len) {
            // What is freed here is freed in the stream's order, after whatever still works in it.
            self.0 = None;
            self.0 = Some(device.allocate(len.next_power_of_two())?);
        }
        let memory = self.0.as_ref().expect("it was just made");
        Ok(device.pointer(memory))
    }
}

/// A square matrix on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Square {
    pub(crate) n: i32,
    pub(crate) start: Pointer,
    pub(crate) step: i32,
}

impl Square {
    fn matrix(self) -> *mut f32 {
        self.start.0 as *mut f32
    }
}

/// Square matrices of the same size and column step, of which a routine does all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) n: i32,
    pub(crate) step: i32,
    pub(crate) count: i32,
}

/// Which routine asks for room.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Routine {
    Factorise,
    Invert,
    Decompose,
}

impl Device {
    /// How many numbers of room a routine asks for.
    pub(crate) fn room(&mut self, routine: Routine, matrix: Square) -> Result<i32, CudaError> {
        let (handle, Square { n, step, .. }) = (self.solver.cu(), matrix);
        let mut len = 0;
        self.bind()?;
        // SAFETY: these look at sizes only and write one number to a place of ours.
        let asked = unsafe {
            match routine {
                Routine::Factorise => {
                    sys::cusolverDnSpotrf_bufferSize(handle, LOWER, n, matrix.matrix(), step, &raw mut len)
                }
                Routine::Invert => {
                    sys::cusolverDnSpotri_bufferSize(handle, LOWER, n, matrix.matrix(), step, &raw mut len)
                }
                Routine::Decompose => sys::cusolverDnSsyevd_bufferSize(
                    handle,
                    VECTORS,
                    LOWER,
                    n,
                    matrix.matrix(),
                    step,
                    matrix.matrix(),
                    &raw mut len,
                ),
            }
        };
        asked.result().map_err(solver("asking for the room of a routine"))?;
        Ok(len)
    }

    /// `L Lᵀ = A` in the lower triangle; `info` is 0 if it succeeded.
    pub(crate) fn factorise(
        &mut self,
        matrix: Square,
        (room, len): (Pointer, i32),
        info: Pointer,
    ) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the caller has checked that the matrix lies in memory, and `room` says how much room there is; both are
        // freed later, see `device.rs`.
        let asked = unsafe {
            let (room, info) = (room.0 as *mut f32, info.0 as *mut i32);
            sys::cusolverDnSpotrf(self.solver.cu(), LOWER, matrix.n, matrix.matrix(), matrix.step, room, len, info)
        };
        self.launches += 1;
        asked.result().map_err(solver("a Cholesky factorisation"))
    }

    /// `A⁻¹` in the lower triangle, in place of `L`.
    pub(crate) fn invert(
        &mut self,
        matrix: Square,
        (room, len): (Pointer, i32),
        info: Pointer,
    ) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: as for `factorise`.
        let asked = unsafe {
            let (room, info) = (room.0 as *mut f32, info.0 as *mut i32);
            sys::cusolverDnSpotri(self.solver.cu(), LOWER, matrix.n, matrix.matrix(), matrix.step, room, len, info)
        };
        self.launches += 1;
        asked.result().map_err(solver("an inverse"))
    }

    /// `x ← (L Lᵀ)⁻¹ x` for `columns` columns, `step` apart.
    pub(crate) fn solve(
        &mut self,
        factor: Square,
        (x, columns, step): (Pointer, i32, i32),
        info: Pointer,
    ) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: as for `factorise`; the factor is only read.
        let asked = unsafe {
            let (x, info) = (x.0 as *mut f32, info.0 as *mut i32);
            let matrix = factor.matrix().cast_const();
            sys::cusolverDnSpotrs(self.solver.cu(), LOWER, factor.n, columns, matrix, factor.step, x, step, info)
        };
        self.launches += 1;
        asked.result().map_err(solver("a solution"))
    }

    /// `A = Q diag(d) Qᵀ`: the matrix becomes `Q`, `values` become `d`.
    pub(crate) fn decompose(
        &mut self,
        matrix: Square,
        values: Pointer,
        (room, len): (Pointer, i32),
        info: Pointer,
    ) -> Result<(), CudaError> {
        let (handle, Square { n, step, .. }) = (self.solver.cu(), matrix);
        self.bind()?;
        // SAFETY: as for `factorise`; the caller has checked that `n` values lie in memory.
        let asked = unsafe {
            let (values, room, info) = (values.0 as *mut f32, room.0 as *mut f32, info.0 as *mut i32);
            sys::cusolverDnSsyevd(handle, VECTORS, LOWER, n, matrix.matrix(), step, values, room, len, info)
        };
        self.launches += 1;
        asked.result().map_err(solver("an eigendecomposition"))
    }

    /// `L Lᵀ = A` in the lower triangle of every matrix; `matrices` are pointers to them, `info` has a number for each.
    pub(crate) fn factorise_batch(
        &mut self,
        Batch { n, step, count }: Batch,
        matrices: Pointer,
        info: Pointer,
    ) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: as for `factorise`; a kernel before this in the stream has written `count` pointers.
        let asked = unsafe {
            let (matrices, info) = (matrices.0 as *mut *mut f32, info.0 as *mut i32);
            sys::cusolverDnSpotrfBatched(self.solver.cu(), LOWER, n, matrices, step, info, count)
        };
        self.launches += 1;
        asked.result().map_err(solver("Cholesky factorisations"))
    }

    /// How many numbers of room [`decompose_batch`](Self::decompose_batch) asks for.
    pub(crate) fn room_of_batch(&mut self, batch: Batch, matrices: Pointer, values: Pointer) -> Result<i32, CudaError> {
        let Batch { n, step, count } = batch;
        let (handle, settings) = (self.solver.cu(), self.jacobi.0);
        let mut len = 0;
        self.bind()?;
        // SAFETY: it looks at sizes only and writes one number to a place of ours.
        let asked = unsafe {
            let (matrices, values) = (matrices.0 as *const f32, values.0 as *const f32);
            sys::cusolverDnSsyevjBatched_bufferSize(
                handle,
                VECTORS,
                LOWER,
                n,
                matrices,
                step,
                values,
                &raw mut len,
                settings,
                count,
            )
        };
        asked.result().map_err(solver("asking for the room of a routine"))?;
        Ok(len)
    }

    /// `A = Q diag(d) Qᵀ` for every matrix, which lie one behind the other, as do their values.
    pub(crate) fn decompose_batch(
        &mut self,
        Batch { n, step, count }: Batch,
        (matrices, values): (Pointer, Pointer),
        (room, len): (Pointer, i32),
        info: Pointer,
    ) -> Result<(), CudaError> {
        let (handle, settings) = (self.solver.cu(), self.jacobi.0);
        self.bind()?;
        // SAFETY: as for `factorise`; the caller has checked that `count` matrices and as many lines of values lie in memory.
        let asked = unsafe {
            let (matrices, values) = (matrices.0 as *mut f32, values.0 as *mut f32);
            let (room, info) = (room.0 as *mut f32, info.0 as *mut i32);
            sys::cusolverDnSsyevjBatched(
                handle, VECTORS, LOWER, n, matrices, step, values, room, len, info, settings, count,
            )
        };
        self.launches += 1;
        asked.result().map_err(solver("eigendecompositions"))
    }
}

/// The settings of Jacobi's method, the library's own.
#[derive(Debug)]
pub(super) struct Jacobi(sys::syevjInfo_t);

// SAFETY: the settings belong to the library, are bound to no thread, and are read only, by calls that take `&mut Device`.
unsafe impl Send for Jacobi {}

impl Jacobi {
    pub(super) fn new() -> Result<Self, CudaError> {
        let mut settings = core::ptr::null_mut();
        // SAFETY: it writes one pointer to a place of ours.
        let asked = unsafe { sys::cusolverDnCreateSyevjInfo(&raw mut settings) };
        asked.result().map_err(solver("making settings"))?;
        Ok(Self(settings))
    }
}

impl Drop for Jacobi {
    fn drop(&mut self) {
        // SAFETY: they were made by `new` and are used by nobody any more. That they cannot be freed is nothing to act upon.
        let _ = unsafe { sys::cusolverDnDestroySyevjInfo(self.0) };
    }
}
