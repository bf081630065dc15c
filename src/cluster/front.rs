//! What `[proxy]` and `[residency]` of `gorgo.toml` give the routers on nodes: TLS and API keys towards clients, a map of clients, rules about
//! regions, the audit log. Pure; the command line reads the files.
//!
//! Each router has copies of its own, since each runs as a user of its own: root's files, 0600, handed over like its certificate. What a gateway
//! follows (certificate, key, API keys) keeps its name when its content changes and is taken without a restart. A map and rules are read at
//! the start, so a checksum stands in their names: another map is another definition of the service, which is started anew.
//!
//! The token of the admin API is not among them: on nodes that listens on loopback only, and is reached through SSH.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::layout::{CONFIGURATION, Role, STATE};
use super::plan::sha256;
use super::script;
use super::step::{Content, Step};
use crate::model::Secret;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontKind {
    /// Certificate and chain towards clients.
    TlsCertificate,
    /// Its key.
    TlsKey,
    /// Clients' API keys, as hashes.
    ApiKeys,
    /// Where clients and regions are.
    Places,
    /// Residency classes and the regions of each, as a configuration file with nothing else in it.
    Rules,
}

impl FrontKind {
    /// The argument that names it.
    const fn flag(self) -> &'static str {
        match self {
            Self::TlsCertificate => "--tls-certificate",
            Self::TlsKey => "--tls-key",
            Self::ApiKeys => "--api-keys",
            Self::Places => "--places",
            Self::Rules => "--config",
        }
    }

    /// What it is to people.
    const fn what(self) -> &'static str {
        match self {
            Self::TlsCertificate => "TLS certificate",
            Self::TlsKey => "TLS key",
            Self::ApiKeys => "API keys",
            Self::Places => "map of clients",
            Self::Rules => "residency rules",
        }
    }
}

/// A file that routers are to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontFile {
    /// What it is for.
    pub kind: FrontKind,
    /// Its name here, for people.
    pub source: String,
    /// What it holds.
    pub content: Secret,
}

impl FrontFile {
    fn sha256(&self) -> String {
        sha256(self.content.reveal())
    }

    /// Where it lies on a node.
    #[must_use]
    pub fn path(&self, role: Role) -> String {
        let name = match self.kind {
            FrontKind::TlsCertificate => "tls-certificate.pem".to_owned(),
            FrontKind::TlsKey => "tls-key.pem".to_owned(),
            FrontKind::ApiKeys => "api-keys.toml".to_owned(),
            FrontKind::Places => format!("places-{}.toml", &self.sha256()[..12]),
            FrontKind::Rules => format!("rules-{}.toml", &self.sha256()[..12]),
        };
        format!("{}{name}", prefix(role))
    }
}

/// How the names of a service's own files begin.
fn prefix(role: Role) -> String {
    format!("{CONFIGURATION}/{role}-")
}

/// What routers show to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// At most one of each kind; a certificate comes with its key.
    pub files: Vec<FrontFile>,
    /// Where audit lines go: `off`, `stderr` (the journal), or the name of a file in the service's own folder; `None` = as a router has it
    /// without being told.
    pub audit: Option<String>,
}

impl Front {
    /// Clients come over TLS.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.files.iter().any(|file| file.kind == FrontKind::TlsCertificate)
    }

    /// Something is written down about requests that leave a region, so a router has to know its own.
    #[must_use]
    pub(super) fn needs_region(&self) -> bool {
        self.audit.is_some() || self.files.iter().any(|file| file.kind == FrontKind::Rules)
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls() { "https" } else { "http" }
    }

    /// Arguments of a router.
    #[must_use]
    pub fn argv(&self, role: Role) -> Vec<String> {
        let files = self.files.iter().flat_map(|file| [file.kind.flag().to_owned(), file.path(role)]);
        let audit = self.audit.iter().flat_map(|audit| ["--audit".to_owned(), audit_target(audit, role)]);
        files.chain(audit).collect()
    }

    /// Paths of a router's files on its node.
    #[must_use]
    pub fn paths(&self, role: Role) -> Vec<String> {
        self.files.iter().map(|file| file.path(role)).collect()
    }

    /// Brings what is missing or was changed. Each file takes its place in one step, when it is whole and its service's own.
    pub(super) fn steps(&self, role: Role, facts: &Facts) -> Vec<Step> {
        let changed = self.changed(role, facts);
        let bring = |file: &FrontFile| {
            let (path, what) = (file.path(role), file.kind.what());
            let text = format!("upload {} as the {what} of {role}", file.source);
            let content = Content::Secret(file.content.clone());
            let take = format!("put {path} in its place");
            [
                Step::put(&format!("{role} {what}"), text, &format!("{path}.new"), content),
                Step::run(&format!("{role} {what} place"), take, script::take_certificate(role, &path)),
            ]
        };
        changed.into_iter().flat_map(bring).collect()
    }

    fn changed(&self, role: Role, facts: &Facts) -> Vec<&FrontFile> {
        self.files.iter().filter(|file| facts.file(&file.path(role)) != Some(&file.sha256())).collect()
    }

    /// What is there and not wanted any more, to be removed once the service runs without it.
    pub(super) fn leftovers(&self, role: Role, facts: &Facts) -> Vec<Step> {
        let wanted: BTreeSet<String> = self.paths(role).into_iter().collect();
        // What a run that was cut short has left is overwritten where its file is brought again.
        let coming: BTreeSet<String> =
            self.changed(role, facts).into_iter().map(|file| format!("{}.new", file.path(role))).collect();
        let there = present(role, facts).into_iter().filter(|path| !wanted.contains(path) && !coming.contains(path));
        there.map(|path| forget(role, &path)).collect()
    }

    /// Files of an installed router that are not as they are here, in words.
    pub(super) fn outdated(&self, role: Role, facts: &Facts) -> Vec<String> {
        // Engines show nothing to clients.
        if role == Role::Engine || !facts.service(role).installed {
            return Vec::new();
        }
        let told = |file: &FrontFile| {
            let there =
                if facts.has_record(&file.path(role)) { "are not those of" } else { "are missing; wanted those of" };
            format!("{} of {}: {there} {}", file.kind.what(), role.unit(), file.source)
        };
        self.changed(role, facts).into_iter().map(told).collect()
    }
}

/// All files of this kind that a service has on its node.
pub(super) fn present(role: Role, facts: &Facts) -> Vec<String> {
    let folder = CONFIGURATION.trim_start_matches("/etc/");
    let paths =
        facts.files.keys().filter_map(|name| name.strip_prefix(folder)).map(|name| format!("{CONFIGURATION}{name}"));
    paths.filter(|path| path.starts_with(&prefix(role))).collect()
}

/// Removes one.
pub(super) fn forget(role: Role, path: &str) -> Step {
    Step::run(&format!("{role} forget file"), format!("remove {path}"), script::forget(path))
}

/// A service writes nothing outside its own folder.
fn audit_target(audit: &str, role: Role) -> String {
    match audit {
        "off" | "stderr" => audit.to_owned(),
        path => format!("{STATE}/{role}/{}", path.rsplit('/').next().unwrap_or(path)),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Front, FrontFile, FrontKind};
    use crate::cluster::desired::Desired;
    use crate::cluster::facts::Facts;
    use crate::cluster::layout::Role;
    use crate::cluster::observe::observe;
    use crate::cluster::plan::{agent_restart, dry_run, remove_proxy, setup};
    use crate::cluster::testing::{FakeNode, assert_settled, fleet, router_on, set_up};
    use crate::model::Secret;

    fn file(kind: FrontKind, source: &str, content: &str) -> FrontFile {
        FrontFile { kind, source: source.into(), content: Secret::new(content.into()) }
    }

    fn front(keys: &str, map: &str) -> Front {
        let files = vec![
            file(FrontKind::TlsCertificate, "cert.pem", "hush certificate"),
            file(FrontKind::TlsKey, "key.pem", "hush key"),
            file(FrontKind::ApiKeys, "keys.toml", keys),
            file(FrontKind::Places, "map.toml", map),
            file(FrontKind::Rules, "`[residency]`", "hush rules"),
        ];
        Front { files, audit: Some("logs/audit.jsonl".into()) }
    }

    async fn see(fake: &FakeNode) -> Facts {
        observe(&fake.spec, fake).await.unwrap()
    }

    async fn steps(desired: &Desired, fake: &FakeNode) -> String {
        dry_run(&[setup(desired, &fake.spec, &see(fake).await)])
    }

    fn names(fake: &FakeNode, role: &str) -> Vec<String> {
        let prefix = format!("/etc/gorgo/{role}-");
        fake.change(|state| {
            state.files.keys().filter_map(|path| path.strip_prefix(&prefix)).map(str::to_owned).collect()
        })
    }

    #[test]
    fn arguments_and_paths_are_a_services_own() {
        assert_snapshot!(front("k", "m").argv(Role::Proxy).join("\n"), @r"
        --tls-certificate
        /etc/gorgo/proxy-tls-certificate.pem
        --tls-key
        /etc/gorgo/proxy-tls-key.pem
        --api-keys
        /etc/gorgo/proxy-api-keys.toml
        --places
        /etc/gorgo/proxy-places-62c66a7a5dd7.toml
        --config
        /etc/gorgo/proxy-rules-a9e2c0f6b3a5.toml
        --audit
        /var/lib/gorgo/proxy/audit.jsonl
        ");
        let journal = Front { audit: Some("stderr".into()), ..Front::default() };
        assert_eq!(journal.argv(Role::Agent), ["--audit", "stderr"]);
        assert_eq!((journal.scheme(), front("k", "m").scheme()), ("http", "https"));
    }

    #[tokio::test]
    async fn files_are_brought_once_and_a_changed_one_is_seen() {
        let (mut desired, fakes, members) = fleet(1);
        let fake = &fakes[0];
        desired.front = front("hush keys", "hush map");
        desired.proxies = vec![router_on(1)];
        let first = steps(&desired, fake).await;
        assert!(!first.contains("hush"), "{first}");
        assert!(first.contains("a secret -> /etc/gorgo/agent-tls-key.pem.new (0600)"), "{first}");
        set_up(&desired, &members).await;
        assert_settled(&desired, &members).await;
        for role in ["agent", "proxy"] {
            let names = names(fake, role);
            assert_eq!(names.len(), 5, "{names:?}");
            let argv = fake.change(|state| state.services[&format!("gorgo-{role}.service")].unit.argv.clone());
            assert!(argv.contains(&format!("/etc/gorgo/{role}-api-keys.toml")), "{argv:?}");
        }
        let unit = fake.change(|state| state.services["gorgo-proxy.service"].unit.unit_text.clone());
        assert_eq!(unit.matches("/etc/gorgo/proxy.pem /etc/gorgo/proxy-tls-certificate.pem ").count(), 2, "{unit}");

        // Keys are followed: nothing is started anew.
        desired.front = front("other keys", "hush map");
        assert_snapshot!(steps(&desired, fake).await, @r#"
        node1: 1. upload keys.toml as the API keys of agent
               a secret -> /etc/gorgo/agent-api-keys.toml.new (0600)
        node1: 2. put /etc/gorgo/agent-api-keys.toml in its place
               sudo sh -c 'set -e; if [ -d "$2/." ]; then chown --reference="$2/." "$1.new"; fi; chmod 0400 "$1.new"; sync -f "$1.new"; mv -f "$1.new" "$1"' take /etc/gorgo/agent-api-keys.toml /var/lib/gorgo/agent
        node1: 3. upload keys.toml as the API keys of proxy
               a secret -> /etc/gorgo/proxy-api-keys.toml.new (0600)
        node1: 4. put /etc/gorgo/proxy-api-keys.toml in its place
               sudo sh -c 'set -e; if [ -d "$2/." ]; then chown --reference="$2/." "$1.new"; fi; chmod 0400 "$1.new"; sync -f "$1.new"; mv -f "$1.new" "$1"' take /etc/gorgo/proxy-api-keys.toml /var/lib/gorgo/proxy
        "#);
        let outdated = desired.front.outdated(Role::Agent, &see(fake).await);
        assert_eq!(outdated, ["API keys of gorgo-agent.service: are not those of keys.toml"]);
        set_up(&desired, &members).await;
        assert_settled(&desired, &members).await;

        // A map is read at the start; the one of before goes.
        desired.front = front("other keys", "other map");
        let plan = setup(&desired, &fake.spec, &see(fake).await);
        assert_eq!(plan.interrupts(&see(fake).await).len(), 2, "agent and proxy");
        set_up(&desired, &members).await;
        assert_settled(&desired, &members).await;
        assert_eq!(names(fake, "agent").len(), 5);
    }

    #[tokio::test]
    async fn other_rules_start_the_routers_anew_and_those_of_before_go() {
        let (mut desired, fakes, members) = fleet(2);
        desired.proxies = vec![router_on(1)];
        let rules = |text: &str| Front { files: vec![file(FrontKind::Rules, "`[residency]`", text)], audit: None };
        desired.front = rules("eu");
        set_up(&desired, &members).await;
        assert_settled(&desired, &members).await;
        let argv = |unit: &str| fakes[0].change(|state| state.services[unit].unit.argv.clone());
        for (unit, role) in [("gorgo-agent.service", Role::Agent), ("gorgo-proxy.service", Role::Proxy)] {
            let (argv, path) = (argv(unit), desired.front.files[0].path(role));
            assert!(argv.windows(2).any(|pair| pair == ["--config", path.as_str()]), "{argv:?}");
            assert!(argv.contains(&"--region".to_owned()), "what leaves it is written down: {argv:?}");
        }

        desired.front = rules("eu and ch");
        for fake in &fakes {
            let facts = see(fake).await;
            let outdated = desired.front.outdated(Role::Agent, &facts);
            assert_eq!(
                outdated,
                ["residency rules of gorgo-agent.service: are missing; wanted those of `[residency]`"]
            );
            assert!(!setup(&desired, &fake.spec, &facts).interrupts(&facts).is_empty(), "rules are read at the start");
        }
        set_up(&desired, &members).await;
        assert_settled(&desired, &members).await;
        assert_eq!([names(&fakes[0], "agent").len(), names(&fakes[0], "proxy").len()], [1, 1]);
    }

    #[tokio::test]
    async fn what_is_not_wanted_any_more_goes() {
        let (mut desired, fakes, members) = fleet(1);
        let fake = &fakes[0];
        desired.front = front("k", "m");
        desired.proxies = vec![router_on(1)];
        set_up(&desired, &members).await;
        let removal = dry_run(&[remove_proxy(&fake.spec, &see(fake).await)]);
        assert_eq!(removal.matches("remove /etc/gorgo/proxy-").count(), 5, "{removal}");
        // A run that was cut short has left half of a file.
        fake.change(|state| state.files.insert("/etc/gorgo/agent-tls-key.pem.new".into(), b"half".to_vec()));
        desired.front = Front::default();
        set_up(&desired, &members).await;
        assert_settled(&desired, &members).await;
        assert_eq!((names(fake, "agent").len(), names(fake, "proxy").len()), (0, 0));
    }

    #[tokio::test]
    async fn a_restart_of_agents_brings_what_their_definition_names() {
        let (mut desired, fakes, members) = fleet(1);
        set_up(&desired, &members).await;
        desired.front = Front { files: vec![file(FrontKind::ApiKeys, "keys.toml", "k")], audit: None };
        let facts = see(&fakes[0]).await;
        let text = dry_run(&[agent_restart(&desired, &fakes[0].spec, &facts)]);
        let (brought, started) = (text.find("upload keys.toml"), text.find("restart gorgo-agent.service"));
        assert!(brought.is_some() && brought < started, "{text}");
        let missing = desired.front.outdated(Role::Agent, &facts);
        assert_eq!(missing, ["API keys of gorgo-agent.service: are missing; wanted those of keys.toml"]);
        for role in [Role::Engine, Role::Proxy] {
            assert!(desired.front.outdated(role, &facts).is_empty(), "an engine needs none, and there is no proxy");
        }
    }
}
