//! The fast CPU backend of kronfleet, on [faer](https://docs.rs/faer).
//!
//! # For users
//! ```
//! use kronfleet_core::backend::{Backend, Gemm};
//! use kronfleet_core::matrix::Region;
//! use kronfleet_faer::Faer;
//!
//! let mut backend = Faer::<f32>::new(1);
//! let mut a = backend.allocate(4).unwrap();
//! let mut c = backend.allocate(4).unwrap();
//! backend.upload(&[1.0, 2.0, 3.0, 4.0], &mut a, 0).unwrap();
//! let square = Region::matrix(0, 2, 2);
//! backend.gemm(&[Gemm::product(square, square, square)], &a, &a, &mut c).unwrap();
//! assert_eq!(backend.fetch(&c, 0..4).unwrap(), [7.0, 10.0, 15.0, 22.0]);
//! ```
//! One thread means this thread: nothing is handed to another one. With more, a pool of its own works on tiles,
//! samples and jobs; at a given number of threads the same calls give the same bits, and element-wise operations, sums,
//! normalisation and pooling give them at any number.
//!
//! # For implementers
//! One file per family of operations, each free functions on slices; `backend.rs` joins them to the trait.
//! All scratch lives in arenas that grow on first use, so that a training step settles into allocating nothing.
#![forbid(unsafe_code)]

mod arena;
mod backend;
mod buffer;
mod convolution;
mod elementwise;
mod factorisation;
mod kernel;
mod normalisation;
mod parallel;
mod pooling;
mod product;
mod reduction;
mod scalar;
mod view;

pub use backend::{Download, Faer, OutOfMemory, Verdict};
pub use buffer::Buffer;
pub use scalar::Real;
