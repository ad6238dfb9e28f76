//! Deliberate mistakes in the protocol, and how soon seeded schedules notice them.
//!
//! Only with the feature `mutants`. One mistake at a time holds for the whole program.

use crate::sweep::sweep;
use kronfleet_core::mutant::Mutant;
use std::fmt;

/// How a mistake was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catch {
    /// Which mistake.
    pub mutant: Mutant,
    /// The seeds up to the first that noticed it, that one included, and the law it broke; `None` if none did.
    pub by: Option<(u64, String)>,
}

impl fmt::Display for Catch {
    /// A line of the table in `docs/faults.md`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mutant, text) = (self.mutant, self.mutant.text());
        match &self.by {
            Some((seeds, law)) => write!(f, "| `{mutant:?}` | {text} | {law} | {seeds} |"),
            None => write!(f, "| `{mutant:?}` | {text} | not noticed | - |"),
        }
    }
}

/// Makes `mutant` and runs up to `seeds` schedules until one of them notices.
///
/// Not to be called on several threads: there is one mistake for the whole program.
pub fn hunt(mutant: Mutant, seeds: u64) -> Catch {
    Mutant::choose(Some(mutant));
    let hook = std::panic::take_hook();
    // A mistake that makes a node panic is noticed, and need not be printed.
    std::panic::set_hook(Box::new(|_| {}));
    let found = sweep(0..seeds, 1, |_| {}).failures;
    std::panic::set_hook(hook);
    Mutant::choose(None);
    let by = found.into_iter().next().map(|(seed, failure)| (seed + 1, failure.law));
    Catch { mutant, by }
}
