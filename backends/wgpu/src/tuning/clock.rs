//! How long a batch of launches takes, by the device or by the host.

use crate::device::Device;
use crate::error::WgpuError;
use core::fmt;
use std::time::Duration;
use wgpu::BufferUsages;

/// What products were timed by when shaders were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The device's timestamps before the first and after the last launch: what handing over and waiting take is left out.
    Device,
    /// The host's, from asking to knowing, where the adapter has no timestamps or they stand still.
    Host,
}

impl Clock {
    pub(super) const ALL: [Self; 2] = [Self::Device, Self::Host];
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "the device's timestamps",
            Self::Host => "the host's clock",
        })
    }
}

/// Two timestamps of the device.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    queries: wgpu::QuerySet,
    /// Both, once a batch is done.
    pub(crate) ticks: wgpu::Buffer,
    /// Nanoseconds of a tick.
    period: f64,
}

impl Stopwatch {
    /// One where the device was opened with timestamps.
    pub(crate) fn of(device: &Device) -> Result<Option<Self>, WgpuError> {
        if !device.raw().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let descriptor = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 };
        Ok(Some(Self {
            queries: device.raw().create_query_set(&descriptor),
            ticks: device
                .memory(wgpu::QUERY_RESOLVE_BUFFER_ALIGNMENT, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC)?,
            period: f64::from(device.queue().get_timestamp_period()),
        }))
    }

    /// What a pass is told to take them at its beginning and end.
    pub(crate) fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    /// Puts them where they can be read.
    pub(crate) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.queries, 0..2, &self.ticks, 0);
    }

    /// The time between them; none if they stand still.
    pub(crate) fn elapsed(&self, [first, last]: [u64; 2]) -> Option<Duration> {
        let ticks = last.checked_sub(first).filter(|&ticks| ticks > 0)?;
        Some(Duration::from_nanos((ticks as f64 * self.period) as u64))
    }
}
