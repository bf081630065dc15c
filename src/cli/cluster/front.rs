//! What `[proxy]` of `gorgo.toml` gives to routers on nodes: its files are read and checked here, before anything is done anywhere.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::cli::exit::Failure;
use crate::cli::measure::read_places;
use crate::cluster::front::{Front, FrontFile, FrontKind};
use crate::config::file::ProxySection;
use crate::gateway::{TlsFiles, check_tls, keys};
use crate::model::Secret;

/// Reads what is named there.
///
/// # Errors
/// A file that cannot be read, that others may change or read, or that a router would not start with.
pub(super) fn front(section: &ProxySection) -> Result<Front, Failure> {
    let mut files = Vec::new();
    match (&section.tls_certificate, &section.tls_key) {
        (None, None) => {}
        (Some(certificate), Some(key)) => {
            let pair = TlsFiles { certificate: certificate.into(), key: key.into() };
            check_tls(&pair).context("proxy.tls_certificate").map_err(Failure::usage)?;
            files.push(file(FrontKind::TlsCertificate, certificate)?);
            files.push(file(FrontKind::TlsKey, key)?);
        }
        (Some(_), None) => return Err(alone("tls_certificate", "tls_key")),
        (None, Some(_)) => return Err(alone("tls_key", "tls_certificate")),
    }
    if let Some(path) = &section.api_keys {
        keys::file::read(Path::new(path)).context("proxy.api_keys").map_err(Failure::usage)?;
        files.push(file(FrontKind::ApiKeys, path)?);
    }
    if let Some(path) = &section.places {
        read_places(Path::new(path))?;
        files.push(file(FrontKind::Places, path)?);
    }
    Ok(Front { files, audit: section.audit.clone() })
}

fn alone(found: &str, missing: &str) -> Failure {
    Failure::usage(anyhow!("proxy.{found}: needs `{missing}` as well"))
}

fn file(kind: FrontKind, path: &str) -> Result<FrontFile, Failure> {
    let text = fs::read_to_string(path).with_context(|| format!("failed to read `{path}`")).map_err(Failure::usage)?;
    Ok(FrontFile { kind, source: path.to_owned(), content: Secret::new(text) })
}
