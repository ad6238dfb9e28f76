//! Products.

use crate::buffer::Buffer;
use crate::device::{Device, Operand, Pointer, Symmetric};
use crate::elementwise;
use crate::error::CudaError;
use crate::kernel::THREADS;
use crate::table::{Square, SquareTable, Table, narrow, signed};
use kronfleet_core::backend::{Buffer as _, Gemm, Map, MapJob, Outer};
use kronfleet_core::matrix::Region;

/// The matrix as BLAS sees it.
fn operand(start: Pointer, region: Region) -> Operand {
    let start = start.element(region.offset);
    // One row may have any row step, one column any column step.
    let straight = region.row_step == 1 || region.rows <= 1;
    let (transposed, lines, step) = if straight && (region.column_step >= region.rows || region.columns <= 1) {
        (false, region.rows, region.column_step)
    } else {
        (true, region.columns, region.row_step)
    };
    Operand { start, transposed, step: signed(step.max(lines).max(1)) }
}

/// See [`Backend::gemm`](kronfleet_core::backend::Backend::gemm).
pub(crate) fn gemm(
    device: &mut Device,
    jobs: &[Gemm<f32>],
    a: &Buffer,
    b: &Buffer,
    c: &mut Buffer,
) -> Result<(), CudaError> {
    let (first, second, target) = (device.reads(&a.0), device.reads(&b.0), device.writes(&c.0));
    for job in jobs {
        job.check_in(a.len(), b.len(), c.len());
        if job.c.is_empty() {
            continue;
        }
        if job.a.columns == 0 {
            elementwise::map(device, Map::Axpby(0.0, job.beta), &[MapJob::unary(job.c, job.c)], None, None, c)?;
            continue;
        }
        let extents = [signed(job.c.rows), signed(job.c.columns), signed(job.a.columns)];
        let step = signed(job.c.column_step.max(job.c.rows));
        let operands = (operand(first, job.a), operand(second, job.b));
        device.gemm(extents, (job.alpha, job.beta), operands, (target.element(job.c.offset), step))?;
    }
    Ok(())
}

/// See [`Backend::symmetric_product`](kronfleet_core::backend::Backend::symmetric_product).
pub(crate) fn symmetric(device: &mut Device, jobs: &[Outer<f32>], x: &Buffer, c: &mut Buffer) -> Result<(), CudaError> {
    for job in jobs {
        job.check_in(x.len(), c.len());
        // A sum of nothing: what is left is β·c.
        if job.x.columns == 0 && !job.c.is_empty() {
            elementwise::map(device, Map::Axpby(0.0, job.beta), &[MapJob::unary(job.c, job.c)], None, None, c)?;
        }
    }
    // Statistics for factors are asked for long before they are needed: they are summed beside what comes next.
    device.beside(&x.0, &c.0, |device, source, target| {
        for job in jobs.iter().filter(|job| job.x.columns > 0 && !job.c.is_empty()) {
            device.symmetric(Symmetric {
                n: signed(job.c.rows),
                k: signed(job.x.columns),
                alpha: job.alpha,
                x: operand(source, job.x),
                beta: job.beta,
                c: target.element(job.c.offset),
                step: signed(job.c.column_step.max(job.c.rows)),
            })?;
        }
        mirror_at(device, jobs.iter().map(|job| job.c), target)
    })
}

/// Copies the lower triangles of square matrices onto the upper ones, all in one launch.
pub(crate) fn mirror(
    device: &mut Device,
    regions: impl Iterator<Item = Region> + Clone,
    matrix: &mut Buffer,
) -> Result<(), CudaError> {
    for region in regions.clone() {
        region.check(matrix.len());
        assert!(
            region.rows == region.columns && (region.row_step == 1 || region.rows < 2),
            "a {}×{} matrix with a row step of {} has no two triangles here",
            region.rows,
            region.columns,
            region.row_step
        );
    }
    let start = device.writes(&matrix.0);
    mirror_at(device, regions, start)
}

/// The same where the regions were checked and the buffer begins at `start`.
fn mirror_at(device: &mut Device, regions: impl Iterator<Item = Region>, start: Pointer) -> Result<(), CudaError> {
    let pointers = [start];
    let mut table = SquareTable::new(0);
    let mut blocks = 0;
    for region in regions {
        // A single element is symmetric.
        if region.rows < 2 {
            continue;
        }
        table.push(Square::from(region), blocks);
        blocks += narrow(region.len()).div_ceil(THREADS);
        if table.count() == SquareTable::ROOM {
            device.launch("mirror", blocks, &table, &pointers)?;
            table.clear();
            blocks = 0;
        }
    }
    device.launch("mirror", blocks, &table, &pointers)
}
