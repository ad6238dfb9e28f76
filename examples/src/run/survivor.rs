//! Training and judging that outlive the device they began on.
//!
//! A GPU can be unplugged, reset or crashed by somebody else's program. Its memory is lost then, but the node is not: another
//! backend goes on with the weights of the node's last commit, or with the initial ones before the first. What the node had
//! learned since is lost; its place in the data, its schedules and its count of iterations are not, and its optimiser
//! begins anew as after a healing.

use super::compute::Compute;
use super::evaluation::{Judge, Model};
use crate::checkpoint::Layers;
use anyhow::Result;
use kronfleet_core::cluster::Contribution;
use kronfleet_core::error::ErrorKind;
use kronfleet_core::participant::{Summary, Training, TrainingError};
use kronfleet_core::placement::Letters;
use kronfleet_core::policy::Request;
use kronfleet_core::preconditioner::Report;
use kronfleet_core::trainer::{Checkpoint, Progress};
use std::ops::Range;

/// What makes the one that goes on.
pub type Spare<T> = Box<dyn FnOnce() -> Result<Box<T>> + Send>;

/// A device that was lost on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The iterations behind the node when it was noticed.
    pub iteration: u64,
    /// What the driver said.
    pub reason: String,
}

/// A node's trainer, and what replaces it where its device is lost.
pub struct Survivor {
    compute: Box<dyn Compute>,
    spare: Option<Spare<dyn Compute>>,
    /// What it last took over from others; kept only where there is a spare.
    committed: Option<Contribution<f32>>,
    /// Done before a step once so many are made.
    misfortune: Option<(u64, Box<dyn FnOnce() + Send>)>,
    loss: Option<Loss>,
    /// Replaced since the participant asked.
    replaced: bool,
    failure: Option<TrainingError>,
}

impl Survivor {
    /// One that nothing replaces.
    pub fn new(compute: Box<dyn Compute>) -> Self {
        Self { compute, spare: None, committed: None, misfortune: None, loss: None, replaced: false, failure: None }
    }

    /// One that `spare` replaces where its device is lost.
    ///
    /// One that shares its steps has no spare: the others would have to begin anew with it, as they do when it leaves.
    pub fn with_spare(compute: Box<dyn Compute>, spare: Spare<dyn Compute>) -> Self {
        if compute.is_shared() {
            return Self::new(compute);
        }
        Self { spare: Some(spare), ..Self::new(compute) }
    }

    /// The same, with something that happens before the first step after so many.
    pub fn with_misfortune(self, iterations: u64, misfortune: Box<dyn FnOnce() + Send>) -> Self {
        Self { misfortune: Some((iterations, misfortune)), ..self }
    }

    /// The loss since the last call, if there was one.
    pub fn take_loss(&mut self) -> Option<Loss> {
        self.loss.take()
    }

    /// Waits for a copy of the model.
    ///
    /// # Errors
    /// If the device fails and nothing can replace it.
    pub fn model(&mut self) -> Result<Model, TrainingError> {
        self.outlive(|compute| compute.model())
    }

    /// Waits until all that was asked for is done, and reads the last step's loss.
    ///
    /// # Errors
    /// As a step's.
    pub fn settle(&mut self) -> Result<Progress, TrainingError> {
        self.outlive(|compute| compute.settle())
    }

    /// What the preconditioner has done; after a loss, what the new one has.
    pub fn report(&self) -> Report {
        self.compute.report()
    }

    /// Waits for a copy of the state; says where numbers lie in it, too.
    ///
    /// # Errors
    /// As a step's.
    pub fn save(&mut self) -> Result<(Layers, Checkpoint<f32>), TrainingError> {
        self.outlive(|compute| compute.save())
    }

    /// Goes on from a state taken from a trainer of the same network and options.
    ///
    /// # Errors
    /// If the device fails and nothing can replace it.
    pub fn restore(&mut self, state: &Checkpoint<f32>) -> Result<(), TrainingError> {
        if self.spare.is_some() {
            let mut committed = Contribution::default();
            for (name, values) in [("parameters", &state.parameters), ("running", &state.running)] {
                committed.segment(name, values.len(), 1.0).copy_from_slice(values);
            }
            self.committed = Some(committed);
        }
        self.outlive(|compute| compute.restore(state))
    }

    /// What is to happen before this step.
    fn befall(&mut self) {
        if let Some((_, misfortune)) = self.misfortune.take_if(|(at, _)| self.compute.iteration() >= *at) {
            misfortune();
        }
    }

    /// Does something; once more with the spare where the device turns out to be lost.
    fn outlive<T>(
        &mut self,
        mut what: impl FnMut(&mut dyn Compute) -> Result<T, TrainingError>,
    ) -> Result<T, TrainingError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        match what(&mut *self.compute) {
            Err(error) if error.kind == ErrorKind::DeviceLost && self.spare.is_some() => {
                self.replace(error)?;
                what(&mut *self.compute)
            }
            outcome => outcome,
        }
    }

    /// Replaces the trainer if it has noticed that its device is lost where it could not say so; whether it did.
    fn is_replaced(&mut self) -> bool {
        let failure = self.compute.failure().filter(|failure| failure.kind == ErrorKind::DeviceLost).cloned();
        match failure.filter(|_| self.spare.is_some()) {
            None => false,
            Some(failure) => self.replace(failure).map_err(|error| self.failure = Some(error)).is_ok(),
        }
    }

    /// Goes on with the spare, from what was last committed.
    fn replace(&mut self, lost: TrainingError) -> Result<(), TrainingError> {
        let Some(spare) = self.spare.take() else { return Err(lost) };
        let course = self.compute.course();
        self.compute = spare().map_err(|error| TrainingError {
            kind: ErrorKind::DeviceLost,
            reason: format!("{}; and nothing can take over: {error:#}", lost.reason),
        })?;
        self.compute.follow(&course);
        let mut committed = self.committed.take().unwrap_or_default();
        committed.iteration = course.iteration;
        self.compute.adopt(&committed, true);
        self.replaced = true;
        self.loss = Some(Loss { iteration: course.iteration, reason: lost.reason });
        Ok(())
    }
}

impl Training<f32> for Survivor {
    fn iteration(&self) -> u64 {
        self.compute.iteration()
    }

    fn step(&mut self) -> Result<Summary, TrainingError> {
        self.befall();
        self.outlive(|compute| compute.step())
    }

    fn step_while(&mut self, goes_on: &mut dyn FnMut(f64) -> bool, whole: bool) -> Result<Summary, TrainingError> {
        self.befall();
        self.outlive(|compute| compute.step_while(goes_on, whole))
    }

    fn layers(&self) -> Vec<Range<usize>> {
        self.compute.layers()
    }

    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<f32>) {
        self.compute.contribute(request, contribution);
        if self.is_replaced() {
            contribution.clear();
            self.compute.contribute(request, contribution);
        }
    }

    fn show(&mut self, contribution: &mut Contribution<f32>) {
        self.compute.show(contribution);
        if self.is_replaced() {
            contribution.clear();
            self.compute.show(contribution);
        }
    }

    fn adopt(&mut self, average: &Contribution<f32>, healed: bool) {
        if self.spare.is_some() {
            self.committed = Some(average.clone());
        }
        self.compute.adopt(average, healed);
        self.is_replaced();
    }

    fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.replaced)
    }

    fn is_shared(&self) -> bool {
        self.compute.is_shared()
    }

    fn letters(&mut self) -> Option<Letters<f32>> {
        self.compute.letters()
    }

    fn answer(&mut self, letters: Letters<f32>) {
        self.compute.answer(letters);
    }

    fn give_up(&mut self) {
        self.compute.give_up();
    }

    fn retract(&mut self) {
        self.compute.retract();
    }

    fn divide(&mut self, members: usize, me: usize, iteration: u64) {
        self.compute.divide(members, me, iteration);
    }
}

/// A judge, and what replaces it where its device is lost.
pub struct SurvivingJudge {
    judge: Box<dyn Judge + Send>,
    spare: Option<Spare<dyn Judge + Send>>,
}

impl SurvivingJudge {
    /// One that `spare` replaces, if there is one.
    pub fn new(judge: Box<dyn Judge + Send>, spare: Option<Spare<dyn Judge + Send>>) -> Self {
        Self { judge, spare }
    }
}

impl Judge for SurvivingJudge {
    fn accuracy(&mut self, parameters: &[f32], running: &[f32]) -> Result<f64> {
        let lost = match self.judge.accuracy(parameters, running) {
            Ok(accuracy) => return Ok(accuracy),
            Err(error) => error,
        };
        let is_lost = lost.downcast_ref::<TrainingError>().is_some_and(|error| error.kind == ErrorKind::DeviceLost);
        let Some(spare) = self.spare.take_if(|_| is_lost) else { return Err(lost) };
        self.judge = spare()?;
        self.judge.accuracy(parameters, running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::evaluation::Model;
    use kronfleet_core::backend::Extent;
    use kronfleet_core::network::{Initialisation, Network, Spec};
    use kronfleet_core::optimiser::{Sgd, SgdOptions};
    use kronfleet_core::preconditioner::Identity;
    use kronfleet_core::seed::{Random, Seed};
    use kronfleet_core::trainer::{Batches, Course, Trainer, TrainerOptions};
    use kronfleet_nalgebra::Nalgebra;
    use proptest::prelude::*;

    struct Noise(Random, u64);

    impl Batches<f32> for Noise {
        fn fill(&mut self, x: &mut [f32], labels: &mut [u32]) {
            x.iter_mut().for_each(|x| *x = self.0.uniform() as f32);
            labels.iter_mut().for_each(|label| *label = self.0.below(3) as u32);
            self.1 += labels.len() as u64;
        }

        fn position(&self) -> u64 {
            self.1
        }

        fn restore(&mut self, position: u64) {
            self.1 = position;
        }
    }

    fn trainer() -> Trainer<Nalgebra<f32>> {
        let mut backend = Nalgebra::new();
        let specs = [Spec::dense("fc1", 5), Spec::Tanh, Spec::dense("fc2", 3)];
        let mut network = Network::build(&mut backend, Extent::flat(4), &specs, 2).expect("layers that fit");
        network.initialise(&mut backend, Seed(1), Initialisation::Uniform).expect("memory");
        let options = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
        let sgd = Sgd::new(&mut backend, network.parameters_len(), &[], options).expect("memory");
        let noise = Box::new(Noise(Seed(2).random(), 0));
        let options = TrainerOptions::new(2, 0.1);
        Trainer::new(backend, network, Box::new(Identity::default()), Box::new(sgd), noise, options).expect("memory")
    }

    /// A trainer on a device that is lost after so many calls that use it.
    struct Mortal(Trainer<Nalgebra<f32>>, u32, Option<TrainingError>);

    impl Mortal {
        fn dies(&mut self) -> Result<(), TrainingError> {
            let error = || TrainingError { kind: ErrorKind::DeviceLost, reason: "unplugged".to_owned() };
            self.1 = self.1.checked_sub(1).ok_or_else(error)?;
            Ok(())
        }
    }

    impl Training<f32> for Mortal {
        fn iteration(&self) -> u64 {
            self.0.iteration()
        }

        fn step(&mut self) -> Result<Summary, TrainingError> {
            self.dies()?;
            self.0.step()
        }

        fn contribute(&mut self, request: &Request, contribution: &mut Contribution<f32>) {
            self.2 = self.dies().err();
            if self.2.is_none() {
                self.0.contribute(request, contribution);
            }
        }

        fn adopt(&mut self, average: &Contribution<f32>, healed: bool) {
            self.2 = self.dies().err();
            if self.2.is_none() {
                self.0.adopt(average, healed);
            }
        }
    }

    impl Compute for Mortal {
        fn model(&mut self) -> Result<Model, TrainingError> {
            self.dies()?;
            self.0.model()
        }

        fn settle(&mut self) -> Result<Progress, TrainingError> {
            self.dies()?;
            self.0.settle()
        }

        fn report(&self) -> Report {
            self.0.report()
        }

        fn save(&mut self) -> Result<(Layers, Checkpoint<f32>), TrainingError> {
            self.dies()?;
            Compute::save(&mut self.0)
        }

        fn restore(&mut self, state: &Checkpoint<f32>) -> Result<(), TrainingError> {
            self.dies()?;
            Compute::restore(&mut self.0, state)
        }

        fn course(&self) -> Course {
            self.0.course()
        }

        fn follow(&mut self, course: &Course) {
            self.0.follow(course);
        }

        fn failure(&self) -> Option<&TrainingError> {
            self.2.as_ref()
        }
    }

    fn parameters(training: &mut dyn Training<f32>) -> Vec<f32> {
        let mut seen = Contribution::default();
        training.show(&mut seen);
        seen.segments()[0].values.clone()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whenever the device goes, the node has as many iterations behind it and as much of the data, and its weights are
        /// those of its last commit, followed by the steps made since.
        #[test]
        fn a_node_goes_on_from_its_last_commit(life in 0_u32..40, commits in prop::collection::vec(any::<bool>(), 1..20)) {
            let spare: Spare<dyn Compute> = Box::new(|| Ok(Box::new(trainer()) as Box<dyn Compute>));
            let mut survivor = Survivor::with_spare(Box::new(Mortal(trainer(), life, None)), spare);
            let initial = parameters(&mut trainer());
            let (mut committed, mut steps, mut losses) = (initial.clone(), 0, 0);
            for (index, commit) in commits.into_iter().enumerate() {
                if commit {
                    let mut average = Contribution::default();
                    let values = initial.iter().map(|value| value * (1.0 + index as f32));
                    let values: Vec<f32> = values.collect();
                    average.segment("parameters", values.len(), 1.0).copy_from_slice(&values);
                    survivor.adopt(&average, false);
                    committed = values;
                    prop_assert_eq!(&parameters(&mut survivor), &committed, "what is adopted is there");
                    losses += u32::from(survivor.take_loss().is_some());
                    survivor.take_replaced();
                } else {
                    let summary = survivor.step();
                    steps += 1;
                    prop_assert!(summary.is_ok_and(|summary| summary.samples == 2));
                    let lost = survivor.take_loss();
                    prop_assert_eq!(survivor.take_replaced(), lost.is_some());
                    losses += u32::from(lost.is_some());
                    if let Some(lost) = lost {
                        prop_assert_eq!(lost.iteration, steps - 1);
                        let mut fresh = trainer();
                        let mut average = Contribution::default();
                        average.segment("parameters", committed.len(), 1.0).copy_from_slice(&committed);
                        fresh.adopt(&average, false);
                        fresh.step().expect("a finite loss");
                        prop_assert_eq!(parameters(&mut survivor), parameters(&mut fresh));
                    }
                }
                prop_assert_eq!(survivor.iteration(), steps);
                prop_assert_eq!(survivor.compute.course().position, 2 * steps);
            }
            prop_assert!(losses <= 1);
        }
    }

    #[test]
    fn a_device_without_a_spare_ends_the_training() {
        let mut survivor = Survivor::new(Box::new(Mortal(trainer(), 1, None)));
        assert!(survivor.step().is_ok());
        assert_eq!(survivor.step().map_err(|error| error.kind), Err(ErrorKind::DeviceLost));
    }
}
