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
const SOLVE_RECORD: usize = 9;
/// Turns of loops that one thread makes in one launch, at most. GPUs' drivers take a launch of seconds for a hung one, and
/// Mesa's lavapipe leaves every loop, without a word, after 65,535 turns of all of a shader's loops together.
const TURNS: usize = 32_768;
/// Columns of a strip in cholesky.wgsl, and threads of its workgroups.
const STRIP: usize = 16;
const THREADS: usize = 256;

/// Steps of a substitution that one launch makes: each takes eight terms a turn, and up to seven one by one.
fn turns(job: &Solve) -> usize {
    TURNS / (job.factor.rows / 8 + 9)
}

/// Where the strips end that one launch factorises, of those that begin with column `from` of `n`.
fn strips_from(from: usize, n: usize) -> usize {
    let (mut to, mut turns) = (from, 0);
    while to < n {
        // Terms before the strip, in blocks; for each of the rows of a thread as many products as a block has elements.
        let rows = (n - to).div_ceil(THREADS);
        turns += to.div_ceil(STRIP) * (rows * STRIP * (STRIP + 3) + 1) + STRIP * (STRIP + rows);
        if turns > TURNS && to > from {
            break;
        }
        to += STRIP;
    }
    to.min(n)
}

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
        for run in runs(jobs, 6, |jobs| limit.admits(&hull_of(jobs))) {
            let bound = self.bind(matrices, hull_of(run))?;
            let mut done: Vec<usize> = vec![0; run.len()];
            // An empty matrix has no strips but is sound.
            let mut is_first = true;
            while is_first || done.iter().zip(run).any(|(&done, region)| done < region.rows) {
                let mut table = self.table();
                table.extend([0, 0]);
                for (number, &region) in run.iter().enumerate() {
                    let from = done[number];
                    if !is_first && from >= region.rows {
                        continue;
                    }
                    let to = strips_from(from, region.rows);
                    let [offset, _, column_step] = steps(region, bound.base);
                    table.extend([word(first + number), word(region.rows), offset, column_step, word(from), word(to)]);
                    done[number] = to;
                }
                let groups = (table.len() - 2) / 6;
                table[0] = word(groups);
                self.launch(&CHOLESKY, table, &[bound.clone(), sound.clone()], groups)?;
                is_first = false;
            }
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
        for run in runs(jobs, SOLVE_RECORD, |jobs| spans(jobs).iter().all(|span| limit.admits(span))) {
            let [of_factors, of_x] = spans(run);
            let bound = [self.bind(factors, of_factors)?, self.bind(x, of_x)?];
            let launches = run.iter().map(|job| (2 * job.factor.rows).div_ceil(turns(job))).max().unwrap_or(0);
            for launch in 0..launches {
                let mut table = self.table();
                table.resize(HEADER, 0);
                let mut groups = 0;
                for job in run.iter().filter(|job| !job.x.is_empty()) {
                    let (from, end) = (launch * turns(job), 2 * job.factor.rows);
                    if from >= end {
                        continue;
                    }
                    let to = (from + turns(job)).min(end);
                    let [factor, _, factor_step] = steps(job.factor, bound[0].base);
                    let [x, _, x_step] = steps(job.x, bound[1].base);
                    table.extend([word(groups), word(job.x.rows), word(job.x.columns), factor, factor_step, x, x_step]);
                    table.extend([word(from), word(to)]);
                    groups += job.x.columns.div_ceil(COLUMNS);
                }
                table[0] = word(groups);
                table[1] = word((table.len() - HEADER) / SOLVE_RECORD);
                self.launch(&SOLVE, table, &bound, groups)?;
            }
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
