//! Training steps agree across backends, and gradients are derivatives.

use kronfleet_conformance::backend::{Fault, Mutant};
use kronfleet_conformance::check::Check;
use kronfleet_conformance::minimal::Minimal;
use kronfleet_conformance::required::Required;
use kronfleet_conformance::step::{gradients_match_differences, steps_agree};
use kronfleet_core::backend::Extent;
use kronfleet_core::network::{Initialisation, Network, Shape, Spec};
use kronfleet_core::optimiser::{Sgd, SgdOptions};
use kronfleet_core::preconditioner::{Kronecker, Options};
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Batches, Trainer, TrainerOptions};
use kronfleet_faer::Faer;
use kronfleet_nalgebra::Nalgebra;

/// What two correct backends may differ by.
const TOLERANCE: f64 = 1e-9;

/// Many small networks: some layers go wrong only beside certain others.
fn many() -> Check {
    let check = Check::default();
    Check { cases: check.cases.max(768), ..check }
}

#[track_caller]
fn holds(outcome: Result<(), kronfleet_conformance::check::Broken>) {
    if let Err(broken) = outcome {
        panic!("{broken}");
    }
}

#[test]
fn nalgebra_and_minimal_agree() {
    holds(steps_agree(&Nalgebra::<f64>::new, &Minimal::<f64>::new, TOLERANCE, &many()));
}

#[test]
fn faer_and_nalgebra_agree() {
    holds(steps_agree(&|| Faer::<f64>::new(1), &Nalgebra::<f64>::new, TOLERANCE, &many()));
}

#[test]
fn faer_with_threads_and_minimal_agree() {
    holds(steps_agree(&|| Faer::<f64>::new(2), &Minimal::<f64>::new, TOLERANCE, &many()));
}

#[test]
fn faer_agrees_with_its_own_defaults() {
    let plain = || Required::new(Faer::<f64>::new(1));
    holds(steps_agree(&|| Faer::<f64>::new(1), &plain, TOLERANCE, &many()));
}

#[test]
fn gradients_are_derivatives() {
    holds(gradients_match_differences(&Nalgebra::<f64>::new, &many()));
    holds(gradients_match_differences(&|| Faer::<f64>::new(1), &many()));
}

/// That a mistake shows; how small it can be shown is of no interest here.
const SHOWN: Check = Check { cases: 256, seed: 1, shrinking: 0 };

#[test]
fn steps_of_wrong_backends_differ() {
    for fault in [
        Fault::BetaIgnored,
        Fault::SolvesOnlyForwards,
        Fault::EigenvectorsInRows,
        Fault::EigenvectorsTooLong,
        Fault::FoldOverwrites,
        Fault::StatisticForgotten,
        Fault::BiasGradientForgotten,
        Fault::MaximumStartsAtZero,
        Fault::RunningVarianceBiased,
        Fault::BatchStatisticsConstant,
        Fault::EvoNormWithoutGroups,
        Fault::ShortcutPadsBehind,
        Fault::SmoothingIgnored,
    ] {
        let wrong = || Mutant::new(fault);
        let outcome = steps_agree(&wrong, &Minimal::<f64>::new, TOLERANCE, &SHOWN);
        assert!(outcome.is_err(), "{fault:?} is not noticed");
    }
}

#[test]
fn wrong_gradients_are_no_derivatives() {
    for fault in [Fault::BiasGradientForgotten, Fault::BatchStatisticsConstant] {
        let wrong = || Mutant::new(fault);
        assert!(gradients_match_differences(&wrong, &SHOWN).is_err(), "{fault:?} is not noticed");
    }
}

/// Blurred bars, one direction and place for every class.
struct Bars(u64);

impl Batches<f32> for Bars {
    fn fill(&mut self, x: &mut [f32], labels: &mut [u32]) {
        for (image, label) in x.chunks_exact_mut(28 * 28).zip(labels) {
            let mut random = Seed(5).derive("bar", self.0).random();
            self.0 += 1;
            *label = random.below(10) as u32;
            let (across, place) = (*label % 2 == 0, 3 + 5 * (*label as usize / 2));
            for (at, pixel) in image.iter_mut().enumerate() {
                let (row, column) = (at / 28, at % 28);
                let distance = (if across { row } else { column }).abs_diff(place) as f64;
                *pixel = ((-distance * distance / 4.0).exp() + 0.1 * random.normal()) as f32;
            }
        }
    }
}

#[test]
fn the_minimal_backend_trains_lenet() {
    let mut backend = Minimal::<f32>::new();
    let specs = [
        Spec::convolution("conv1", 6, Shape::square(5, 1, 2)),
        Spec::Relu,
        Spec::MaxPool(Shape::square(2, 2, 0)),
        Spec::convolution("conv2", 16, Shape::square(5, 1, 0)),
        Spec::Relu,
        Spec::MaxPool(Shape::square(2, 2, 0)),
        Spec::Flatten,
        Spec::dense("fc1", 120),
        Spec::Relu,
        Spec::dense("fc2", 84),
        Spec::Relu,
        Spec::dense("fc3", 10),
    ];
    let batch = 16;
    let mut network = Network::build(&mut backend, Extent::new(1, 28, 28), &specs, batch).expect("LeNet-5 fits");
    network.initialise(&mut backend, Seed(1), Initialisation::Uniform).expect("memory");
    let (len, statistics) = (network.parameters_len(), network.statistics_len());
    let kfac = Kronecker::new(&mut backend, network.blocks(), statistics, len, Options::default()).expect("memory");
    let momentum = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
    let sgd = Sgd::new(&mut backend, len, &[], momentum).expect("memory");
    let options = TrainerOptions::new(batch, 0.05);
    let (kfac, sgd, bars) = (Box::new(kfac), Box::new(sgd), Box::new(Bars(0)));
    let mut trainer = Trainer::new(backend, network, kfac, sgd, bars, options).expect("memory");
    let first = trainer.step().expect("a finite loss").loss;
    for _ in 0..24 {
        trainer.step().expect("a finite loss");
    }
    let last = trainer.settle().expect("a finite loss").loss;
    assert!(last < 0.5 * first, "the loss fell from {first} to {last} only");
}
