//! Sums.

use crate::buffer::Buffer;
use crate::device::{Device, Pointer};
use crate::error::CudaError;
use crate::kernel::THREADS;
use crate::table::{Place, ReduceEntry, ReduceTable, Table, narrow};
use kronfleet_core::backend::{Buffer as _, ReduceJob};

/// Sums of fewer terms are done by one thread each.
const LONG: usize = 64;

/// See [`Backend::reduce`](kronfleet_core::backend::Backend::reduce).
pub(crate) fn reduce(
    device: &mut Device,
    jobs: &[ReduceJob<f32>],
    x: &Buffer,
    y: Option<&Buffer>,
    out: &mut Buffer,
) -> Result<(), CudaError> {
    for job in jobs {
        job.check();
        job.x.check(x.len());
        job.out.check(out.len());
        if let Some(y) = y {
            job.y.check(y.len());
        }
    }
    let other = y.map_or(Pointer::NONE, |y| device.pointer(&y.0));
    let pointers = [device.pointer(&x.0), other, device.pointer(&out.0)];
    launch(device, "reduce_long", jobs, true, y.is_some(), &pointers)?;
    launch(device, "reduce_short", jobs, false, y.is_some(), &pointers)
}

/// How many rows and columns each element of `out` sums.
fn summed(job: &ReduceJob<f32>) -> (usize, usize) {
    let along = |out: usize, x: usize| if out == 1 { x } else { 1 };
    (along(job.out.rows, job.x.rows), along(job.out.columns, job.x.columns))
}

/// The jobs whose sums are long, or the others.
fn launch(
    device: &mut Device,
    kernel: &'static str,
    jobs: &[ReduceJob<f32>],
    long: bool,
    multiplied: bool,
    pointers: &[Pointer],
) -> Result<(), CudaError> {
    let mut table = ReduceTable::new(0);
    let mut blocks = 0;
    for job in jobs.iter().filter(|job| !job.out.is_empty()) {
        let (rows, columns) = summed(job);
        if (rows * columns >= LONG) != long {
            continue;
        }
        let entry = ReduceEntry {
            rows: narrow(job.out.rows),
            columns: narrow(job.out.columns),
            summed_rows: narrow(rows),
            summed_columns: narrow(columns),
            x: Place::from(job.x),
            y: if multiplied { Place::from(job.y) } else { Place::default() },
            out: Place::from(job.out),
            alpha: job.alpha,
            beta: job.beta,
        };
        table.push(entry, blocks);
        let elements = narrow(job.out.len());
        blocks += if long { elements } else { elements.div_ceil(THREADS) };
        if table.count() == ReduceTable::ROOM {
            device.launch(kernel, blocks, &table, pointers)?;
            table.clear();
            blocks = 0;
        }
    }
    device.launch(kernel, blocks, &table, pointers)
}
