//! TLS towards clients: versions 1.2 and 1.3, a certificate that is renewed without a restart.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, ensure};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::private_file::{self, Look, Mode, follow};

/// Largest certificate chain or key, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Where certificate and key are, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by the chain above it.
    pub certificate: PathBuf,
    /// Its private key, which strangers must not be able to read.
    pub key: PathBuf,
}

/// Whether listeners could accept TLS with these.
///
/// # Errors
/// The files cannot be read, or do not belong together.
pub fn check(files: &TlsFiles) -> anyhow::Result<()> {
    load(files, &rustls::crypto::ring::default_provider()).map(drop)
}

/// What listeners accept TLS with; it follows the files until `stopped`.
///
/// # Errors
/// The files cannot be read, or do not belong together.
pub(super) fn acceptor(files: &TlsFiles, stopped: CancellationToken) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let paths = vec![files.certificate.clone(), files.key.clone()];
    let look = Look::at(&paths);
    let current = Arc::new(Current(RwLock::new(load(files, &provider)?)));
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_cert_resolver(current.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let files = files.clone();
    tokio::spawn(follow(paths, look, stopped, move || current.renew(&files, &provider)));
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    /// Takes the files as they are now. A pair that does not match changes nothing: one of the two may not have been written yet.
    fn renew(&self, files: &TlsFiles, provider: &CryptoProvider) {
        match load(files, provider) {
            Ok(pair) => {
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
                tracing::info!(file = %files.certificate.display(), "certificate renewed");
            }
            Err(error) => tracing::error!("the certificate stays as it was: {error:#}"),
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn load(files: &TlsFiles, provider: &CryptoProvider) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain = chain(&files.certificate)?;
    let text = private_file::read(&files.key, Mode::Group, MAX_BYTES)?;
    let shown = files.key.display();
    let key =
        PrivateKeyDer::from_pem_slice(text.as_bytes()).with_context(|| format!("`{shown}` holds no private key"))?;
    let pair = CertifiedKey::from_der(chain, key, provider);
    Ok(Arc::new(pair.with_context(|| format!("`{shown}` is not the key of `{}`", files.certificate.display()))?))
}

fn chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("failed to open `{shown}`"))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(BufReader::new(file)).collect();
    let chain = chain.with_context(|| format!("`{shown}` holds no certificates"))?;
    ensure!(!chain.is_empty(), "`{shown}` holds no certificate");
    Ok(chain)
}
