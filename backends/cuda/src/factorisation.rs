//! Cholesky factorisations, what is done with them, and eigendecompositions.

use crate::buffer::Buffer;
use crate::device::{Batch, Device, Memory, Pointer, Routine, Snapshot, SolverSquare, Workspace};
use crate::elementwise;
use crate::error::CudaError;
use crate::product::mirror;
use crate::table::{EigenEntry, EigenTable, Square, SquareTable, Table, narrow, signed};
use kronfleet_core::backend::{Buffer as _, Eigen, Invert, Map, MapJob, Solve};
use kronfleet_core::matrix::Region;
use std::collections::BTreeMap;

/// Memory that the routines share, one call after the other.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    room: Workspace,
    /// One number of cuSOLVER's per job.
    info: Workspace,
    /// One of ours per job.
    sound: Option<Memory>,
    /// Pointers to matrices of batches.
    pointers: [Workspace; 2],
    /// Matrices and values of batches, one behind the other.
    packed: Option<Buffer>,
}

/// Rows of the largest matrices that are done in batches; a larger one keeps a device busy by itself.
const SMALL: usize = 256;
/// The same for eigendecompositions: by Jacobi's method, which takes longer than others where matrices are not small.
const SMALL_EIGEN: usize = 64;

/// Jobs with their numbers.
type Numbered<J> = Vec<(usize, J)>;

/// Jobs of the same kind, several in a batch; and those that are left.
fn batches<J: Copy, K: Ord>(jobs: &[J], key: impl Fn(&J) -> Option<K>) -> (Vec<Numbered<J>>, Numbered<J>) {
    let mut kinds: BTreeMap<K, Numbered<J>> = BTreeMap::new();
    let mut left = Vec::new();
    for (index, job) in jobs.iter().copied().enumerate() {
        match key(&job) {
            Some(kind) => kinds.entry(kind).or_default().push((index, job)),
            None => left.push((index, job)),
        }
    }
    let (many, single): (Vec<_>, Vec<_>) = kinds.into_values().partition(|batch| batch.len() > 1);
    left.extend(single.into_iter().flatten());
    (many, left)
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

    /// Pointers to these matrices, in the order given; two lists can be had at once.
    fn pointers(
        &mut self,
        device: &mut Device,
        list: usize,
        start: Pointer,
        matrices: impl ExactSizeIterator<Item = Region>,
    ) -> Result<Pointer, CudaError> {
        // A pointer takes the place of two numbers.
        let target = self.pointers[list].reserve(device, 2 * matrices.len().max(1))?;
        let mut table = SquareTable::new(0);
        for (index, region) in matrices.enumerate() {
            table.push(Square::from(region), narrow(index));
            if table.count() == SquareTable::ROOM {
                device.launch("pointers", 1, &table, &[start, target])?;
                table.clear();
            }
        }
        if table.count() > 0 {
            device.launch("pointers", 1, &table, &[start, target])?;
        }
        Ok(target)
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
    let kind = |region: &Region| (1..=SMALL).contains(&region.rows).then_some((region.rows, region.column_step));
    let (many, single) = batches(jobs, kind);
    let single: Vec<(usize, Region)> = single.into_iter().filter(|(_, region)| !region.is_empty()).collect();
    let room = scratch.room(device, Routine::Factorise, single.iter().map(|&(_, region)| square(start, region)))?;
    let info = scratch.info.reserve(device, jobs.len().max(1))?;
    // Where the library says what became of a job.
    let mut places = vec![0; jobs.len()];
    let mut place = 0;
    if !many.is_empty() {
        let regions: Vec<Region> = many.iter().flatten().map(|&(_, region)| region).collect();
        let pointers = scratch.pointers(device, 0, start, regions.into_iter())?;
        for batch in &many {
            let of = batch_of(batch.len(), batch[0].1);
            device.factorise_batch(of, pointers.element(2 * place), info.element(place))?;
            for &(index, _) in batch {
                places[index] = place;
                place += 1;
            }
        }
    }
    for &(index, region) in &single {
        device.factorise(square(start, region), room, info.element(place))?;
        places[index] = place;
        place += 1;
    }
    let sound = scratch.sound(device, jobs.len().max(1))?;
    let flags = device.pointer(sound);
    for (chunk, jobs) in jobs.chunks(SquareTable::ROOM).enumerate() {
        let first = chunk * SquareTable::ROOM;
        let mut table = SquareTable::new(0);
        for (block, &region) in jobs.iter().enumerate() {
            table.push(Square::from(region), narrow(places[first + block]));
        }
        device.launch("soundness", narrow(jobs.len()), &table, &[start, info, flags.element(first)])?;
    }
    let sound = scratch.sound.as_ref().expect("it was made above");
    device.download(sound, 0..jobs.len())
}

/// So many matrices like this one.
fn batch_of(count: usize, region: Region) -> Batch {
    Batch { n: signed(region.rows), step: signed(region.column_step.max(region.rows)), count: signed(count) }
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
        job.check_in(factors.len(), x.len());
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
    let kind = |job: &Invert| {
        let steps = (job.factor.column_step, job.out.column_step);
        (1..=SMALL).contains(&job.out.rows).then_some((job.out.rows, steps))
    };
    let (many, single) = batches(jobs, kind);
    let single: Vec<Invert> = single.into_iter().map(|(_, job)| job).filter(|job| !job.out.is_empty()).collect();
    let room = scratch.room(device, Routine::Invert, single.iter().map(|job| square(start, job.out)))?;
    let info = scratch.info.reserve(device, 1)?;
    if !single.is_empty() {
        let copies: Vec<MapJob> = single.iter().map(|job| MapJob::unary(job.factor, job.out)).collect();
        elementwise::map(device, Map::Axpby(1.0, 0.0), &copies, Some(factors), None, out)?;
    }
    for job in &single {
        device.invert(square(start, job.out), room, info)?;
    }
    if !many.is_empty() {
        // There is no batched routine for inverses: the columns of 1 are solved for.
        let all: Vec<Invert> = many.iter().flatten().map(|&(_, job)| job).collect();
        let whole: Vec<MapJob> = all.iter().map(|job| MapJob::unary(job.out, job.out)).collect();
        elementwise::map(device, Map::Fill(0.0), &whole, None, None, out)?;
        let diagonals: Vec<MapJob> =
            all.iter().map(|job| MapJob::unary(job.out.diagonal(), job.out.diagonal())).collect();
        elementwise::map(device, Map::Fill(1.0), &diagonals, None, None, out)?;
        let source = device.reads(&factors.0);
        let of_factors = scratch.pointers(device, 0, source, all.iter().map(|job| job.factor))?;
        let of_out = scratch.pointers(device, 1, start, all.iter().map(|job| job.out))?;
        let mut place = 0;
        for batch in &many {
            let Invert { factor, out } = batch[0].1;
            let (of, step) = (batch_of(batch.len(), factor), signed(out.column_step.max(out.rows)));
            device.substitute_batch(of, of_factors.element(2 * place), of_out.element(2 * place), step)?;
            place += batch.len();
        }
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
    let info = scratch.info.reserve(device, EigenTable::ROOM)?;
    let sound = scratch.sound(device, EigenTable::ROOM)?;
    let flags = device.pointer(sound);
    for jobs in some.chunks(EigenTable::ROOM) {
        let kind = |job: &Eigen| (job.matrix.rows <= SMALL_EIGEN).then_some(job.matrix.rows);
        let (mut many, mut single) = batches(jobs, kind);
        // Packing and unpacking are launches, too.
        if many.iter().map(|batch| batch.len() - 1).sum::<usize>() <= 3 {
            single.extend(many.drain(..).flatten());
        }
        // Where the library says what became of a job: singles first.
        let mut places = vec![0; jobs.len()];
        for (place, &(index, _)) in single.iter().chain(many.iter().flatten()).enumerate() {
            places[index] = place;
        }
        let mut table = EigenTable::new(0);
        for (job, &place) in jobs.iter().zip(&places) {
            let Square { offset, n, column_step } = Square::from(job.matrix);
            table.push(EigenEntry { offset, n, column_step, values: narrow(job.values.offset) }, narrow(place));
        }
        device.launch("eigen_before", narrow(jobs.len()), &table, &[start, flags])?;
        let matrices_alone = single.iter().map(|(_, job)| square(start, job.matrix));
        let room = scratch.room(device, Routine::Decompose, matrices_alone)?;
        for (place, (_, job)) in single.iter().enumerate() {
            let target = diagonals.element(job.values.offset);
            device.decompose(square(start, job.matrix), target, room, info.element(place))?;
        }
        decompose_batches(device, scratch, &many, (matrices, values), info.element(single.len()))?;
        device.launch("eigen_after", narrow(jobs.len()), &table, &[flags, info, diagonals])?;
    }
    Ok(())
}

/// Copies matrices one behind the other, as the batched routine takes them, and back.
fn decompose_batches(
    device: &mut Device,
    scratch: &mut Scratch,
    many: &[Numbered<Eigen>],
    (matrices, values): (&mut Buffer, &mut Buffer),
    info: Pointer,
) -> Result<(), CudaError> {
    let all: Vec<Eigen> = many.iter().flatten().map(|&(_, job)| job).collect();
    if all.is_empty() {
        return Ok(());
    }
    let mut len = 0;
    let mut place = |region: Region| {
        let place = Region::matrix(len, region.rows, region.columns);
        len += region.len();
        place
    };
    let squares: Vec<Region> = all.iter().map(|job| place(job.matrix)).collect();
    let lines: Vec<Region> = all.iter().map(|job| place(job.values)).collect();
    let mut packed = match scratch.packed.take() {
        Some(packed) if packed.len() >= len => packed,
        _ => Buffer(device.allocate(len.next_power_of_two())?),
    };
    let copy = Map::Axpby(1.0, 0.0);
    let into: Vec<MapJob> = all.iter().zip(&squares).map(|(job, &place)| MapJob::unary(job.matrix, place)).collect();
    elementwise::map(device, copy, &into, Some(matrices), None, &mut packed)?;
    let start = device.writes(&packed.0);
    let mut first = 0;
    for batch in many {
        let of = batch_of(batch.len(), squares[first]);
        let operands = (start.element(squares[first].offset), start.element(lines[first].offset));
        let len = device.room_of_batch(of, operands.0, operands.1)?;
        let room = scratch.room.reserve(device, usize::try_from(len.max(1)).expect("room is not negative"))?;
        device.decompose_batch(of, operands, (room, len), info.element(first))?;
        first += batch.len();
    }
    let back: Vec<MapJob> = all.iter().zip(&squares).map(|(job, &place)| MapJob::unary(place, job.matrix)).collect();
    elementwise::map(device, copy, &back, Some(&packed), None, matrices)?;
    let back: Vec<MapJob> = all.iter().zip(&lines).map(|(job, &place)| MapJob::unary(place, job.values)).collect();
    elementwise::map(device, copy, &back, Some(&packed), None, values)?;
    scratch.packed = Some(packed);
    Ok(())
}
