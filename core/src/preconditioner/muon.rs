//! Muon: momentum with all its singular values near 1.

use super::division::Share;
use super::gaps;
use super::rule::Rule;
use crate::backend::{Backend, Gemm, Map, MapJob, Outer, ReduceJob};
use crate::layer::Block;
use crate::matrix::Region;
use crate::scalar::Scalar;
use alloc::string::String;
use alloc::vec::Vec;

/// `p(x) = a·x + b·x³ + c·x⁵`: steep at 0, within [0.7, 1.2] of every singular value after five times.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// How often it is applied.
const ROUNDS: usize = 5;
/// Added to the norm that is divided by.
const TINY: f64 = 1e-7;

/// The knobs of Muon: the momentum of every block, orthogonalised by Newton and Schulz's iteration and scaled by `√max(1, rows/columns)`
/// (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks").
///
/// The bias of a layer, where there is one, is a column of its matrix. Meant for plain gradient descent behind it, as
/// momentum is within.
#[derive(Clone, Debug, PartialEq)]
pub struct MuonOptions {
    /// μ of the momentum `M ← μ·M + ∇`, at least 0 and below 1; Nesterov's `∇ + μ·M` is what is followed.
    pub momentum: f64,
    /// Names of blocks that follow their momentum as it is, as do all parameters that belong to no block. The authors
    /// leave out the first and the last layer.
    pub exclude: Vec<String>,
}

impl Default for MuonOptions {
    fn default() -> Self {
        Self { momentum: 0.95, exclude: Vec::new() }
    }
}

/// What it does in the blocks of its share.
pub(super) struct Muon<B: Backend> {
    blocks: Vec<Block>,
    momentum: f64,
    /// `M`, of all parameters.
    buffers: [B::Buffer; 1],
    all: Region,
    ahead: B::Buffer,
    x: B::Buffer,
    next: B::Buffer,
    plain_jobs: Vec<MapJob>,
    work: Work<B>,
}

/// The matrices to be orthogonalised, and memory for their squares.
struct Work<B: Backend> {
    gram: B::Buffer,
    polynomial: B::Buffer,
    /// The squares of the norms, the norms, and the last scales of the blocks.
    squares: B::Buffer,
    norms: B::Buffer,
    scales: B::Buffer,
    dot_jobs: Vec<ReduceJob<B::Scalar>>,
    norm_jobs: [MapJob; 1],
    divide_jobs: Vec<MapJob>,
    scale_jobs: Vec<MapJob>,
    block_jobs: Vec<MapJob>,
    gram_jobs: Vec<Outer<B::Scalar>>,
    gram_all: Region,
    square_jobs: Vec<Gemm<B::Scalar>>,
    /// `X ← a·X + P·X` where a block has no more rows than columns, and `a·X + X·P` elsewhere.
    wide_jobs: Vec<Gemm<B::Scalar>>,
    tall_jobs: Vec<Gemm<B::Scalar>>,
}

impl<B: Backend> Muon<B> {
    /// # Panics
    /// If an option is out of its range.
    #[track_caller]
    pub(super) fn new(
        backend: &mut B,
        blocks: Vec<Block>,
        parameters: usize,
        options: &MuonOptions,
    ) -> Result<Self, B::Error> {
        let momentum = options.momentum;
        assert!((0.0..1.0).contains(&momentum), "momentum is {momentum}; it must be at least 0 and below 1");
        let regions: Vec<Region> = blocks.iter().map(|block| block.parameters).collect();
        assert!(regions.iter().all(|region| region.is_packed()), "the parameters of a block are a packed matrix");
        let plain = gaps(parameters, &regions).into_iter();
        Ok(Self {
            momentum,
            buffers: [backend.allocate(parameters)?],
            all: Region::vector(0, parameters),
            ahead: backend.allocate(parameters)?,
            x: backend.allocate(parameters)?,
            next: backend.allocate(parameters)?,
            plain_jobs: plain.map(|region| MapJob::unary(region, region)).collect(),
            work: Work::new(backend, regions)?,
            blocks,
        })
    }
}

impl<B: Backend> Work<B> {
    /// For matrices in these regions of flat buffers.
    fn new(backend: &mut B, mut regions: Vec<Region>) -> Result<Self, B::Error> {
        let s = B::Scalar::of;
        regions.sort_by_key(|region| region.end());
        let scalar = |(at, region): (usize, &Region)| Region::scalar(at, region.rows, region.columns);
        let scales: Vec<_> =
            regions.iter().map(|region| s(libm::sqrt((region.rows as f64 / region.columns as f64).max(1.0)))).collect();
        let mut squares_end = 0;
        let (mut gram_jobs, mut square_jobs, mut wide_jobs, mut tall_jobs) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for &region in &regions {
            let is_wide = region.rows <= region.columns;
            let side = region.rows.min(region.columns);
            let square = Region::matrix(squares_end, side, side);
            squares_end = square.end();
            let x = if is_wide { region } else { region.transposed() };
            gram_jobs.push(Outer { alpha: s(1.0), x, beta: s(0.0), c: square });
            let [_, linear, cubic] = QUINTIC;
            square_jobs.push(Gemm { alpha: s(cubic), a: square, b: square, beta: s(linear), c: square });
            let [a, b] = if is_wide { [square, region] } else { [region, square] };
            let product = Gemm { alpha: s(1.0), a, b, beta: s(QUINTIC[0]), c: region };
            if is_wide { wide_jobs.push(product) } else { tall_jobs.push(product) }
        }
        let each = Region::vector(0, regions.len());
        let dot = |(at, &region): (usize, &Region)| ReduceJob::sum(region, Region::vector(at, 1));
        let divide = |job: (usize, &Region)| MapJob::unary(scalar(job), *job.1);
        let scale = |job: (usize, &Region)| MapJob { x: *job.1, y: scalar(job), out: *job.1 };
        let mut of_scales = backend.allocate(regions.len())?;
        backend.upload(&scales, &mut of_scales, 0)?;
        Ok(Self {
            gram: backend.allocate(squares_end)?,
            polynomial: backend.allocate(squares_end)?,
            squares: backend.allocate(regions.len())?,
            norms: backend.allocate(regions.len())?,
            scales: of_scales,
            dot_jobs: regions.iter().enumerate().map(dot).collect(),
            norm_jobs: [MapJob::unary(each, each)],
            divide_jobs: regions.iter().enumerate().map(divide).collect(),
            scale_jobs: regions.iter().enumerate().map(scale).collect(),
            block_jobs: regions.iter().map(|&region| MapJob::unary(region, region)).collect(),
            gram_jobs,
            gram_all: Region::vector(0, squares_end),
            square_jobs,
            wide_jobs,
            tall_jobs,
        })
    }

    /// Makes the singular values of every matrix of `x` nearly 1; its Frobenius norm is 1 at most.
    fn orthogonalise(&mut self, backend: &mut B, x: &mut B::Buffer, next: &mut B::Buffer) -> Result<(), B::Error> {
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        for _ in 0..ROUNDS {
            backend.symmetric_product(&self.gram_jobs, x, &mut self.gram)?;
            // P = b·XXᵀ + c·(XXᵀ)²; β of the product reads the copy.
            backend.axpby(one, &self.gram, zero, &mut self.polynomial, self.gram_all)?;
            backend.gemm(&self.square_jobs, &self.gram, &self.gram, &mut self.polynomial)?;
            let copy = Map::Axpby(one, zero);
            backend.map(copy, &self.block_jobs, Some(x), None, next)?;
            backend.gemm(&self.wide_jobs, &self.polynomial, x, next)?;
            backend.gemm(&self.tall_jobs, x, &self.polynomial, next)?;
            core::mem::swap(x, next);
        }
        Ok(())
    }
}

impl<B> Rule<B> for Muon<B>
where
    B: Backend + Send,
    B::Buffer: Send,
{
    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn follow(&mut self, backend: &mut B, gradient: &B::Buffer, direction: &mut B::Buffer) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        let copy = Map::Axpby(s(1.0), s(0.0));
        let Self { work, x, next, ahead, .. } = self;
        backend.axpby(s(1.0), gradient, s(self.momentum), &mut self.buffers[0], self.all)?;
        let nesterov = Map::Sum(s(1.0), s(self.momentum));
        let all = [MapJob::unary(self.all, self.all)];
        backend.map(nesterov, &all, Some(gradient), Some(&self.buffers[0]), ahead)?;

        backend.reduce(&work.dot_jobs, ahead, Some(ahead), &mut work.squares)?;
        backend.map(Map::Sqrt, &work.norm_jobs, Some(&work.squares), None, &mut work.norms)?;
        backend.map(copy, &work.block_jobs, Some(ahead), None, x)?;
        backend.map(Map::DivideDamped(s(TINY)), &work.divide_jobs, Some(&work.norms), None, x)?;
        work.orthogonalise(backend, x, next)?;

        let scaled = Map::MultiplyAdd(s(1.0), s(0.0));
        backend.map(scaled, &work.scale_jobs, Some(x), Some(&work.scales), direction)?;
        backend.map(copy, &self.plain_jobs, Some(ahead), None, direction)
    }

    fn divide(&mut self, backend: &mut B, share: &Share) -> Result<(), B::Error> {
        self.work = Work::new(backend, share.held(&self.blocks).map(|block| block.parameters).collect())?;
        backend.fill(B::Scalar::of(0.0), self.all, &mut self.buffers[0])
    }

    fn moments(&mut self) -> (&mut [B::Buffer], u64) {
        (&mut self.buffers, 0)
    }
}
