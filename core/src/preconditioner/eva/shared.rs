//! Eva's steps, shared: gradients and vectors to where their means are wanted, directions to who does not compute them.

use super::super::SharedPart;
use super::super::division::{Bundle, Division, Seat};
use super::super::state::{put_whole, whole};
use super::Eva;
use crate::backend::Backend;
use crate::layer::Block;
use crate::matrix::Region;
use crate::mutant::mutant;
use crate::placement::{Letters, Placement, Plan, Work};
use alloc::vec;
use alloc::vec::Vec;

/// A member's part.
pub(super) struct Shared<B: Backend> {
    pub(super) division: Division<B>,
    /// The mean gradient.
    pub(super) mean: B::Buffer,
    elastic: Option<Elastic<B>>,
}

/// Members that come and go.
struct Elastic<B: Backend> {
    placement: Placement,
    work: Work,
    /// The stage whose letters are out, and what they consist of.
    stage: Option<(Stage, Bundle<B::Scalar>)>,
}

/// What a shared step exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Gradients and vectors.
    Averages,
    Directions,
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
        self.elastic = Some(Elastic { placement, work, stage: None });
    }

    pub(super) fn is_elastic(&self) -> bool {
        self.elastic.is_some()
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
        elastic.stage = None;
        true
    }

    /// Carries gradients over the wire.
    pub(super) fn exchange_gradients(&mut self, backend: &mut B, own: &B::Buffer) -> Result<(), B::Error> {
        let mut bundle = self.division.gradients(backend, own)?;
        self.division.carry(&mut bundle);
        self.division.take_gradients(backend, &bundle, &mut self.mean)
    }

    /// Carries the vectors of this step over the wire.
    pub(super) fn exchange_vectors(
        &mut self,
        backend: &mut B,
        vectors: &mut B::Buffer,
        places: [&[Region]; 2],
    ) -> Result<(), B::Error> {
        let mut bundle = self.division.vectors(backend, vectors, places)?;
        self.division.carry(&mut bundle);
        if mutant!(VectorsKept) {
            return Ok(());
        }
        self.division.take_statistics(backend, bundle, vectors)
    }

    /// Carries directions over the wire.
    pub(super) fn exchange_directions(&mut self, backend: &mut B, v: &mut B::Buffer) -> Result<(), B::Error> {
        let mut bundle = self.division.directions(backend, v)?;
        self.division.carry(&mut bundle);
        self.division.take_directions(backend, &bundle, v)
    }
}

impl<B: Backend> Eva<B> {
    /// A step with those on the wire, from its gradient on.
    pub(super) fn follow_together(
        &mut self,
        backend: &mut B,
        shared: &mut Shared<B>,
        learning_rate: f64,
        gradient: &B::Buffer,
        direction: &mut B::Buffer,
    ) -> Result<(), B::Error> {
        shared.exchange_gradients(backend, gradient)?;
        self.follow(backend, &shared.mean)?;
        shared.exchange_directions(backend, &mut self.v)?;
        self.conclude(backend, learning_rate, &shared.mean, direction)
    }

    /// What it makes at a stage and takes the answers into.
    fn bundle(
        &mut self,
        backend: &mut B,
        division: &Division<B>,
        stage: Stage,
        gradient: &B::Buffer,
    ) -> Result<Bundle<B::Scalar>, B::Error> {
        match stage {
            Stage::Averages => {
                let mut bundle = division.gradients(backend, gradient)?;
                let places = [&self.places.a[..], &self.places.g];
                bundle.append(division.vectors(backend, self.means.statistics(), places)?);
                Ok(bundle)
            }
            Stage::Directions => division.directions(backend, &self.v),
        }
    }

    /// What a step whose letters are out goes on with.
    fn live<'a>(&'a mut self, mean: &'a mut B::Buffer, stage: Stage) -> Vec<&'a mut B::Buffer> {
        match stage {
            Stage::Averages => vec![self.means.statistics()],
            Stage::Directions => vec![mean, &mut self.v],
        }
    }

    /// Its part in shared steps, if members come and go.
    pub(super) fn part(
        &mut self,
        backend: &mut B,
        Shared { division, mean, elastic }: &mut Shared<B>,
    ) -> Result<Option<SharedPart<B::Scalar>>, B::Error> {
        let Some(Elastic { stage, .. }) = elastic else { return Ok(None) };
        let stage = stage.as_ref().map(|(stage, _)| *stage);
        let buffers = match stage {
            Some(stage) => whole(backend, self.live(mean, stage).into_iter().map(|buffer| &*buffer))?,
            None => Vec::new(),
        };
        Ok(Some(SharedPart {
            members: division.plan().members(),
            me: division.me(),
            stage: stage.map_or(0, |stage| 1 + stage as u32),
            known: Vec::new(),
            divided_anew: false,
            unpreconditioned: 0,
            buffers,
        }))
    }

    /// Goes on with the step that was under way; its work is divided as it was.
    #[track_caller]
    pub(super) fn take_part(
        &mut self,
        backend: &mut B,
        Shared { division, mean, elastic }: &mut Shared<B>,
        part: &SharedPart<B::Scalar>,
    ) -> Result<(), B::Error> {
        let Some(elastic) = elastic else { return Ok(()) };
        let stages = [Stage::Averages, Stage::Directions];
        let stage = part.stage.checked_sub(1).and_then(|at| stages.get(at as usize)).copied();
        elastic.stage = None;
        if let Some(stage) = stage {
            put_whole(backend, self.live(mean, stage), &part.buffers)?;
            // What is sent was sent; who gets what is as it was.
            let mut bundle = self.bundle(backend, division, stage, mean)?;
            bundle.send();
            elastic.stage = Some((stage, bundle));
        }
        Ok(())
    }

    /// Goes on with a shared step until the others are needed, or it ends; see
    /// [`Preconditioner::share`](crate::preconditioner::Preconditioner::share).
    pub(super) fn go_on(
        &mut self,
        backend: &mut B,
        Shared { division, mean, elastic }: &mut Shared<B>,
        learning_rate: f64,
        (gradient, count): (&B::Buffer, usize),
        answers: Option<Letters<B::Scalar>>,
        direction: &mut B::Buffer,
    ) -> Result<Option<Letters<B::Scalar>>, B::Error> {
        let elastic = elastic.as_mut().expect("members that come and go");
        let mut answered = match (answers, elastic.stage.take()) {
            (Some(letters), Some((stage, bundle))) => Some((stage, bundle.answered(letters))),
            _ => None,
        };
        loop {
            let (stage, mut bundle) = match answered.take() {
                None => (Stage::Averages, self.bundle(backend, division, Stage::Averages, gradient)?),
                Some((Stage::Averages, mut vectors)) => {
                    let gradients = vectors.split(1);
                    division.take_gradients(backend, &gradients, mean)?;
                    division.take_statistics(backend, vectors, self.means.statistics())?;
                    self.close(backend, count)?;
                    self.follow(backend, mean)?;
                    (Stage::Directions, self.bundle(backend, division, Stage::Directions, gradient)?)
                }
                Some((Stage::Directions, bundle)) => {
                    division.take_directions(backend, &bundle, &mut self.v)?;
                    self.conclude(backend, learning_rate, mean, direction)?;
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
