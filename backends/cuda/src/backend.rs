//! The backend: memory, tickets, and the way from the trait to the device.

use crate::buffer::Buffer;
use crate::device::{Device, Snapshot};
use crate::error::CudaError;
use crate::factorisation::Scratch;
use crate::options::Options;
use crate::{elementwise, factorisation, product, reduction};
use core::ops::Range;
use kronfleet_core::backend::{Backend, Counters, Eigen, Gemm, Invert, Map, MapJob, Outer, ReduceJob, Solve};
use kronfleet_core::matrix::Region;

/// A CUDA device: one in-order queue. Only `finish`, `verdict` and `sync` wait.
#[derive(Debug)]
pub struct Cuda {
    // Freed in the stream, hence before the device goes.
    scratch: Scratch,
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
        Ok(Self { scratch: Scratch::default(), counters: Counters::default(), device })
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
        reduction::reduce(&mut self.device, jobs, x, y, out)
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
}
