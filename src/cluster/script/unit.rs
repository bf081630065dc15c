//! Services: their command lines and their unit files from `templates/`. Pure.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::BTreeMap;

use super::super::certificate;
use super::super::desired::{Desired, NodeSpec, ProxySpec};
use super::super::facts::Facts;
use super::super::layout::{BINARY, Role};
use super::engine;
use crate::remote::ServiceUnit;

const AGENT: &str = include_str!("../../../templates/gorgo-agent.service");
const ENGINE: &str = include_str!("../../../templates/gorgo-engine.service");
const PROXY: &str = include_str!("../../../templates/gorgo-proxy.service");

/// First systemd that can stretch the pause between restarts.
const SYSTEMD_WITH_STEPS: u32 = 254;
/// From SIGTERM to SIGKILL for a router, s: longer than its drain of 120 s.
const ROUTER_STOP_S: u32 = 130;
/// The same for an engine, s: it has nobody to hand its requests to.
const ENGINE_STOP_S: u32 = 30;

/// The engine of a node.
#[must_use]
pub fn engine(node: &NodeSpec, facts: &Facts) -> ServiceUnit {
    let argv = engine::argv(node, facts);
    let contained = node.engine.container().is_some();
    let remove = if contained { engine::remove_container() } else { String::new() };
    let more = [
        ("after", if contained { "docker.service" } else { "" }.to_owned()),
        ("user", if contained { "root" } else { "gorgo-engine" }.to_owned()),
        ("dynamic_user", if contained { "no" } else { "yes" }.to_owned()),
        ("before_start", remove.clone()),
        ("after_stop", remove),
    ];
    unit(Role::Engine, node, facts, argv, &more)
}

/// The agent of a node.
#[must_use]
pub fn agent(desired: &Desired, node: &NodeSpec, facts: &Facts) -> ServiceUnit {
    let owned = ("owned", owned(desired, Role::Agent));
    unit(Role::Agent, node, facts, agent_argv(desired, node), &[owned])
}

/// The central router of a node.
#[must_use]
pub fn proxy(desired: &Desired, proxy: &ProxySpec, node: &NodeSpec, facts: &Facts) -> ServiceUnit {
    let owned = ("owned", owned(desired, Role::Proxy));
    unit(Role::Proxy, node, facts, proxy_argv(desired, proxy, node), &[owned])
}

/// Command line of the agent. The other agents of the cluster are its peers.
#[must_use]
pub fn agent_argv(desired: &Desired, node: &NodeSpec) -> Vec<String> {
    let mut argv = vec![BINARY.to_owned(), "agent".to_owned()];
    let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
    option("--name", node.name.clone());
    option("--region", node.region.to_string());
    option("--engine", format!("http://127.0.0.1:{}", node.ports.engine));
    option("--engine-kind", node.engine.description().name.to_owned());
    option("--listen", node.requests(desired.is_open()).to_string());
    option("--admin", format!("127.0.0.1:{}", node.ports.agent_admin));
    option("--peer-listen", node.peer_listen().to_string());
    option("--identity", identity(Role::Agent));
    let balance = desired.balance(&node.name);
    option("--strategy", balance.strategy);
    if let Some(limit) = balance.max_concurrent {
        option("--max-concurrent", limit.to_string());
    }
    for (key, value) in balance.weights {
        option("--set", format!("{key}={value}"));
    }
    for peer in desired.nodes.iter().filter(|peer| peer.name != node.name) {
        option("--peer", format!("name={},url={},region={}", peer.name, peer.peer_url(), peer.region));
    }
    argv.extend(desired.front.argv(Role::Agent));
    if desired.allow_public_plaintext && !node.is_private() {
        argv.push("--allow-public-plaintext".to_owned());
    }
    argv
}

/// Command line of the central router. The agents are its replicas, since engines listen on loopback only; what it sends to one is served
/// there, because its certificate says that it is a router of the cluster.
#[must_use]
pub fn proxy_argv(desired: &Desired, proxy: &ProxySpec, node: &NodeSpec) -> Vec<String> {
    let mut argv = vec![BINARY.to_owned(), "proxy".to_owned(), "start".to_owned()];
    let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
    option("--listen", proxy.listen.to_string());
    option("--admin", format!("127.0.0.1:{}", node.ports.proxy_admin));
    option("--strategy", proxy.strategy.clone());
    if let Some(limit) = proxy.max_concurrent {
        option("--max-concurrent", limit.to_string());
    }
    for replica in &desired.nodes {
        let url = if replica.name == node.name { local(replica) } else { replica.peer_url() };
        option("--replica", format!("name={},url={url},region={},engine=agent", replica.name, replica.region));
    }
    option("--identity", identity(Role::Proxy));
    // What leaves this region is written down.
    if desired.front.needs_region() {
        option("--region", node.region.to_string());
    }
    argv.extend(desired.front.argv(Role::Proxy));
    if desired.allow_public_plaintext && !proxy.is_private() {
        argv.push("--allow-public-plaintext".to_owned());
    }
    argv
}

/// Where the agent of the same machine is reached.
fn local(node: &NodeSpec) -> String {
    let listen = node.peer_listen();
    let address = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    format!("mtls://{}", SocketAddr::new(address, listen.port()))
}

/// The file with a service's certificate.
fn identity(role: Role) -> String {
    certificate::file(role).expect("agents and proxies have one")
}

/// The files that a service has while it runs.
fn owned(desired: &Desired, role: Role) -> String {
    let files = [identity(role)].into_iter().chain(desired.front.paths(role));
    files.collect::<Vec<_>>().join(" ")
}

fn unit(role: Role, node: &NodeSpec, facts: &Facts, argv: Vec<String>, more: &[(&str, String)]) -> ServiceUnit {
    let description = format!("gorgo {role} of node {}", node.name);
    let stop = if role == Role::Engine { ENGINE_STOP_S } else { ROUTER_STOP_S };
    let steps = facts.systemd.is_some_and(|version| version >= SYSTEMD_WITH_STEPS);
    let backoff = if steps { "RestartSteps=6\nRestartMaxDelaySec=60s" } else { "" };
    let mut values = vec![
        ("description", specifiers(&description)),
        ("command", argv.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")),
        ("environment_file", role.environment_file()),
        ("stop_timeout_s", stop.to_string()),
        ("backoff", backoff.to_owned()),
    ];
    values.extend(more.iter().cloned());
    let template = match role {
        Role::Engine => ENGINE,
        Role::Agent => AGENT,
        Role::Proxy => PROXY,
    };
    let state = format!("{}/{role}", super::STATE);
    let environment = BTreeMap::from([("GORGO_STATE_DIR".to_owned(), state)]);
    ServiceUnit { description, argv, environment, unit_text: render(template, &values) }
}

/// Fills the template. A placeholder without a value, or a value without a placeholder, is a fault of this program: tests render all.
fn render(template: &str, values: &[(&str, String)]) -> String {
    let mut rendered = String::with_capacity(template.len() + 1024);
    let mut rest = template;
    let mut used = 0;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("templates close what they open");
        let value = values.iter().find(|(key, _)| *key == name);
        let (_, value) = value.unwrap_or_else(|| panic!("the template's placeholder `{name}` has a value"));
        debug_assert!(name == "backoff" || !value.contains('\n'), "{name} is one line");
        rendered.push_str(before);
        rendered.push_str(value);
        rest = after;
        used += 1;
    }
    debug_assert!(used >= values.len(), "every value has a placeholder");
    rendered + rest
}

/// One argument as systemd reads it in `ExecStart=`.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped = word.replace('\\', r"\\").replace('"', r#"\""#).replace('$', "$$");
    format!("\"{}\"", specifiers(&escaped))
}

/// `%` begins a specifier in unit files.
fn specifiers(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::{quote, render};

    #[test]
    fn arguments_are_quoted_for_systemd() {
        let cases = [
            ("--listen", "--listen"),
            ("name=a,url=http://1.2.3.4:8000,region=us-east-1", "name=a,url=http://1.2.3.4:8000,region=us-east-1"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            (r#"{"a":1}"#, r#""{\"a\":1}""#),
            ("$HOME 5%", r#""$$HOME 5%%""#),
            (r"a\b", r#""a\\b""#),
            (";", r#"";""#),
        ];
        for (word, expected) in cases {
            assert_eq!(quote(word), expected);
        }
    }

    #[test]
    fn values_are_put_in_as_they_are() {
        let values = [("a", "{{b}}".to_owned()), ("b", "x".to_owned())];
        assert_eq!(render("1 {{a}} 2 {{b}} 3 {{a}}", &values), "1 {{b}} 2 x 3 {{b}}");
    }

    #[test]
    #[should_panic(expected = "placeholder `c` has a value")]
    fn a_placeholder_without_a_value_is_found() {
        render("{{c}}", &[]);
    }
}
