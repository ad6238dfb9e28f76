//! Maximum and mean pooling.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::{POOL_BACKWARD, POOL_FORWARD};
use crate::patch::{GROUP, expect, geometry};
use crate::table::word;
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
        let bound = [self.bind_all(x)?, self.bind_all(y)?];
        let mut table = self.table();
        table.extend([word(len), u32::from(shape.pool == Pool::Mean)]);
        table.extend(geometry(&shape.windows));
        self.launch(&POOL_FORWARD, table, &bound, len.div_ceil(GROUP))
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
        let bound = [self.bind_or_nothing(x, 0..len)?, self.bind_all(dy)?, self.bind_all(dx)?];
        let mut table = self.table();
        table.extend([word(len), u32::from(shape.pool == Pool::Mean)]);
        table.extend(geometry(&shape.windows));
        self.launch(&POOL_BACKWARD, table, &bound, len.div_ceil(GROUP))
    }
}
