//! Every compressor obeys every law; every wrong one is rejected, first by the law that names its mistake.

use kronfleet_conformance::check::Check;
use kronfleet_conformance::compressor::{
    Fault, Law, Mutant, Tell, feedback_loses_nothing, laws, telling_loses_nothing,
};
use kronfleet_core::compress::{
    Blockwise, Compressor, Identity, Kept, LowRank, Quantised, RandomK, Rounding, Short, Sign, TopK, tell,
};
use kronfleet_core::scalar::Scalar;

type Maker<S> = Box<dyn Fn() -> Box<dyn Compressor<S>>>;

/// Makers of all compressors, with some settings.
fn compressors<S: Scalar>() -> Vec<Maker<S>> {
    macro_rules! list {
        ($($make:expr,)*) => { vec![$(Box::new(move || Box::new($make))),*] };
    }
    let tenth = || Kept::per_million(100_000);
    let most = || Kept::per_million(700_000);
    list![
        Identity,
        Short::bf16(Rounding::Nearest),
        Short::bf16(Rounding::Stochastic),
        Short::f16(Rounding::Nearest),
        Short::f16(Rounding::Stochastic),
        Blockwise,
        Quantised::unbiased(1),
        Quantised::unbiased(7),
        Quantised::contracting(2),
        Quantised::contracting(127),
        Sign,
        TopK::new(tenth()),
        TopK::new(most()),
        TopK::new(Kept::ALL),
        RandomK::contracting(tenth()),
        RandomK::unbiased(tenth()),
        RandomK::unbiased(most()),
        LowRank::new(1),
        LowRank::new(3),
    ]
}

/// Tries every law on every compressor.
fn hold<S: Scalar>() {
    for make in compressors::<S>() {
        for (name, law) in laws::<S>() {
            let result = law(&make, &Check { cases: 32, ..Check::default() });
            assert_eq!(result, Ok(()), "{} of {}: {name}", make().name(), S::NAME);
        }
    }
}

#[test]
fn every_law_holds_in_single_precision() {
    hold::<f32>();
}

#[test]
fn every_law_holds_in_double_precision() {
    hold::<f64>();
}

/// The first law that does not hold.
fn first_broken(fault: Fault) -> Option<&'static str> {
    let check = Check { cases: 64, shrinking: 0, ..Check::default() };
    let make = || Box::new(Mutant::new(fault)) as Box<dyn Compressor<f32>>;
    let broken = |(name, law): (&'static str, Law<f32>)| law(&make, &check).is_err().then_some(name);
    laws::<f32>().into_iter().find_map(broken)
}

#[test]
fn each_mistake_is_first_seen_by_the_law_that_names_it() {
    assert_eq!(first_broken(Fault::None), None);
    for &(fault, expected) in Fault::ALL {
        assert_eq!(first_broken(fault), Some(expected), "{fault:?}");
    }
}

#[test]
fn whoever_forgets_what_was_lost_or_says_it_was_told_is_rejected() {
    let forgets: Tell<f32> = |values, base, compressor, random, target, lost| {
        tell(values, base, compressor, random, target, lost)?;
        lost.fill(0.0);
        Ok(())
    };
    let counts_as_told: Tell<f32> = |values, base, compressor, random, target, lost| {
        let whole = values.to_vec();
        tell(values, base, compressor, random, target, lost)?;
        values.copy_from_slice(&whole);
        Ok(())
    };
    let make = || Box::new(Sign) as Box<dyn Compressor<f32>>;
    let check = Check { cases: 64, shrinking: 0, ..Check::default() };
    assert_eq!(feedback_loses_nothing(&make, &check), Ok(()));
    for wrong in [forgets, counts_as_told] {
        assert!(telling_loses_nothing(wrong, &make, &check).is_err());
    }
}
