//! Batch normalisation and EvoNorm-S0.
//!
//! Sums over columns are cut into chunks of [`CHUNK`] columns, so that many workgroups share them; what comes of the
//! chunks is joined in ascending order.

use crate::backend::Wgpu;
use crate::buffer::{Bound, Buffer};
use crate::error::WgpuError;
use crate::kernel::{
    EVO_BACKWARD, EVO_FORWARD, EVO_SUMS, Kernel, MOMENTS, MOMENTS_JOIN, NORMALISE, NORMALISE_ADJOINT, NORMALISE_SUMS,
    SUMS_JOIN,
};
use crate::lines::{Line, Work};
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

    /// What launches a shader that sums over chunks.
    fn work(self, kernel: &Kernel) -> Work<'_> {
        Work { kernel, lines: self.chunks, each: self.channels.div_ceil(self.across), group: 1 }
    }

    /// The columns of chunks.
    fn line(self, buffer: &Buffer) -> Line<'_> {
        let Self { channels, columns, .. } = self;
        Line::new(buffer, move |chunks| chunks.start * CHUNK * channels..(chunks.end * CHUNK).min(columns) * channels)
    }

    /// What the tables of all shaders that sum over chunks say of it.
    fn facts(self) -> [u32; 5] {
        let Work { each, .. } = self.work(&MOMENTS);
        [self.channels, self.columns, self.across, CHUNK, each].map(word)
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
        self.run_lines(cut.work(&MOMENTS), &[cut.line(x)], Some(&scratch), &cut.facts())?;
        let of_saved = self.bind(saved, 0..2 * channels)?;
        let of_running = self.bind(running, running_at..running_at + 2 * channels)?;
        let mut table = self.table();
        table.extend([channels, columns, CHUNK, cut.chunks].map(word));
        table.extend([shape.epsilon.to_bits(), shape.momentum.to_bits(), word(running_at - of_running.base)]);
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
        let operands = [
            Line::all(parameters, at..at + 2 * channels),
            Line::all(statistics, statistics_at..statistics_at + 2 * channels),
            Line::each(x, channels),
            Line::each(y, channels),
        ];
        let facts = [word(channels), word(at), word(statistics_at), u32::from(evaluation), shape.epsilon.to_bits()];
        let work = Work { kernel: &NORMALISE, lines: columns, each: channels, group: GROUP };
        self.run_lines(work, &operands, None, &facts)
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
        let statistics = || Line::all(saved, 0..2 * channels);
        let operands = [cut.line(x), statistics(), cut.line(dy)];
        self.run_lines(cut.work(&NORMALISE_SUMS), &operands, Some(&scratch), &cut.facts())?;
        self.join(cut, 2, 0, scratch, (gradient, at))?;
        let operands = [
            Line::all(parameters, at..at + 2 * channels),
            Line::each(x, channels),
            statistics(),
            Line::each(dy, channels),
            Line::all(gradient, at..at + 2 * channels),
            Line::each(dx, channels),
        ];
        let work = Work { kernel: &NORMALISE_ADJOINT, lines: columns, each: channels, group: GROUP };
        self.run_lines(work, &operands, None, &[channels, columns, at, at].map(word))
    }

    /// Adds up what was summed over chunks, into the gradients of so many kinds of parameters.
    fn join(
        &mut self,
        cut: Cut,
        kinds: usize,
        first: usize,
        scratch: Bound,
        (gradient, at): (&Buffer, usize),
    ) -> Result<(), WgpuError> {
        let len = kinds * cut.channels;
        let of_gradient = self.bind(gradient, at..at + len)?;
        let mut table = self.table();
        table.extend([cut.channels, kinds, cut.chunks, first, at - of_gradient.base].map(word));
        self.launch(&SUMS_JOIN, table, &[scratch, of_gradient], len.div_ceil(64))
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
        let sample = shape.channels * shape.positions;
        let operands =
            [Line::all(parameters, at..at + 3 * shape.channels), Line::each(x, sample), Line::each(y, sample)];
        let work = Work { kernel: &EVO_FORWARD, lines: batch, each: shape.groups, group: 1 };
        self.run_lines(work, &operands, None, &evo_facts(shape, at))
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
        let of_parameters = || Line::all(parameters, at..at + 3 * channels);
        let sample = channels * shape.positions;
        let operands = [of_parameters(), Line::each(x, sample), Line::each(dy, sample), Line::each(dx, sample)];
        let work = Work { kernel: &EVO_BACKWARD, lines: batch, each: shape.groups, group: 1 };
        self.run_lines(work, &operands, Some(&scratch), &evo_facts(shape, at))?;
        let facts = [&cut.facts()[..], &[shape.positions, shape.groups, at, groups].map(word)].concat();
        let operands = [of_parameters(), cut.line(x), cut.line(dy)];
        self.run_lines(cut.work(&EVO_SUMS), &operands, Some(&scratch), &facts)?;
        self.join(cut, 3, groups, scratch, (gradient, at))
    }
}

/// What the tables of EvoNorm's shaders say of it.
fn evo_facts(shape: &EvoNorm<f32>, at: usize) -> [u32; 5] {
    let [channels, positions, groups] = [shape.channels, shape.positions, shape.groups].map(word);
    [channels, positions, groups, shape.epsilon.to_bits(), word(at)]
}
