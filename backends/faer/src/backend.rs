//! The backend: memory, tickets, and the way from the trait to the kernels.

use crate::arena::Arenas;
use crate::buffer::Buffer;
use crate::convolution::{self, Means};
use crate::parallel::Pool;
use crate::scalar::Real;
use crate::{elementwise, factorisation, normalisation, pooling, product, reduction};
use core::fmt;
use core::ops::Range;
use kronfleet_core::backend::{
    Backend, BatchNorm, Convolution, Counters, Eigen, EvoNorm, Gemm, Invert, Map, MapJob, Outer, Pooling, ReduceJob,
    Solve, Statistic,
};
use kronfleet_core::error::ErrorKind;
use kronfleet_core::matrix::Region;

/// The CPU, through faer. Everything is done when a call returns, so tickets never wait.
#[derive(Debug)]
pub struct Faer<S: Real> {
    pool: Pool,
    arenas: Arenas<S>,
    workspace: convolution::Workspace<S>,
    counters: Counters,
    // Memory of finished tickets, for the next ones.
    snapshots: Vec<Vec<S>>,
    verdicts: Vec<Vec<bool>>,
}

/// A snapshot of a range of a buffer.
#[derive(Debug)]
pub struct Download<S>(Vec<S>);

/// Which factorisations of one call succeeded.
#[derive(Debug)]
pub struct Verdict(Vec<bool>);

/// Memory ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// How many bytes were asked for.
    pub bytes: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no memory for a buffer of {} bytes; try a smaller batch or model", self.bytes)
    }
}

impl core::error::Error for OutOfMemory {}

impl kronfleet_core::error::Error for OutOfMemory {
    fn kind(&self) -> ErrorKind {
        ErrorKind::OutOfMemory
    }
}

impl<S: Real> Faer<S> {
    /// A backend that works with this many threads; 1 (or 0) works on the calling thread alone.
    ///
    /// # Panics
    /// If the threads cannot be started.
    pub fn new(threads: usize) -> Self {
        Self {
            pool: Pool::new(threads),
            arenas: Arenas::new(threads),
            workspace: convolution::Workspace::new(),
            counters: Counters::default(),
            snapshots: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    /// How many threads it works with.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

impl<S: Real> Default for Faer<S> {
    /// One thread.
    fn default() -> Self {
        Self::new(1)
    }
}

/// The kernels' form of a statistic.
fn inner<S: Real>(statistic: Statistic<'_, Faer<S>>) -> convolution::Statistic<'_, S> {
    convolution::Statistic { target: statistic.target, region: statistic.region, scale: statistic.scale }
}

impl<S: Real> Backend for Faer<S> {
    type Scalar = S;
    type Buffer = Buffer<S>;
    type Download = Download<S>;
    type Verdict = Verdict;
    type Error = OutOfMemory;

    fn allocate(&mut self, len: usize) -> Result<Buffer<S>, OutOfMemory> {
        let buffer = Buffer::zeros(len).map_err(|_| OutOfMemory { bytes: len.saturating_mul(S::BYTES) })?;
        self.counters.allocations += 1;
        self.counters.allocated += len as u64;
        Ok(buffer)
    }

    fn upload(&mut self, source: &[S], target: &mut Buffer<S>, offset: usize) -> Result<(), OutOfMemory> {
        target[offset..offset + source.len()].copy_from_slice(source);
        self.counters.uploaded += source.len() as u64;
        Ok(())
    }

    fn download(&mut self, source: &Buffer<S>, range: Range<usize>) -> Result<Download<S>, OutOfMemory> {
        // The smallest that is large enough; failing that the largest, which grows.
        let fits = |snapshot: &Vec<S>| snapshot.capacity() >= range.len();
        let chosen = (0..self.snapshots.len()).min_by_key(|&index| {
            let snapshot = &self.snapshots[index];
            let capacity = snapshot.capacity();
            if fits(snapshot) { (0, capacity) } else { (1, usize::MAX - capacity) }
        });
        let mut snapshot = chosen.map_or_else(Vec::new, |index| self.snapshots.swap_remove(index));
        snapshot.clear();
        snapshot.extend_from_slice(&source[range]);
        Ok(Download(snapshot))
    }

    fn finish(&mut self, ticket: Download<S>, target: &mut [S]) -> Result<(), OutOfMemory> {
        let Download(snapshot) = ticket;
        target.copy_from_slice(&snapshot);
        self.counters.downloaded += target.len() as u64;
        self.counters.host_waits += 1;
        self.snapshots.push(snapshot);
        Ok(())
    }

    fn gemm(&mut self, jobs: &[Gemm<S>], a: &Buffer<S>, b: &Buffer<S>, c: &mut Buffer<S>) -> Result<(), OutOfMemory> {
        product::gemm(&self.pool, jobs, a, b, c);
        self.counters.flops += jobs.iter().map(Gemm::flops).sum::<u64>();
        Ok(())
    }

    fn map(
        &mut self,
        op: Map<S>,
        jobs: &[MapJob],
        x: Option<&Buffer<S>>,
        y: Option<&Buffer<S>>,
        out: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        elementwise::map(&self.pool, op, jobs, x.map(|x| &**x), y.map(|y| &**y), out);
        Ok(())
    }

    fn reduce(
        &mut self,
        jobs: &[ReduceJob<S>],
        x: &Buffer<S>,
        y: Option<&Buffer<S>>,
        out: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        reduction::reduce(&self.pool, jobs, x, y.map(|y| &**y), out);
        Ok(())
    }

    fn cholesky(&mut self, jobs: &[Region], matrices: &mut Buffer<S>) -> Result<Verdict, OutOfMemory> {
        let mut sound = self.verdicts.pop().unwrap_or_default();
        sound.clear();
        sound.resize(jobs.len(), false);
        self.counters.flops += factorisation::cholesky(&self.pool, &self.arenas, jobs, matrices, &mut sound);
        self.counters.factorisations += jobs.len() as u64;
        Ok(Verdict(sound))
    }

    fn cholesky_solve(&mut self, jobs: &[Solve], factors: &Buffer<S>, x: &mut Buffer<S>) -> Result<(), OutOfMemory> {
        self.counters.flops += factorisation::solve(&self.pool, jobs, factors, x);
        Ok(())
    }

    fn verdict(&mut self, ticket: Verdict, sound: &mut [bool]) -> Result<(), OutOfMemory> {
        sound.copy_from_slice(&ticket.0);
        self.counters.host_waits += 1;
        self.verdicts.push(ticket.0);
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
        inputs: [&Buffer<S>; I],
        outputs: [&mut Buffer<S>; O],
        work: impl FnOnce([&[S]; I], [&mut [S]; O]),
    ) -> Result<(), OutOfMemory> {
        work(inputs.map(|input| &**input), outputs.map(|output| &mut **output));
        Ok(())
    }

    fn read(
        &mut self,
        source: &Buffer<S>,
        ranges: impl Iterator<Item = Range<usize>> + Clone,
        work: impl FnMut(&[S]),
    ) -> Result<(), OutOfMemory> {
        ranges.map(|range| &source[range]).for_each(work);
        Ok(())
    }

    fn symmetric_product(&mut self, jobs: &[Outer<S>], x: &Buffer<S>, c: &mut Buffer<S>) -> Result<(), OutOfMemory> {
        product::symmetric(&self.pool, jobs, x, c);
        self.counters.flops += jobs.iter().map(Outer::flops).sum::<u64>();
        Ok(())
    }

    fn mirror(&mut self, region: Region, matrix: &mut Buffer<S>) -> Result<(), OutOfMemory> {
        product::mirror(region, 0, matrix);
        Ok(())
    }

    fn cholesky_invert(
        &mut self,
        jobs: &[Invert],
        factors: &Buffer<S>,
        out: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        self.counters.flops += factorisation::invert(&self.pool, &self.arenas, jobs, factors, out);
        Ok(())
    }

    fn symmetric_eigen(
        &mut self,
        jobs: &[Eigen],
        matrices: &mut Buffer<S>,
        values: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        self.counters.flops += factorisation::eigen(&self.pool, &self.arenas, jobs, matrices, values);
        self.counters.eigendecompositions += jobs.len() as u64;
        Ok(())
    }

    fn tile(&self, shape: &Convolution, batch: usize) -> usize {
        convolution::tile::<S>(shape).min(batch)
    }

    /// None: patches live in arenas of the backend, one per thread.
    fn convolution_scratch(&self, _: &Convolution, _: usize) -> usize {
        0
    }

    fn unfold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        x: &Buffer<S>,
        patches: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        convolution::unfold(shape, samples, x, patches);
        Ok(())
    }

    fn fold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        patches: &Buffer<S>,
        x: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        convolution::fold(shape, samples, patches, x);
        Ok(())
    }

    fn convolution_forward(
        &mut self,
        shape: &Convolution,
        batch: usize,
        weights: (&Buffer<S>, Region),
        x: &Buffer<S>,
        y: &mut Buffer<S>,
        statistic: Option<Statistic<'_, Self>>,
        _: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        let statistic = statistic.map(inner);
        let means = Means { pool: &self.pool, arenas: &self.arenas, workspace: &mut self.workspace };
        let weights = (&**weights.0, weights.1);
        self.counters.flops += convolution::forward(means, shape, batch, weights, x, y, statistic);
        Ok(())
    }

    fn convolution_backward(
        &mut self,
        shape: &Convolution,
        batch: usize,
        weights: (&Buffer<S>, Region),
        x: &Buffer<S>,
        dy: &Buffer<S>,
        gradient: &mut Buffer<S>,
        dx: Option<&mut Buffer<S>>,
        statistic: Option<Statistic<'_, Self>>,
        _: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        let statistic = statistic.map(inner);
        let means = Means { pool: &self.pool, arenas: &self.arenas, workspace: &mut self.workspace };
        let weights = (&**weights.0, weights.1);
        let dx = dx.map(|dx| &mut **dx);
        self.counters.flops += convolution::backward(means, shape, batch, weights, x, dy, gradient, dx, statistic);
        Ok(())
    }

    fn pool_forward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Buffer<S>,
        y: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        pooling::pool_forward(&self.pool, shape, batch, x, y);
        Ok(())
    }

    fn pool_backward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Buffer<S>,
        dy: &Buffer<S>,
        dx: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        pooling::pool_backward(&self.pool, &self.arenas, shape, batch, x, dy, dx);
        Ok(())
    }

    fn batch_norm_forward(
        &mut self,
        shape: &BatchNorm<S>,
        columns: usize,
        parameters: (&Buffer<S>, usize),
        x: &Buffer<S>,
        y: &mut Buffer<S>,
        saved: &mut Buffer<S>,
        running: (&mut Buffer<S>, usize),
    ) -> Result<(), OutOfMemory> {
        let (p, r) = (&parameters.0[parameters.1..], &mut running.0[running.1..]);
        normalisation::batch_norm_forward(&self.pool, shape, columns, p, x, y, saved, r);
        Ok(())
    }

    fn batch_norm_evaluate(
        &mut self,
        shape: &BatchNorm<S>,
        columns: usize,
        parameters: (&Buffer<S>, usize),
        running: (&Buffer<S>, usize),
        x: &Buffer<S>,
        y: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        let (p, r) = (&parameters.0[parameters.1..], &running.0[running.1..]);
        normalisation::batch_norm_evaluate(&self.pool, shape, columns, p, r, x, y);
        Ok(())
    }

    fn batch_norm_backward(
        &mut self,
        shape: &BatchNorm<S>,
        columns: usize,
        parameters: (&Buffer<S>, usize),
        x: &Buffer<S>,
        saved: &Buffer<S>,
        dy: &Buffer<S>,
        gradient: &mut Buffer<S>,
        dx: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        let (p, g) = (&parameters.0[parameters.1..], &mut gradient[parameters.1..]);
        normalisation::batch_norm_backward(&self.pool, shape, columns, p, x, saved, dy, g, dx);
        Ok(())
    }

    fn evo_norm_forward(
        &mut self,
        shape: &EvoNorm<S>,
        batch: usize,
        parameters: (&Buffer<S>, usize),
        x: &Buffer<S>,
        y: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        normalisation::evo_norm_forward(shape, batch, &parameters.0[parameters.1..], x, y);
        Ok(())
    }

    fn evo_norm_backward(
        &mut self,
        shape: &EvoNorm<S>,
        batch: usize,
        parameters: (&Buffer<S>, usize),
        x: &Buffer<S>,
        dy: &Buffer<S>,
        gradient: &mut Buffer<S>,
        dx: &mut Buffer<S>,
    ) -> Result<(), OutOfMemory> {
        let (p, g) = (&parameters.0[parameters.1..], &mut gradient[parameters.1..]);
        normalisation::evo_norm_backward(shape, batch, p, x, dy, g, dx);
        Ok(())
    }
}
