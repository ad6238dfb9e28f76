//! What is lost.

use super::{Make, short_vector, through, vector};
use crate::check::{Broken, Check};
use kronfleet_core::compress::{CompressError, Compressor, tell};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::{Random, Seed};
use proptest::prelude::*;

/// Draws of a random code.
const DRAWS: usize = 600;

fn wide<S: Scalar>(values: &[S]) -> Vec<f64> {
    values.iter().map(|value| value.wide()).collect()
}

fn squares(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum()
}

/// What is read of `values`, once if nothing random was asked for, else often.
fn draws<S: Scalar>(make: Make<'_, S>, values: &[S], seed: u64) -> Result<Vec<Vec<f64>>, String> {
    let (mut compressor, begin) = (make(), Seed(seed).random());
    let mut random = begin.clone();
    let mut draws = vec![wide(&through(&mut *compressor, values, &mut random)?)];
    while random != begin && draws.len() < DRAWS {
        draws.push(wide(&through(&mut *compressor, values, &mut random)?));
    }
    Ok(draws)
}

/// The mean, and how far from it the mean of all there could be may lie where single ones reach `range`: 6 standard
/// deviations, and Bernstein's correction for what is rare.
fn mean(draws: impl ExactSizeIterator<Item = f64> + Clone, range: f64) -> (f64, f64) {
    let count = draws.len() as f64;
    let mean = draws.clone().sum::<f64>() / count;
    let variance = draws.map(|draw| (draw - mean) * (draw - mean)).sum::<f64>() / count;
    let margin = if count > 1.0 { 6.0 * (variance / count).sqrt() + 12.0 * range / count } else { 0.0 };
    (mean, margin)
}

/// `E‖C(x) − x‖² ≤ (1 − ω)‖x‖²`.
pub fn contraction_is_as_promised<S: Scalar>(make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    check.hold((vector::<S>(), any::<u64>()), |(values, seed)| {
        // Random codes of long vectors would take minutes.
        let values =
            if values.len() > 40 && draws(make, &values[..1], seed)?.len() > 1 { &values[..40] } else { &values };
        let (x, omega) = (wide(values), make().contraction(values.len()));
        if !(0.0..=1.0).contains(&omega) {
            return Err(format!("ω = {omega} is no contraction"));
        }
        if omega == 0.0 {
            return Ok(());
        }
        let lost: Vec<f64> = draws(make, values, seed)?
            .iter()
            .map(|draw| draw.iter().zip(&x).map(|(c, x)| (c - x) * (c - x)).sum())
            .collect();
        let (norm, rounding) = (squares(&x), 4.0 * S::EPSILON * values.len() as f64);
        let (mean, margin) = mean(lost.iter().copied(), norm);
        let most = (1.0 - omega + rounding) * norm + margin;
        if mean <= most {
            Ok(())
        } else {
            Err(format!("‖C(x) − x‖² is {mean:e}, with ω = {omega} at most {most:e}"))
        }
    })
}

/// `E C(x) = x`, where it is promised.
pub fn unbiased_codes_have_no_bias<S: Scalar>(make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    if !make().is_unbiased() {
        return Ok(());
    }
    check.hold((short_vector::<S>(), any::<u64>()), |(values, seed)| {
        let draws = draws(make, &values, seed)?;
        let largest = draws.iter().flatten().fold(squares(&wide(&values)).sqrt(), |most, value| most.max(value.abs()));
        for (index, value) in values.iter().enumerate() {
            let (mean, margin) = mean(draws.iter().map(|draw| draw[index]), largest);
            if (mean - value.wide()).abs() > margin + 4.0 * S::EPSILON * largest {
                return Err(format!("the mean of value {index}, {value}, is {mean} instead; {margin:e} can be chance"));
            }
        }
        Ok(())
    })
}

/// How a vector is told to whoever has another: as [`kronfleet_core::compress::tell`] does.
pub type Tell<S> =
    fn(&mut [S], &[S], &mut dyn Compressor<S>, &mut Random, &mut Vec<u8>, &mut [S]) -> Result<(), CompressError>;

/// With error feedback, what was told and what is kept add up to what was to be told, as rounds tell it.
pub fn feedback_loses_nothing<S: Scalar>(make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    fn shipped<S: Scalar>(
        values: &mut [S],
        base: &[S],
        compressor: &mut dyn Compressor<S>,
        random: &mut Random,
        target: &mut Vec<u8>,
        lost: &mut [S],
    ) -> Result<(), CompressError> {
        tell(values, base, compressor, random, target, lost)
    }
    telling_loses_nothing(shipped, make, check)
}

/// The same of another way to tell it.
pub fn telling_loses_nothing<S: Scalar>(tell: Tell<S>, make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    let vectors = (1_usize..20)
        .prop_flat_map(|len| proptest::collection::vec(proptest::collection::vec(super::value::<S>(), len), 2..8));
    check.hold((vectors, any::<u64>()), |(vectors, seed)| {
        let (mut compressor, mut random) = (make(), Seed(seed).random());
        // The first one is what all know; the others are on the way from there.
        let (base, moves) = vectors.split_first().expect("two at least");
        let len = base.len();
        let (mut lost, mut sum, mut largest) = (vec![S::zero(); len], vec![0.0; len], 0.0_f64);
        for values in moves {
            let mut told: Vec<S> = values.iter().zip(&lost).map(|(&value, &lost)| value + lost).collect();
            let mut bytes = vec![9];
            tell(&mut told, base, &mut *compressor, &mut random, &mut bytes, &mut lost)
                .map_err(|error| error.to_string())?;
            let mut read = vec![S::zero(); len];
            compressor.decode(&bytes[1..], &mut read).map_err(|error| error.to_string())?;
            let read: Vec<S> = base.iter().zip(&read).map(|(&base, &read)| base + read).collect();
            if read != told {
                return Err(format!("said to be read: {told:?}; read: {read:?}"));
            }
            for ((sum, told), value) in sum.iter_mut().zip(&told).zip(values) {
                *sum += told.wide() - value.wide();
                largest = largest.max(told.wide().abs()).max(value.wide().abs());
            }
        }
        for (index, (sum, lost)) in sum.iter().zip(&lost).enumerate() {
            largest = largest.max(lost.wide().abs());
            // Four roundings each time.
            let rounding = 4.0 * vectors.len() as f64 * S::EPSILON * largest;
            if (sum + lost.wide()).abs() > rounding {
                return Err(format!("value {index}: {sum} was told too much, but {lost} is still to be told"));
            }
        }
        Ok(())
    })
}
