//! How many threads compute.

use anyhow::{Context, Result};

/// Sets the number of threads that compute; 0 takes every core. To be called once, first.
///
/// # Errors
/// If threads are computing already.
pub fn set_threads(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("--threads comes too late")
}
