//! Deliberate mistakes in the protocol, and how soon seeded schedules notice them.
//!
//! Only with the feature `mutants`. One mistake at a time holds for the whole program.

use crate::sweep::sweep;
use kronfleet_core::mutant::Mutant;
use std::fmt;

/// Within how many seeds this mistake is noticed: a few times as many as it took when it was measured, and 8 at least.
pub fn bound(mutant: Mutant) -> u64 {
    match mutant {
        Mutant::PromiseBroken | Mutant::FormerInherits => 10_000,
        Mutant::LineageIgnored => 2_000,
        Mutant::TieGuessed => 1_000,
        Mutant::DepartureUntold => 600,
        Mutant::LateAlone | Mutant::QuarantineIgnored => 500,
        Mutant::GoodbyeForgotten => 300,
        Mutant::RecoveryForgets => 300,
        Mutant::OldAttempt | Mutant::DoubtApplies => 150,
        Mutant::CheckpointForgets | Mutant::DigestIgnored | Mutant::DecayUnseen | Mutant::NotFinite => 120,
        Mutant::HealForever | Mutant::HealUnchecked => 80,
        Mutant::ZombieAccepted | Mutant::OutboxSilent | Mutant::OutboxBlind => 48,
        Mutant::DoubleReady | Mutant::NobodyNamed | Mutant::InboxEpoch | Mutant::MinorityCommits => 24,
        _ => 8,
    }
}

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
        let (mutant, text, bound) = (self.mutant, self.mutant.text(), bound(self.mutant));
        match &self.by {
            Some((seeds, law)) => write!(f, "| `{mutant:?}` | {text} | {law} | {seeds} | {bound} |"),
            None => write!(f, "| `{mutant:?}` | {text} | not noticed | - | {bound} |"),
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
