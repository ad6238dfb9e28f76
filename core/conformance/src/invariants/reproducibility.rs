//! Invariant 11: same seed and options, same trace, byte for byte.

use crate::violation::{Verdict, Violation};
use std::fmt::Display;

/// Runs `run` twice and compares the hashes of its traces.
///
/// # Errors
/// Both hashes, if they differ.
pub fn same_twice<H: PartialEq + Display>(replay: &str, mut run: impl FnMut() -> H) -> Verdict {
    let (first, second) = (run(), run());
    if first == second {
        return Ok(());
    }
    let what = format!("the traces of two equal runs have hashes {first} and {second}\n  again: {replay}");
    Err(Violation { law: "reproducibility (invariant 11)", what })
}
