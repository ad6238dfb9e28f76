//! Batch normalisation and EvoNorm-S0.

pub(crate) use kronfleet_core::backend::reference::{
    batch_norm_backward, batch_norm_evaluate, batch_norm_forward, evo_norm_backward, evo_norm_forward,
};
