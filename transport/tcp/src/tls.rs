//! TLS 1.3 with mutual authentication: both ends show a certificate of the run's own authority, and a node is who its
//! certificate says.
//!
//! Sessions are never resumed and nothing is sent early, so that every connection proves both identities afresh: a
//! recorded handshake is of no use to anybody, and a certificate that has expired is noticed at the next connection.

use crate::channel::Channel;
use kronfleet_core::cluster::RunId;
use kronfleet_core::transport::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names this protocol in handshakes, so that a certificate is of no use in another one.
const PROTOCOL: &[u8] = b"kronfleet";
/// The run's authority, in a folder of certificates.
pub const AUTHORITY: &str = "ca.pem";

/// The name that stands in a node's certificate.
///
/// ```
/// use kronfleet_core::{cluster::RunId, transport::NodeId};
/// assert_eq!(kronfleet_tcp::tls::name(RunId(42), NodeId(3)), "n3.run-000000000000002a.kronfleet.internal");
/// ```
pub fn name(run: RunId, node: NodeId) -> String {
    format!("{node}.run-{:016x}.kronfleet.internal", run.0)
}

/// The file of a node's certificate, in a folder of certificates.
pub fn certificate_file(node: NodeId) -> String {
    format!("{node}.pem")
}

/// The file of a node's private key, in a folder of certificates.
pub fn key_file(node: NodeId) -> String {
    format!("{node}-key.pem")
}

/// One node's certificate and the authority it trusts.
#[derive(Clone, Debug)]
pub struct Identity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; `kronfleet-tcp certificates` makes a run's certificates", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// Others can read the private key.
    #[error("{} can be read by others (mode {mode:03o}): chmod 600 it, and make new certificates if it was exposed", path.display())]
    Exposed {
        /// Which one.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The certificates are not usable.
    #[error("unusable certificates: {0}")]
    Unusable(String),
    /// The certificate is not this node's.
    #[error("the certificate is not that of {name}: use the one made for this node and run")]
    Name {
        /// What it should say.
        name: String,
    },
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl Identity {
    /// Reads a node's identity from a folder made by `kronfleet-tcp certificates`.
    ///
    /// # Errors
    /// If a file is missing, the key is readable by others, or the certificate is not this node's.
    pub fn load(folder: &Path, run: RunId, node: NodeId) -> Result<Self, TlsError> {
        let (authority, certificate, key) =
            (folder.join(AUTHORITY), folder.join(certificate_file(node)), folder.join(key_file(node)));
        let read = |path: &Path| {
            let certificate = CertificateDer::from_pem_file(path);
            certificate.map_err(|source| TlsError::File { path: path.into(), source })
        };
        refuse_exposed(&key)?;
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|source| TlsError::File { path: key, source })?;
        Self::new(read(&authority)?, read(&certificate)?, key, run, node)
    }

    /// An identity from its parts.
    ///
    /// # Errors
    /// If they do not fit together, or the certificate is not this node's.
    pub fn new(
        authority: CertificateDer<'static>,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        run: RunId,
        node: NodeId,
    ) -> Result<Self, TlsError> {
        if !names(&certificate, run, node) {
            return Err(TlsError::Name { name: name(run, node) });
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let clients = clients.map_err(|error| TlsError::Unusable(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.clone()], key.clone_key())?;
        server.alpn_protocols = vec![PROTOCOL.into()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OfTheRun { roots, provider }))
            .with_client_auth_cert(vec![certificate], key)?;
        client.alpn_protocols = vec![PROTOCOL.into()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }

    /// The channel of a connection that this node dialled.
    pub(crate) fn dial(&self) -> Result<Channel, Error> {
        // Who answers is checked against its hello, since a seed is an address without a name.
        let anybody = ServerName::try_from("kronfleet.internal").expect("a valid name");
        Ok(Channel::tls(ClientConnection::new(self.client.clone(), anybody)?))
    }

    /// The channel of a connection that this node accepted.
    pub(crate) fn accept(&self) -> Result<Channel, Error> {
        Ok(Channel::tls(ServerConnection::new(self.server.clone())?))
    }
}

/// Whether a certificate is that of `node` in `run`. Its signature is not looked at.
pub(crate) fn names(certificate: &CertificateDer<'_>, run: RunId, node: NodeId) -> bool {
    let expected = ServerName::try_from(name(run, node)).expect("a valid name");
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &expected).is_ok())
}

/// A key that others can read is no secret.
fn refuse_exposed(path: &Path) -> Result<(), TlsError> {
    #[cfg(unix)]
    if let Ok(data) = fs::metadata(path) {
        use std::os::unix::fs::PermissionsExt;
        let mode = data.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TlsError::Exposed { path: path.into(), mode });
        }
    }
    Ok(())
}

/// Accepts listeners with a valid certificate of the run's authority; which node it is, is checked with the hello.
#[derive(Debug)]
struct OfTheRun {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OfTheRun {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
