//! The CUDA backend of kronfleet, on [cudarc](https://docs.rs/cudarc): cuBLAS, cuSOLVER and kernels of its own, in `f32`.
//!
//! # For users
//! ```
//! use kronfleet_core::backend::Backend;
//! use kronfleet_core::error::{Error, ErrorKind};
//! use kronfleet_cuda::{Cuda, Options};
//!
//! match Cuda::new(&Options::default()) {
//!     Ok(mut backend) => assert!(backend.allocate(4).is_ok()),
//!     // The message says which library is missing and what brings it.
//!     Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
//! }
//! ```
//! Nothing of CUDA is needed to build this crate. When a backend is made, the driver (`libcuda`), cuBLAS, cuSOLVER and the
//! run-time compiler NVRTC are looked for where the loader looks (`LD_LIBRARY_PATH`); the last three come with the CUDA
//! toolkit 12. Kernels are compiled for the device on first use and kept in a cache on disk.
//!
//! Products are computed in single precision throughout; [`Options::tensor_float`] allows TF32, which is faster and keeps
//! some ten bits of the operands only.
//!
//! # For implementers
//! `device/` holds what is unsafe: memory and copies, launches, cuBLAS, cuSOLVER, the compiler, each a few functions whose
//! arguments were checked before. Everything above is safe code that turns jobs into tables: a launch takes its table of
//! jobs as an argument by value, so that it is one launch for all layers and no copy. `../kernels` holds one idea per file.

mod backend;
mod buffer;
mod convolution;
mod device;
mod elementwise;
mod error;
mod factorisation;
pub mod kernel;
mod loss;
mod normalisation;
mod options;
mod pooling;
mod product;
mod reduction;
mod shape;
mod shortcut;
mod table;

pub use backend::{Cuda, Download, Verdict};
pub use buffer::Buffer;
pub use error::CudaError;
pub use options::Options;
