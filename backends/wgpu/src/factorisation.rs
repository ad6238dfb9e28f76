//! Cholesky factors and what is done with them.

use crate::backend::{Room, Wgpu};
use crate::buffer::{Bound, Buffer};
use crate::error::WgpuError;
use crate::kernel::{CHOLESKY, MIRROR, PANEL, SOLVE};
use crate::product::Job;
use crate::table::{hull, runs, span, steps, word};
use crate::ticket::Verdict;
use kronfleet_core::backend::{Buffer as _, Gemm, Invert, Map, MapJob, Solve};
use kronfleet_core::matrix::Region;

const HEADER: usize = 2;
/// Columns that one workgroup solves for, and rows of a panel that it brings up to date.
const THREADS: usize = 64;
const CHOLESKY_RECORD: usize = 5;
const PANEL_RECORD: usize = 6;
const SOLVE_RECORD: usize = 9;
/// Rows of the largest block that one workgroup factorises and one thread per column solves with; larger matrices go block
/// by block, and products do most of the work. Shapes alone decide.
///
/// It keeps loops short, too: GPUs' drivers take a launch of seconds for a hung one, and Mesa's lavapipe leaves every loop,
/// without a word, after 65,535 turns of all of a shader's loops together.
const BLOCK: usize = 128;

/// Which half of a substitution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Both,
    Down,
    Up,
}

/// A square block of a matrix, and how many rows there are below it.
fn block(region: Region, number: usize) -> (Region, usize, usize) {
    let from = number * BLOCK;
    let width = BLOCK.min(region.rows - from);
    (region.block(from, from, width, width), from, region.rows - from - width)
}

impl Wgpu {
    /// Right-looking by blocks (Golub & Van Loan §4.2.9): a block on the diagonal is factorised, the rows below it follow,
    /// and their product is taken from what is to the right.
    pub(crate) fn run_cholesky(&mut self, jobs: &[Region], matrices: &Buffer) -> Result<Verdict, WgpuError> {
        for region in jobs {
            let (rows, columns) = (region.rows, region.columns);
            assert!(rows == columns && region.row_step == 1, "Cholesky of a {rows}×{columns} matrix");
            region.check(matrices.len());
            self.counters.factorisations += 1;
            self.counters.flops += (rows as u64).pow(3) / 3;
        }
        let sound = self.room(Room::Sound, jobs.len())?;
        let blocks = jobs.iter().map(|region| region.rows.div_ceil(BLOCK)).max().unwrap_or(0);
        for number in 0..blocks.max(1) {
            // An empty matrix has no blocks but is sound.
            let here = |region: &Region| number == 0 || number * BLOCK < region.rows;
            let now: Vec<(usize, Region)> =
                jobs.iter().copied().enumerate().filter(|(_, region)| here(region)).collect();
            self.factorise(number, &now, matrices, &sound)?;
            let below: Vec<(Region, Region, Region)> = now
                .iter()
                .filter(|(_, region)| (number + 1) * BLOCK < region.rows)
                .map(|&(_, region)| {
                    let (square, from, rows) = block(region, number);
                    let next = from + BLOCK;
                    (square, region.block(next, from, rows, BLOCK), region.block(next, next, rows, rows))
                })
                .collect();
            self.panels(&below, matrices)?;
            let panels: Vec<Region> = below.iter().map(|&(_, panel, _)| panel).collect();
            self.with_copies(&panels, matrices, |backend, copies, places| {
                let products: Vec<Job> = below
                    .iter()
                    .zip(places)
                    .map(|(&(_, _, rest), &x)| {
                        let product = Gemm { alpha: -1.0, a: x, b: x.transposed(), beta: 1.0, c: rest };
                        Job { product, symmetric: true, half: false }
                    })
                    .collect();
                backend.products(&products, copies, copies, matrices)
            })?;
        }
        Ok(Verdict(self.snapshot(&sound, jobs.len())?))
    }

    /// Factorises one block of every matrix; `jobs` are numbered.
    fn factorise(
        &mut self,
        number: usize,
        jobs: &[(usize, Region)],
        matrices: &Buffer,
        sound: &Bound,
    ) -> Result<(), WgpuError> {
        let limit = self.limit();
        let hull_of = |jobs: &[(usize, Region)]| hull(jobs.iter().map(|&(_, region)| span(block(region, number).0)));
        for run in runs(jobs, CHOLESKY_RECORD, |jobs| limit.admits(&hull_of(jobs))) {
            let bound = self.bind(matrices, hull_of(run))?;
            let mut table = self.table();
            table.extend([word(run.len()), 0]);
            for &(job, region) in run {
                let square = block(region, number).0;
                let [offset, _, column_step] = steps(square, bound.base);
                table.extend([word(job), word(square.rows), offset, column_step, u32::from(number > 0)]);
            }
            self.launch(&CHOLESKY, table, &[bound, sound.clone()], run.len())?;
        }
        Ok(())
    }

    /// The rows below factorised blocks: block, rows, and what is not looked at.
    fn panels(&mut self, jobs: &[(Region, Region, Region)], matrices: &Buffer) -> Result<(), WgpuError> {
        let limit = self.limit();
        let hull_of = |jobs: &[(Region, Region, Region)]| {
            hull(jobs.iter().flat_map(|&(square, panel, _)| [span(square), span(panel)]))
        };
        for run in runs(jobs, PANEL_RECORD, |jobs| limit.admits(&hull_of(jobs))) {
            let bound = self.bind(matrices, hull_of(run))?;
            let mut table = self.table();
            table.resize(HEADER, 0);
            let mut groups = 0;
            for &(square, panel, _) in run {
                let [x, _, column_step] = steps(panel, bound.base);
                let [l, ..] = steps(square, bound.base);
                table.extend([word(groups), word(panel.rows), word(panel.columns), l, x, column_step]);
                groups += panel.rows.div_ceil(THREADS);
            }
            table[0] = word(groups);
            table[1] = word(run.len());
            self.launch(&PANEL, table, &[bound], groups)?;
        }
        Ok(())
    }

    /// Does `work` with copies of parts of a buffer, packed one behind the other; for no buffer is read and written at once.
    fn with_copies(
        &mut self,
        parts: &[Region],
        source: &Buffer,
        work: impl FnOnce(&mut Self, &Buffer, &[Region]) -> Result<(), WgpuError>,
    ) -> Result<(), WgpuError> {
        if parts.is_empty() {
            return Ok(());
        }
        let mut len = 0;
        let mut place = |part: &Region| {
            let place = Region::matrix(len, part.rows, part.columns);
            len += part.len();
            place
        };
        let places: Vec<Region> = parts.iter().map(&mut place).collect();
        let copies = self.take_room(Room::Copies, len)?;
        let jobs: Vec<MapJob> = parts.iter().zip(&places).map(|(&part, &place)| MapJob::unary(part, place)).collect();
        let done = self
            .run_map(Map::Axpby(1.0, 0.0), &jobs, Some(source), None, &copies)
            .and_then(|()| work(self, &copies, &places));
        self.give_room(Room::Copies, copies);
        done
    }

    /// By blocks, as `run_cholesky`: a block of the unknowns is solved for, then taken from those that follow.
    pub(crate) fn run_solve(&mut self, jobs: &[Solve], factors: &Buffer, x: &Buffer) -> Result<(), WgpuError> {
        for job in jobs {
            job.check();
            job.factor.check(factors.len());
            job.x.check(x.len());
            self.counters.flops += 2 * (job.x.len() * job.factor.rows) as u64;
        }
        let (small, large): (Vec<Solve>, Vec<Solve>) =
            jobs.iter().filter(|job| !job.x.is_empty()).partition(|job| job.factor.rows <= BLOCK);
        self.substitute(&small, Half::Both, factors, x)?;
        let blocks = large.iter().map(|job| job.factor.rows.div_ceil(BLOCK)).max().unwrap_or(0);
        for number in 0..blocks {
            self.solve_block(&large, number, Half::Down, factors, x)?;
        }
        for number in (0..blocks).rev() {
            self.solve_block(&large, number, Half::Up, factors, x)?;
        }
        Ok(())
    }

    fn solve_block(
        &mut self,
        jobs: &[Solve],
        number: usize,
        half: Half,
        factors: &Buffer,
        x: &Buffer,
    ) -> Result<(), WgpuError> {
        let jobs: Vec<Solve> = jobs.iter().filter(|job| number * BLOCK < job.factor.rows).copied().collect();
        let rows = |job: &Solve, from: usize, len: usize| job.x.block(from, 0, len, job.x.columns);
        let blocks: Vec<Solve> = jobs
            .iter()
            .map(|job| {
                let (square, from, _) = block(job.factor, number);
                Solve { factor: square, x: rows(job, from, square.rows) }
            })
            .collect();
        self.substitute(&blocks, half, factors, x)?;
        // What depends on this block: those below it on the way down, those above it on the way up.
        let depends = |job: &Solve| {
            let (square, from, below) = block(job.factor, number);
            let width = square.rows;
            match half {
                Half::Up => (job.factor.block(from, 0, width, from).transposed(), rows(job, 0, from)),
                _ => (job.factor.block(from + width, from, below, width), rows(job, from + width, below)),
            }
        };
        let going_on: Vec<(Region, (Region, Region))> = jobs
            .iter()
            .zip(&blocks)
            .map(|(job, block)| (block.x, depends(job)))
            .filter(|(_, (_, rest))| !rest.is_empty())
            .collect();
        let known: Vec<Region> = going_on.iter().map(|&(x, _)| x).collect();
        self.with_copies(&known, x, |backend, copies, places| {
            let products: Vec<Job> = going_on
                .iter()
                .zip(places)
                .map(|(&(_, (l, rest)), &known)| {
                    let product = Gemm { alpha: -1.0, a: l, b: known, beta: 1.0, c: rest };
                    Job { product, symmetric: false, half: false }
                })
                .collect();
            backend.products(&products, factors, copies, x)
        })
    }

    /// One or both halves of a substitution, a thread per column.
    fn substitute(&mut self, jobs: &[Solve], half: Half, factors: &Buffer, x: &Buffer) -> Result<(), WgpuError> {
        let spans =
            |jobs: &[Solve]| [hull(jobs.iter().map(|job| span(job.factor))), hull(jobs.iter().map(|job| span(job.x)))];
        let limit = self.limit();
        let fits = |jobs: &[Solve]| spans(jobs).iter().all(|span| limit.admits(span));
        for run in runs(jobs, SOLVE_RECORD, fits) {
            if let ([job], false) = (run, fits(run))
                && job.x.columns > 1
            {
                // Columns have nothing to do with each other.
                let middle = job.x.columns / 2;
                for (from, len) in [(0, middle), (middle, job.x.columns - middle)] {
                    let part = Solve { factor: job.factor, x: job.x.block(0, from, job.x.rows, len) };
                    self.substitute(&[part], half, factors, x)?;
                }
                continue;
            }
            let [of_factors, of_x] = spans(run);
            let bound = [self.bind(factors, of_factors)?, self.bind(x, of_x)?];
            let mut table = self.table();
            table.resize(HEADER, 0);
            let mut groups = 0;
            for job in run {
                let n = job.factor.rows;
                let [factor, _, factor_step] = steps(job.factor, bound[0].base);
                let [x, _, x_step] = steps(job.x, bound[1].base);
                table.extend([word(groups), word(n), word(job.x.columns), factor, factor_step, x, x_step]);
                let (from, to) = match half {
                    Half::Both => (0, 2 * n),
                    Half::Down => (0, n),
                    Half::Up => (n, 2 * n),
                };
                table.extend([word(from), word(to)]);
                groups += job.x.columns.div_ceil(THREADS);
            }
            table[0] = word(groups);
            table[1] = word(run.len());
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
            if let ([region], false) = (run, limit.admits(&hull_of(run)))
                && region.rows > 1
            {
                // Two triangles, and a square that is copied.
                let (n, half) = (region.rows, region.rows / 2);
                let triangles = [region.block(0, 0, half, half), region.block(half, half, n - half, n - half)];
                self.run_mirror(&triangles, matrices)?;
                let (lower, upper) = (region.block(half, 0, n - half, half), region.block(0, half, half, n - half));
                self.with_copies(&[lower], matrices, |backend, copies, places| {
                    let job = MapJob::unary(places[0].transposed(), upper);
                    backend.run_map(Map::Axpby(1.0, 0.0), &[job], Some(copies), None, matrices)
                })?;
                continue;
            }
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
