//! Batch normalisation and EvoNorm-S0.
//!
//! Sums over columns are cut into chunks of [`CHUNK`] columns, so that many workgroups share them; what comes of the
//! chunks is joined in ascending order.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::{
    EVO_BACKWARD, EVO_FORWARD, EVO_SUMS, MOMENTS, MOMENTS_JOIN, NORMALISE, NORMALISE_ADJOINT, NORMALISE_SUMS, SUMS_JOIN,
};
use crate::patch::{GROUP, expect};
use crate::table::word;
use kronfleet_core::backend::{BatchNorm, EvoNorm};

const CHUNK: usize = 1024;

/// How columns are cut and channels are gathered.
#[derive(Clone, Copy, Debug)]
struct Cut {
    channels: usize,
    columns: usize,
    /// Channels of a workgroup.
    across: usize,
    chunks: usize,
}

impl Cut {
    fn new(channels: usize, columns: usize) -> Self {
        let across = channels.next_power_of_two().clamp(1, 64);
        Self { channels, columns, across, chunks: columns.div_ceil(CHUNK) }
    }

    fn groups(self) -> usize {
        self.channels.div_ceil(self.across) * self.chunks
    }

    /// What the tables of all shaders that sum over chunks begin with.
    fn table(self) -> [u32; 6] {
        [self.groups(), self.channels, self.columns, self.across, CHUNK, self.chunks].map(word)
    }
}

impl Wgpu {
    pub(crate) fn run_batch_norm_forward(
        &mut self,
        shape: &BatchNorm<f32>,
        columns: usize,
        (parameters, at): (&Buffer, usize),
        [x, y, saved]: [&Buffer; 3],
        (running, running_at): (&Buffer, usize),
    ) -> Result<(), WgpuError> {
        let (channels, len) = (shape.channels, shape.channels * columns);
        expect("columns", len, x);
        expect("columns", len, y);
        expect("statistics", 2 * channels, saved);
        expect("running statistics", running_at + 2 * channels, running);
        if columns == 0 {
            return Ok(());
        }
        let cut = Cut::new(channels, columns);
        let scratch = self.scratch(2 * channels * cut.chunks)?;
        let (of_x, of_saved) = (self.bind_all(x)?, self.bind_all(saved)?);
        let mut table = self.table();
        table.extend(cut.table());
        self.launch(&MOMENTS, table, &[of_x, scratch.clone()], cut.groups())?;
        let mut table = self.table();
        table.extend([channels, columns, CHUNK, cut.chunks].map(word));
        table.extend([shape.epsilon.to_bits(), shape.momentum.to_bits(), word(running_at)]);
        let of_running = self.bind_all(running)?;
        self.launch(&MOMENTS_JOIN, table, &[scratch, of_saved, of_running], channels.div_ceil(64))?;
        self.run_normalise(shape, columns, (parameters, at), (saved, 0), false, x, y)
    }

    pub(crate) fn run_normalise(
        &mut self,
        shape: &BatchNorm<f32>,
        columns: usize,
        (parameters, at): (&Buffer, usize),
        (statistics, statistics_at): (&Buffer, usize),
        evaluation: bool,
        x: &Buffer,
        y: &Buffer,
    ) -> Result<(), WgpuError> {
        let (channels, len) = (shape.channels, shape.channels * columns);
        expect("columns", len, x);
        expect("columns", len, y);
        expect("parameters", at + 2 * channels, parameters);
        expect("statistics", statistics_at + 2 * channels, statistics);
        let bound = [self.bind_all(parameters)?, self.bind_all(statistics)?, self.bind_all(x)?, self.bind_all(y)?];
        let mut table = self.table();
        table.extend([len, channels, at, statistics_at].map(word));
        table.extend([u32::from(evaluation), shape.epsilon.to_bits()]);
        self.launch(&NORMALISE, table, &bound, len.div_ceil(GROUP))
    }

    pub(crate) fn run_batch_norm_backward(
        &mut self,
        shape: &BatchNorm<f32>,
        columns: usize,
        (parameters, at): (&Buffer, usize),
        [x, saved, dy, gradient, dx]: [&Buffer; 5],
    ) -> Result<(), WgpuError> {
        let (channels, len) = (shape.channels, shape.channels * columns);
        for line in [x, dy, dx] {
            expect("columns", len, line);
        }
        expect("statistics", 2 * channels, saved);
        expect("parameters", at + 2 * channels, parameters);
        expect("gradients", at + 2 * channels, gradient);
        if columns == 0 {
            return Ok(());
        }
        let cut = Cut::new(channels, columns);
        let scratch = self.scratch(2 * channels * cut.chunks)?;
        let of = [x, saved, dy].map(|buffer| self.bind_all(buffer));
        let [of_x, of_saved, of_dy] = of;
        let (of_x, of_saved, of_dy) = (of_x?, of_saved?, of_dy?);
        let of_gradient = self.bind_all(gradient)?;
        let mut table = self.table();
        table.extend(cut.table());
        let bound = [of_x.clone(), of_saved.clone(), of_dy.clone(), scratch.clone()];
        self.launch(&NORMALISE_SUMS, table, &bound, cut.groups())?;
        let mut table = self.table();
        table.extend([channels, 2, cut.chunks, 0, at].map(word));
        self.launch(&SUMS_JOIN, table, &[scratch, of_gradient.clone()], (2 * channels).div_ceil(64))?;
        let mut table = self.table();
        table.extend([len, channels, columns, at, at].map(word));
        let bound = [self.bind_all(parameters)?, of_x, of_saved, of_dy, of_gradient, self.bind_all(dx)?];
        self.launch(&NORMALISE_ADJOINT, table, &bound, len.div_ceil(GROUP))
    }

    pub(crate) fn run_evo_norm_forward(
        &mut self,
        shape: &EvoNorm<f32>,
        batch: usize,
        (parameters, at): (&Buffer, usize),
        x: &Buffer,
        y: &Buffer,
    ) -> Result<(), WgpuError> {
        let len = shape.channels * shape.positions * batch;
        expect("samples", len, x);
        expect("samples", len, y);
        expect("parameters", at + 3 * shape.channels, parameters);
        let groups = batch * shape.groups;
        let bound = [self.bind_all(parameters)?, self.bind_all(x)?, self.bind_all(y)?];
        let mut table = self.table();
        table.extend([groups, shape.channels, shape.positions, shape.groups].map(word));
        table.extend([shape.epsilon.to_bits(), word(at)]);
        self.launch(&EVO_FORWARD, table, &bound, groups)
    }

    pub(crate) fn run_evo_norm_backward(
        &mut self,
        shape: &EvoNorm<f32>,
        batch: usize,
        (parameters, at): (&Buffer, usize),
        [x, dy, gradient, dx]: [&Buffer; 4],
    ) -> Result<(), WgpuError> {
        let (channels, columns) = (shape.channels, shape.positions * batch);
        for line in [x, dy, dx] {
            expect("samples", channels * columns, line);
        }
        expect("parameters", at + 3 * channels, parameters);
        expect("gradients", at + 3 * channels, gradient);
        let groups = batch * shape.groups;
        let cut = Cut::new(channels, columns);
        let scratch = self.scratch(groups + 3 * channels * cut.chunks)?;
        let (of_parameters, of_x, of_dy) = (self.bind_all(parameters)?, self.bind_all(x)?, self.bind_all(dy)?);
        let mut table = self.table();
        table.extend([groups, channels, shape.positions, shape.groups].map(word));
        table.extend([shape.epsilon.to_bits(), word(at)]);
        let of_dx = self.bind_all(dx)?;
        let bound = [of_parameters.clone(), of_x.clone(), of_dy.clone(), of_dx, scratch.clone()];
        self.launch(&EVO_BACKWARD, table, &bound, groups)?;
        let mut table = self.table();
        table.extend(cut.table());
        table.extend([shape.positions, shape.groups, at, groups].map(word));
        self.launch(&EVO_SUMS, table, &[of_parameters, of_x, of_dy, scratch.clone()], cut.groups())?;
        let mut table = self.table();
        table.extend([channels, 3, cut.chunks, groups, at].map(word));
        let of_gradient = self.bind_all(gradient)?;
        self.launch(&SUMS_JOIN, table, &[scratch, of_gradient], (3 * channels).div_ceil(64))
    }
}
