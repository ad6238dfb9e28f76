//! Element-wise operations.

use crate::buffer::Buffer;
use crate::device::{Device, Pointer};
use crate::error::CudaError;
use crate::kernel::THREADS;
use crate::table::{MapEntry, MapTable, Place, Table, narrow};
use kronfleet_core::backend::{Buffer as _, Map, MapJob};
use kronfleet_core::matrix::Region;

/// Elements that a block of `map.cu` does.
const BLOCK: u32 = 4 * THREADS;

/// The number by which `map.cu` knows an operation, and its parameters.
fn code(op: Map<f32>) -> (u32, [f32; 3]) {
    match op {
        Map::Fill(value) => (0, [value, 0.0, 0.0]),
        Map::Axpby(alpha, beta) => (1, [alpha, beta, 0.0]),
        Map::Sum(alpha, beta) => (2, [alpha, beta, 0.0]),
        Map::MultiplyAdd(alpha, beta) => (3, [alpha, beta, 0.0]),
        Map::Divide => (4, [0.0; 3]),
        Map::Reciprocal => (5, [0.0; 3]),
        Map::Sqrt => (6, [0.0; 3]),
        Map::Maximum(alpha, beta) => (7, [alpha, beta, 0.0]),
        Map::Relu => (8, [0.0; 3]),
        Map::ReluGradient => (9, [0.0; 3]),
        Map::Tanh => (10, [0.0; 3]),
        Map::TanhGradient => (11, [0.0; 3]),
        Map::DivideByProduct(damping) => (12, [damping, 0.0, 0.0]),
        Map::DivideDamped(damping) => (13, [damping, 0.0, 0.0]),
        Map::Balance => (14, [0.0; 3]),
        Map::KlScale(kappa) => (15, [kappa, 0.0, 0.0]),
        Map::Finite => (16, [0.0; 3]),
        Map::Blend(old) => (17, [old, 0.0, 0.0]),
        Map::Moment(old) => (18, [old, 0.0, 0.0]),
        Map::AdamDirection(first, second, epsilon) => (19, [first, second, epsilon]),
        Map::Select => (20, [0.0; 3]),
        unknown => panic!("map.cu does not know {unknown:?} yet: add it there and here"),
    }
}

/// The same elements with rows and columns exchanged where that lets neighbouring threads write neighbours; packed
/// matrices as one column, which spares the device most divisions.
fn arranged(job: &MapJob) -> MapJob {
    let turn = job.out.row_step > job.out.column_step && job.out.columns > 1 && job.out.rows > 1;
    let arrange = |region: Region| if turn { region.transposed() } else { region };
    MapJob { x: arrange(job.x), y: arrange(job.y), out: arrange(job.out) }
}

/// See [`Backend::map`](kronfleet_core::backend::Backend::map).
pub(crate) fn map(
    device: &mut Device,
    op: Map<f32>,
    jobs: &[MapJob],
    x: Option<&Buffer>,
    y: Option<&Buffer>,
    out: &mut Buffer,
) -> Result<(), CudaError> {
    let (operation, [a, b, c]) = code(op);
    let mut reads = |buffer: Option<&Buffer>| buffer.map_or(Pointer::NONE, |buffer| device.reads(&buffer.0));
    let (first, second) = (reads(x), reads(y));
    let pointers = [first, second, device.writes(&out.0)];
    let mut table = MapTable::new(operation, 0, a, b, c);
    let mut blocks = 0;
    for job in jobs {
        job.check();
        job.out.check(out.len());
        [(x, job.x), (y, job.y)].into_iter().filter_map(|(b, r)| b.map(|b| (b, r))).for_each(|(b, r)| r.check(b.len()));
        if job.out.is_empty() {
            continue;
        }
        let MapJob { x: of_x, y: of_y, out: of_out } = arranged(job);
        // Regions of missing operands are not looked at and may lie anywhere.
        let place = |present: bool, region: Region| if present { Place::from(region) } else { Place::default() };
        let entry = MapEntry {
            rows: narrow(of_out.rows),
            columns: narrow(of_out.columns),
            x: place(x.is_some(), of_x),
            y: place(y.is_some(), of_y),
            out: Place::from(of_out),
        };
        table.push(entry, blocks);
        blocks += narrow(of_out.len()).div_ceil(BLOCK);
        if table.count() == MapTable::ROOM {
            device.launch("map", blocks, &table, &pointers)?;
            table.clear();
            blocks = 0;
        }
    }
    device.launch("map", blocks, &table, &pointers)
}
