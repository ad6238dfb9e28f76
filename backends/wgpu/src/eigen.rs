//! Symmetric eigenproblems.

use crate::backend::Wgpu;
use crate::buffer::{Bound, Buffer};
use crate::error::WgpuError;
use crate::kernel::{EIGEN_BEGIN, EIGEN_FINISH, EIGEN_LEVEL, EIGEN_PAIR, EIGEN_RANK, EIGEN_TURN, JACOBI, Kernel};
use crate::table::{hull, runs, span, word};
use core::ops::Range;
use kronfleet_core::backend::{Backend, Buffer as _, Eigen, reference};

/// Rows of the largest matrix that one workgroup decomposes in one launch, whose loops must end in time (see
/// `factorisation.rs`). Larger ones are decomposed by blocks.
const ONE: usize = 64;
/// Rows of a pair of blocks.
const SIDE: usize = 32;
/// Sweeps over all pairs of blocks, at most; once nothing is left to turn, the launches that remain do nothing. Matrices of
/// factors take 8 to 13.
const SWEEPS: usize = 15;
const RECORD: usize = 7;

fn pairs(n: usize) -> usize {
    n.div_ceil(SIDE)
}

/// Scratch of a large one, as `eigen_block.wgsl` lays it out.
fn room(job: &Eigen) -> usize {
    let n = job.matrix.rows;
    n * n + n + 1 + pairs(n) * (SIDE * SIDE + 1)
}

/// Memory that a run of jobs uses.
fn spans(jobs: &[Eigen]) -> [Range<usize>; 2] {
    [hull(jobs.iter().map(|job| span(job.matrix))), hull(jobs.iter().map(|job| span(job.values)))]
}

impl Wgpu {
    /// On the host, in double precision, is done what is larger than can be bound, and large ones where the device is one
    /// that asks for that: it waits and is counted as a wait.
    pub(crate) fn run_eigen(
        &mut self,
        jobs: &[Eigen],
        matrices: &mut Buffer,
        values: &mut Buffer,
    ) -> Result<(), WgpuError> {
        for Eigen { matrix, values: line } in jobs {
            let (rows, columns) = (matrix.rows, matrix.columns);
            assert!(
                rows == columns && line.len() == rows && matrix.row_step == 1,
                "{} eigenvalues of {rows}×{columns}",
                line.len()
            );
            matrix.check(matrices.len());
            line.check(values.len());
            self.counters.eigendecompositions += 1;
            // Ten sweeps of n²/2 rotations of three lines of n.
            self.counters.flops += 90 * (rows as u64).pow(3);
        }
        let limit = self.limit();
        let scratch = |jobs: &[Eigen]| jobs.iter().map(room).sum::<usize>();
        let fits =
            |jobs: &[Eigen]| spans(jobs).iter().all(|span| limit.admits(span)) && limit.admits(&(0..scratch(jobs)));
        let some = || jobs.iter().filter(|job| !job.matrix.is_empty()).copied();
        let host_eigen = self.device().host_eigen();
        let on_host = |job: &Eigen| !fits(&[*job]) || (host_eigen && job.matrix.rows > ONE);
        let (hosted, rest): (Vec<Eigen>, Vec<Eigen>) = some().partition(on_host);
        if !hosted.is_empty() {
            self.host([], [matrices, values], |[], [matrices, values]| {
                for job in &hosted {
                    reference::jacobi(job.matrix, matrices, job.values, values);
                }
            })?;
        }
        let (small, large): (Vec<Eigen>, Vec<Eigen>) = rest.iter().partition(|job| job.matrix.rows <= ONE);
        for run in runs(&small, 6, fits) {
            self.small(run, matrices, values)?;
        }
        for run in runs(&large, RECORD, fits) {
            self.large(run, matrices, values)?;
        }
        Ok(())
    }

    /// One workgroup per matrix.
    fn small(&mut self, jobs: &[Eigen], matrices: &Buffer, values: &Buffer) -> Result<(), WgpuError> {
        let [of_matrices, of_values] = spans(jobs);
        let bound = [self.bind(matrices, of_matrices)?, self.bind(values, of_values)?];
        let scratch = self.scratch(jobs.iter().map(|job| job.matrix.len()).sum())?;
        let mut table = self.table();
        table.extend([word(jobs.len()), 0]);
        let mut first = 0;
        for Eigen { matrix, values } in jobs {
            let places = [matrix.offset - bound[0].base, matrix.column_step, values.offset - bound[1].base, first, 0];
            table.push(word(matrix.rows));
            table.extend(places.map(word));
            first += matrix.len();
        }
        let [of_matrices, of_values] = bound;
        self.launch(&JACOBI, table, &[of_matrices, of_values, scratch], jobs.len())
    }

    /// By pairs of blocks, all matrices at once.
    fn large(&mut self, jobs: &[Eigen], matrices: &Buffer, values: &Buffer) -> Result<(), WgpuError> {
        let [of_matrices, of_values] = spans(jobs);
        let a = self.bind(matrices, of_matrices)?;
        let d = self.bind(values, of_values)?;
        let scratch = self.scratch(jobs.iter().map(room).sum())?;
        let (both, bases) = ([a.clone(), scratch.clone()], [a.base, d.base]);
        let all = |_: usize| true;
        self.step(&EIGEN_BEGIN, jobs, bases, &both, 0, |n| n, all)?;
        self.step(&EIGEN_LEVEL, jobs, bases, &both[1..], 0, |_| 1, all)?;
        let rounds = |n: usize| 2 * pairs(n) - 1;
        let most = jobs.iter().map(|job| rounds(job.matrix.rows)).max().unwrap_or(0);
        for number in 0..most * SWEEPS {
            let some = |n: usize| number < rounds(n) * SWEEPS;
            self.step(&EIGEN_PAIR, jobs, bases, &both, number, pairs, some)?;
            let turns = |n: usize| pairs(n) * (pairs(n) - 1) / 2 + pairs(n) * pairs(n);
            self.step(&EIGEN_TURN, jobs, bases, &both, number, turns, some)?;
        }
        let [of_a, of_scratch] = both;
        self.step(&EIGEN_RANK, jobs, bases, &[of_a.clone(), d, of_scratch.clone()], 0, |n| n.div_ceil(64), all)?;
        self.step(&EIGEN_FINISH, jobs, bases, &[of_a, of_scratch], 0, |n| n, all)
    }

    /// One launch for those of the matrices that take part, of so many rows, with so many workgroups each.
    fn step(
        &mut self,
        kernel: &Kernel,
        jobs: &[Eigen],
        [of_matrices, of_values]: [usize; 2],
        bound: &[Bound],
        number: usize,
        groups_of: impl Fn(usize) -> usize,
        takes_part: impl Fn(usize) -> bool,
    ) -> Result<(), WgpuError> {
        let mut table = self.table();
        table.resize(2, 0);
        let (mut groups, mut first) = (0, 0);
        for job in jobs {
            let (n, scratch) = (job.matrix.rows, first);
            first += room(job);
            if !takes_part(n) {
                continue;
            }
            let places = [job.matrix.offset - of_matrices, job.matrix.column_step, job.values.offset - of_values];
            table.extend([word(groups), word(n)]);
            table.extend(places.map(word));
            table.extend([word(scratch), word(number % (2 * pairs(n) - 1))]);
            groups += groups_of(n);
        }
        table[0] = word(groups);
        table[1] = word((table.len() - 2) / RECORD);
        self.launch(kernel, table, bound, groups)
    }
}
