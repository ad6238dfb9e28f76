//! Overrides against the defaults they replace.

use super::bound::Near;
use super::case::Case;
use super::{convolution, elementwise, loss, normalisation, patch, pooling, product, shortcut};
use crate::check::{Broken, Check};
use crate::required::Required;
use kronfleet_core::backend::Backend;
use kronfleet_core::scalar::Scalar;
use proptest::strategy::Strategy;

/// Every provided method gives, up to rounding, what its default over the required methods gives.
pub fn overrides_agree_with_the_defaults<B: Backend>(make: &dyn Fn() -> B, check: &Check) -> Result<(), Broken> {
    // Twelve families share the cases of one law.
    let check = &Check { cases: check.cases.div_ceil(4), ..*check };
    agree(make, check, product::symmetric_products())?;
    agree(make, check, elementwise::updates())?;
    agree(make, check, patch::unfoldings())?;
    agree(make, check, patch::foldings())?;
    agree(make, check, convolution::convolutions())?;
    agree(make, check, convolution::gradients())?;
    agree(make, check, pooling::poolings())?;
    agree(make, check, pooling::pooling_gradients())?;
    for pass in normalisation::Pass::ALL {
        agree(make, check, normalisation::batch_norms(pass))?;
    }
    for pass in [normalisation::Pass::Forward, normalisation::Pass::Backward] {
        agree(make, check, normalisation::evo_norms(pass))?;
    }
    agree(make, check, loss::losses())?;
    agree(make, check, shortcut::shortcuts())
}

fn agree<B: Backend, T: Strategy>(make: &dyn Fn() -> B, check: &Check, cases: T) -> Result<(), Broken>
where
    T::Value: Case,
{
    check.hold(cases, |case| {
        let (own, default) = (case.run(&mut make()), case.run(&mut Required::new(make())));
        for ((expected, own), default) in case.expected::<B::Scalar>().iter().zip(own).zip(default) {
            for (at, (near, (own, default))) in expected.content.iter().zip(own.iter().zip(default)).enumerate() {
                // Both may be off, in opposite directions.
                let between = Near { value: default.wide(), error: 2.0 * near.error };
                if !between.admits(own.wide()) {
                    return Err(format!("`{}`[{at}] is {own}, by the default {default}", expected.name));
                }
            }
        }
        Ok(())
    })
}
