//! Running averages: bias correction, refusal, averages among nodes.

use crate::dense::{Device, assert_close};
use kronfleet_core::backend::Backend;
use kronfleet_core::factor::RunningMeans;
use kronfleet_core::matrix::Region;
use kronfleet_core::seed::Seed;
use proptest::prelude::*;

const LEN: usize = 20;

/// Two groups: one of two parts, one of a part; elements 9 and 18.. belong to none.
fn groups() -> Vec<Vec<Region>> {
    vec![vec![Region::matrix(10, 2, 4), Region::matrix(0, 2, 2)], vec![Region::matrix(4, 5, 1)]]
}

fn members(group: usize) -> Vec<usize> {
    if group == 0 { (0..4).chain(10..18).collect() } else { (4..9).collect() }
}

struct Averages {
    backend: Device,
    means: RunningMeans<Device>,
}

impl Averages {
    fn new() -> Self {
        let mut backend = Device::new();
        let means = RunningMeans::new(&mut backend, LEN, &groups()).expect("memory");
        Self { backend, means }
    }

    fn update(&mut self, statistics: &[f64], ema_old: f64, count: usize) {
        self.means.open(&mut self.backend).expect("memory");
        self.backend.upload(statistics, self.means.statistics(), 0).expect("memory");
        self.means.close(&mut self.backend, ema_old, count).expect("memory");
    }

    fn means(&mut self) -> Vec<f64> {
        let mut target = self.backend.allocate(LEN).expect("memory");
        self.means.means(&mut self.backend, &mut target).expect("memory");
        self.backend.fetch(&target, 0..LEN).expect("memory")
    }

    fn state(&mut self) -> (Vec<f64>, Vec<f64>) {
        let values = self.backend.fetch(self.means.values(), 0..LEN).expect("memory");
        (values, self.backend.fetch(self.means.weights(), 0..2).expect("memory"))
    }
}

fn random_statistics(seed: u64, step: u64) -> Vec<f64> {
    let mut random = Seed(seed).derive("statistics", step).random();
    (0..LEN).map(|_| random.normal()).collect()
}

proptest! {
    #[test]
    fn means_are_weighted_by_powers_and_refuse_what_is_not_finite(
        seed in any::<u64>(),
        ema_old in 0.0..0.99_f64,
        poisoned in proptest::collection::vec(proptest::option::of((0..LEN, 0..3_usize)), 0..12),
    ) {
        let mut averages = Averages::new();
        let mut seen: [Vec<Vec<f64>>; 2] = [vec![], vec![]];
        for (step, poison) in poisoned.iter().enumerate() {
            let mut statistics = random_statistics(seed, step as u64);
            if let Some((at, kind)) = *poison {
                statistics[at] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][kind];
            }
            averages.update(&statistics, ema_old, 1);
            for (group, seen) in seen.iter_mut().enumerate() {
                if members(group).iter().all(|&at| statistics[at].is_finite()) {
                    seen.push(statistics.clone());
                }
            }
        }
        let accepted = averages.backend.fetch(averages.means.accepted(), 0..2).expect("memory");
        let means = averages.means();
        let (_, weights) = averages.state();
        for group in 0..2 {
            prop_assert_eq!(accepted[group], seen[group].len() as f64);
            let weight = 1.0 - ema_old.powi(seen[group].len() as i32);
            prop_assert!((weights[group] - weight).abs() <= 1e-14 * 12.0);
            for at in members(group) {
                let powers = seen[group].iter().rev().enumerate();
                let sum: f64 = powers.map(|(age, s)| (1.0 - ema_old) * ema_old.powi(age as i32) * s[at]).sum();
                let expected = if seen[group].is_empty() { 0.0 } else { sum / weight };
                // Rounding of at most 12 updates, magnified by the division by the weight ≥ 0.01.
                prop_assert!((means[at] - expected).abs() <= 1e-11, "{} {expected}", means[at]);
            }
        }
        prop_assert_eq!([means[9], means[18], means[19]], [0.0; 3]);
    }

    #[test]
    fn averaging_values_and_weights_weights_each_node_by_what_it_has_seen(
        seed in any::<u64>(),
        counts in proptest::collection::vec(0..6_usize, 1..5),
    ) {
        let ema_old: f64 = 0.9;
        let mut nodes: Vec<Averages> = counts.iter().map(|_| Averages::new()).collect();
        let mut expected = [0.0; LEN];
        let mut total = 0.0;
        for (node, (averages, &count)) in nodes.iter_mut().zip(&counts).enumerate() {
            for step in 0..count {
                averages.update(&random_statistics(seed, (node * 100 + step) as u64), ema_old, 1);
            }
            let weight = 1.0 - ema_old.powi(count as i32);
            let means = averages.means();
            expected.iter_mut().zip(&means).for_each(|(sum, mean)| *sum += weight * mean);
            total += weight;
        }
        let share = 1.0 / counts.len() as f64;
        let (mut values, mut weights) = (vec![0.0; LEN], vec![0.0; 2]);
        for node in &mut nodes {
            let (own, own_weights) = node.state();
            values.iter_mut().zip(&own).for_each(|(sum, value)| *sum += share * value);
            weights.iter_mut().zip(&own_weights).for_each(|(sum, value)| *sum += share * value);
        }
        let mut target = Averages::new();
        let (of_values, of_weights) = target.means.estimate_mut();
        target.backend.upload(&values, of_values, 0).expect("memory");
        target.backend.upload(&weights, of_weights, 0).expect("memory");
        let means = target.means();
        for at in members(0).into_iter().chain(members(1)) {
            let expected = if total == 0.0 { 0.0 } else { expected[at] / total };
            prop_assert!((means[at] - expected).abs() <= 1e-12);
        }
    }
}

#[test]
fn micro_batches_are_divided_by_their_count() {
    let statistics = random_statistics(1, 0);
    let tripled: Vec<f64> = statistics.iter().map(|value| 3.0 * value).collect();
    let (mut once, mut thrice) = (Averages::new(), Averages::new());
    once.update(&statistics, 0.95, 1);
    thrice.update(&tripled, 0.95, 3);
    assert_close(&thrice.means(), &once.means(), 1e-14);
}

#[test]
fn clearing_forgets_everything() {
    let mut averages = Averages::new();
    averages.update(&random_statistics(1, 0), 0.95, 1);
    averages.means.clear(&mut averages.backend).expect("memory");
    assert_eq!(averages.state(), (vec![0.0; LEN], vec![0.0; 2]));
}
