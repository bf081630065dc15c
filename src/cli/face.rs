//! Flags about what a router shows to its clients, the same for `gorgo proxy start` and `gorgo agent`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::exit::Failure;
use crate::config::face::{Audit, Face, FaceFlags};
use crate::config::{Problem, exposed};
use crate::gateway::{AuditTarget, GatewayConfig, TlsFiles};
use crate::model::Region;

/// TLS, keys and the audit log.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct FaceArgs {
    /// Listen for requests on a public address although nothing is encrypted
    #[arg(long)]
    pub(super) allow_public_plaintext: bool,
    /// Certificate with its chain (PEM): requests come over TLS; a renewed file is taken within a second
    #[arg(long, value_name = "FILE")]
    pub(super) tls_certificate: Option<String>,
    /// Private key of the certificate (PEM, not readable by everybody)
    #[arg(long, value_name = "FILE")]
    pub(super) tls_key: Option<String>,
    /// File (mode 0600) with the token that the admin API asks for; wanted where it does not listen on loopback
    #[arg(long, value_name = "FILE")]
    pub(super) admin_token_file: Option<String>,
    /// Take requests only with an API key of this file; `gorgo proxy keys` makes and revokes them
    #[arg(long, value_name = "FILE")]
    pub(super) api_keys: Option<String>,
    /// Where clients and regions are, for strategy `geo`: a file with `[places]` and `[clients]`, see the README
    #[arg(long, value_name = "FILE")]
    pub(super) places: Option<String>,
    /// Where to write refusals and what leaves the region: `stderr`, `off` or a file [default: stderr if there are residency
    /// classes, else off]
    #[arg(long, value_name = "WHERE")]
    pub(super) audit: Option<String>,
}

impl FaceArgs {
    /// The same for the configuration. An agent's region is its node's.
    pub(super) fn flags(&self, region: Option<&str>) -> FaceFlags {
        FaceFlags {
            region: region.map(str::to_owned),
            tls_certificate: self.tls_certificate.clone(),
            tls_key: self.tls_key.clone(),
            admin_token_file: self.admin_token_file.clone(),
            api_keys: self.api_keys.clone(),
            places: self.places.clone(),
            audit: self.audit.clone(),
        }
    }

    /// The problem with listening there, if strangers could read along and nobody asked for it.
    pub(super) fn exposed(&self, listen: SocketAddr, face: &Face) -> Option<Problem> {
        if self.allow_public_plaintext || face.tls.is_some() { None } else { exposed(listen) }
    }
}

/// Puts what applies into the gateway's own terms.
///
/// # Errors
/// A map that cannot be read.
pub(super) fn apply(face: Face, config: &mut GatewayConfig) -> Result<(), Failure> {
    if let Some(path) = &face.places {
        config.routing.places = Arc::new(super::measure::read_places(Path::new(path))?);
    }
    config.region = face.region.as_deref().map(Region::new);
    config.tls = face.tls.map(|(certificate, key)| TlsFiles { certificate: certificate.into(), key: key.into() });
    config.admin_token = face.admin_token_file.map(Into::into);
    config.api_keys = face.api_keys.map(Into::into);
    config.audit = match face.audit {
        Audit::Off => AuditTarget::Off,
        Audit::Stderr => AuditTarget::Stderr,
        Audit::File(path) => AuditTarget::File(path.into()),
    };
    Ok(())
}

/// The key that an engine wants, from its file.
pub(super) fn engine_key(path: Option<&str>) -> Result<Option<crate::model::Secret>, Failure> {
    let key = path.map(|path| crate::gateway::private_file::token(Path::new(path))).transpose();
    key.map_err(|error| Failure::usage(error.context("failed to take the API key of a replica")))
}
