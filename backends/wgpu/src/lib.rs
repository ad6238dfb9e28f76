//! The GPU backend of kronfleet, on [wgpu](https://wgpu.rs): `f32`, WGSL shaders, any device with a Vulkan driver,
//! no unsafe code.
//!
//! # For users
//! [`Wgpu::new`] takes the best GPU there is; a machine without one but with Mesa's lavapipe computes on its CPU, slowly.
//!
//! ```no_run
//! use kronfleet_core::backend::{Backend, Gemm};
//! use kronfleet_core::matrix::Region;
//! use kronfleet_wgpu::{Choice, Device, Wgpu};
//!
//! let device = Device::open(&Choice::Best)?;
//! println!("computing on {}", device.adapter());
//! let mut backend = Wgpu::new(&device)?;
//! let mut a = backend.allocate(4)?;
//! let mut c = backend.allocate(4)?;
//! backend.upload(&[1.0, 2.0, 3.0, 4.0], &mut a, 0)?;
//! let square = Region::matrix(0, 2, 2);
//! backend.gemm(&[Gemm::product(square, square.transposed(), square)], &a, &a, &mut c)?;
//! assert_eq!(backend.fetch(&c, 0..4)?, [10.0, 14.0, 14.0, 20.0]);
//! # Ok::<(), kronfleet_wgpu::WgpuError>(())
//! ```
//!
//! # For implementers
//! One file per family of operations, with the same names as in the CPU backends, and one WGSL file per shader, which
//! begins with the equation it computes. An operation writes a *table* of its jobs and launches a shader on it; `queue`
//! gathers launches, tables, uploads and copies and hands them to the driver together. Sums run in an order that
//! depends on shapes alone, so that the same calls give the same bits.
#![forbid(unsafe_code)]

mod adapter;
mod backend;
mod buffer;
mod convolution;
mod device;
mod eigen;
mod elementwise;
mod error;
mod factorisation;
mod kernel;
mod lines;
mod normalisation;
mod options;
mod patch;
mod pooling;
mod product;
mod queue;
mod reduction;
mod softmax;
mod table;
mod ticket;
#[cfg(test)]
mod traffic;
mod tuning;

pub use adapter::{Adapter, Choice, adapters};
pub use backend::Wgpu;
pub use buffer::Buffer;
pub use device::Device;
pub use error::WgpuError;
pub use options::{Options, Tuning};
pub use ticket::{Download, Verdict};
pub use tuning::{Class, Clock, Variant};
