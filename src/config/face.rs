//! What a router shows to its clients: where it stands, TLS, keys, and what is written down.

use std::collections::BTreeMap;
// The type only; sockets are opened elsewhere.
use core::net::SocketAddr;

use super::exposure::private;
use super::resolve::Resolver;

/// What was given on the command line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaceFlags {
    /// `--region`.
    pub region: Option<String>,
    /// `--tls-certificate`.
    pub tls_certificate: Option<String>,
    /// `--tls-key`.
    pub tls_key: Option<String>,
    /// `--api-keys`.
    pub api_keys: Option<String>,
    /// `--admin-token-file`.
    pub admin_token_file: Option<String>,
    /// `--places`.
    pub places: Option<String>,
    /// `--audit`.
    pub audit: Option<String>,
}

/// What applies.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    /// Region of the router; `None` = it does not know.
    pub region: Option<String>,
    /// Files of certificate and key; `None` = plain HTTP.
    pub tls: Option<(String, String)>,
    /// File with the admin API's token; `None` = none is asked for.
    pub admin_token_file: Option<String>,
    /// File of API keys; `None` = no key is wanted.
    pub api_keys: Option<String>,
    /// File of places of regions and clients; `None` = the built-in regions alone.
    pub places: Option<String>,
    /// Where audit lines go.
    pub audit: Audit,
}

/// Where audit lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    /// Nowhere.
    Off,
    /// To stderr.
    Stderr,
    /// To the end of this file.
    File(String),
}

impl Resolver<'_> {
    pub(super) fn face(&mut self, flags: &FaceFlags) -> Face {
        let file = self.document.file.proxy.clone();
        let token = flags.admin_token_file.clone();
        let admin_token_file = self.pick("proxy.admin_token_file", token, file.admin_token_file);
        let region = self.pick("proxy.region", flags.region.clone(), file.region);
        let certificate = self.pick("proxy.tls_certificate", flags.tls_certificate.clone(), file.tls_certificate);
        let key = self.pick("proxy.tls_key", flags.tls_key.clone(), file.tls_key);
        match (&certificate, &key) {
            (Some(_), None) => {
                self.wrong("proxy.tls_certificate", "--tls-certificate", "needs its key; wanted `tls_key` as well");
            }
            (None, Some(_)) => {
                self.wrong("proxy.tls_key", "--tls-key", "needs its certificate; wanted `tls_certificate` as well");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let api_keys = self.pick("proxy.api_keys", flags.api_keys.clone(), file.api_keys);
        let places = self.pick("proxy.places", flags.places.clone(), file.places);
        let audit = self.pick("proxy.audit", flags.audit.clone(), file.audit);
        let audit = self.audit(audit.as_deref());
        Face { region, tls: certificate.zip(key), admin_token_file, api_keys, places, audit }
    }

    /// What strangers can reach must not be open to them, and a token must not travel where they can read it.
    pub(super) fn admin(&mut self, admin: SocketAddr, face: &Face) {
        let ip = admin.ip().to_canonical();
        if ip.is_loopback() {
            return;
        }
        let message = if face.admin_token_file.is_none() {
            format!(
                "{admin} can be reached from outside and no token is asked for; wanted a loopback address, e.g. 127.0.0.1:8001, or `admin_token_file`"
            )
        } else if face.tls.is_none() && !private(ip) {
            format!(
                "{admin} can be reached by strangers and the token would not be encrypted; wanted a private or loopback address, or `tls_certificate` and `tls_key`"
            )
        } else {
            return;
        };
        self.wrong("proxy.admin", "--admin", &message);
    }

    /// Who has rules about regions wants to know how they are kept.
    fn audit(&self, written: Option<&str>) -> Audit {
        match written {
            Some("off") => Audit::Off,
            Some("stderr") => Audit::Stderr,
            Some(path) => Audit::File(path.to_owned()),
            None if self.document.file.residency.is_empty() => Audit::Off,
            None => Audit::Stderr,
        }
    }

    /// The classes of models, each of which has to be there.
    pub(super) fn residency_by_model(&mut self) -> BTreeMap<String, String> {
        let models = self.document.file.residency_by_model.clone();
        for (pattern, class) in &models {
            let path = format!("residency_by_model.{pattern}");
            self.pick(&path, None, Some(class.clone()));
            if !self.document.file.residency.contains_key(class) {
                self.wrong(&path, &path, &format!("no class `{class}` in [residency]; add it there"));
            }
        }
        models
    }
}

#[cfg(test)]
mod tests {
    use super::{Audit, Face, FaceFlags};
    use crate::config::{Flags, read, resolve};

    fn face(text: &str, face: FaceFlags) -> (Face, Vec<String>) {
        let (document, problems) = read(text);
        assert_eq!(problems, vec![], "the text itself is right");
        let (resolved, problems) = resolve(&document, &Flags { face, ..Flags::default() });
        (resolved.proxy.face, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn flags_go_before_the_file() {
        let text =
            "[proxy]\nregion = \"a\"\ntls_certificate = \"c\"\ntls_key = \"k\"\napi_keys = \"f\"\naudit = \"off\"\n";
        let of_file = Face {
            region: Some("a".into()),
            tls: Some(("c".into(), "k".into())),
            admin_token_file: None,
            api_keys: Some("f".into()),
            places: None,
            audit: Audit::Off,
        };
        assert_eq!(face(text, FaceFlags::default()), (of_file.clone(), vec![]));
        let flags = FaceFlags { tls_key: Some("k2".into()), audit: Some("log".into()), ..FaceFlags::default() };
        let of_both = Face { tls: Some(("c".into(), "k2".into())), audit: Audit::File("log".into()), ..of_file };
        assert_eq!(face(text, flags), (of_both, vec![]));
    }

    #[test]
    fn rules_about_regions_are_audited_unless_told_otherwise() {
        let rules = "[residency]\neu = [\"eu-*\"]\n";
        let cases = [
            ("", Audit::Off),
            (rules, Audit::Stderr),
            ("[residency]\neu = [\"eu-*\"]\n[proxy]\naudit = \"off\"\n", Audit::Off),
            ("[proxy]\naudit = \"stderr\"\n", Audit::Stderr),
        ];
        for (text, wanted) in cases {
            assert_eq!(face(text, FaceFlags::default()).0.audit, wanted, "{text}");
        }
    }

    #[test]
    fn an_admin_api_for_others_wants_a_token_and_a_private_way() {
        let (token, tls) = ("admin_token_file = \"t\"\n", "tls_certificate = \"c\"\ntls_key = \"k\"\n");
        let cases = [
            ("127.0.0.1:9001", "", true),
            ("[::1]:9001", "", true),
            ("10.0.0.5:9001", "", false),
            ("10.0.0.5:9001", tls, false),
            ("10.0.0.5:9001", token, true),
            ("203.0.113.9:9001", token, false),
            ("0.0.0.0:9001", token, false),
            ("203.0.113.9:9001", &format!("{token}{tls}"), true),
            ("0.0.0.0:9001", &format!("{token}{tls}"), true),
        ];
        for (admin, more, fine) in cases {
            let text = format!("[proxy]\nadmin = \"{admin}\"\n{more}");
            let problems = face(&text, FaceFlags::default()).1;
            assert_eq!(problems.is_empty(), fine, "{text}: {problems:?}");
        }
    }

    #[test]
    fn half_of_a_pair_and_unknown_classes_are_problems() {
        let text = "[proxy]\ntls_key = \"k\"\n[residency_by_model]\n\"medical-*\" = \"eu\"\n";
        let flags = FaceFlags { tls_certificate: Some("c".into()), ..FaceFlags::default() };
        assert_eq!(
            face(text, FaceFlags::default()).1,
            [
                "line 4: residency_by_model.medical-*: no class `eu` in [residency]; add it there",
                "line 2: proxy.tls_key: needs its certificate; wanted `tls_certificate` as well",
            ]
        );
        assert_eq!(face("", flags).1, ["--tls-certificate: needs its key; wanted `tls_key` as well"]);
    }
}
