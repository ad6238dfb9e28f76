//! Cholesky factorisations, what is done with them, and eigendecompositions.

use crate::buffer::Buffer;
use crate::device::{Device, Memory, Pointer, Routine, Snapshot, SolverSquare, Workspace};
use crate::elementwise;
use crate::error::CudaError;
use crate::product::mirror;
use crate::table::{EigenEntry, EigenTable, Square, SquareTable, Table, narrow, signed};
use kronfleet_core::backend::{Buffer as _, Eigen, Invert, Map, MapJob, Solve};
use kronfleet_core::matrix::Region;

/// Memory that the routines share, one call after the other.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    room: Workspace,
    /// One number of cuSOLVER's per job.
    info: Workspace,
    /// One of ours per job.
    sound: Option<Memory>,
}

/// The matrix as cuSOLVER sees it.
fn square(start: Pointer, region: Region) -> SolverSquare {
    SolverSquare {
        n: signed(region.rows),
        start: start.element(region.offset),
        step: signed(region.column_step.max(region.rows)),
    }
}

#[track_caller]
fn check_square(what: &str, region: Region) {
    assert!(region.rows == region.columns, "{what} of a {}×{} matrix", region.rows, region.columns);
    assert!(region.row_step == 1 || region.rows <= 1, "{what} of a matrix with a row step of {}", region.row_step);
}

impl Scratch {
    /// Room for the largest of these matrices, by what the routine asks for.
    fn room(
        &mut self,
        device: &mut Device,
        routine: Routine,
        matrices: impl Iterator<Item = SolverSquare>,
    ) -> Result<(Pointer, i32), CudaError> {
        let mut most = 1;
        for matrix in matrices {
            most = most.max(device.room(routine, matrix)?);
        }
        let len = usize::try_from(most).expect("room is not negative");
        Ok((self.room.reserve(device, len)?, most))
    }

    /// A number of ours per job.
    fn sound(&mut self, device: &mut Device, len: usize) -> Result<&Memory, CudaError> {
        if self.sound.as_ref().is_none_or(|memory| memory.len() < len) {
            self.sound = None;
            self.sound = Some(device.allocate(len.next_power_of_two())?);
        }
        Ok(self.sound.as_ref().expect("it was just made"))
    }
}

/// See [`Backend::cholesky`](kronfleet_core::backend::Backend::cholesky); the snapshot is 1 per sound job.
pub(crate) fn cholesky(
    device: &mut Device,
    scratch: &mut Scratch,
    jobs: &[Region],
    matrices: &mut Buffer,
) -> Result<Snapshot, CudaError> {
    for &region in jobs {
        check_square("the Cholesky factor", region);
        region.check(matrices.len());
    }
    let start = device.writes(&matrices.0);
    let some = || jobs.iter().filter(|region| !region.is_empty()).map(|&region| square(start, region));
    let room = scratch.room(device, Routine::Factorise, some())?;
    let info = scratch.info.reserve(device, jobs.len().max(1))?;
    for (index, &region) in jobs.iter().enumerate().filter(|(_, region)| !region.is_empty()) {
        device.factorise(square(start, region), room, info.element(index))?;
    }
    let sound = scratch.sound(device, jobs.len().max(1))?;
    let flags = device.pointer(sound);
    for (chunk, jobs) in jobs.chunks(SquareTable::ROOM).enumerate() {
        let mut table = SquareTable::new(0);
        for (block, &region) in jobs.iter().enumerate() {
            table.push(Square::from(region), narrow(block));
        }
        let first = chunk * SquareTable::ROOM;
        let pointers = [start, info.element(first), flags.element(first)];
        device.launch("soundness", narrow(jobs.len()), &table, &pointers)?;
    }
    let sound = scratch.sound.as_ref().expect("it was made above");
    device.download(sound, 0..jobs.len())
}

/// See [`Backend::cholesky_solve`](kronfleet_core::backend::Backend::cholesky_solve).
pub(crate) fn solve(
    device: &mut Device,
    scratch: &mut Scratch,
    jobs: &[Solve],
    factors: &Buffer,
    x: &mut Buffer,
) -> Result<(), CudaError> {
    let info = scratch.info.reserve(device, 1)?;
    for job in jobs {
        job.check();
        job.factor.check(factors.len());
        job.x.check(x.len());
        if job.x.is_empty() {
            continue;
        }
        let sides = device.writes(&x.0).element(job.x.offset);
        let step = signed(job.x.column_step.max(job.x.rows));
        let factor = square(device.reads(&factors.0), job.factor);
        device.solve(factor, (sides, signed(job.x.columns), step), info)?;
    }
    Ok(())
}

/// See [`Backend::cholesky_invert`](kronfleet_core::backend::Backend::cholesky_invert).
pub(crate) fn invert(
    device: &mut Device,
    scratch: &mut Scratch,
    jobs: &[Invert],
    factors: &Buffer,
    out: &mut Buffer,
) -> Result<(), CudaError> {
    for job in jobs {
        check_square("the inverse", job.factor);
        check_square("the inverse", job.out);
        job.factor.check(factors.len());
        job.out.check(out.len());
        let (n, m) = (job.factor.rows, job.out.rows);
        assert!(n == m, "the inverse of a {n}×{n} matrix is not {m}×{m}");
    }
    let start = device.writes(&out.0);
    let some = || jobs.iter().filter(|job| !job.out.is_empty()).map(|job| square(start, job.out));
    let room = scratch.room(device, Routine::Invert, some())?;
    let info = scratch.info.reserve(device, 1)?;
    let copies: Vec<MapJob> = jobs.iter().map(|job| MapJob::unary(job.factor, job.out)).collect();
    elementwise::map(device, Map::Axpby(1.0, 0.0), &copies, Some(factors), None, out)?;
    for matrix in some() {
        device.invert(matrix, room, info)?;
    }
    mirror(device, jobs.iter().map(|job| job.out), out)
}

/// See [`Backend::symmetric_eigen`](kronfleet_core::backend::Backend::symmetric_eigen).
pub(crate) fn eigen(
    device: &mut Device,
    scratch: &mut Scratch,
    jobs: &[Eigen],
    matrices: &mut Buffer,
    values: &mut Buffer,
) -> Result<(), CudaError> {
    for job in jobs {
        check_square("the eigenvalues", job.matrix);
        job.matrix.check(matrices.len());
        job.values.check(values.len());
        let (n, len) = (job.matrix.rows, job.values.len());
        assert!(n == len && job.values.is_packed(), "eigenvalues of a {n}×{n} matrix are not {len}");
    }
    let start = device.writes(&matrices.0);
    let diagonals = device.writes(&values.0);
    let some: Vec<Eigen> = jobs.iter().filter(|job| !job.matrix.is_empty()).copied().collect();
    let room = scratch.room(device, Routine::Decompose, some.iter().map(|job| square(start, job.matrix)))?;
    let info = scratch.info.reserve(device, EigenTable::ROOM)?;
    let sound = scratch.sound(device, EigenTable::ROOM)?;
    let flags = device.pointer(sound);
    for jobs in some.chunks(EigenTable::ROOM) {
        let mut table = EigenTable::new(0);
        for (block, job) in jobs.iter().enumerate() {
            let Square { offset, n, column_step } = Square::from(job.matrix);
            table.push(EigenEntry { offset, n, column_step, values: narrow(job.values.offset) }, narrow(block));
        }
        device.launch("eigen_before", narrow(jobs.len()), &table, &[start, flags])?;
        for (index, job) in jobs.iter().enumerate() {
            let target = diagonals.element(job.values.offset);
            device.decompose(square(start, job.matrix), target, room, info.element(index))?;
        }
        device.launch("eigen_after", narrow(jobs.len()), &table, &[flags, info, diagonals])?;
    }
    Ok(())
}
