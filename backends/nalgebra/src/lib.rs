//! The small portable CPU backend of kronfleet, on [nalgebra](https://nalgebra.rs): `no_std` + `alloc`, `f32` and
//! `f64`, one thread, no unsafe code of its own.
//!
//! # For users
//! Take [`Nalgebra`] where there is no operating system, and as the second opinion beside a fast backend. It does
//! everything at once: nothing is left to wait for.
//!
//! ```
//! use kronfleet_core::backend::{Backend, Gemm};
//! use kronfleet_core::matrix::Region;
//! use kronfleet_nalgebra::Nalgebra;
//!
//! let mut backend = Nalgebra::<f64>::new();
//! let mut a = backend.allocate(4)?;
//! let mut c = backend.allocate(4)?;
//! backend.upload(&[1.0, 2.0, 3.0, 4.0], &mut a, 0)?;
//! let square = Region::matrix(0, 2, 2);
//! backend.gemm(&[Gemm::product(square, square.transposed(), square)], &a, &a, &mut c)?;
//! assert_eq!(backend.fetch(&c, 0..4)?, [10.0, 14.0, 14.0, 20.0]);
//! # Ok::<(), kronfleet_nalgebra::OutOfMemory>(())
//! ```
//!
//! # For implementers
//! The required operations and those that nalgebra knows are here, one file each; layers' operations run core's
//! reference versions in place through [`Backend::host`](kronfleet_core::backend::Backend::host).
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::std_instead_of_core, clippy::std_instead_of_alloc, clippy::alloc_instead_of_core)]

extern crate alloc;

mod backend;
mod decomposition;
mod elementwise;
mod error;
mod product;
mod view;

pub use backend::{Nalgebra, Snapshot, Soundness};
pub use error::OutOfMemory;
