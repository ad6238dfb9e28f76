//! From a gradient to a direction: the [`Preconditioner`] trait.
//!
//! # For users
//! [`Identity`] is plain gradient descent; [`Kronecker`] is K-FAC (Martens & Grosse 2015, arXiv 1503.05671;
//! Grosse & Martens 2016 for convolutions) with the inverse, the eigen and the EKFAC form of [`Form`]. [`Options`]
//! has the usual values of the literature as defaults. Beside it: [`Eva`], with vectors in place of K-FAC's matrices;
//! and [`ByGradient`], which looks at gradients alone: Shampoo and SOAP, and Muon, which has no curvature but singular
//! values.
//!
//! Within a step the order is
//!
//! ```text
//! begin → passes over micro-batches with the taps → update → precondition → optimiser
//! ```
//!
//! # For implementers
//! Calls follow the order above. Nothing but [`Preconditioner::begin`] and [`Preconditioner::update`] may wait, and only for what [`Refresh`]
//! says. Nothing is allocated after construction unless a decomposition fails.

mod adaptive;
mod bases;
mod by_gradient;
mod cache;
mod clip;
mod dense;
mod division;
mod eigen;
mod eva;
mod graft;
mod identity;
mod inverse;
mod kronecker;
mod low_rank;
mod moments;
mod muon;
mod options;
mod overlap;
mod rule;
mod shampoo;
mod soap;
mod state;

pub use adaptive::LevenbergMarquardt;
pub use by_gradient::{ByGradient, GradientMethod};
pub use division::Member;
pub use eva::{Eva, EvaOptions};
pub use identity::Identity;
pub use kronecker::Kronecker;
pub use muon::MuonOptions;
pub use options::{Fisher, Form, Options, OptionsError, Refresh};
pub use shampoo::ShampooOptions;
pub use soap::SoapOptions;
pub use state::{BlockState, SharedPart, State};

use crate::backend::Backend;
use crate::factor::KroneckerFactors;
use crate::layer::{Block, Capture, Observer};
use crate::matrix::{Region, gaps};
use crate::placement::Letters;
use crate::transport::TransportError;

/// What the passes over one batch left behind, for who applies inverses in low rank.
pub trait Captures<B: Backend> {
    /// Samples in the batch.
    fn batch(&self) -> usize;

    /// What the passes left at block `block`; `None` if it was not kept.
    fn capture(&self, block: usize) -> Option<Capture<'_, B>>;
}

/// What the passes of a step are to look at.
pub struct Taps<'a, B: Backend> {
    /// Where they add their statistics, if these are wanted.
    pub statistics: Option<&'a mut B::Buffer>,
    /// Who sees the backward pass that the statistics are from.
    pub observer: Option<&'a mut dyn Observer<B>>,
}

/// What a preconditioner has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Report {
    /// Batches of statistics taken in, refused ones included.
    pub updates: u64,
    /// Statistics of single blocks refused because they were not finite.
    pub refused: u64,
    /// Refreshes begun.
    pub refreshes: u64,
    /// Decompositions of single blocks that failed on the device and succeeded in double precision on the host.
    pub retried: u64,
    /// Decompositions of single blocks that failed altogether: the previous one was kept, the damping raised.
    pub kept: u64,
    /// Blocks given the identity, because their decompositions failed again and again.
    pub identities: u64,
    /// Steps of single blocks that left their gradient as it is, because this node owned them and had no statistics of
    /// them yet.
    pub unpreconditioned: u64,
    /// The damping λ in use.
    pub damping: f64,
    /// The last factor ν of the KL clip that is known.
    pub clip: f64,
}

/// A reading of the quadratic model at a step: `M(δ) = ⟨∇, δ⟩ + ½ ⟨δ, (F + λ) δ⟩`.
///
/// It is made of three sums that the device computes and one multiplication by λ on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Model {
    /// `⟨∇, δ⟩` over all parameters.
    pub slope: f64,
    /// `⟨δ, F δ⟩` over the blocks.
    pub curvature: f64,
    /// `⟨δ, δ⟩` over the blocks.
    pub square: f64,
}

impl Model {
    /// How many scalars [`Preconditioner::model`] writes.
    pub const LEN: usize = 3;

    /// Reads what [`Preconditioner::model`] wrote.
    ///
    /// # Panics
    /// If there are fewer than [`Model::LEN`] values.
    pub fn read<S: crate::scalar::Scalar>(values: &[S]) -> Self {
        Self { slope: values[0].wide(), curvature: values[1].wide(), square: values[2].wide() }
    }

    /// `M(δ)` at damping λ.
    pub fn change(&self, damping: f64) -> f64 {
        self.slope + 0.5 * (self.curvature + damping * self.square)
    }
}

/// Turns gradients into directions. The [module](self) states the order of calls.
pub trait Preconditioner<B: Backend>: Send {
    /// Begins a step: finishes what an earlier step left unfinished, and clears the statistics if this step wants
    /// any.
    ///
    /// # Errors
    /// If the device fails.
    fn begin(&mut self, backend: &mut B) -> Result<(), B::Error>;

    /// What the passes of this step look at; `None` when nothing is wanted.
    fn taps(&mut self) -> Option<Taps<'_, B>>;

    /// Whether statistics are of the training labels or of labels drawn from the model.
    fn fisher(&self) -> Fisher {
        Fisher::Empirical
    }

    /// Takes in the statistics of `count` micro-batches and refreshes decompositions when it is time.
    ///
    /// # Errors
    /// If the device fails.
    fn update(&mut self, backend: &mut B, count: usize) -> Result<(), B::Error>;

    /// Has statistics of the network's first `blocks` blocks left out of the next [`update`](Self::update), and of those after
    /// it until this is called again: the step has no gradient of them. What has no statistics of passes sees gradients of zeros.
    ///
    /// # Errors
    /// If the device fails.
    fn leave_out(&mut self, backend: &mut B, blocks: usize) -> Result<(), B::Error> {
        let _ = (backend, blocks);
        Ok(())
    }

    /// Writes the direction of descent for `gradient`, of the same layout, and ends the step. Never waits.
    ///
    /// `passes` are those the gradient is from, if it is from nothing else (no averaging, no accumulation): the
    /// gradient then has low rank, which may be used. `learning_rate` is the one the direction will be followed
    /// with; the KL clip depends on it.
    ///
    /// # Errors
    /// If the device fails.
    fn precondition(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        gradient: &B::Buffer,
        passes: Option<&dyn Captures<B>>,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error>;

    /// Writes the [`Model`] of a change δ of the parameters, the running averages being its curvature, into
    /// `out[0..Model::LEN]`; `gradient` is the one at the step's beginning. Never waits.
    ///
    /// Returns whether there is a model: without curvature nothing is written.
    ///
    /// # Errors
    /// If the device fails.
    fn model(
        &mut self,
        backend: &mut B,
        gradient: &B::Buffer,
        change: &B::Buffer,
        out: &mut B::Buffer,
    ) -> Result<bool, B::Error> {
        let _ = (backend, gradient, change, out);
        Ok(false)
    }

    /// The damping λ; 0 where there is none.
    fn damping(&self) -> f64 {
        0.0
    }

    /// Changes the damping λ: the eigen forms obey at once, the inverse form from the next refresh on.
    fn set_damping(&mut self, damping: f64) {
        let _ = damping;
    }

    /// The running averages that may travel between nodes; `None` where there are none.
    fn factors(&mut self) -> Option<&mut KroneckerFactors<B>> {
        None
    }

    /// The blocks it keeps something of, those of its factors if it has any.
    fn blocks(&mut self) -> &[Block] {
        self.factors().map_or(&[], |factors| factors.blocks())
    }

    /// Whether a block's statistics are wanted from this node's batches.
    fn observes(&mut self, block: &str) -> bool {
        self.factors().is_some_and(|factors| factors.blocks().iter().any(|known| known.name == block))
    }

    /// Where the passes are to add a block's statistics, A and G, if not where the network was built to; asked anew whenever
    /// [`observes`](Self::observes) is.
    fn place(&mut self, block: &str) -> Option<[Region; 2]> {
        let _ = block;
        None
    }

    /// Why the step that [`precondition`](Self::precondition) ended comes to nothing, where others have a part in it: its
    /// direction must not be followed.
    fn abandoned(&mut self) -> Option<TransportError> {
        None
    }

    /// Whether steps are shared with members that come and go; then [`share`](Self::share) takes the place of
    /// [`update`](Self::update) and [`precondition`](Self::precondition).
    fn is_shared(&self) -> bool {
        false
    }

    /// Takes in the statistics of a shared step and its gradient, over so many micro-batches, and gives the letters that
    /// have to be exchanged before it goes on; called with them as `answers` it goes on, until it has written the direction
    /// and ended the step. Then there are no letters any more.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If steps are not shared.
    fn share(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        gradient: (&B::Buffer, usize),
        answers: Option<Letters<B::Scalar>>,
        direction: &mut B::Buffer,
    ) -> Result<Option<Letters<B::Scalar>>, B::Error> {
        let _ = (backend, learning_rate, gradient, answers, direction);
        unreachable!("steps that are not shared have nothing to exchange")
    }

    /// Divides the work of shared steps anew, among so many members of which this is number `me`. Between two steps.
    ///
    /// # Errors
    /// If memory runs out.
    fn join(&mut self, backend: &mut B, members: usize, me: usize) -> Result<(), B::Error> {
        let _ = (backend, members, me);
        Ok(())
    }

    /// Whether this member keeps the running averages of a block, counted as [`factors`](Self::factors) does; what it has
    /// of others is as old as the last division of work.
    fn keeps(&self, block: usize) -> bool {
        let _ = block;
        true
    }

    /// Gives up the shared step under way: the next [`share`](Self::share) begins one.
    fn give_up(&mut self) {}

    /// How many steps were ended: what the periods count.
    fn steps(&self) -> u64;

    /// Sets the number of steps, after running averages were taken over from elsewhere, and asks for a refresh.
    fn resume(&mut self, steps: u64);

    /// What was done so far. Figures of the device arrive a refresh later.
    fn report(&self) -> Report;

    /// Waits for everything that decides how it goes on, decompositions included; between steps. A refresh that is
    /// under way is finished.
    ///
    /// # Errors
    /// If the device fails.
    fn save(&mut self, backend: &mut B) -> Result<State<B::Scalar>, B::Error>;

    /// Goes on from a state that a preconditioner of the same network and options has saved. The caller puts the
    /// running averages back.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If the number of blocks or a length does not fit.
    #[track_caller]
    fn restore(&mut self, backend: &mut B, state: &State<B::Scalar>) -> Result<(), B::Error>;
}
