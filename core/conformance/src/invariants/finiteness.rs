//! Invariant 7: no value that is not finite is ever committed, and its sender is named, but nobody else.

use super::ledger::Ledger;
use super::{Invariant, Summary};
use kronfleet_core::cluster::{AbortReason, Occurrence, Record};

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Finiteness;

impl Invariant for Finiteness {
    fn name(&self) -> &'static str {
        "finiteness (invariant 7)"
    }

    fn observe(&mut self, record: &Record, ledger: &Ledger) -> Result<(), String> {
        match &record.what {
            Occurrence::Committed { certificate } | Occurrence::Healed { certificate, .. } => {
                let Some((_, Some(values))) = ledger.held(record.node) else {
                    return Ok(());
                };
                for (index, (weight, values)) in values.segments.iter().enumerate() {
                    if *weight > 0.0 && values.iter().any(|value| !value.is_finite()) {
                        return Err(format!("segment {index} of {} is not finite", certificate.id()));
                    }
                }
            }
            Occurrence::Aborted { attempt, why: AbortReason::NotFinite, who } if who.is_empty() => {
                return Err(format!("attempt {attempt} had a value that is not finite, and nobody is named"));
            }
            Occurrence::Aborted { attempt, why: AbortReason::NotFinite, who } => {
                if let Some(node) = who.iter().find(|node| ledger.finite(**node) == Some(true)) {
                    return Err(format!("attempt {attempt} names {node}, all of whose values were finite"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut Summary) -> Result<(), String> {
        Ok(())
    }
}
