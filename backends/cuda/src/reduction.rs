//! Sums.

use crate::buffer::Buffer;
use crate::device::{Device, Pointer, Workspace};
use crate::error::CudaError;
use crate::kernel::THREADS;
use crate::table::{Place, ReduceEntry, ReduceTable, Table, narrow};
use kronfleet_core::backend::{Buffer as _, ReduceJob};

/// Sums of fewer terms are done by one thread each.
const LONG: usize = 64;
/// Sums of more terms are done by several blocks each, if there are not many of them anyway.
const HUGE: usize = 1 << 15;
/// How many terms each of them does.
const PART: usize = 1 << 13;
/// So many sums keep a device busy with a block each.
const MANY: usize = 1 << 9;

/// How a sum is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Short,
    Long,
    Huge,
}

/// See [`Backend::reduce`](kronfleet_core::backend::Backend::reduce).
pub(crate) fn reduce(
    device: &mut Device,
    partials: &mut Workspace,
    jobs: &[ReduceJob<f32>],
    x: &Buffer,
    y: Option<&Buffer>,
    out: &mut Buffer,
) -> Result<(), CudaError> {
    for job in jobs {
        job.check_in(x.len(), y.map(|y| y.len()), out.len());
    }
    let other = y.map_or(Pointer::NONE, |y| device.reads(&y.0));
    let pointers = [device.reads(&x.0), other, device.writes(&out.0)];
    let entries = |length| {
        let some = jobs.iter().filter(move |job| !job.out.is_empty() && length_of(job) == length);
        some.map(|job| entry(job, y.is_some()))
    };
    let elements = |entry: &ReduceEntry| entry.rows * entry.columns;
    launch(device, "reduce_long", entries(Length::Long), elements, &pointers)?;
    launch(device, "reduce_short", entries(Length::Short), |entry| elements(entry).div_ceil(THREADS), &pointers)?;
    if entries(Length::Huge).next().is_none() {
        return Ok(());
    }
    let room: u32 = entries(Length::Huge).map(|entry| elements(&entry) * parts(&entry)).sum();
    let partial = partials.reserve(device, room as usize)?;
    let mut next = 0;
    let first = entries(Length::Huge).map(|entry| {
        let parts = parts(&entry);
        let out = Place { offset: next, row_step: parts, column_step: narrow(PART) };
        next += elements(&entry) * parts;
        ReduceEntry { out, ..entry }
    });
    let blocks = |entry: &ReduceEntry| elements(entry) * parts(entry);
    launch(device, "reduce_part", first, blocks, &[pointers[0], pointers[1], partial])?;
    let mut next = 0;
    let second = entries(Length::Huge).map(|entry| {
        // A sum over one dimension at least leaves a row or a column.
        let parts = parts(&entry);
        let x = Place { offset: next, row_step: 1, column_step: parts };
        next += elements(&entry) * parts;
        let along = if entry.rows == 1 { entry.out.column_step } else { entry.out.row_step };
        let out = Place { offset: entry.out.offset, row_step: 0, column_step: along };
        let shape = ReduceEntry { rows: 1, columns: elements(&entry), summed_rows: parts, summed_columns: 1, ..entry };
        ReduceEntry { x, y: x, out, ..shape }
    });
    launch(device, "reduce_long", second, elements, &[partial, Pointer::NONE, pointers[2]])
}

/// How many rows and columns each element of `out` sums.
fn summed(job: &ReduceJob<f32>) -> (usize, usize) {
    let along = |out: usize, x: usize| if out == 1 { x } else { 1 };
    (along(job.out.rows, job.x.rows), along(job.out.columns, job.x.columns))
}

fn length_of(job: &ReduceJob<f32>) -> Length {
    let (rows, columns) = summed(job);
    match rows * columns {
        terms if terms < LONG => Length::Short,
        terms if terms > HUGE && job.out.len() < MANY => Length::Huge,
        _ => Length::Long,
    }
}

/// Blocks that share one huge sum.
fn parts(entry: &ReduceEntry) -> u32 {
    (entry.summed_rows * entry.summed_columns).div_ceil(narrow(PART))
}

fn entry(job: &ReduceJob<f32>, multiplied: bool) -> ReduceEntry {
    let (rows, columns) = summed(job);
    ReduceEntry {
        rows: narrow(job.out.rows),
        columns: narrow(job.out.columns),
        summed_rows: narrow(rows),
        summed_columns: narrow(columns),
        x: Place::from(job.x),
        y: if multiplied { Place::from(job.y) } else { Place::default() },
        out: Place::from(job.out),
        alpha: job.alpha,
        beta: job.beta,
    }
}

/// Launches a kernel over all entries, each with its number of blocks.
fn launch(
    device: &mut Device,
    kernel: &'static str,
    entries: impl Iterator<Item = ReduceEntry>,
    blocks_of: impl Fn(&ReduceEntry) -> u32,
    pointers: &[Pointer],
) -> Result<(), CudaError> {
    let mut table = ReduceTable::new(0);
    let mut blocks = 0;
    for entry in entries {
        table.push(entry, blocks);
        blocks += blocks_of(&entry);
        if table.count() == ReduceTable::ROOM {
            device.launch(kernel, blocks, &table, pointers)?;
            table.clear();
            blocks = 0;
        }
    }
    device.launch(kernel, blocks, &table, pointers)
}
