//! Methods that look at gradients alone, by one node or divided among several.

mod shared;

use self::shared::Shared;
use super::bases::{Bases, kept};
use super::division::{Member, Seat};
use super::muon::Muon;
use super::rule::Rule;
use super::shampoo::Shampoo;
use super::soap::Soap;
use super::{
    BlockState, Captures, MuonOptions, Preconditioner, Report, ShampooOptions, SoapOptions, State, Taps, state,
};
use crate::backend::Backend;
use crate::factor::KroneckerFactors;
use crate::layer::Block;
use crate::placement::{Decomposers, Letters, Load, Placement, Plan, Statistics, Work};
use crate::transport::TransportError;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A method that looks at gradients alone, with its knobs.
#[derive(Clone, Debug, PartialEq)]
pub enum GradientMethod {
    /// `L^{-1/4} ∇ R^{-1/4}`.
    Shampoo(ShampooOptions),
    /// Adam in the eigenbases of `L` and `R`.
    Soap(SoapOptions),
    /// Momentum with all its singular values near 1.
    Muon(MuonOptions),
}

impl GradientMethod {
    /// Whether a placement divides its work.
    ///
    /// # Errors
    /// If statistics of passes would travel or, with Muon, somebody would decompose; with the remedy.
    pub fn check(&self, placement: &Placement) -> Result<(), &'static str> {
        placement.check()?;
        if placement.statistics != Statistics::OfGradient {
            return Err("its statistics are of the mean gradient, which everybody has: choose Statistics::OfGradient");
        }
        match (self, placement.decomposers) {
            (Self::Muon(_), Decomposers::Nobody) => Ok(()),
            (Self::Muon(_), _) => Err("Muon decomposes nothing: choose Decomposers::Nobody"),
            (_, Decomposers::Nobody) => Err("bases have to be decomposed by somebody: choose Decomposers::Owner"),
            _ => Ok(()),
        }
    }

    fn exclude(&self) -> &[alloc::string::String] {
        match self {
            Self::Shampoo(options) => &options.exclude,
            Self::Soap(options) => &options.exclude,
            Self::Muon(options) => &options.exclude,
        }
    }
}

/// Shampoo, SOAP or Muon.
///
/// Where several members share every step their gradients are averaged first, so that each could do all the rest by itself.
/// Divided, a member makes running averages and bases of the blocks it owns alone, hands bases out to whoever is to hold them
/// and directions to all others, by a placement [`of_gradient`](Placement::of_gradient). Momentum of plain parameters is
/// everybody's, that of blocks is too where it costs nothing but memory (Muon's and SOAP's first moment), and SOAP's second
/// moment is the holders'.
pub struct ByGradient<B: Backend> {
    rule: Box<dyn Rule<B>>,
    steps: u64,
    shared: Option<Shared<B>>,
}

impl<B> ByGradient<B>
where
    B: Backend + Send,
    B::Buffer: Send,
    B::Download: Send,
    B::Verdict: Send,
{
    /// A method for a network of these blocks, whose flat statistics and parameters have these lengths.
    ///
    /// # Errors
    /// If memory runs out.
    ///
    /// # Panics
    /// If an option is out of its range.
    #[track_caller]
    pub fn new(
        backend: &mut B,
        blocks: &[Block],
        lengths: [usize; 2],
        method: &GradientMethod,
    ) -> Result<Self, B::Error> {
        let blocks = kept(blocks, method.exclude());
        let rule: Box<dyn Rule<B>> = match method {
            GradientMethod::Shampoo(options) => Box::new(Shampoo::new(backend, blocks, lengths, options)?),
            GradientMethod::Soap(options) => Box::new(Soap::new(backend, blocks, lengths, options)?),
            GradientMethod::Muon(options) => Box::new(Muon::new(backend, blocks, lengths[1], options)?),
        };
        Ok(Self { rule, steps: 0, shared: None })
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
    /// As [`new`](Self::new), if the plan was made for other blocks, or [`GradientMethod::check`] finds fault.
    #[track_caller]
    pub fn divided(
        backend: &mut B,
        blocks: &[Block],
        lengths: [usize; 2],
        method: &GradientMethod,
        member: Member<B::Scalar>,
    ) -> Result<Self, B::Error> {
        Self::seated(backend, blocks, lengths, method, member.into())
    }

    /// The same where members that come and go share every step. It begins as one member by itself; whoever knows the
    /// others [`join`](Preconditioner::join)s them and carries the letters of [`share`](Preconditioner::share).
    ///
    /// What is kept beside running averages (momentum, SOAP's moments) begins anew, at everybody, whenever the work is
    /// divided anew.
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
        lengths: [usize; 2],
        method: &GradientMethod,
        (placement, work): (Placement, Work),
    ) -> Result<Self, B::Error> {
        let loads: Vec<Load> = kept(blocks, method.exclude()).iter().map(Load::from).collect();
        let seat = Seat { plan: Plan::new(&placement, &loads, 1, &work), me: 0, wire: None };
        let mut made = Self::seated(backend, blocks, lengths, method, seat)?;
        if let Some(shared) = &mut made.shared {
            shared.come_and_go(placement, work);
        }
        Ok(made)
    }

    #[track_caller]
    fn seated(
        backend: &mut B,
        blocks: &[Block],
        lengths: [usize; 2],
        method: &GradientMethod,
        seat: Seat<B::Scalar>,
    ) -> Result<Self, B::Error> {
        if let Err(reason) = method.check(seat.plan.placement()) {
            panic!("{reason}");
        }
        let mut made = Self::new(backend, blocks, lengths, method)?;
        let shared = Shared::new(backend, made.rule.blocks(), lengths[1], seat)?;
        made.rule.divide(backend, &shared.share())?;
        made.shared = Some(shared);
        Ok(made)
    }

    fn report_of(bases: Option<&Bases<B>>) -> Report {
        bases.map_or(Report { clip: 1.0, ..Report::default() }, |bases| bases.report)
    }
}

impl<B> Preconditioner<B> for ByGradient<B>
where
    B: Backend + Send,
    B::Buffer: Send,
    B::Download: Send,
    B::Verdict: Send,
{
    fn begin(&mut self, _: &mut B) -> Result<(), B::Error> {
        Ok(())
    }

    fn taps(&mut self) -> Option<Taps<'_, B>> {
        None
    }

    fn update(&mut self, backend: &mut B, _: usize) -> Result<(), B::Error> {
        let Some(bases) = self.rule.bases() else { return Ok(()) };
        if !bases.has_seen() || !bases.is_due(self.steps) {
            return Ok(());
        }
        bases.refresh(backend)?;
        if let Some(shared) = &mut self.shared {
            shared.exchange_bases(backend, bases)?;
        }
        bases.promote(backend)?;
        self.rule.turn(backend)
    }

    fn precondition(
        &mut self,
        backend: &mut B,
        _: f64,
        gradient: &B::Buffer,
        _: Option<&dyn Captures<B>>,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let gradient = match &mut self.shared {
            Some(shared) => shared.exchange_gradients(backend, gradient)?,
            None => gradient,
        };
        self.rule.follow(backend, gradient, direction)?;
        if let Some(bases) = self.rule.bases() {
            bases.observe(backend, gradient)?;
        }
        if let Some(shared) = &mut self.shared {
            shared.exchange_directions(backend, direction)?;
        }
        self.steps += 1;
        Ok(())
    }

    fn is_shared(&self) -> bool {
        self.shared.as_ref().is_some_and(Shared::is_elastic)
    }

    fn share(
        &mut self,
        backend: &mut B,
        _: f64,
        (gradient, _): (&B::Buffer, usize),
        answers: Option<Letters<B::Scalar>>,
        direction: &mut B::Buffer,
    ) -> Result<Option<Letters<B::Scalar>>, B::Error> {
        let shared = self.shared.as_mut().expect("steps are shared");
        let letters = shared.go_on(backend, (&mut *self.rule, self.steps), gradient, answers, direction)?;
        self.steps += u64::from(letters.is_none());
        Ok(letters)
    }

    fn join(&mut self, backend: &mut B, members: usize, me: usize) -> Result<(), B::Error> {
        let Some(shared) = &mut self.shared else { return Ok(()) };
        if shared.redivide(members, me) {
            self.rule.divide(backend, &shared.share())?;
        }
        Ok(())
    }

    fn keeps(&self, block: usize) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.keeps(block))
    }

    fn give_up(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.give_up();
        }
    }

    fn abandoned(&mut self) -> Option<TransportError> {
        self.shared.as_mut()?.abandoned()
    }

    fn damping(&self) -> f64 {
        self.rule.damping()
    }

    fn factors(&mut self) -> Option<&mut KroneckerFactors<B>> {
        self.rule.bases().map(|bases| &mut bases.factors)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn resume(&mut self, steps: u64) {
        self.steps = steps;
        if let Some(bases) = self.rule.bases() {
            bases.due = true;
        }
    }

    fn report(&self) -> Report {
        let unpreconditioned = self.shared.as_ref().map_or(0, Shared::unpreconditioned);
        Report { unpreconditioned, ..Self::report_of(self.rule.known_bases()) }
    }

    fn save(&mut self, backend: &mut B) -> Result<State<B::Scalar>, B::Error> {
        let report = Self::report_of(self.rule.known_bases());
        let (moments, counted) = self.rule.moments();
        let buffers = state::whole(backend, &*moments)?;
        let mut kept = State { damping: self.rule.damping(), buffers, counted, ..State::plain(self.steps, report) };
        if let Some(bases) = self.rule.bases() {
            kept.refresh_due = bases.due;
            kept.updates = bases.factors.running().updates();
            kept.blocks = bases.save(backend)?;
        }
        if let Some(shared) = &mut self.shared {
            kept.shared = shared.part(backend, &mut *self.rule)?;
        }
        Ok(kept)
    }

    #[track_caller]
    fn restore(&mut self, backend: &mut B, state: &State<B::Scalar>) -> Result<(), B::Error> {
        let blocks: &[BlockState<B::Scalar>] = &state.blocks;
        if let Some(part) = &state.shared {
            self.join(backend, part.members, part.me)?;
        }
        if let Some(bases) = self.rule.bases() {
            bases.restore(backend, state.updates, blocks)?;
            (bases.due, bases.report) = (state.refresh_due, state.report);
        }
        state::put_whole(backend, self.rule.moments().0, &state.buffers)?;
        self.rule.resume(state.counted);
        self.steps = state.steps;
        if let (Some(part), Some(shared)) = (&state.shared, &mut self.shared) {
            shared.take_part(backend, &mut *self.rule, part)?;
        }
        self.rule.turn(backend)
    }
}
