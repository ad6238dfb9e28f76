//! What a trainer brings into rounds, and takes from them.
//!
//! | segment | content |
//! |---|---|
//! | `parameters` | the flat parameters; gaps are zeros |
//! | `running` | running statistics of normalisation layers, if there are any |
//! | `factors` | running values of the Kronecker factors, then one weight for each block |
//! | `optimiser/i` | the i-th flat buffer of the optimiser's state |
//! | `variate` | with SCAFFOLD, the mean of the node's corrected gradients since the last average |
//! | `factor/i` | in place of `factors` where steps are shared: A, G and the weight of block i |
//!
//! Values and weights of the factors travel side by side and are averaged with the same coefficients: the mean of a
//! block is then the mean over nodes weighted by how much each has seen, and a node that has seen nothing takes no
//! part in it.
//!
//! Members who share steps have the same parameters. Of factors, what a block's owner has is what counts; others have what
//! they were given when the work was last divided, and that counts a millionth: if the owner is there as good as nothing, and
//! if not, it is what there is. All segments are always there, so that a round of those who want factors and those who do
//! not has one shape.

use super::{Trainer, failed};
use crate::backend::{Backend, Buffer as _};
use crate::cluster::Contribution;
use crate::matrix::Region;
use crate::participant::{Summary, Training, TrainingError};
use crate::placement::Letters;
use crate::policy::Request;
use crate::scalar::Scalar;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// What a factor counts that is not its owner's.
const REPLICA: f64 = 1e-6;

const FACTOR: &str = "factor/";

const OPTIMISER: [&str; 4] = ["optimiser/0", "optimiser/1", "optimiser/2", "optimiser/3"];

impl<B: Backend> Trainer<B> {
    /// Adds all segments, whatever goes wrong with one: those of all nodes are the same.
    fn try_contribute(
        &mut self,
        request: &Request,
        contribution: &mut Contribution<B::Scalar>,
    ) -> Result<(), B::Error> {
        let Self { backend, network, preconditioner, optimiser, progress, drift, .. } = self;
        contribution.iteration = progress.iteration;
        let mut outcome = Ok(());
        let mut put = |name: &str, buffer: &B::Buffer, len: usize| {
            let target = contribution.segment(name, len, request.weight);
            if outcome.is_ok() {
                outcome = backend.download(buffer, 0..len).and_then(|ticket| backend.finish(ticket, target));
            }
        };
        put("parameters", &network.parameters, network.parameters_len());
        if request.running && network.running_len() > 0 {
            put("running", &network.running, network.running_len());
        }
        let shared = preconditioner.is_shared();
        if request.optimiser || shared {
            for (name, buffer) in OPTIMISER.iter().zip(optimiser.state()) {
                put(name, buffer, buffer.len());
            }
        }
        if let Some(drift) = drift {
            let came = drift.contribute(backend, request.weight, outcome.is_ok(), contribution);
            outcome = outcome.and(came);
        }
        if shared {
            let came = self.contribute_blocks(request, contribution);
            return outcome.and(came);
        }
        if let (true, Some(factors)) = (request.factors, preconditioner.factors()) {
            let means = factors.running();
            let (values, weights) = (means.values(), means.weights());
            let target = contribution.segment("factors", values.len() + weights.len(), request.weight);
            let (of_values, of_weights) = target.split_at_mut(values.len());
            outcome?;
            let tickets = [backend.download(values, 0..values.len())?, backend.download(weights, 0..weights.len())?];
            for (ticket, target) in tickets.into_iter().zip([of_values, of_weights]) {
                backend.finish(ticket, target)?;
            }
            return Ok(());
        }
        outcome
    }

    /// Adds the segments of all blocks, whatever goes wrong with one.
    fn contribute_blocks(
        &mut self,
        request: &Request,
        contribution: &mut Contribution<B::Scalar>,
    ) -> Result<(), B::Error> {
        let Self { backend, preconditioner, .. } = self;
        let count = preconditioner.factors().map_or(0, |factors| factors.blocks().len());
        let keeps: Vec<bool> = (0..count).map(|block| preconditioner.keeps(block)).collect();
        let Some(factors) = preconditioner.factors() else { return Ok(()) };
        let layout = factors.layout();
        let means = factors.running();
        let mut outcome = Ok(());
        let weights = backend.fetch(means.weights(), 0..count).unwrap_or_else(|error| {
            outcome = Err(error);
            vec![B::Scalar::of(0.0); count]
        });
        for (number, (sides, keeps)) in layout.iter().zip(keeps).enumerate() {
            let seen = request.factors && weights[number] > B::Scalar::of(0.0);
            let weight = if !seen { 0.0 } else { request.weight * if keeps { 1.0 } else { REPLICA } };
            let regions = || sides.iter().flatten().map(|side| side.region);
            let len: usize = regions().map(Region::len).sum();
            let mut target = contribution.segment(&format!("factor/{number}"), len + 1, weight);
            if weight > 0.0 {
                target[len] = weights[number];
                for region in regions() {
                    let (own, rest) = target.split_at_mut(region.len());
                    if outcome.is_ok() {
                        let values = backend.fetch(means.values(), region.offset..region.end());
                        outcome = values.map(|values| own.copy_from_slice(&values));
                    }
                    target = rest;
                }
            }
        }
        outcome
    }

    fn try_adopt(&mut self, average: &Contribution<B::Scalar>, healed: bool) -> Result<(), B::Error> {
        let Self { backend, network, preconditioner, optimiser, progress, drift, .. } = self;
        let mut state_came = false;
        for segment in average.segments().iter().filter(|segment| segment.weight > 0.0) {
            let values = &segment.values[..];
            match segment.name.as_str() {
                "parameters" => {
                    backend.upload(values, &mut network.parameters, 0)?;
                    network.clear_gaps(backend)?;
                }
                "running" => backend.upload(values, &mut network.running, 0)?,
                "factors" => {
                    let Some(factors) = preconditioner.factors() else { continue };
                    let (of_values, of_weights) = factors.means().estimate_mut();
                    let (first, second) = values.split_at(of_values.len());
                    backend.upload(first, of_values, 0)?;
                    backend.upload(second, of_weights, 0)?;
                }
                name if name.starts_with(FACTOR) => {
                    let number = name[FACTOR.len()..].parse::<usize>().ok();
                    let Some(factors) = preconditioner.factors() else { continue };
                    let Some((number, sides)) = number.and_then(|at| Some((at, factors.layout().get(at)?.clone())))
                    else {
                        continue;
                    };
                    let (of_values, of_weights) = factors.means().estimate_mut();
                    let mut values = values;
                    for side in sides.iter().flatten() {
                        let (own, rest) = values.split_at(side.region.len());
                        backend.upload(own, of_values, side.region.offset)?;
                        values = rest;
                    }
                    backend.upload(values, of_weights, number)?;
                }
                name => {
                    let Some(index) = OPTIMISER.iter().position(|own| *own == name) else { continue };
                    let Some(buffer) = optimiser.state_mut().get_mut(index) else { continue };
                    backend.upload(values, buffer, 0)?;
                    state_came = true;
                }
            }
        }
        if let Some(drift) = drift {
            drift.adopt(backend, average, healed, &network.parameters)?;
        }
        if healed {
            progress.iteration = average.iteration;
            preconditioner.resume(average.iteration);
            if state_came {
                optimiser.resume(average.iteration);
            } else {
                // Momentum of the path that was given up would push away from the new one.
                for buffer in optimiser.state_mut() {
                    backend.fill(B::Scalar::of(0.0), Region::vector(0, buffer.len()), buffer)?;
                }
                optimiser.resume(0);
            }
        }
        Ok(())
    }

    fn note(&mut self, result: Result<(), B::Error>) {
        if let Err(error) = result {
            let error = failed(self.progress.iteration, error);
            let reason = alloc::format!("{} (while averaging)", error.reason);
            self.failure.get_or_insert(TrainingError { reason, ..error });
        }
    }
}

/// Makes of what could not be read something that nobody takes for a model.
fn count_nothing<S: Scalar>(contribution: &mut Contribution<S>) {
    for segment in contribution.segments_mut() {
        segment.weight = 0.0;
        segment.values.fill(S::zero());
    }
}

impl<B> Training<B::Scalar> for Trainer<B>
where
    B: Backend + Send,
    B::Buffer: Send,
    B::Download: Send,
{
    fn iteration(&self) -> u64 {
        self.progress.iteration
    }

    fn step(&mut self) -> Result<Summary, TrainingError> {
        Trainer::step(self)
    }

    fn step_while(&mut self, goes_on: &mut dyn FnMut(f64) -> bool, whole: bool) -> Result<Summary, TrainingError> {
        Trainer::step_while(self, goes_on, whole)
    }

    fn layers(&self) -> Vec<Range<usize>> {
        self.layer_ranges()
    }

    /// Waits for the device. Its failure is returned by the next step, and what could not be read counts nothing.
    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<B::Scalar>) {
        let result = self.try_contribute(request, contribution);
        if result.is_err() {
            count_nothing(contribution);
        }
        self.note(result);
    }

    /// Waits for the device, whose failure is returned by the next step.
    fn show(&mut self, contribution: &mut Contribution<B::Scalar>) {
        let len = self.network.parameters_len();
        contribution.iteration = self.progress.iteration;
        let target = contribution.segment("parameters", len, 1.0);
        let ticket = self.backend.download(&self.network.parameters, 0..len);
        let result = ticket.and_then(|ticket| self.backend.finish(ticket, target));
        if result.is_err() {
            count_nothing(contribution);
        }
        self.note(result);
    }

    /// A device's failure is returned by the next step.
    ///
    /// A healed trainer refreshes its decompositions at the next step, and starts with an empty optimiser state
    /// unless the average brings one.
    fn adopt(&mut self, average: &Contribution<B::Scalar>, healed: bool) {
        let result = self.try_adopt(average, healed);
        self.note(result);
    }

    fn is_shared(&self) -> bool {
        self.sharing.is_some()
    }

    fn letters(&mut self) -> Option<Letters<B::Scalar>> {
        Trainer::letters(self)
    }

    fn answer(&mut self, letters: Letters<B::Scalar>) {
        Trainer::answer(self, letters);
    }

    fn give_up(&mut self) {
        Trainer::give_up(self);
    }

    fn retract(&mut self) {
        let result = Trainer::retract(self);
        self.note(result);
    }

    fn divide(&mut self, members: usize, me: usize, iteration: u64) {
        let result = Trainer::divide(self, members, me, iteration);
        self.note(result);
    }
}
