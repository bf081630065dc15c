//! Certificates that are worth nothing before their end: the lists of a file, and whether a connection may go on under one.
//!
//! A list is the CA's (RFC 5280, section 5) and stands behind the CA's certificate in the file of each process, so that both come into
//! force together. One that is not signed by the CA of the own certificate makes the file useless. Lists have no end here: an old one
//! is better than none, and a newer one comes with each certificate.

use std::collections::BTreeSet;
use std::fmt;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use tokio::sync::watch;
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::credentials::BadCredentials;
use super::keeper::Keeper;

/// Serial numbers of revoked certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Revoked(BTreeSet<Vec<u8>>);

impl Revoked {
    /// What the lists in a file revoke, once it is clear that they are from the CA of the file's own certificate, which none of them may
    /// name. `at`: a second of that certificate's life.
    ///
    /// # Errors
    /// Lists that cannot be read, are somebody else's or revoke the own certificate.
    pub(super) fn read(
        text: &[u8],
        own: &CertificateDer<'_>,
        roots: &[TrustAnchor<'_>],
        at: u64,
    ) -> Result<Self, BadCredentials> {
        let mut serials = BTreeSet::new();
        for list in CertificateRevocationListDer::pem_slice_iter(text) {
            let list = list.map_err(BadCredentials::Pem)?;
            serials.extend(serials_of(&list, own, roots, at).map_err(BadCredentials::List)?);
        }
        Ok(Self(serials))
    }

    /// Is this certificate revoked? One that cannot be read is.
    #[must_use]
    pub(super) fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        EndEntityCert::try_from(certificate).map_or(true, |parsed| self.0.contains(parsed.serial()))
    }
}

fn serials_of(
    list: &CertificateRevocationListDer<'_>,
    own: &CertificateDer<'_>,
    roots: &[TrustAnchor<'_>],
    at: u64,
) -> Result<Vec<Vec<u8>>, webpki::Error> {
    let parsed = BorrowedCertRevocationList::from_der(list)?;
    let serials: Result<Vec<_>, _> = parsed.into_iter().map(|entry| Ok(entry?.serial_number.to_vec())).collect();
    let checked: CertRevocationList<'_> = parsed.to_owned()?.into();
    let lists = [&checked];
    // Refused only without any list.
    let options = RevocationOptionsBuilder::new(&lists).map_err(|_| webpki::Error::UnknownRevocationStatus)?;
    // A list of another CA says nothing of the own certificate: then its standing is not known, and the list is refused.
    let options =
        options.with_depth(RevocationCheckDepth::EndEntity).with_status_policy(UnknownStatusPolicy::Deny).build();
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
    let usage = KeyUsage::client_auth();
    EndEntityCert::try_from(own)?.verify_for_usage(algorithms, roots, &[], at, usage, Some(options), None)?;
    serials
}

/// Whether the certificate that the other end of a connection has shown is still good, for as long as the connection goes on.
pub(in crate::gateway) struct Standing {
    keeper: Arc<Keeper>,
    shown: CertificateDer<'static>,
    news: watch::Receiver<()>,
    good: bool,
}

impl Standing {
    /// That of a certificate that has just been shown.
    #[must_use]
    pub(in crate::gateway) fn new(keeper: Arc<Keeper>, shown: CertificateDer<'static>) -> Self {
        // In this order: what comes after the look is news.
        let news = keeper.news();
        let good = !keeper.current().revokes(&shown);
        Self { keeper, shown, news, good }
    }

    /// Looks at the lists if there is a new file, which costs next to nothing if there is none. Once lost it stays lost.
    ///
    /// # Errors
    /// It has been revoked.
    pub(in crate::gateway) fn check(&mut self) -> io::Result<()> {
        if self.good && self.news.has_changed().unwrap_or(false) {
            self.news.mark_unchanged();
            self.good = !self.keeper.current().revokes(&self.shown);
        }
        if self.good { Ok(()) } else { Err(io::Error::other("the peer's certificate has been revoked")) }
    }

    /// Ends when it has been revoked.
    pub(in crate::gateway) async fn lost(mut self) {
        while self.check().is_ok() {
            if self.news.changed().await.is_err() {
                // Nobody looks at the file any more: the gateway ends.
                pending::<()>().await;
            }
            self.good = !self.keeper.current().revokes(&self.shown);
        }
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Standing({})", if self.good { "good" } else { "revoked" })
    }
}
