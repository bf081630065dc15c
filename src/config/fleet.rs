//! The control plane's part of `gorgo.toml`: the cluster's name, its provider, and the machines that it has or is to have.

// The type only; sockets are opened elsewhere.
use core::net::IpAddr;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::engine::{EngineOptions, options};
use super::file::{ProviderSection, ProxySection};
use super::keys::{self, Kind, Section};
use super::problem::Problem;
use super::read::Document;
use super::resolve::{Origin, Resolver, Setting, parsed};
use super::slo::SloSection;

/// What agents, and the proxies beside them, decide by where nothing is said.
pub const AGENTS_STRATEGY: &str = "predictive";

/// Kinds of provider that can be named.
pub const PROVIDERS: [&str; 3] = ["lambda", "hosts", "local"];
/// Longest name of a node or a cluster, characters: Lambda takes 64 for a machine, and rulesets carry the cluster's name and a region.
const LONGEST_NAME: usize = 40;

/// Where machines come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// Rented at Lambda Cloud.
    #[default]
    Lambda,
    /// Your own, reached over SSH.
    Hosts,
    /// Processes on this machine.
    Local,
}

impl ProviderKind {
    /// Its name, one of [`PROVIDERS`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lambda => "lambda",
            Self::Hosts => "hosts",
            Self::Local => "local",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Lambda, Self::Hosts, Self::Local].into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A `[[provider.hosts]]` as written; the meaning of each key stands in [`keys::SECTIONS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of keys documents each; a test keeps the two equal")]
pub struct HostEntry {
    pub name: Option<String>,
    pub address: Option<String>,
    pub region: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub key: Option<String>,
    #[serde(rename = "type")]
    pub instance_type: Option<String>,
}

/// A `[[node]]` as written; the meaning of each key stands in [`keys::SECTIONS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of keys documents each; a test keeps the two equal")]
pub struct NodeEntry {
    pub name: Option<String>,
    #[serde(rename = "type")]
    pub instance_type: Option<String>,
    pub region: Option<String>,
}

/// How to log in where a machine itself does not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Login name; `None` = the provider's usual one, else what ssh thinks.
    pub user: Option<String>,
    /// Port of sshd; `None` = what ssh thinks.
    pub port: Option<u16>,
    /// Private key file; `None` = the agent and ssh's own choice.
    pub key: Option<String>,
}

/// What the commands of the control plane work on; to be used only if there was no problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// The cluster's name.
    pub cluster: String,
    /// Where its machines come from.
    pub provider: ProviderKind,
    /// Strategy of the agents; checked by who uses it.
    pub strategy: String,
    /// Kind of engine that the nodes run, if it is said.
    pub engine: Option<String>,
    /// Model that they serve, if it is said.
    pub model: Option<String>,
    /// How their containers are started.
    pub engine_options: EngineOptions,
    /// Most requests running per engine, if it is said.
    pub max_concurrent: Option<u32>,
    /// How to log in on machines that do not say it themselves.
    pub login: Login,
    /// Weights of the strategy, as written.
    pub weights: BTreeMap<String, f64>,
    /// The machines of `hosts`; each has a name, an address and a region.
    pub hosts: Vec<HostEntry>,
    /// The machines that a launch without names gets; each has a name, a type and a region.
    pub nodes: Vec<NodeEntry>,
    /// `[proxy]` as written: routers on nodes have its files, too.
    pub proxy: ProxySection,
    /// `[slo]` as written.
    pub slo: SloSection,
    /// Region patterns by residency class, as written: routers on nodes keep the same rules.
    pub residency: BTreeMap<String, Vec<String>>,
    /// Residency class by pattern of a model's name, as written.
    pub residency_by_model: BTreeMap<String, String>,
    /// More addresses that a node's connections come from, by its name.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Every value with its origin.
    pub settings: Vec<Setting>,
}

/// Puts `--provider` over the file over the defaults. Problems of the file's own spelling are [`read()`](super::read())'s.
#[must_use]
pub fn fleet(document: &Document, provider: Option<ProviderKind>) -> (Fleet, Vec<Problem>) {
    let file = &document.file;
    let mut resolver = Resolver::new(document);
    let cluster = resolver.pick("cluster.name", None, file.cluster.name.clone());
    let cluster = cluster.unwrap_or_else(|| parsed("cluster.name"));
    if let Some(message) = wrong_name(&cluster) {
        resolver.wrong("cluster.name", "cluster.name", &message);
    }
    let kind = file.provider.kind.clone();
    let kind = resolver.pick("provider.kind", provider.map(|kind| kind.name().to_owned()), kind);
    // What is no kind at all was a problem of the text already.
    let provider = kind.as_deref().and_then(ProviderKind::by_name).unwrap_or_default();
    let login = login(&mut resolver, &file.provider);
    let engine_options = options(&mut resolver, &file.engine, file.cluster.engine.as_deref());
    entries(&mut resolver, "provider.hosts", &file.provider.hosts);
    entries(&mut resolver, "node", &file.node);
    if provider == ProviderKind::Hosts && file.provider.hosts.is_empty() {
        let message = "has no machine, and provider `hosts` knows no others; wanted a [[provider.hosts]] for each";
        resolver.problems.push(Problem::new("provider.hosts", message));
    }
    let addresses = addresses(&mut resolver, &file.addresses);
    let fleet = Fleet {
        cluster,
        provider,
        strategy: file.cluster.strategy.clone().unwrap_or_else(|| AGENTS_STRATEGY.to_owned()),
        engine: file.cluster.engine.clone(),
        model: file.cluster.model.clone(),
        engine_options,
        max_concurrent: file.routing.max_concurrent,
        login,
        weights: file.routing.weights.clone(),
        hosts: file.provider.hosts.clone(),
        nodes: file.node.clone(),
        proxy: file.proxy.clone(),
        slo: file.slo.clone(),
        residency: file.residency.clone(),
        residency_by_model: file.residency_by_model.clone(),
        addresses,
        settings: resolver.settings,
    };
    (fleet, resolver.problems)
}

/// `user`, `port` and `key` of `[provider]`.
fn login(resolver: &mut Resolver<'_>, section: &ProviderSection) -> Login {
    if section.port.is_some() {
        resolver.pick("provider.port", None, section.port);
    }
    for (path, text) in [("provider.user", &section.user), ("provider.key", &section.key)] {
        let Some(text) = text else { continue };
        resolver.pick(path, None, Some(text));
        if let Some(message) = wrong_text(text) {
            resolver.wrong(path, path, message);
        }
    }
    Login { user: section.user.clone(), port: section.port, key: section.key.clone() }
}

/// What no text that becomes an argument can be.
fn wrong_text(text: &str) -> Option<&'static str> {
    match text {
        "" => Some("is empty"),
        text if text.starts_with('-') => Some("begins with `-`, which programs take for an option"),
        _ => None,
    }
}

/// Reads what is written as an address.
fn addresses(resolver: &mut Resolver<'_>, written: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<IpAddr>> {
    let mut read = BTreeMap::new();
    for (node, texts) in written {
        let path = format!("addresses.{node}");
        resolver.pick(&path, None, Some(texts.clone()));
        let addresses: Result<Vec<IpAddr>, &String> = texts.iter().map(|text| text.parse().map_err(|_| text)).collect();
        match addresses {
            Ok(addresses) => _ = read.insert(node.clone(), addresses),
            Err(text) => {
                let message = format!("`{text}` is no IP address; wanted e.g. [\"198.51.100.7\"]");
                resolver.wrong(&path, &path, &message);
            }
        }
    }
    read
}

/// What a node or a cluster cannot be called, if `name` is such a name. Names become parts of paths, tags and host names.
#[must_use]
pub fn wrong_name(name: &str) -> Option<String> {
    let plain = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (!plain || name.len() > LONGEST_NAME).then(|| {
        format!(
            "`{name}` cannot be a name; wanted up to {LONGEST_NAME} letters, digits, `-`, `_` and `.`, the first a letter or digit"
        )
    })
}

/// Notes what each table sets, and what is missing or cannot be.
fn entries<T: Serialize>(resolver: &mut Resolver<'_>, path: &str, written: &[T]) {
    let mut names: Vec<String> = Vec::new();
    for (i, entry) in written.iter().enumerate() {
        let Ok(serde_json::Value::Object(values)) = serde_json::to_value(entry) else { continue };
        for key in known(path) {
            let place = format!("{path}[{i}].{}", key.name);
            let line = [&place, &format!("{path}[{i}]")].into_iter().find_map(|it| resolver.document.lines.get(it));
            let line = line.copied();
            let mut wrong = |message: String| resolver.problems.push(Problem::new(&place, message).at(line));
            let Some(value) = values.get(key.name).filter(|value| !value.is_null()) else {
                if key.required {
                    wrong("is missing".to_owned());
                }
                continue;
            };
            let text = value.as_str();
            if let Some(message) = text.and_then(wrong_text) {
                wrong(message.to_owned());
            } else if let Some(message) = text.filter(|_| key.name == "name").and_then(wrong_name) {
                wrong(message);
            } else if let Some(name) = text.filter(|_| key.name == "name") {
                match names.iter().position(|other| other == name) {
                    Some(first) => wrong(format!("the name `{name}` is taken by {path}[{first}]")),
                    None => names.push(name.to_owned()),
                }
            }
            let origin = Origin::File(line.unwrap_or(1));
            resolver.settings.push(Setting { key: place, value: value.clone(), origin });
        }
        names.resize(i + 1, String::new());
    }
}

/// The keys of a repeatable table.
fn known(path: &str) -> &'static [keys::Key] {
    let (table, below) = path.split_once('.').unwrap_or((path, ""));
    let own = keys::section(table).map_or(&[][..], Section::keys);
    match own.iter().find(|key| key.name == below).map(|key| key.kind) {
        Some(Kind::Tables(keys)) => keys,
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Fleet, Login, PROVIDERS, ProviderKind, fleet, wrong_name};
    use crate::config::problem::Problem;
    use crate::config::read::read;

    fn resolved(text: &str, provider: Option<ProviderKind>) -> (Fleet, String) {
        let (document, problems) = read(text);
        assert_eq!(problems, vec![], "the text itself is right");
        let (fleet, problems) = fleet(&document, provider);
        (fleet, problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn an_empty_file_is_a_cluster_at_lambda_without_machines() {
        let (fleet, problems) = resolved("", None);
        assert_eq!((fleet.cluster.as_str(), fleet.provider, problems.as_str()), ("gorgo", ProviderKind::Lambda, ""));
        assert_eq!((fleet.hosts.len(), fleet.nodes.len()), (0, 0));
    }

    #[test]
    fn every_provider_has_its_name() {
        assert_eq!(PROVIDERS.map(|name| ProviderKind::by_name(name).expect("known").name()), PROVIDERS);
    }

    #[test]
    fn a_file_names_machines_and_the_flag_wins() {
        let text = "[cluster]\nname = \"lab\"\n[provider]\nkind = \"hosts\"\n[[provider.hosts]]\nname = \"node1\"\naddress = \"10.77.0.11\"\n\
                    user = \"ubuntu\"\nkey = \"~/.ssh/id_ed25519\"\nregion = \"us-east-1\"\nport = 2222\ntype = \"a100\"\n\
                    [[node]]\nname = \"east\"\ntype = \"gpu_1x_a100\"\nregion = \"us-east-1\"\n";
        let (fleet, problems) = resolved(text, None);
        assert_eq!((fleet.cluster.as_str(), fleet.provider, problems.as_str()), ("lab", ProviderKind::Hosts, ""));
        assert_eq!((fleet.hosts[0].port, fleet.nodes[0].region.as_deref()), (Some(2222), Some("us-east-1")));
        let shown: Vec<String> =
            fleet.settings.iter().map(|it| format!("{} {} ({})", it.key, it.value, it.origin)).collect();
        assert_snapshot!(shown.join("\n"), @r#"
        cluster.name "lab" (line 2)
        provider.kind "hosts" (line 4)
        engine.image null (default)
        engine.arguments null (default)
        engine.kv_events true (default)
        provider.hosts[0].name "node1" (line 6)
        provider.hosts[0].address "10.77.0.11" (line 7)
        provider.hosts[0].region "us-east-1" (line 10)
        provider.hosts[0].port 2222 (line 11)
        provider.hosts[0].user "ubuntu" (line 8)
        provider.hosts[0].key "~/.ssh/id_ed25519" (line 9)
        provider.hosts[0].type "a100" (line 12)
        node[0].name "east" (line 14)
        node[0].type "gpu_1x_a100" (line 15)
        node[0].region "us-east-1" (line 16)
        "#);
        assert_eq!(resolved(text, Some(ProviderKind::Lambda)).0.provider, ProviderKind::Lambda);
    }

    #[test]
    fn what_cannot_be_is_told_by_key_and_line() {
        let text = "[cluster]\nname = \"../lab\"\n[provider]\nkind = \"hosts\"\n[[node]]\nname = \"a\"\n[[node]]\nname = \"a\"\ntype = \"\"\nregion = \"-eu\"\n";
        assert_snapshot!(resolved(text, None).1, @"
        line 2: cluster.name: `../lab` cannot be a name; wanted up to 40 letters, digits, `-`, `_` and `.`, the first a letter or digit
        line 5: node[0].type: is missing
        line 5: node[0].region: is missing
        line 8: node[1].name: the name `a` is taken by node[0]
        line 9: node[1].type: is empty
        line 10: node[1].region: begins with `-`, which programs take for an option
        provider.hosts: has no machine, and provider `hosts` knows no others; wanted a [[provider.hosts]] for each
        ");
        let text = "[addresses]\na = [\"198.51.100.7\", \"fd00::1\"]\nb = [\"nat.example\"]\n";
        let (fleet, problems) = resolved(text, None);
        assert_eq!(fleet.addresses["a"].len(), 2);
        assert_snapshot!(problems, @r#"line 3: addresses.b: `nat.example` is no IP address; wanted e.g. ["198.51.100.7"]"#);
        let text = "[[provider.hosts]]\naddress = \"-oProxyCommand=x\"\nregion = \"eu\"\n";
        assert_snapshot!(resolved(text, None).1, @"
        line 1: provider.hosts[0].name: is missing
        line 2: provider.hosts[0].address: begins with `-`, which programs take for an option
        ");
    }

    #[test]
    fn the_provider_says_how_to_log_in_where_a_machine_does_not() {
        let (fleet, problems) = resolved("[provider]\nuser = \"root\"\nport = 2222\nkey = \"~/.ssh/lab\"\n", None);
        let login = Login { user: Some("root".into()), port: Some(2222), key: Some("~/.ssh/lab".into()) };
        assert_eq!((fleet.login, problems.as_str()), (login, ""));
        assert_snapshot!(resolved("[provider]\nuser = \"-oProxyCommand=x\"\nkey = \"\"\n", None).1, @"
        line 2: provider.user: begins with `-`, which programs take for an option
        line 3: provider.key: is empty
        ");
        assert_eq!(resolved("", None).0.login, Login::default());
    }

    #[test]
    fn names_are_safe_in_paths_and_host_names() {
        for name in ["east", "node-1", "a.b_c", "7"] {
            assert_eq!(wrong_name(name), None);
        }
        for name in ["", ".", "..", "-a", "a/b", "a b", "ü", "a\n", &"a".repeat(41)] {
            assert!(wrong_name(name).is_some(), "{name:?}");
        }
    }
}
