//! A compressor that is wrong on purpose.

use kronfleet_core::compress::{CompressError, Compressor, Kept, RandomK, TopK};
use kronfleet_core::scalar::Scalar;
use kronfleet_core::seed::Random;
use std::ops::RangeInclusive;

macro_rules! faults {
    ($($(#[doc = $what:literal])+ $fault:ident => $law:ident,)*) => {
        /// One mistake.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum Fault {
            /// None at all.
            #[default]
            None,
            $($(#[doc = $what])+ $fault,)*
        }

        impl Fault {
            /// Every mistake, with the name of the first law that does not hold then.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$fault, stringify!($law)),)*];
        }
    };
}

faults! {
    /// The bytes that values take are estimated.
    SizeEstimated => sizes_are_exact,
    /// The message replaces what stood before it.
    TargetOverwritten => sizes_are_exact,
    /// What is read is added to what was there.
    DecodingAdds => what_is_decoded_replaces_what_was_there,
    /// Values that were not sent keep what was there.
    OthersKept => what_is_decoded_replaces_what_was_there,
    /// The second message of a compressor differs from the first.
    EarlierRemembered => equal_calls_give_equal_bytes,
    /// Nothing is read as something.
    ZeroShifted => zeros_stay_zeros,
    /// The smallest values are sent.
    SmallestKept => contraction_is_as_promised,
    /// Signs are lost.
    SignsLost => contraction_is_as_promised,
    /// A random choice is not scaled, but said to be without bias.
    BiasDenied => unbiased_codes_have_no_bias,
    /// A random choice looks at nothing but whether values are numbers.
    InfinityPassed => what_is_not_finite_is_refused,
    /// A message that was not finished is left behind.
    HalfMessageLeft => what_is_not_finite_is_refused,
    /// A message that was cut is filled up with zeros.
    CutFilledUp => bytes_cut_or_grown_are_errors,
    /// What stands behind a message is not looked at.
    RestIgnored => bytes_cut_or_grown_are_errors,
    /// Values are not looked at when they are read.
    InfinityRead => arbitrary_bytes_are_finite_values_or_errors,
}

/// Keeps half of the values, with one mistake.
#[derive(Clone, Debug)]
pub struct Mutant {
    fault: Fault,
    top: TopK,
    random: RandomK,
    encoded: u32,
}

fn half() -> Kept {
    Kept::per_million(500_000)
}

impl Mutant {
    /// With this mistake.
    pub fn new(fault: Fault) -> Self {
        Self { fault, top: TopK::new(half()), random: RandomK::contracting(half()), encoded: 0 }
    }

    fn inner<S: Scalar>(&mut self) -> &mut dyn Compressor<S> {
        if self.fault == Fault::BiasDenied { &mut self.random } else { &mut self.top }
    }
}

impl<S: Scalar> Compressor<S> for Mutant {
    fn name(&self) -> &'static str {
        "mutant"
    }

    fn sizes(&self, len: usize) -> RangeInclusive<usize> {
        match self.fault {
            Fault::SizeEstimated => {
                let bytes = half().of(len) * (S::BYTES + 1);
                bytes..=bytes
            }
            Fault::BiasDenied => Compressor::<S>::sizes(&self.random, len),
            _ => Compressor::<S>::sizes(&self.top, len),
        }
    }

    fn encode(&mut self, values: &[S], random: &mut Random, target: &mut Vec<u8>) -> Result<(), CompressError> {
        self.encoded += 1;
        let mut values = values.to_vec();
        match self.fault {
            Fault::TargetOverwritten => target.clear(),
            Fault::EarlierRemembered if self.encoded > 1 => values.reverse(),
            Fault::SignsLost => values.iter_mut().for_each(|value| *value = value.abs()),
            Fault::InfinityPassed => {
                for value in values.iter_mut().filter(|value| value.is_infinite()) {
                    *value = S::of(1e30);
                }
            }
            Fault::SmallestKept => {
                let mut magnitudes: Vec<S> = values.iter().map(|value| value.abs()).collect();
                magnitudes.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
                let kept = half().of(values.len());
                if let Some(&limit) = kept.checked_sub(1).and_then(|last| magnitudes.get(last)) {
                    values.iter_mut().filter(|value| value.abs() > limit).for_each(|value| *value = S::zero());
                }
            }
            _ => {}
        }
        let result = self.inner().encode(&values, random, target);
        if result.is_err() && self.fault == Fault::HalfMessageLeft {
            target.push(0);
        }
        result
    }

    fn decode(&mut self, bytes: &[u8], values: &mut [S]) -> Result<(), CompressError> {
        let before = values.to_vec();
        let most = *Compressor::<S>::sizes(self, values.len()).end();
        match self.fault {
            Fault::CutFilledUp => {
                let mut bytes = bytes.to_vec();
                while self.top.decode(&bytes, values).is_err() {
                    bytes.push(0);
                    if bytes.len() > most {
                        return Err(CompressError::Oversized { found: bytes.len(), most });
                    }
                }
                return Ok(());
            }
            Fault::RestIgnored => {
                return (0..=bytes.len().min(most))
                    .rev()
                    .map(|len| self.top.decode(&bytes[..len], values))
                    .reduce(Result::or)
                    .unwrap_or(Ok(()));
            }
            Fault::InfinityRead => {
                return match self.top.decode(bytes, values) {
                    Err(CompressError::NotFinite { .. }) => Ok(()),
                    other => other,
                };
            }
            _ => self.inner().decode(bytes, values)?,
        }
        for (value, before) in values.iter_mut().zip(before) {
            match self.fault {
                Fault::DecodingAdds => *value += before,
                Fault::OthersKept if *value == S::zero() => *value = before,
                Fault::ZeroShifted => *value += S::of(1e-9),
                _ => {}
            }
        }
        Ok(())
    }

    fn contraction(&self, len: usize) -> f64 {
        Compressor::<S>::contraction(&self.top, len)
    }

    fn is_unbiased(&self) -> bool {
        self.fault == Fault::BiasDenied
    }
}
