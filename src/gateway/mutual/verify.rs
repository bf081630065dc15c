//! Who a certificate says it is for, and whether that is who was wanted.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use webpki::EndEntityCert;

use crate::model::Identity;

/// The process that a certificate is for; `None` if it names none, or more than one.
#[must_use]
pub(super) fn identity_of(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    let mut found = parsed.valid_uri_names().filter_map(|uri| uri.parse::<Identity>().ok());
    let identity = found.next()?;
    found.next().is_none().then_some(identity)
}

/// Whether a certificate may be shown from this address.
#[must_use]
pub(super) fn names_address(certificate: &CertificateDer<'_>, address: IpAddr) -> bool {
    let name = ServerName::IpAddress(address.to_canonical().into());
    EndEntityCert::try_from(certificate).is_ok_and(|parsed| parsed.verify_is_valid_for_subject_name(&name).is_ok())
}

/// Somebody else answered.
#[derive(thiserror::Error)]
#[error("it is {}, wanted {wanted}", found.as_ref().map_or("none of the cluster".to_owned(), ToString::to_string))]
struct SomebodyElse {
    found: Option<Identity>,
    wanted: Identity,
}

/// The library shows an error from outside in this form only.
impl fmt::Debug for SomebodyElse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Believes one process only. Under which name or address it was reached counts for nothing: what it is called stands in its certificate.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    wanted: Identity,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    /// Believes this process, if one of these CAs vouches for it.
    #[must_use]
    pub(super) fn new(wanted: Identity, roots: Arc<RootCertStore>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { wanted, roots, algorithms }
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        let found = identity_of(end_entity);
        if found.as_ref() == Some(&self.wanted) {
            return Ok(ServerCertVerified::assertion());
        }
        let error = SomebodyElse { found, wanted: self.wanted.clone() };
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
