//! A backend without some of its overrides: what one is worth is what is missing without it.

use crate::required::Required;
use core::ops::Range;
use kronfleet_core::backend::{
    Backend, BatchNorm, Convolution, Counters, Eigen, EvoNorm, Extent, Gemm, Invert, Map, MapJob, Outer, Pooling,
    ReduceJob, Softmax, Solve,
};
use kronfleet_core::matrix::Region;

/// Provided methods that are overridden together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Symmetric products and mirroring: [`Backend::symmetric_product`], [`Backend::mirror`].
    Symmetric,
    /// [`Backend::cholesky_invert`].
    Invert,
    /// [`Backend::symmetric_eigen`].
    Eigen,
    /// Patches of convolutions: [`Backend::unfold`], [`Backend::fold`].
    Patches,
    /// [`Backend::pool_forward`], [`Backend::pool_backward`].
    Pooling,
    /// Batch and evolving normalisation.
    Normalisation,
    /// Residual connections that subsample: [`Backend::subsample`], [`Backend::subsample_adjoint`].
    Shortcuts,
    /// [`Backend::softmax_cross_entropy`], [`Backend::sample_labels`].
    Loss,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Symmetric,
        Self::Invert,
        Self::Eigen,
        Self::Patches,
        Self::Pooling,
        Self::Normalisation,
        Self::Shortcuts,
        Self::Loss,
    ];
}

/// A backend that runs the defaults of some families, as if it had no overrides of them.
///
/// [`Backend::host`], [`Backend::tile`] and whole convolutions are those of a backend that overrides none of them.
#[derive(Debug)]
pub struct Partial<B> {
    backend: Required<B>,
    without: Vec<Family>,
}

impl<B: Backend> Partial<B> {
    /// The same backend without these overrides.
    pub fn new(backend: B, without: &[Family]) -> Self {
        Self { backend: Required::new(backend), without: without.to_vec() }
    }

    fn lacks(&self, family: Family) -> bool {
        self.without.contains(&family)
    }
}

impl<B: Backend> Backend for Partial<B> {
    type Scalar = B::Scalar;
    type Buffer = B::Buffer;
    type Download = B::Download;
    type Verdict = B::Verdict;
    type Error = B::Error;

    fn allocate(&mut self, len: usize) -> Result<Self::Buffer, Self::Error> {
        self.backend.allocate(len)
    }

    fn upload(&mut self, source: &[Self::Scalar], target: &mut Self::Buffer, offset: usize) -> Result<(), Self::Error> {
        self.backend.upload(source, target, offset)
    }

    fn download(&mut self, source: &Self::Buffer, range: Range<usize>) -> Result<Self::Download, Self::Error> {
        self.backend.download(source, range)
    }

    fn finish(&mut self, ticket: Self::Download, target: &mut [Self::Scalar]) -> Result<(), Self::Error> {
        self.backend.finish(ticket, target)
    }

    fn gemm(
        &mut self,
        jobs: &[Gemm<Self::Scalar>],
        a: &Self::Buffer,
        b: &Self::Buffer,
        c: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.backend.gemm(jobs, a, b, c)
    }

    fn map(
        &mut self,
        op: Map<Self::Scalar>,
        jobs: &[MapJob],
        x: Option<&Self::Buffer>,
        y: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.backend.map(op, jobs, x, y, out)
    }

    fn reduce(
        &mut self,
        jobs: &[ReduceJob<Self::Scalar>],
        x: &Self::Buffer,
        y: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.backend.reduce(jobs, x, y, out)
    }

    fn cholesky(&mut self, jobs: &[Region], matrices: &mut Self::Buffer) -> Result<Self::Verdict, Self::Error> {
        self.backend.cholesky(jobs, matrices)
    }

    fn cholesky_solve(
        &mut self,
        jobs: &[Solve],
        factors: &Self::Buffer,
        x: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        self.backend.cholesky_solve(jobs, factors, x)
    }

    fn verdict(&mut self, ticket: Self::Verdict, sound: &mut [bool]) -> Result<(), Self::Error> {
        self.backend.verdict(ticket, sound)
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.backend.sync()
    }

    fn counters(&mut self) -> &mut Counters {
        self.backend.counters()
    }

    fn symmetric_product(
        &mut self,
        jobs: &[Outer<Self::Scalar>],
        x: &Self::Buffer,
        c: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Symmetric) {
            self.backend.symmetric_product(jobs, x, c)
        } else {
            self.backend.0.symmetric_product(jobs, x, c)
        }
    }

    fn mirror(&mut self, region: Region, matrix: &mut Self::Buffer) -> Result<(), Self::Error> {
        if self.lacks(Family::Symmetric) {
            self.backend.mirror(region, matrix)
        } else {
            self.backend.0.mirror(region, matrix)
        }
    }

    fn cholesky_invert(
        &mut self,
        jobs: &[Invert],
        factors: &Self::Buffer,
        out: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Invert) {
            self.backend.cholesky_invert(jobs, factors, out)
        } else {
            self.backend.0.cholesky_invert(jobs, factors, out)
        }
    }

    fn symmetric_eigen(
        &mut self,
        jobs: &[Eigen],
        matrices: &mut Self::Buffer,
        values: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Eigen) {
            self.backend.symmetric_eigen(jobs, matrices, values)
        } else {
            self.backend.0.symmetric_eigen(jobs, matrices, values)
        }
    }

    fn unfold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        x: &Self::Buffer,
        patches: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Patches) {
            self.backend.unfold(shape, samples, x, patches)
        } else {
            self.backend.0.unfold(shape, samples, x, patches)
        }
    }

    fn fold(
        &mut self,
        shape: &Convolution,
        samples: Range<usize>,
        patches: &Self::Buffer,
        x: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Patches) {
            self.backend.fold(shape, samples, patches, x)
        } else {
            self.backend.0.fold(shape, samples, patches, x)
        }
    }

    fn pool_forward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Pooling) {
            self.backend.pool_forward(shape, batch, x, y)
        } else {
            self.backend.0.pool_forward(shape, batch, x, y)
        }
    }

    fn pool_backward(
        &mut self,
        shape: &Pooling,
        batch: usize,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Pooling) {
            self.backend.pool_backward(shape, batch, x, dy, dx)
        } else {
            self.backend.0.pool_backward(shape, batch, x, dy, dx)
        }
    }

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
        if self.lacks(Family::Normalisation) {
            self.backend.batch_norm_forward(shape, columns, parameters, x, y, saved, running)
        } else {
            self.backend.0.batch_norm_forward(shape, columns, parameters, x, y, saved, running)
        }
    }

    fn batch_norm_evaluate(
        &mut self,
        shape: &BatchNorm<Self::Scalar>,
        columns: usize,
        parameters: (&Self::Buffer, usize),
        running: (&Self::Buffer, usize),
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Normalisation) {
            self.backend.batch_norm_evaluate(shape, columns, parameters, running, x, y)
        } else {
            self.backend.0.batch_norm_evaluate(shape, columns, parameters, running, x, y)
        }
    }

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
        if self.lacks(Family::Normalisation) {
            self.backend.batch_norm_backward(shape, columns, parameters, x, saved, dy, gradient, dx)
        } else {
            self.backend.0.batch_norm_backward(shape, columns, parameters, x, saved, dy, gradient, dx)
        }
    }

    fn evo_norm_forward(
        &mut self,
        shape: &EvoNorm<Self::Scalar>,
        batch: usize,
        parameters: (&Self::Buffer, usize),
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Normalisation) {
            self.backend.evo_norm_forward(shape, batch, parameters, x, y)
        } else {
            self.backend.0.evo_norm_forward(shape, batch, parameters, x, y)
        }
    }

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
        if self.lacks(Family::Normalisation) {
            self.backend.evo_norm_backward(shape, batch, parameters, x, dy, gradient, dx)
        } else {
            self.backend.0.evo_norm_backward(shape, batch, parameters, x, dy, gradient, dx)
        }
    }

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
        if self.lacks(Family::Shortcuts) {
            self.backend.subsample(input, output, stride, batch, accumulate, x, y)
        } else {
            self.backend.0.subsample(input, output, stride, batch, accumulate, x, y)
        }
    }

    fn subsample_adjoint(
        &mut self,
        input: Extent,
        output: Extent,
        stride: usize,
        batch: usize,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Shortcuts) {
            self.backend.subsample_adjoint(input, output, stride, batch, dy, dx)
        } else {
            self.backend.0.subsample_adjoint(input, output, stride, batch, dy, dx)
        }
    }

    fn softmax_cross_entropy(
        &mut self,
        shape: &Softmax<Self::Scalar>,
        batch: usize,
        z: &Self::Buffer,
        labels: &Self::Buffer,
        dz: &mut Self::Buffer,
        loss: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Loss) {
            self.backend.softmax_cross_entropy(shape, batch, z, labels, dz, loss)
        } else {
            self.backend.0.softmax_cross_entropy(shape, batch, z, labels, dz, loss)
        }
    }

    fn sample_labels(
        &mut self,
        classes: usize,
        batch: usize,
        z: &Self::Buffer,
        uniform: &Self::Buffer,
        labels: &mut Self::Buffer,
    ) -> Result<(), Self::Error> {
        if self.lacks(Family::Loss) {
            self.backend.sample_labels(classes, batch, z, uniform, labels)
        } else {
            self.backend.0.sample_labels(classes, batch, z, uniform, labels)
        }
    }
}
