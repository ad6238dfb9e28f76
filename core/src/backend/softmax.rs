//! Softmax cross-entropy and drawing from a softmax.

use crate::scalar::Scalar;

/// The shape of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Softmax<S> {
    /// Number of classes.
    pub classes: usize,
    /// Label smoothing: the true class gets `1 − s + s/classes`, every other one `s/classes` (Szegedy et al. 2016).
    pub smoothing: S,
}

/// See [`Backend::softmax_cross_entropy`](super::Backend::softmax_cross_entropy).
///
/// # Panics
/// If a slice is too short or a label is not a class.
pub fn softmax_cross_entropy<S: Scalar>(
    shape: &Softmax<S>,
    batch: usize,
    z: &[S],
    labels: &[S],
    dz: &mut [S],
    loss: &mut [S],
) {
    let classes = shape.classes;
    let share = S::of(1.0 / batch.max(1) as f64);
    let off = shape.smoothing * S::of(1.0 / classes as f64);
    let on = S::of(1.0) - shape.smoothing + off;
    let (mut total, mut correct) = (0.0, 0.0);
    for sample in 0..batch {
        let z = &z[sample * classes..][..classes];
        let dz = &mut dz[sample * classes..][..classes];
        let label = labels[sample].wide() as usize;
        assert!(label < classes, "label {label} of sample {sample} is not one of {classes} classes");
        let largest = z.iter().copied().fold(S::neg_infinity(), S::max);
        let mut sum = S::of(0.0);
        for (p, &z) in dz.iter_mut().zip(z) {
            *p = (z - largest).exp();
            sum += *p;
        }
        let log_sum = sum.ln() + largest;
        let scale = S::of(1.0) / sum;
        for (class, (p, &z)) in dz.iter_mut().zip(z).enumerate() {
            let target = if class == label { on } else { off };
            total += (target * (log_sum - z)).wide();
            *p = (*p * scale - target) * share;
        }
        // The first of equals answers; NaN is never right.
        if z[label] == largest && z[..label].iter().all(|&other| other < largest) {
            correct += 1.0;
        }
    }
    loss[0] = S::of(total / batch.max(1) as f64);
    loss[1] = S::of(correct);
}

/// See [`Backend::sample_labels`](super::Backend::sample_labels).
///
/// # Panics
/// If a slice is too short.
pub fn sample_labels<S: Scalar>(classes: usize, batch: usize, z: &[S], uniform: &[S], labels: &mut [S]) {
    for sample in 0..batch {
        let z = &z[sample * classes..][..classes];
        let largest = z.iter().copied().fold(S::neg_infinity(), S::max);
        let sum: S = z.iter().map(|&z| (z - largest).exp()).sum();
        let mut left = uniform[sample] * sum;
        let mut label = classes - 1;
        for (class, &z) in z.iter().enumerate() {
            left -= (z - largest).exp();
            if left < S::of(0.0) {
                label = class;
                break;
            }
        }
        labels[sample] = S::of(label as f64);
    }
}
