//! Pooling.

pub(crate) use kronfleet_core::backend::reference::{pool_backward, pool_forward};
