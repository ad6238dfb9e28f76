//! Sums.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::REDUCE;
use crate::table::{hull, runs, span, steps, word};
use kronfleet_core::backend::{Buffer as _, ReduceJob};
use kronfleet_core::matrix::Region;

const HEADER: usize = 3;
const RECORD: usize = 17;
/// Threads of a workgroup.
const THREADS: usize = 256;

/// The same job with the shorter step of its operands downwards.
fn turned(job: &ReduceJob<f32>) -> ReduceJob<f32> {
    if job.x.row_step <= job.x.column_step {
        return *job;
    }
    ReduceJob { x: job.x.transposed(), y: job.y.transposed(), out: job.out.transposed(), ..*job }
}

/// How many threads of a workgroup share one sum; the others take its neighbours. Shapes alone decide.
fn lanes(job: &ReduceJob<f32>, terms: usize) -> usize {
    let most = if job.out.rows == 1 { THREADS } else { 16 };
    terms.div_ceil(4).next_power_of_two().clamp(1, most)
}

/// The same in two jobs, one after the other, where it is too large to be bound at once: the longer side is halved.
fn halves(job: &ReduceJob<f32>) -> Vec<ReduceJob<f32>> {
    let ReduceJob { x, y, out, .. } = *job;
    let reach = |extent: usize, steps: [usize; 2]| (extent.max(1) - 1) * steps[0].max(steps[1]);
    let is_down = reach(x.rows, [x.row_step, y.row_step]) > reach(x.columns, [x.column_step, y.column_step]);
    let part = |of: Region, from: usize, len: usize| {
        if is_down { of.block(from, 0, len, of.columns) } else { of.block(0, from, of.rows, len) }
    };
    let extent = if is_down { x.rows } else { x.columns };
    let kept = if is_down { out.rows } else { out.columns } > 1;
    let half = extent / 2;
    let job = |from: usize, len: usize| ReduceJob {
        x: part(x, from, len),
        y: part(y, from, len),
        out: if kept { part(out, from, len) } else { out },
        // The second half of a sum is added to the first.
        beta: if kept || from == 0 { job.beta } else { 1.0 },
        ..*job
    };
    if half == 0 { Vec::new() } else { vec![job(0, half), job(half, extent - half)] }
}

impl Wgpu {
    pub(crate) fn run_reduce(
        &mut self,
        jobs: &[ReduceJob<f32>],
        x: &Buffer,
        y: Option<&Buffer>,
        out: &Buffer,
    ) -> Result<(), WgpuError> {
        for job in jobs {
            job.check_in(x.len(), y.map(|y| y.len()), out.len());
        }
        let spans = |jobs: &[ReduceJob<f32>]| {
            let of = |region: fn(&ReduceJob<f32>) -> Region| hull(jobs.iter().map(|job| span(region(job))));
            [of(|job| job.x), if y.is_some() { of(|job| job.y) } else { 0..0 }, of(|job| job.out)]
        };
        let limit = self.limit();
        let fits = |jobs: &[ReduceJob<f32>]| spans(jobs).iter().all(|span| limit.admits(span));
        for run in runs(jobs, RECORD, fits) {
            if let ([job], false) = (run, fits(run)) {
                // Without y, what is said of it may be anything.
                let smaller = halves(&ReduceJob { y: if y.is_some() { job.y } else { job.x }, ..*job });
                // One element fits.
                for part in &smaller {
                    self.run_reduce(core::slice::from_ref(part), x, y, out)?;
                }
                if !smaller.is_empty() {
                    continue;
                }
            }
            let [of_x, of_y, of_out] = spans(run);
            let bound = [self.bind(x, of_x)?, self.bind_or_nothing(y, of_y)?, self.bind(out, of_out)?];
            let mut table = self.table();
            table.extend([0, 0, u32::from(y.is_some())]);
            let mut groups = 0;
            for job in run.iter().map(turned).filter(|job| !job.out.is_empty()) {
                let rows = if job.out.rows == 1 { job.x.rows } else { 1 };
                let columns = if job.out.columns == 1 { job.x.columns } else { 1 };
                let terms = rows * columns;
                let lanes = lanes(&job, terms);
                table.extend([word(groups), word(lanes), word(job.out.len()), word(job.out.rows), word(terms)]);
                table.push(word(rows.max(1)));
                table.extend(steps(job.x, bound[0].base));
                table.extend(if y.is_some() { steps(job.y, bound[1].base) } else { [0; 3] });
                table.extend(steps(job.out, bound[2].base));
                table.extend([job.alpha.to_bits(), job.beta.to_bits()]);
                groups += job.out.len().div_ceil(THREADS / lanes);
            }
            table[0] = word(groups);
            table[1] = word((table.len() - HEADER) / RECORD);
            self.launch(&REDUCE, table, &bound, groups)?;
        }
        Ok(())
    }
}
