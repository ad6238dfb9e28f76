//! A backend with all overrides taken away.

use core::ops::Range;
use kronfleet_core::backend::{Backend, Counters, Gemm, Map, MapJob, ReduceJob, Solve};
use kronfleet_core::matrix::Region;

/// Forwards only what [`Backend`] requires, so that every provided method runs its default.
#[derive(Debug)]
pub struct Required<B>(pub(crate) B);

impl<B: Backend> Required<B> {
    /// The same backend without its overrides.
    pub fn new(backend: B) -> Self {
        Self(backend)
    }

    /// The backend itself.
    pub fn into_inner(self) -> B {
        self.0
    }
}

impl<B: Backend> Backend for Required<B> {
    type Scalar = B::Scalar;
    type Buffer = B::Buffer;
    type Download = B::Download;
    type Verdict = B::Verdict;
    type Error = B::Error;

    fn allocate(&mut self, len: usize) -> Result<B::Buffer, B::Error> {
        self.0.allocate(len)
    }

    fn upload(&mut self, source: &[B::Scalar], target: &mut B::Buffer, offset: usize) -> Result<(), B::Error> {
        self.0.upload(source, target, offset)
    }

    fn download(&mut self, source: &B::Buffer, range: Range<usize>) -> Result<B::Download, B::Error> {
        self.0.download(source, range)
    }

    fn finish(&mut self, ticket: B::Download, target: &mut [B::Scalar]) -> Result<(), B::Error> {
        self.0.finish(ticket, target)
    }

    fn gemm(
        &mut self,
        jobs: &[Gemm<B::Scalar>],
        a: &B::Buffer,
        b: &B::Buffer,
        c: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        self.0.gemm(jobs, a, b, c)
    }

    fn map(
        &mut self,
        op: Map<B::Scalar>,
        jobs: &[MapJob],
        x: Option<&B::Buffer>,
        y: Option<&B::Buffer>,
        out: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        self.0.map(op, jobs, x, y, out)
    }

    fn reduce(
        &mut self,
        jobs: &[ReduceJob<B::Scalar>],
        x: &B::Buffer,
        y: Option<&B::Buffer>,
        out: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        self.0.reduce(jobs, x, y, out)
    }

    fn cholesky(&mut self, jobs: &[Region], matrices: &mut B::Buffer) -> Result<B::Verdict, B::Error> {
        self.0.cholesky(jobs, matrices)
    }

    fn cholesky_solve(&mut self, jobs: &[Solve], factors: &B::Buffer, x: &mut B::Buffer) -> Result<(), B::Error> {
        self.0.cholesky_solve(jobs, factors, x)
    }

    fn verdict(&mut self, ticket: B::Verdict, sound: &mut [bool]) -> Result<(), B::Error> {
        self.0.verdict(ticket, sound)
    }

    fn sync(&mut self) -> Result<(), B::Error> {
        self.0.sync()
    }

    fn counters(&mut self) -> &mut Counters {
        self.0.counters()
    }
}
