//! Which device computes.

use crate::error::WgpuError;
use core::fmt;
use wgpu::{Backends, DeviceType, Instance, InstanceDescriptor};

/// Which adapter to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// A real GPU, a discrete one before an integrated one; else whatever there is.
    #[default]
    Best,
    /// The first whose name contains this text, letters' case aside.
    Named(String),
}

/// What an adapter says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// As the driver calls it.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// Whether it is hardware made for this, not a CPU that pretends.
    pub is_gpu: bool,
    /// The most bytes of one buffer that one operation sees.
    pub binding_bytes: u64,
    /// The most bytes of one buffer.
    pub buffer_bytes: u64,
    /// Whether its shaders know numbers in half precision.
    pub has_half: bool,
    /// Whether it says when it has begun and ended something.
    pub has_timestamps: bool,
    /// Bytes of memory that the threads of one workgroup share.
    pub workgroup_bytes: u32,
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}{})", self.name, self.driver, if self.is_gpu { "" } else { ", no GPU" })
    }
}

/// Every adapter that there is, the one that [`Choice::Best`] takes first. Asks the drivers, which takes milliseconds.
pub fn adapters() -> Vec<Adapter> {
    found().iter().map(describe).collect()
}

pub(crate) fn find(choice: &Choice) -> Result<wgpu::Adapter, WgpuError> {
    let found = found();
    match choice {
        Choice::Best => found.into_iter().next().ok_or(WgpuError::NoAdapter),
        Choice::Named(_) if found.is_empty() => Err(WgpuError::NoAdapter),
        Choice::Named(name) => {
            let known: Vec<String> = found.iter().map(|adapter| adapter.get_info().name).collect();
            let wanted = name.to_lowercase();
            let place = known.iter().position(|known| known.to_lowercase().contains(&wanted));
            let adapter = place.and_then(|place| found.into_iter().nth(place));
            adapter.ok_or_else(|| WgpuError::NoSuchAdapter { name: name.clone(), known })
        }
    }
}

pub(crate) fn describe(adapter: &wgpu::Adapter) -> Adapter {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    Adapter {
        is_gpu: rank(info.device_type) < rank(DeviceType::Cpu),
        driver: [info.driver, info.driver_info].join(" ").trim().to_owned(),
        name: info.name,
        has_half: adapter.features().contains(wgpu::Features::SHADER_F16),
        has_timestamps: adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY),
        binding_bytes: limits.max_storage_buffer_binding_size,
        buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
    }
}

fn found() -> Vec<wgpu::Adapter> {
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    descriptor.backends = Backends::VULKAN;
    // Validation layers and debug names are for work on shaders, and slow.
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = Instance::new(descriptor);
    let mut found = pollster::block_on(instance.enumerate_adapters(Backends::VULKAN));
    found.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    found
}

fn rank(kind: DeviceType) -> u8 {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}
