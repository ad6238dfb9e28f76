//! Invariant 2: a committed average equals Σ w·x / Σ w over exactly the contributors its certificate names.
//!
//! The average is recomputed from the contributions that the certificate names by digest, bit for bit as the
//! certificate says it was formed. What is too large to be kept is compared by digest: whoever commits holds
//! what the certificate says.

use super::ledger::{Ledger, Values};
use super::{Invariant, Summary};
use kronfleet_core::cluster::{Algorithm, Certificate, CertificateId, Digest, Digester, Occurrence, Record};
use std::collections::BTreeSet;

/// See the module.
#[derive(Default)]
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
        if self.recomputed.contains(&id) {
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

/// The contributions that a certificate names, if all were kept.
pub(super) fn named<'a>(certificate: &Certificate, ledger: &'a Ledger) -> Result<Option<Vec<&'a Values>>, String> {
    let mut contributions = Vec::new();
    for member in &certificate.members {
        let Some(values) = ledger.find(member.node, member.contribution, &member.weights)? else {
            return Ok(None);
        };
        contributions.push(values);
    }
    Ok(Some(contributions))
}

/// The digest of the average, formed anew.
fn average(certificate: &Certificate, contributions: &[&Values]) -> Result<Digest, String> {
    let Algorithm::Direct = certificate.algorithm else {
        return Err(format!("how {} is formed is unknown here", certificate.algorithm));
    };
    let mut digester = Digester::new();
    let segments = contributions.first().map_or(0, |first| first.segments.len());
    for segment in 0..segments {
        let weight: f64 = certificate.members.iter().map(|member| member.weights[segment]).sum();
        if weight == 0.0 {
            continue;
        }
        let len = contributions[0].segments[segment].1.len();
        for value in 0..len {
            let mut sum = 0.0;
            for (member, contribution) in certificate.members.iter().zip(contributions) {
                let weight = member.weights[segment];
                if weight > 0.0 {
                    sum += weight * contribution.segments[segment].1[value];
                }
            }
            let mean = sum / weight;
            match certificate.wire.as_str() {
                "f64" => digester.update_values(&[mean]),
                "f32" => digester.update_values(&[mean as f32]),
                other => return Err(format!("values of type {other} are unknown here")),
            }
        }
    }
    Ok(digester.finish())
}
