//! Backends on the adapter that `--adapter` names.

use anyhow::Result;
#[cfg(not(feature = "wgpu"))]
use anyhow::bail;
#[cfg(feature = "wgpu")]
use {
    anyhow::Context as _,
    kronfleet_wgpu::{Choice, Device, Wgpu},
};

/// What makes queues, all on one adapter, after one was made to see that it can be. Says on standard error which adapter
/// it is where that is no GPU.
///
/// # Errors
/// If there is no such adapter; the message says what to install, or what there is.
///
/// # Panics
/// The function returned, if the device is lost or full by then.
#[cfg(feature = "wgpu")]
pub(crate) fn wgpu(adapter: Option<&str>) -> Result<impl Fn() -> Wgpu + Sync + use<>> {
    let choice = adapter.map_or(Choice::Best, |name| Choice::Named(name.to_owned()));
    let device = Device::open(&choice).context("--backend wgpu cannot be had")?;
    if adapter.is_none() && !device.adapter().is_gpu {
        eprintln!("warning: no GPU was found; {} computes in its place, slowly", device.adapter());
    }
    if let Some(warning) = device.warning() {
        eprintln!("warning: {warning}");
    }
    Wgpu::new(&device).context("--backend wgpu cannot be had")?;
    Ok(move || Wgpu::new(&device).unwrap_or_else(|error| panic!("the device was there and is lost: {error}")))
}

/// What is said where the backend was left out when the program was built.
///
/// # Errors
/// Always.
#[cfg(not(feature = "wgpu"))]
pub(crate) fn left_out<T>() -> Result<T> {
    bail!("--backend wgpu: this program was built without wgpu; build it again with --features wgpu")
}
