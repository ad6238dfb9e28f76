//! CUDA's libraries on the CPU, for tests of programs that use them.
//!
//! # For users
//! [`build`] makes `libcuda.so`, `libcublas.so`, `libcusolver.so` and `libnvrtc.so` with the C++ compiler and the OpenBLAS
//! of the machine. A program finds them where `LD_LIBRARY_PATH` names their folder when it starts, or, after [`load`], by
//! their names alone: the loader keeps to what is loaded already.
//!
//! ```sh
//! LD_LIBRARY_PATH=$(cargo run -p kronfleet-cuda-standin --bin cuda-standin) cargo test -p kronfleet-cuda
//! ```
//! # For implementers
//! `host/driver.cpp` says how asynchrony is emulated and what is trapped. Kernels are the backend's own sources behind
//! `host/cuda_on_host.h`; a table that [`build`] writes tells the driver their names and whether they have barriers.

mod build;
#[expect(unsafe_code, reason = "loads the libraries built here and calls what they export beside CUDA's functions")]
mod load;

pub use build::{Missing, build};
pub use load::{Mutant, StandIn, load};
