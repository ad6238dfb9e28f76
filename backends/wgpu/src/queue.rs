//! Work that was asked for and is not handed to the driver yet, in order.
//!
//! Job tables and small uploads of a whole batch travel in one write, copies and launches in one submission.

use crate::buffer::{Bound, Buffer, Memory};
use crate::device::{Device, Pipeline};
use crate::error::WgpuError;
use crate::kernel::Kernel;
use crate::tuning::Stopwatch;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use wgpu::BufferUsages;

/// Words of tables and uploads of one batch.
const TABLE: usize = 1 << 18;
/// Words of one launch's table, at most.
pub(crate) const WINDOW: usize = 1 << 13;
/// Launches of one batch: enough that handing over costs little, few enough that the device starts early.
const LAUNCHES: usize = 64;
/// Tables begin at multiples of this many words.
const ALIGNMENT: usize = 64;
/// Bind groups remembered.
const GROUPS: usize = 2048;

type GroupKey = (&'static str, Vec<(u64, usize, u64)>);

#[derive(Debug)]
struct Group {
    raw: wgpu::BindGroup,
    buffers: Vec<Weak<Memory>>,
}

#[derive(Debug)]
enum Command {
    Launch { pipeline: Arc<Pipeline>, group: wgpu::BindGroup, table: u32, grid: [u32; 2] },
    Copy { from: wgpu::Buffer, from_offset: u64, to: wgpu::Buffer, to_offset: u64, bytes: u64 },
}

/// One in-order queue.
#[derive(Debug)]
pub(crate) struct Queue {
    device: Device,
    commands: Vec<Command>,
    launches: usize,
    words: Vec<u32>,
    table: wgpu::Buffer,
    groups: BTreeMap<GroupKey, Group>,
    /// How many submissions there were.
    pub(crate) submissions: u64,
    /// Takes the time of every submission's first pass.
    pub(crate) stopwatch: Option<Stopwatch>,
}

impl Queue {
    pub(crate) fn new(device: &Device) -> Result<Self, WgpuError> {
        let bytes = 4 * (TABLE + WINDOW) as u64;
        let table = device.memory(bytes, BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST)?;
        Ok(Self {
            device: device.clone(),
            commands: Vec::new(),
            launches: 0,
            words: Vec::with_capacity(TABLE),
            table,
            groups: BTreeMap::new(),
            submissions: 0,
            stopwatch: None,
        })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Lets go of bind groups whose buffers are gone; they would keep the memory.
    pub(crate) fn sweep(&mut self) {
        self.groups.retain(|_, group| group.buffers.iter().all(|life| life.strong_count() > 0));
    }

    /// Runs `kernel` with this table in `groups` workgroups, after everything before.
    pub(crate) fn launch(
        &mut self,
        kernel: &Kernel,
        table: &[u32],
        bound: &[Bound],
        groups: usize,
    ) -> Result<(), WgpuError> {
        if groups == 0 {
            return Ok(());
        }
        assert!(table.len() <= WINDOW, "a table of {} words is longer than {WINDOW}", table.len());
        if self.words.len() + ALIGNMENT + table.len() > TABLE || self.launches >= LAUNCHES {
            self.flush()?;
        }
        let start = self.words.len().next_multiple_of(ALIGNMENT);
        self.words.resize(start, 0);
        self.words.extend_from_slice(table);
        let pipeline = self.device.pipeline(kernel);
        let group = self.group(kernel, &pipeline, bound);
        // One dimension of a grid ends at 65,535; shaders number the groups of both and stop at the count in their table.
        let across = groups.min(1 << 15);
        let grid = [across as u32, groups.div_ceil(across) as u32];
        self.commands.push(Command::Launch { pipeline, group, table: 4 * start as u32, grid });
        self.launches += 1;
        Ok(())
    }

    /// Copies scalars to `target[offset..]`, after everything before.
    pub(crate) fn upload(&mut self, source: &[f32], target: &Buffer, offset: usize) -> Result<(), WgpuError> {
        if source.is_empty() {
            return self.device.check();
        }
        let to_offset = 4 * offset as u64;
        if source.len() > TABLE / 2 {
            self.flush()?;
            self.device.queue().write_buffer(&target.memory.raw, to_offset, bytemuck::cast_slice(source));
            return self.device.check();
        }
        if self.words.len() + source.len() > TABLE {
            self.flush()?;
        }
        let from_offset = 4 * self.words.len() as u64;
        self.words.extend_from_slice(bytemuck::cast_slice(source));
        let bytes = size_of_val(source) as u64;
        let (from, to) = (self.table.clone(), target.memory.raw.clone());
        self.commands.push(Command::Copy { from, from_offset, to, to_offset, bytes });
        Ok(())
    }

    /// Copies `bytes` of `source` to the front of `target`, after everything before.
    pub(crate) fn copy(&mut self, source: &wgpu::Buffer, from_offset: u64, target: &wgpu::Buffer, bytes: u64) {
        let (from, to) = (source.clone(), target.clone());
        self.commands.push(Command::Copy { from, from_offset, to, to_offset: 0, bytes });
    }

    /// Hands all work to the driver.
    pub(crate) fn flush(&mut self) -> Result<(), WgpuError> {
        self.device.check()?;
        if self.commands.is_empty() {
            return Ok(());
        }
        if !self.words.is_empty() {
            self.device.queue().write_buffer(&self.table, 0, bytemuck::cast_slice(&self.words));
        }
        let mut encoder = self.device.raw().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass: Option<wgpu::ComputePass<'static>> = None;
        let mut untimed = self.stopwatch.as_ref();
        for command in self.commands.drain(..) {
            match command {
                Command::Launch { pipeline, group, table, grid } => {
                    let pass = pass.get_or_insert_with(|| {
                        let timestamp_writes = untimed.take().map(Stopwatch::writes);
                        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                        encoder.begin_compute_pass(&descriptor).forget_lifetime()
                    });
                    pass.set_pipeline(&pipeline.raw);
                    pass.set_bind_group(0, &group, &[table]);
                    pass.dispatch_workgroups(grid[0], grid[1], 1);
                }
                Command::Copy { from, from_offset, to, to_offset, bytes } => {
                    pass = None;
                    encoder.copy_buffer_to_buffer(&from, from_offset, &to, to_offset, Some(bytes));
                }
            }
        }
        drop(pass);
        if let (Some(stopwatch), None) = (&self.stopwatch, untimed) {
            stopwatch.resolve(&mut encoder);
        }
        self.words.clear();
        self.launches = 0;
        self.device.queue().submit([encoder.finish()]);
        self.submissions += 1;
        self.device.check()
    }

    fn group(&mut self, kernel: &Kernel, pipeline: &Pipeline, bound: &[Bound]) -> wgpu::BindGroup {
        let key = (kernel.name, bound.iter().map(|bound| (bound.memory.id, bound.base, bound.bytes)).collect());
        if let Some(group) = self.groups.get(&key) {
            return group.raw.clone();
        }
        if self.groups.len() >= GROUPS {
            self.groups.clear();
        }
        let binding = |buffer, offset, bytes| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(bytes) })
        };
        let mut entries =
            vec![wgpu::BindGroupEntry { binding: 0, resource: binding(&self.table, 0, 4 * WINDOW as u64) }];
        entries.extend((1..).zip(bound).map(|(number, bound)| wgpu::BindGroupEntry {
            binding: number,
            resource: binding(&bound.memory.raw, 4 * bound.base as u64, bound.bytes),
        }));
        let descriptor =
            wgpu::BindGroupDescriptor { label: Some(kernel.name), layout: &pipeline.layout, entries: &entries };
        let raw = self.device.raw().create_bind_group(&descriptor);
        let buffers = bound.iter().map(|bound| Arc::downgrade(&bound.memory)).collect();
        self.groups.insert(key, Group { raw: raw.clone(), buffers });
        raw
    }
}
