//! Muon: momentum with all its singular values near 1.

use super::bases::kept;
use super::state;
use super::{Captures, Preconditioner, Report, State, Taps, gaps};
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

/// The knobs of [`Muon`].
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

/// The momentum of every block, orthogonalised by Newton and Schulz's iteration and scaled by `√max(1, rows/columns)`
/// (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks").
///
/// The bias of a layer, where there is one, is a column of its matrix. Meant for plain gradient descent behind it, as
/// momentum is within.
pub struct Muon<B: Backend> {
    momentum: f64,
    /// `M`, of all parameters.
    buffers: [B::Buffer; 1],
    all: Region,
    ahead: B::Buffer,
    x: B::Buffer,
    next: B::Buffer,
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
    plain_jobs: Vec<MapJob>,
    gram_jobs: Vec<Outer<B::Scalar>>,
    gram_all: Region,
    square_jobs: Vec<Gemm<B::Scalar>>,
    /// `X ← a·X + P·X` where a block has no more rows than columns, and `a·X + X·P` elsewhere.
    wide_jobs: Vec<Gemm<B::Scalar>>,
    tall_jobs: Vec<Gemm<B::Scalar>>,
    steps: u64,
}

impl<B: Backend> Muon<B> {
    /// For a network of these blocks, whose flat parameters have this length.
    ///
    /// # Errors
    /// If memory runs out.
    ///
    /// # Panics
    /// If an option is out of its range.
    #[track_caller]
    pub fn new(backend: &mut B, blocks: &[Block], parameters: usize, options: &MuonOptions) -> Result<Self, B::Error> {
        let s = B::Scalar::of;
        let momentum = options.momentum;
        assert!((0.0..1.0).contains(&momentum), "momentum is {momentum}; it must be at least 0 and below 1");
        let mut regions: Vec<Region> = kept(blocks, &options.exclude).iter().map(|block| block.parameters).collect();
        regions.sort_by_key(|region| region.end());
        assert!(regions.iter().all(|region| region.is_packed()), "the parameters of a block are a packed matrix");
        let scalar = |(at, region): (usize, &Region)| Region::scalar(at, region.rows, region.columns);
        let unary = |regions: &[Region]| regions.iter().map(|&region| MapJob::unary(region, region)).collect();
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
            momentum,
            buffers: [backend.allocate(parameters)?],
            all: Region::vector(0, parameters),
            ahead: backend.allocate(parameters)?,
            x: backend.allocate(parameters)?,
            next: backend.allocate(parameters)?,
            gram: backend.allocate(squares_end)?,
            polynomial: backend.allocate(squares_end)?,
            squares: backend.allocate(regions.len())?,
            norms: backend.allocate(regions.len())?,
            scales: of_scales,
            dot_jobs: regions.iter().enumerate().map(dot).collect(),
            norm_jobs: [MapJob::unary(each, each)],
            divide_jobs: regions.iter().enumerate().map(divide).collect(),
            scale_jobs: regions.iter().enumerate().map(scale).collect(),
            block_jobs: unary(&regions),
            plain_jobs: unary(&gaps(parameters, &regions)),
            gram_jobs,
            gram_all: Region::vector(0, squares_end),
            square_jobs,
            wide_jobs,
            tall_jobs,
            steps: 0,
        })
    }

    /// Makes the singular values of every block of `x` nearly 1; its Frobenius norm is 1 at most.
    fn orthogonalise(&mut self, backend: &mut B) -> Result<(), B::Error> {
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        for _ in 0..ROUNDS {
            backend.symmetric_product(&self.gram_jobs, &self.x, &mut self.gram)?;
            // P = b·XXᵀ + c·(XXᵀ)²; β of the product reads the copy.
            backend.axpby(one, &self.gram, zero, &mut self.polynomial, self.gram_all)?;
            backend.gemm(&self.square_jobs, &self.gram, &self.gram, &mut self.polynomial)?;
            let copy = Map::Axpby(one, zero);
            backend.map(copy, &self.block_jobs, Some(&self.x), None, &mut self.next)?;
            backend.gemm(&self.wide_jobs, &self.polynomial, &self.x, &mut self.next)?;
            backend.gemm(&self.tall_jobs, &self.x, &self.polynomial, &mut self.next)?;
            core::mem::swap(&mut self.x, &mut self.next);
        }
        Ok(())
    }
}

impl<B> Preconditioner<B> for Muon<B>
where
    B: Backend + Send,
    B::Buffer: Send,
{
    fn begin(&mut self, _: &mut B) -> Result<(), B::Error> {
        Ok(())
    }

    fn taps(&mut self) -> Option<Taps<'_, B>> {
        None
    }

    fn update(&mut self, _: &mut B, _: usize) -> Result<(), B::Error> {
        Ok(())
    }

    fn precondition(
        &mut self,
        backend: &mut B,
        _: f64,
        gradient: &B::Buffer,
        _: Option<&dyn Captures<B>>,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let s = B::Scalar::of;
        let copy = Map::Axpby(s(1.0), s(0.0));
        backend.axpby(s(1.0), gradient, s(self.momentum), &mut self.buffers[0], self.all)?;
        let nesterov = Map::Sum(s(1.0), s(self.momentum));
        let all = [MapJob::unary(self.all, self.all)];
        backend.map(nesterov, &all, Some(gradient), Some(&self.buffers[0]), &mut self.ahead)?;

        backend.reduce(&self.dot_jobs, &self.ahead, Some(&self.ahead), &mut self.squares)?;
        backend.map(Map::Sqrt, &self.norm_jobs, Some(&self.squares), None, &mut self.norms)?;
        backend.map(copy, &self.block_jobs, Some(&self.ahead), None, &mut self.x)?;
        backend.map(Map::DivideDamped(s(TINY)), &self.divide_jobs, Some(&self.norms), None, &mut self.x)?;
        self.orthogonalise(backend)?;

        let scaled = Map::MultiplyAdd(s(1.0), s(0.0));
        backend.map(scaled, &self.scale_jobs, Some(&self.x), Some(&self.scales), direction)?;
        backend.map(copy, &self.plain_jobs, Some(&self.ahead), None, direction)?;
        self.steps += 1;
        Ok(())
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn resume(&mut self, steps: u64) {
        self.steps = steps;
    }

    fn report(&self) -> Report {
        Report { clip: 1.0, ..Report::default() }
    }

    fn save(&mut self, backend: &mut B) -> Result<State<B::Scalar>, B::Error> {
        let report = Preconditioner::<B>::report(self);
        Ok(State { buffers: state::whole(backend, &self.buffers)?, ..State::plain(self.steps, report) })
    }

    #[track_caller]
    fn restore(&mut self, backend: &mut B, state: &State<B::Scalar>) -> Result<(), B::Error> {
        self.steps = state.steps;
        state::put_whole(backend, &mut self.buffers, &state.buffers)
    }
}
