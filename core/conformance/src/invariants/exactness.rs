//! Invariant 2: a committed average equals Σ w·x / Σ w over exactly the contributors its certificate names.
//!
//! The average is recomputed from the contributions that the certificate names by digest, bit for bit as the
//! certificate says it was formed. What is too large to be kept is compared by digest: whoever commits holds
//! what the certificate says. So is what was told in differences.

use super::ledger::{Ledger, Values};
use super::{Invariant, Summary};
use kronfleet_core::cluster::{Algorithm, Certificate, CertificateId, Digest, Digester, Occurrence, Record};
use std::collections::BTreeSet;

/// See the module.
#[derive(Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Exactness {
    recomputed: BTreeSet<CertificateId>,
}

impl Invariant for Exactness {
    fn name(&self) -> &'static str {
        "exactness (invariant 2)"
    }

    fn observe(&mut self, record: &Record, ledger: &Ledger) -> Result<(), String> {
        let certificate = match &record.what {
            Occurrence::Committed { certificate } => certificate,
            Occurrence::Healed { certificate, .. } => return holds(record, ledger, certificate),
            _ => return Ok(()),
        };
        holds(record, ledger, certificate)?;
        let id = certificate.id();
        // What a code leaves of a mean depends on the state before.
        if certificate.is_coded() || self.recomputed.contains(&id) {
            return Ok(());
        }
        let Some(contributions) = named(certificate, ledger)? else {
            return Ok(());
        };
        let digest = average(certificate, &contributions)?;
        if digest != certificate.result {
            return Err(format!("Σ w·x / Σ w of the named contributions has digest {digest}"));
        }
        self.recomputed.insert(id);
        Ok(())
    }

    fn finish(&mut self, summary: &mut Summary) -> Result<(), String> {
        summary.recomputed = self.recomputed.len() as u64;
        Ok(())
    }
}

/// Whether the node holds what the certificate says, if that is known.
fn holds(record: &Record, ledger: &Ledger, certificate: &Certificate) -> Result<(), String> {
    match ledger.held(record.node) {
        Some((digest, _)) if digest != certificate.result => {
            Err(format!("the node holds {digest}, its certificate says {}", certificate.result))
        }
        _ => Ok(()),
    }
}

/// The contributions that a certificate names, if all that count anything were kept.
///
/// A member that only takes the result, because it was behind, counts nothing and stands as `None`.
pub(super) fn named<'a>(
    certificate: &Certificate,
    ledger: &'a Ledger,
) -> Result<Option<Vec<Option<&'a Values>>>, String> {
    let mut contributions = Vec::new();
    for member in &certificate.members {
        if member.weights.iter().all(|&weight| weight == 0.0) {
            contributions.push(None);
            continue;
        }
        let missed = certificate.missed(member.parent);
        let Some(values) = ledger.find(member.node, member.contribution, &member.weights, missed)? else {
            return Ok(None);
        };
        contributions.push(Some(values));
    }
    Ok(Some(contributions))
}

/// The values of a segment with the weights of those who count in it, in the order of the members.
pub(super) fn counted<'a>(
    certificate: &'a Certificate,
    contributions: &'a [Option<&'a Values>],
    segment: usize,
) -> impl Iterator<Item = (f64, &'a [f64])> {
    let members = certificate.members.iter().zip(contributions);
    members.filter_map(move |(member, contribution)| {
        let weight = member.weights[segment];
        let values = &contribution.as_ref()?.segments[segment].1;
        (weight > 0.0).then_some((weight, values.as_slice()))
    })
}

/// The digest of the average, formed anew.
fn average(certificate: &Certificate, contributions: &[Option<&Values>]) -> Result<Digest, String> {
    let Algorithm::Direct = certificate.algorithm else {
        return Err(format!("how {} is formed is unknown here", certificate.algorithm));
    };
    let mut digester = Digester::new();
    let segments = certificate.members.first().map_or(0, |first| first.weights.len());
    for segment in 0..segments {
        let counted: Vec<_> = counted(certificate, contributions, segment).collect();
        let weight: f64 = counted.iter().map(|(weight, _)| weight).sum();
        let len = counted.first().map_or(0, |(_, values)| values.len());
        for value in 0..len {
            let sum: f64 = counted.iter().map(|(weight, values)| weight * values[value]).sum();
            match certificate.wire.as_str() {
                "f64" => digester.update_values(&[sum / weight]),
                "f32" => digester.update_values(&[(sum / weight) as f32]),
                other => return Err(format!("values of type {other} are unknown here")),
            }
        }
    }
    Ok(digester.finish())
}
