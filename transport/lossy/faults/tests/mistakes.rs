//! Every deliberate mistake is noticed within a stated number of seeds.
//!
//! `cargo test -p kronfleet-faults --features mutants --test mistakes`; one test, because there is one mistake at a time
//! for the whole program.

use kronfleet_core::mutant::Mutant;
use kronfleet_faults::mutants::{bound, hunt};

#[test]
fn every_mutant_is_caught_within_its_bound() {
    let of_rounds = Mutant::ALL.iter().filter(|mutant| !mutant.is_of_shared_steps());
    let catches: Vec<_> = of_rounds.map(|&mutant| hunt(mutant, bound(mutant))).collect();
    catches.iter().for_each(|catch| println!("{catch}"));
    let missed: Vec<_> = catches.iter().filter(|catch| catch.by.is_none()).map(|catch| catch.mutant).collect();
    assert!(missed.is_empty(), "not noticed within their bounds: {missed:?}");
}
