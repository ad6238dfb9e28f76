//! Invariant 3: the coefficients of an average are convex.
//!
//! Weights are finite and not negative, somebody counts, and no value of an average lies outside the hull of
//! what was contributed to it, but for the rounding of the type it travels in.

use super::exactness::{counted, named};
use super::ledger::Ledger;
use super::{Invariant, Summary};
use kronfleet_core::cluster::{Certificate, CertificateId, Occurrence, Record};
use std::collections::BTreeSet;

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Convexity {
    seen: BTreeSet<CertificateId>,
}

impl Invariant for Convexity {
    fn name(&self) -> &'static str {
        "convexity (invariant 3)"
    }

    fn observe(&mut self, record: &Record, ledger: &Ledger) -> Result<(), String> {
        let Occurrence::Committed { certificate } = &record.what else {
            return Ok(());
        };
        if self.seen.insert(certificate.id()) {
            coefficients(certificate)?;
        }
        hull(record, ledger, certificate)
    }

    fn finish(&mut self, _: &mut Summary) -> Result<(), String> {
        Ok(())
    }
}

fn coefficients(certificate: &Certificate) -> Result<(), String> {
    let segments = certificate.members.iter().map(|member| member.weights.len()).max().unwrap_or(0);
    for member in &certificate.members {
        if member.weights.len() != segments {
            let found = member.weights.len();
            return Err(format!("{} has weights for {found} segments, others for {segments}", member.node));
        }
        if let Some(weight) = member.weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            return Err(format!("{} counts {weight}", member.node));
        }
    }
    if (0..segments).all(|segment| certificate.weight(segment) == 0.0) {
        return Err("nobody counts in any segment".into());
    }
    Ok(())
}

/// Whether the average that the node holds lies among the contributions, as far as both are known.
fn hull(record: &Record, ledger: &Ledger, certificate: &Certificate) -> Result<(), String> {
    let Some((_, Some(average))) = ledger.held(record.node) else {
        return Ok(());
    };
    let Some(contributions) = named(certificate, ledger)? else {
        return Ok(());
    };
    let epsilon = if certificate.wire == "f32" { f64::from(f32::EPSILON) } else { f64::EPSILON };
    for (segment, (_, values)) in average.segments.iter().enumerate() {
        let counted: Vec<&[f64]> = counted(certificate, &contributions, segment).map(|(_, values)| values).collect();
        for (index, &value) in values.iter().enumerate() {
            let values = || counted.iter().map(|contribution| contribution[index]);
            let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
            // Each product and sum is off by half an ulp of double precision, the result by one of its own.
            let slack = epsilon * low.abs().max(high.abs());
            let inside = low - slack <= value && value <= high + slack;
            if !inside && !counted.is_empty() {
                return Err(format!("value {index} of segment {segment} is {value}, contributed were {low} to {high}"));
            }
        }
    }
    Ok(())
}
