//! What must be refused.

use super::{Make, encoded, vector};
use crate::check::{Broken, Check};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Seed;
use proptest::prelude::*;

/// Values that are not finite are an error, and nothing is written.
pub fn what_is_not_finite_is_refused<S: Scalar>(make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    let wrong = prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)];
    check.hold((vector::<S>(), wrong, any::<prop::sample::Index>()), |(mut values, wrong, place)| {
        if values.is_empty() {
            return Ok(());
        }
        let place = place.index(values.len());
        values[place] = S::of(wrong);
        let mut bytes = vec![7];
        match make().encode(&values, &mut Seed(1).random(), &mut bytes) {
            Ok(()) => Err(format!("{wrong} at {place} of {} was encoded", values.len())),
            Err(_) if bytes != [7] => Err(format!("{} bytes were left behind", bytes.len() - 1)),
            Err(_) => Ok(()),
        }
    })
}

/// A message that lost its end, or has more behind it, is an error.
pub fn bytes_cut_or_grown_are_errors<S: Scalar>(make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    let cut = (vector::<S>(), any::<prop::sample::Index>(), any::<u8>(), any::<u64>());
    check.hold(cut, |(values, place, extra, seed)| {
        let mut compressor = make();
        let mut bytes = encoded(&mut *compressor, &values, &mut Seed(seed).random())?;
        let mut decoded = values.clone();
        if !bytes.is_empty() {
            for len in [place.index(bytes.len()), bytes.len() - 1] {
                if compressor.decode(&bytes[..len], &mut decoded).is_ok() {
                    return Err(format!("{len} of {} bytes were read", bytes.len()));
                }
            }
        }
        bytes.push(extra);
        match compressor.decode(&bytes, &mut decoded) {
            Ok(()) => Err(format!("{} bytes were read, one of which is not of the message", bytes.len())),
            Err(_) => Ok(()),
        }
    })
}

/// Whatever the bytes, they are finite values or an error.
pub fn arbitrary_bytes_are_finite_values_or_errors<S: Scalar>(make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    let byte = prop_oneof![1 => Just(0), 1 => Just(0xff), 2 => any::<u8>()];
    let cases = (0_usize..20, proptest::collection::vec(byte, 200), any::<prop::sample::Index>());
    let check = Check { cases: 4 * check.cases, ..*check };
    check.hold(cases, |(len, bytes, place)| {
        let mut compressor = make();
        let sizes = compressor.sizes(len);
        let size = sizes.start() + place.index(sizes.end() - sizes.start() + 1);
        let mut decoded = vec![S::zero(); len];
        match compressor.decode(&bytes[..size.min(bytes.len())], &mut decoded) {
            Ok(()) if decoded.iter().any(|value| !value.is_finite()) => Err(format!("{decoded:?} was read")),
            _ => Ok(()),
        }
    })
}
