//! Eva: rank-one curvature from mean vectors.

mod shared;

use self::shared::Shared;
use super::bases::kept;
use super::clip::Clip;
use super::division::{Member, Seat, Share};
use super::low_rank::grown;
use super::state;
use super::{BlockState, Captures, Preconditioner, Report, State, Taps, gaps};
use crate::backend::{Backend, Convolution, Gemm, Map, MapJob, ReduceJob};
use crate::factor::RunningMeans;
use crate::layer::{Block, Capture, CaptureKind, Observer};
use crate::matrix::Region;
use crate::placement::{Decomposers, Letters, Load, Placement, Plan, Statistics, Work};
use crate::scalar::Scalar;
use crate::transport::TransportError;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Scalars that the patches of one tile may take.
const TILE: usize = 1 << 20;

/// The knobs of [`Eva`].
#[derive(Clone, Debug, PartialEq)]
pub struct EvaOptions {
    /// λ, positive.
    pub damping: f64,
    /// Weight of the old running averages, at least 0 and below 1.
    pub ema_old: f64,
    /// κ of the KL clip, as in [`Options`](super::Options); `None` does not clip.
    pub clip: Option<f64>,
    /// Names of blocks that follow their plain gradient, as do all parameters that belong to no block.
    pub exclude: Vec<String>,
}

impl Default for EvaOptions {
    fn default() -> Self {
        Self { damping: 0.03, ema_old: 0.95, clip: Some(0.001), exclude: Vec::new() }
    }
}

/// `v = (1/λ)·(∇ − (gᵀ∇a)/(λ + ‖a‖²‖g‖²)·g aᵀ)` in every block: K-FAC with the running means of its inputs `a` and output
/// gradients `g` in place of their second moments, inverted by Sherman and Morrison's formula (Zhang et al. 2023, "Eva:
/// Practical second-order optimization with Kronecker-vectorized approximation").
///
/// Memory and traffic grow with rows plus columns. With `S` positions per sample, `a` is `√S` times the mean over samples
/// and positions and `g` the mean of single samples' gradients, so that `a aᵀ` and `g gᵀ` are at most the factors that K-FAC
/// would have, and one damping means the same to both.
///
/// Where several members share every step, gradients are averaged and the vectors of their batches are means of one another,
/// by a placement [`of_vectors`](Placement::of_vectors): averaged everywhere, at a layer's owner, or the owner's own; holders
/// compute directions and hand them to all others.
pub struct Eva<B: Backend> {
    blocks: Vec<Block>,
    damping: f64,
    ema_old: f64,
    /// The mean vectors as they are summed up, and where they lie.
    means: RunningMeans<B>,
    places: Places,
    /// By the network's number of a block, its number here.
    observed: Vec<Option<usize>>,
    one: B::Buffer,
    patches: Option<B::Buffer>,
    /// `a` and `g` of this step; then `∇a` and the coefficients times `g` in the places of `g`.
    vectors: B::Buffer,
    images: B::Buffer,
    scaled: B::Buffer,
    squares: [B::Buffer; 2],
    coefficients: B::Buffer,
    product: B::Buffer,
    jobs: Jobs<B::Scalar>,
    clip: Clip<B>,
    v: B::Buffer,
    /// What is done with others, where steps are shared.
    shared: Option<Shared<B>>,
    parameters: usize,
    steps: u64,
    report: Report,
}

/// Where the vectors of every block lie in one buffer.
struct Places {
    a: Vec<Region>,
    g: Vec<Region>,
    len: usize,
}

struct Jobs<S> {
    /// `∇·a`.
    image: Vec<Gemm<S>>,
    /// `⟨a, a⟩`, `⟨g, g⟩` and `⟨g, ∇a⟩`.
    of_a: Vec<ReduceJob<S>>,
    of_g: Vec<ReduceJob<S>>,
    /// One for all coefficients.
    each: [MapJob; 1],
    scale: Vec<MapJob>,
    subtract: Vec<Gemm<S>>,
    copy: Vec<MapJob>,
    plain: Vec<MapJob>,
}

impl<B: Backend> Eva<B> {
    /// For a network of these blocks, whose flat parameters have this length.
    ///
    /// # Errors
    /// If memory runs out.
    ///
    /// # Panics
    /// If an option is out of its range.
    #[track_caller]
    pub fn new(backend: &mut B, blocks: &[Block], parameters: usize, options: &EvaOptions) -> Result<Self, B::Error> {
        let EvaOptions { damping, ema_old, clip, ref exclude } = *options;
        assert!(damping > 0.0 && damping.is_finite(), "damping is {damping}; it must be positive and finite");
        assert!((0.0..1.0).contains(&ema_old), "ema_old is {ema_old}; it must be at least 0 and below 1");
        assert!(clip.is_none_or(|kappa| kappa > 0.0), "clip is {clip:?}; it must be positive, or none");
        let mut next = 0;
        let observed = blocks.iter().map(|block| {
            (!exclude.contains(&block.name)).then(|| {
                next += 1;
                next - 1
            })
        });
        let observed = observed.collect();
        let blocks = kept(blocks, exclude);
        let places = Places::new(&blocks);
        let groups: Vec<_> = places.a.iter().zip(&places.g).map(|(&a, &g)| vec![a, g]).collect();
        let means = RunningMeans::new(backend, places.len, &groups)?;
        let jobs = Jobs::new(&blocks, &places, parameters, damping, &vec![true; blocks.len()]);
        let mut one = backend.allocate(1)?;
        backend.fill(B::Scalar::of(1.0), Region::vector(0, 1), &mut one)?;
        let count = blocks.len();
        Ok(Self {
            damping,
            ema_old,
            means,
            observed,
            one,
            patches: None,
            vectors: backend.allocate(places.len)?,
            images: backend.allocate(places.len)?,
            scaled: backend.allocate(places.len)?,
            squares: [backend.allocate(count)?, backend.allocate(count)?],
            coefficients: backend.allocate(count)?,
            product: backend.allocate(count)?,
            jobs,
            clip: Clip::new(backend, &blocks, clip)?,
            v: backend.allocate(parameters)?,
            shared: None,
            parameters,
            steps: 0,
            report: Report { damping, clip: 1.0, ..Report::default() },
            places,
            blocks,
        })
    }

    /// Whether a placement divides its work.
    ///
    /// # Errors
    /// If its statistics would be decomposed or of gradients; with the remedy.
    pub fn check(placement: &Placement) -> Result<(), &'static str> {
        placement.check()?;
        if placement.statistics == Statistics::OfGradient {
            return Err("Eva's statistics are of passes: choose another one than Statistics::OfGradient");
        }
        if placement.decomposers != Decomposers::Nobody || placement.overlapped {
            return Err("Eva's statistics are vectors, which nobody decomposes: choose Placement::of_vectors");
        }
        Ok(())
    }

    /// The same where several members share every step: gradients are averaged, and the rest is divided by the [`Plan`] of
    /// `member`, which was made for those of `blocks` that are not excluded.
    ///
    /// Every member has to make the same steps.
    ///
    /// # Errors
    /// If memory runs out.
    ///
    /// # Panics
    /// As [`new`](Self::new), if the plan was made for other blocks, or [`check`](Self::check) finds fault.
    #[track_caller]
    pub fn divided(
        backend: &mut B,
        blocks: &[Block],
        parameters: usize,
        options: &EvaOptions,
        member: Member<B::Scalar>,
    ) -> Result<Self, B::Error> {
        Self::seated(backend, blocks, parameters, options, member.into())
    }

    /// The same where members that come and go share every step. It begins as one member by itself; whoever knows the
    /// others [`join`](Preconditioner::join)s them and carries the letters of [`share`](Preconditioner::share).
    ///
    /// Running means begin anew, at everybody, whenever the work is divided anew.
    ///
    /// # Errors
    /// If memory runs out.
    ///
    /// # Panics
    /// As [`divided`](Self::divided).
    #[track_caller]
    pub fn elastic(
        backend: &mut B,
        blocks: &[Block],
        parameters: usize,
        options: &EvaOptions,
        (placement, work): (Placement, Work),
    ) -> Result<Self, B::Error> {
        let loads: Vec<Load> = kept(blocks, &options.exclude).iter().map(Load::from).collect();
        let seat = Seat { plan: Plan::new(&placement, &loads, 1, &work), me: 0, wire: None };
        let mut made = Self::seated(backend, blocks, parameters, options, seat)?;
        if let Some(shared) = &mut made.shared {
            shared.come_and_go(placement, work);
        }
        Ok(made)
    }

    #[track_caller]
    fn seated(
        backend: &mut B,
        blocks: &[Block],
        parameters: usize,
        options: &EvaOptions,
        seat: Seat<B::Scalar>,
    ) -> Result<Self, B::Error> {
        if let Err(reason) = Self::check(seat.plan.placement()) {
            panic!("{reason}");
        }
        let mut made = Self::new(backend, blocks, parameters, options)?;
        made.shared = Some(Shared::new(backend, &made.blocks, parameters, seat)?);
        made.divide(backend)?;
        Ok(made)
    }

    /// Takes over its share of the work, running means from zero.
    fn divide(&mut self, backend: &mut B) -> Result<(), B::Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let Share { holds, .. } = shared.division.share();
        self.means.restrict(backend, &shared.division.keeps())?;
        self.jobs = Jobs::new(&self.blocks, &self.places, self.parameters, self.damping, &holds);
        self.means.clear(backend)
    }

    /// Writes the directions of the blocks it holds into `v`.
    fn follow(&mut self, backend: &mut B, gradient: &B::Buffer) -> Result<(), B::Error> {
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        let (jobs, damping) = (&self.jobs, B::Scalar::of(self.damping));
        let multiply = Map::MultiplyAdd(one, zero);
        self.means.means(backend, &mut self.vectors)?;
        let [of_a, of_g] = &mut self.squares;
        backend.reduce(&jobs.of_a, &self.vectors, Some(&self.vectors), of_a)?;
        backend.reduce(&jobs.of_g, &self.vectors, Some(&self.vectors), of_g)?;
        backend.map(multiply, &jobs.each, Some(of_a), Some(of_g), &mut self.product)?;
        backend.gemm(&jobs.image, gradient, &self.vectors, &mut self.images)?;
        backend.reduce(&jobs.of_g, &self.images, Some(&self.vectors), &mut self.coefficients)?;
        let divide = Map::DivideDamped(damping);
        backend.map(divide, &jobs.each, Some(&self.product), None, &mut self.coefficients)?;
        backend.map(multiply, &jobs.scale, Some(&self.vectors), Some(&self.coefficients), &mut self.scaled)?;
        let ahead = Map::Axpby(B::Scalar::of(1.0 / self.damping), zero);
        backend.map(ahead, &jobs.copy, Some(gradient), None, &mut self.v)?;
        backend.gemm(&jobs.subtract, &self.scaled, &self.vectors, &mut self.v)
    }

    /// Ends a step: the direction of the gradient, of which the blocks' parts are in `v`.
    fn conclude(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        gradient: &B::Buffer,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        self.clip.apply(backend, learning_rate, gradient, &self.v, direction)?;
        backend.map(Map::Axpby(one, zero), &self.jobs.plain, Some(gradient), None, direction)?;
        self.steps += 1;
        Ok(())
    }

    /// Takes the batch's means into the running ones.
    fn close(&mut self, backend: &mut B, count: usize) -> Result<(), B::Error> {
        self.report.updates += 1;
        self.means.close(backend, self.ema_old, count)
    }

    fn observe_convolution(
        &mut self,
        backend: &mut B,
        at: usize,
        shape: &Convolution,
        batch: usize,
        x: &B::Buffer,
    ) -> Result<(), B::Error> {
        let (rows, positions) = (self.blocks[at].parameters.columns, shape.output.positions());
        let tile = (TILE / (rows * positions).max(1)).clamp(1, batch.max(1));
        let patches = grown(backend, &mut self.patches, rows * positions * tile)?;
        // √S times the mean over N·S columns.
        let alpha = 1.0 / (batch.max(1) as f64 * libm::sqrt(positions as f64));
        for first in (0..batch).step_by(tile) {
            let samples = first..(first + tile).min(batch);
            let columns = Region::matrix(0, rows, samples.len() * positions);
            backend.unfold(shape, samples, x, patches)?;
            let sum = added(alpha, columns, self.places.a[at]);
            backend.reduce(&[sum], patches, None, self.means.statistics())?;
        }
        Ok(())
    }
}

/// `out += α·Σ` of the columns of `x`.
fn added<S: Scalar>(alpha: f64, x: Region, out: Region) -> ReduceJob<S> {
    ReduceJob { alpha: S::of(alpha), beta: S::of(1.0), ..ReduceJob::sum(x, out) }
}

impl Places {
    fn new(blocks: &[Block]) -> Self {
        let mut len = 0;
        let mut vector = |rows| {
            let region = Region::vector(len, rows);
            len = region.end();
            region
        };
        let (a, g) = blocks.iter().map(|block| (vector(block.a.rows), vector(block.g.rows))).unzip();
        Self { a, g, len }
    }
}

impl<S: Scalar> Jobs<S> {
    /// Directions of those blocks that are held.
    fn new(blocks: &[Block], places: &Places, parameters: usize, damping: f64, holds: &[bool]) -> Self {
        let taken: Vec<Region> = blocks.iter().map(|block| block.parameters).collect();
        let dots = |regions: &[Region]| {
            let dot = |(at, &region): (usize, &Region)| ReduceJob::sum(region, Region::vector(at, 1));
            regions.iter().enumerate().filter(|(at, _)| holds[*at]).map(dot).collect()
        };
        let image = |((block, &a), &g): ((&Block, &Region), &Region)| Gemm::product(block.parameters, a, g);
        let scale = |(at, &g): (usize, &Region)| MapJob { x: g, y: Region::scalar(at, g.rows, 1), out: g };
        let subtract = |((block, &a), &g): ((&Block, &Region), &Region)| Gemm {
            alpha: S::of(-1.0 / damping),
            a: g,
            b: a.transposed(),
            beta: S::of(1.0),
            c: block.parameters,
        };
        let each = Region::vector(0, blocks.len());
        let all =
            || blocks.iter().zip(&places.a).zip(&places.g).zip(holds).filter(|(_, holds)| **holds).map(|(of, _)| of);
        let mut subtract: Vec<_> = all().map(subtract).collect();
        subtract.sort_by_key(|job| job.c.end());
        let held = all().map(|((block, _), _)| block.parameters);
        let mut copy: Vec<_> = held.map(|region| MapJob::unary(region, region)).collect();
        copy.sort_by_key(|job| job.out.end());
        let plain = gaps(parameters, &taken).into_iter().map(|region| MapJob::unary(region, region)).collect();
        Self {
            image: all().map(image).collect(),
            of_a: dots(&places.a),
            of_g: dots(&places.g),
            each: [MapJob::unary(each, each)],
            scale: places.g.iter().enumerate().filter(|(at, _)| holds[*at]).map(scale).collect(),
            subtract,
            copy,
            plain,
        }
    }
}

impl<B: Backend> Observer<B> for Eva<B> {
    fn observe(
        &mut self,
        backend: &mut B,
        block: usize,
        batch: usize,
        capture: &Capture<'_, B>,
    ) -> Result<(), B::Error> {
        let Some(&Some(at)) = self.observed.get(block) else { return Ok(()) };
        let (a, g) = (self.places.a[at], self.places.g[at]);
        let (columns, positions) = match capture.kind {
            CaptureKind::Dense { inputs, bias, .. } => {
                let share = 1.0 / batch.max(1) as f64;
                let x = Region::matrix(0, inputs, batch);
                let sum = added(share, x, Region::vector(a.offset, inputs));
                backend.reduce(&[sum], capture.x, None, self.means.statistics())?;
                if bias {
                    let one = B::Scalar::of(1.0);
                    let job = MapJob::unary(Region::vector(0, 1), Region::vector(a.offset + inputs, 1));
                    backend.map(Map::Axpby(one, one), &[job], Some(&self.one), None, self.means.statistics())?;
                }
                (batch, 1)
            }
            CaptureKind::Convolution(shape) => {
                self.observe_convolution(backend, at, &shape, batch, capture.x)?;
                (batch * shape.output.positions(), shape.output.positions())
            }
        };
        // The gradients are of the mean loss: N times them is a sample's.
        let sum = added(1.0 / positions as f64, Region::matrix(0, g.rows, columns), g);
        backend.reduce(&[sum], capture.dy, None, self.means.statistics())
    }
}

impl<B> Preconditioner<B> for Eva<B>
where
    B: Backend + Send,
    B::Buffer: Send,
{
    fn begin(&mut self, backend: &mut B) -> Result<(), B::Error> {
        self.means.open(backend)
    }

    fn taps(&mut self) -> Option<Taps<'_, B>> {
        Some(Taps { statistics: None, observer: Some(self) })
    }

    fn leave_out(&mut self, backend: &mut B, blocks: usize) -> Result<(), B::Error> {
        assert!(self.shared.is_none(), "steps that are shared are whole");
        let numbers = self.observed.iter().enumerate().filter(|(_, observed)| observed.is_some());
        let takes: Vec<bool> = numbers.map(|(number, _)| number >= blocks).collect();
        self.means.restrict(backend, &takes)
    }

    fn update(&mut self, backend: &mut B, count: usize) -> Result<(), B::Error> {
        if let Some(shared) = &mut self.shared {
            shared.exchange_vectors(backend, self.means.statistics(), [&self.places.a, &self.places.g])?;
        }
        self.close(backend, count)
    }

    fn precondition(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        gradient: &B::Buffer,
        _: Option<&dyn Captures<B>>,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let Some(mut shared) = self.shared.take() else {
            self.follow(backend, gradient)?;
            return self.conclude(backend, learning_rate, gradient, direction);
        };
        let done = self.follow_together(backend, &mut shared, learning_rate, gradient, direction);
        self.shared = Some(shared);
        done
    }

    fn abandoned(&mut self) -> Option<TransportError> {
        self.shared.as_mut()?.division.abandoned()
    }

    fn is_shared(&self) -> bool {
        self.shared.as_ref().is_some_and(Shared::is_elastic)
    }

    fn share(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        (gradient, count): (&B::Buffer, usize),
        answers: Option<Letters<B::Scalar>>,
        direction: &mut B::Buffer,
    ) -> Result<Option<Letters<B::Scalar>>, B::Error> {
        let mut shared = self.shared.take().expect("steps are shared");
        let letters = self.go_on(backend, &mut shared, learning_rate, (gradient, count), answers, direction);
        self.shared = Some(shared);
        letters
    }

    fn join(&mut self, backend: &mut B, members: usize, me: usize) -> Result<(), B::Error> {
        if self.shared.as_mut().is_some_and(|shared| shared.redivide(members, me)) {
            self.divide(backend)?;
        }
        Ok(())
    }

    fn keeps(&self, block: usize) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.division.keeps()[block])
    }

    fn give_up(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.give_up();
        }
    }

    fn damping(&self) -> f64 {
        self.damping
    }

    fn blocks(&mut self) -> &[Block] {
        &self.blocks
    }

    fn observes(&mut self, block: &str) -> bool {
        let known = self.blocks.iter().any(|known| known.name == block);
        known && self.shared.as_ref().is_none_or(|shared| shared.division.observes(block))
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn resume(&mut self, steps: u64) {
        self.steps = steps;
    }

    fn report(&self) -> Report {
        self.report
    }

    fn save(&mut self, backend: &mut B) -> Result<State<B::Scalar>, B::Error> {
        let count = self.blocks.len();
        let accepted = backend.fetch(self.means.accepted(), 0..count)?;
        let weights = backend.fetch(self.means.weights(), 0..count)?;
        let of_a = state::fetch(backend, self.means.values(), self.places.a.iter().copied())?;
        let of_g = state::fetch(backend, self.means.values(), self.places.g.iter().copied())?;
        let blocks = accepted.into_iter().zip(weights).zip(of_a.into_iter().zip(of_g));
        let shared = match self.shared.take() {
            Some(mut shared) => {
                let part = self.part(backend, &mut shared);
                self.shared = Some(shared);
                part?
            }
            None => None,
        };
        let block = |((accepted, moment_weight), (a, g))| BlockState {
            accepted,
            moment_weight,
            spectra: [a, g],
            raised: B::Scalar::of(1.0),
            ..BlockState::default()
        };
        Ok(State {
            shared,
            damping: self.damping,
            updates: self.means.updates(),
            clip: backend.fetch(self.clip.scale(), 0..1)?[0],
            blocks: blocks.map(block).collect(),
            ..State::plain(self.steps, self.report)
        })
    }

    #[track_caller]
    fn restore(&mut self, backend: &mut B, state: &State<B::Scalar>) -> Result<(), B::Error> {
        let (found, own) = (state.blocks.len(), self.blocks.len());
        assert_eq!(found, own, "blocks in the state of the preconditioner");
        if let (Some(part), Some(mut shared)) = (&state.shared, self.shared.take()) {
            shared.redivide(part.members, part.me);
            self.shared = Some(shared);
            self.divide(backend)?;
        }
        let weights: Vec<_> = state.blocks.iter().map(|block| block.moment_weight).collect();
        let accepted: Vec<_> = state.blocks.iter().map(|block| block.accepted).collect();
        let regions = [&self.places.a, &self.places.g];
        let parts = (0..2).flat_map(|side| {
            let vectors = state.blocks.iter().map(move |block| block.spectra[side].as_slice());
            regions[side].iter().copied().zip(vectors)
        });
        let (values, of_weights) = self.means.estimate_mut();
        state::upload(backend, values, parts)?;
        backend.upload(&weights, of_weights, 0)?;
        self.means.restore_counts(backend, state.updates, &accepted)?;
        self.clip.restore(backend, state.clip)?;
        (self.steps, self.report) = (state.steps, state.report);
        if let (Some(part), Some(mut shared)) = (&state.shared, self.shared.take()) {
            let taken = self.take_part(backend, &mut shared, part);
            self.shared = Some(shared);
            taken?;
        }
        Ok(())
    }
}
