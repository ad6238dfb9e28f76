//! Optimisers against the formulas of their papers, element by element.

use crate::dense::{Device, assert_close, upload};
use kronfleet_core::backend::Backend;
use kronfleet_core::layer::{Parameter, ParameterKind};
use kronfleet_core::matrix::Region;
use kronfleet_core::optimiser::{
    Adam, AdamOptions, Optimiser, QuasiGlobal, QuasiGlobalOptions, Sgd, SgdOptions, WeightDecay, decayed,
};
use kronfleet_core::seed::Seed;
use proptest::prelude::*;

const LEN: usize = 7;

/// Elements 2..5 feel weight decay.
const DECAYED: Region = Region::vector(2, 3);

fn decays(at: usize) -> bool {
    (2..5).contains(&at)
}

fn directions(seed: u64) -> Vec<Vec<f64>> {
    let mut random = Seed(seed).random();
    (0..6).map(|_| (0..LEN).map(|_| random.normal()).collect()).collect()
}

/// Runs an optimiser from parameters 1, 2, … along random directions.
fn run(make: impl FnOnce(&mut Device) -> Box<dyn Optimiser<Device>>, rate: f64, directions: &[Vec<f64>]) -> Vec<f64> {
    let mut backend = Device::new();
    let mut optimiser = make(&mut backend);
    let mut parameters = upload(&mut backend, &start());
    for direction in directions {
        let direction = upload(&mut backend, direction);
        optimiser.step(&mut backend, rate, &direction, &mut parameters).expect("memory");
    }
    assert_eq!(optimiser.steps(), directions.len() as u64);
    parameters
}

fn start() -> Vec<f64> {
    (0..LEN).map(|at| at as f64 + 1.0).collect()
}

fn weight_decay() -> impl Strategy<Value = WeightDecay> {
    prop_oneof![
        Just(WeightDecay::None),
        (0.0..0.5_f64).prop_map(WeightDecay::Coupled),
        (0.0..0.5_f64).prop_map(WeightDecay::Decoupled),
    ]
}

fn coupled(decay: WeightDecay, at: usize) -> f64 {
    if let (WeightDecay::Coupled(decay), true) = (decay, decays(at)) { decay } else { 0.0 }
}

fn decoupled(decay: WeightDecay, at: usize) -> f64 {
    if let (WeightDecay::Decoupled(decay), true) = (decay, decays(at)) { decay } else { 0.0 }
}

/// How the paper's momentum is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Published {
    Right,
    /// Of a node's own steps, whatever neighbours make of its model.
    Local,
    /// `m ← μm + (w − w⁺)/η`.
    Whole,
    /// `m ← (1 − μ)m + μ(w − w⁺)/η`.
    Swapped,
    /// `m ← μm + (1 − μ)(w − w⁺)`.
    Unscaled,
    /// A step late.
    Late,
}

/// Whether quasi-global momentum is the formula, read so, along random directions with these rates, where neighbours move the
/// model as far as `moved` after each step.
fn is_quasi_global(
    seed: u64,
    rates: &[f64],
    options: QuasiGlobalOptions,
    moved: f64,
    published: Published,
) -> Result<(), String> {
    let QuasiGlobalOptions { momentum, nesterov, weight_decay: decay } = options;
    let (directions, mixed) = (directions(seed), directions(!seed));
    let mut backend = Device::new();
    let mut optimiser = QuasiGlobal::new(&mut backend, LEN, &[DECAYED], options).expect("memory");
    let mut parameters = upload(&mut backend, &start());
    let (mut w, mut m, mut waiting) = (start(), [0.0; LEN], [0.0; LEN]);
    for ((direction, mixed), rate) in directions.iter().zip(&mixed).zip(rates) {
        let device = upload(&mut backend, direction);
        optimiser.step(&mut backend, *rate, &device, &mut parameters).expect("memory");
        // The paper's order: a step, an exchange, the momentum of both.
        for at in 0..LEN {
            let before = w[at];
            let d = direction[at] + coupled(decay, at) * w[at];
            let ahead = momentum * m[at] + d;
            let step = if nesterov { d + momentum * ahead } else { ahead };
            w[at] -= rate * (step + decoupled(decay, at) * w[at]);
            if (parameters[at] - w[at]).abs() > 1e-10 * (1.0 + w[at].abs()) {
                return Err(format!("{parameters:?}, not {w:?}"));
            }
            let local = before - w[at];
            w[at] += moved * mixed[at];
            parameters[at] += moved * mixed[at];
            let gone = (before - w[at]) / rate;
            let next = match published {
                Published::Right | Published::Late => momentum * m[at] + (1.0 - momentum) * gone,
                Published::Local => momentum * m[at] + (1.0 - momentum) * local / rate,
                Published::Whole => momentum * m[at] + gone,
                Published::Swapped => (1.0 - momentum) * m[at] + momentum * gone,
                Published::Unscaled => momentum * m[at] + (1.0 - momentum) * gone * rate,
            };
            m[at] = if published == Published::Late { core::mem::replace(&mut waiting[at], next) } else { next };
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn sgd_is_its_formula(
        seed in any::<u64>(), rate in 0.001..0.5_f64, momentum in 0.0..0.99_f64, nesterov in any::<bool>(),
        decay in weight_decay(),
    ) {
        let directions = directions(seed);
        let options = SgdOptions { momentum, nesterov, weight_decay: decay };
        let make = |backend: &mut Device| -> Box<dyn Optimiser<Device>> {
            Box::new(Sgd::new(backend, LEN, &[DECAYED], options).expect("memory"))
        };
        let actual = run(make, rate, &directions);
        let mut w = start();
        let mut m = [0.0; LEN];
        for direction in &directions {
            for at in 0..LEN {
                let d = direction[at] + coupled(decay, at) * w[at];
                m[at] = momentum * m[at] + d;
                let step = if nesterov { d + momentum * m[at] } else { m[at] };
                w[at] -= rate * (step + decoupled(decay, at) * w[at]);
            }
        }
        assert_close(&actual, &w, 1e-13);
    }

    #[test]
    fn adam_is_its_formula(
        seed in any::<u64>(), rate in 0.001..0.5_f64, first in 0.0..0.99_f64, second in 0.0..0.999_f64,
        decay in weight_decay(),
    ) {
        let directions = directions(seed);
        let options = AdamOptions { betas: [first, second], epsilon: 1e-8, weight_decay: decay };
        let make = |backend: &mut Device| -> Box<dyn Optimiser<Device>> {
            Box::new(Adam::new(backend, LEN, &[DECAYED], options).expect("memory"))
        };
        let actual = run(make, rate, &directions);
        let mut w = start();
        let (mut m, mut v) = ([0.0; LEN], [0.0; LEN]);
        for (t, direction) in (1..).zip(&directions) {
            for at in 0..LEN {
                let d = direction[at] + coupled(decay, at) * w[at];
                m[at] = first * m[at] + (1.0 - first) * d;
                v[at] = second * v[at] + (1.0 - second) * d * d;
                let (mean, square) = (m[at] / (1.0 - first.powi(t)), v[at] / (1.0 - second.powi(t)));
                w[at] -= rate * (mean / (square.sqrt() + options.epsilon) + decoupled(decay, at) * w[at]);
            }
        }
        assert_close(&actual, &w, 1e-11);
    }

    #[test]
    fn quasi_global_momentum_is_its_formula_whatever_neighbours_do(
        seed in any::<u64>(), rates in proptest::collection::vec(0.001..0.5_f64, 6), momentum in 0.1..0.99_f64,
        nesterov in any::<bool>(), weight_decay in weight_decay(), moved in 0.1..2.0_f64,
    ) {
        let options = QuasiGlobalOptions { momentum, nesterov, weight_decay };
        let is = |published| is_quasi_global(seed, &rates, options, moved, published);
        prop_assert_eq!(is(Published::Right), Ok(()));
        for misread in [Published::Local, Published::Whole, Published::Swapped, Published::Unscaled, Published::Late] {
            prop_assert!(is(misread).is_err(), "{:?}", misread);
        }
    }

    #[test]
    fn quasi_global_momentum_without_neighbours_is_its_formula(
        seed in any::<u64>(), rates in proptest::collection::vec(0.001..0.5_f64, 6), momentum in 0.0..0.99_f64,
        nesterov in any::<bool>(), weight_decay in weight_decay(),
    ) {
        let options = QuasiGlobalOptions { momentum, nesterov, weight_decay };
        prop_assert_eq!(is_quasi_global(seed, &rates, options, 0.0, Published::Right), Ok(()));
    }

    #[test]
    fn state_moved_to_another_optimiser_goes_on(seed in any::<u64>(), kind in 0..3_u8, cut in 0..6_usize) {
        let directions = directions(seed);
        let make = |backend: &mut Device| -> Box<dyn Optimiser<Device>> {
            match kind {
                0 => Box::new(Adam::new(backend, LEN, &[DECAYED], AdamOptions::default()).expect("memory")),
                1 => {
                    let options = SgdOptions { momentum: 0.9, ..SgdOptions::default() };
                    Box::new(Sgd::new(backend, LEN, &[DECAYED], options).expect("memory"))
                }
                _ => {
                    let options = QuasiGlobalOptions { momentum: 0.9, ..QuasiGlobalOptions::default() };
                    Box::new(QuasiGlobal::new(backend, LEN, &[DECAYED], options).expect("memory"))
                }
            }
        };
        let whole = run(make, 0.1, &directions);
        let mut backend = Device::new();
        let (mut one, mut other) = (make(&mut backend), make(&mut backend));
        let mut parameters = upload(&mut backend, &start());
        for (step, direction) in directions.iter().enumerate() {
            let direction = upload(&mut backend, direction);
            if step == cut {
                for (target, source) in other.state_mut().iter_mut().zip(one.state()) {
                    target.copy_from_slice(source);
                }
                other.resume(one.steps());
            }
            let optimiser = if step < cut { &mut one } else { &mut other };
            optimiser.step(&mut backend, 0.1, &direction, &mut parameters).expect("memory");
        }
        prop_assert_eq!(parameters, whole);
        backend.sync().expect("memory");
    }
}

#[test]
fn only_weights_decay_unless_told_otherwise() {
    let parameter =
        |name: &str, offset, kind| Parameter { name: name.to_string(), region: Region::vector(offset, 1), kind };
    let table = [
        parameter("weight", 0, ParameterKind::Convolution { channels: 1, kernel: [1, 1] }),
        parameter("bias", 1, ParameterKind::Bias { fan_in: 1 }),
        parameter("bn.weight", 2, ParameterKind::Scale),
        parameter("bn.bias", 3, ParameterKind::Shift),
    ];
    assert_eq!(decayed(&table, false), [Region::vector(0, 1)]);
    assert_eq!(decayed(&table, true).len(), 4);
}
