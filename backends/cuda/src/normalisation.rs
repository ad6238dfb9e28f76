//! Batch normalisation and EvoNorm-S0.

use crate::buffer::Buffer;
use crate::device::{Device, Pointer, Workspace};
use crate::error::CudaError;
use crate::kernel::{THREADS, line};
use crate::shape::{BatchNormTable, EvoNormTable};
use crate::table::{Place, ReduceEntry, ReduceTable, Table, narrow};
use kronfleet_core::backend::{BatchNorm, EvoNorm};
use kronfleet_core::matrix::Region;

/// Channels that a block of `batch_norm.cu` has.
const LANES: u32 = 32;
/// More chunks do not make a device busier.
const CHUNKS: usize = 128;
/// Columns that are worth a block of their own.
const CHUNK: usize = 256;

/// A vector of parameters: its buffer and where it begins.
type At<'a> = (&'a Buffer, usize);

fn batch_norm(shape: &BatchNorm<f32>, columns: usize) -> BatchNormTable {
    let chunk = columns.div_ceil(CHUNKS).max(CHUNK);
    BatchNormTable {
        channels: narrow(shape.channels),
        columns: narrow(columns),
        chunks: narrow(columns.div_ceil(chunk)),
        chunk: narrow(chunk),
        parameters: 0,
        running: 0,
        gradient: 0,
        epsilon: shape.epsilon,
        momentum: shape.momentum,
    }
}

/// `target ← Σ` over chunks of what lies behind each other in `partial`, `len` numbers per chunk.
fn join(device: &mut Device, partial: Pointer, chunks: u32, target: Pointer, len: usize) -> Result<(), CudaError> {
    let mut table = ReduceTable::new(0);
    let x = Place::from(Region::matrix(0, len, chunks as usize));
    let out = Place::from(Region::vector(0, len));
    let rows = narrow(len);
    let shape = ReduceEntry { rows, columns: 1, summed_rows: 1, summed_columns: chunks, ..ReduceEntry::default() };
    table.push(ReduceEntry { x, y: x, out, alpha: 1.0, beta: 0.0, ..shape }, 0);
    device.launch("reduce_short", rows.div_ceil(THREADS), &table, &[partial, Pointer::NONE, target])
}

/// See [`Backend::batch_norm_forward`](kronfleet_core::backend::Backend::batch_norm_forward).
pub(crate) fn batch_norm_forward(
    device: &mut Device,
    partials: &mut Workspace,
    shape: &BatchNorm<f32>,
    columns: usize,
    (parameters, parameters_at): At<'_>,
    x: &Buffer,
    (y, saved): (&mut Buffer, &mut Buffer),
    (running, running_at): (&mut Buffer, usize),
) -> Result<(), CudaError> {
    let (channels, len) = (shape.channels, shape.channels * columns);
    parameters.check("batch normalisation reads", parameters_at, 2 * channels);
    x.check("batch normalisation reads", 0, len);
    y.check("batch normalisation writes", 0, len);
    saved.check("batch normalisation writes", 0, 2 * channels);
    running.check("batch normalisation writes", running_at, 2 * channels);
    if len == 0 {
        return Ok(());
    }
    let table =
        BatchNormTable { parameters: narrow(parameters_at), running: narrow(running_at), ..batch_norm(shape, columns) };
    let partial = partials.reserve(device, 2 * channels * table.chunks as usize)?;
    let [p, x] = [parameters, x].map(|buffer| device.reads(&buffer.0));
    let [y, saved, running] = [y, saved, running].map(|buffer| device.writes(&buffer.0));
    let blocks = table.channels.div_ceil(LANES) * table.chunks;
    device.launch("batch_norm_moments", blocks, &table, &[x, partial])?;
    device.launch("batch_norm_finish", line(channels), &table, &[partial, saved, running])?;
    device.launch("batch_norm_apply", line(len), &table, &[p, saved, x, y])
}

/// See [`Backend::batch_norm_evaluate`](kronfleet_core::backend::Backend::batch_norm_evaluate).
pub(crate) fn batch_norm_evaluate(
    device: &mut Device,
    shape: &BatchNorm<f32>,
    columns: usize,
    (parameters, parameters_at): At<'_>,
    (running, running_at): At<'_>,
    x: &Buffer,
    y: &mut Buffer,
) -> Result<(), CudaError> {
    let len = shape.channels * columns;
    parameters.check("batch normalisation reads", parameters_at, 2 * shape.channels);
    running.check("batch normalisation reads", running_at, 2 * shape.channels);
    x.check("batch normalisation reads", 0, len);
    y.check("batch normalisation writes", 0, len);
    let table =
        BatchNormTable { parameters: narrow(parameters_at), running: narrow(running_at), ..batch_norm(shape, columns) };
    let [p, running, x] = [parameters, running, x].map(|buffer| device.reads(&buffer.0));
    let pointers = [p, running, x, device.writes(&y.0)];
    device.launch("batch_norm_evaluate", line(len), &table, &pointers)
}

/// See [`Backend::batch_norm_backward`](kronfleet_core::backend::Backend::batch_norm_backward).
pub(crate) fn batch_norm_backward(
    device: &mut Device,
    partials: &mut Workspace,
    shape: &BatchNorm<f32>,
    columns: usize,
    (parameters, at): At<'_>,
    (x, saved, dy): (&Buffer, &Buffer, &Buffer),
    (gradient, dx): (&mut Buffer, &mut Buffer),
) -> Result<(), CudaError> {
    let (channels, len) = (shape.channels, shape.channels * columns);
    parameters.check("batch normalisation reads", at, 2 * channels);
    gradient.check("batch normalisation writes", at, 2 * channels);
    saved.check("batch normalisation reads", 0, 2 * channels);
    for buffer in [x, dy, &*dx] {
        buffer.check("batch normalisation reads and writes", 0, len);
    }
    if len == 0 {
        return Ok(());
    }
    let table = BatchNormTable { parameters: narrow(at), gradient: narrow(at), ..batch_norm(shape, columns) };
    let partial = partials.reserve(device, 2 * channels * table.chunks as usize)?;
    let [p, x, saved, dy] = [parameters, x, saved, dy].map(|buffer| device.reads(&buffer.0));
    let [gradient, dx] = [gradient, dx].map(|buffer| device.writes(&buffer.0));
    let blocks = table.channels.div_ceil(LANES) * table.chunks;
    device.launch("batch_norm_gradient", blocks, &table, &[x, saved, dy, partial])?;
    join(device, partial, table.chunks, gradient.element(at), 2 * channels)?;
    device.launch("batch_norm_backward", line(len), &table, &[p, x, saved, dy, gradient, dx])
}

fn evo_norm(shape: &EvoNorm<f32>, batch: usize, at: usize) -> EvoNormTable {
    assert!(
        shape.groups > 0 && shape.channels.is_multiple_of(shape.groups),
        "{} channels in {} groups",
        shape.channels,
        shape.groups
    );
    let chunk = batch.div_ceil(CHUNKS).max(1);
    EvoNormTable {
        channels: narrow(shape.channels),
        positions: narrow(shape.positions),
        groups: narrow(shape.groups),
        batch: narrow(batch),
        chunks: narrow(batch.div_ceil(chunk)),
        chunk: narrow(chunk),
        parameters: narrow(at),
        epsilon: shape.epsilon,
    }
}

/// See [`Backend::evo_norm_forward`](kronfleet_core::backend::Backend::evo_norm_forward).
pub(crate) fn evo_norm_forward(
    device: &mut Device,
    shape: &EvoNorm<f32>,
    batch: usize,
    (parameters, at): At<'_>,
    x: &Buffer,
    y: &mut Buffer,
) -> Result<(), CudaError> {
    let len = shape.channels * shape.positions * batch;
    parameters.check("EvoNorm reads", at, 3 * shape.channels);
    x.check("EvoNorm reads", 0, len);
    y.check("EvoNorm writes", 0, len);
    if len == 0 {
        return Ok(());
    }
    let table = evo_norm(shape, batch, at);
    let pointers = [device.reads(&parameters.0), device.reads(&x.0), device.writes(&y.0)];
    device.launch("evo_norm_forward", table.groups * table.batch, &table, &pointers)
}

/// See [`Backend::evo_norm_backward`](kronfleet_core::backend::Backend::evo_norm_backward).
pub(crate) fn evo_norm_backward(
    device: &mut Device,
    partials: &mut Workspace,
    shape: &EvoNorm<f32>,
    batch: usize,
    (parameters, at): At<'_>,
    (x, dy): (&Buffer, &Buffer),
    (gradient, dx): (&mut Buffer, &mut Buffer),
) -> Result<(), CudaError> {
    let (channels, len) = (shape.channels, shape.channels * shape.positions * batch);
    parameters.check("EvoNorm reads", at, 3 * channels);
    gradient.check("EvoNorm writes", at, 3 * channels);
    for buffer in [x, dy, &*dx] {
        buffer.check("EvoNorm reads and writes", 0, len);
    }
    let table = evo_norm(shape, batch, at);
    let scales = shape.groups * batch;
    let partial = partials.reserve(device, (3 * channels * table.chunks as usize + scales).max(1))?;
    let saved = partial.element(3 * channels * table.chunks as usize);
    let [p, x, dy] = [parameters, x, dy].map(|buffer| device.reads(&buffer.0));
    let [gradient, dx] = [gradient, dx].map(|buffer| device.writes(&buffer.0));
    if len > 0 {
        device.launch("evo_norm_backward", table.groups * table.batch, &table, &[p, x, dy, dx, saved])?;
        let blocks = table.channels.div_ceil(THREADS) * table.chunks;
        device.launch("evo_norm_gradient", blocks, &table, &[p, x, dy, saved, partial])?;
    }
    // Of no samples the sum is 0.
    join(device, partial, if len > 0 { table.chunks } else { 0 }, gradient.element(at), 3 * channels)
}
