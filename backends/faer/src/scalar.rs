//! The scalars faer has kernels for.

use kronfleet_core::scalar::Scalar;

/// `f32` or `f64`.
pub trait Real: Scalar + faer::traits::RealField {}

impl Real for f32 {}
impl Real for f64 {}
