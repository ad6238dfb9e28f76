//! Element-wise operations.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::MAP;
use crate::table::{hull, runs, span, steps, word};
use kronfleet_core::backend::{Buffer as _, Map, MapJob};
use kronfleet_core::matrix::Region;

/// Elements of one workgroup.
const GROUP: usize = 64 * 8;
const RECORD: usize = 12;

/// The same job with the target's shorter step downwards, so that neighbouring threads write neighbouring places.
fn turned(job: &MapJob) -> MapJob {
    if job.out.row_step <= job.out.column_step {
        return *job;
    }
    MapJob { x: job.x.transposed(), y: job.y.transposed(), out: job.out.transposed() }
}

/// Halves of a job that is too large to be bound at once.
fn halves(job: &MapJob) -> Option<[MapJob; 2]> {
    let of = |part: fn(Region) -> Region| MapJob { x: part(job.x), y: part(job.y), out: part(job.out) };
    if job.out.columns > 1 {
        let left = |m: Region| m.block(0, 0, m.rows, m.columns / 2);
        let right = |m: Region| m.block(0, m.columns / 2, m.rows, m.columns - m.columns / 2);
        return Some([of(left), of(right)]);
    }
    let upper = |m: Region| m.block(0, 0, m.rows / 2, m.columns);
    let lower = |m: Region| m.block(m.rows / 2, 0, m.rows - m.rows / 2, m.columns);
    (job.out.rows > 1).then(|| [of(upper), of(lower)])
}

impl Wgpu {
    pub(crate) fn run_map(
        &mut self,
        op: Map<f32>,
        jobs: &[MapJob],
        x: Option<&Buffer>,
        y: Option<&Buffer>,
        out: &Buffer,
    ) -> Result<(), WgpuError> {
        for job in jobs {
            job.check_in(x.map(|x| x.len()), y.map(|y| y.len()), out.len());
        }
        let spans = |jobs: &[MapJob]| {
            [
                if x.is_some() { hull(jobs.iter().map(|job| span(job.x))) } else { 0..0 },
                if y.is_some() { hull(jobs.iter().map(|job| span(job.y))) } else { 0..0 },
                hull(jobs.iter().map(|job| span(job.out))),
            ]
        };
        let limit = self.limit();
        let fits = |jobs: &[MapJob]| spans(jobs).iter().all(|span| limit.admits(span));
        for run in runs(jobs, RECORD, fits) {
            if let ([job], false) = (run, fits(run)) {
                // Halving ends at one element, which fits.
                if let Some(parts) = halves(job) {
                    for part in parts {
                        self.run_map(op, &[part], x, y, out)?;
                    }
                    continue;
                }
            }
            let [of_x, of_y, of_out] = spans(run);
            let (bound_x, bound_y) = (self.bind_or_nothing(x, of_x)?, self.bind_or_nothing(y, of_y)?);
            let bound_out = self.bind(out, of_out)?;
            let bases = [bound_x.base, bound_y.base, bound_out.base];
            let mut table = self.table();
            let (number, parameters) = op.code();
            let parameters = parameters.map(f32::to_bits);
            table.extend([0, 0, number]);
            table.extend(parameters);
            table.extend([u32::from(x.is_some()), u32::from(y.is_some())]);
            let mut groups = 0;
            for job in run.iter().map(turned).filter(|job| !job.out.is_empty()) {
                table.extend([word(groups), word(job.out.rows), word(job.out.columns)]);
                let regions = [job.x, job.y, job.out];
                let present = [x.is_some(), y.is_some(), true];
                for ((region, base), present) in regions.into_iter().zip(bases).zip(present) {
                    table.extend(if present { steps(region, base) } else { [0; 3] });
                }
                groups += job.out.len().div_ceil(GROUP);
            }
            table[0] = word(groups);
            table[1] = word((table.len() - 8) / RECORD);
            self.launch(&MAP, table, &[bound_x, bound_y, bound_out], groups)?;
        }
        Ok(())
    }
}
