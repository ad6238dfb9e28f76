//! Whether two machines have trained the same network, up to the rounding of single precision.
//!
//! Each machine's losses differ from those of exact arithmetic by rounding alone, so theirs differ from each other by at
//! most the sum of both. What rounding does to this very training is measured here: `r_k = max_{j ≤ k} |ℓ_j − ℓ*_j|`,
//! where `ℓ` are the losses in single precision and `ℓ*` those in double precision, whose own rounding is 2⁻²⁹ of it. To
//! it comes the rounding of the loss itself, a sum over the batch: `batch · ε · ℓ_k`, in case the measured one is small
//! by luck. Hence `|ℓ_k − ℓ'_k| ≤ 2 (r_k + batch · ε · ℓ_k)`.

use kronfleet_freestanding_training::{BATCH, Method, Model, train};
use kronfleet_nalgebra::Nalgebra;
use std::fmt;

/// How far one training was off.
#[derive(Debug)]
pub(crate) struct Agreement {
    form: &'static str,
    steps: usize,
    worst: Deviation,
}

#[derive(Clone, Copy, Debug)]
struct Deviation {
    step: usize,
    here: f64,
    there: f64,
    tolerance: f64,
}

impl Deviation {
    /// Not a number where a loss is not.
    fn of_tolerance(&self) -> f64 {
        (self.here - self.there).abs() / self.tolerance
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { form, steps, worst } = self;
        let Deviation { step, here, there, tolerance } = worst;
        let off = (here - there).abs();
        if off == 0.0 {
            return write!(f, "{form} form: {steps} losses, down to {here:.4}, are equal to the bit");
        }
        write!(
            f,
            "{form} form: {steps} losses agree; at step {step} they differ by {off:.1e} of {tolerance:.1e} allowed"
        )
    }
}

/// What every training on the other machine deviates by, from its lines `loss FORM STEP VALUE`.
pub(crate) fn compare(text: &str) -> Result<Vec<Agreement>, String> {
    Method::KFAC.into_iter().map(|method| agreement(&losses(text, method.name())?, method)).collect()
}

/// The losses of one training, by step.
fn losses(text: &str, form: &str) -> Result<Vec<f64>, String> {
    let mut losses = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["loss", of, step, value] = words[..] else { continue };
        if of != form {
            continue;
        }
        let value = value.parse().map_err(|_| format!("not a loss: {line:?}"))?;
        if step.parse() != Ok(losses.len()) {
            return Err(format!("expected step {} of the {form} form: {line:?}", losses.len()));
        }
        losses.push(value);
    }
    if losses.is_empty() {
        return Err(format!("no loss of the {form} form among {} lines", text.lines().count()));
    }
    Ok(losses)
}

fn agreement(there: &[f64], method: Method) -> Result<Agreement, String> {
    let steps = there.len();
    let here = train(Nalgebra::<f32>::new(), Model::Dense, method, steps)?;
    let exact = train(Nalgebra::<f64>::new(), Model::Dense, method, steps)?;
    let mut rounding: f64 = 0.0;
    let deviations = (0..steps).map(|step| {
        rounding = rounding.max((here[step] - exact[step]).abs());
        let evaluation = BATCH as f64 * f64::from(f32::EPSILON) * here[step];
        Deviation { step, here: here[step], there: there[step], tolerance: 2.0 * (rounding + evaluation) }
    });
    let worst = deviations.max_by(|one, other| one.of_tolerance().total_cmp(&other.of_tolerance()));
    let worst = worst.ok_or("no step was made")?;
    let form = method.name();
    if worst.of_tolerance() <= 1.0 {
        return Ok(Agreement { form, steps, worst });
    }
    let Deviation { step, here, there, tolerance } = worst;
    Err(format!(
        "{form} form: step {step} has a loss of {there} there and of {here} here; rounding explains {tolerance:.1e}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: usize = 10;

    const INVERSE: Method = Method::KFAC[0];
    const EIGEN: Method = Method::KFAC[1];

    /// What a machine prints that takes `by` for the inverse form.
    fn printed(by: Method, alter: impl Fn(usize, f64) -> f64) -> String {
        let mut text = String::from("something else\n");
        for method in Method::KFAC {
            let taken = if method == INVERSE { by } else { method };
            let losses = train(Nalgebra::<f32>::new(), Model::Dense, taken, STEPS).expect("small and harmless");
            for (step, &loss) in losses.iter().enumerate() {
                text += &format!("loss {} {step} {:e}\n", method.name(), alter(step, loss));
            }
        }
        text
    }

    #[test]
    fn the_same_training_agrees() {
        let agreements = compare(&printed(INVERSE, |_, loss| loss)).expect("equal to the bit");
        assert_eq!(agreements.len(), Method::KFAC.len());
        assert!(agreements.iter().all(|agreement| agreement.steps == STEPS && agreement.worst.of_tolerance() == 0.0));
    }

    #[test]
    fn one_unit_in_the_last_place_of_the_loss_agrees() {
        let text = printed(INVERSE, |_, loss| loss * (1.0 + f64::from(f32::EPSILON)));
        compare(&text).expect("the evaluation of the loss alone explains more");
    }

    #[test]
    fn other_mathematics_is_rejected() {
        let reason = compare(&printed(Method::Plain, |_, loss| loss)).expect_err("no preconditioner");
        assert!(reason.contains("inverse form: step"), "{reason}");
        let reason = compare(&printed(EIGEN, |_, loss| loss)).expect_err("the other form");
        assert!(reason.contains("inverse form: step"), "{reason}");
    }

    #[test]
    fn a_slightly_wrong_loss_is_rejected() {
        let wrong = |step, loss| if step + 1 == STEPS { loss * 1.001 } else { loss };
        let reason = compare(&printed(INVERSE, wrong)).expect_err("a thousandth is not rounding");
        assert!(reason.contains("step 9"), "{reason}");
        compare(&printed(INVERSE, |_, _| f64::NAN)).expect_err("no number");
    }

    #[test]
    fn missing_and_disordered_losses_are_rejected() {
        let reason = compare("").expect_err("nothing was printed");
        assert!(reason.contains("no loss of the inverse form"), "{reason}");
        let text = printed(INVERSE, |_, loss| loss);
        let without = text.replace("loss eigen 4 ", "lost ");
        let reason = compare(&without).expect_err("step 4 is missing");
        assert!(reason.contains("expected step 4 of the eigen form"), "{reason}");
    }
}
