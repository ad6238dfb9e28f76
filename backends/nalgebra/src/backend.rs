//! The backend itself: memory, tickets and counters.

use crate::error::OutOfMemory;
use crate::{decomposition, elementwise, product};
use alloc::vec::Vec;
use core::ops::Range;
use kronfleet_core::backend::{Backend, Convolution, Counters, Eigen, Gemm, Map, MapJob, Outer, ReduceJob, Solve};
use kronfleet_core::matrix::Region;
use kronfleet_core::scalar::Scalar;
use nalgebra::RealField;

/// Linear algebra by nalgebra, in host memory; buffers are vectors.
#[derive(Debug, Default)]
pub struct Nalgebra<S> {
    counters: Counters,
    /// Memory of tickets that were finished, for those to come.
    snapshots: Vec<Vec<S>>,
    verdicts: Vec<Vec<bool>>,
    scratch: Vec<S>,
}

/// A copy of what was downloaded.
#[derive(Debug)]
pub struct Snapshot<S>(Vec<S>);

/// Which factorisations succeeded.
#[derive(Debug)]
pub struct Soundness(Vec<bool>);

impl<S: Scalar + RealField> Nalgebra<S> {
    /// A backend that has done nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S: Scalar + RealField> Backend for Nalgebra<S> {
    type Scalar = S;
    type Buffer = Vec<S>;
    type Download = Snapshot<S>;
    type Verdict = Soundness;
    type Error = OutOfMemory;

    fn allocate(&mut self, len: usize) -> Result<Vec<S>, OutOfMemory> {
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(len).map_err(|_| OutOfMemory { bytes: len.saturating_mul(S::BYTES) })?;
        buffer.resize(len, S::of(0.0));
        self.counters.allocations += 1;
        self.counters.allocated += len as u64;
        Ok(buffer)
    }

    fn upload(&mut self, source: &[S], target: &mut Vec<S>, offset: usize) -> Result<(), OutOfMemory> {
        target[offset..offset + source.len()].copy_from_slice(source);
        self.counters.uploaded += source.len() as u64;
        Ok(())
    }

    fn download(&mut self, source: &Vec<S>, range: Range<usize>) -> Result<Snapshot<S>, OutOfMemory> {
        let mut content = self.snapshots.pop().unwrap_or_default();
        content.clear();
        content.extend_from_slice(&source[range]);
        self.counters.downloaded += content.len() as u64;
        Ok(Snapshot(content))
    }

    fn finish(&mut self, ticket: Snapshot<S>, target: &mut [S]) -> Result<(), OutOfMemory> {
        target.copy_from_slice(&ticket.0);
        self.snapshots.push(ticket.0);
        self.counters.host_waits += 1;
        Ok(())
    }

    fn gemm(&mut self, jobs: &[Gemm<S>], a: &Vec<S>, b: &Vec<S>, c: &mut Vec<S>) -> Result<(), OutOfMemory> {
        for job in jobs {
            product::gemm(job, a, b, c);
            self.counters.flops += job.flops();
        }
        Ok(())
    }

    fn map(
        &mut self,
        op: Map<S>,
        jobs: &[MapJob],
        x: Option<&Vec<S>>,
        y: Option<&Vec<S>>,
        out: &mut Vec<S>,
    ) -> Result<(), OutOfMemory> {
        for job in jobs {
            elementwise::map(op, job, x.map(Vec::as_slice), y.map(Vec::as_slice), out);
        }
        Ok(())
    }

    fn reduce(
        &mut self,
        jobs: &[ReduceJob<S>],
        x: &Vec<S>,
        y: Option<&Vec<S>>,
        out: &mut Vec<S>,
    ) -> Result<(), OutOfMemory> {
        for job in jobs {
            elementwise::reduce(job, x, y.map(Vec::as_slice), out);
        }
        Ok(())
    }

    fn cholesky(&mut self, jobs: &[Region], matrices: &mut Vec<S>) -> Result<Soundness, OutOfMemory> {
        let mut sound = self.verdicts.pop().unwrap_or_default();
        sound.clear();
        for &region in jobs {
            sound.push(decomposition::cholesky(region, matrices, &mut self.scratch));
            self.counters.factorisations += 1;
            self.counters.flops += (region.rows as u64).pow(3) / 3;
        }
        Ok(Soundness(sound))
    }

    fn cholesky_solve(&mut self, jobs: &[Solve], factors: &Vec<S>, x: &mut Vec<S>) -> Result<(), OutOfMemory> {
        for job in jobs {
            decomposition::solve(job, factors, x);
            self.counters.flops += 2 * job.x.len() as u64 * job.factor.rows as u64;
        }
        Ok(())
    }

    fn verdict(&mut self, ticket: Soundness, sound: &mut [bool]) -> Result<(), OutOfMemory> {
        sound.copy_from_slice(&ticket.0);
        self.verdicts.push(ticket.0);
        self.counters.host_waits += 1;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), OutOfMemory> {
        self.counters.host_waits += 1;
        Ok(())
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }

    fn host<const I: usize, const O: usize>(
        &mut self,
        inputs: [&Vec<S>; I],
        outputs: [&mut Vec<S>; O],
        work: impl FnOnce([&[S]; I], [&mut [S]; O]),
    ) -> Result<(), OutOfMemory> {
        work(inputs.map(Vec::as_slice), outputs.map(Vec::as_mut_slice));
        Ok(())
    }

    fn read(
        &mut self,
        source: &Vec<S>,
        ranges: impl Iterator<Item = Range<usize>> + Clone,
        work: impl FnMut(&[S]),
    ) -> Result<(), OutOfMemory> {
        ranges.map(|range| &source[range]).for_each(work);
        Ok(())
    }

    fn symmetric_product(&mut self, jobs: &[Outer<S>], x: &Vec<S>, c: &mut Vec<S>) -> Result<(), OutOfMemory> {
        for job in jobs {
            product::symmetric_product(job, x, c);
            self.counters.flops += job.flops();
        }
        Ok(())
    }

    fn symmetric_eigen(
        &mut self,
        jobs: &[Eigen],
        matrices: &mut Vec<S>,
        values: &mut Vec<S>,
    ) -> Result<(), OutOfMemory> {
        for job in jobs {
            decomposition::eigen(job, matrices, values);
            self.counters.eigendecompositions += 1;
            // Tridiagonalisation, its eigenvectors and the rotations (Golub & Van Loan, §8.3).
            self.counters.flops += 9 * (job.matrix.rows as u64).pow(3);
        }
        Ok(())
    }

    /// A few samples at a time, so that patches are used while they are in the cache.
    fn tile(&self, shape: &Convolution, batch: usize) -> usize {
        let sample = shape.patch_rows() * shape.output.positions() * S::BYTES;
        (CACHE / sample.max(1)).clamp(1, batch.max(1))
    }
}

/// Bytes of patches in one tile: half of a small second-level cache.
const CACHE: usize = 128 << 10;
