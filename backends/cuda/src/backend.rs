//! The backend: memory, tickets, and the way from the trait to the device.

use crate::buffer::Buffer;
use crate::device::{Device, Snapshot, Workspace};
use crate::error::CudaError;
use crate::factorisation::Scratch;
use crate::options::Options;
use crate::{convolution, elementwise, factorisation, loss, normalisation, pooling, product, reduction, shortcut};
use core::ops::Range;
use kronfleet_core::backend::{
    Backend, BatchNorm, Convolution, Counters, Eigen, EvoNorm, Extent, Gemm, Invert, Map, MapJob, Outer, Pooling,
    ReduceJob, Softmax, Solve,
};
use kronfleet_core::matrix::Region;

/// A CUDA device: one in-order queue. Only `finish`, `verdict` and `sync` wait.
#[derive(Debug)]
pub struct Cuda {
    // Freed in the stream, hence before the device goes.
    scratch: Scratch,
    /// Partial sums.
    partials: Workspace,
    counters: Counters,
    device: Device,
}

/// A snapshot on its way to the host.
#[derive(Debug)]
pub struct Download(Snapshot);

/// Which factorisations of one call succeeded, on its way to the host.
#[derive(Debug)]
pub struct Verdict(Snapshot);

impl Cuda {
    /// Opens a device. Compiles the kernels the first time, which takes some seconds.
    ///
    /// # Errors
    /// If a library is missing, there is no such device, or it refuses.
    pub fn new(options: &Options) -> Result<Self, CudaError> {
        let device = Device::open(options)?;
        Ok(Self { scratch: Scratch::default(), partials: Workspace::default(), counters: Counters::default(), device })
    }

    /// The device's name.
    ///
    /// # Errors
    /// If the driver does not say.
    pub fn name(&self) -> Result<String, CudaError> {
        self.device.name()
    }
}

impl Backend for Cuda {
    type Scalar = f32;
    type Buffer = Buffer;
    type Download = Download;
    type Verdict = Verdict;
    type Error = CudaError;

    fn allocate(&mut self, len: usize) -> Result<Buffer, CudaError> {
        let memory = self.device.allocate(len)?;
        self.counters.allocations += 1;
        self.counters.allocated += len as u64;
        Ok(Buffer(memory))
    }

    fn upload(&mut self, source: &[f32], target: &mut Buffer, offset: usize) -> Result<(), CudaError> {
        self.device.upload(source, &mut target.0, offset)?;
        self.counters.uploaded += source.len() as u64;
        Ok(())
    }

    fn download(&mut self, source: &Buffer, range: Range<usize>) -> Result<Download, CudaError> {
        self.counters.downloaded += range.len() as u64;
        self.device.download(&source.0, range).map(Download)
    }

    fn finish(&mut self, ticket: Download, target: &mut [f32]) -> Result<(), CudaError> {
        let (len, expected) = (target.len(), ticket.0.len());
        assert!(len == expected, "a snapshot of {expected} is finished into {len}");
        self.counters.host_waits += 1;
        self.device.finish(ticket.0, |content| target.copy_from_slice(content))
    }

    fn gemm(&mut self, jobs: &[Gemm<f32>], a: &Buffer, b: &Buffer, c: &mut Buffer) -> Result<(), CudaError> {
        self.counters.flops += jobs.iter().map(Gemm::flops).sum::<u64>();
        product::gemm(&mut self.device, jobs, a, b, c)
    }

    fn map(
        &mut self,
        op: Map<f32>,
        jobs: &[MapJob],
        x: Option<&Buffer>,
        y: Option<&Buffer>,
        out: &mut Buffer,
    ) -> Result<(), CudaError> {
        elementwise::map(&mut self.device, op, jobs, x, y, out)
    }

    fn reduce(
        &mut self,
        jobs: &[ReduceJob<f32>],
        x: &Buffer,
        y: Option<&Buffer>,
        out: &mut Buffer,
    ) -> Result<(), CudaError> {
        reduction::reduce(&mut self.device, &mut self.partials, jobs, x, y, out)
    }

    fn cholesky(&mut self, jobs: &[Region], matrices: &mut Buffer) -> Result<Verdict, CudaError> {
        self.counters.factorisations += jobs.len() as u64;
        self.counters.flops += jobs.iter().map(|region| (region.rows as u64).pow(3) / 3).sum::<u64>();
        factorisation::cholesky(&mut self.device, &mut self.scratch, jobs, matrices).map(Verdict)
    }

    fn cholesky_solve(&mut self, jobs: &[Solve], factors: &Buffer, x: &mut Buffer) -> Result<(), CudaError> {
        self.counters.flops += jobs.iter().map(|job| 2 * (job.factor.rows * job.x.len()) as u64).sum::<u64>();
        factorisation::solve(&mut self.device, &mut self.scratch, jobs, factors, x)
    }

    fn verdict(&mut self, ticket: Verdict, sound: &mut [bool]) -> Result<(), CudaError> {
        let (len, expected) = (sound.len(), ticket.0.len());
        assert!(len == expected, "a verdict of {expected} factorisations is finished into {len}");
        self.counters.host_waits += 1;
        self.device.finish(ticket.0, |flags| {
            for (sound, &flag) in sound.iter_mut().zip(flags) {
                *sound = flag == 1.0;
            }
        })
    }

    fn sync(&mut self) -> Result<(), CudaError> {
        self.counters.host_waits += 1;
        self.device.synchronise()
    }

    fn counters(&mut self) -> &mut Counters {
        self.counters.launches = self.device.launches;
        self.counters.transfers = self.device.transfers;
        &mut self.counters
    }

    fn symmetric_product(&mut self, jobs: &[Outer<f32>], x: &Buffer, c: &mut Buffer) -> Result<(), CudaError> {
        self.counters.flops += jobs.iter().map(Outer::flops).sum::<u64>();
        product::symmetric(&mut self.device, jobs, x, c)
    }

    fn mirror(&mut self, region: Region, matrix: &mut Buffer) -> Result<(), CudaError> {
        product::mirror(&mut self.device, core::iter::once(region), matrix)
    }

    fn cholesky_invert(&mut self, jobs: &[Invert], factors: &Buffer, out: &mut Buffer) -> Result<(), CudaError> {
        self.counters.flops += jobs.iter().map(|job| 2 * (job.factor.rows as u64).pow(3) / 3).sum::<u64>();
        factorisation::invert(&mut self.device, &mut self.scratch, jobs, factors, out)
    }

    fn symmetric_eigen(&mut self, jobs: &[Eigen], matrices: &mut Buffer, values: &mut Buffer) -> Result<(), CudaError> {
        self.counters.eigendecompositions += jobs.len() as u64;
        // Reduction to tridiagonal form, divide and conquer, and the way back (Golub & Van Loan, §8.3).
        self.counters.flops += jobs.iter().map(|job| 9 * (job.matrix.rows as u64).pow(3)).sum::<u64>();
        factorisation::eigen(&mut self.device, &mut self.scratch, jobs, matrices, values)
    }

    fn unfold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        x: &Buffer,
        patches: &mut Buffer,
    ) -> Result<(), CudaError> {
        convolution::unfold(&mut self.device, shape, samples, x, patches)
    }

    fn fold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        patches: &Buffer,
        x: &mut Buffer,
    ) -> Result<(), CudaError> {
        convolution::fold(&mut self.device, shape, samples, patches, x)
    }

    fn pool_forward(&mut self, shape: &Pooling, batch: usize, x: &Buffer, y: &mut Buffer) -> Result<(), CudaError> {
        pooling::forward(&mut self.device, shape, batch, x, y)
    }

    fn pool_backward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<(), CudaError> {
        pooling::backward(&mut self.device, shape, batch, x, dy, dx)
    }

    fn batch_norm_forward(
        &mut self,
        shape: &BatchNorm<f32>,
        columns: usize,
        parameters: (&Buffer, usize),
        x: &Buffer,
        y: &mut Buffer,
        saved: &mut Buffer,
        running: (&mut Buffer, usize),
    ) -> Result<(), CudaError> {
        let (device, partials) = (&mut self.device, &mut self.partials);
        normalisation::batch_norm_forward(device, partials, shape, columns, parameters, x, (y, saved), running)
    }

    fn batch_norm_evaluate(
        &mut self,
        shape: &BatchNorm<f32>,
        columns: usize,
        parameters: (&Buffer, usize),
        running: (&Buffer, usize),
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<(), CudaError> {
        normalisation::batch_norm_evaluate(&mut self.device, shape, columns, parameters, running, x, y)
    }

    fn batch_norm_backward(
        &mut self,
        shape: &BatchNorm<f32>,
        columns: usize,
        parameters: (&Buffer, usize),
        x: &Buffer,
        saved: &Buffer,
        dy: &Buffer,
        gradient: &mut Buffer,
        dx: &mut Buffer,
    ) -> Result<(), CudaError> {
        let (device, partials) = (&mut self.device, &mut self.partials);
        let (read, written) = ((x, saved, dy), (gradient, dx));
        normalisation::batch_norm_backward(device, partials, shape, columns, parameters, read, written)
    }

    fn evo_norm_forward(
        &mut self,
        shape: &EvoNorm<f32>,
        batch: usize,
        parameters: (&Buffer, usize),
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<(), CudaError> {
        normalisation::evo_norm_forward(&mut self.device, shape, batch, parameters, x, y)
    }

    fn evo_norm_backward(
        &mut self,
        shape: &EvoNorm<f32>,
        batch: usize,
        parameters: (&Buffer, usize),
        x: &Buffer,
        dy: &Buffer,
        gradient: &mut Buffer,
        dx: &mut Buffer,
    ) -> Result<(), CudaError> {
        let (device, partials) = (&mut self.device, &mut self.partials);
        normalisation::evo_norm_backward(device, partials, shape, batch, parameters, (x, dy), (gradient, dx))
    }

    fn subsample(
        &mut self,
        input: Extent,
        output: Extent,
        stride: usize,
        batch: usize,
        accumulate: bool,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<(), CudaError> {
        shortcut::subsample(&mut self.device, (input, output), stride, batch, accumulate, x, y)
    }

    fn subsample_adjoint(
        &mut self,
        input: Extent,
        output: Extent,
        stride: usize,
        batch: usize,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<(), CudaError> {
        shortcut::adjoint(&mut self.device, (input, output), stride, batch, dy, dx)
    }

    /// A label that is not a class makes the loss NaN, for the device cannot panic.
    fn softmax_cross_entropy(
        &mut self,
        shape: &Softmax<f32>,
        batch: usize,
        z: &Buffer,
        labels: &Buffer,
        dz: &mut Buffer,
        loss: &mut Buffer,
    ) -> Result<(), CudaError> {
        loss::softmax_cross_entropy(&mut self.device, shape, batch, (z, labels), (dz, loss))
    }

    fn sample_labels(
        &mut self,
        classes: usize,
        batch: usize,
        z: &Buffer,
        uniform: &Buffer,
        labels: &mut Buffer,
    ) -> Result<(), CudaError> {
        loss::sample_labels(&mut self.device, classes, batch, (z, uniform), labels)
    }
}
