//! The transport suite accepts the reference and rejects every mutant.

use kronfleet_conformance::transport::judge_by;
use kronfleet_conformance::transport::mutant::{Mutant, Wrong};
use kronfleet_conformance::transport::reference::Corridor;
use kronfleet_conformance::transport_laws;

transport_laws!(Corridor);

#[test]
fn every_mutant_is_rejected_by_its_law() {
    for &(wrong, law) in Wrong::ALL {
        let verdict = judge_by(law, move || Mutant { fabric: Corridor, wrong });
        let violation = verdict.expect_err(&format!("{wrong:?} must break {law}"));
        println!("{wrong:?}: {violation}");
    }
}
