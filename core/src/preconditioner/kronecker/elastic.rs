//! Steps shared by members that come and go, a stage at a time.

use super::{Kronecker, Stage};
use crate::backend::Backend;
use crate::placement::Letters;
use crate::scalar::Scalar;

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
                    let mut bundle = division.gradients(backend, gradient)?;
                    if takes {
                        self.factors.cut(backend)?;
                        bundle.append(division.statistics(backend, self.factors.means().statistics())?);
                    }
                    (Stage::Averages, bundle)
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

    /// Whether this step refreshes; all members say the same.
    fn refreshes(&mut self, takes: bool) -> bool {
        // What an owner has never seen it knows after the first statistics.
        let first = self.elastic.as_mut().is_some_and(|elastic| takes && core::mem::take(&mut elastic.divided_anew));
        first || self.refresh_due || self.steps.is_multiple_of(self.options.inverse_period)
    }

    /// The decompositions of what this member owns.
    fn refreshed(&mut self, backend: &mut B) -> Result<super::Bundle<B::Scalar>, B::Error> {
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
    fn directed(&mut self, backend: &mut B) -> Result<super::Bundle<B::Scalar>, B::Error> {
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
