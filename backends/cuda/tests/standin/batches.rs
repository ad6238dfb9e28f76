//! Matrices of equal size go to the library in one call.

use kronfleet_core::backend::{Backend, Eigen, Invert};
use kronfleet_core::matrix::Region;
use kronfleet_core::seed::Seed;
use kronfleet_cuda::{Buffer, Cuda, CudaError};

/// Rows of the matrices of one call: six of a kind, two of a kind, one alone, an empty one, one that is too large.
const SIZES: [usize; 11] = [16, 33, 16, 16, 0, 16, 20, 16, 33, 16, 300];

/// Where they lie, some with a gap behind every column.
fn regions() -> (Vec<Region>, usize) {
    let mut end = 0;
    let places = SIZES.iter().enumerate().map(|(job, &n)| {
        let step = if n == 16 { 19 } else { n };
        let region = Region { column_step: step, ..Region::matrix(end, n, n) };
        end += (step * n).next_multiple_of(64) + job % 2 * 64;
        region
    });
    (places.collect(), end)
}

/// Positive definite matrices, all of them, with NaN wherever nothing should be read.
fn matrices(regions: &[Region], len: usize) -> Vec<f32> {
    let mut random = Seed(11).derive("batches", 0).random();
    let mut content = vec![f32::NAN; len];
    for &region in regions {
        let n = region.rows;
        let m: Vec<f32> = (0..n * 4).map(|_| random.normal() as f32).collect();
        for column in 0..n {
            for row in column..n {
                let product: f32 = (0..4).map(|k| m[row + k * n] * m[column + k * n]).sum();
                content[region.index(row, column)] = product + f32::from(u8::from(row == column)) * 2.0;
            }
        }
    }
    content
}

fn upload(backend: &mut Cuda, content: &[f32]) -> Result<Buffer, CudaError> {
    let mut buffer = backend.allocate(content.len())?;
    backend.upload(content, &mut buffer, 0)?;
    Ok(buffer)
}

/// Factors, inverses and eigenpairs of all of them multiply back, bad ones are told apart, and launches are few.
pub(crate) fn multiply_back(make: &dyn Fn() -> Cuda) -> Result<(), String> {
    let mut backend = make();
    check(&mut backend).map_err(|error| error.to_string())?
}

fn check(backend: &mut Cuda) -> Result<Result<(), String>, CudaError> {
    let (regions, len) = regions();
    let content = matrices(&regions, len);
    let mut spoilt = content.clone();
    // One of six is not positive definite, one of the large ones is no number.
    let (negative, nan) = (3, 10);
    spoilt[regions[negative].index(5, 5)] = -1.0;
    spoilt[regions[nan].index(7, 2)] = f32::NAN;
    let a =
        |region: Region, row: usize, column: usize| f64::from(content[region.index(row.max(column), row.min(column))]);
    let near = |what: &str, region: Region, row: usize, column: usize, seen: f64, wanted: f64| {
        let n = region.rows as f64;
        let size: f64 = (0..region.rows).map(|i| a(region, i, i)).sum();
        // A small multiple of n·ε of the norm, which the trace bounds (Higham, theorem 10.3); it is the condition, too.
        let bound = 16.0 * n * f64::from(f32::EPSILON) * size;
        if (seen - wanted).abs() <= bound {
            Ok(())
        } else {
            Err(format!("{what}: ({row}, {column}) of {n} rows is {seen}, not {wanted} ± {bound:e}"))
        }
    };

    let mut factors = upload(backend, &spoilt)?;
    let before = backend.counters().launches;
    let ticket = backend.cholesky(&regions, &mut factors)?;
    let launches = backend.counters().launches - before;
    let mut sound = [true; SIZES.len()];
    backend.verdict(ticket, &mut sound)?;
    for (job, &sound) in sound.iter().enumerate() {
        if sound == (job == negative || job == nan) {
            return Ok(Err(format!("matrix {job} is sound: {sound}")));
        }
    }
    // A list of pointers, six, two, two alone, and what became of them.
    if launches > 6 {
        return Ok(Err(format!("{launches} launches factorise {} matrices", SIZES.len())));
    }

    let mut factors = upload(backend, &content)?;
    backend.cholesky(&regions, &mut factors)?;
    let mut inverses = backend.allocate(len)?;
    let jobs: Vec<Invert> = regions.iter().map(|&region| Invert { factor: region, out: region }).collect();
    let before = backend.counters().launches;
    backend.cholesky_invert(&jobs, &factors, &mut inverses)?;
    let launches = backend.counters().launches - before;
    // A copy and two alone; two lists of pointers, two fills, two halves of two batches; the mirror images.
    if launches > 12 {
        return Ok(Err(format!("{launches} launches invert {} matrices", SIZES.len())));
    }
    let (l, x) = (backend.fetch(&factors, 0..len)?, backend.fetch(&inverses, 0..len)?);
    let mut vectors = upload(backend, &content)?;
    let lines: usize = SIZES.iter().sum();
    let mut values = backend.allocate(lines)?;
    let mut end = 0;
    let jobs: Vec<Eigen> = regions
        .iter()
        .map(|&matrix| {
            end += matrix.rows;
            Eigen { matrix, values: Region::vector(end - matrix.rows, matrix.rows) }
        })
        .collect();
    let before = backend.counters().launches;
    backend.symmetric_eigen(&jobs, &mut vectors, &mut values)?;
    let launches = backend.counters().launches - before;
    // Two of our own, two alone, two batches, packing, unpacking twice.
    if launches > 9 {
        return Ok(Err(format!("{launches} launches decompose {} matrices", SIZES.len())));
    }
    let (q, d) = (backend.fetch(&vectors, 0..len)?, backend.fetch(&values, 0..lines)?);
    for (&region, job) in regions.iter().zip(&jobs) {
        let n = region.rows;
        let of = |line: &[f32], row: usize, column: usize| f64::from(line[region.index(row, column)]);
        for column in 0..n {
            for row in 0..n {
                let low = row.min(column);
                let square: f64 = (0..=low).map(|k| of(&l, row, k) * of(&l, column, k)).sum();
                let one: f64 = (0..n).map(|k| a(region, row, k) * of(&x, k, column)).sum();
                let turned: f64 =
                    (0..n).map(|k| of(&q, row, k) * f64::from(d[job.values.offset + k]) * of(&q, column, k)).sum();
                let wanted = a(region, row, column);
                let identity = f64::from(u8::from(row == column));
                let outcome = near("L·Lᵀ", region, row, column, square, wanted)
                    .and_then(|()| near("A·A⁻¹", region, row, column, one, identity))
                    .and_then(|()| near("Q·d·Qᵀ", region, row, column, turned, wanted));
                if outcome.is_err() {
                    return Ok(outcome);
                }
            }
        }
    }
    Ok(Ok(()))
}
