//! Whether CUDA's libraries are there, asked before anything calls them: cudarc panics where one is not.

use crate::error::CudaError;
use cudarc::{cublas, cusolver, driver, nvrtc};
use std::sync::OnceLock;

const TOOLKIT: &str =
    "install the CUDA toolkit 12 (cuBLAS, cuSOLVER and NVRTC), and let LD_LIBRARY_PATH name its folder";

/// A library's name, what brings it, and how to look for it.
type Library = (&'static str, &'static str, unsafe fn() -> bool);

/// Fails with the first library that is missing.
pub(crate) fn check() -> Result<(), CudaError> {
    // What was found stays loaded; what was not may be installed meanwhile.
    static FOUND: OnceLock<()> = OnceLock::new();
    if FOUND.get().is_none() {
        look_for(("cuda", "install NVIDIA's driver", driver::sys::is_culib_present))?;
        look_for(("cublas", TOOLKIT, cublas::sys::is_culib_present))?;
        look_for(("cusolver", TOOLKIT, cusolver::sys::is_culib_present))?;
        check_compiler()?;
        FOUND.get_or_init(|| ());
    }
    Ok(())
}

/// Fails if the run-time compiler is missing, which needs no driver.
pub(crate) fn check_compiler() -> Result<(), CudaError> {
    static FOUND: OnceLock<()> = OnceLock::new();
    if FOUND.get().is_none() {
        look_for(("nvrtc", TOOLKIT, nvrtc::sys::is_culib_present))?;
        FOUND.get_or_init(|| ());
    }
    Ok(())
}

fn look_for((library, remedy, present): Library) -> Result<(), CudaError> {
    // SAFETY: it opens the library and closes it again; running NVIDIA's initialisers is what the caller asks for by
    // making a backend or compiling a kernel.
    if unsafe { present() } { Ok(()) } else { Err(CudaError::Missing { library, remedy }) }
}
