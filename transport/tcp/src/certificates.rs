//! A run's certificates: an authority made for the run, and one certificate per node.
//!
//! The authority's key signs the nodes' certificates and is written only on request: without it nobody can join later
//! under a new number, with it anybody who reads it can.

use crate::tls::{AUTHORITY, certificate_file, key_file, name};
use kronfleet_core::cluster::RunId;
use kronfleet_core::transport::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file of the authority's private key.
pub const AUTHORITY_KEY: &str = "ca-key.pem";

/// Clocks differ: certificates are valid this long before they were made.
const SKEW: Duration = Duration::from_secs(3600);

/// Why certificates cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be written or read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// They cannot be signed.
    #[error("cannot sign: {0}")]
    Signing(#[from] rcgen::Error),
}

/// An authority that signs the certificates of one run.
pub struct Authority {
    run: RunId,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    valid: Range<SystemTime>,
}

/// A certificate and its key, in PEM.
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A new authority for `run`; it and all it signs are valid for this long, from an hour ago.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn new(run: RunId, lifetime: Duration) -> Result<Self, CertificateError> {
        let now = SystemTime::now();
        Self::valid(run, now - SKEW..now + lifetime)
    }

    /// A new authority for `run`; it and all it signs are valid in this time.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn valid(run: RunId, valid: Range<SystemTime>) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = title(&format!("kronfleet run {:016x}", run.0));
        // Nothing below: a node cannot sign.
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        parameters.not_before = valid.start.into();
        parameters.not_after = valid.end.into();
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self { run, certificate, issuer: Issuer::new(parameters, key), valid })
    }

    /// Its certificate, in PEM: what all nodes trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for `node`, with a new key.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn sign(&self, node: NodeId) -> Result<Signed, CertificateError> {
        self.sign_valid(node, self.valid.clone())
    }

    /// The same, valid in another time.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn sign_valid(&self, node: NodeId, valid: Range<SystemTime>) -> Result<Signed, CertificateError> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new([name(self.run, node)])?;
        parameters.distinguished_name = title(&format!("{node}"));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.not_before = valid.start.into();
        parameters.not_after = valid.end.into();
        let certificate = parameters.signed_by(&key, &self.issuer)?.pem();
        Ok(Signed { certificate, key: key.serialize_pem() })
    }

    /// Writes the authority's certificate and those of `n0` up to `nodes − 1` into `folder`, which is made if need be;
    /// with `keep`, its private key as well. Private keys get mode 0600. Nothing is overwritten.
    ///
    /// # Errors
    /// If a file exists or cannot be written.
    pub fn write(&self, folder: &Path, nodes: u32, keep: bool) -> Result<(), CertificateError> {
        std::fs::create_dir_all(folder).map_err(|source| CertificateError::File { path: folder.into(), source })?;
        create(&folder.join(AUTHORITY), &self.certificate, 0o644)?;
        if keep {
            create(&folder.join(AUTHORITY_KEY), &self.issuer.key().serialize_pem(), 0o600)?;
        }
        for node in (0..nodes).map(NodeId) {
            let signed = self.sign(node)?;
            create(&folder.join(certificate_file(node)), &signed.certificate, 0o644)?;
            create(&folder.join(key_file(node)), &signed.key, 0o600)?;
        }
        Ok(())
    }
}

fn title(title: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, title);
    name
}

/// Creates a file with these permissions from its first byte on.
fn create(path: &Path, content: &str, mode: u32) -> Result<(), CertificateError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written = options.open(path).and_then(|mut file| file.write_all(content.as_bytes()));
    written.map_err(|source| CertificateError::File { path: path.into(), source })
}
