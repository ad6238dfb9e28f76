//! K-FAC: Kronecker-factored curvature, refreshed now and then, applied at every step.

mod curvature;
mod elastic;
mod solver;

use self::curvature::Curvature;
use self::solver::Solver;
use super::clip::Clip;
use super::division::{Bundle, Division, Member, Seat, Share};
use super::state::{BlockState, State};
use super::{Captures, Fisher, Form, Options, Preconditioner, Refresh, Report, Taps, gaps};
use crate::backend::{Backend, Map, MapJob};
use crate::factor::KroneckerFactors;
use crate::layer::{Block, Observer};
use crate::matrix::Region;
use crate::placement::{Decomposers, Letters, Load, Placement, Plan, Statistics, Work};
use crate::scalar::Scalar;
use crate::transport::TransportError;
use alloc::vec;
use alloc::vec::Vec;

/// K-FAC over the blocks of a network; see [`Options`] for its forms.
///
/// Parameters that belong to no block, and blocks excluded by name, follow their plain gradient.
pub struct Kronecker<B: Backend> {
    options: Options,
    factors: KroneckerFactors<B>,
    /// The network's number of each block.
    members: Vec<usize>,
    solver: Solver<B>,
    clip: Clip<B>,
    /// What is done with others, where steps are shared.
    division: Option<Division<B>>,
    /// The mean gradient of all who share the step.
    mean: Option<B::Buffer>,
    /// How work is divided anew when members come and go.
    elastic: Option<Elastic<B>>,
    /// Scalars of the flat parameters.
    parameters: usize,
    /// The quadratic model, where steps are not shared.
    curvature: Option<Curvature<B>>,
    scratch: B::Buffer,
    v: B::Buffer,
    plain_jobs: Vec<MapJob>,
    damping: f64,
    steps: u64,
    refresh_due: bool,
    report: Report,
    tickets: Option<Tickets<B>>,
    accepted: Vec<B::Scalar>,
    updates_then: u64,
}

/// Work that is divided among members who come and go.
struct Elastic<B: Backend> {
    placement: Placement,
    work: Work,
    /// The stage whose letters are out, and what they consist of.
    stage: Option<(Stage, Bundle<B::Scalar>)>,
    /// Of which blocks this member has statistics.
    known: Vec<bool>,
    /// Whether no statistics were taken since the work was last divided.
    divided_anew: bool,
}

/// What a shared step exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Gradients, and statistics when it takes any.
    Averages,
    /// What was refreshed.
    Decompositions,
    Directions,
}

/// Figures on their way from the device.
struct Tickets<B: Backend> {
    accepted: B::Download,
    clip: B::Download,
    updates: u64,
}

impl<B: Backend> Kronecker<B> {
    /// K-FAC for a network of these blocks, whose flat statistics and parameters have these lengths.
    ///
    /// # Errors
    /// If memory runs out.
    ///
    /// # Panics
    /// If [`Options::check`] finds fault.
    #[track_caller]
    pub fn new(
        backend: &mut B,
        blocks: &[Block],
        statistics: usize,
        parameters: usize,
        options: Options,
    ) -> Result<Self, B::Error> {
        Self::build(backend, blocks, [statistics, parameters], options, None)
    }

    /// The same where members that come and go share every step. It begins as one member by itself; whoever knows the
    /// others [`join`](Preconditioner::join)s them and carries the letters of [`share`](Preconditioner::share).
    ///
    /// A refresh is always [`Refresh::Immediate`]: its decompositions are part of the step.
    ///
    /// # Errors
    /// If memory runs out.
    ///
    /// # Panics
    /// As [`divided`](Self::divided), or if [`Placement::check`] finds fault.
    #[track_caller]
    pub fn elastic(
        backend: &mut B,
        blocks: &[Block],
        [statistics, parameters]: [usize; 2],
        options: Options,
        (placement, work): (Placement, Work),
    ) -> Result<Self, B::Error> {
        assert!(options.form != Form::Ekfac, "EKFAC cannot be divided among members: choose the inverse or eigen form");
        let options = Options { refresh: Refresh::Immediate, ..options };
        let kept = blocks.iter().filter(|block| !options.exclude.contains(&block.name));
        let loads = kept.map(|block| Load::from(block).split(options.split_factors));
        let plan = Plan::new(&placement, &loads.collect::<Vec<_>>(), 1, &work);
        let mut kfac =
            Self::build(backend, blocks, [statistics, parameters], options, Some(Seat { plan, me: 0, wire: None }))?;
        let known = vec![false; kfac.members.len()];
        kfac.elastic = Some(Elastic { placement, work, stage: None, known, divided_anew: true });
        Ok(kfac)
    }

    /// The same where several members share every step: gradients are averaged, and the rest is divided by the
    /// [`Plan`](crate::placement::Plan) of `member`, which was made for those of `blocks` that are not excluded, with factors
    /// [`split`](Load::split) as the options say.
    ///
    /// Every member has to make the same steps. The trainer's losses, and batch statistics of normalisation layers, stay
    /// each member's own.
    ///
    /// # Errors
    /// If memory runs out.
    ///
    /// # Panics
    /// As [`new`](Self::new), if the plan was made for other blocks, or the form is [`Form::Ekfac`], whose second moments
    /// have no place in a plan.
    #[track_caller]
    pub fn divided(
        backend: &mut B,
        blocks: &[Block],
        statistics: usize,
        parameters: usize,
        options: Options,
        member: Member<B::Scalar>,
    ) -> Result<Self, B::Error> {
        assert!(options.form != Form::Ekfac, "EKFAC cannot be divided among members: choose the inverse or eigen form");
        Self::build(backend, blocks, [statistics, parameters], options, Some(member.into()))
    }

    /// The same where the means of a [`divided`](Self::divided) step are under way while its passes go on: where everybody
    /// averages statistics, those of a layer's inputs are sent during the forward pass and those of its outputs during the
    /// backward pass (Shi et al. 2021, arXiv 2107.06533), with its gradient, several layers at a time. The directions are
    /// the same, to the bit.
    ///
    /// For steps of one micro-batch each, over a wire that carries letters while others compute, such as
    /// [`Pipeline`](crate::placement::Pipeline).
    ///
    /// # Panics
    /// If steps are not divided, or statistics are of labels drawn from the model, by a pass of their own.
    #[track_caller]
    pub fn overlapped(mut self) -> Self {
        assert!(
            self.options.fisher == Fisher::Empirical,
            "statistics of a pass of their own: choose Fisher::Empirical"
        );
        let fixed = self.division.as_mut().filter(|_| self.elastic.is_none());
        fixed.expect("steps are divided among members that stay").overlap(&self.members);
        self
    }

    #[track_caller]
    fn build(
        backend: &mut B,
        blocks: &[Block],
        [statistics, parameters]: [usize; 2],
        options: Options,
        seat: Option<Seat<B::Scalar>>,
    ) -> Result<Self, B::Error> {
        if let Err(error) = options.check(blocks) {
            panic!("{error}");
        }
        if let Some(seat) = &seat {
            let placement = seat.plan.placement();
            let of_passes = placement.statistics != Statistics::OfGradient;
            assert!(of_passes, "K-FAC's statistics are of passes, not of gradients: choose another placement");
            let somebody = placement.decomposers != Decomposers::Nobody;
            assert!(somebody, "K-FAC's statistics are there to be decomposed by somebody: choose Decomposers::Owner");
        }
        let members = blocks.iter().enumerate().filter(|(_, block)| !options.exclude.contains(&block.name));
        let (members, blocks): (Vec<usize>, Vec<Block>) = members.map(|(at, block)| (at, block.clone())).unzip();
        let taken: Vec<Region> = blocks.iter().map(|block| block.parameters).collect();
        assert!(taken.iter().all(|region| region.is_packed()), "the parameters of a block are a packed matrix");
        let clip = Clip::new(backend, &blocks, options.clip)?;
        let kept = vec![true; blocks.len()];
        let (factors, division) = match seat {
            // Members that come and go keep copies of all running averages.
            Some(seat) => {
                let is_elastic = seat.wire.is_none();
                let limit = options.split_factors;
                let mut division = Division::new(&blocks, parameters, limit, seat);
                let made = division.makes();
                let keeps = division.keeps();
                let wanted = [&made[..], if is_elastic { &kept } else { &keeps }];
                let mut factors = KroneckerFactors::divided(backend, blocks, statistics, limit, wanted)?;
                factors.means().restrict(backend, &keeps)?;
                division.lay(&factors);
                (factors, Some((division, backend.allocate(parameters)?)))
            }
            None => (KroneckerFactors::split(backend, blocks, statistics, options.split_factors)?, None),
        };
        let (division, mean) = division.unzip();
        let curvature = match division {
            Some(_) => None,
            None => Some(Curvature::new(backend, &factors, parameters)?),
        };
        let share = division.as_ref().map_or_else(|| Share::all(&factors), Division::share);
        let solver = Solver::new(backend, options.form, &factors, &members, parameters, &share)?;
        let plain = gaps(parameters, &taken).into_iter();
        Ok(Self {
            damping: options.damping,
            report: Report { damping: options.damping, clip: 1.0, ..Report::default() },
            accepted: vec![B::Scalar::of(0.0); members.len()],
            scratch: backend.allocate(parameters)?,
            v: backend.allocate(parameters)?,
            plain_jobs: plain.map(|region| MapJob::unary(region, region)).collect(),
            steps: 0,
            refresh_due: true,
            tickets: None,
            updates_then: 0,
            options,
            factors,
            members,
            solver,
            clip,
            division,
            mean,
            elastic: None,
            parameters,
            curvature,
        })
    }

    /// The options it was made with; the damping may have changed since.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whether this step takes statistics.
    fn takes(&self) -> bool {
        self.steps.is_multiple_of(self.options.factor_period)
    }

    fn finish_refresh(&mut self, backend: &mut B) -> Result<(), B::Error> {
        if !self.solver.settle(backend, &self.factors, &mut self.report)? {
            return Ok(());
        }
        if let Some(division) = &mut self.division {
            let mut bundle = self.solver.decompositions(backend, division)?;
            division.carry(&mut bundle);
            self.solver.take_decompositions(backend, division, &bundle)?;
        }
        self.solver.promote(backend)
    }

    /// Begins a refresh.
    fn refresh(&mut self, backend: &mut B) -> Result<(), B::Error> {
        match &mut self.solver {
            Solver::Inverse(inverse) => inverse.refresh(backend, &mut self.factors, self.damping)?,
            Solver::Eigen(eigen) => eigen.refresh(backend, &mut self.factors)?,
        }
        self.refresh_due = false;
        self.report.refreshes += 1;
        self.tickets = Some(Tickets {
            accepted: self.factors.running().download_accepted(backend)?,
            clip: backend.download(self.clip.scale(), 0..1)?,
            updates: self.factors.running().updates(),
        });
        Ok(())
    }

    /// Takes the batch's statistics into the running averages.
    fn close(&mut self, backend: &mut B, count: usize) -> Result<(), B::Error> {
        self.factors.means().close(backend, self.options.ema_old, count)?;
        self.report.updates += 1;
        if let Solver::Eigen(eigen) = &mut self.solver
            && let Some(moments) = eigen.moments()
        {
            moments.close(backend, self.options.ema_old, count)?;
        }
        Ok(())
    }

    /// Ends a step: the direction of the gradient, of which the blocks' parts are in `v`.
    fn conclude(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        gradient: Option<&B::Buffer>,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
        let gradient = gradient.or(self.mean.as_ref()).expect("a gradient of its own, or a mean");
        self.clip.apply(backend, learning_rate, gradient, &self.v, direction)?;
        backend.map(Map::Axpby(one, zero), &self.plain_jobs, Some(gradient), None, direction)?;
        self.steps += 1;
        Ok(())
    }

    fn finish_tickets(&mut self, backend: &mut B) -> Result<(), B::Error> {
        let Some(tickets) = self.tickets.take() else { return Ok(()) };
        let mut clip = [B::Scalar::of(1.0)];
        backend.finish(tickets.clip, &mut clip)?;
        self.report.clip = clip[0].wide();
        backend.finish(tickets.accepted, &mut self.accepted)?;
        let offered = tickets.updates * self.accepted.len() as u64;
        let accepted: f64 = self.accepted.iter().map(|count| count.wide()).sum();
        self.report.refused = offered.saturating_sub(accepted as u64);
        self.updates_then = tickets.updates;
        Ok(())
    }
}

impl<B> Preconditioner<B> for Kronecker<B>
where
    B: Backend + Send,
    B::Buffer: Send,
    B::Download: Send,
    B::Verdict: Send,
{
    fn begin(&mut self, backend: &mut B) -> Result<(), B::Error> {
        if let Some(division) = &mut self.division {
            division.begin();
        }
        self.finish_refresh(backend)?;
        self.finish_tickets(backend)?;
        if self.takes() {
            self.factors.open(backend)?;
            if let Solver::Eigen(eigen) = &mut self.solver
                && let Some(moments) = eigen.moments()
            {
                moments.open(backend)?;
            }
        }
        Ok(())
    }

    fn taps(&mut self) -> Option<Taps<'_, B>> {
        let takes = self.takes();
        if let Some(division) = self.division.as_mut().filter(|division| division.overlaps()) {
            let statistics = takes.then(|| self.factors.statistics());
            return Some(Taps { statistics, observer: Some(division) });
        }
        if !takes {
            return None;
        }
        let observer: Option<&mut dyn Observer<B>> = match &mut self.solver {
            Solver::Eigen(eigen) if self.options.form == Form::Ekfac => Some(&mut **eigen),
            _ => None,
        };
        Some(Taps { statistics: Some(self.factors.statistics()), observer })
    }

    fn fisher(&self) -> Fisher {
        self.options.fisher
    }

    #[track_caller]
    fn update(&mut self, backend: &mut B, count: usize) -> Result<(), B::Error> {
        if let Some(division) = &mut self.division {
            assert!(!division.settle() || count == 1, "means were sent after the first of {count} micro-batches");
        }
        if self.takes() {
            self.factors.cut(backend)?;
            let statistics = self.factors.means().statistics();
            if let Some(division) = &mut self.division
                && !division.take_passed_statistics(backend, statistics)?
            {
                let mut bundle = division.statistics(backend, statistics)?;
                division.carry(&mut bundle);
                division.take_statistics(backend, bundle, statistics)?;
            }
            self.close(backend, count)?;
        }
        if !self.refresh_due && !self.steps.is_multiple_of(self.options.inverse_period) {
            return Ok(());
        }
        self.refresh(backend)?;
        match self.options.refresh {
            Refresh::Immediate => self.finish_refresh(backend),
            Refresh::Deferred => Ok(()),
        }
    }

    fn leave_out(&mut self, backend: &mut B, blocks: usize) -> Result<(), B::Error> {
        assert!(self.division.is_none(), "steps that are shared are whole");
        let takes: Vec<bool> = self.members.iter().map(|&number| number >= blocks).collect();
        self.factors.means().restrict(backend, &takes)?;
        match self.solver.moments() {
            Some(moments) => moments.restrict(backend, &takes),
            None => Ok(()),
        }
    }

    fn precondition(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        gradient: &B::Buffer,
        passes: Option<&dyn Captures<B>>,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        let (scratch, v) = (&mut self.scratch, &mut self.v);
        let divided = self.division.is_some();
        let passed = self.division.as_mut().is_some_and(Division::settle);
        let mean = match (&mut self.division, &mut self.mean) {
            (Some(division), Some(mean)) if passed => {
                division.take_passed_gradients(backend, gradient, mean)?;
                Some(&*mean)
            }
            (Some(division), Some(mean)) => {
                let mut bundle = division.gradients(backend, gradient)?;
                division.carry(&mut bundle);
                division.take_gradients(backend, &bundle, mean)?;
                Some(&*mean)
            }
            _ => None,
        };
        let of = mean.unwrap_or(gradient);
        // A mean over members has not the low rank of one member's batch.
        let passes = passes.filter(|_| self.options.low_rank && !divided);
        let blocks = (self.factors.blocks(), &self.members[..]);
        self.solver.apply(backend, blocks, (self.damping, passes), of, scratch, v)?;
        if let Some(division) = &mut self.division {
            let mut bundle = division.directions(backend, v)?;
            division.carry(&mut bundle);
            division.take_directions(backend, &bundle, v)?;
        }
        self.conclude(backend, learning_rate, (!divided).then_some(gradient), direction)
    }

    fn is_shared(&self) -> bool {
        self.elastic.is_some()
    }

    fn share(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        (gradient, count): (&B::Buffer, usize),
        answers: Option<Letters<B::Scalar>>,
        direction: &mut B::Buffer,
    ) -> Result<Option<Letters<B::Scalar>>, B::Error> {
        self.go_on(backend, learning_rate, (gradient, count), answers, direction)
    }

    fn join(&mut self, backend: &mut B, members: usize, me: usize) -> Result<(), B::Error> {
        let (Some(elastic), Some(division)) = (&mut self.elastic, &mut self.division) else { return Ok(()) };
        let plan = Plan::new(&elastic.placement, &division.plan().loads(), members, &elastic.work);
        division.redivide(plan, me);
        // What anybody owns now is refreshed at the next step, so that no decomposition has to be taken along.
        let share = division.share();
        self.factors.lay_statistics(backend, &division.makes())?;
        self.factors.means().restrict(backend, &division.keeps())?;
        division.lay(&self.factors);
        self.solver = Solver::new(backend, self.options.form, &self.factors, &self.members, self.parameters, &share)?;
        elastic.stage = None;
        elastic.divided_anew = true;
        self.refresh_due = true;
        Ok(())
    }

    fn keeps(&self, block: usize) -> bool {
        self.division.as_ref().is_none_or(|division| division.keeps()[block])
    }

    fn give_up(&mut self) {
        if let Some(elastic) = &mut self.elastic {
            elastic.stage = None;
        }
    }

    fn model(
        &mut self,
        backend: &mut B,
        gradient: &B::Buffer,
        change: &B::Buffer,
        out: &mut B::Buffer,
    ) -> Result<bool, B::Error> {
        // One member's loss says too little of the others', and all have to have the same damping.
        let Some(curvature) = &mut self.curvature else { return Ok(false) };
        let values = self.factors.running();
        curvature.model(
            backend,
            (values.values(), values.weights()),
            gradient,
            change,
            (&mut self.scratch, &mut self.v),
            out,
        )?;
        Ok(true)
    }

    fn observes(&mut self, block: &str) -> bool {
        let known = self.factors.blocks().iter().any(|known| known.name == block);
        known && self.division.as_ref().is_none_or(|division| division.observes(block))
    }

    fn place(&mut self, block: &str) -> Option<[Region; 2]> {
        self.factors.places(block)
    }

    fn abandoned(&mut self) -> Option<TransportError> {
        self.division.as_mut()?.abandoned()
    }

    fn damping(&self) -> f64 {
        self.damping
    }

    fn set_damping(&mut self, damping: f64) {
        self.damping = damping;
        self.report.damping = damping;
    }

    fn factors(&mut self) -> Option<&mut KroneckerFactors<B>> {
        Some(&mut self.factors)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn resume(&mut self, steps: u64) {
        self.steps = steps;
        self.refresh_due = true;
    }

    fn report(&self) -> Report {
        self.report
    }

    fn save(&mut self, backend: &mut B) -> Result<State<B::Scalar>, B::Error> {
        self.finish_refresh(backend)?;
        self.finish_tickets(backend)?;
        let count = self.factors.blocks().len();
        let accepted = backend.fetch(self.factors.running().accepted(), 0..count)?;
        let block = |accepted| BlockState { accepted, raised: B::Scalar::of(1.0), ..BlockState::default() };
        let mut blocks: Vec<_> = accepted.into_iter().map(block).collect();
        match &self.solver {
            Solver::Inverse(inverse) => inverse.save(backend, &mut blocks)?,
            Solver::Eigen(eigen) => eigen.save(backend, &mut blocks)?,
        }
        Ok(State {
            shared: self.part(backend)?,
            damping: self.damping,
            refresh_due: self.refresh_due,
            updates: self.factors.running().updates(),
            clip: backend.fetch(self.clip.scale(), 0..1)?[0],
            blocks,
            ..State::plain(self.steps, self.report)
        })
    }

    #[track_caller]
    fn restore(&mut self, backend: &mut B, state: &State<B::Scalar>) -> Result<(), B::Error> {
        let (found, own) = (state.blocks.len(), self.factors.blocks().len());
        assert_eq!(found, own, "blocks in the state of the preconditioner");
        if let Some(part) = &state.shared {
            self.join(backend, part.members, part.me)?;
        }
        let accepted: Vec<_> = state.blocks.iter().map(|block| block.accepted).collect();
        self.tickets = None;
        match &mut self.solver {
            Solver::Inverse(inverse) => inverse.restore(backend, &state.blocks)?,
            Solver::Eigen(eigen) => eigen.restore(backend, &state.blocks)?,
        }
        self.factors.means().restore_counts(backend, state.updates, &accepted)?;
        self.clip.restore(backend, state.clip)?;
        (self.steps, self.refresh_due, self.report) = (state.steps, state.refresh_due, state.report);
        self.damping = state.damping;
        match &state.shared {
            Some(part) => self.take_part(backend, part),
            None => Ok(()),
        }
    }
}
