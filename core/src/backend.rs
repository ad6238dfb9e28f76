//! Where numbers live and are computed with: the [`Backend`] trait.
//!
//! # For users
//! Depend on a backend's crate (`kronfleet-faer`, `kronfleet-nalgebra`) and hand its value to a trainer.
//!
//! # For implementers
//! A backend is *one in-order queue on one device*:
//!
//! - Calls may return before the work is done, are never "busy", and act as if they were executed in order.
//! - Only [`finish`](Backend::finish), [`verdict`](Backend::verdict) and [`sync`](Backend::sync) wait.
//! - A [`Download`](Backend::Download) sees every earlier write and no later one.
//! - Operations take *jobs*: a slice of independent pieces of work on the same buffers, so that layers run in
//!   parallel, small factorisations are batched and launches are fused. The targets of one call are pairwise
//!   disjoint and given in ascending order of [`Region::end`]; sources and targets are different buffers, so
//!   no element is read and written through two bindings.
//! - Empty regions and empty job lists are legal and do nothing.
//! - The same calls in the same order give the same bits.
//! - Wrong shapes are bugs: they panic, with both shapes.
//!
//! Twelve methods are required. Everything else is *provided*, correct on any backend through the required ones
//! or through [`host`](Backend::host), and overridden where that is worth it; a backend whose buffers are host
//! memory overrides `host` first. The suite of `kronfleet-conformance` tells whether all of it holds.

mod activation;
mod convolution;
mod counters;
mod eigen;
mod job;
mod map;
mod normalisation;
mod pooling;
mod softmax;

pub use convolution::{Convolution, Extent};
pub use counters::Counters;
pub use job::{Eigen, Gemm, Invert, MapJob, Outer, ReduceJob, Solve};
pub use map::Map;
pub use normalisation::{BatchNorm, EvoNorm};
pub use pooling::{Pool, Pooling};
pub use softmax::Softmax;

/// The slow, obvious host versions of the provided operations, on slices.
///
/// They define what each operation means; backends in host memory may call them, and the conformance suite
/// compares with them.
pub mod reference {
    pub use super::activation::subsample;
    pub use super::activation::subsample_adjoint;
    pub use super::convolution::{fold, unfold};
    pub use super::eigen::jacobi;
    pub use super::normalisation::{
        batch_norm_backward, batch_norm_evaluate, batch_norm_forward, evo_norm_backward, evo_norm_forward,
    };
    pub use super::pooling::{pool_backward, pool_forward};
    pub use super::softmax::{sample_labels, softmax_cross_entropy};
}

use crate::error::Error;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Device memory: a line of scalars.
pub trait Buffer: Send {
    /// How many scalars it holds; never waits.
    fn len(&self) -> usize;

    /// Whether it holds none; never waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<S: Scalar> Buffer for Vec<S> {
    fn len(&self) -> usize {
        self.len()
    }
}

/// A matrix product accumulated beside another operation: `target[region] += scale · Σ x xᵀ`.
#[derive(Debug)]
pub struct Statistic<'a, B: Backend> {
    /// The buffer accumulated into.
    pub target: &'a mut B::Buffer,
    /// The square matrix in it.
    pub region: Region,
    /// What the products are multiplied with.
    pub scale: B::Scalar,
}

/// One in-order queue on one device. The [module](self) states the contract common to all methods.
pub trait Backend: Sized + 'static {
    /// What is computed with.
    type Scalar: Scalar;
    /// Device memory.
    type Buffer: Buffer;
    /// A snapshot on its way to the host.
    type Download;
    /// Whether factorisations succeeded, not known to the host yet.
    type Verdict;
    /// What can go wrong.
    type Error: Error;

    /// A new buffer of `len` zeros. Not for hot loops.
    ///
    /// # Errors
    /// If memory runs out.
    fn allocate(&mut self, len: usize) -> Result<Self::Buffer, Self::Error>;

    /// Copies `source` to `target[offset..]`. `source` may be changed as soon as the call returns.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If it does not fit.
    fn upload(&mut self, source: &[Self::Scalar], target: &mut Self::Buffer, offset: usize) -> Result<(), Self::Error>;

    /// Takes a snapshot of `source[range]`; never waits.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the range does not lie inside the buffer.
    fn download(&mut self, source: &Self::Buffer, range: Range<usize>) -> Result<Self::Download, Self::Error>;

    /// Waits for a snapshot and writes it into `target`.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If `target` has another length than the snapshot.
    fn finish(&mut self, ticket: Self::Download, target: &mut [Self::Scalar]) -> Result<(), Self::Error>;

    /// `c ← α·a·b + β·c` for every job; `a: m × k`, `b: k × n`, `c: m × n`.
    ///
    /// `β = 0` overwrites `c`, even if it holds NaN; `k = 0` leaves `β·c`. `a` and `b` have a row step or a column
    /// step of 1 (transposed regions are transposed operands); `c` has a row step of 1.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// On shapes that do not fit.
    fn gemm(
        &mut self,
        jobs: &[Gemm<Self::Scalar>],
        a: &Self::Buffer,
        b: &Self::Buffer,
        c: &mut Self::Buffer,
    ) -> Result<(), Self::Error>;

    /// `out ← op(x, y, out)` element by element, for every job; [`Map`] lists the operations.
    ///
    /// A missing buffer reads as 0. `out`'s regions have no step of 0 unless the extent is at most 1.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If a job's regions differ in shape.
    fn map(
        &mut self,
        op: Map<Self::Scalar>,
        jobs: &[MapJob],
        x: Option<&Self::Buffer>,
        y: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
    ) -> Result<(), Self::Error>;

    /// `out ← α·Σ x⊙y + β·out` for every job, summed over the dimensions in which `out` has extent 1.
    ///
    /// Without `y` the sum is over `x` itself. Passing one buffer twice gives sums of squares. `β = 0` overwrites.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If `x` and `y` differ in shape, or an extent of `out` is neither 1 nor that of `x`.
    fn reduce(
        &mut self,
        jobs: &[ReduceJob<Self::Scalar>],
        x: &Self::Buffer,
        y: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
    ) -> Result<(), Self::Error>;

    /// `L Lᵀ = A` for every job, in place: the lower triangle of `A` is read and becomes `L`.
    ///
    /// The strict upper triangle is neither read nor meaningful afterwards. A matrix that is not positive definite
    /// (a NaN in it included) is reported by the verdict; its content is unspecified then, and no other work suffers.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If a region is not square with a row step of 1.
    fn cholesky(&mut self, jobs: &[Region], matrices: &mut Self::Buffer) -> Result<Self::Verdict, Self::Error>;

    /// `x ← (L Lᵀ)⁻¹ x` for every job, with `L` from [`cholesky`](Self::cholesky); `L: n × n`, `x: n × m`, row steps of 1.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// On shapes that do not fit.
    fn cholesky_solve(
        &mut self,
        jobs: &[Solve],
        factors: &Self::Buffer,
        x: &mut Self::Buffer,
    ) -> Result<(), Self::Error>;

    /// Waits until it is known which factorisations of one [`cholesky`](Self::cholesky) call succeeded: `sound[i]` for job `i`.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If `sound` has another length than that call had jobs.
    fn verdict(&mut self, ticket: Self::Verdict, sound: &mut [bool]) -> Result<(), Self::Error>;

    /// Waits until everything asked for so far is done. Changes no result.
    ///
    /// # Errors
    /// If the device fails, now or earlier unnoticed.
    fn sync(&mut self) -> Result<(), Self::Error>;

    /// What has been done so far, counted where it is done.
    fn counters(&mut self) -> &mut Counters;

    /// Runs `work` on the contents of `inputs` and `outputs` in host memory. **Waits**, unless overridden.
    ///
    /// The default downloads all of them, calls `work` and uploads the outputs. A backend in host memory overrides
    /// it with a plain call; then every provided method below runs without a copy.
    ///
    /// # Errors
    /// If the device fails.
    fn host<const I: usize, const O: usize>(
        &mut self,
        inputs: [&Self::Buffer; I],
        outputs: [&mut Self::Buffer; O],
        work: impl FnOnce([&[Self::Scalar]; I], [&mut [Self::Scalar]; O]),
    ) -> Result<(), Self::Error> {
        self.counters().host_waits += 1;
        let mut read: [Vec<Self::Scalar>; I] = core::array::from_fn(|_| Vec::new());
        for (content, buffer) in read.iter_mut().zip(inputs) {
            *content = self.fetch(buffer, 0..buffer.len())?;
        }
        let mut written: [Vec<Self::Scalar>; O] = core::array::from_fn(|_| Vec::new());
        for (content, buffer) in written.iter_mut().zip(&outputs) {
            *content = self.fetch(buffer, 0..buffer.len())?;
        }
        let views: [&mut [Self::Scalar]; O] = {
            let mut contents = written.iter_mut();
            core::array::from_fn(|_| contents.next().expect("one content per output").as_mut_slice())
        };
        work(read.each_ref().map(Vec::as_slice), views);
        for (content, buffer) in written.iter().zip(outputs) {
            self.upload(content, buffer, 0)?;
        }
        Ok(())
    }

    /// Waits for a copy of `source[range]`. For set-up, tests and checkpoints, not for hot loops.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the range does not lie inside the buffer.
    fn fetch(&mut self, source: &Self::Buffer, range: Range<usize>) -> Result<Vec<Self::Scalar>, Self::Error> {
        let mut target = vec![Self::Scalar::default(); range.len()];
        let ticket = self.download(source, range)?;
        self.finish(ticket, &mut target)?;
        Ok(target)
    }

    /// Shows `work` what lies in `ranges` of `source`, one after another. **Waits**, unless overridden.
    ///
    /// The default copies the ranges, and what is between them where that is less than they are. A backend in host memory
    /// overrides it with plain calls, so that nothing is copied.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If a range does not lie inside the buffer.
    fn read(
        &mut self,
        source: &Self::Buffer,
        ranges: impl Iterator<Item = Range<usize>> + Clone,
        mut work: impl FnMut(&[Self::Scalar]),
    ) -> Result<(), Self::Error> {
        let wanted: usize = ranges.clone().map(|range| range.len()).sum();
        let first = ranges.clone().map(|range| range.start).min().unwrap_or(0);
        let end = ranges.clone().map(|range| range.end).max().unwrap_or(0);
        if wanted == 0 || end - first < 2 * wanted {
            let all = self.fetch(source, first..end)?;
            ranges.for_each(|range| work(&all[range.start - first..range.end - first]));
            return Ok(());
        }
        // All of them are asked for before the first is waited for.
        let tickets = ranges.clone().map(|range| self.download(source, range)).collect::<Result<Vec<_>, _>>()?;
        let mut content = Vec::new();
        for (range, ticket) in ranges.zip(tickets) {
            content.resize(range.len(), Self::Scalar::default());
            self.finish(ticket, &mut content)?;
            work(&content);
        }
        Ok(())
    }

    /// `out[region] ← value`.
    ///
    /// # Errors
    /// If the device fails.
    fn fill(&mut self, value: Self::Scalar, region: Region, out: &mut Self::Buffer) -> Result<(), Self::Error> {
        self.map(Map::Fill(value), &[MapJob { x: region, y: region, out: region }], None, None, out)
    }

    /// `y[region] ← α·x[region] + β·y[region]`; `β = 0` overwrites.
    ///
    /// # Errors
    /// If the device fails.
    fn axpby(
        &mut self,
        alpha: Self::Scalar,
        x: &Self::Buffer,
        beta: Self::Scalar,
        y: &mut Self::Buffer,
        region: Region,
    ) -> Result<(), Self::Error> {
        self.map(Map::Axpby(alpha, beta), &[MapJob { x: region, y: region, out: region }], Some(x), None, y)
    }

    /// `c ← α·x·xᵀ + β·c` for every job, both triangles of a symmetric `c`; `x: n × k`, `c: n × n`.
    ///
    /// The result is symmetric to the bit.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// On shapes that do not fit.
    fn symmetric_product(
        &mut self,
        jobs: &[Outer<Self::Scalar>],
        x: &Self::Buffer,
        c: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        for job in jobs {
            let product = Gemm { alpha: job.alpha, a: job.x, b: job.x.transposed(), beta: job.beta, c: job.c };
            self.gemm(&[product], x, x, c)?;
            // A library may sum the two triangles in different orders.
            self.mirror(job.c, c)?;
        }
        Ok(())
    }

    /// Copies the strict lower triangle of a square matrix onto the upper one.
    ///
    /// # Errors
    /// If the device fails.
    fn mirror(&mut self, region: Region, matrix: &mut Self::Buffer) -> Result<(), Self::Error> {
        self.host([], [matrix], |[], [matrix]| job::mirror(region, matrix))
    }

    /// `out ← (L Lᵀ)⁻¹` for every job, both triangles, with `L` from [`cholesky`](Self::cholesky).
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// On shapes that do not fit.
    fn cholesky_invert(
        &mut self,
        jobs: &[Invert],
        factors: &Self::Buffer,
        out: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        for job in jobs {
            self.fill(Self::Scalar::of(0.0), job.out, out)?;
            self.fill(Self::Scalar::of(1.0), job.out.diagonal(), out)?;
            self.cholesky_solve(&[Solve { factor: job.factor, x: job.out }], factors, out)?;
            self.mirror(job.out, out)?;
        }
        Ok(())
    }

    /// `A = Q diag(d) Qᵀ` for every job: the symmetric matrix becomes `Q` (eigenvectors in columns), `d` ascends.
    ///
    /// Where the decomposition fails (a NaN in `A`), `d` is all NaN. May wait on devices without an eigensolver of
    /// their own; the default runs cyclic Jacobi on the host.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// On shapes that do not fit.
    fn symmetric_eigen(
        &mut self,
        jobs: &[Eigen],
        matrices: &mut Self::Buffer,
        values: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([], [matrices, values], |[], [matrices, values]| {
            for job in jobs {
                eigen::jacobi(job.matrix, matrices, job.values, values);
            }
        })
    }

    /// How many samples of a batch one tile of patches holds; see [`convolution_scratch`](Self::convolution_scratch).
    ///
    /// The default is the whole batch: fewest calls. Backends in host memory choose what stays in cache.
    fn tile(&self, shape: &Convolution, batch: usize) -> usize {
        let _ = shape;
        batch
    }

    /// Scratch a convolution of this shape and batch asks for, in scalars.
    fn convolution_scratch(&self, shape: &Convolution, batch: usize) -> usize {
        shape.patch_rows() * shape.output.positions() * self.tile(shape, batch).max(1)
    }

    /// Writes the patches of `samples` into `patches`: [`patch_rows`](Convolution::patch_rows) `× (samples · positions)`.
    ///
    /// A patch is ordered channel fastest, then kernel column, then kernel row; with a bias a 1 follows last.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If a buffer is too short.
    fn unfold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        x: &Self::Buffer,
        patches: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([x], [patches], |[x], [patches]| convolution::unfold(shape, samples, x, patches))
    }

    /// The adjoint of [`unfold`](Self::unfold): `x[samples] ← Σ` of the patch elements that came from each pixel.
    ///
    /// Rows of `patches` are without the bias row: [`patch_len`](Convolution::patch_len) `× (samples · positions)`.
    /// `x` outside `samples` is untouched.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If a buffer is too short.
    fn fold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        patches: &Self::Buffer,
        x: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([patches], [x], |[patches], [x]| convolution::fold(shape, samples, patches, x))
    }

    /// `y ← [W | b] · patches(x)`, and on request `statistic += scale · Σ patch · patchᵀ` while a tile is hot.
    ///
    /// `weights: out × patch_rows` at `region`; `x` and `y` start at offset 0 of their buffers. `scratch` holds at
    /// least [`convolution_scratch`](Self::convolution_scratch) scalars of unspecified content.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// On shapes that do not fit.
    fn convolution_forward(
        &mut self,
        shape: &Convolution,
        batch: usize,
        weights: (&Self::Buffer, Region),
        x: &Self::Buffer,
        y: &mut Self::Buffer,
        mut statistic: Option<Statistic<'_, Self>>,
        scratch: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        let (one, zero) = (Self::Scalar::of(1.0), Self::Scalar::of(0.0));
        let tile = self.tile(shape, batch).max(1);
        for first in (0..batch).step_by(tile) {
            let samples = first..(first + tile).min(batch);
            let columns = samples.len() * shape.output.positions();
            let patches = Region::matrix(0, shape.patch_rows(), columns);
            let target = Region::matrix(first * shape.output.len(), shape.output.channels, columns);
            self.unfold(shape, samples, x, scratch)?;
            let product = Gemm { alpha: one, a: weights.1, b: patches, beta: zero, c: target };
            self.gemm(&[product], weights.0, scratch, y)?;
            if let Some(statistic) = &mut statistic {
                let job = Outer { alpha: statistic.scale, x: patches, beta: one, c: statistic.region };
                self.symmetric_product(&[job], scratch, statistic.target)?;
            }
        }
        Ok(())
    }

    /// `gradient[region] ← dy · patches(x)ᵀ` and, on request, `dx ← fold(Wᵀ · dy)`.
    ///
    /// Shapes as in [`convolution_forward`](Self::convolution_forward); `gradient` lies at the same region as the
    /// weights. On request `statistic += scale · Σ dy · dyᵀ` over all columns.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// On shapes that do not fit.
    fn convolution_backward(
        &mut self,
        shape: &Convolution,
        batch: usize,
        weights: (&Self::Buffer, Region),
        x: &Self::Buffer,
        dy: &Self::Buffer,
        gradient: &mut Self::Buffer,
        mut dx: Option<&mut Self::Buffer>,
        statistic: Option<Statistic<'_, Self>>,
        scratch: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        let (one, zero) = (Self::Scalar::of(1.0), Self::Scalar::of(0.0));
        let tile = self.tile(shape, batch).max(1);
        let region = weights.1;
        let kernel = region.block(0, 0, region.rows, shape.patch_len());
        self.fill(zero, region, gradient)?;
        for first in (0..batch).step_by(tile) {
            let samples = first..(first + tile).min(batch);
            let columns = samples.len() * shape.output.positions();
            let cotangent = Region::matrix(first * shape.output.len(), shape.output.channels, columns);
            self.unfold(shape, samples.clone(), x, scratch)?;
            let patches = Region::matrix(0, shape.patch_rows(), columns);
            let product = Gemm { alpha: one, a: cotangent, b: patches.transposed(), beta: one, c: region };
            self.gemm(&[product], dy, scratch, gradient)?;
            if let Some(dx) = &mut dx {
                let patches = Region::matrix(0, shape.patch_len(), columns);
                let product = Gemm { alpha: one, a: kernel.transposed(), b: cotangent, beta: zero, c: patches };
                self.gemm(&[product], weights.0, dy, scratch)?;
                self.fold(shape, samples, scratch, dx)?;
            }
        }
        if let Some(statistic) = statistic {
            let all = Region::matrix(0, shape.output.channels, batch * shape.output.positions());
            let job = Outer { alpha: statistic.scale, x: all, beta: one, c: statistic.region };
            self.symmetric_product(&[job], dy, statistic.target)?;
        }
        Ok(())
    }

    /// Pools every sample of the batch; maximum or mean as `shape` says.
    ///
    /// # Errors
    /// If the device fails.
    fn pool_forward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([x], [y], |[x], [y]| pooling::pool_forward(shape, batch, x, y))
    }

    /// The adjoint of [`pool_forward`](Self::pool_forward) at `x`; a maximum sends its gradient to the first of equals
    /// (kernel rows first). A mean does not read `x`, which may then be any buffer, shorter than the batch.
    ///
    /// # Errors
    /// If the device fails.
    fn pool_backward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([x, dy], [dx], |[x, dy], [dx]| pooling::pool_backward(shape, batch, x, dy, dx))
    }

    /// Batch normalisation in training mode (Ioffe & Szegedy 2015); see [`BatchNorm`] for the layout.
    ///
    /// `saved ← [mean; 1/√(var + ε)]`, `running` moves towards the batch's statistics.
    ///
    /// # Errors
    /// If the device fails.
    fn batch_norm_forward(
        &mut self,
        shape: &BatchNorm<Self::Scalar>,
        columns: usize,
        parameters: (&Self::Buffer, usize),
        x: &Self::Buffer,
        y: &mut Self::Buffer,
        saved: &mut Self::Buffer,
        running: (&mut Self::Buffer, usize),
    ) -> Result<(), Self::Error> {
        self.host([parameters.0, x], [y, saved, running.0], |[p, x], [y, saved, r]| {
            normalisation::batch_norm_forward(shape, columns, &p[parameters.1..], x, y, saved, &mut r[running.1..]);
        })
    }

    /// Batch normalisation in evaluation mode, from the running statistics.
    ///
    /// # Errors
    /// If the device fails.
    fn batch_norm_evaluate(
        &mut self,
        shape: &BatchNorm<Self::Scalar>,
        columns: usize,
        parameters: (&Self::Buffer, usize),
        running: (&Self::Buffer, usize),
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([parameters.0, running.0, x], [y], |[p, r, x], [y]| {
            normalisation::batch_norm_evaluate(shape, columns, &p[parameters.1..], &r[running.1..], x, y);
        })
    }

    /// The adjoint of [`batch_norm_forward`](Self::batch_norm_forward): `gradient ← [dγ; dβ]`, `dx`.
    ///
    /// # Errors
    /// If the device fails.
    fn batch_norm_backward(
        &mut self,
        shape: &BatchNorm<Self::Scalar>,
        columns: usize,
        parameters: (&Self::Buffer, usize),
        x: &Self::Buffer,
        saved: &Self::Buffer,
        dy: &Self::Buffer,
        gradient: &mut Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([parameters.0, x, saved, dy], [gradient, dx], |[p, x, saved, dy], [g, dx]| {
            let at = parameters.1;
            normalisation::batch_norm_backward(shape, columns, &p[at..], x, saved, dy, &mut g[at..], dx);
        })
    }

    /// EvoNorm-S0 (Liu et al. 2020, arXiv 2004.02967); see [`EvoNorm`] for the layout.
    ///
    /// # Errors
    /// If the device fails.
    fn evo_norm_forward(
        &mut self,
        shape: &EvoNorm<Self::Scalar>,
        batch: usize,
        parameters: (&Self::Buffer, usize),
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([parameters.0, x], [y], |[p, x], [y]| {
            normalisation::evo_norm_forward(shape, batch, &p[parameters.1..], x, y);
        })
    }

    /// The adjoint of [`evo_norm_forward`](Self::evo_norm_forward): `gradient ← [dγ; dβ; dv]`, `dx`.
    ///
    /// # Errors
    /// If the device fails.
    fn evo_norm_backward(
        &mut self,
        shape: &EvoNorm<Self::Scalar>,
        batch: usize,
        parameters: (&Self::Buffer, usize),
        x: &Self::Buffer,
        dy: &Self::Buffer,
        gradient: &mut Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([parameters.0, x, dy], [gradient, dx], |[p, x, dy], [g, dx]| {
            normalisation::evo_norm_backward(shape, batch, &p[parameters.1..], x, dy, &mut g[parameters.1..], dx);
        })
    }

    /// The option-A shortcut (He et al. 2015): every `stride`-th pixel, channels padded with zeros on both sides.
    ///
    /// Written where `accumulate` is false, added to `y` otherwise.
    ///
    /// # Errors
    /// If the device fails.
    fn subsample(
        &mut self,
        input: Extent,
        output: Extent,
        stride: usize,
        batch: usize,
        accumulate: bool,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([x], [y], |[x], [y]| activation::subsample(input, output, stride, batch, accumulate, x, y))
    }

    /// The adjoint of [`subsample`](Self::subsample): **adds** to `dx`.
    ///
    /// # Errors
    /// If the device fails.
    fn subsample_adjoint(
        &mut self,
        input: Extent,
        output: Extent,
        stride: usize,
        batch: usize,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([dy], [dx], |[dy], [dx]| activation::subsample_adjoint(input, output, stride, batch, dy, dx))
    }

    /// Mean softmax cross-entropy with label smoothing: `loss ← [mean loss; number of correct answers]`,
    /// `dz ← (softmax(z) − target)/batch`.
    ///
    /// `z: classes × batch`; `labels` holds class numbers as scalars.
    ///
    /// # Errors
    /// If the device fails.
    fn softmax_cross_entropy(
        &mut self,
        shape: &Softmax<Self::Scalar>,
        batch: usize,
        z: &Self::Buffer,
        labels: &Self::Buffer,
        dz: &mut Self::Buffer,
        loss: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([z, labels], [dz, loss], |[z, labels], [dz, loss]| {
            softmax::softmax_cross_entropy(shape, batch, z, labels, dz, loss);
        })
    }

    /// Draws a label for every column of `z` from its softmax, by inversion of the uniform numbers given: what the
    /// true Fisher asks for.
    ///
    /// # Errors
    /// If the device fails.
    fn sample_labels(
        &mut self,
        classes: usize,
        batch: usize,
        z: &Self::Buffer,
        uniform: &Self::Buffer,
        labels: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.host([z, uniform], [labels], |[z, uniform], [labels]| {
            softmax::sample_labels(classes, batch, z, uniform, labels);
        })
    }
}
