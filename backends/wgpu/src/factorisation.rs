//! Cholesky factors and what is done with them.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::{CHOLESKY, MIRROR, SOLVE};
use crate::table::{hull, runs, span, steps, word};
use crate::ticket::Verdict;
use kronfleet_core::backend::{Buffer as _, Invert, Map, MapJob, Solve};
use kronfleet_core::matrix::Region;

const HEADER: usize = 2;
/// Columns that one workgroup solves for.
const COLUMNS: usize = 64;

impl Wgpu {
    pub(crate) fn run_cholesky(&mut self, jobs: &[Region], matrices: &Buffer) -> Result<Verdict, WgpuError> {
        for region in jobs {
            let (rows, columns) = (region.rows, region.columns);
            assert!(rows == columns && region.row_step == 1, "Cholesky of a {rows}×{columns} matrix");
            region.check(matrices.len());
            self.counters.factorisations += 1;
            self.counters.flops += (rows as u64).pow(3) / 3;
        }
        let sound = self.scratch(jobs.len())?;
        let limit = self.limit();
        let hull_of = |jobs: &[Region]| hull(jobs.iter().map(|&region| span(region)));
        let mut first = 0;
        for run in runs(jobs, 4, |jobs| limit.admits(&hull_of(jobs))) {
            let bound = self.bind(matrices, hull_of(run))?;
            let mut table = self.table();
            table.extend([word(run.len()), 0]);
            for (number, &region) in run.iter().enumerate() {
                let [offset, _, column_step] = steps(region, bound.base);
                table.extend([word(first + number), word(region.rows), offset, column_step]);
            }
            self.launch(&CHOLESKY, table, &[bound, sound.clone()], run.len())?;
            first += run.len();
        }
        Ok(Verdict(self.snapshot(&sound, jobs.len())?))
    }

    pub(crate) fn run_solve(&mut self, jobs: &[Solve], factors: &Buffer, x: &Buffer) -> Result<(), WgpuError> {
        for job in jobs {
            job.check();
            job.factor.check(factors.len());
            job.x.check(x.len());
            self.counters.flops += 2 * (job.x.len() * job.factor.rows) as u64;
        }
        let spans =
            |jobs: &[Solve]| [hull(jobs.iter().map(|job| span(job.factor))), hull(jobs.iter().map(|job| span(job.x)))];
        let limit = self.limit();
        for run in runs(jobs, 7, |jobs| spans(jobs).iter().all(|span| limit.admits(span))) {
            let [of_factors, of_x] = spans(run);
            let bound = [self.bind(factors, of_factors)?, self.bind(x, of_x)?];
            let mut table = self.table();
            table.resize(HEADER, 0);
            let mut groups = 0;
            for job in run.iter().filter(|job| !job.x.is_empty()) {
                let [factor, _, factor_step] = steps(job.factor, bound[0].base);
                let [x, _, x_step] = steps(job.x, bound[1].base);
                table.extend([word(groups), word(job.x.rows), word(job.x.columns), factor, factor_step, x, x_step]);
                groups += job.x.columns.div_ceil(COLUMNS);
            }
            table[0] = word(groups);
            table[1] = word((table.len() - HEADER) / 7);
            self.launch(&SOLVE, table, &bound, groups)?;
        }
        Ok(())
    }

    pub(crate) fn run_mirror(&mut self, regions: &[Region], matrices: &Buffer) -> Result<(), WgpuError> {
        for region in regions {
            assert!(region.rows == region.columns, "a {}×{} matrix has no mirror image", region.rows, region.columns);
            region.check(matrices.len());
        }
        let limit = self.limit();
        let hull_of = |jobs: &[Region]| hull(jobs.iter().map(|&region| span(region)));
        for run in runs(regions, 5, |jobs| limit.admits(&hull_of(jobs))) {
            let bound = self.bind(matrices, hull_of(run))?;
            let mut table = self.table();
            table.resize(HEADER, 0);
            let mut groups = 0;
            for &region in run.iter().filter(|region| !region.is_empty()) {
                table.extend([word(groups), word(region.rows)]);
                table.extend(steps(region, bound.base));
                groups += region.len().div_ceil(64);
            }
            table[0] = word(groups);
            table[1] = word((table.len() - HEADER) / 5);
            self.launch(&MIRROR, table, &[bound], groups)?;
        }
        Ok(())
    }

    pub(crate) fn run_invert(&mut self, jobs: &[Invert], factors: &Buffer, out: &Buffer) -> Result<(), WgpuError> {
        let of = |region: fn(&Invert) -> Region| jobs.iter().map(region).collect::<Vec<_>>();
        let maps = |regions: Vec<Region>| regions.into_iter().map(|m| MapJob::unary(m, m)).collect::<Vec<_>>();
        self.run_map(Map::Fill(0.0), &maps(of(|job| job.out)), None, None, out)?;
        self.run_map(Map::Fill(1.0), &maps(of(|job| job.out.diagonal())), None, None, out)?;
        let solves: Vec<Solve> = jobs.iter().map(|job| Solve { factor: job.factor, x: job.out }).collect();
        self.run_solve(&solves, factors, out)?;
        self.run_mirror(&of(|job| job.out), out)
    }
}
