//! Which devices there are.

use crate::Kind;
use core::fmt;
use kronfleet_core::error::{Error as _, ErrorKind};
use kronfleet_cuda::{Cuda, Options};
use kronfleet_wgpu::{Choice, Clock, Device, WgpuError, adapters};

/// How the stand-in for CUDA's libraries calls its device.
const STANDIN: &str = "CPU stand-in";

/// A device that was found and opened.
pub(crate) enum Found {
    /// Through wgpu.
    Wgpu {
        /// Opened.
        device: Device,
    },
    /// Through CUDA.
    Cuda {
        /// Which one, as the driver numbers them.
        options: Options,
        /// As the driver calls it.
        name: String,
    },
}

impl Found {
    /// As its driver calls it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Wgpu { device } => &device.adapter().name,
            Self::Cuda { name, .. } => name,
        }
    }

    /// What the shaders of products were timed by when they were chosen, where there are several.
    pub(crate) fn clock(&self) -> Option<Clock> {
        match self {
            Self::Wgpu { device } => device.clock(),
            Self::Cuda { .. } => None,
        }
    }

    /// The same device in half precision, where it has that.
    pub(crate) fn half(&self) -> Option<Result<Device, WgpuError>> {
        let Self::Wgpu { device } = self else { return None };
        let adapter = Choice::Named(device.adapter().name.clone());
        let options = kronfleet_wgpu::Options { adapter, half: true, ..kronfleet_wgpu::Options::default() };
        device.adapter().has_half.then(|| Device::open_with(&options))
    }

    /// Whether a CPU pretends to be the device.
    pub(crate) fn is_emulation(&self) -> bool {
        match self {
            Self::Wgpu { device } => !device.adapter().is_gpu,
            Self::Cuda { name, .. } => name == STANDIN,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wgpu { device } => write!(f, "wgpu: {}", device.adapter())?,
            Self::Cuda { name, options } => write!(f, "CUDA: {name} (device {})", options.device)?,
        }
        if self.is_emulation() { f.write_str(", an emulation on the CPU") } else { Ok(()) }
    }
}

/// All devices of a backend, or of both, whose names contain this text; and why there are no others.
pub(crate) fn find(backend: Option<Kind>, name: Option<&str>) -> (Vec<Found>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    if backend != Some(Kind::Cuda) {
        find_wgpu(&mut found, &mut missing);
    }
    if backend != Some(Kind::Wgpu) {
        find_cuda(&mut found, &mut missing);
    }
    if let Some(name) = name {
        let known: Vec<String> = found.iter().map(|found| found.name().to_owned()).collect();
        found.retain(|found| found.name().to_lowercase().contains(&name.to_lowercase()));
        if found.is_empty() {
            missing.push(format!("no device's name contains {name:?}; there are: {}", known.join(", ")));
        }
    }
    (found, missing)
}

fn find_wgpu(found: &mut Vec<Found>, missing: &mut Vec<String>) {
    let mut names: Vec<String> = adapters().into_iter().map(|adapter| adapter.name).collect();
    // One of several that are called the same is taken by its name.
    names.dedup();
    if names.is_empty() {
        missing.push(format!("wgpu: {}", WgpuError::NoAdapter));
    }
    for name in names {
        match Device::open(&Choice::Named(name.clone())) {
            Ok(device) => found.push(Found::Wgpu { device }),
            Err(error) => missing.push(format!("wgpu: {name}: {error}")),
        }
    }
}

fn find_cuda(found: &mut Vec<Found>, missing: &mut Vec<String>) {
    for device in 0.. {
        let options = Options { device, ..Options::default() };
        match Cuda::new(&options).and_then(|cuda| cuda.name()) {
            Ok(name) => found.push(Found::Cuda { options, name }),
            // Past the last one.
            Err(error) if device > 0 && error.kind() == ErrorKind::Unavailable => return,
            Err(error) => {
                missing.push(format!("CUDA: {error}"));
                return;
            }
        }
    }
}
