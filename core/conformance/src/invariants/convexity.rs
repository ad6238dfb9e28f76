//! Invariant 3: the coefficients of an average are convex.
//!
//! Weights are finite and not negative, somebody counts, and no value of an average lies outside the hull of
//! what was contributed to it, but for the rounding of the type it travels in.

use super::exactness::{counted, named};
use super::ledger::{Ledger, Values};
use super::{Invariant, Summary};
use kronfleet_core::cluster::{Certificate, CertificateId, Digest, Occurrence, Record};
use std::collections::BTreeSet;

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Convexity {
    seen: BTreeSet<CertificateId>,
    /// Averages that lie among the contributions: others that hold the same need not be looked at.
    #[cfg_attr(feature = "serde", serde(skip))]
    inside: BTreeSet<(CertificateId, Digest)>,
}

impl Invariant for Convexity {
    fn name(&self) -> &'static str {
        "convexity (invariant 3)"
    }

    fn observe(&mut self, record: &Record, ledger: &Ledger) -> Result<(), String> {
        let Occurrence::Committed { certificate } = &record.what else {
            return Ok(());
        };
        let id = certificate.id();
        if self.seen.insert(id) {
            coefficients(certificate)?;
        }
        if let Some((digest, Some(average))) = ledger.held(record.node)
            && !certificate.is_coded()
            && !self.inside.contains(&(id, digest))
            && let Some(contributions) = named(certificate, ledger)?
        {
            hull(certificate, average, &contributions)?;
            self.inside.insert((id, digest));
        }
        Ok(())
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

/// Whether an average lies among the contributions.
fn hull(certificate: &Certificate, average: &Values, contributions: &[Option<&Values>]) -> Result<(), String> {
    let epsilon = if certificate.wire == "f32" { f64::from(f32::EPSILON) } else { f64::EPSILON };
    for (segment, (_, values)) in average.segments.iter().enumerate() {
        let counted: Vec<&[f64]> = counted(certificate, contributions, segment).map(|(_, values)| values).collect();
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
