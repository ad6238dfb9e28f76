//! Training on a small backend.

use crate::dense::{Device, assert_close};
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::cluster::Contribution;
use kronfleet_core::error::ErrorKind;
use kronfleet_core::network::{Initialisation, Network, Spec};
use kronfleet_core::optimiser::{Adam, AdamOptions, Optimiser, Sgd, SgdOptions};
use kronfleet_core::participant::Training;
use kronfleet_core::policy::Request;
use kronfleet_core::preconditioner::{
    Fisher, Form, Identity, Kronecker, LevenbergMarquardt, Options, Preconditioner, Refresh,
};
use kronfleet_core::schedule::{Plateau, Schedule, Shape};
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Batches, Examples, Trainer, TrainerOptions};
use proptest::prelude::*;

pub(crate) const INPUTS: usize = 8;
pub(crate) const CLASSES: u64 = 4;

/// Points around one centre for each class, badly scaled on purpose: input i is `3^-i` times a normal number.
#[derive(Clone)]
pub(crate) struct Cloud {
    pub(crate) seed: Seed,
    pub(crate) next: u64,
}

impl Cloud {
    fn example(&self, number: u64, x: &mut [f64]) -> u32 {
        let mut random = self.seed.derive("example", number).random();
        let class = random.below(CLASSES);
        let mut centre = Seed(1).derive("centre", class).random();
        for (at, x) in x.iter_mut().enumerate() {
            *x = (centre.normal() + 0.7 * random.normal()) * 3.0_f64.powi(-(at as i32));
        }
        class as u32
    }
}

impl Batches<f64> for Cloud {
    fn fill(&mut self, x: &mut [f64], labels: &mut [u32]) {
        for (x, label) in x.chunks_exact_mut(INPUTS).zip(labels) {
            *label = self.example(self.next, x);
            self.next += 1;
        }
    }

    fn position(&self) -> u64 {
        self.next
    }

    fn restore(&mut self, position: u64) {
        self.next = position;
    }
}

impl Examples<f64> for Cloud {
    fn len(&self) -> usize {
        250
    }

    fn read(&self, first: usize, x: &mut [f64], labels: &mut [u32]) {
        for (at, (x, label)) in x.chunks_exact_mut(INPUTS).zip(labels).enumerate() {
            *label = self.example((first + at) as u64, x);
        }
    }
}

fn network(backend: &mut Device, capacity: usize) -> Network<Device> {
    let specs = [Spec::dense("first", 10), Spec::batch_norm("norm"), Spec::Tanh, Spec::dense("last", CLASSES as usize)];
    let mut network = Network::build(backend, Extent::flat(INPUTS), &specs, capacity).expect("the network fits");
    network.initialise(backend, Seed(2), Initialisation::Uniform).expect("memory");
    network
}

fn trainer(kfac: Option<Options>, options: TrainerOptions, momentum: f64) -> Trainer<Device> {
    trainer_with(kfac, options, sgd(momentum))
}

fn sgd(momentum: f64) -> impl Fn(&mut Device, usize) -> Box<dyn Optimiser<Device>> {
    move |device, len| {
        let options = SgdOptions { momentum, ..SgdOptions::default() };
        Box::new(Sgd::new(device, len, &[], options).expect("memory"))
    }
}

fn trainer_with(
    kfac: Option<Options>,
    options: TrainerOptions,
    optimiser: impl Fn(&mut Device, usize) -> Box<dyn Optimiser<Device>>,
) -> Trainer<Device> {
    let mut backend = Device::new();
    let network = network(&mut backend, options.batch.max(64));
    let (blocks, len) = (network.blocks(), network.parameters_len());
    let preconditioner: Box<dyn Preconditioner<Device>> = match kfac {
        Some(kfac) => {
            Box::new(Kronecker::new(&mut backend, blocks, network.statistics_len(), len, kfac).expect("memory"))
        }
        None => Box::new(Identity::default()),
    };
    let optimiser = optimiser(&mut backend, len);
    let batches = Box::new(Cloud { seed: Seed(3), next: 0 });
    Trainer::new(backend, network, preconditioner, optimiser, batches, options).expect("memory")
}

fn parameters(trainer: &mut Trainer<Device>) -> Vec<f64> {
    trainer.parts().1.parameters.clone()
}

fn accuracy(trainer: &mut Trainer<Device>) -> f64 {
    let test = Cloud { seed: Seed(4), next: 0 };
    let evaluation = trainer.evaluate(&test).expect("memory");
    assert_eq!(evaluation.examples, 250);
    evaluation.accuracy
}

#[test]
fn every_form_learns_badly_scaled_data_faster_than_gradient_descent() {
    let run = |kfac: Option<Options>, rate| {
        let mut trainer = trainer(kfac, TrainerOptions::new(32, rate), 0.9);
        for _ in 0..40 {
            trainer.step().expect("finite losses");
        }
        let progress = trainer.settle().expect("finite losses");
        assert_eq!((progress.iteration, progress.samples), (40, 40 * 32));
        (accuracy(&mut trainer), progress.loss)
    };
    // The better of two rates.
    let plain = f64::max(run(None, 0.03).0, run(None, 0.1).0);
    for form in [Form::Inverse, Form::Eigen, Form::Ekfac] {
        for fisher in [Fisher::Empirical, Fisher::True] {
            let (reached, loss) = run(Some(Options { form, fisher, ..Options::default() }), 0.1);
            assert!(reached > plain && loss < 1.0, "{form:?} {fisher:?}: {reached} instead of {plain}, loss {loss}");
        }
    }
}

#[test]
fn micro_batches_are_one_batch() {
    // Without batch normalisation in between, whose statistics are those of a micro-batch.
    let run = |batch: usize, micro_batches: usize| {
        let mut backend = Device::new();
        let specs = [Spec::dense("first", 6), Spec::Tanh, Spec::dense("last", CLASSES as usize)];
        let mut network = Network::build(&mut backend, Extent::flat(INPUTS), &specs, batch).expect("it fits");
        network.initialise(&mut backend, Seed(2), Initialisation::Uniform).expect("memory");
        let len = network.parameters_len();
        let kfac = Kronecker::new(&mut backend, network.blocks(), network.statistics_len(), len, Options::default());
        let sgd = Sgd::new(&mut backend, len, &[], SgdOptions::default()).expect("memory");
        let options = TrainerOptions { micro_batches, ..TrainerOptions::new(batch, 0.1) };
        let batches = Box::new(Cloud { seed: Seed(3), next: 0 });
        let preconditioner = Box::new(kfac.expect("memory"));
        let mut trainer =
            Trainer::new(backend, network, preconditioner, Box::new(sgd), batches, options).expect("memory");
        for _ in 0..5 {
            trainer.step().expect("finite losses");
        }
        let progress = trainer.settle().expect("finite losses");
        (parameters(&mut trainer), progress)
    };
    let ((one, whole), (three, parts)) = (run(24, 1), run(8, 3));
    // G differs: with D = N·dy, each micro-batch has the same D as the whole. So all agrees up to rounding.
    assert_close(&three, &one, 1e-9);
    assert_eq!((whole.iteration, whole.samples), (parts.iteration, parts.samples));
    assert!((whole.loss - parts.loss).abs() < 1e-9 && (whole.accuracy - parts.accuracy).abs() < 1e-12);
}

/// The settings that a trainer's state depends on.
fn any_trainer() -> impl Strategy<Value = (Option<Options>, TrainerOptions, bool)> {
    let form = prop::sample::select(vec![Form::Inverse, Form::Eigen, Form::Ekfac]);
    let fisher = prop::sample::select(vec![Fisher::Empirical, Fisher::True]);
    let refresh = prop::sample::select(vec![Refresh::Immediate, Refresh::Deferred]);
    let kfac =
        (form, fisher, refresh, 1_u64..4, 1_u64..5).prop_map(|(form, fisher, refresh, every, inverse_period)| {
            Options { form, fisher, refresh, factor_period: every, inverse_period, ..Options::default() }
        });
    let options = (1_usize..3, any::<bool>(), any::<bool>()).prop_map(|(micro_batches, adaptive, plateau)| {
        let shape = if plateau { Shape::Plateau(Plateau::new(0.5, 0, 0.9)) } else { Shape::Constant };
        TrainerOptions {
            micro_batches,
            adaptive: adaptive.then(LevenbergMarquardt::default),
            rate: Schedule::new(0.02, shape),
            observe_every: 3,
            ..TrainerOptions::new(16, 0.02)
        }
    });
    (prop::option::of(kfac), options, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_restored_trainer_goes_on_as_if_nothing_had_happened(
        (kfac, options, adam) in any_trainer(),
        before in 0_usize..12,
        after in 1_usize..9,
    ) {
        let make = || {
            let make = |device: &mut Device, len: usize| -> Box<dyn Optimiser<Device>> {
                if adam {
                    Box::new(Adam::new(device, len, &[], AdamOptions::default()).expect("memory"))
                } else {
                    sgd(0.9)(device, len)
                }
            };
            trainer_with(kfac.clone(), options.clone(), make)
        };
        let (mut whole, mut saved, mut restored) = (make(), make(), make());
        for _ in 0..before {
            prop_assert_eq!(whole.step(), saved.step());
        }
        let checkpoint = saved.save().expect("memory");
        restored.restore(&checkpoint).expect("memory");
        for _ in 0..after {
            let step = whole.step();
            prop_assert_eq!(&step, &saved.step());
            prop_assert_eq!(&step, &restored.step());
        }
        let end = whole.save().expect("memory");
        prop_assert_eq!(&end, &saved.save().expect("memory"));
        prop_assert_eq!(&end, &restored.save().expect("memory"));
    }
}

#[test]
fn a_failure_found_while_saving_is_not_forgotten() {
    let mut trainer = trainer(None, TrainerOptions::new(16, f64::MAX), 0.0);
    let error = (0..20).find_map(|_| trainer.step().and_then(|_| trainer.save()).err()).expect("such a rate diverges");
    assert_eq!(trainer.step(), Err(error));
}

#[test]
fn the_average_of_a_contribution_with_itself_changes_nothing() {
    let request = Request { weight: 2.0, running: true, factors: true, optimiser: true };
    let mut one = trainer(Some(Options::default()), TrainerOptions::new(16, 0.1), 0.9);
    for _ in 0..3 {
        one.step().expect("finite losses");
    }
    let mut contribution = Contribution::default();
    one.contribute(&request, &mut contribution);
    let names: Vec<&str> = contribution.segments().iter().map(|segment| segment.name.as_str()).collect();
    assert_eq!(names, ["parameters", "running", "optimiser/0", "factors"]);
    assert_eq!(contribution.iteration, 3);
    let before = one.save().expect("memory");
    one.adopt(&contribution, false);
    assert_eq!(one.save().expect("memory"), before);

    // Another node becomes the same by healing.
    let mut other = trainer(Some(Options::default()), TrainerOptions::new(16, 0.1), 0.9);
    other.step().expect("finite losses");
    other.adopt(&contribution, true);
    let healed = other.save().expect("memory");
    assert_eq!((healed.iteration, &healed.parameters, &healed.running), (3, &before.parameters, &before.running));
    assert_eq!((&healed.factors, &healed.optimiser), (&before.factors, &before.optimiser));

    // Without optimiser state, momentum of the old path is dropped; segments of weight 0 are not taken.
    let mut third = trainer(Some(Options::default()), TrainerOptions::new(16, 0.1), 0.9);
    third.step().expect("finite losses");
    let own = third.save().expect("memory");
    let mut average = Contribution::default();
    one.contribute(&Request::default(), &mut average);
    average.segments_mut()[1].weight = 0.0;
    third.adopt(&average, true);
    let healed = third.save().expect("memory");
    assert_eq!((&healed.parameters, &healed.running), (&before.parameters, &own.running));
    assert!(healed.optimiser[0].iter().all(|&value| value == 0.0));
    assert_eq!(healed.factors, own.factors);
}

#[test]
fn losses_arrive_a_step_later_and_the_host_waits_for_nothing_else() {
    let mut trainer = trainer(Some(Options::default()), TrainerOptions::new(16, 0.1), 0.9);
    let first = trainer.step().expect("finite losses");
    assert!((first.loss - (CLASSES as f64).ln()).abs() < 1.0, "an untrained network knows nothing");
    let mut losses = vec![first.loss];
    for step in 1..10 {
        let before = trainer.parts().0.counters().host_waits;
        let summary = trainer.step().expect("finite losses");
        assert_eq!(summary.samples, 16);
        losses.push(summary.loss);
        let waits = trainer.parts().0.counters().host_waits - before;
        // The loss before; and once, at the step after the refresh, what that refresh has to report.
        assert!(waits <= if step == 1 { 3 } else { 1 }, "{waits} waits in step {step}");
    }
    let last = trainer.settle().expect("finite losses").loss;
    assert_eq!(losses[0], losses[1], "the first step waits for its own loss");
    assert!(losses[1..].windows(2).all(|pair| pair[0] != pair[1]) && last != losses[9]);
}

#[test]
fn a_loss_that_is_no_number_names_step_and_remedy() {
    let mut trainer = trainer(None, TrainerOptions::new(16, f64::MAX), 0.0);
    let error = (0..20).find_map(|_| trainer.step().err()).expect("such a rate diverges");
    assert_eq!(error.kind, ErrorKind::Numeric);
    let says = |part: &str| assert!(error.reason.contains(part), "{}", error.reason);
    says("the loss of step ");
    says("a smaller learning rate");
}

#[test]
fn adaptive_damping_moves_by_the_rule_and_leaves_training_alone() {
    let rule = LevenbergMarquardt::default();
    let options = TrainerOptions { adaptive: Some(rule), ..TrainerOptions::new(32, 0.1) };
    let mut adaptive = trainer(Some(Options::default()), options, 0.0);
    let mut plain = trainer(Some(Options::default()), TrainerOptions::new(32, 0.1), 0.0);
    let mut moves = 0;
    for step in 0..10 {
        adaptive.step().expect("finite losses");
        plain.step().expect("finite losses");
        let damping = adaptive.preconditioner().1.damping();
        let factor = 0.9_f64.powi(5);
        let allowed = [0.003, 0.003 * factor, 0.003 / factor];
        let moved = allowed.iter().any(|value| (value - damping).abs() < 1e-12);
        assert!(if step < 5 { damping == 0.003 } else { moved }, "step {step}: {damping}");
        moves += u32::from(damping != 0.003);
    }
    assert!(moves > 0, "the damping never moved");
    // Up to the first refresh with another damping both are the same, the extra passes notwithstanding.
    let (one, other) = (adaptive.save().expect("memory"), plain.save().expect("memory"));
    assert_eq!((one.parameters, one.running), (other.parameters, other.running));
}

#[test]
fn a_plateau_of_the_training_loss_lowers_the_rate() {
    // The loss cannot fall to a tenth at such a rate: every third observation is one too many.
    let rate = Schedule::new(1e-9, Shape::Plateau(Plateau::new(0.5, 2, 0.9)));
    let options = TrainerOptions { rate, observe_every: 2, ..TrainerOptions::new(16, 0.0) };
    let mut trainer = trainer(None, options, 0.9);
    // The first observation is the best so far; three more without progress are steps 3 to 8.
    for (steps, expected) in [(7, 1e-9), (1, 0.5e-9), (5, 0.5e-9), (1, 0.25e-9)] {
        for _ in 0..steps {
            trainer.step().expect("finite losses");
        }
        trainer.settle().expect("finite losses");
        assert_eq!(trainer.options().rate.value(0), expected);
    }
}

#[test]
fn schedules_drive_rate_and_damping() {
    let damping = Some(Schedule::new(0.1, Shape::Step { at: vec![2], factor: 0.5 }));
    let options = TrainerOptions { damping, ..TrainerOptions::new(16, 0.1) };
    let mut trainer = trainer(Some(Options::default()), options, 0.9);
    for expected in [0.1, 0.1, 0.05] {
        trainer.step().expect("finite losses");
        assert_eq!(trainer.preconditioner().1.damping(), expected);
    }
    assert_eq!(trainer.report().damping, 0.05);
}

#[test]
fn steady_steps_allocate_nothing() {
    for form in [Form::Inverse, Form::Eigen, Form::Ekfac] {
        // The reference eigensolver works in memory of its own: its forms are measured between refreshes.
        let inverse_period = if form == Form::Inverse { 3 } else { 1000 };
        let kfac = Options { form, inverse_period, fisher: Fisher::True, ..Options::default() };
        let options = TrainerOptions { adaptive: Some(LevenbergMarquardt::default()), ..TrainerOptions::new(16, 0.1) };
        let mut trainer = trainer(Some(kfac), options, 0.9);
        let mut step = || {
            trainer.step().expect("finite losses");
        };
        // The backend hands the memory of finished tickets to the next ones, whichever they are: it takes a few rounds of
        // coinciding refreshes and readings of the model until each has grown to the largest.
        (0..60).for_each(|_| step());
        let counted = allocation_counter::measure(|| (0..30).for_each(|_| step()));
        assert_eq!(counted.count_total, 0, "{form:?}: {counted:?}");
    }
}
