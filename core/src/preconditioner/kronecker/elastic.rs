//! Steps shared by members that come and go, a stage at a time.

use super::super::SharedPart;
use super::super::state::{put_whole, whole};
use super::{Bundle, Elastic, Kronecker, Stage};
use crate::backend::Backend;
use crate::mutant::mutant;
use crate::placement::Letters;
use crate::scalar::Scalar;
use alloc::vec;
use alloc::vec::Vec;

impl<B: Backend> Kronecker<B> {
    /// Goes on with a shared step until the others are needed, or it ends; see
    /// [`Preconditioner::share`](crate::preconditioner::Preconditioner::share).
    pub(super) fn go_on(
        &mut self,
        backend: &mut B,
        learning_rate: f64,
        (gradient, count): (&B::Buffer, usize),
        answers: Option<Letters<B::Scalar>>,
        direction: &mut B::Buffer,
    ) -> Result<Option<Letters<B::Scalar>>, B::Error> {
        let takes = self.takes();
        let mut answered = match (answers, self.elastic.as_mut().and_then(|elastic| elastic.stage.take())) {
            (Some(letters), Some((stage, bundle))) => Some((stage, bundle.answered(letters))),
            _ => None,
        };
        loop {
            let division = self.division.as_ref().expect("a division, as this is shared");
            let (stage, mut bundle) = match answered.take() {
                None => {
                    if takes {
                        self.factors.cut(backend)?;
                    }
                    (Stage::Averages, self.bundle(backend, Stage::Averages, gradient)?)
                }
                Some((Stage::Averages, mut statistics)) => {
                    let gradients = statistics.split(1);
                    let mean = self.mean.as_mut().expect("a mean, as this is shared");
                    division.take_gradients(backend, &gradients, mean)?;
                    if takes {
                        division.take_statistics(backend, statistics, self.factors.means().statistics())?;
                        self.close(backend, count)?;
                    }
                    if self.refreshes(takes) {
                        (Stage::Decompositions, self.refreshed(backend)?)
                    } else {
                        (Stage::Directions, self.directed(backend)?)
                    }
                }
                Some((Stage::Decompositions, bundle)) => {
                    self.solver.take_decompositions(backend, division, &bundle)?;
                    self.solver.promote(backend)?;
                    (Stage::Directions, self.directed(backend)?)
                }
                Some((Stage::Directions, bundle)) => {
                    division.take_directions(backend, &bundle, &mut self.v)?;
                    self.conclude(backend, learning_rate, None, direction)?;
                    return Ok(None);
                }
            };
            if self.division.as_ref().is_some_and(|division| division.plan().members() == 1) {
                answered = Some((stage, bundle));
            } else if let Some(elastic) = &mut self.elastic {
                let letters = bundle.send();
                elastic.stage = Some((stage, bundle));
                return Ok(Some(letters));
            }
        }
    }

    /// What it makes at a stage and takes the answers into.
    fn bundle(&mut self, backend: &mut B, stage: Stage, gradient: &B::Buffer) -> Result<Bundle<B::Scalar>, B::Error> {
        let takes = self.takes();
        let division = self.division.as_ref().expect("a division, as this is shared");
        match stage {
            Stage::Averages => {
                let mut bundle = division.gradients(backend, gradient)?;
                if takes {
                    bundle.append(division.statistics(backend, self.factors.means().statistics())?);
                }
                Ok(bundle)
            }
            Stage::Decompositions => self.solver.decompositions(backend, division),
            Stage::Directions => division.directions(backend, &self.v),
        }
    }

    /// What a step whose letters are out goes on with.
    fn live(&mut self, stage: Stage) -> Vec<&mut B::Buffer> {
        let mean = self.mean.as_mut().expect("a mean, as this is shared");
        match stage {
            Stage::Averages => vec![self.factors.means().statistics()],
            Stage::Decompositions => core::iter::once(mean).chain(self.solver.shadow()).collect(),
            Stage::Directions => vec![mean, &mut self.v],
        }
    }

    /// Its part in shared steps, if they are shared.
    pub(super) fn part(&mut self, backend: &mut B) -> Result<Option<SharedPart<B::Scalar>>, B::Error> {
        let (Some(Elastic { stage, known, divided_anew, .. }), Some(division)) = (&self.elastic, &self.division) else {
            return Ok(None);
        };
        let stage = stage.as_ref().map(|(stage, _)| *stage);
        let mut part = SharedPart {
            members: division.plan().members(),
            me: division.me(),
            stage: stage.map_or(0, |stage| 1 + stage as u32),
            known: known.clone(),
            divided_anew: *divided_anew,
            unpreconditioned: 0,
            buffers: Vec::new(),
        };
        if let Some(stage) = stage {
            part.buffers = whole(backend, self.live(stage).into_iter().map(|buffer| &*buffer))?;
        }
        Ok(Some(part))
    }

    /// Goes on with the step that was under way; its work is divided as it was.
    #[track_caller]
    pub(super) fn take_part(&mut self, backend: &mut B, part: &SharedPart<B::Scalar>) -> Result<(), B::Error> {
        let stages = [Stage::Averages, Stage::Decompositions, Stage::Directions];
        let stage = part.stage.checked_sub(1).and_then(|at| stages.get(at as usize)).copied();
        let mut out = None;
        if let Some(stage) = stage {
            put_whole(backend, self.live(stage), &part.buffers)?;
            // What is sent was sent; who gets what is as it was.
            let gradient = self.mean.take().expect("a mean, as this is shared");
            let bundle = self.bundle(backend, stage, &gradient);
            self.mean = Some(gradient);
            let mut bundle = bundle?;
            bundle.send();
            out = Some((stage, bundle)).filter(|_| !mutant!(StageForgotten));
        }
        if let Some(elastic) = &mut self.elastic {
            elastic.stage = out;
            elastic.known.clone_from(&part.known);
            elastic.divided_anew = part.divided_anew;
        }
        Ok(())
    }

    /// Whether this step refreshes; all members say the same.
    fn refreshes(&mut self, takes: bool) -> bool {
        // What an owner has never seen it knows after the first statistics.
        let first = self.elastic.as_mut().is_some_and(|elastic| takes && core::mem::take(&mut elastic.divided_anew));
        first || self.refresh_due || self.steps.is_multiple_of(self.options.inverse_period)
    }

    /// The decompositions of what this member owns.
    fn refreshed(&mut self, backend: &mut B) -> Result<Bundle<B::Scalar>, B::Error> {
        self.refresh(backend)?;
        self.solver.settle(backend, &self.factors, &mut self.report)?;
        let weights = backend.fetch(self.factors.running().weights(), 0..self.members.len())?;
        for (block, weight) in weights.into_iter().enumerate() {
            let known = weight > B::Scalar::of(0.0);
            if let Some(elastic) = &mut self.elastic {
                elastic.known[block] = known;
            }
            if !known {
                self.solver.leave_alone(backend, block, self.damping)?;
            }
        }
        let division = self.division.as_ref().expect("a division, as this is shared");
        self.solver.decompositions(backend, division)
    }

    /// The directions of what this member holds.
    fn directed(&mut self, backend: &mut B) -> Result<Bundle<B::Scalar>, B::Error> {
        let mean = self.mean.as_ref().expect("a mean, as this is shared");
        self.solver.apply(
            backend,
            (self.factors.blocks(), &self.members),
            (self.damping, None),
            mean,
            &mut self.scratch,
            &mut self.v,
        )?;
        let division = self.division.as_ref().expect("a division, as this is shared");
        if let Some(elastic) = &self.elastic {
            let owned = |&(block, _): &(usize, &bool)| division.plan().owner(block) == division.me();
            let bare = elastic.known.iter().enumerate().filter(owned).filter(|(_, known)| !**known).count();
            self.report.unpreconditioned += bare as u64;
        }
        division.directions(backend, &self.v)
    }
}
