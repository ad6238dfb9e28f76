//! Snapshots on their way to the host.

use crate::device::Device;
use crate::error::WgpuError;
use crate::queue::Queue;
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;
use wgpu::BufferUsages;

/// How long another thread may take to call what it has taken, before the device is looked at again.
const PATIENCE: Duration = Duration::from_millis(100);

/// A snapshot on its way to the host.
#[derive(Debug)]
pub struct Download {
    staging: Option<wgpu::Buffer>,
    len: usize,
}

/// Which factorisations succeeded: a snapshot of one number per job.
#[derive(Debug)]
pub struct Verdict(pub(crate) Download);

/// Host-visible memory of tickets that were finished, for those to come.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    /// By size in bytes, a power of two.
    free: BTreeMap<u64, Vec<wgpu::Buffer>>,
}

impl Staging {
    /// Asks for a snapshot of `source[offset..offset + len]`.
    pub(crate) fn begin(
        &mut self,
        queue: &mut Queue,
        source: &wgpu::Buffer,
        offset: usize,
        len: usize,
    ) -> Result<Download, WgpuError> {
        if len == 0 {
            queue.device().check()?;
            return Ok(Download { staging: None, len });
        }
        let bytes = (4 * len as u64).next_power_of_two().max(256);
        let staging = match self.free.get_mut(&bytes).and_then(Vec::pop) {
            Some(staging) => staging,
            None => queue.device().memory(bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?,
        };
        queue.copy(source, 4 * offset as u64, &staging, 4 * len as u64);
        Ok(Download { staging: Some(staging), len })
    }

    /// Waits for a snapshot and shows it to `read`.
    pub(crate) fn finish(
        &mut self,
        queue: &mut Queue,
        ticket: Download,
        read: impl FnOnce(&[u8]),
    ) -> Result<(), WgpuError> {
        queue.flush()?;
        let Some(staging) = ticket.staging else {
            read(&[]);
            return Ok(());
        };
        let slice = staging.slice(..4 * ticket.len as u64);
        let (sender, receiver) = mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |outcome| {
            // Nobody listens any more where waiting itself failed.
            let _ = sender.send(outcome);
        });
        let mapped = answer(queue.device(), &receiver)?;
        let view = mapped.and_then(|()| slice.get_mapped_range().map_err(|error| error.to_string()));
        match view {
            Ok(view) => read(&view),
            Err(reason) => {
                // A mapping fails before it is said that the device is lost.
                wait(queue.device())?;
                return Err(WgpuError::Command { reason });
            }
        }
        staging.unmap();
        self.free.entry(staging.size()).or_default().push(staging);
        Ok(())
    }
}

impl Download {
    /// How many scalars it holds.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// Waits for what the driver says of a mapping.
///
/// All queues of a device share its callbacks: whoever polls it takes what is due, and may call it after the poll of whoever
/// asked has returned. So the poll does not end this wait, the answer does.
fn answer(
    device: &Device,
    receiver: &mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
) -> Result<Result<(), String>, WgpuError> {
    loop {
        wait(device)?;
        match receiver.recv_timeout(PATIENCE) {
            Ok(outcome) => return Ok(outcome.map_err(|error| error.to_string())),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(Err("a mapping was forgotten".to_owned())),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Waits until everything handed to the driver is done.
pub(crate) fn wait(device: &Device) -> Result<(), WgpuError> {
    let outcome = device.raw().poll(wgpu::PollType::wait_indefinitely());
    device.check()?;
    outcome.map(|_| ()).map_err(|error| WgpuError::Command { reason: error.to_string() })
}
