//! Backends on devices that may not be there.

use anyhow::{Context, Result};
use kronfleet_cuda::{Cuda, Options};

/// What makes backends on the first CUDA device, after one was made to see that it can be.
///
/// # Errors
/// If a library or the device is missing; the message says which, and what brings it.
///
/// # Panics
/// The function returned, if the device is lost or full by then.
pub(super) fn cuda() -> Result<impl Fn() -> Cuda + Sync> {
    let options = Options::default();
    Cuda::new(&options).context("--backend cuda cannot be had")?;
    Ok(move || Cuda::new(&options).unwrap_or_else(|error| panic!("the device was there and is lost: {error}")))
}
