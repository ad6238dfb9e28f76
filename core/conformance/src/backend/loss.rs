//! Softmax cross-entropy and labels drawn from a softmax.

use super::bound::{Expected, Near, unit};
use super::case::{Case, match_oracle};
use super::data::{POISON, Values, done, fetch, upload, values, whole};
use crate::check::{Broken, Check};
use kronfleet_core::backend::{Backend, Softmax};
use kronfleet_core::scalar::Scalar;
use proptest::collection::vec;
use proptest::prelude::*;

/// Mean loss with label smoothing, number of correct answers (the first of equals answers) and gradient, also for
/// large logits.
pub fn cross_entropy_matches_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    match_oracle(make, check, losses())
}

/// A label is drawn where the uniform number falls among the cumulative probabilities.
pub fn sampled_labels_match_the_oracle<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    let cases = (1..=12_usize, 0..=20_usize)
        .prop_flat_map(|(classes, batch)| (Just(classes), values(classes * batch), vec(0.0..1.0_f64, batch)));
    check.hold(cases, |(classes, z, uniform)| {
        let mut backend = make();
        let mut labels = upload(&mut backend, &vec![POISON; uniform.len()]);
        let device_z = upload(&mut backend, &z.0);
        // Rounding to the backend's scalars must not reach 1.
        let uniform: Vec<f64> = uniform.iter().map(|u| u * 0.999).collect();
        let device_uniform = upload(&mut backend, &uniform);
        done(backend.sample_labels(classes, uniform.len(), &device_z, &device_uniform, &mut labels));
        for (sample, label) in fetch(&mut backend, &labels).into_iter().enumerate() {
            let label = label.wide();
            let row: Vec<f64> = z.0[sample * classes..][..classes].iter().map(|&z| B::Scalar::of(z).wide()).collect();
            let total: f64 = row.iter().map(|z| z.exp()).sum();
            let drawn = label as usize;
            if drawn >= classes || drawn as f64 != label {
                return Err(format!("label {label} of sample {sample} is not one of {classes} classes"));
            }
            let below = row[..drawn].iter().map(|z| z.exp()).sum::<f64>() / total;
            let above = below + row[drawn].exp() / total;
            let u = B::Scalar::of(uniform[sample]).wide();
            // Every exponential and every sum may be off.
            let slack = unit::<B::Scalar>(2 * classes + 16);
            if u < below - slack || u > above + slack {
                return Err(format!("label {label} of sample {sample} covers {below} to {above}, not {u}"));
            }
        }
        Ok(())
    })
}

/// One loss.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    classes: usize,
    batch: usize,
    smoothing: f64,
    z: Values,
    labels: Vec<usize>,
}

pub(crate) fn losses() -> impl Strategy<Value = Loss> + Clone {
    (1..=12_usize, 0..=20_usize).prop_flat_map(|(classes, batch)| {
        let smoothing = prop::sample::select(vec![0.0, 0.1]);
        let len = classes * batch;
        let z = prop_oneof![values(len).boxed(), whole(len).boxed()];
        (smoothing, z, 0..4_i32, vec(0..classes, batch)).prop_map(move |(smoothing, mut z, stretch, labels)| {
            z.0.iter_mut().for_each(|z| *z *= 10.0_f64.powi(stretch));
            Loss { classes, batch, smoothing, z, labels }
        })
    })
}

impl Case for Loss {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<Vec<B::Scalar>> {
        let shape = Softmax { classes: self.classes, smoothing: B::Scalar::of(self.smoothing) };
        let z = upload(backend, &self.z.0);
        let labels: Vec<f64> = self.labels.iter().map(|&label| label as f64).collect();
        let labels = upload(backend, &labels);
        let mut dz = upload(backend, &vec![POISON; self.z.0.len()]);
        let mut loss = upload(backend, &[POISON; 3]);
        done(backend.softmax_cross_entropy(&shape, self.batch, &z, &labels, &mut dz, &mut loss));
        vec![fetch(backend, &dz), fetch(backend, &loss)]
    }

    fn expected<S: Scalar>(&self) -> Vec<Expected> {
        let (classes, batch) = (self.classes, self.batch.max(1) as f64);
        let smoothing = S::of(self.smoothing).wide();
        let mut dz = vec![];
        let (mut loss, mut size, mut correct) = (0.0, 0.0, 0);
        for (sample, &label) in self.labels.iter().enumerate() {
            let z: Vec<f64> = self.z.0[sample * classes..][..classes].iter().map(|&z| S::of(z).wide()).collect();
            let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let reach = z.iter().map(|z| z.abs()).fold(1.0, f64::max);
            let total: f64 = z.iter().map(|z| (z - largest).exp()).sum();
            for (class, z) in z.iter().enumerate() {
                let target = smoothing / classes as f64 + if class == label { 1.0 - smoothing } else { 0.0 };
                let p = (z - largest).exp() / total;
                loss += target * (total.ln() + largest - z) / batch;
                size += target * 2.0 * (reach + total.ln()) / batch;
                // The argument of the exponential is off by ε·|z|, which the exponential makes relative.
                let near =
                    Near::rounded::<S>((p - target) / batch, classes + 8, (p * (1.0 + 2.0 * reach) + target) / batch);
                dz.push(near);
            }
            correct += u32::from(z.iter().position(|&z| z == largest) == Some(label));
        }
        let loss = Near::rounded::<S>(loss, self.batch + 2 * classes + 8, size);
        let loss = vec![loss, Near::exact(correct.into()), Near::exact(S::of(POISON).wide())];
        vec![Expected { name: "dz", content: dz }, Expected { name: "loss", content: loss }]
    }
}
