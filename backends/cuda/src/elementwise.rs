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
    let (operation, [a, b, c]) = op.code();
    let mut reads = |buffer: Option<&Buffer>| buffer.map_or(Pointer::NONE, |buffer| device.reads(&buffer.0));
    let (first, second) = (reads(x), reads(y));
    let pointers = [first, second, device.writes(&out.0)];
    let mut table = MapTable::new(operation, 0, a, b, c);
    let mut blocks = 0;
    for job in jobs {
        job.check_in(x.map(|x| x.len()), y.map(|y| y.len()), out.len());
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
