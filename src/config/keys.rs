//! Every key of `gorgo.toml` with its type, default and meaning: what the reader checks against and what the schema prints.

use super::fleet::PROVIDERS;
use super::replica::{ENGINES, REPLICAS};
use crate::routing::Late;

/// A table of the file.
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub help: &'static str,
    /// Its shape.
    pub shape: Shape,
}

/// The shapes of a table.
pub enum Shape {
    /// `[name]` with known keys.
    One(&'static [Key]),
    /// `[[name]]`, repeatable, with known keys.
    Many(&'static [Key]),
    /// `[name]` with keys of the user's own and values of one kind.
    Open(Kind),
}

/// One key.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What may be written.
    pub kind: Kind,
    /// Value if it is absent, as TOML; empty = none.
    pub default: &'static str,
    /// What it means, with its unit.
    pub help: &'static str,
    /// Its table is worth nothing without it.
    pub required: bool,
}

/// What may be written as a value.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Text.
    Text,
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// A whole number in a range, ends included.
    Whole(u64, u64),
    /// A number in a range, ends included.
    Number(f64, f64),
    /// A list of texts.
    Texts,
    /// A table with keys of the user's own and numbers.
    Numbers,
    /// Tables with known keys, repeatable.
    Tables(&'static [Key]),
    /// A table with names of the user's own and tables with known keys.
    Named(&'static [Key]),
}

/// Longest time that can be configured, ms: a day.
const DAY_MS: u64 = 86_400_000;

/// Keys of `[[provider.hosts]]`.
const HOST_KEYS: [Key; 7] = [
    needed("name", Kind::Text, "Unique name (required)"),
    needed(
        "address",
        Kind::Text,
        "Where ssh connects to: an address, a host name or an alias of ssh's own configuration (required)",
    ),
    needed("region", Kind::Text, "Where it stands, e.g. `us-east-1` (required)"),
    key("port", Kind::Whole(1, 65_535), "", "Port of sshd; absent = that of `[provider]`"),
    key("user", Kind::Text, "", "Login name; absent = that of `[provider]`"),
    key("key", Kind::Text, "", "Private key file; absent = that of `[provider]`"),
    key("type", Kind::Text, "", "What it is, in words of your own, e.g. a GPU"),
];

/// Keys of `[slo.class.NAME]`.
const CLASS_KEYS: [Key; 3] = [
    key("ttft_ms", Kind::Whole(1, DAY_MS), "", "Longest time to first token, ms; absent = that of `[slo]`"),
    key(
        "weight",
        Kind::Number(0.001, 1000.0),
        "1.0",
        "Share of the service, to those of others, while requests wait in the router",
    ),
    key("late", Kind::OneOf(&Late::WORDS), "", "What becomes of those who cannot make it; absent = that of `[slo]`"),
];

/// Every table, in the order in which people are told.
pub const SECTIONS: [Section; 11] = [
    Section {
        name: "cluster",
        help: "What the nodes and replicas have in common",
        shape: Shape::One(&[
            key(
                "name",
                Kind::Text,
                "\"gorgo\"",
                "Name of the cluster: that of its inventory and its firewall rulesets",
            ),
            key(
                "strategy",
                Kind::Text,
                "\"predictive\"",
                "Strategy that decides where a request goes; `gorgo proxy policy` lists them. On agents `gorgo` means `gorgo-v1`",
            ),
            key(
                "engine",
                Kind::OneOf(&ENGINES),
                "",
                "Kind of engine of replicas that name none; absent = found out by asking each",
            ),
            key("model", Kind::Text, "", "Model that replicas serve which name none; absent = any"),
        ]),
    },
    Section {
        name: "provider",
        help: "Where the machines of the cluster come from",
        shape: Shape::One(&[
            key(
                "kind",
                Kind::OneOf(&PROVIDERS),
                "\"lambda\"",
                "`lambda` rents them, `hosts` are yours already, `local` are processes on this machine",
            ),
            key(
                "user",
                Kind::Text,
                "",
                "Login name on machines that name none; absent = `ubuntu` at lambda, else what ssh thinks",
            ),
            key(
                "port",
                Kind::Whole(1, 65_535),
                "",
                "Port of sshd on machines that name none; absent = what ssh thinks",
            ),
            key(
                "key",
                Kind::Text,
                "",
                "Private key file for machines that name none; absent = the agent and ssh's own choice",
            ),
            key("hosts", Kind::Tables(&HOST_KEYS), "", "Machines that you have, for `kind = \"hosts\"` (repeatable)"),
        ]),
    },
    Section {
        name: "engine",
        help: "How `gorgo cluster setup` starts SGLang or vLLM in a container",
        shape: Shape::One(&[
            key(
                "image",
                Kind::Text,
                "",
                "Container image, `NAME:TAG`; absent = chosen by the engine and the driver's version",
            ),
            key(
                "arguments",
                Kind::Texts,
                "",
                "More arguments for the engine, after gorgo's own; what gorgo sets itself (host, port, model, metrics) is refused",
            ),
            key(
                "kv_events",
                Kind::Switch,
                "true",
                "The engine publishes what enters and leaves its prefix cache, on a socket of its machine",
            ),
        ]),
    },
    Section {
        name: "node",
        help: "One machine that `gorgo launch` is to get (repeatable)",
        shape: Shape::Many(&[
            needed("name", Kind::Text, "Unique name (required)"),
            needed("type", Kind::Text, "Type, e.g. `gpu_1x_a100`; `gorgo available` lists them (required)"),
            needed("region", Kind::Text, "Where, e.g. `us-east-1` (required)"),
        ]),
    },
    Section {
        name: "replica",
        help: "One inference engine for `gorgo proxy start` (repeatable)",
        shape: Shape::Many(&[
            needed("name", Kind::Text, "Unique name (required)"),
            needed("url", Kind::Text, "Base URL, e.g. `http://10.0.0.5:30000` (required)"),
            needed("region", Kind::Text, "Where it stands, e.g. `us-east-1` (required)"),
            key(
                "engine",
                Kind::OneOf(&REPLICAS),
                "",
                "Kind of engine, or `agent` for a node's agent, which answers with its own engine; absent = that of `[cluster]`",
            ),
            key("models", Kind::Texts, "", "Models that it serves; absent = that of `[cluster]`, or any"),
            key(
                "kv_tokens",
                Kind::Whole(1, i64::MAX as u64),
                "",
                "KV cache capacity, tokens; absent = what the engine says",
            ),
            key(
                "prefill_ms_per_token",
                Kind::Number(0.0, 1e6),
                "",
                "Prefill time per uncached token, ms; absent = the strategy's rate",
            ),
            key(
                "queue_ms_per_token",
                Kind::Number(0.0, 1e6),
                "",
                "Queueing time per queued token, ms; absent = the strategy's rate",
            ),
            key(
                "api_key_file",
                Kind::Text,
                "",
                "File (mode 0600) with the API key that the engine wants; it takes the place of the client's",
            ),
        ]),
    },
    Section {
        name: "routing",
        help: "How decisions are made",
        shape: Shape::One(&[
            key(
                "weights",
                Kind::Numbers,
                "",
                "Weights and rates of the strategy by key; `gorgo proxy tune` lists them",
            ),
            key(
                "max_concurrent",
                Kind::Whole(1, u32::MAX as u64),
                "",
                "Hold requests in the router while every replica has this many running or 95 % of its KV cache in use; takes the place of the gate of gorgo-proxy (10). Absent = the strategy's own rule",
            ),
            key("queue_limit", Kind::Whole(0, 10_000_000), "10000", "Most requests in the router's queue"),
            key("queue_timeout_ms", Kind::Whole(1, DAY_MS), "60000", "Longest wait in the router's queue, ms"),
            key(
                "max_attempts",
                Kind::Whole(1, 100),
                "3",
                "Most replicas that one request is tried at, where each fails before its first byte",
            ),
            key("seed", Kind::Whole(0, i64::MAX as u64), "0", "Seed of the strategies that draw lots"),
            key(
                "inject_usage",
                Kind::Switch,
                "false",
                "Ask engines for usage in streams whose clients did not, and take the extra event out again",
            ),
        ]),
    },
    Section {
        name: "slo",
        help: "What is promised to requests, by class of service, for a strategy that predicts times; nothing by default. A request names its class in the header `x-gorgo-class`, or its API key has one",
        shape: Shape::One(&[
            key(
                "ttft_ms",
                Kind::Whole(1, DAY_MS),
                "",
                "Longest time to first token, ms, of requests without a class and of classes that name none; twice that for prompts that are cached for the most part. Absent = nobody is late",
            ),
            key(
                "itl_ms",
                Kind::Whole(1, DAY_MS),
                "",
                "Longest mean gap between the tokens of an answer, ms, for the metric `gorgo_slo_requests_total`; nobody is refused for it",
            ),
            key(
                "late",
                Kind::OneOf(&Late::WORDS),
                "\"refuse\"",
                "What becomes of a request whose first token is predicted to come too late: `refuse` answers 429 at once, `defer` lets it wait in the router behind those who can be in time",
            ),
            key("class", Kind::Named(&CLASS_KEYS), "", "Classes of service, each as `[slo.class.NAME]`"),
        ]),
    },
    Section {
        name: "residency",
        help: "Residency classes, given by API key, by request header `x-gorgo-residency` or by model: name = list of region patterns, `*` stands for any text. A region has to be allowed by all classes of a request; a class that is not listed is refused",
        shape: Shape::Open(Kind::Texts),
    },
    Section {
        name: "residency_by_model",
        help: "Residency classes of models: pattern of the model's name = class of `[residency]`, `*` stands for any text. A request that names no model has the classes of all of them",
        shape: Shape::Open(Kind::Text),
    },
    Section {
        name: "addresses",
        help: "More addresses that a node's connections come from, e.g. that of its NAT: name of the node = list of addresses. Its certificate names them, beside the one that it is reached by and the private one that the provider tells",
        shape: Shape::Open(Kind::Texts),
    },
    Section {
        name: "proxy",
        help: "The central router's addresses and limits",
        shape: Shape::One(&[
            key("listen", Kind::Text, "\"127.0.0.1:8000\"", "Address for requests; port 0 = any free one"),
            key(
                "admin",
                Kind::Text,
                "\"127.0.0.1:8001\"",
                "Address of the admin API; others than loopback want `admin_token_file`",
            ),
            key(
                "admin_token_file",
                Kind::Text,
                "",
                "File (mode 0600) with the token that the admin API asks for: 32 characters or more; a changed file is taken within a second",
            ),
            key(
                "region",
                Kind::Text,
                "",
                "Where a central router stands, for the audit log: what leaves this region is written down; absent = not known, so everything is. An agent has `--region`",
            ),
            key(
                "tls_certificate",
                Kind::Text,
                "",
                "File with certificate and chain (PEM): requests come over TLS 1.2 or 1.3; a renewed file is taken within a second",
            ),
            key("tls_key", Kind::Text, "", "File with the certificate's private key (PEM, not readable by everybody)"),
            key(
                "api_keys",
                Kind::Text,
                "",
                "File of API keys: requests are taken with one of them only; `gorgo proxy keys` makes and revokes them",
            ),
            key(
                "places",
                Kind::Text,
                "",
                "File of a map for strategy `geo` (TOML): `[places]` name = \"degrees north,degrees east\", `[clients]` network, address or `key:NAME` of an API key = coordinates or a place",
            ),
            key(
                "audit",
                Kind::Text,
                "",
                "Where refusals and what leaves the region are written down, as JSON lines: `stderr`, `off` or a file. Absent = `stderr` if there are residency classes, else `off`",
            ),
            key("max_connections", Kind::Whole(1, 1_000_000), "16384", "Client connections at once; more wait"),
            key("max_body_bytes", Kind::Whole(1, 1 << 34), "67108864", "Largest request body, bytes (else 413)"),
            key(
                "max_bodies_bytes",
                Kind::Whole(1, 1 << 40),
                "1073741824",
                "Most bytes of all request bodies at once, read, held or sent (else 503)",
            ),
            key("max_header_bytes", Kind::Whole(1_024, 1 << 20), "65536", "Largest request head, bytes (else 431)"),
            key("header_timeout_ms", Kind::Whole(1, DAY_MS), "30000", "Longest time for a request head, ms"),
            key("body_timeout_ms", Kind::Whole(1, DAY_MS), "30000", "Longest pause inside a request body, ms"),
            key("body_total_timeout_ms", Kind::Whole(1, DAY_MS), "300000", "Longest time for a whole request body, ms"),
            key(
                "keep_alive_ms",
                Kind::Whole(1, DAY_MS),
                "120000",
                "Longest time that a client connection stays open without a request, ms",
            ),
            key(
                "write_timeout_ms",
                Kind::Whole(1, DAY_MS),
                "120000",
                "Longest time that a client may take nothing of an answer that is there for it, ms",
            ),
            key(
                "upstream_timeout_ms",
                Kind::Whole(1, DAY_MS),
                "600000",
                "Longest silence of an engine: until the first byte of its answer, or inside it, ms",
            ),
            key(
                "stream_timeout_ms",
                Kind::Whole(1, DAY_MS),
                "60000",
                "Longest silence inside an answer after its first token, if shorter, ms",
            ),
            key(
                "drain_timeout_ms",
                Kind::Whole(0, DAY_MS),
                "120000",
                "Longest time that draining waits for the requests that came before it, ms",
            ),
            key(
                "rtt_every_ms",
                Kind::Whole(10, DAY_MS),
                "1000",
                "Time between two round-trip probes, which are the health checks as well, ms",
            ),
            key(
                "gauges_every_ms",
                Kind::Whole(10, DAY_MS),
                "500",
                "Time between two readings of an engine's metrics, ms",
            ),
            key(
                "decisions_kept",
                Kind::Whole(0, 1_000_000),
                "1024",
                "Requests whose decisions are kept for `gorgo proxy explain`",
            ),
        ]),
    },
];

/// Keeps the table above one line per key.
const fn key(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, kind, default, help, required: false }
}

/// A key that must be there.
const fn needed(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, default: "", help, required: true }
}

impl Section {
    /// Its known keys; none if they are the user's own.
    #[must_use]
    pub fn keys(&self) -> &'static [Key] {
        match self.shape {
            Shape::One(keys) | Shape::Many(keys) => keys,
            Shape::Open(_) => &[],
        }
    }
}

/// A table by its name.
pub(super) fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// The default of a key path such as `proxy.listen`, as TOML; `None` if it has none.
pub(super) fn default(path: &str) -> Option<&'static str> {
    let (table, name) = path.split_once('.')?;
    let key = section(table)?.keys().iter().find(|key| key.name == name)?;
    (!key.default.is_empty()).then_some(key.default)
}
