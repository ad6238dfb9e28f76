//! Steps that have to end early, against whole ones.

use crate::dense::Device;
use crate::trainer::{CLASSES, Cloud, INPUTS};
use kronfleet_core::backend::Extent;
use kronfleet_core::network::{Initialisation, Network, ShortcutSpec, Spec};
use kronfleet_core::optimiser::{Adam, AdamOptions, Optimiser, Sgd, SgdOptions, WeightDecay, decayed};
use kronfleet_core::participant::Training;
use kronfleet_core::preconditioner::{Eva, EvaOptions, Fisher, Form, Identity, Kronecker, Options, Preconditioner};
use kronfleet_core::seed::Seed;
use kronfleet_core::trainer::{Trainer, TrainerOptions};
use proptest::prelude::*;

/// What decides how a trainer trains.
#[derive(Clone, Debug)]
struct Setup {
    method: u8,
    adam: bool,
    micro_batches: usize,
    residual: bool,
}

fn setups() -> impl Strategy<Value = Setup> {
    (0_u8..6, any::<bool>(), 1_usize..3, any::<bool>()).prop_map(|(method, adam, micro_batches, residual)| Setup {
        method,
        adam,
        micro_batches,
        residual,
    })
}

fn trainer(setup: &Setup) -> Trainer<Device> {
    let mut device = Device::new();
    let mut specs = vec![Spec::dense("first", 6), Spec::batch_norm("norm"), Spec::Tanh];
    if setup.residual {
        let body = vec![Spec::dense("inner", 5), Spec::Tanh, Spec::dense("outer", 4)];
        specs.push(Spec::residual("block", body, ShortcutSpec::Projection(vec![Spec::dense("projection", 4)])));
    } else {
        specs.extend([Spec::dense("second", 4), Spec::Tanh]);
    }
    specs.push(Spec::dense("last", CLASSES as usize));
    let mut network = Network::build(&mut device, Extent::flat(INPUTS), &specs, 8).expect("it fits");
    network.initialise(&mut device, Seed(2), Initialisation::Uniform).expect("memory");
    let (statistics, len) = (network.statistics_len(), network.parameters_len());
    let kfac = |form, fisher| Options { form, fisher, inverse_period: 2, factor_period: 1, ..Options::default() };
    let kfac = match setup.method {
        1 => Some(kfac(Form::Inverse, Fisher::Empirical)),
        2 => Some(kfac(Form::Eigen, Fisher::Empirical)),
        3 => Some(kfac(Form::Ekfac, Fisher::Empirical)),
        4 => Some(kfac(Form::Inverse, Fisher::True)),
        _ => None,
    };
    let preconditioner: Box<dyn Preconditioner<Device>> = match kfac {
        Some(options) => {
            Box::new(Kronecker::new(&mut device, network.blocks(), statistics, len, options).expect("memory"))
        }
        None if setup.method == 0 => Box::new(Identity::default()),
        None => Box::new(Eva::new(&mut device, network.blocks(), len, &EvaOptions::default()).expect("memory")),
    };
    let regions = decayed(network.table(), true);
    let weight_decay = WeightDecay::Coupled(0.01);
    let optimiser: Box<dyn Optimiser<Device>> = if setup.adam {
        let options = AdamOptions { weight_decay, ..AdamOptions::default() };
        Box::new(Adam::new(&mut device, len, &regions, options).expect("memory"))
    } else {
        let options = SgdOptions { momentum: 0.9, weight_decay, ..SgdOptions::default() };
        Box::new(Sgd::new(&mut device, len, &regions, options).expect("memory"))
    };
    let options = TrainerOptions { micro_batches: setup.micro_batches, ..TrainerOptions::new(8, 0.05) };
    let batches = Box::new(Cloud { seed: Seed(3), next: 0 });
    Trainer::new(device, network, preconditioner, optimiser, batches, options).expect("memory")
}

/// Running statistics, and how many steps the optimiser has made.
fn passed(trainer: &mut Trainer<Device>) -> (Vec<f64>, u64) {
    let checkpoint = trainer.save().expect("finite losses");
    (checkpoint.running, checkpoint.optimiser_steps)
}

/// Parameters, then the optimiser's state.
fn state(trainer: &mut Trainer<Device>) -> Vec<Vec<f64>> {
    let checkpoint = trainer.save().expect("finite losses");
    core::iter::once(checkpoint.parameters).chain(checkpoint.optimiser).collect()
}

/// A step of which so many questions whether it goes on are answered with yes; answers how many layers are missing.
fn step(trainer: &mut Trainer<Device>, yes: usize, whole: bool) -> usize {
    let (mut asked, mut last) = (0, 0.0);
    let mut goes_on = |done: f64| {
        assert!(done > last && done <= 1.0, "{done} after {last}");
        last = done;
        asked += 1;
        asked <= yes
    };
    let summary = trainer.step_while(&mut goes_on, whole).expect("finite losses");
    assert!(yes < 99 || (last - 1.0).abs() < 1e-12, "at its end a step is done: {last}");
    summary.missing as usize
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Layers that are missing are as they were, to the bit, with the optimiser's state of them; the others have made a step.
    #[test]
    fn what_was_not_reached_stays(setup in setups(), yes in prop::collection::vec(0_usize..7, 1..6), whole in any::<bool>()) {
        let mut trainer = trainer(&setup);
        let layers = trainer.layers();
        prop_assert_eq!(layers.last().map(|layer| layer.end), Some(state(&mut trainer)[0].len()));
        prop_assert!(layers[0].start == 0 && layers.windows(2).all(|pair| pair[0].end == pair[1].start));
        for yes in yes {
            let before = state(&mut trainer);
            let passed_before = passed(&mut trainer);
            let missing = step(&mut trainer, yes, whole);
            let after = state(&mut trainer);
            prop_assert_eq!(passed(&mut trainer) == passed_before, missing == layers.len());
            prop_assert!(!whole || missing == 0 || missing == layers.len());
            prop_assert!(yes > 0 || missing == layers.len());
            prop_assert!(yes <= layers.len() || missing == 0);
            if !setup.residual && !whole {
                // The first question is asked before the backward pass.
                prop_assert_eq!(missing, layers.len().min(layers.len() + 1 - yes.min(layers.len() + 1)));
            }
            for (before, after) in before.iter().zip(&after) {
                for (number, layer) in layers.iter().enumerate() {
                    let same = before[layer.clone()] == after[layer.clone()];
                    prop_assert_eq!(same, number < missing, "layer {} of which {} are missing", number, missing);
                }
            }
        }
    }

    /// With plain gradients, layers that were reached are those of a whole step, to the bit.
    #[test]
    fn what_was_reached_is_as_in_a_whole_step(adam in any::<bool>(), micro_batches in 1_usize..3, residual in any::<bool>(), yes in 0_usize..7) {
        let setup = Setup { method: 0, adam, micro_batches, residual };
        let [mut whole, mut partial] = [trainer(&setup), trainer(&setup)];
        whole.step().expect("finite losses");
        let missing = step(&mut partial, yes, false);
        let layers = partial.layers();
        let from = layers.get(missing).map_or(layers[layers.len() - 1].end, |layer| layer.start);
        for (whole, partial) in state(&mut whole).iter().zip(&state(&mut partial)) {
            prop_assert_eq!(&whole[from..], &partial[from..]);
        }
    }

    /// A step for which there is time is one that nobody has asked to end.
    #[test]
    fn a_step_in_time_is_a_step(setup in setups()) {
        let [mut plain, mut timed] = [trainer(&setup), trainer(&setup)];
        for _ in 0..4 {
            plain.step().expect("finite losses");
            prop_assert_eq!(step(&mut timed, 99, false), 0);
            prop_assert_eq!(plain.save(), timed.save());
        }
    }

    /// Running averages of layers that were not reached take nothing in; those of the others do.
    #[test]
    fn factors_of_what_was_not_reached_stay(setup in setups(), yes in 1_usize..5) {
        let setup = Setup { method: 1 + setup.method % 4, ..setup };
        let mut trainer = trainer(&setup);
        trainer.step().expect("finite losses");
        let before = trainer.save().expect("finite losses").factors;
        let missing = step(&mut trainer, yes, false);
        let after = trainer.save().expect("finite losses").factors;
        for (number, (before, after)) in before[1].iter().zip(&after[1]).enumerate() {
            prop_assert_eq!(before == after, number < missing, "block {}", number);
        }
        prop_assert_eq!(missing == trainer.layers().len(), before == after);
    }

    /// Who goes on from what was saved between steps that ended early goes on as if nothing had happened.
    #[test]
    fn restored_trainers_go_on(setup in setups(), yes in prop::collection::vec(0_usize..7, 2..7)) {
        let mut trainer_ = trainer(&setup);
        let (first, rest) = yes.split_at(yes.len() / 2);
        for &yes in first {
            step(&mut trainer_, yes, false);
        }
        let saved = trainer_.save().expect("finite losses");
        let mut restored = trainer(&setup);
        restored.restore(&saved).expect("memory");
        for &yes in rest {
            prop_assert_eq!(step(&mut trainer_, yes, false), step(&mut restored, yes, false));
            prop_assert_eq!(trainer_.save(), restored.save());
        }
    }
}
