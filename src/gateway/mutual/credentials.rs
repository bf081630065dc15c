//! What a process of a cluster shows and whom it believes: one PEM file with its key, its certificate and behind that the CA's, and
//! the list of revoked ones if there is one.
//!
//! One file, because two could be read while one of them is new and the other is not. Several CAs may stand there, so that one can
//! take the place of another.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use webpki::{EndEntityCert, KeyUsage};

use super::revocation::Revoked;
use super::verify::{PeerVerifier, identity_of};
use crate::model::Identity;

/// A file that cannot be used. The text never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum BadCredentials {
    /// Not PEM, or cut off.
    #[error("it cannot be read as PEM: {0}")]
    Pem(pem::Error),
    /// Something is not there.
    #[error("it has no {0}; wanted a private key, the certificate for it and the certificate of the CA, in this order")]
    Missing(&'static str),
    /// A certificate that is none of a cluster's.
    #[error("its first certificate names no process of a cluster (`gorgo://CLUSTER/agent/NODE`)")]
    NoIdentity,
    /// Nobody would believe it.
    #[error("its certificate cannot be used with its CA: {0}")]
    Untrusted(webpki::Error),
    /// A list of revoked certificates that is not the CA's, or that has the own one.
    #[error("its list of revoked certificates cannot be used: {0}")]
    List(webpki::Error),
    /// Key and certificate do not belong together, or are of a kind that is not supported.
    #[error("its key or certificate cannot be used: {0}")]
    Unusable(String),
}

impl From<rustls::Error> for BadCredentials {
    fn from(error: rustls::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// A certificate with its key, and the CAs that are believed.
pub struct Credentials {
    identity: Identity,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    revoked: Revoked,
    not_before: u64,
    not_after: u64,
    server: Arc<ServerConfig>,
}

impl Credentials {
    /// Reads the file's content and sees that it is consistent: a key, its certificate, and a CA from which that is.
    /// Whether it is valid now is for the caller to see.
    ///
    /// # Errors
    /// See [`BadCredentials`].
    pub fn parse(text: &[u8]) -> Result<Self, BadCredentials> {
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
            pem::Error::NoItemsFound => BadCredentials::Missing("private key"),
            other => BadCredentials::Pem(other),
        })?;
        let certificates: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(text).collect();
        let mut certificates = certificates.map_err(BadCredentials::Pem)?.into_iter();
        let certificate = certificates.next().ok_or(BadCredentials::Missing("certificate"))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates {
            roots.add(authority)?;
        }
        if roots.is_empty() {
            return Err(BadCredentials::Missing("certificate of a CA"));
        }
        let identity = identity_of(&certificate).ok_or(BadCredentials::NoIdentity)?;
        let (not_before, not_after) = validity(&certificate, &roots.roots).map_err(BadCredentials::Untrusted)?;
        let revoked = Revoked::read(text, &certificate, &roots.roots, not_before)?;
        let roots = Arc::new(roots);
        let server = server_config(&certificate, &key, &roots)?;
        Ok(Self { identity, certificate, key, roots, revoked, not_before, not_after, server })
    }

    /// Who this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// First second at which it is valid, since 1970.
    #[must_use]
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// Last second at which it is valid, since 1970.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Has the CA revoked this certificate, as far as the file tells?
    #[must_use]
    pub(super) fn revokes(&self, certificate: &CertificateDer<'_>) -> bool {
        self.revoked.has(certificate)
    }

    /// How to be connected to.
    #[must_use]
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// How to connect to the process that has this identity, and to no other.
    ///
    /// # Errors
    /// Never with credentials that could be parsed, as far as can be seen.
    pub(super) fn client(&self, expected: Identity) -> Result<ClientConfig, rustls::Error> {
        let provider = provider();
        let verifier = PeerVerifier::new(expected, self.roots.clone(), provider.signature_verification_algorithms);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }
}

/// Whose it is; nothing of the key.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.identity)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_config(
    certificate: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
    roots: &Arc<RootCertStore>,
) -> Result<Arc<ServerConfig>, BadCredentials> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|error: VerifierBuilderError| BadCredentials::Unusable(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.clone()], key.clone_key())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// First and last second of a certificate's life, once it is clear that these CAs vouch for it at both ends of a connection.
///
/// The library tells the limits of a certificate's life only when it finds it outside of them.
fn validity(certificate: &CertificateDer<'_>, roots: &[TrustAnchor<'_>]) -> Result<(u64, u64), webpki::Error> {
    let parsed = EndEntityCert::try_from(certificate)?;
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let check = |seconds: u64, usage: KeyUsage| {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        parsed.verify_for_usage(algorithms, roots, &[], at, usage, None, None).map(|_| ())
    };
    let not_before = match check(0, KeyUsage::client_auth()) {
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => not_before.as_secs(),
        other => other.map(|()| 0)?,
    };
    let not_after = match check(u64::MAX, KeyUsage::client_auth()) {
        Err(webpki::Error::CertExpired { not_after, .. }) => not_after.as_secs(),
        other => other.map(|()| u64::MAX)?,
    };
    check(not_before, KeyUsage::client_auth())?;
    check(not_before, KeyUsage::server_auth())?;
    Ok((not_before, not_after))
}
