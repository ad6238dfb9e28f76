//! How many bytes, and of what.

use super::{Make, encoded, through, vector};
use crate::check::{Broken, Check};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Seed;
use proptest::prelude::*;

/// A message is as long as `sizes` says, and stands behind what was there.
pub fn sizes_are_exact<S: Scalar>(make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    check.hold((vector::<S>(), any::<u64>()), |(values, seed)| {
        let mut compressor = make();
        let sizes = compressor.sizes(values.len());
        let mut bytes = vec![1, 2, 3];
        let result = compressor.encode(&values, &mut Seed(seed).random(), &mut bytes);
        result.map_err(|error| format!("encoding: {error}"))?;
        if bytes.get(..3) != Some(&[1, 2, 3]) {
            return Err("what stood before the message is gone".into());
        }
        let found = bytes.len() - 3;
        if !sizes.contains(&found) || (values.is_empty() && found > 0) {
            return Err(format!("{} values took {found} bytes instead of {sizes:?}", values.len()));
        }
        Ok(())
    })
}

/// Decoding gives a finite value for each, whatever stood there before.
pub fn what_is_decoded_replaces_what_was_there<S: Scalar>(make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    check.hold((vector::<S>(), any::<u64>()), |(values, seed)| {
        let mut compressor = make();
        let bytes = encoded(&mut *compressor, &values, &mut Seed(seed).random())?;
        let mut decoded = [f64::NAN, 5.0].map(|before| vec![S::of(before); values.len()]);
        for decoded in &mut decoded {
            compressor.decode(&bytes, decoded).map_err(|error| format!("decoding: {error}"))?;
        }
        if decoded[0] != decoded[1] || decoded[0].iter().any(|value| !value.is_finite()) {
            return Err(format!("read over NaN: {:?}, over 5: {:?}", decoded[0], decoded[1]));
        }
        Ok(())
    })
}

/// What was encoded earlier leaves no trace.
pub fn equal_calls_give_equal_bytes<S: Scalar>(make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    check.hold((vector::<S>(), vector::<S>(), any::<u64>()), |(values, earlier, seed)| {
        let mut used = make();
        through(&mut *used, &earlier, &mut Seed(1).random())?;
        let [first, second] =
            [used, make()].map(|mut compressor| encoded(&mut *compressor, &values, &mut Seed(seed).random()));
        if first == second { Ok(()) } else { Err(format!("{first:?}, and from a new one {second:?}")) }
    })
}

/// `C(0) = 0`.
pub fn zeros_stay_zeros<S: Scalar>(make: Make<'_, S>, check: &Check) -> Result<(), Broken> {
    check.hold((prop_oneof![0_usize..40, 4090_usize..4100], any::<u64>()), |(len, seed)| {
        let decoded = through(&mut *make(), &vec![S::zero(); len], &mut Seed(seed).random())?;
        match decoded.iter().position(|value| *value != S::zero()) {
            None => Ok(()),
            Some(index) => Err(format!("of {len} zeros, that at {index} became {}", decoded[index])),
        }
    })
}
