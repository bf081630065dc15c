//! The cluster's own CA and what it has issued: `GORGO_STATE_DIR/clusters/NAME/ca.pem` and `certificates.json`, both 0600.
//!
//! The CA's key never leaves this folder; a node's key is made here and kept on the node only. Whoever has the folder can make himself a
//! node of the cluster, and whoever loses it makes a new CA with the next `cluster setup`. The CA itself has no end: it goes with its file.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use serde::{Deserialize, Serialize};
use webpki::EndEntityCert;

use super::certificate::{Certificates, Issued, Request, Revoked};
use super::plan::{Plan, sha256};
use super::step::{Action, Content};
use crate::model::{Identity, Part, Secret};

/// Version of the form of `certificates.json`.
const SCHEMA: &str = "gorgo.certificates/1";
/// What RFC 5280 (4.1.2.5) has for a certificate without a well-defined end.
const NO_END: (i32, u8, u8) = (9999, 12, 31);

/// `certificates.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema: String,
    issued: BTreeMap<String, Issued>,
    /// By serial number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    revoked: BTreeMap<String, Revoked>,
}

impl Default for Document {
    fn default() -> Self {
        Self { schema: SCHEMA.to_owned(), issued: BTreeMap::new(), revoked: BTreeMap::new() }
    }
}

/// A cluster's CA.
pub struct Authority {
    cluster: String,
    folder: PathBuf,
}

impl Authority {
    /// The CA of a cluster in `GORGO_STATE_DIR/clusters/NAME`. Nothing is read or made yet.
    #[must_use]
    pub fn new(folder: PathBuf, cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), folder }
    }

    /// What is known at `now`, in seconds since 1970. Changes nothing.
    ///
    /// # Errors
    /// A file that cannot be read or understood; it is not overwritten.
    pub fn look(&self, now: u64) -> anyhow::Result<Certificates> {
        let authority = read(&self.pem())?.map(|text| certificate_of(&text).map(sha256)).transpose();
        let authority = authority.with_context(|| format!("{} is no CA", self.pem().display()))?;
        let Document { issued, mut revoked, .. } = self.document()?;
        revoked.retain(|_, entry| entry.counts(now, authority.as_deref()));
        Ok(Certificates { now, authority, issued, revoked })
    }

    /// Notes at `now` that the certificates of these nodes, of their agents and their central routers, are worth nothing: those in use,
    /// and those of before whose life goes on. The nodes learn of it with their next certificates. Returns whose were noted.
    ///
    /// # Errors
    /// Nodes that have no certificate; then nothing is noted. A file that cannot be read, understood or written.
    pub fn revoke(&self, nodes: &[String], now: u64, dry_run: bool) -> anyhow::Result<BTreeSet<String>> {
        let Certificates { authority, issued, .. } = self.look(now)?;
        let mut document = self.document()?;
        let mut noted = BTreeSet::new();
        for node in nodes {
            let mut found = false;
            let parts = [Part::Agent, Part::Proxy].map(|part| Identity::new(&self.cluster, part, node));
            for identity in parts.into_iter().flatten().map(|identity| identity.to_string()) {
                let Some(issued) = issued.get(&identity) else { continue };
                for (serial, not_after) in issued.living(now, authority.as_deref()) {
                    found = true;
                    anyhow::ensure!(
                        !serial.is_empty(),
                        "an older gorgo made a certificate of `{node}` and did not note its number: delete {} and run \
                         `gorgo cluster setup`, which makes everything anew",
                        self.pem().display()
                    );
                    let authority = issued.authority.clone();
                    if let Entry::Vacant(free) = document.revoked.entry(serial) {
                        free.insert(Revoked { identity: identity.clone(), at: now, not_after, authority });
                        noted.insert(identity.clone());
                    }
                }
            }
            anyhow::ensure!(
                found,
                "`{node}` has no certificate of this cluster's CA: `gorgo cluster setup` makes them"
            );
        }
        if !dry_run && !noted.is_empty() {
            write(&self.records(), &serde_json::to_vec_pretty(&document)?)?;
        }
        Ok(noted)
    }

    /// Makes the certificates that the plans ask for, and puts them in. Makes the CA first if there is none.
    ///
    /// What was issued is on disk before this returns: a plan that is cut short is made anew from that.
    ///
    /// # Errors
    /// A file that cannot be read, understood or written.
    pub fn fill(&self, plans: &mut [Plan]) -> anyhow::Result<()> {
        let steps = plans.iter_mut().flat_map(|plan| &mut plan.steps);
        let mut wanted: Vec<&mut Content> = steps
            .filter_map(|step| match &mut step.action {
                Action::Put { content, .. } if matches!(content, Content::Certificate(_)) => Some(content),
                _ => None,
            })
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let authority = self.open()?;
        let mut document = self.document()?;
        let of_ca = sha256(&authority.certificate);
        for content in &mut wanted {
            let Content::Certificate(request) = &**content else { continue };
            // A request is made for its making: it says what time it is.
            let now = request.not_before;
            document.revoked.retain(|_, entry| entry.counts(now, Some(&of_ca)));
            let made = authority.issue(request, &document.revoked);
            let made = made.with_context(|| format!("cannot issue {}", request.identity))?;
            let before = document.issued.get(&request.identity.to_string());
            let record = Issued {
                addresses: request.addresses.clone(),
                not_after: request.not_after,
                authority: of_ca.clone(),
                sha256: sha256(&made.text),
                serial: made.serial,
                told: document.revoked.keys().cloned().collect(),
                earlier: before.map(|before| before.living(now, Some(&of_ca))).unwrap_or_default(),
            };
            document.issued.insert(request.identity.to_string(), record);
            **content = Content::Secret(Secret::new(made.text));
        }
        write(&self.records(), &serde_json::to_vec_pretty(&document)?)
    }

    /// One certificate with its key, the CA's certificate and the list of those that are revoked. It is not noted as issued.
    ///
    /// # Errors
    /// The CA can neither be read nor made.
    pub fn issue(&self, request: &Request) -> anyhow::Result<Secret> {
        let authority = self.open()?;
        let of_ca = sha256(&authority.certificate);
        let mut revoked = self.document()?.revoked;
        revoked.retain(|_, entry| entry.counts(request.not_before, Some(&of_ca)));
        Ok(Secret::new(authority.issue(request, &revoked)?.text))
    }

    fn pem(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn records(&self) -> PathBuf {
        self.folder.join("certificates.json")
    }

    /// A CA without its records no longer knows what it has revoked: it issues nothing more.
    fn document(&self) -> anyhow::Result<Document> {
        let path = self.records();
        let Some(text) = read(&path)? else {
            let pem = self.pem();
            anyhow::ensure!(
                read(&pem)?.is_none(),
                "{} is gone and with it what was revoked: put it back, or delete {} too, then `gorgo cluster setup` makes everything anew",
                path.display(),
                pem.display()
            );
            return Ok(Document::default());
        };
        let document: Document =
            serde_json::from_str(&text).with_context(|| format!("{} cannot be understood", path.display()))?;
        anyhow::ensure!(
            document.schema == SCHEMA,
            "{} has the form {:?}, wanted {SCHEMA:?}: another version of gorgo wrote it",
            path.display(),
            document.schema
        );
        Ok(document)
    }

    /// The CA as it is on disk; a new one if there is none.
    fn open(&self) -> anyhow::Result<Open> {
        let path = self.pem();
        if let Some(text) = read(&path)? {
            return Open::parse(&text, &self.cluster).with_context(|| format!("{} is no CA", path.display()));
        }
        let (open, text) = Open::make(&self.cluster)?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.with_context(|| format!("cannot make {}", self.folder.display()))?;
        // First, as there is no CA without them.
        write(&self.records(), &serde_json::to_vec_pretty(&self.document()?)?)?;
        write(&path, text.as_bytes())?;
        tracing::info!(ca = %path.display(), "made the cluster's CA");
        Ok(open)
    }
}

/// A certificate that has just been made.
struct Made {
    /// Key, certificate, CA and list, PEM.
    text: String,
    /// Hexadecimal.
    serial: String,
}

/// A CA that can issue.
struct Open {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    certificate: String,
}

impl Open {
    fn make(cluster: &str) -> anyhow::Result<(Self, String)> {
        let key = KeyPair::generate()?;
        let params = authority_params(cluster);
        let certificate = params.self_signed(&key)?.pem();
        let text = format!("{}{certificate}", key.serialize_pem());
        Ok((Self { issuer: Issuer::new(params, key), certificate }, text))
    }

    /// Key and certificate of a CA that [`Open::make`] made: the other parameters follow from the cluster's name.
    fn parse(text: &str, cluster: &str) -> anyhow::Result<Self> {
        let certificate = certificate_of(text)?.to_owned();
        let key = KeyPair::from_pem(text)?;
        Ok(Self { issuer: Issuer::new(authority_params(cluster), key), certificate })
    }

    /// Key, certificate and CA of one process, for servers and clients, with the list of what is revoked if there is any.
    fn issue(&self, request: &Request, revoked: &BTreeMap<String, Revoked>) -> anyhow::Result<Made> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        (params.not_before, params.not_after) = (at(request.not_before), at(request.not_after));
        params.distinguished_name = named(&request.identity.to_string());
        params.subject_alt_names = vec![SanType::URI(request.identity.to_string().try_into()?)];
        params.subject_alt_names.extend(request.addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        // The serial number is made from the public key, which is new each time: no two are the same.
        let certificate = params.signed_by(&key, &self.issuer)?;
        let serial = hex(EndEntityCert::try_from(certificate.der())?.serial());
        let list = if revoked.is_empty() { String::new() } else { self.list(request.not_before, revoked)? };
        Ok(Made { text: format!("{}{}{}{list}", key.serialize_pem(), certificate.pem(), self.certificate), serial })
    }

    /// The list of what is revoked, PEM. `now`: seconds since 1970.
    fn list(&self, now: u64, revoked: &BTreeMap<String, Revoked>) -> anyhow::Result<String> {
        let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        let entries = revoked.iter().map(|(serial, entry)| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(bytes(serial)?),
                revocation_time: at(entry.at),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let (year, month, day) = NO_END;
        let list = CertificateRevocationListParams {
            this_update: at(now),
            next_update: date_time_ymd(year, month, day),
            crl_number: SerialNumber::from(now),
            issuing_distribution_point: None,
            revoked_certs: entries.collect::<anyhow::Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    let pairs =
        (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    pairs.collect::<Option<_>>().ok_or_else(|| anyhow!("`{hex}` is no serial number"))
}

fn authority_params(cluster: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let (year, month, day) = NO_END;
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, month, day));
    params.distinguished_name = named(&format!("gorgo cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// The part of a PEM file that holds its first certificate.
fn certificate_of(text: &str) -> anyhow::Result<&str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    text.find(BEGIN).map(|at| &text[at..]).ok_or_else(|| anyhow!("it holds no certificate"))
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read {}", path.display()))),
    }
}

/// In one step: written beside, synced, renamed.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let write = || {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
