//! Every wrong backend is rejected, first by the law that names its mistake; the same backend without one is not.

use kronfleet_conformance::backend::{Fault, Mutant, laws};
use kronfleet_conformance::check::Check;

/// The first law that does not hold, with what it says.
fn first_broken(fault: Fault) -> Option<(&'static str, String)> {
    let check = Check { cases: 32, shrinking: 0, ..Check::default() };
    laws::<Mutant>()
        .into_iter()
        .find_map(|(name, law)| law(&|| Mutant::new(fault), &check).err().map(|broken| (name, broken.to_string())))
}

#[test]
fn each_mistake_is_first_seen_by_the_law_that_names_it() {
    // Panics inside laws are caught and reported by them; their messages would bury the outcome.
    std::panic::set_hook(Box::new(|_| {}));
    let mut wrong = vec![];
    for &(fault, expected) in Fault::ALL {
        match first_broken(fault) {
            Some((law, _)) if law == expected => {}
            Some((law, facts)) => wrong.push(format!("{fault:?}: seen by {law}, not {expected}: {facts:.300}")),
            None => wrong.push(format!("{fault:?}: seen by no law, expected {expected}")),
        }
    }
    let _ = std::panic::take_hook();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn without_a_mistake_every_law_holds() {
    assert_eq!(first_broken(Fault::None), None);
}

#[test]
fn a_broken_law_says_how_to_see_it_again() {
    let (_, facts) = first_broken(Fault::BetaIgnored).expect("a product without β is wrong");
    assert!(facts.contains("PROPTEST_RNG_SEED=1") && facts.contains("beta"), "{facts}");
}
