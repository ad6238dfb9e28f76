//! Symmetric eigenproblems.

use crate::backend::Wgpu;
use crate::buffer::Buffer;
use crate::error::WgpuError;
use crate::kernel::JACOBI;
use crate::table::{hull, runs, span, word};
use kronfleet_core::backend::{Backend, Buffer as _, Eigen, reference};

/// Rows of the largest matrix that is decomposed on the device: by one workgroup in one launch, whose loops must end in time
/// (see `factorisation.rs`). A call with a larger one is carried out on the host, which waits and is counted as a wait.
const LARGEST: usize = 64;

impl Wgpu {
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
        if jobs.iter().any(|job| job.matrix.rows > LARGEST) {
            return self.host([], [matrices, values], |[], [matrices, values]| {
                for job in jobs {
                    reference::jacobi(job.matrix, matrices, job.values, values);
                }
            });
        }
        let spans = |jobs: &[Eigen]| {
            [hull(jobs.iter().map(|job| span(job.matrix))), hull(jobs.iter().map(|job| span(job.values)))]
        };
        let limit = self.limit();
        let room = |jobs: &[Eigen]| jobs.iter().map(|job| job.matrix.len()).sum::<usize>();
        let fits = |jobs: &[Eigen]| spans(jobs).iter().all(|span| limit.admits(span)) && limit.admits(&(0..room(jobs)));
        for run in runs(jobs, 6, fits) {
            let [of_matrices, of_values] = spans(run);
            let bound = [self.bind(matrices, of_matrices)?, self.bind(values, of_values)?];
            let scratch = self.scratch(room(run))?;
            let mut table = self.table();
            table.extend([0, 0]);
            let mut first = 0;
            for Eigen { matrix, values } in run.iter().filter(|job| !job.matrix.is_empty()) {
                let places = [
                    matrix.rows,
                    matrix.offset - bound[0].base,
                    matrix.column_step,
                    values.offset - bound[1].base,
                    first,
                    0,
                ];
                table.extend(places.map(word));
                first += matrix.len();
            }
            let groups = (table.len() - 2) / 6;
            table[0] = word(groups);
            self.launch(&JACOBI, table, &[bound[0].clone(), bound[1].clone(), scratch], groups)?;
        }
        Ok(())
    }
}
