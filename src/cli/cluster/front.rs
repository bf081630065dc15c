//! What `[proxy]`, `[residency]` and `[residency_by_model]` of `gorgo.toml` give to routers on nodes: files are read and everything is
//! checked here, before anything is done anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::measure::read_places;
use crate::cluster::front::{Front, FrontFile, FrontKind};
use crate::config::Fleet;
use crate::config::slo::SloSection;
use crate::gateway::{TlsFiles, check_tls, keys};
use crate::model::Secret;

/// Reads what is named there.
///
/// # Errors
/// A file that cannot be read, that others may change or read, or that a router would not start with.
pub(super) fn front(fleet: &Fleet) -> Result<Front, Failure> {
    let section = &fleet.proxy;
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
    files.extend(rules(fleet)?);
    Ok(Front { files, audit: section.audit.clone() })
}

/// The rules about regions, as a configuration file that holds nothing else; `None` = there are none.
fn rules(fleet: &Fleet) -> Result<Option<FrontFile>, Failure> {
    let (residency, residency_by_model) = (&fleet.residency, &fleet.residency_by_model);
    if residency.is_empty() && residency_by_model.is_empty() {
        return Ok(None);
    }
    if let Some((pattern, class)) = residency_by_model.iter().find(|(_, class)| !residency.contains_key(*class)) {
        let problem = anyhow!("residency_by_model.{pattern}: no class `{class}` in [residency]; add it there");
        return Err(Failure::usage(problem));
    }
    let text = toml::to_string(&Rules { residency, residency_by_model }).map_err(Failure::usage)?;
    let source = "`[residency]`".to_owned();
    Ok(Some(FrontFile { kind: FrontKind::Rules, source, content: Secret::new(text) }))
}

/// What of `gorgo.toml` a router on a node has.
#[derive(Serialize)]
struct Rules<'a> {
    residency: &'a BTreeMap<String, Vec<String>>,
    residency_by_model: &'a BTreeMap<String, String>,
}

/// What routers on nodes do without although it is written, in sentences.
pub(super) fn not_carried(fleet: &Fleet) -> impl Iterator<Item = &'static str> {
    let token = "`proxy.admin_token_file` does not reach nodes: the admin API of routers there listens on loopback only and asks for no token; \
                 `gorgo proxy --remote NODE` reaches it through SSH";
    let slo =
        "`[slo]` does not reach nodes: routers there refuse nobody for being late, and know no classes of service";
    let told = [(fleet.proxy.admin_token_file.is_some(), token), (fleet.slo != SloSection::default(), slo)];
    told.into_iter().filter_map(|(written, told)| written.then_some(told))
}

fn alone(found: &str, missing: &str) -> Failure {
    Failure::usage(anyhow!("proxy.{found}: needs `{missing}` as well"))
}

fn file(kind: FrontKind, path: &str) -> Result<FrontFile, Failure> {
    let text = fs::read_to_string(path).with_context(|| format!("failed to read `{path}`")).map_err(Failure::usage)?;
    Ok(FrontFile { kind, source: path.to_owned(), content: Secret::new(text) })
}

#[cfg(test)]
mod tests {
    use super::{front, not_carried};
    use crate::cluster::front::FrontKind;
    use crate::config::{Flags, fleet, read, resolve};

    #[test]
    fn routers_on_nodes_resolve_the_same_rules() {
        let text = "[cluster]\nname = \"lab\"\n[residency]\neu-only = [\"europe-*\", \"ch\"]\n\"a b\" = []\n\
                    [residency_by_model]\n\"medical-*\" = \"eu-only\"\n[proxy]\naudit = \"off\"\n";
        let (document, problems) = read(text);
        assert_eq!(problems, vec![]);
        let front = front(&fleet(&document, None).0).expect("the rules are right");
        let [rules] = &front.files[..] else { panic!("one file, not {:?}", front.files) };
        assert_eq!(rules.kind, FrontKind::Rules);
        let (carried, problems) = read(rules.content.reveal());
        assert_eq!(problems, vec![], "{}", rules.content.reveal());
        let [here, there] = [&document, &carried].map(|document| resolve(document, &Flags::default()));
        assert_eq!((&here.1, &there.1), (&vec![], &vec![]));
        assert_eq!(there.0.proxy.residency, here.0.proxy.residency);
        assert_eq!(there.0.proxy.residency_by_model, here.0.proxy.residency_by_model);
        assert_eq!(
            (here.0.proxy.residency.len(), here.0.proxy.residency_by_model.len()),
            (2, 1),
            "not two times nothing"
        );
    }

    #[test]
    fn there_are_no_rules_without_classes_and_none_for_a_class_that_is_not_there() {
        let of = |text: &str| front(&fleet(&read(text).0, None).0);
        assert_eq!(of("[residency]\n").expect("nothing wrong").files, vec![]);
        let failure = of("[residency_by_model]\n\"m-*\" = \"eu\"\n").expect_err("no such class");
        assert!(failure.to_string().contains("residency_by_model.m-*: no class `eu` in [residency]"), "{failure}");
    }

    #[test]
    fn what_stays_here_is_told() {
        let told = |text: &str| not_carried(&fleet(&read(text).0, None).0).collect::<Vec<_>>();
        assert_eq!(told("[proxy]\naudit = \"off\"\n"), Vec::<&str>::new());
        let [token, slo] = told("[proxy]\nadmin_token_file = \"token\"\n[slo]\nttft_ms = 9000\n")[..] else {
            panic!("both stay here")
        };
        assert!(token.starts_with("`proxy.admin_token_file` does not reach nodes"), "{token}");
        assert!(slo.starts_with("`[slo]` does not reach nodes"), "{slo}");
    }
}
