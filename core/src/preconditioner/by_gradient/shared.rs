//! Steps of gradients alone, shared: gradients to everybody, bases to those who hold them, directions to all others.

use super::super::SharedPart;
use super::super::bases::Bases;
use super::super::division::{Bundle, Division, Seat, Share};
use super::super::eigen::Refreshed;
use super::super::rule::Rule;
use super::super::state::{put_whole, whole};
use crate::backend::{Backend, Buffer as _};
use crate::layer::Block;
use crate::matrix::Region;
use crate::placement::{Letters, Placement, Plan, Work};
use crate::scalar::Scalar;
use crate::transport::TransportError;
use alloc::vec;
use alloc::vec::Vec;

/// A member's part.
pub(super) struct Shared<B: Backend> {
    division: Division<B>,
    /// The mean gradient.
    mean: B::Buffer,
    elastic: Option<Elastic<B>>,
}

/// Members that come and go.
struct Elastic<B: Backend> {
    placement: Placement,
    work: Work,
    /// The stage whose letters are out, and what they consist of.
    stage: Option<(Stage, Bundle<B::Scalar>)>,
    /// The direction, while those of others are on their way.
    v: Option<B::Buffer>,
    /// Of which blocks there were gradients when they were decomposed.
    known: Vec<bool>,
    /// Whether no step was ended since the work was last divided; all members say the same.
    divided_anew: bool,
    unpreconditioned: u64,
}

/// What a shared step exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Gradients and, at a refresh, bases of those before.
    Gradients {
        refreshed: bool,
    },
    Directions,
}

impl Stage {
    const ALL: [Self; 3] =
        [Self::Gradients { refreshed: false }, Self::Gradients { refreshed: true }, Self::Directions];

    /// What stands for it in a checkpoint.
    fn number(self) -> u32 {
        match self {
            Self::Gradients { refreshed } => 1 + u32::from(refreshed),
            Self::Directions => 3,
        }
    }
}

/// What a step whose letters are out goes on with.
fn live<'a, B: Backend>(
    stage: Stage,
    rule: &'a mut dyn Rule<B>,
    mean: &'a mut B::Buffer,
    v: &'a mut Option<B::Buffer>,
) -> Vec<&'a mut B::Buffer> {
    match stage {
        Stage::Gradients { refreshed: false } => Vec::new(),
        Stage::Gradients { refreshed: true } => match rule.bases() {
            Some(bases) => {
                let Refreshed { vectors, values } = bases.eigen.refreshed();
                vec![vectors.0, values.0]
            }
            None => Vec::new(),
        },
        Stage::Directions => core::iter::once(mean).chain(v).collect(),
    }
}

impl<B: Backend> Shared<B> {
    pub(super) fn new(
        backend: &mut B,
        blocks: &[Block],
        parameters: usize,
        seat: Seat<B::Scalar>,
    ) -> Result<Self, B::Error> {
        let division = Division::new(blocks, parameters, 0, seat);
        Ok(Self { division, mean: backend.allocate(parameters)?, elastic: None })
    }

    /// From now on members come and go.
    pub(super) fn come_and_go(&mut self, placement: Placement, work: Work) {
        let (stage, v, known) = (None, None, Vec::new());
        let elastic = Elastic { placement, work, stage, v, known, divided_anew: true, unpreconditioned: 0 };
        self.elastic = Some(elastic);
    }

    pub(super) fn is_elastic(&self) -> bool {
        self.elastic.is_some()
    }

    pub(super) fn share(&self) -> Share {
        self.division.share()
    }

    pub(super) fn keeps(&self, block: usize) -> bool {
        self.division.keeps()[block]
    }

    pub(super) fn abandoned(&mut self) -> Option<TransportError> {
        self.division.abandoned()
    }

    pub(super) fn unpreconditioned(&self) -> u64 {
        self.elastic.as_ref().map_or(0, |elastic| elastic.unpreconditioned)
    }

    pub(super) fn give_up(&mut self) {
        if let Some(elastic) = &mut self.elastic {
            elastic.stage = None;
        }
    }

    /// Divides the work among other members; answers whether that can be.
    pub(super) fn redivide(&mut self, members: usize, me: usize) -> bool {
        let Some(elastic) = &mut self.elastic else { return false };
        let plan = Plan::new(&elastic.placement, &self.division.plan().loads(), members, &elastic.work);
        self.division.redivide(plan, me);
        (elastic.stage, elastic.divided_anew) = (None, true);
        elastic.known.clear();
        true
    }

    /// Carries bases over the wire.
    pub(super) fn exchange_bases(&mut self, backend: &mut B, bases: &mut Bases<B>) -> Result<(), B::Error> {
        let mut bundle = bases.hand_out(backend, &self.division)?;
        self.division.carry(&mut bundle);
        bases.take(backend, &self.division, &bundle)
    }

    /// Carries gradients over the wire, and gives the mean.
    pub(super) fn exchange_gradients(&mut self, backend: &mut B, own: &B::Buffer) -> Result<&B::Buffer, B::Error> {
        let mut bundle = self.division.gradients(backend, own)?;
        self.division.carry(&mut bundle);
        self.division.take_gradients(backend, &bundle, &mut self.mean)?;
        Ok(&self.mean)
    }

    /// Carries directions over the wire.
    pub(super) fn exchange_directions(&mut self, backend: &mut B, direction: &mut B::Buffer) -> Result<(), B::Error> {
        let mut bundle = self.division.directions(backend, direction)?;
        self.division.carry(&mut bundle);
        self.division.take_directions(backend, &bundle, direction)
    }

    /// Its part in steps that are shared with members who come and go.
    pub(super) fn part(
        &mut self,
        backend: &mut B,
        rule: &mut dyn Rule<B>,
    ) -> Result<Option<SharedPart<B::Scalar>>, B::Error> {
        let Self { division, mean, elastic } = self;
        let Some(Elastic { stage, v, known, divided_anew, unpreconditioned, .. }) = elastic else { return Ok(None) };
        let stage = stage.as_ref().map(|(stage, _)| *stage);
        let buffers = match stage {
            Some(stage) => whole(backend, live(stage, rule, mean, v).into_iter().map(|buffer| &*buffer))?,
            None => Vec::new(),
        };
        Ok(Some(SharedPart {
            members: division.plan().members(),
            me: division.me(),
            stage: stage.map_or(0, Stage::number),
            known: known.clone(),
            divided_anew: *divided_anew,
            unpreconditioned: *unpreconditioned,
            buffers,
        }))
    }

    /// Goes on with the step that was under way; its work is divided as it was.
    #[track_caller]
    pub(super) fn take_part(
        &mut self,
        backend: &mut B,
        rule: &mut dyn Rule<B>,
        part: &SharedPart<B::Scalar>,
    ) -> Result<(), B::Error> {
        let Self { division, mean, elastic } = self;
        let Some(elastic) = elastic else { return Ok(()) };
        elastic.known.clone_from(&part.known);
        (elastic.divided_anew, elastic.unpreconditioned) = (part.divided_anew, part.unpreconditioned);
        elastic.stage = None;
        let stage = Stage::ALL.into_iter().find(|stage| stage.number() == part.stage);
        if let Some(stage) = stage {
            if stage == Stage::Directions && elastic.v.is_none() {
                elastic.v = Some(backend.allocate(mean.len())?);
            }
            put_whole(backend, live(stage, rule, mean, &mut elastic.v), &part.buffers)?;
            // What is sent was sent; who gets what is as it was.
            let mut bundle = match (stage, &elastic.v) {
                (Stage::Directions, Some(v)) => division.directions(backend, v)?,
                _ => division.gradients(backend, mean)?,
            };
            if let (Stage::Gradients { refreshed: true }, Some(bases)) = (stage, rule.bases()) {
                bundle.append(bases.hand_out(backend, division)?);
            }
            bundle.send();
            elastic.stage = Some((stage, bundle));
        }
        Ok(())
    }

    /// Goes on with a shared step until the others are needed, or it ends; see
    /// [`Preconditioner::share`](crate::preconditioner::Preconditioner::share).
    ///
    /// Running averages take a step in at its end, so that nothing of a step that was given up before is in them; one that had
    /// ended here alone and is [retracted](crate::participant::Training::retract) stays in them. Momentum takes a step in before
    /// directions are exchanged, and begins anew, as every end of an epoch divides the work anew.
    pub(super) fn go_on(
        &mut self,
        backend: &mut B,
        (rule, steps): (&mut dyn Rule<B>, u64),
        gradient: &B::Buffer,
        answers: Option<Letters<B::Scalar>>,
        direction: &mut B::Buffer,
    ) -> Result<Option<Letters<B::Scalar>>, B::Error> {
        let Self { division, mean, elastic } = self;
        let elastic = elastic.as_mut().expect("members that come and go");
        let mut answered = match (answers, elastic.stage.take()) {
            (Some(letters), Some((stage, bundle))) => Some((stage, bundle.answered(letters))),
            _ => None,
        };
        loop {
            let (stage, mut bundle) = match answered.take() {
                None => {
                    let mut bundle = division.gradients(backend, gradient)?;
                    let due = rule.bases().filter(|bases| bases.is_due(steps));
                    let refreshed = due.is_some();
                    if let Some(bases) = due {
                        bases.refresh(backend)?;
                        elastic.known = bases.leave_unknown_alone(backend)?;
                        bundle.append(bases.hand_out(backend, division)?);
                    }
                    (Stage::Gradients { refreshed }, bundle)
                }
                Some((Stage::Gradients { refreshed }, mut rest)) => {
                    let gradients = rest.split(1);
                    division.take_gradients(backend, &gradients, mean)?;
                    if let (true, Some(bases)) = (refreshed, rule.bases()) {
                        bases.take(backend, division, &rest)?;
                        bases.promote(backend)?;
                        // What an owner has never seen it knows after the first gradient.
                        bases.due = elastic.divided_anew;
                        rule.turn(backend)?;
                    }
                    let owned = |&(block, _): &(usize, &bool)| division.plan().owner(block) == division.me();
                    let bare = elastic.known.iter().enumerate().filter(owned).filter(|(_, known)| !**known).count();
                    elastic.unpreconditioned += bare as u64;
                    let v = match &mut elastic.v {
                        Some(v) => v,
                        None => elastic.v.insert(backend.allocate(mean.len())?),
                    };
                    rule.follow(backend, mean, v)?;
                    (Stage::Directions, division.directions(backend, v)?)
                }
                Some((Stage::Directions, bundle)) => {
                    let v = elastic.v.as_mut().expect("a direction, as it was sent");
                    division.take_directions(backend, &bundle, v)?;
                    let (one, zero) = (B::Scalar::of(1.0), B::Scalar::of(0.0));
                    backend.axpby(one, v, zero, direction, Region::vector(0, v.len()))?;
                    if let Some(bases) = rule.bases() {
                        bases.observe(backend, mean)?;
                    }
                    elastic.divided_anew = false;
                    return Ok(None);
                }
            };
            if division.plan().members() == 1 {
                answered = Some((stage, bundle));
            } else {
                let letters = bundle.send();
                elastic.stage = Some((stage, bundle));
                return Ok(Some(letters));
            }
        }
    }
}
