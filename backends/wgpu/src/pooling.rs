//! Maximum and mean pooling.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::{POOL_BACKWARD, POOL_FORWARD};
use crate::lines::{Line, Work};
use crate::patch::{GROUP, expect, geometry, rows, scalars};
use kronfleet_core::backend::{Pool, Pooling};

impl Wgpu {
    pub(crate) fn run_pool_forward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Buffer,
        y: &Buffer,
    ) -> Result<(), WgpuError> {
        let len = batch * shape.windows.output.len();
        expect("samples", batch * shape.windows.input.len(), x);
        expect("samples", len, y);
        let windows = &shape.windows;
        let (rows, each) = (rows(windows), windows.output.channels * windows.output.width);
        let of_x = Line::new(x, |lines| scalars(rows.seen(lines), windows.input.channels * windows.input.width));
        let work = Work { kernel: &POOL_FORWARD, lines: batch * windows.output.height, each, group: GROUP };
        self.run_lines(work, &[of_x, Line::each(y, each)], None, &facts(shape))
    }

    pub(crate) fn run_pool_backward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Buffer,
        dy: &Buffer,
        dx: &Buffer,
    ) -> Result<(), WgpuError> {
        let len = batch * shape.windows.input.len();
        expect("samples", batch * shape.windows.output.len(), dy);
        expect("samples", len, dx);
        // Of a mean x is not read, and may be anything.
        let x = (shape.pool == Pool::Maximum).then_some(x);
        if let Some(x) = x {
            expect("samples", len, x);
        }
        let windows = &shape.windows;
        let (rows, each) = (rows(windows), windows.input.channels * windows.input.width);
        // All of what the windows see that see a pixel.
        let of_x = x.map_or_else(Line::nothing, |x| Line::new(x, |lines| scalars(rows.seen(rows.seeing(lines)), each)));
        let of_dy = Line::new(dy, |lines| scalars(rows.seeing(lines), windows.output.channels * windows.output.width));
        let work = Work { kernel: &POOL_BACKWARD, lines: batch * windows.input.height, each, group: GROUP };
        self.run_lines(work, &[of_x, of_dy, Line::each(dx, each)], None, &facts(shape))
    }
}

/// What follows in tables: whether it is the mean, and the geometry.
fn facts(shape: &Pooling) -> Vec<u32> {
    [&[u32::from(shape.pool == Pool::Mean)][..], &geometry(&shape.windows)].concat()
}
