//! The backend itself: memory, tickets and counters; what the operations share.

use crate::buffer::{Bound, Buffer, Limit};
use crate::device::Device;
use crate::error::WgpuError;
use crate::kernel::{Kernel, Stored};
use crate::queue::Queue;
use crate::ticket::{Download, Staging, Verdict, wait};
use crate::tuning::{Stopwatch, Variant};
use core::ops::Range;
use core::time::Duration;
use kronfleet_core::backend::{
    Backend, BatchNorm, Buffer as _, Convolution, Counters, Eigen, EvoNorm, Extent, Gemm, Invert, Map, MapJob, Outer,
    Pooling, ReduceJob, Softmax, Solve, Statistic,
};
use kronfleet_core::matrix::Region;
use wgpu::BufferUsages;

/// What memory of operations in hand is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room {
    /// Sums that are cut into parts.
    Scratch,
    /// Operands that are part of what is written.
    Copies,
    /// What factorisations say of themselves.
    Sound,
}

/// One in-order queue on a GPU.
#[derive(Debug)]
pub struct Wgpu {
    pub(crate) queue: Queue,
    pub(crate) counters: Counters,
    staging: Staging,
    /// Stands for a missing operand.
    nothing: Buffer,
    /// Memory of operations in hand, by [`Room`]; what comes later is ordered behind what uses it.
    rooms: [Option<Buffer>; 3],
    /// Memory of tables that were written.
    tables: Vec<Vec<u32>>,
    /// The shader of products that is being measured.
    pub(crate) forced: Option<Variant>,
}

impl Wgpu {
    /// A queue on this device that has done nothing yet.
    ///
    /// # Errors
    /// If device memory runs out or the device is lost.
    pub fn new(device: &Device) -> Result<Self, WgpuError> {
        let nothing = Self::zeros(device, 0)?;
        Ok(Self {
            queue: Queue::new(device)?,
            counters: Counters::default(),
            staging: Staging::default(),
            nothing,
            rooms: [None, None, None],
            tables: Vec::new(),
            forced: None,
        })
    }

    /// The device computed on.
    pub fn device(&self) -> &Device {
        self.queue.device()
    }

    /// How often work was handed to the driver.
    pub fn submissions(&self) -> u64 {
        self.queue.submissions
    }

    fn zeros(device: &Device, len: usize) -> Result<Buffer, WgpuError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let raw = device.memory((4 * len as u64).max(16), usage)?;
        Ok(Buffer::new(raw, device.buffer_id(), len))
    }

    pub(crate) fn limit(&self) -> Limit {
        Limit(self.device().adapter().binding_bytes)
    }

    /// Binds a buffer, or of one that is too large the part around `span`.
    pub(crate) fn bind(&self, buffer: &Buffer, span: Range<usize>) -> Result<Bound, WgpuError> {
        let (limit, bytes) = (self.limit(), 4 * span.len() as u64);
        buffer.bound(span, limit).ok_or(WgpuError::Binding { bytes, limit: limit.0 })
    }

    /// Binds a buffer, or something in place of one that there is not.
    pub(crate) fn bind_or_nothing(&self, buffer: Option<&Buffer>, span: Range<usize>) -> Result<Bound, WgpuError> {
        self.bind(buffer.unwrap_or(&self.nothing), if buffer.is_some() { span } else { 0..0 })
    }

    /// `len` scalars of unspecified content, for one operation.
    pub(crate) fn scratch(&mut self, len: usize) -> Result<Bound, WgpuError> {
        self.room(Room::Scratch, len)
    }

    /// The same, of several that an operation has at once.
    pub(crate) fn room(&mut self, room: Room, len: usize) -> Result<Bound, WgpuError> {
        let memory = self.take_room(room, len)?;
        let bound = self.bind(&memory, 0..len);
        self.give_room(room, memory);
        bound
    }

    /// Takes it out, to be used as an operand; [`give_room`](Self::give_room) puts it back.
    pub(crate) fn take_room(&mut self, room: Room, len: usize) -> Result<Buffer, WgpuError> {
        match self.rooms[room as usize].take() {
            Some(memory) if memory.len() >= len => Ok(memory),
            _ => Self::zeros(self.device(), len.next_power_of_two()),
        }
    }

    pub(crate) fn give_room(&mut self, room: Room, memory: Buffer) {
        self.rooms[room as usize] = Some(memory);
    }

    /// An empty table.
    pub(crate) fn table(&mut self) -> Vec<u32> {
        let mut table = self.tables.pop().unwrap_or_default();
        table.clear();
        table
    }

    /// Runs a shader on this table.
    pub(crate) fn launch(
        &mut self,
        kernel: &Kernel,
        table: Vec<u32>,
        bound: &[Bound],
        groups: usize,
    ) -> Result<(), WgpuError> {
        self.counters.launches += u64::from(groups > 0);
        let outcome = self.queue.launch(kernel, &table, bound, groups);
        self.tables.push(table);
        outcome
    }

    /// Lets the device take the time of what it is given; none for the host to do so.
    pub(crate) fn time_launches(&mut self, stopwatch: Option<Stopwatch>) {
        self.queue.stopwatch = stopwatch;
    }

    /// Whether the device takes the time.
    pub(crate) fn times_launches(&self) -> bool {
        self.queue.stopwatch.is_some()
    }

    /// Waits for all launches. Answers how long the last submission's first pass took, where the device takes the time and its
    /// clock does not stand still; one that does is not asked again.
    pub(crate) fn finish_timed(&mut self) -> Result<Option<Duration>, WgpuError> {
        self.queue.flush()?;
        let Some(stopwatch) = self.queue.stopwatch.take() else {
            wait(self.device())?;
            return Ok(None);
        };
        let ticket = self.staging.begin(&mut self.queue, &stopwatch.ticks, 0, 4)?;
        let mut ticks = [0_u64; 2];
        self.staging.finish(&mut self.queue, ticket, |bytes| {
            bytemuck::cast_slice_mut::<u64, u8>(&mut ticks).copy_from_slice(bytes);
        })?;
        let elapsed = stopwatch.elapsed(ticks);
        self.queue.stopwatch = elapsed.is_some().then_some(stopwatch);
        Ok(elapsed)
    }

    /// Asks for a snapshot of what is bound, from its beginning.
    pub(crate) fn snapshot(&mut self, source: &Bound, len: usize) -> Result<Download, WgpuError> {
        self.staging.begin(&mut self.queue, &source.memory.raw, source.base, len)
    }
}

impl Backend for Wgpu {
    type Scalar = f32;
    type Buffer = Buffer;
    type Download = Download;
    type Verdict = Verdict;
    type Error = WgpuError;

    fn allocate(&mut self, len: usize) -> Result<Buffer, WgpuError> {
        self.queue.sweep();
        let buffer = Self::zeros(self.device(), len)?;
        self.counters.allocations += 1;
        self.counters.allocated += len as u64;
        Ok(buffer)
    }

    fn upload(&mut self, source: &[f32], target: &mut Buffer, offset: usize) -> Result<(), WgpuError> {
        assert!(
            offset + source.len() <= target.len(),
            "{} scalars do not fit behind {offset} of {}",
            source.len(),
            target.len()
        );
        self.queue.upload(source, target, offset)?;
        self.counters.uploaded += source.len() as u64;
        self.counters.transfers += u64::from(!source.is_empty());
        Ok(())
    }

    fn download(&mut self, source: &Buffer, range: Range<usize>) -> Result<Download, WgpuError> {
        assert!(range.start <= range.end && range.end <= source.len(), "{range:?} lies outside {}", source.len());
        let ticket = self.staging.begin(&mut self.queue, &source.memory.raw, range.start, range.len())?;
        self.counters.downloaded += range.len() as u64;
        self.counters.transfers += u64::from(!range.is_empty());
        Ok(ticket)
    }

    fn finish(&mut self, ticket: Download, target: &mut [f32]) -> Result<(), WgpuError> {
        assert_eq!(ticket.len(), target.len(), "a snapshot is finished into another length");
        self.counters.host_waits += 1;
        self.staging.finish(&mut self.queue, ticket, |bytes| {
            bytemuck::cast_slice_mut::<f32, u8>(target).copy_from_slice(bytes);
        })
    }

    fn gemm(&mut self, jobs: &[Gemm<f32>], a: &Buffer, b: &Buffer, c: &mut Buffer) -> Result<(), WgpuError> {
        self.run_gemm(jobs, Stored::Full, a, b, c)
    }

    fn map(
        &mut self,
        op: Map<f32>,
        jobs: &[MapJob],
        x: Option<&Buffer>,
        y: Option<&Buffer>,
        out: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_map(op, jobs, x, y, out)
    }

    fn reduce(
        &mut self,
        jobs: &[ReduceJob<f32>],
        x: &Buffer,
        y: Option<&Buffer>,
        out: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_reduce(jobs, x, y, out)
    }

    fn cholesky(&mut self, jobs: &[Region], matrices: &mut Buffer) -> Result<Verdict, WgpuError> {
        self.run_cholesky(jobs, matrices)
    }

    fn cholesky_solve(&mut self, jobs: &[Solve], factors: &Buffer, x: &mut Buffer) -> Result<(), WgpuError> {
        self.run_solve(jobs, factors, x)
    }

    fn verdict(&mut self, ticket: Verdict, sound: &mut [bool]) -> Result<(), WgpuError> {
        assert_eq!(ticket.0.len(), sound.len(), "a verdict is finished into another number of jobs");
        self.counters.host_waits += 1;
        self.staging.finish(&mut self.queue, ticket.0, |bytes| {
            for (sound, word) in sound.iter_mut().zip(bytes.chunks_exact(4)) {
                *sound = word != [0; 4];
            }
        })
    }

    fn sync(&mut self) -> Result<(), WgpuError> {
        self.counters.host_waits += 1;
        self.queue.flush()?;
        wait(self.device())
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
    fn symmetric_product(&mut self, jobs: &[Outer<f32>], x: &Buffer, c: &mut Buffer) -> Result<(), WgpuError> {
        self.run_symmetric_product(jobs, Stored::Full, x, c)
    }

    fn mirror(&mut self, region: Region, matrix: &mut Buffer) -> Result<(), WgpuError> {
        self.run_mirror(&[region], matrix)
    }

    fn cholesky_invert(&mut self, jobs: &[Invert], factors: &Buffer, out: &mut Buffer) -> Result<(), WgpuError> {
        self.run_invert(jobs, factors, out)
    }
    fn symmetric_eigen(&mut self, jobs: &[Eigen], matrices: &mut Buffer, values: &mut Buffer) -> Result<(), WgpuError> {
        self.run_eigen(jobs, matrices, values)
    }

    /// The whole batch, as long as its patches can be bound at once; half of it where patches are stored in half precision, so
    /// that those of the whole batch take the memory of a tile.
    fn tile(&self, shape: &Convolution, batch: usize) -> usize {
        self.patch_tile(shape, batch)
    }

    fn unfold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        x: &Buffer,
        patches: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_unfold(shape, samples, false, x, patches)
    }

    fn fold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        patches: &Buffer,
        x: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_fold(shape, samples, patches, x)
    }

    fn convolution_forward(
        &mut self,
        shape: &Convolution,
        batch: usize,
        weights: (&Buffer, Region),
        x: &Buffer,
        y: &mut Buffer,
        statistic: Option<Statistic<'_, Self>>,
        scratch: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_convolution_forward(shape, batch, weights, [x, y, scratch], statistic)
    }

    fn convolution_backward(
        &mut self,
        shape: &Convolution,
        batch: usize,
        weights: (&Buffer, Region),
        x: &Buffer,
        dy: &Buffer,
        gradient: &mut Buffer,
        dx: Option<&mut Buffer>,
        statistic: Option<Statistic<'_, Self>>,
        scratch: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_convolution_backward(shape, batch, weights, [x, dy, gradient, scratch], dx.as_deref(), statistic)
    }

    fn pool_forward(&mut self, shape: &Pooling, batch: usize, x: &Buffer, y: &mut Buffer) -> Result<(), WgpuError> {
        self.run_pool_forward(shape, batch, x, y)
    }

    fn pool_backward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_pool_backward(shape, batch, x, dy, dx)
    }

    fn batch_norm_forward(
        &mut self,
        shape: &BatchNorm<f32>,
        columns: usize,
        parameters: (&Buffer, usize),
        x: &Buffer,
        y: &mut Buffer,
        saved: &mut Buffer,
        running: (&mut Buffer, usize),
    ) -> Result<(), WgpuError> {
        self.run_batch_norm_forward(shape, columns, parameters, [x, y, saved], (running.0, running.1))
    }

    fn batch_norm_evaluate(
        &mut self,
        shape: &BatchNorm<f32>,
        columns: usize,
        parameters: (&Buffer, usize),
        running: (&Buffer, usize),
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_normalise(shape, columns, parameters, running, true, x, y)
    }

    fn batch_norm_backward(
        &mut self,
        shape: &BatchNorm<f32>,
        columns: usize,
        parameters: (&Buffer, usize),
        x: &Buffer,
        saved: &Buffer,
        dy: &Buffer,
        gradient: &mut Buffer,
        dx: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_batch_norm_backward(shape, columns, parameters, [x, saved, dy, gradient, dx])
    }

    fn evo_norm_forward(
        &mut self,
        shape: &EvoNorm<f32>,
        batch: usize,
        parameters: (&Buffer, usize),
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_evo_norm_forward(shape, batch, parameters, x, y)
    }

    fn evo_norm_backward(
        &mut self,
        shape: &EvoNorm<f32>,
        batch: usize,
        parameters: (&Buffer, usize),
        x: &Buffer,
        dy: &Buffer,
        gradient: &mut Buffer,
        dx: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_evo_norm_backward(shape, batch, parameters, [x, dy, gradient, dx])
    }

    fn subsample(
        &mut self,
        input: Extent,
        output: Extent,
        stride: usize,
        batch: usize,
        accumulate: bool,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_subsample((input, output, stride), batch, Some(accumulate), x, y)
    }

    fn subsample_adjoint(
        &mut self,
        input: Extent,
        output: Extent,
        stride: usize,
        batch: usize,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_subsample((input, output, stride), batch, None, dy, dx)
    }

    fn softmax_cross_entropy(
        &mut self,
        shape: &Softmax<f32>,
        batch: usize,
        z: &Buffer,
        labels: &Buffer,
        dz: &mut Buffer,
        loss: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_cross_entropy(shape, batch, [z, labels, dz, loss])
    }

    fn sample_labels(
        &mut self,
        classes: usize,
        batch: usize,
        z: &Buffer,
        uniform: &Buffer,
        labels: &mut Buffer,
    ) -> Result<(), WgpuError> {
        self.run_sample_labels(classes, batch, [z, uniform, labels])
    }
}
